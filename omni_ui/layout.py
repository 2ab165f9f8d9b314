"""What the page is made of and where it stands; what it does is in `page.py`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import gradio as gr

from omni_ui.chat import Parts, Talk
from omni_ui.composer import MESSAGE_CHARS
from omni_ui.examples import Example
from omni_ui.language import LANGUAGE_NAMES, Texts, label
from omni_ui.panel import build_panel

TITLE: Final = "Qwen3-Omni"
STATUS_SECONDS: Final = 0.4
"""Between two looks at the loading engine."""
PANEL_PIXELS: Final = 340


@dataclass(frozen=True, slots=True)
class Buttons:
    """What can be pressed, besides the composer's own buttons."""

    restart: gr.Button
    settings: gr.Button
    offers: tuple[gr.Button, ...]
    cancel_edit: gr.Button
    silence: gr.Button
    edit: gr.Button
    """This and the next two are not seen: `static/turns.js` presses them for the buttons under the messages."""
    retry: gr.Button
    undo: gr.Button
    names: gr.Button
    """Not seen either: `static/composer.js` presses it for the names of the attached files."""


def lay_out(*, embedded: bool, speak: bool, examples: tuple[Example, ...]) -> tuple[Parts, Buttons]:
    """Makes all components in the open Blocks. The arguments are those of `page.build_demo`."""
    with gr.Column(elem_id="omni-page"):
        with head_row(TITLE):
            restart = gr.Button(label("ui.restart"), elem_id="omni-restart", size="sm")
            settings = settings_button()
        status = gr.HTML(elem_id="omni-status", elem_classes="omni-line")
        with gr.Column(elem_id="omni-welcome") as welcome:
            gr.Markdown(label("page.welcome"), elem_id="omni-hello")
            if embedded:
                gr.Markdown(label("ui.embedded"), elem_id="omni-embedded")
            offers = offer_buttons(examples)
        talk = _talk()
        with gr.Column(elem_id="omni-write"):
            with gr.Row(elem_id="omni-editing", visible=False) as editing:
                gr.Markdown(label("ui.editing"))
                cancel_edit = gr.Button(label("ui.cancel_edit"), size="sm")
            composer = _composer()
            with gr.Row(elem_id="omni-voice"):
                speaking = gr.Checkbox(speak, label=label("ui.speak"), interactive=False, container=False)
                silence = gr.Button(label("ui.silence"), size="sm", elem_id="omni-silence")
    with side_panel():
        panel = build_panel(speaking, instructed=not embedded)
    parts = Parts(
        status=status,
        timer=gr.Timer(STATUS_SECONDS),
        ready=gr.Textbox(visible="hidden"),
        welcome=welcome,
        talk=talk,
        editing=editing,
        composer=composer,
        panel=panel,
        session=gr.Textbox(visible="hidden"),
        token=gr.Textbox(visible="hidden", elem_id="omni-token"),
        sent=gr.Textbox(visible="hidden"),
        edited=gr.State(None),
        turn=gr.Number(visible="hidden"),
    )
    edit, retry, undo = (gr.Button(visible="hidden", elem_id=f"omni-{what}") for what in ("edit", "retry", "undo"))
    names = gr.Button(visible="hidden", elem_id="omni-names")
    return parts, Buttons(restart, settings, offers, cancel_edit, silence, edit, retry, undo, names)


def example_texts(examples: tuple[Example, ...]) -> Texts:
    """What the examples' buttons say, for `translations`."""
    return {f"example.{number}": example.titles for number, example in enumerate(examples)}


def theme() -> gr.themes.Base:
    """A plain theme with the reader's own fonts: nothing is fetched from elsewhere."""
    sans = [gr.themes.Font(name) for name in ("system-ui", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "monospace")]
    return gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=sans, font_mono=mono).set(
        # Gradio's own are too pale to be read by everybody.
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_info_text_color="*body_text_color_subdued",
        block_info_text_color_dark="*body_text_color_subdued",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )


@contextmanager
def head_row(title: str) -> Iterator[None]:
    """The top of a page: what it is called, its languages, then the caller's buttons for the whole page."""
    links = "".join(
        f'<a href="?lang={code}" hreflang="{code}" lang="{code}">{escape(name)}</a>'
        for code, name in LANGUAGE_NAMES.items()
    )
    with gr.Row(elem_id="omni-head"):
        gr.HTML(f"<h1>{title}</h1>", elem_id="omni-title", elem_classes="omni-line")
        gr.HTML(links, elem_id="omni-languages", elem_classes="omni-line")
        yield


def settings_button() -> gr.Button:
    """Opens the side panel."""
    return gr.Button(label("ui.settings"), elem_id="omni-settings", size="sm")


@contextmanager
def side_panel() -> Iterator[None]:
    """The side panel, closed: the caller's settings, then the way to the API."""
    with gr.Sidebar(position="right", open=False, width=PANEL_PIXELS, elem_id="omni-panel"):
        gr.Markdown(label("ui.settings"), elem_id="omni-panel-title")
        yield
        gr.Button(label("page.api"), link="?view=api", link_target="_blank", size="sm")


def offer_buttons(examples: tuple[Example, ...]) -> tuple[gr.Button, ...]:
    """A button for each example message."""
    if not examples:
        return ()
    with gr.Row(elem_id="omni-examples"):
        return tuple(gr.Button(label(key), size="sm") for key in example_texts(examples))


def _talk() -> Talk:
    """The conversation, from what was dropped of it to what went wrong last."""
    chat: dict[str, Any] = {
        "show_label": False,
        "container": False,
        "height": "auto",
        "elem_classes": "omni-chat",
        "buttons": [],
        "autoscroll": False,
        "allow_file_downloads": False,
    }
    line: dict[str, Any] = {"elem_classes": "omni-line"}
    with gr.Column(elem_id="omni-talk"):
        notes = gr.HTML(elem_id="omni-notes", **line)
        history = gr.Chatbot(elem_id="omni-history", label=label("ui.conversation"), **chat)
        with gr.Accordion(label("ui.thinking"), open=False, visible=False, elem_id="omni-thinking") as thinking:
            thoughts = gr.HTML(**line)
        live = gr.Chatbot(elem_id="omni-live", label=label("ui.answer"), visible=False, **chat)
        note = gr.HTML(elem_id="omni-note", **line)
        error = gr.HTML(elem_id="omni-error", **line)
        gr.HTML('<div id="omni-refused" role="alert" class="omni-error" hidden></div>', **line)
    return Talk(notes, history, thinking, thoughts, live, note, error)


def _composer() -> gr.MultimodalTextbox:
    return gr.MultimodalTextbox(
        elem_id="omni-composer",
        label=label("ui.composer"),
        placeholder=label("ui.placeholder"),  # type: ignore[arg-type] # looked up in the browser all the same
        show_label=False,
        file_count="multiple",
        sources=["upload", "microphone"],
        max_plain_text_length=MESSAGE_CHARS,
    )
