"""States, errors and figures → lines of HTML. Pure: no state, no engine, no events."""

from __future__ import annotations

import json
from html import escape
from typing import assert_never

from omni_backend import (
    Backend,
    BackendError,
    Capabilities,
    Done,
    Failed,
    Language,
    Loading,
    Phrase,
    Ready,
    phrase,
)
from omni_ui.sessions import Entry
from omni_ui.turn import Answer


def waiting(answer: Answer, backend: Backend, language: Language) -> str:
    """One line under the live bubble: what the answer waits for, or nothing once it is being read."""
    if answer.ended or answer.text:
        return ""
    match backend.status:
        case Loading():
            key = "ui.waits_for_model"
        case Failed():
            return ""  # the error follows
        case Ready() if answer.started:
            key = "ui.thinking"
        case Ready() if backend.active_requests > backend.capabilities.max_concurrency:
            key = "ui.waits_for_others"
        case Ready():
            key = "ui.reading"
    return _line(phrase(key), language, "omni-waiting")


def figures(entry: Entry, language: Language) -> str:
    """One quiet line about a finished answer: how fast it came."""
    if entry.done is None:
        return ""
    timing, usage = entry.done.timing, entry.done.usage
    parts: list[Phrase] = []
    if timing.first_text is not None:
        parts.append(phrase("ui.metric_first_text", seconds=f"{timing.first_text:.2f}"))
    if timing.first_audio is not None:
        parts.append(phrase("ui.metric_first_sound", seconds=f"{timing.first_audio:.2f}"))
    if (rate := tokens_per_second(entry.done)) is not None:
        parts.append(phrase("ui.metric_rate", rate=f"{rate:.1f}"))
    if entry.speech_seconds:
        parts.append(phrase("ui.metric_real_time", factor=f"{timing.total / entry.speech_seconds:.2f}"))
    title = phrase("ui.metric_tokens", prompt=usage.prompt_tokens, answer=usage.completion_tokens)
    line = " · ".join(escape(part.text(language)) for part in parts)
    return f'<span class="omni-metrics" title="{escape(title.text(language))}">{line}</span>'


def tokens_per_second(done: Done) -> float | None:
    """How fast the text was written once it had begun; None when that cannot be told."""
    first, last = done.timing.first_text, done.timing.last_text
    if first is None or last is None or last <= first or done.usage.completion_tokens < 2:
        return None
    return (done.usage.completion_tokens - 1) / (last - first)


def notes(said: tuple[Phrase, ...], language: Language) -> str:
    """What the visitor should know about the conversation, line by line."""
    return "".join(_line(note, language, "omni-notice") for note in said)


def error(problem: BackendError | Phrase, language: Language) -> str:
    """An error as one sentence, its technical cause folded away."""
    if isinstance(problem, Phrase):
        return f'<div role="alert" class="omni-error">{escape(problem.text(language))}</div>'
    detail = ""
    if problem.detail:
        summary = escape(phrase("ui.detail").text(language))
        detail = f"<details><summary>{summary}</summary><code>{escape(problem.detail)}</code></details>"
    return f'<div role="alert" class="omni-error">{escape(problem.text(language))}{detail}</div>'


def status(backend: Backend, language: Language) -> str:
    """The engine's state: a step with a bar while it loads, then one quiet line."""
    match backend.status:
        case Loading(step, fraction):
            value = "" if fraction is None else f' value="{fraction:.3f}"'
            name = escape(phrase("ui.loading").text(language))
            text = escape(step.text(language))
            return (
                f'<div class="omni-loading"><span>{text}</span><progress aria-label="{name}"{value}></progress></div>'
            )
        case Failed(problem):
            return error(problem, language)
        case Ready():
            return _ready(backend.capabilities, language)
        case never:
            assert_never(never)


def _ready(can: Capabilities, language: Language) -> str:
    line = escape(phrase("ui.ready", model=can.model, engine=can.engine).text(language))
    missing = {kind: reason.text(language) for kind, reason in can.missing_inputs.items()}
    shown = f'<p class="omni-ready" data-missing="{escape(json.dumps(missing))}">{line}</p>'
    return shown + notes(can.notices, language)


def _line(text: Phrase, language: Language, css: str) -> str:
    return f'<p class="{css}">{escape(text.text(language))}</p>'
