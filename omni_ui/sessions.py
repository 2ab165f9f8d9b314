"""The conversations, kept on the server: nothing that a browser sends can change what was said.

A `Session` is one conversation with its files and the turn that runs in it. Knows nothing of gradio.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from omni_backend import (
    Backend,
    ChatRequest,
    Done,
    MediaPart,
    Message,
    OutputModality,
    Phrase,
    SamplingParams,
    TextPart,
    UnsupportedRequest,
    phrase,
)
from omni_backend.media_values import bytes_text
from omni_ui.limits import StoreLimits
from omni_ui.session_files import SessionFiles
from omni_ui.speech import TOKEN_SECONDS, SpeechStream
from omni_ui.turn import Answer, Turn


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """How an answer is wanted: what the side panel says."""

    speak: bool = False
    voice: str | None = None
    """None: the checkpoint's first."""
    system_prompt: str = ""
    """Whole, as the model gets it; "" for none."""
    sampling: SamplingParams | None = None
    """None: the checkpoint's own."""
    use_audio_in_video: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a conversation, with what is shown beside its words."""

    message: Message
    reasoning: str = ""
    sound: Path | None = None
    notices: tuple[Phrase, ...] = ()
    mark: Phrase | None = None
    """Why the answer is not whole: stopped, broken off, or at its length limit."""
    done: Done | None = None
    """Of an answer that the engine finished: timing and usage, for its line of figures."""
    speech_seconds: float = 0.0


Entries = tuple[Entry, ...]
Limit = str
"""Which limit of a conversation made its oldest messages go: "messages", "files" or "words"."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last turn ended, for the page to show once."""

    answer: Answer
    returned: Message | None = None
    """The user's message, when the turn failed before it answered: the conversation is as it was before."""


@dataclass(frozen=True, slots=True)
class _Before:
    """A conversation as it was before a message was asked, to go back to."""

    entries: Entries
    dropped: Counter[Limit]
    asked: Message
    again: bool
    """Whether the message stood there already."""


_PLAIN: Final = AnswerOptions()
_LIMITS: Final = StoreLimits()


def _no_room_needed(session: Session) -> None:
    """For a session without others beside it."""


class Session:
    """One conversation. Lives on one event loop; `close` and `tidy` may come from any thread.

    `folder`, `uploads`: see `SessionFiles`. `make_room` is called before a message is asked, when its files are
    there; it may forget other sessions.
    """

    def __init__(
        self,
        id: str,
        folder: Path,
        *,
        limits: StoreLimits = _LIMITS,
        clock: Callable[[], float] = time.monotonic,
        uploads: Path | None = None,
        make_room: Callable[[Session], None] = _no_room_needed,
    ) -> None:
        self.id = id
        self.pages: set[str] = set()
        """The open pages that show it."""
        self.left_at: float | None = None
        """When the last of its pages was closed; None while one is open or once it was used since."""
        self.used_at = clock()
        self.settings: tuple[Any, ...] = ()
        """What the page's panel said last, to be shown again after a reload."""
        self.lost: Phrase | None = None
        """Why its visitor's conversation before this one is gone."""
        self.entries: Entries = ()
        self.turn: Turn | None = None
        """The turn that runs or ran last."""
        self._outcome: Outcome | None = None
        self._limits = limits
        self._clock = clock
        self._make_room = make_room
        self._files = SessionFiles(folder, uploads, clock)
        self._drafts: frozenset[Path] = frozenset()
        """Files of messages that were given back: a composer may hold them."""
        self._dropped: Counter[Limit] = Counter()
        self._silent_at: float | None = None
        """When the last turn's sound was saved; None before."""
        self._closed = False

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation as the model gets it."""
        return tuple(entry.message for entry in self.entries)

    @property
    def notes(self) -> tuple[Phrase, ...]:
        """What was dropped from this conversation and why."""
        before = (self.lost,) if self.lost is not None else ()
        return (*before, *(self._note(limit, count) for limit, count in self._dropped.items()))

    @property
    def busy(self) -> bool:
        """Whether a turn is running."""
        return self.turn is not None and not self.turn.ended

    @property
    def bytes(self) -> int:
        """Of its files."""
        return self._files.bytes

    def use(self) -> None:
        """Notes that somebody wants it."""
        self.used_at, self.left_at = self._clock(), None

    def adopt(self, upload: str | Path) -> Path:
        """The session's own name for an uploaded file, which lives as long as a message names it. From any thread.

        Raises OSError when it is gone.
        """
        return self._files.adopt(upload)

    def ask(
        self, backend: Backend, message: Message, options: AnswerOptions = _PLAIN, *, replacing: int | None = None
    ) -> Turn:
        """Adds the user's `message` and starts to answer it.

        `replacing`: index of a user's entry; it and all after it make room. To answer a message anew, give
        `message(index)` again. When the turn ends without an answer, the conversation is what it was before.
        Raises UnsupportedRequest: another turn is running (see `busy`), there is no such entry, the message's
        files are more than a conversation holds, or the session was closed.
        """
        self._refuse_if_busy()
        if self._closed:
            raise UnsupportedRequest(phrase("session.ended"))
        self._refuse_if_too_large(message)
        again = replacing is not None and self._question(replacing) == message
        before = _Before(self.entries, self._dropped, message, again)
        asked = (*self.entries[:replacing], Entry(message))
        entries, dropped = self._fitting(asked)
        request = self._request(entries, options)
        self._files.mark_sent(_files((Entry(message),)))
        if replacing is None:  # all that the composer held was sent
            self._drafts = frozenset()
        self._files.purge(_files((*before.entries, *entries)) | self._drafts)
        self._make_room(self)
        self.use()
        self._files.touch()
        self._outcome = self._silent_at = None
        self.turn = Turn(backend, request, lambda turn: self._end(turn, before))
        self.entries, self._dropped = entries, self._dropped + dropped
        if self._closed:  # by another thread, a moment ago
            self.turn.cancel()
        return self.turn

    def message(self, index: int) -> Message:
        """The user's message at `index`, to be asked again or edited. Raises UnsupportedRequest, as `ask`."""
        message = self._question(index)
        self._keep_for_composer(message)
        return message

    def undo(self, index: int) -> Message:
        """Removes the user's message at `index` and all after it, and returns it. Raises UnsupportedRequest."""
        self._refuse_if_busy()
        message = self.message(index)
        self.entries = self.entries[:index]
        return message

    def take_outcome(self) -> Outcome | None:
        """How the last turn ended; None when that was told already."""
        outcome, self._outcome = self._outcome, None
        return outcome

    async def restart(self) -> None:
        """Forgets what was said. What was given back stays: a composer may hold it."""
        await self.stop()
        self.entries = ()
        self.lost = None
        self._outcome = None
        self._dropped = Counter()
        self._files.purge(self._drafts)

    async def stop(self) -> None:
        """Ends the running turn, if any; the engine is free afterwards."""
        if self.turn is not None:
            await self.turn.stop()

    def tidy(self) -> None:
        """Keeps the files from being swept away as old and lets go of sound that nobody can hear any more."""
        turn = self.turn  # before the time: `ask` sets them the other way round
        silent_at = self._silent_at
        if turn is not None and silent_at is not None and self._clock() - silent_at >= TOKEN_SECONDS:
            turn.speech.release()
        self._files.touch_if_due()

    def close(self) -> None:
        """Ends the running turn without waiting and deletes the files. From any thread."""
        self._closed = True
        if self.turn is not None:
            self.turn.cancel()
        self._files.close()

    def _refuse_if_busy(self) -> None:
        if self.busy:
            raise UnsupportedRequest(phrase("ui.busy"))

    def _refuse_if_too_large(self, message: Message) -> None:
        size, limit = self._files.size(_files((Entry(message),))), self._limits.conversation_bytes
        if size > limit:
            raise UnsupportedRequest(phrase("session.too_large", size=bytes_text(size), limit=bytes_text(limit)))

    def _question(self, index: int) -> Message:
        """The user's message at `index`, which a browser chose."""
        if not 0 <= index < len(self.entries) or self.entries[index].message.role != "user":
            raise UnsupportedRequest(phrase("session.no_such_turn"))
        return self.entries[index].message

    def _request(self, entries: Entries, options: AnswerOptions) -> ChatRequest:
        modalities: frozenset[OutputModality] = frozenset({"text", "audio"} if options.speak else {"text"})
        system = options.system_prompt
        lead = (Message("system", (TextPart(system),)),) if system.strip() else ()
        return ChatRequest(
            (*lead, *(entry.message for entry in entries)),
            sampling=options.sampling,
            modalities=modalities,
            voice=options.voice if options.speak else None,
            use_audio_in_video=options.use_audio_in_video,
        )

    def _fitting(self, entries: Entries) -> tuple[Entries, Counter[Limit]]:
        """`entries` without the oldest turns that are too many, and how many messages went for which limit."""
        dropped: Counter[Limit] = Counter()
        while limit := self._exceeded(entries):
            second = next((n for n, entry in enumerate(entries) if n and entry.message.role == "user"), None)
            if second is None:
                break
            dropped[limit] += second
            entries = entries[second:]
        return entries, dropped

    def _exceeded(self, entries: Entries) -> Limit | None:
        if len(entries) > self._limits.messages:
            return "messages"
        if self._files.size(_files(entries)) > self._limits.conversation_bytes:
            return "files"
        if sum(len(entry.message.text) + len(entry.reasoning) for entry in entries) > self._limits.characters:
            return "words"
        return None

    def _note(self, limit: Limit, count: int) -> Phrase:
        match limit:
            case "messages":
                return phrase("session.dropped_messages", count=count, limit=f"{self._limits.messages:,}")
            case "files":
                most = bytes_text(self._limits.conversation_bytes)
                return phrase("session.dropped_files", count=count, limit=most)
            case _:
                return phrase("session.dropped_words", count=count, limit=f"{self._limits.characters:,}")

    def _keep_for_composer(self, message: Message) -> None:
        self._drafts |= _files((Entry(message),))

    def _end(self, turn: Turn, before: _Before) -> None:
        """Keeps the answer, or goes back to what was before when there is none."""
        answer = turn.answer
        self.used_at = self._clock()  # the answer's visitor was there all the time, or has left
        if answer.done is None and not answer.text.strip():
            self.entries, self._dropped = before.entries, before.dropped
            self._keep_for_composer(before.asked)
            self._outcome = Outcome(answer, returned=None if before.again else before.asked)
        else:
            self.entries = (*self.entries, self._entry(turn, answer))
            self._outcome = Outcome(answer)
            self._files.purge(_files(self.entries) | self._drafts)
        self._silent_at = self._clock()

    def _entry(self, turn: Turn, answer: Answer) -> Entry:
        return Entry(
            Message("assistant", (TextPart(answer.text),)),
            reasoning=answer.reasoning,
            sound=self._save(turn.speech),
            notices=answer.notices,
            mark=_mark(answer),
            done=answer.done,
            speech_seconds=answer.speech_seconds,
        )

    def _save(self, speech: SpeechStream) -> Path | None:
        """The sound as a file; None when there is none, nobody wants it any more, or the disk is full."""
        if not speech.seconds:
            return None
        try:
            return self._files.save("answer.wav", speech.save)
        except OSError:
            return None


def _files(entries: Entries) -> frozenset[Path]:
    """All files that the entries name."""
    media = (part.path for entry in entries for part in entry.message.content if isinstance(part, MediaPart))
    sounds = (entry.sound for entry in entries if entry.sound is not None)
    return frozenset({*map(Path, media), *sounds})


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


__all__ = ["AnswerOptions", "Entry", "Outcome", "Session"]
