"""The Transformers engine: stock Qwen3-Omni classes, text token by token, speech while the text is being written.

Blocking work runs in threads. Media is decoded outside the engine's turn, so that one user's upload does not hold up
another's answer; the model itself serves one request at a time, in the order in which they came.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from omni_backend import defaults
from omni_backend.base import Backend, ReportProgress
from omni_backend.capabilities import Capabilities
from omni_backend.checkpoint import capabilities_of
from omni_backend.media import MediaLoader
from omni_backend.own_loop import ended
from omni_backend.registry import BackendOptions
from omni_backend.types import ChatRequest, StreamEvent

if TYPE_CHECKING:
    from omni_backend.transformers_loader import LoadedModel
    from omni_backend.transformers_prefix import PrefixPool


_END: Final = object()


def create(options: BackendOptions) -> Backend:
    """The registry's factory."""
    return TransformersBackend(options)


class TransformersBackend(Backend):
    """One checkpoint in this process."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__()
        self._options = options
        self._engine = ThreadPoolExecutor(max_workers=1, thread_name_prefix="omni-engine")
        self._decoders = ThreadPoolExecutor(max_workers=defaults.DECODERS, thread_name_prefix="omni-media")
        self._running: set[threading.Event] = set()
        self._loaded: LoadedModel | None = None
        self._prefixes: PrefixPool | None = None
        self._media = MediaLoader(roots=options.upload_roots, cache_bytes=options.media_cache_bytes)

    @property
    def loaded(self) -> LoadedModel:
        """The model in memory, for comparisons beside stock. Only once the backend is ready."""
        assert self._loaded is not None
        return self._loaded

    @property
    def prefixes(self) -> PrefixPool:
        """What is kept of earlier prompts, to see what is reused and, while nobody asks, to drop it. Once ready."""
        assert self._prefixes is not None
        return self._prefixes

    def _load(self, report: ReportProgress) -> Capabilities:
        from omni_backend.processor_memory import remember_files
        from omni_backend.transformers_loader import load_model
        from omni_backend.transformers_prefix import PrefixPool

        self._loaded = loaded = load_model(self._options, report)
        text_config = loaded.model.thinker.config.text_config
        if self._options.single_turn:
            self._prefixes = PrefixPool(text_config, caches=0)
        else:
            self._prefixes = PrefixPool(text_config)
            remember_files(loaded.processor)
        can = capabilities_of(
            loaded.checkpoint,
            engine=_describe(loaded),
            speaks=loaded.can_speak,
            context_tokens=loaded.checkpoint.context_tokens,
            max_concurrency=1,
            notices=loaded.notices,
        )
        self._media = MediaLoader(
            can.limits, roots=self._options.upload_roots, cache_bytes=self._options.media_cache_bytes
        )
        return can

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        from omni_backend.transformers_answer import Answer

        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Any] = asyncio.Queue()
        cancelled = threading.Event()

        def emit(event: object) -> None:
            try:
                loop.call_soon_threadsafe(events.put_nowait, event)
            except RuntimeError:  # the loop is gone, and with it whoever listened
                cancelled.set()

        self._running.add(cancelled)
        work: Future[None] | None = None
        try:
            answer = Answer(self.loaded, request, emit, cancelled, self.prefixes)
            await loop.run_in_executor(self._decoders, answer.prepare, self._media)
            work = self._engine.submit(answer.run)
            work.add_done_callback(lambda _: emit(_END))
            while (event := await events.get()) is not _END:
                yield event
            work.result()
        finally:
            cancelled.set()
            self._running.discard(cancelled)
            if work is not None and not work.done() and not work.cancel():
                await ended(work)

    def _unload(self) -> None:
        for cancelled in tuple(self._running):
            cancelled.set()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._engine.shutdown(wait=True, cancel_futures=True)
        self._loaded = self._prefixes = None


def _describe(loaded: LoadedModel) -> str:
    """Engine, attention, weights' type and device in one line."""
    import transformers

    dtype = str(loaded.model.dtype).removeprefix("torch.")
    return f"Transformers {transformers.__version__}, {loaded.attention}, {dtype}, {loaded.device}"
