"""Conversations → messages of a gr.Chatbot. Pure: no state, no engine, no events.

People's words, media and the line under each message are HTML of our own, so that they have names, work by keyboard
and stay literal; only the model's words are Markdown. The buttons carry what `static/turns.js` needs to know.
"""

from __future__ import annotations

from html import escape
from typing import Any, Final, assert_never
from urllib.parse import quote

import gradio as gr

from omni_backend import Language, MediaPart, TextPart, phrase
from omni_ui.render import figures
from omni_ui.sessions import Entry
from omni_ui.turn import Answer

Bubble = dict[str, Any]
"""One message of a gr.Chatbot."""

FILE_ROUTE: Final = "gradio_api/file="
"""Where Gradio hands out files, relative to the page, so that it works under any path."""


def history(entries: tuple[Entry, ...], language: Language) -> list[Bubble]:
    """The whole conversation."""
    bubbles: list[Bubble] = []
    asked = 0
    for index, entry in enumerate(entries):
        if entry.message.role == "user":
            asked = index
            bubbles.append({"role": "user", "content": [_html(_question(entry, index, language))]})
        else:
            last = entry is entries[-1]
            bubbles.append({"role": "assistant", "content": _answer(entry, asked, language, last=last)})
    return bubbles


def live(answer: Answer) -> list[Bubble]:
    """The growing answer; empty while there is nothing to read."""
    return [{"role": "assistant", "content": [_text(answer.text)]}] if answer.text else []


def thoughts(reasoning: str) -> str:
    """What the model thinks, as it is."""
    return f'<div class="omni-thoughts">{escape(reasoning)}</div>' if reasoning else ""


def media(part: MediaPart) -> str:
    """A file to look at or to listen to, with its name, which leads to the file."""
    url, name = escape(FILE_ROUTE + quote(part.path)), escape(part.label)
    match part.type:
        case "image":
            shown = f'<img src="{url}" alt="{name}" loading="lazy">'
        case "audio":
            shown = f'<audio src="{url}" aria-label="{name}" controls preload="metadata"></audio>'
        case "video":
            shown = f'<video src="{url}" aria-label="{name}" controls preload="metadata" playsinline></video>'
        case never:
            assert_never(never)
    return f'<figure>{shown}<figcaption><a href="{url}" download="{name}">{name}</a></figcaption></figure>'


def _question(entry: Entry, index: int, language: Language) -> str:
    files = "".join(media(part) for part in entry.message.content if isinstance(part, MediaPart))
    said = "".join(part.text for part in entry.message.content if isinstance(part, TextPart))
    words = f'<div class="omni-said">{escape(said)}</div>' if said else ""
    buttons = [_button("edit", language, index)] + ([_button("copy", language, index, said)] if said else [])
    return f'<div class="omni-media">{files}</div>{words}{_foot("", buttons)}' if files else words + _foot("", buttons)


def _answer(entry: Entry, asked: int, language: Language, *, last: bool) -> list[Bubble]:
    said = entry.message.text
    content: list[Bubble] = []
    if entry.reasoning:
        title = escape(phrase("ui.thoughts").text(language))
        content.append(_html(f"<details><summary>{title}</summary>{thoughts(entry.reasoning)}</details>"))
    if said:
        content.append(_text(said))
    buttons = [_button("copy", language, asked, said)] if said else []
    buttons += [_button("retry", language, asked), _button("undo", language, asked)]
    marks = [*entry.notices, *([entry.mark] if entry.mark else [])]
    lines = "".join(f'<p class="omni-mark">{escape(mark.text(language))}</p>' for mark in marks)
    content.append(_html(_spoken(entry, language, last=last) + lines + _foot(figures(entry, language), buttons)))
    return content


def _spoken(entry: Entry, language: Language, *, last: bool) -> str:
    if entry.sound is None:
        return ""
    url = escape(FILE_ROUTE + quote(str(entry.sound)))
    name = escape(phrase("ui.spoken", seconds=f"{entry.speech_seconds:.1f}").text(language))
    save = escape(phrase("ui.save").text(language))
    # Only the last is loaded before it is wanted: browsers give a page only so many players.
    preload = "metadata" if last else "none"
    return (
        f'<div class="omni-spoken"><audio src="{url}" aria-label="{name}" controls preload="{preload}"></audio>'
        f'<a href="{url}" download class="omni-act" data-omni="save" aria-label="{save}" title="{save}"></a></div>'
    )


def _foot(line: str, buttons: list[str]) -> str:
    return f'<div class="omni-foot">{line}<span class="omni-acts">{"".join(buttons)}</span></div>'


def _button(what: str, language: Language, index: int, text: str | None = None) -> str:
    """`index`: the question that the button is about. `text`: what it copies."""
    name = escape(phrase(f"turn.{what}").text(language))
    copied = "" if text is None else f' data-text="{escape(text)}"'
    return (
        f'<button type="button" class="omni-act" data-omni="{what}" data-index="{index}"{copied}'
        f' aria-label="{name}" title="{name}"></button>'
    )


def _text(said: str) -> Bubble:
    return {"type": "text", "text": said}


def _html(value: str) -> Bubble:
    return {"type": "component", "component": "html", "value": value, "constructor_args": {}, "props": _PROPS}


def _html_props() -> dict[str, Any]:
    """What Gradio's page needs to know of a gr.HTML; the same for all, so it is worked out once."""
    config = gr.HTML(js_on_load=None, render=False).get_config()
    return {key: config[key] for key in ("html_template", "css_template", "js_on_load", "apply_default_css")}


_PROPS: Final = _html_props()
