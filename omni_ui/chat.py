"""What happens on the page: send, watch, keep, stop. Gradio's events come in, updates of components go out.

A turn is three events: `submit` takes the message and starts the turn, `watch` looks at it until it ends,
`keep` puts the whole answer into the history. Nothing streams into the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from omni_backend import (
    Backend,
    BackendError,
    BadMedia,
    Loading,
    MediaPart,
    Message,
    Part,
    TextPart,
    UnsupportedRequest,
    phrase,
)
from omni_backend.media import media_type
from omni_ui import render
from omni_ui.language import language_of
from omni_ui.sessions import Session, SessionStore
from omni_ui.speech import SpeechDesk

Updates = dict[Component, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """The components that the events read and write."""

    status: gr.HTML
    timer: gr.Timer
    history: gr.Chatbot
    live: gr.Chatbot
    note: gr.HTML
    """One line: what the answer waits for, then how fast it was."""
    error: gr.HTML
    composer: gr.MultimodalTextbox
    speak: gr.Checkbox
    voice: gr.Dropdown
    session: gr.State
    token: gr.Textbox
    """The one-time token of the answer's sound; "" for none."""


class Chat:
    """The events of one page; all conversations share it."""

    def __init__(self, backend: Backend, sessions: SessionStore, desk: SpeechDesk, parts: Parts) -> None:
        self._backend = backend
        self._sessions = sessions
        self._desk = desk
        self._parts = parts

    def look(self, request: gr.Request) -> Updates:
        """The engine's state; once it has settled, what it can do, and no more looking."""
        parts, language = self._parts, language_of(request)
        updates: Updates = {parts.status: render.status(self._backend, language)}
        if isinstance(self._backend.status, Loading):
            return updates
        updates[parts.timer] = gr.update(active=False)
        try:
            can = self._backend.capabilities
        except BackendError:
            return updates
        reason = render.no_speech(can, language)
        updates[parts.speak] = gr.update(value=reason is None, interactive=reason is None, info=reason)
        voices = list(can.voices) if reason is None else []
        updates[parts.voice] = gr.update(choices=voices, value=next(iter(voices), None), visible=bool(voices))
        return updates

    async def submit(
        self, value: dict[str, Any] | None, id: str | None, speak: bool, voice: str | None, request: gr.Request
    ) -> Updates:
        """Takes the message, shows it and starts to answer; or says in one line why not and changes nothing."""
        parts, language = self._parts, language_of(request)
        session = self._sessions.open(id, page=request.session_hash or "")
        if session.busy:
            return {parts.error: render.error(phrase("ui.busy"), language), parts.session: session.id}
        try:
            message = await asyncio.to_thread(read_message, value or {}, session)
            turn = session.ask(self._backend, message, speak=speak, voice=voice)
        except BackendError as problem:
            return {parts.error: render.error(problem, language), parts.session: session.id}
        return {
            parts.session: session.id,
            parts.history: render.history(session.entries, language),
            parts.composer: gr.update(value=None, submit_btn=False, stop_btn=True),
            parts.note: render.waiting(turn.answer, self._backend, language),
            parts.error: "",
            parts.token: self._desk.mint(turn.speech) if speak else "",
        }

    async def watch(self, id: str | None, request: gr.Request) -> AsyncGenerator[Updates, None]:
        """Shows the growing answer until it ends; ends it when nobody looks any more."""
        session = self._sessions.get(id)
        if session is None or session.turn is None or session.turn.ended:
            yield self._nothing()
            return
        parts, language = self._parts, language_of(request)
        shown: tuple[Any, ...] = ()
        async with aclosing(session.turn.look()) as answers:
            async for answer in answers:
                view = render.live(answer, language), render.waiting(answer, self._backend, language)
                if view != shown:
                    shown = view
                    yield {parts.live: gr.update(value=view[0], visible=bool(view[0])), parts.note: view[1]}

    async def keep(self, id: str | None, value: dict[str, Any] | None, request: gr.Request) -> Updates:
        """Puts the answer into the history and makes the composer ready; gives a failed message back to it."""
        parts, language = self._parts, language_of(request)
        session = self._sessions.get(id)
        if session is None:  # forgotten while it answered
            return self._empty()
        outcome = None
        if session.turn is not None:
            await session.turn.wait()
            outcome = session.take_outcome()
        if outcome is None:
            return self._nothing()
        composer: dict[str, Any] = {"submit_btn": True, "stop_btn": False}
        if outcome.returned is not None:
            composer["value"] = _joined(render.draft(outcome.returned), value)
        problem = outcome.answer.error
        # An engine that died is started again: from now on the page looks at it, as it did at first.
        again: Updates = {parts.timer: gr.update(active=True)} if isinstance(self._backend.status, Loading) else {}
        return again | {
            parts.history: render.history(session.entries, language),
            parts.live: gr.update(value=[], visible=False),
            parts.note: render.metrics(outcome.answer, language),
            parts.error: render.error(problem, language) if problem is not None else "",
            parts.composer: gr.update(**composer),
        }

    async def restart(self, id: str | None) -> Updates:
        """Forgets the conversation and ends what runs in it."""
        session = self._sessions.get(id)
        if session is not None:
            await session.restart()
        return self._empty()

    async def stop(self, id: str | None) -> None:
        """Ends the running answer; the engine is free afterwards."""
        session = self._sessions.get(id)
        if session is not None:
            await session.stop()

    def _empty(self) -> Updates:
        """A page without a conversation."""
        parts = self._parts
        return {
            parts.history: [],
            parts.live: gr.update(value=[], visible=False),
            parts.note: "",
            parts.error: "",
            parts.composer: gr.update(submit_btn=True, stop_btn=False),
            parts.token: "",
        }

    def _nothing(self) -> Updates:
        """Changes nothing; Gradio takes no empty update."""
        return {self._parts.note: gr.skip()}

    async def leave(self, request: gr.Request) -> None:
        """The page was closed: ends what it had running."""
        if request.session_hash:
            await self._sessions.stop_page(request.session_hash)


def read_message(value: dict[str, Any], session: Session) -> Message:
    """The composer's value as a message: its files in their order, then its words. Blocking.

    Raises BadMedia for a file that cannot be used and UnsupportedRequest when there is nothing to send.
    """
    files = [Path(path) for path in value.get("files") or []]
    types = [media_type(str(file), file.name) for file in files]
    parts: list[Part] = []
    for file, type in zip(files, types, strict=True):
        try:
            parts.append(MediaPart(type, str(session.adopt(file)), file.name))
        except OSError as error:
            raise BadMedia(phrase("ui.file_gone", name=file.name), detail=str(error)) from error
    text = value.get("text") or ""
    if text.strip():
        parts.append(TextPart(text))
    if not parts:
        raise UnsupportedRequest(phrase("request.empty"))
    return Message("user", tuple(parts))


def _joined(draft: dict[str, Any], value: dict[str, Any] | None) -> dict[str, Any]:
    """What was sent, before what has been written into the composer since."""
    value = value or {}
    texts = [text for text in (draft["text"], value.get("text")) if text]
    return {"text": "\n".join(texts), "files": [*draft["files"], *(value.get("files") or [])]}


__all__ = ["Chat", "Parts", "read_message"]
