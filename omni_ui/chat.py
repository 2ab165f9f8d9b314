"""What happens on the page: send, watch, keep, stop, come back. Gradio's events come in, updates of components go out.

A turn is three events: `submit` (or `retry`) starts it, `watch` looks at it until it ends, `keep` puts the whole
answer into the history. Nothing streams into the history.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block

from omni_backend import (
    Backend,
    BackendError,
    Capabilities,
    Language,
    Loading,
    UnsupportedRequest,
    phrase,
)
from omni_ui import bubbles, render
from omni_ui.composer import Draft, draft, joined, read_message
from omni_ui.language import language_of
from omni_ui.panel import Panel
from omni_ui.sessions import AnswerOptions, Session
from omni_ui.speech import SpeechDesk
from omni_ui.store import SessionStore
from omni_ui.turn import Turn

Updates = dict[Block, Any]


@dataclass(frozen=True, slots=True)
class Talk:
    """The components of the conversation, from top to bottom."""

    notes: gr.HTML
    """What was dropped from it."""
    history: gr.Chatbot
    thinking: gr.Accordion
    thoughts: gr.HTML
    live: gr.Chatbot
    note: gr.HTML
    """One line: what the answer waits for."""
    error: gr.HTML


@dataclass(frozen=True, slots=True)
class Parts:
    """The components that the events read and write."""

    status: gr.HTML
    timer: gr.Timer
    ready: gr.Textbox
    """Says once that the engine is there."""
    welcome: gr.Column
    """What stands there before the first message."""
    talk: Talk
    editing: gr.Row
    """Says that a message is being edited."""
    composer: gr.MultimodalTextbox
    panel: Panel
    session: gr.Textbox
    """The conversation's id, which the browser keeps over a reload."""
    token: gr.Textbox
    """The one-time token of the answer's sound; "" for none."""
    sent: gr.Textbox
    """What of the composer was sent, as JSON; "" for nothing."""
    edited: gr.State
    """Which message is being edited, and what the composer held before: (index, draft), or None."""
    turn: gr.Number
    """Which question a button under a message is about."""

    @property
    def conversation(self) -> list[Block]:
        """All that an event of the conversation may change."""
        talk = self.talk
        shown = [talk.notes, talk.history, talk.thinking, talk.thoughts, talk.live, talk.note, talk.error]
        return [
            *(self.timer, self.welcome, *shown, self.editing, self.composer),
            *(self.session, self.token, self.sent, self.edited),
        ]

    @property
    def growing(self) -> list[Block]:
        """What changes while an answer grows: never the history."""
        return [self.talk.thinking, self.talk.thoughts, self.talk.live, self.talk.note]


class Chat:
    """The events of one page; all conversations share it."""

    def __init__(self, backend: Backend, sessions: SessionStore, desk: SpeechDesk, parts: Parts) -> None:
        self._backend = backend
        self._sessions = sessions
        self._desk = desk
        self._parts = parts
        self._can: Capabilities | None = None
        """What the checkpoint could do when it was last looked at; None before it was loaded."""

    # The engine and coming back

    def look(self, request: gr.Request) -> Updates:
        """The engine's state; once it has settled, what it can do, and no more looking."""
        parts, language = self._parts, language_of(request)
        updates: Updates = {parts.status: render.status(self._backend, language)}
        if isinstance(self._backend.status, Loading):
            return updates
        updates[parts.timer] = gr.update(active=False)
        with suppress(BackendError):
            self._can = self._backend.capabilities
            updates[parts.ready] = "ready"
        return updates

    def fill_panel(self, id: str | None, request: gr.Request) -> Updates:
        """What the checkpoint can do and the visitor's own settings; once, when it is ready: then they are his."""
        if self._can is None:
            return self._nothing()
        session = self._sessions.get(id)
        return self._parts.panel.show(self._can, language_of(request), session.settings if session else ())

    async def resume(self, id: str | None, request: gr.Request) -> Updates:
        """A page that was reloaded: its conversation, or why that is not there any more."""
        parts, language = self._parts, language_of(request)
        session = self._sessions.resume(id or "", request.session_hash or "")
        if session is None:
            gone = self._sessions.gone(id or "")
            return {parts.session: "", parts.talk.notes: render.notes((gone,) if gone else (), language)}
        updates = self._conversation(session, language)
        if session.busy and session.turn is not None:  # another page shows it, too
            updates |= self._answering(session.turn, language)
        return updates

    async def leave(self, request: gr.Request) -> None:
        """The page was closed or reloaded: ends what it had running."""
        if request.session_hash:
            await self._sessions.leave(request.session_hash)

    def reset_sampling(self, request: gr.Request) -> Updates:
        """The checkpoint's own settings again."""
        if self._can is None:
            return self._nothing()
        shown = self._parts.panel.show(self._can, language_of(request))
        return {part: shown[part] for part in self._parts.panel.sampling.values()}

    # Sending

    async def submit(
        self,
        request: gr.Request,
        value: Draft | None,
        id: str | None,
        edited: tuple[int, Draft] | None,
        *settings: Any,
    ) -> Updates:
        """Takes the message, shows it and starts to answer; or says in one line why not and changes nothing."""
        parts, language = self._parts, language_of(request)
        session = self._open(id, request)
        try:
            _refuse_if_busy(session)
            options = self._options(settings, language)
            message = await asyncio.to_thread(read_message, value or {}, session)
            turn = session.ask(self._backend, message, options, replacing=edited[0] if edited else None)
            session.settings = settings
        except BackendError as problem:
            return self._refused(session, problem, language)
        updates = self._started(session, turn, language)
        if edited:  # what was in the composer before the editing comes back
            updates[parts.composer]["value"] = joined(edited[1], None)
        return updates | self._no_edit() | {parts.sent: "" if edited else json.dumps(value)}

    async def retry(self, request: gr.Request, id: str | None, index: float | None, *settings: Any) -> Updates:
        """Answers a question of the conversation anew; what came after it goes."""
        parts, language = self._parts, language_of(request)
        session = self._open(id, request)
        try:
            _refuse_if_busy(session)
            options = self._options(settings, language)
            question = session.message(_index(index))
            turn = session.ask(self._backend, question, options, replacing=_index(index))
            session.settings = settings
        except BackendError as problem:
            return self._refused(session, problem, language)
        return self._started(session, turn, language) | self._no_edit() | {parts.sent: ""}

    async def watch(self, id: str | None, request: gr.Request) -> AsyncGenerator[Updates, None]:
        """Shows the growing answer until it ends; ends it when nobody looks any more."""
        session = self._sessions.get(id)
        if session is None or session.turn is None or session.turn.ended:
            yield self._nothing()
            return
        parts, language = self._parts, language_of(request)
        shown: Updates = {}
        async with aclosing(session.turn.look()) as answers:
            async for answer in answers:
                bubble = bubbles.live(answer)
                views: Updates = {
                    parts.talk.thinking: gr.update(visible=bool(answer.reasoning)),
                    parts.talk.thoughts: bubbles.thoughts(answer.reasoning),
                    parts.talk.live: gr.update(value=bubble, visible=bool(bubble)),
                    parts.talk.note: render.waiting(answer, self._backend, language),
                }
                news = {part: view for part, view in views.items() if shown.get(part) != view}
                if news:
                    shown |= news
                    yield news

    async def keep(self, id: str | None, value: Draft | None, request: gr.Request) -> Updates:
        """Puts the answer into the history and makes the composer ready; gives a failed message back to it."""
        parts, language = self._parts, language_of(request)
        session = self._sessions.get(id)
        if session is None:  # a new page, or a conversation that was forgotten while it answered
            return self._empty() | self._why_gone(id, language) if id else self._nothing()
        if session.turn is not None:
            await session.turn.wait()
        updates = self._conversation(session, language)
        outcome = session.take_outcome()
        if outcome is not None and outcome.returned is not None:
            updates[parts.composer]["value"] = joined(draft(outcome.returned), value)
        if outcome is not None and outcome.answer.error is not None:
            updates[parts.talk.error] = render.error(outcome.answer.error, language)
        # An engine that died is started again: from now on the page looks at it, as it did at first.
        again: Updates = {parts.timer: gr.update(active=True)} if isinstance(self._backend.status, Loading) else {}
        return again | updates

    async def stop(self, id: str | None) -> None:
        """Ends the running answer; the engine is free afterwards."""
        session = self._sessions.get(id)
        if session is not None:
            await session.stop()

    # Changing what was said

    async def edit(
        self,
        id: str | None,
        index: float | None,
        value: Draft | None,
        edited: tuple[int, Draft] | None,
        request: gr.Request,
    ) -> Updates:
        """Puts a question of the conversation back into the composer, to be sent in its place."""
        parts, language = self._parts, language_of(request)
        session = self._open(id, request)
        try:
            _refuse_if_busy(session)
            question = session.message(_index(index))
        except BackendError as problem:
            return self._refused(session, problem, language)
        return {
            parts.edited: (_index(index), edited[1] if edited else value or {}),
            parts.editing: gr.update(visible=True),
            parts.composer: gr.update(value=draft(question)),
            parts.talk.error: "",
        }

    def cancel_edit(self, edited: tuple[int, Draft] | None) -> Updates:
        """The composer as it was before the editing."""
        parts = self._parts
        before = joined(edited[1], None) if edited else None
        return self._no_edit() | {parts.composer: gr.update(value=before)}

    async def undo(self, id: str | None, index: float | None, value: Draft | None, request: gr.Request) -> Updates:
        """Takes a question and all after it out of the conversation and puts it back into the composer."""
        parts, language = self._parts, language_of(request)
        session = self._open(id, request)
        try:
            _refuse_if_busy(session)
            question = session.undo(_index(index))
        except BackendError as problem:
            return self._refused(session, problem, language)
        updates = self._conversation(session, language) | self._no_edit() | {parts.talk.error: ""}
        updates[parts.composer]["value"] = joined(draft(question), value)
        return updates

    async def restart(self, id: str | None) -> Updates:
        """Forgets the conversation and ends what runs in it."""
        session = self._sessions.get(id)
        if session is not None:
            await session.restart()
        return self._empty()

    # What they share

    def _options(self, settings: tuple[Any, ...], language: Language) -> AnswerOptions:
        """How the panel wants the answer. Raises UnsupportedRequest, and BackendError when the engine failed."""
        if not isinstance(self._backend.status, Loading):
            self._can = self._backend.capabilities
        return self._parts.panel.read(settings, self._can, language)

    def _open(self, id: str | None, request: gr.Request) -> Session:
        """The page's conversation, or a new one that says why the one before is gone."""
        lost = self._sessions.gone(id)
        session = self._sessions.open(id, request.session_hash or "")
        session.lost = lost or session.lost
        return session

    def _started(self, session: Session, turn: Turn, language: Language) -> Updates:
        parts = self._parts
        updates = self._conversation(session, language) | self._answering(turn, language)
        return updates | {
            parts.talk.error: "",
            parts.token: self._desk.mint(turn.speech) if "audio" in turn.request.modalities else "",
        }

    def _answering(self, turn: Turn, language: Language) -> Updates:
        parts = self._parts
        return {
            parts.composer: gr.update(submit_btn=False, stop_btn=True),
            parts.talk.note: render.waiting(turn.answer, self._backend, language),
        }

    def _refused(self, session: Session, problem: BackendError, language: Language) -> Updates:
        parts = self._parts
        return {parts.talk.error: render.error(problem, language), parts.session: session.id, parts.sent: ""}

    def _conversation(self, session: Session, language: Language) -> Updates:
        """The conversation as it stands, nothing running."""
        parts = self._parts
        return {
            parts.session: session.id,
            parts.welcome: gr.update(visible=not session.entries),
            parts.talk.notes: render.notes(session.notes, language),
            parts.talk.history: bubbles.history(session.entries, language),
            parts.talk.thinking: gr.update(visible=False),
            parts.talk.thoughts: "",
            parts.talk.live: gr.update(value=[], visible=False),
            parts.talk.note: "",
            parts.composer: gr.update(submit_btn=True, stop_btn=False),
        }

    def _empty(self) -> Updates:
        """A page without a conversation; what stands in the composer stays."""
        parts = self._parts
        return self._no_edit() | {
            parts.welcome: gr.update(visible=True),
            parts.talk.notes: "",
            parts.talk.history: [],
            parts.talk.thinking: gr.update(visible=False),
            parts.talk.live: gr.update(value=[], visible=False),
            parts.talk.note: "",
            parts.talk.error: "",
            parts.composer: gr.update(submit_btn=True, stop_btn=False),
            parts.token: "",
        }

    def _no_edit(self) -> Updates:
        """No message is being edited any more."""
        return {self._parts.edited: None, self._parts.editing: gr.update(visible=False)}

    def _why_gone(self, id: str | None, language: Language) -> Updates:
        gone = self._sessions.gone(id or "")
        return {self._parts.talk.notes: render.notes((gone,), language)} if gone else {}

    def _nothing(self) -> Updates:
        """Changes nothing; Gradio takes no empty update."""
        return {self._parts.talk.note: gr.skip()}


def _refuse_if_busy(session: Session) -> None:
    """Raises UnsupportedRequest before anything is worked on."""
    if session.busy:
        raise UnsupportedRequest(phrase("ui.busy"))


def _index(value: float | None) -> int:
    """What a browser sent as the index of an entry; -1, which none has, for anything else."""
    return int(value) if isinstance(value, int | float) and value == value and abs(value) < 1e9 else -1


__all__ = ["Chat", "Parts"]
