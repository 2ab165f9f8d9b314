"""ScriptedBackend: answers from a script instead of a model. For tests and recordings, never for users."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence

from omni_backend.base import Backend, ReportProgress
from omni_backend.capabilities import Capabilities
from omni_backend.catalogue import phrase
from omni_backend.errors import BackendError
from omni_backend.types import ChatRequest, Done, StreamEvent, TextDelta, Usage

Step = StreamEvent | BackendError | Exception | float
"""An event to send, an error to raise, or seconds to wait."""


class ScriptedBackend(Backend):
    """Plays one script for each request, in the order in which they were enqueued, then `fallback` for ever.

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
        tokens = 0
        finished = False
        try:
            for step in script:
                if isinstance(step, Exception):
                    finished = True
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                    continue
                tokens += isinstance(step, TextDelta)
                finished = finished or isinstance(step, Done)
                yield step
                if finished:
                    return
            finished = True
            yield Done("stop", Usage(prompt_tokens=len(request.messages), completion_tokens=tokens))
        finally:
            self.cancelled += not finished
