"""The page: its components wired to what they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import gradio as gr

from omni_backend import Backend
from omni_backend.media_values import bytes_text
from omni_ui.api import add_api
from omni_ui.chat import Chat, Parts, Updates
from omni_ui.examples import Example, hand_over
from omni_ui.head import head, static
from omni_ui.language import language_of
from omni_ui.layout import TITLE, Buttons, lay_out
from omni_ui.limits import IDLE_SECONDS
from omni_ui.speech import SpeechDesk
from omni_ui.store import SessionStore

VIEWERS: Final = 16
"""How many answers are watched at the same time; the engine queues by itself, this bounds the server's work."""
SCRIPTS: Final = (
    *("language.js", "tools.js", "session.js", "follow.js", "panel.js"),
    *("turns.js", "names.js", "keep.js", "errors.js", "player.js"),
    *("files.js", "uploads.js", "composer.js", "camera.js"),
)
"""In the order in which they run, in one scope."""
STYLES: Final = ("style.css", "composer.css", "turns.css", "panel.css")


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
    so itself. `files`: a folder for the examples' files, inside Gradio's own, so that they may be handed out.
    """
    demo = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, IDLE_SECONDS))
    with demo:
        parts, buttons = lay_out(embedded=embedded, speak=speak, examples=examples)
        chat = Chat(backend, sessions, desk, parts)
        _wire_page(demo, chat, parts, buttons)
        _wire_turns(demo, chat, parts, buttons)
        for button, example in zip(buttons.offers, examples, strict=True):
            _wire_offer(button, example, parts, files)
        add_api(backend, sessions, _streaming(parts))
    return demo


def page_head(file_bytes: int) -> str:
    """The page's own scripts, for `launch(head=...)`. `file_bytes`: the most that a file may have."""
    return head(
        SCRIPTS,
        WORKLET=static("worklet.js"),
        FILE_LIMIT={"bytes": file_bytes, "text": bytes_text(file_bytes)},
    )


def _wire_page(demo: gr.Blocks, chat: Chat, parts: Parts, buttons: Buttons) -> None:
    """Loading, leaving, beginning anew, settings."""
    light = _light(parts)
    buttons.names.click(
        None, [parts.composer], None, js="(value) => { omni.attached(value); omni.draft(value) }", **light
    )
    gr.on([demo.load, parts.timer.tick], chat.look, None, [parts.status, parts.timer, parts.ready], **light)
    panel = [*parts.panel.outputs, parts.talk.note]
    parts.ready.change(chat.fill_panel, [parts.session], panel, js="() => omni.session", **light)
    demo.unload(chat.leave)
    parts.composer.change(None, [parts.composer], None, js="(value) => { omni.draft(value) }", **light)
    buttons.restart.click(chat.restart, [parts.session], parts.conversation, **light).then(None, **_listen(parts))
    buttons.settings.click(None, js="() => omni.togglePanel()", **light)
    buttons.silence.click(None, js="() => omniPlayer.flush()", **light)
    parts.panel.reset.click(chat.reset_sampling, None, [*parts.panel.sampling.values(), parts.talk.note], **light)


def _wire_turns(demo: gr.Blocks, chat: Chat, parts: Parts, buttons: Buttons) -> None:
    """Which event does what to the conversation. All of them are the page's own; programs use `/chat`."""
    light, streaming = _light(parts), _streaming(parts)
    press: dict[str, Any] = {"js": "(id, turn, ...others) => [id, omni.turn, ...others]", **light}
    sent = parts.composer.submit(
        chat.submit, [parts.composer, parts.session, parts.edited, *parts.panel.inputs], parts.conversation, **light
    )
    again = buttons.retry.click(
        chat.retry, [parts.session, parts.turn, *parts.panel.inputs], parts.conversation, **press
    )
    back = demo.load(chat.resume, [parts.session], parts.conversation, js="() => omni.session", **light)
    back.then(None, [parts.composer], [parts.composer], js="(value) => omni.kept(value)", **light)
    rest = "(value, sent) => omni.rest(value, sent)"
    sent.then(None, [parts.composer, parts.sent], [parts.composer], js=rest, **light)
    for started in (sent, again):
        started.then(None, [parts.session], None, js="(id) => { omni.session = id }", **light)
        started.then(None, **_listen(parts))
    for started in (sent, again, back):
        watched = started.then(chat.watch, [parts.session], parts.growing, api_visibility="private", **streaming)
        watched.then(chat.keep, [parts.session, parts.composer], parts.conversation, **light)
    parts.composer.stop(None, js="() => omniPlayer.flush()", **light)
    parts.composer.stop(chat.stop, [parts.session], None, **light)
    turn = [parts.session, parts.turn, parts.composer]
    buttons.edit.click(chat.edit, [*turn, parts.edited], parts.conversation, **press)
    buttons.undo.click(chat.undo, turn, parts.conversation, **press).then(None, **_listen(parts))
    buttons.cancel_edit.click(chat.cancel_edit, [parts.edited], parts.conversation, **light)


def _light(parts: Parts) -> dict[str, Any]:
    """How small events run: at once, without a sign of it.

    Gradio notes the progress on every component that an event changes, and copies its value each time: of a long
    conversation that takes longer than the words. So it is to note it on a small one.
    """
    return {"queue": False, "show_progress": "hidden", "show_progress_on": [parts.token], "api_visibility": "private"}


def _streaming(parts: Parts) -> dict[str, Any]:
    """How answers are watched."""
    progress = {"show_progress": "hidden", "show_progress_on": [parts.token]}
    return {"concurrency_limit": VIEWERS, "concurrency_id": "turns", **progress}


def _listen(parts: Parts) -> dict[str, Any]:
    """Plays the sound of the last token; silence when it is empty."""
    return {"inputs": [parts.token], "js": "(token) => { omniPlayer.listen(token) }", **_light(parts)}


def _wire_offer(button: gr.Button, example: Example, parts: Parts, files: Path) -> None:
    """A click on `button` puts the example into the composer and sends it."""
    light = _light(parts)

    def fill(request: gr.Request) -> Updates:
        text = example.text[language_of(request)]
        return {parts.composer: {"text": text, "files": hand_over(example, files)}}

    button.click(fill, None, [parts.composer], **light).then(None, js="() => { omni.send() }", **light)
