"""Conversations, answers, states and errors → what Gradio shows. Pure: no state, no engine, no events."""

from __future__ import annotations

from html import escape
from typing import Any, assert_never

import gradio as gr

from omni_backend import (
    Backend,
    BackendError,
    Capabilities,
    Failed,
    Language,
    Loading,
    MediaPart,
    Message,
    Phrase,
    Ready,
    TextPart,
    phrase,
)
from omni_ui.sessions import Entry
from omni_ui.turn import Answer

Bubble = dict[str, Any]
"""One message of a gr.Chatbot."""


def history(entries: tuple[Entry, ...], language: Language) -> list[Bubble]:
    """The whole conversation for the Chatbot."""
    bubbles: list[Bubble] = []
    for entry in entries:
        if entry.reasoning:
            bubbles.append(_thought(entry.reasoning, language, pending=False))
        bubbles.append({"role": entry.message.role, "content": _content(entry, language)})
    return bubbles


def live(answer: Answer, language: Language) -> list[Bubble]:
    """The growing answer for the live Chatbot; empty while there is nothing to read."""
    bubbles: list[Bubble] = []
    if answer.reasoning:
        bubbles.append(_thought(answer.reasoning, language, pending=not answer.text and not answer.ended))
    if answer.text:
        bubbles.append({"role": "assistant", "content": answer.text})
    return bubbles


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


def metrics(answer: Answer, language: Language) -> str:
    """One quiet line about a finished answer: how fast it came and how long it is."""
    if answer.done is None:
        return ""
    timing, usage = answer.done.timing, answer.done.usage
    parts: list[Phrase] = []
    if timing.first_text is not None:
        parts.append(phrase("ui.metric_first_text", seconds=f"{timing.first_text:.2f}"))
    if timing.first_audio is not None:
        parts.append(phrase("ui.metric_first_sound", seconds=f"{timing.first_audio:.2f}"))
    parts.append(phrase("ui.metric_tokens", prompt=usage.prompt_tokens, answer=usage.completion_tokens))
    if answer.speech_seconds:
        parts.append(phrase("ui.metric_speech", seconds=f"{answer.speech_seconds:.1f}"))
    parts.append(phrase("ui.metric_total", seconds=f"{timing.total:.1f}"))
    return f'<p class="omni-metrics">{" · ".join(escape(part.text(language)) for part in parts)}</p>'


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


def no_speech(can: Capabilities, language: Language) -> str | None:
    """Why answers cannot be spoken; None when they can."""
    if "audio" in can.outputs:
        return None
    return (can.missing_outputs.get("audio") or phrase("ui.no_speech")).text(language)


def draft(message: Message) -> dict[str, Any]:
    """A message as the composer's value, so that nothing is lost."""
    files = [part.path for part in message.content if isinstance(part, MediaPart)]
    return {"text": message.text, "files": files}


def _ready(can: Capabilities, language: Language) -> str:
    line = phrase("ui.ready", model=can.model, engine=can.engine)
    notices = "".join(_line(notice, language, "omni-notice") for notice in can.notices)
    return _line(line, language, "omni-ready") + notices


def _line(text: Phrase, language: Language, css: str) -> str:
    return f'<p class="{css}">{escape(text.text(language))}</p>'


def _thought(reasoning: str, language: Language, *, pending: bool) -> Bubble:
    title = phrase("ui.thoughts").text(language)
    return {
        "role": "assistant",
        "content": reasoning,
        "metadata": {"title": title, "status": "pending" if pending else "done"},
    }


def _content(entry: Entry, language: Language) -> list[Any]:
    content: list[Any] = []
    for part in entry.message.content:
        match part:
            case TextPart(text):
                content += [text] if text else []
            case MediaPart():
                content.append({"path": part.path, "alt_text": part.label})
            case _:
                assert_never(part)
    if entry.sound is not None:
        content.append(gr.Audio(str(entry.sound), show_label=False, container=False, buttons=["download"]))
    marks = [*entry.notices, *([entry.mark] if entry.mark else [])]
    content += [f"*{mark.text(language)}*" for mark in marks]
    return content
