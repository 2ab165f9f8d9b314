"""The conversations, kept on the server: nothing that a browser sends can change what was said.

A `Session` is one conversation with its files and the turn that runs in it. Knows nothing of gradio.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from omni_backend import (
    Backend,
    ChatRequest,
    Message,
    OutputModality,
    Phrase,
    TextPart,
    UnsupportedRequest,
    phrase,
)
from omni_ui.speech import SpeechStream
from omni_ui.turn import Answer, Turn

MAX_SESSIONS: Final = 256
"""More than that and the one that was left alone longest is forgotten."""
IDLE_SECONDS: Final = 3600
"""How long a conversation is kept that nobody continues; its files are kept as long."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a conversation, with what is shown beside its words."""

    message: Message
    reasoning: str = ""
    sound: Path | None = None
    notices: tuple[Phrase, ...] = ()
    mark: Phrase | None = None
    """Why the answer is not whole: stopped, broken off, or at its length limit."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last turn ended, for the page to show once."""

    answer: Answer
    returned: Message | None = None
    """The user's message, when the turn failed before it answered: the conversation is as it was before."""


class Session:
    """One conversation. Lives on one event loop."""

    def __init__(self, id: str, folder: Path, page: str = "") -> None:
        self.id = id
        self.page = page
        """Which open page it belongs to."""
        self.entries: tuple[Entry, ...] = ()
        self.turn: Turn | None = None
        """The turn that runs or ran last."""
        self._outcome: Outcome | None = None
        self._folder = folder
        self._files = 0
        self._closed = False
        folder.mkdir(parents=True)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as the model gets it."""
        return tuple(entry.message for entry in self.entries)

    @property
    def busy(self) -> bool:
        """Whether a turn is running."""
        return self.turn is not None and not self.turn.ended

    def adopt(self, upload: str | Path) -> Path:
        """The session's own name for an uploaded file, which lives as long as the conversation.

        Raises OSError when it is gone.
        """
        target = self._new_path(Path(upload).name)
        try:
            os.link(upload, target)
        except FileNotFoundError:
            raise
        except OSError:  # another disk, or a file system without links
            shutil.copyfile(upload, target)
        return target

    def ask(
        self, backend: Backend, message: Message, *, speak: bool = False, voice: str | None = None, system: str = ""
    ) -> Turn:
        """Adds the user's `message` and starts to answer it.

        Raises UnsupportedRequest while another turn is running: see `busy`.
        """
        if self.busy:
            raise UnsupportedRequest(phrase("ui.busy"))
        before = self.entries
        self.entries = (*before, Entry(message))
        self.touch()
        modalities: frozenset[OutputModality] = frozenset({"text", "audio"} if speak else {"text"})
        lead = (Message("system", (TextPart(system),)),) if system.strip() else ()
        request = ChatRequest((*lead, *self.messages), modalities=modalities, voice=voice if speak else None)
        self._outcome = None
        self.turn = Turn(backend, request, lambda turn: self._end(turn, before, message))
        return self.turn

    def take_outcome(self) -> Outcome | None:
        """How the last turn ended; None when that was told already."""
        outcome, self._outcome = self._outcome, None
        return outcome

    async def restart(self) -> None:
        """Forgets what was said."""
        await self.stop()
        self.entries = ()
        self._outcome = None

    async def stop(self) -> None:
        """Ends the running turn, if any; the engine is free afterwards."""
        if self.turn is not None:
            await self.turn.stop()

    def touch(self) -> None:
        """Keeps the files from being swept away as old."""
        for file in self._folder.rglob("*"):
            with suppress(OSError):
                os.utime(file)

    def close(self) -> None:
        """Ends the running turn without waiting and deletes the files. From any thread."""
        self._closed = True
        if self.turn is not None:
            self.turn.cancel()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, turn: Turn, before: tuple[Entry, ...], message: Message) -> None:
        """Keeps the answer, or goes back to what was before when there is none."""
        answer = turn.answer
        if answer.done is None and not answer.text.strip():
            self.entries = before
            self._outcome = Outcome(answer, returned=message)
            return
        entry = Entry(
            Message("assistant", (TextPart(answer.text),)),
            reasoning=answer.reasoning,
            sound=self._save(turn.speech),
            notices=answer.notices,
            mark=_mark(answer),
        )
        self.entries = (*self.entries, entry)
        self._outcome = Outcome(answer)

    def _save(self, speech: SpeechStream) -> Path | None:
        """The sound as a file; None when there is none, nobody wants it any more, or the disk is full."""
        if self._closed or not speech.seconds:
            return None
        try:
            path = self._new_path("answer.wav")
            speech.save(path)
            return path
        except OSError:
            return None

    def _new_path(self, name: str) -> Path:
        self._files += 1
        folder = self._folder / str(self._files)
        folder.mkdir()
        return folder / name


def _mark(answer: Answer) -> Phrase | None:
    if answer.stopped:
        return phrase("ui.mark_stopped")
    if answer.error is not None:
        return phrase("ui.mark_broken")
    if answer.done is not None and answer.done.finish_reason == "length":
        return phrase("ui.mark_length")
    if not answer.text.strip():
        return phrase("ui.mark_empty")
    return None


class SessionStore:
    """All conversations, each under an unguessable id, at most `limit` of them. `root`: folder for their files."""

    def __init__(self, root: Path, limit: int = MAX_SESSIONS) -> None:
        self._root = root
        self._limit = limit
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def open(self, id: str | None, page: str = "") -> Session:
        """The session `id`, else the one that `page` has already begun, else a new one."""
        session = self.get(id)
        if session is None and page:  # two messages at once: the page does not know its session's id yet
            session = self.get(next((other.id for other in self._sessions.values() if other.page == page), None))
        if session is None:
            while len(self._sessions) >= self._limit:
                self.discard(self._least_missed())
            session = Session(secrets.token_urlsafe(24), self._root / secrets.token_urlsafe(24), page)
            self._sessions[session.id] = session
        return session

    def _least_missed(self) -> str:
        """Of the sessions that were left alone longest: an empty one first, one that is being answered last."""
        return min(self._sessions.values(), key=lambda session: (session.busy, bool(session.entries))).id

    def get(self, id: str | None) -> Session | None:
        """The session `id`, None when it is unknown or forgotten. Counts as use."""
        session = self._sessions.get(id or "")
        if session is not None:
            self._sessions.move_to_end(session.id)
        return session

    def discard(self, id: str | None) -> None:
        """Forgets a session and ends what runs in it."""
        session = self._sessions.pop(id or "", None)
        if session is not None:
            session.close()

    async def stop_page(self, page: str) -> None:
        """Ends what the sessions of one page have running: it was closed."""
        for session in [session for session in self._sessions.values() if session.page == page]:
            await session.stop()

    def close(self) -> None:
        """Forgets all sessions. From any thread."""
        for id in list(self._sessions):
            self.discard(id)


__all__ = ["IDLE_SECONDS", "MAX_SESSIONS", "Entry", "Outcome", "Session", "SessionStore"]
