"""ScriptedBackend: answers from a script instead of a model. For tests and recordings, never for users."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from omni_backend.base import Backend, ReportProgress
from omni_backend.capabilities import Capabilities
from omni_backend.catalogue import phrase
from omni_backend.errors import BackendError
from omni_backend.types import ChatRequest, Done, StreamEvent, TextDelta, Usage

Step = StreamEvent | BackendError | Exception | float | threading.Event
"""An event to send, an error to raise, seconds to wait, or what to wait for."""


_TICK: Final = 0.005  # seconds between two looks at what a script waits for


class ScriptedBackend(Backend):
    """Plays one script for each request, in the order in which they were enqueued, then `fallback` for ever.

    As many scripts run together as `capabilities.max_concurrency` says; the others wait, first come, first served.
    `requests` records what was asked and `cancelled` counts the streams that were closed early.
    """

    def __init__(
        self,
        *scripts: Sequence[Step],
        capabilities: Capabilities | None = None,
        load: Sequence[Step] = (),
        fallback: Sequence[Step] = (TextDelta("ok"),),
    ) -> None:
        super().__init__()
        self._scripts = deque(scripts)
        self._fallback = fallback
        self._scripted_capabilities = capabilities or Capabilities(
            model="scripted", engine="a script", outputs=frozenset({"text", "audio"}), voices=("ethan", "chelsie")
        )
        self._load_script = load
        self._slots = threading.Semaphore(self._scripted_capabilities.max_concurrency)
        self._line: deque[object] = deque()
        self.requests: list[ChatRequest] = []
        self.cancelled = 0

    def enqueue(self, *steps: Step) -> None:
        """Adds the script of one more request. A script without a Done ends with one of its own."""
        self._scripts.append(steps)

    def _load(self, report: ReportProgress) -> Capabilities:
        report(phrase("load.waiting"), 0.0)
        for step in self._load_script:
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                self._settled.wait(step)
        return self._scripted_capabilities

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.requests.append(request)
        script = self._scripts.popleft() if self._scripts else self._fallback
        running = finished = False
        ticket = object()
        self._line.append(ticket)
        try:
            try:
                while not (running := self._begins(ticket)):  # noqa: ASYNC110 - for any number of loops
                    await asyncio.sleep(_TICK)
            finally:
                self._line.remove(ticket)
            async with aclosing(self._play(script, request)) as events:
                async for event in events:
                    finished = isinstance(event, Done)
                    yield event
        except Exception:
            finished = True
            raise
        finally:
            self.cancelled += not finished
            if running:
                self._slots.release()

    def _begins(self, ticket: object) -> bool:
        """Whether it is the turn of who has `ticket`."""
        return self._line[0] is ticket and self._slots.acquire(blocking=False)

    async def _play(self, script: Sequence[Step], request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        tokens = 0
        for step in script:
            if isinstance(step, float | threading.Event):
                await self._pause(step)
                continue
            if self._closed:
                return
            if isinstance(step, Exception):
                raise step
            tokens += isinstance(step, TextDelta)
            yield step
            if isinstance(step, Done):
                return
        if not self._closed:
            yield Done("stop", Usage(prompt_tokens=len(request.messages), completion_tokens=tokens))

    async def _pause(self, until: float | threading.Event) -> None:
        """Waits, but not beyond `close`."""
        if isinstance(until, threading.Event):
            while not (self._closed or until.is_set()):  # noqa: ASYNC110 - closed and set by any thread
                await asyncio.sleep(_TICK)
            return
        end = time.monotonic() + until
        while not self._closed and (left := end - time.monotonic()) > 0:  # noqa: ASYNC110 - closed by any thread
            await asyncio.sleep(min(left, _TICK))
