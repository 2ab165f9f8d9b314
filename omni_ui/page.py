"""The page: one centred column with the conversation, the growing answer and one composer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import gradio as gr

from omni_backend import Backend
from omni_backend.media_values import bytes_text
from omni_ui.api import add_api
from omni_ui.chat import Chat, Parts, Updates
from omni_ui.examples import Example, hand_over
from omni_ui.language import Texts, label, language_of, texts_for_scripts
from omni_ui.sessions import IDLE_SECONDS, SessionStore
from omni_ui.speech import SpeechDesk

TITLE: Final = "Qwen3-Omni"
VIEWERS: Final = 16
"""How many answers are watched at the same time; the engine queues by itself, this bounds the server's work."""
STATUS_SECONDS: Final = 0.4
"""Between two looks at the loading engine."""

SCRIPTS: Final = ("language.js", "player.js", "page.js")
"""In the order in which they run, in one scope."""

_STATIC: Final = Path(__file__).parent / "static"
_LIGHT: Final[dict[str, Any]] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_TURN: Final[dict[str, Any]] = {"concurrency_limit": VIEWERS, "concurrency_id": "turns", "show_progress": "hidden"}
_LISTEN: Final = "(token) => { window.omniPlayer.listen(token) }"
_FLUSH: Final = "() => { window.omniPlayer.flush() }"


def build_demo(
    backend: Backend,
    sessions: SessionStore,
    desk: SpeechDesk,
    *,
    embedded: bool = False,
    speak: bool = False,
    examples: tuple[Example, ...] = (),
    files: Path,
) -> gr.Blocks:
    """The page over `backend`.

    `embedded`: say that this is the tiny checkpoint. `speak`: expect that it speaks, until it is loaded and says
    so itself. `files`: a folder for the examples' files, inside Gradio's
    own, so that they may be handed out.
    """
    demo = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, IDLE_SECONDS))
    with demo:
        with gr.Column(elem_id="omni-page"):
            gr.HTML(f"<h1>{TITLE}</h1>", elem_id="omni-title", elem_classes="omni-line")
            status = gr.HTML(elem_id="omni-status", elem_classes="omni-line")
            if embedded:
                gr.Markdown(label("ui.embedded"), elem_id="omni-embedded")
            buttons = _example_buttons(examples)
            parts = _column(status, sessions, speak)
        for button, example in zip(buttons, examples, strict=True):
            _offer(button, example, parts, files)
        _wire(demo, Chat(backend, sessions, desk, parts), parts)
        add_api(backend, sessions, _TURN)
    return demo


def example_texts(examples: tuple[Example, ...]) -> Texts:
    """What the examples' buttons say, for `translations`."""
    return {f"example.{number}": example.titles for number, example in enumerate(examples)}


def head(file_bytes: int) -> str:
    """The page's own scripts, for `launch(head=...)`. `file_bytes`: the most that a file may have."""
    values = {
        "TEXTS": texts_for_scripts(),
        "WORKLET": (_STATIC / "worklet.js").read_text(encoding="utf-8"),
        "FILE_LIMIT": {"bytes": file_bytes, "text": bytes_text(file_bytes)},
    }
    constants = "".join(f"const {name} = {_for_script(value)};\n" for name, value in values.items())
    scripts = [(_STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return f"<script>{{\n{constants}{''.join(scripts)}}}</script>"


def _for_script(value: object) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(value).replace("</", "<\\/")


def style() -> Path:
    """The page's style sheet, for `launch(css_paths=...)`."""
    return _STATIC / "style.css"


def theme() -> gr.themes.Base:
    """A plain theme with the reader's own fonts: nothing is fetched from elsewhere."""
    sans = [gr.themes.Font(name) for name in ("system-ui", "sans-serif")]
    mono = [gr.themes.Font(name) for name in ("ui-monospace", "monospace")]
    return gr.themes.Default(primary_hue="indigo", neutral_hue="slate", font=sans, font_mono=mono)


def _example_buttons(examples: tuple[Example, ...]) -> list[gr.Button]:
    if not examples:
        return []
    with gr.Row(elem_id="omni-examples"):
        return [gr.Button(label(key), size="sm") for key in example_texts(examples)]


def _column(status: gr.HTML, sessions: SessionStore, expected: bool) -> Parts:
    """The conversation and the composer."""
    chat: dict[str, Any] = {"show_label": False, "container": False, "height": "auto", "elem_classes": "omni-chat"}
    with gr.Column(elem_id="omni-talk"):
        history = gr.Chatbot(
            elem_id="omni-history", label=label("ui.conversation"), buttons=["copy"], autoscroll=False, **chat
        )
        live = gr.Chatbot(elem_id="omni-live", label=label("ui.answer"), buttons=[], visible=False, **chat)
        note = gr.HTML(elem_id="omni-note", elem_classes="omni-line")
        error = gr.HTML(elem_id="omni-error", elem_classes="omni-line")
        gr.HTML('<div id="omni-refused" role="alert" class="omni-error" hidden></div>', elem_classes="omni-line")
    with gr.Column(elem_id="omni-write"):
        composer = gr.MultimodalTextbox(
            elem_id="omni-composer",
            label=label("ui.composer"),
            placeholder=label("ui.placeholder"),  # type: ignore[arg-type] # looked up in the browser all the same
            show_label=False,
            file_count="multiple",
            sources=["upload", "microphone"],
            max_plain_text_length=100_000,
        )
        with gr.Row(elem_id="omni-voice"):
            speak = gr.Checkbox(expected, label=label("ui.speak"), interactive=False, container=False)
            voice = gr.Dropdown([], label=label("ui.voice"), visible=False, container=False)
            silence = gr.Button(label("ui.silence"), size="sm", elem_id="omni-silence")
    silence.click(None, js=_FLUSH, **_LIGHT)
    return Parts(
        status=status,
        timer=gr.Timer(STATUS_SECONDS),
        history=history,
        live=live,
        note=note,
        error=error,
        composer=composer,
        speak=speak,
        voice=voice,
        session=gr.State(None, time_to_live=IDLE_SECONDS, delete_callback=sessions.discard),
        token=gr.Textbox(visible="hidden", elem_id="omni-token"),
    )


def _wire(demo: gr.Blocks, chat: Chat, parts: Parts) -> None:
    """Which event does what. All of them are the page's own; programs use `/chat`."""
    engine = [parts.status, parts.timer, parts.speak, parts.voice]
    gr.on([demo.load, parts.timer.tick], chat.look, None, engine, **_LIGHT)
    whole = [parts.history, parts.live, parts.note, parts.error, parts.composer, parts.token, parts.timer]
    sent = parts.composer.submit(
        chat.submit,
        [parts.composer, parts.session, parts.speak, parts.voice],
        [parts.session, parts.history, parts.composer, parts.note, parts.error, parts.token],
        **_LIGHT,
    )
    sent.then(None, [parts.token], None, js=_LISTEN, **_LIGHT)
    sent.then(chat.watch, [parts.session], [parts.live, parts.note], api_visibility="private", **_TURN).then(
        chat.keep,
        [parts.session, parts.composer],
        whole,
        **_LIGHT,
    )
    parts.history.clear(
        chat.restart,
        [parts.session],
        whole,
        **_LIGHT,
    ).then(None, [parts.token], None, js=_LISTEN, **_LIGHT)
    parts.composer.stop(None, js=_FLUSH, **_LIGHT)
    parts.composer.stop(chat.stop, [parts.session], None, **_LIGHT)
    demo.unload(chat.leave)


def _offer(button: gr.Button, example: Example, parts: Parts, files: Path) -> None:
    """A click on `button` puts the example into the composer."""

    def fill(request: gr.Request) -> Updates:
        text = example.text[language_of(request)]
        return {parts.composer: {"text": text, "files": hand_over(example, files)}}

    button.click(fill, None, [parts.composer], **_LIGHT)
