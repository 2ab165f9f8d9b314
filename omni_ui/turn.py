"""One turn: a task that pumps the engine's events into a growing answer, for the pages that show it to look at.

A viewer may be slow or go away; the task never waits for it. Stop, a closed tab and errors all end the task,
and with it the engine's work. Knows nothing of gradio.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final, assert_never

from omni_backend import (
    AudioDelta,
    Backend,
    BackendError,
    ChatRequest,
    Done,
    GenerationFailed,
    Notice,
    Phrase,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    phrase,
)
from omni_ui.speech import SpeechStream

LOOK_SECONDS: Final = 0.12
"""Between two looks at a growing answer. More often slows the browser down, less often looks jerky."""
WAIT_SECONDS: Final = 0.5
"""Between two looks while nothing has come, to tell what the answer waits for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a turn has brought so far."""

    reasoning: str = ""
    text: str = ""
    notices: tuple[Phrase, ...] = ()
    speech_seconds: float = 0.0
    started: bool = False
    """Whether anything has come from the engine."""
    ended: bool = False
    done: Done | None = None
    """Set when the engine finished the answer."""
    error: BackendError | None = None
    stopped: bool = False


class Turn:
    """Answers one request. Starts at once; needs a running event loop.

    `on_end` is called once, when the engine is free again, before any viewer sees the end.
    """

    def __init__(self, backend: Backend, request: ChatRequest, on_end: Callable[[Turn], None] | None = None) -> None:
        self.request = request
        self.speech = SpeechStream()
        self._backend = backend
        self._reasoning: list[str] = []
        self._text: list[str] = []
        self._notices: list[Phrase] = []
        self._done: Done | None = None
        self._error: BackendError | None = None
        self._started = self._ended = self._stopped = self._cancelled = False
        self._changed = asyncio.Event()
        self._urgent = asyncio.Event()
        self._viewers = 0
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._pump())
        self._task.add_done_callback(self._finish)

    @property
    def answer(self) -> Answer:
        """What there is now."""
        return Answer(
            reasoning="".join(self._reasoning),
            text="".join(self._text),
            notices=tuple(self._notices),
            speech_seconds=self.speech.seconds,
            started=self._started,
            ended=self._ended,
            done=self._done,
            error=self._error,
            stopped=self._stopped,
        )

    @property
    def ended(self) -> bool:
        """Whether the engine is done with it."""
        return self._ended

    async def stop(self) -> Answer:
        """Frees the engine and keeps what there is. Does nothing to a turn that has ended."""
        self._cancel_once()
        return await self.wait()

    async def wait(self) -> Answer:
        """The answer, once the turn has ended."""
        await asyncio.wait({self._task})
        return self.answer

    def cancel(self) -> None:
        """Like `stop` without waiting, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: so is the turn
            self._loop.call_soon_threadsafe(self._cancel_once)

    def _cancel_once(self) -> None:
        """A second cancel would end the task before the engine is free."""
        if not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    async def look(self) -> AsyncGenerator[Answer, None]:
        """The answer whenever there is news: the first text at once, then every LOOK_SECONDS, last the whole.

        When the last viewer goes away before the end, the turn is stopped.
        """
        self._viewers += 1
        try:
            while True:
                if not self._ended:
                    self._changed.clear()
                    self._urgent.clear()
                answer = self.answer
                yield answer
                if answer.ended:
                    return
                await _wait_for(self._urgent, LOOK_SECONDS)
                await _wait_for(self._changed, None if answer.started else WAIT_SECONDS)
        finally:
            self._viewers -= 1
            if not self._viewers:
                await self.stop()

    async def _pump(self) -> None:
        try:
            async with aclosing(self._backend.stream(self.request)) as events:
                async for event in events:
                    self._take(event)
        except BackendError as error:
            # Kept as long as the conversation: without the frames that hold the failed answer's memory.
            error.__cause__ = error.__context__ = None
            self._error = error.with_traceback(None)

    def _take(self, event: StreamEvent) -> None:
        self._started = True
        match event:
            case TextDelta(text):
                self._hurry_if_first(self._text)
                self._text.append(text)
            case ReasoningDelta(text):
                self._hurry_if_first(self._reasoning)
                self._reasoning.append(text)
            case Notice(notice):
                self._notices.append(notice)
            case AudioDelta():
                self.speech.write(event)
                return  # heard, not seen
            case Done():
                self._done = event
            case _:
                assert_never(event)
        self._changed.set()

    def _hurry_if_first(self, parts: list[str]) -> None:
        if not parts:
            self._urgent.set()

    def _finish(self, task: asyncio.Task[None]) -> None:
        self.speech.end()
        self._ended = True
        if task.cancelled():
            self._stopped = self._done is None
        elif (error := task.exception()) is not None:  # a defect of the engine's wrapper; say so rather than hang
            self._error = GenerationFailed(phrase("backend.failed"), detail=repr(error))
        try:
            if self._on_end is not None:
                self._on_end(self)
        finally:
            self._changed.set()
            self._urgent.set()


async def _wait_for(event: asyncio.Event, seconds: float | None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
