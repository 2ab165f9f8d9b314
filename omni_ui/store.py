"""All conversations of the server: which there are, whose they are, and when they are forgotten.

Knows nothing of gradio.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from omni_backend import Phrase, phrase
from omni_ui.limits import GONE_IDS, GRACE_SECONDS, IDLE_SECONDS, SWEEP_SECONDS, StoreLimits
from omni_ui.sessions import Session
from omni_ui.uploads import trim_uploads

_LIMITS: Final = StoreLimits()
_log: Final = logging.getLogger(__name__)


class SessionStore:
    """All conversations, each under an unguessable id. Any thread may call `sweep`, `discard`, `close` and `gone`.

    `root`: folder for their files. `uploads`: where the originals of uploaded files lie, to be deleted with the
    conversation (see `SessionFiles`); None leaves them alone. `clock`: seconds, never going back.
    """

    def __init__(
        self,
        root: Path,
        limits: StoreLimits = _LIMITS,
        clock: Callable[[], float] = time.monotonic,
        *,
        uploads: Path | None = None,
    ) -> None:
        self._root = root
        self._uploads = uploads
        self._clock = clock
        self.limits = _within_the_disk(limits, root)
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        """The one that was left alone longest first."""
        self._started_at = time.time()
        self._gone: OrderedDict[str, Phrase] = OrderedDict()
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_again_and_again, name="omni-sweep", daemon=True)

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self) -> None:
        """Begins to sweep every SWEEP_SECONDS, until `close`. Once."""
        self._sweeper.start()

    def open(self, id: str | None, page: str = "") -> Session:
        """The session `id`, else the one that `page` has already begun, else a new one. Counts as use."""
        with self._lock:
            session = self.get(id)
            if session is None and page:  # two messages at once: the page does not know its session's id yet
                session = self.get(next((other.id for other in self._sessions.values() if page in other.pages), None))
            if session is None:
                while len(self._sessions) >= self.limits.sessions:
                    self._forget(self._least_missed(), phrase("session.gone_room")).close()
                session = self._new()
            if page:
                session.pages.add(page)
            return session

    def get(self, id: str | None) -> Session | None:
        """The session `id`, None when it is unknown or forgotten. Counts as use."""
        with self._lock:
            session = self._sessions.get(id or "")
            if session is not None:
                session.use()
                self._sessions.move_to_end(session.id)
            return session

    def resume(self, id: str | None, page: str) -> Session | None:
        """The session `id` for a page that was reloaded or copied; None when it is gone."""
        with self._lock:
            session = self.get(id)
            if session is not None and page:
                session.pages.add(page)
            return session

    def gone(self, id: str | None) -> Phrase | None:
        """Why the session `id` is not there any more; None when it is there or there never was one."""
        with self._lock:
            if not id or id in self._sessions:
                return None
            return self._gone.get(id) or phrase("session.gone_restart")

    async def leave(self, page: str) -> None:
        """A page was closed or reloaded: if no other page shows its sessions, ends what runs in them.

        They are forgotten after the grace period, unless a page resumes or uses them. A partial answer stays.
        """
        with self._lock:
            left = [session for session in self._sessions.values() if session.pages == {page}]
            for session in self._sessions.values():
                session.pages.discard(page)
            for session in left:
                session.left_at = self._clock()
        await asyncio.gather(*(session.stop() for session in left))

    def discard(self, id: str | None) -> None:
        """Forgets a session that nobody continues, and ends what runs in it."""
        with self._lock:
            session = self._sessions.get(id or "")
            if session is not None:
                self._forget(session, self._idle())
        if session is not None:
            session.close()

    def sweep(self) -> None:
        """Forgets what is due, tidies the rest up, and deletes uploads that are too many."""
        with self._lock:
            due = [(session, why) for session in self._sessions.values() if (why := self._due(session)) is not None]
            forgotten = [self._forget(session, why) for session, why in due]
            rest = list(self._sessions.values())
        for session in forgotten:  # deleting takes its time: without the lock
            session.close()
        for session in rest:
            session.tidy()
        if self._uploads is not None:
            empty_before = time.time() - self.limits.idle_seconds
            trim_uploads(self._uploads, self.limits.unsent_bytes, since=self._started_at, empty_before=empty_before)

    def close(self) -> None:
        """Forgets all sessions and stops sweeping. From any thread."""
        self._closed.set()
        for id in list(self._sessions):
            self.discard(id)

    def _new(self) -> Session:
        session = Session(
            secrets.token_urlsafe(24),
            self._root / secrets.token_urlsafe(24),
            limits=self.limits,
            clock=self._clock,
            uploads=self._uploads,
            make_room=self._make_room,
        )
        if self._closed.is_set():
            session.close()
        else:
            self._sessions[session.id] = session
        return session

    def _make_room(self, asking: Session) -> None:
        """Forgets others until the files of all are no more than there may be."""
        with self._lock:
            while sum(session.bytes for session in self._sessions.values()) > self.limits.total_bytes:
                others = [session for session in self._sessions.values() if session is not asking and session.bytes]
                if not others:
                    break
                self._forget(min(others, key=lambda session: session.busy), phrase("session.gone_room")).close()

    def _least_missed(self) -> Session:
        """Of the sessions that were left alone longest: an empty one first, one that is being answered last."""
        return min(self._sessions.values(), key=lambda session: (session.busy, bool(session.entries)))

    def _due(self, session: Session) -> Phrase | None:
        """Why it is time to forget it; None when it is not."""
        now, grace = self._clock(), self.limits.grace_seconds
        if session.left_at is not None and now - session.left_at >= grace:
            return phrase("session.gone_left", minutes=_minutes(grace))
        return self._idle() if not session.busy and now - session.used_at >= self.limits.idle_seconds else None

    def _forget(self, session: Session, why: Phrase) -> Session:
        """Takes it out and remembers why; the caller closes it."""
        with self._lock:
            del self._sessions[session.id]
            self._gone[session.id] = why
            while len(self._gone) > GONE_IDS:
                self._gone.popitem(last=False)
        return session

    def _idle(self) -> Phrase:
        return phrase("session.gone_idle", minutes=_minutes(self.limits.idle_seconds))

    def _sweep_again_and_again(self) -> None:
        while not self._closed.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except Exception:  # the next one may do better; without any, nothing would ever be forgotten
                _log.exception("sweeping the conversations failed")


def _within_the_disk(limits: StoreLimits, folder: Path) -> StoreLimits:
    """No more than the disk has room for, and one conversation no more than all."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    total = min(limits.total_bytes, free // 2)
    return replace(
        limits,
        total_bytes=total,
        conversation_bytes=min(limits.conversation_bytes, total),
        unsent_bytes=min(limits.unsent_bytes, free // 4),
    )


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.3g}"


__all__ = ["GRACE_SECONDS", "IDLE_SECONDS", "SWEEP_SECONDS", "SessionStore", "StoreLimits"]
