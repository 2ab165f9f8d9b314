"""The one extension point: a backend is one verb, `stream`, plus `start` and `close`.

    backend = create_backend("transformers", BackendOptions(checkpoint="Qwen/Qwen3-Omni-30B-A3B-Instruct"))
    backend.start()                                       # loads in the background
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            ...

An engine implements `_load`, `_stream` and `_unload`; the order of events, the checks, the timing and the
translation of errors live here once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import final

from omni_backend import defaults
from omni_backend.capabilities import Capabilities
from omni_backend.catalogue import Phrase, phrase
from omni_backend.errors import BackendError, BackendUnavailable, EngineDied, GenerationFailed, UnsupportedRequest
from omni_backend.types import (
    AudioDelta,
    ChatRequest,
    Done,
    MediaPart,
    Message,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    Timing,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loading:
    """The engine is starting. `fraction`: 0 to 1 of `step`, None when unknown."""

    step: Phrase
    fraction: float | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The engine answers."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine did not load, or was closed."""

    error: BackendError


Status = Loading | Ready | Failed
ReportProgress = Callable[[Phrase, float | None], None]


class Backend(ABC):
    """One checkpoint on one engine. Safe to use from several event loops and threads."""

    def __init__(self) -> None:
        self._status: Status = Loading(phrase("load.waiting"))
        self._capabilities: Capabilities | None = None
        self._settled = threading.Event()
        self._lock = threading.Lock()
        self._loader: threading.Thread | None = None
        self._closed = False
        self._active = 0
        self._generation = 0  # counts the engine's lives

    # What an engine implements

    @abstractmethod
    def _load(self, report: ReportProgress) -> Capabilities:
        """Blocking: imports the engine and loads the checkpoint, telling `report` how far it is.

        Runs in a thread of its own, once and again after the engine died. Raises BackendError; anything else
        becomes BackendUnavailable.
        """

    @abstractmethod
    def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Answers a checked request: deltas, then one Done (its timing is filled in by the caller).

        Closing the generator frees the engine before `aclose` returns. Raises EngineDied when the engine has ended:
        it is then unloaded and loaded again.
        """

    def _unload(self) -> None:  # noqa: B027 - an engine without resources has nothing to do
        """Frees what `_load` took, as far as it came, and ends the streams that still run. Once for each load."""

    def _alive(self) -> bool:
        """Whether a loaded engine can still answer. Asked before each request; must be quick."""
        return True

    # What everybody else calls

    @final
    def start(self) -> None:
        """Begins to load in the background and returns at once. Further calls do nothing."""
        with self._lock:
            if self._loader is not None or self._closed:
                return
            self._loader = threading.Thread(target=self._run_load, name="omni-load", daemon=True)
        self._loader.start()

    @property
    def status(self) -> Status:
        """How far the engine is."""
        return self._status

    @property
    def active_requests(self) -> int:
        """How many requests are being answered or wait for their turn."""
        return self._active

    @property
    def capabilities(self) -> Capabilities:
        """What the loaded checkpoint can do. Raises BackendUnavailable before it is ready and after it failed."""
        if isinstance(self._status, Failed):
            raise self._status.error
        if self._capabilities is None:
            raise BackendUnavailable(phrase("backend.loading"))
        return self._capabilities

    @final
    def wait_until_ready(self, timeout: float | None = None) -> Capabilities:
        """Starts the engine if need be and blocks until it is ready, `timeout` seconds at most.

        Raises BackendUnavailable.
        """
        self.start()
        self._settled.wait(timeout)
        return self.capabilities

    @final
    async def ready(self) -> Capabilities:
        """Like `wait_until_ready`, for coroutines."""
        self.start()
        while not self._settled.is_set():  # noqa: ASYNC110 - set by a thread, for any number of loops
            await asyncio.sleep(0.05)
        return self.capabilities

    @final
    async def stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Answers `request`: deltas and notices, then exactly one Done with its timing.

        Raises only BackendError. Close the generator (`contextlib.aclosing`) to cancel: that frees the engine.
        """
        started = time.perf_counter()
        first_text = last_text = first_audio = None
        generation = self._generation
        with self._lock:
            self._active += 1
        try:
            if isinstance(self._status, Ready) and not self._alive():
                self._restart(self._generation)
            can = await self.ready()
            generation = self._generation
            if self._active > can.max_concurrency + defaults.MAX_WAITING:
                raise BackendUnavailable(phrase("backend.busy"))
            _check(request, can)
            async with aclosing(self._stream(request)) as events:
                async for event in events:
                    elapsed = time.perf_counter() - started
                    if isinstance(event, TextDelta | ReasoningDelta):
                        first_text = elapsed if first_text is None else first_text
                        last_text = elapsed
                    elif isinstance(event, AudioDelta) and first_audio is None:
                        first_audio = elapsed
                    elif isinstance(event, Done):
                        yield replace(event, timing=Timing(first_text, last_text, first_audio, elapsed))
                        return
                    yield event
            closed = self._status
            raise closed.error if isinstance(closed, Failed) else GenerationFailed(phrase("backend.no_end"))
        except EngineDied:
            self._restart(generation)
            raise
        except BackendError:
            raise
        except Exception as error:
            logger.exception("the engine failed in mid-answer")
            raise GenerationFailed(phrase("backend.failed"), detail=repr(error)) from error
        finally:
            with self._lock:
                self._active -= 1

    @final
    def close(self) -> None:
        """Frees the engine; streams that still run fail. Further calls do nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._status = Failed(BackendUnavailable(phrase("backend.closed")))
            self._settled.set()
        loader = self._loader
        if loader is not None and loader is not threading.current_thread():
            loader.join()
        self._unload()

    def _restart(self, generation: int) -> None:
        """Loads an engine that died again, in the background; once, however many requests died with it."""
        with self._lock:
            if not isinstance(self._status, Ready) or generation != self._generation:
                return
            self._generation += 1
            logger.error("the engine died and is started again")
            self._status = Loading(phrase("load.restarting"))
            self._capabilities = None
            self._settled.clear()
            self._loader = threading.Thread(target=self._run_reload, name="omni-reload", daemon=True)
            self._loader.start()

    def _run_reload(self) -> None:
        try:
            self._unload()
        except Exception:
            logger.exception("the dead engine could not be cleared away")
        self._run_load()

    def _run_load(self) -> None:
        def report(step: Phrase, fraction: float | None = None) -> None:
            with self._lock:
                if isinstance(self._status, Loading):
                    self._status = Loading(step, fraction)

        try:
            capabilities = self._load(report)
            with self._lock:
                if isinstance(self._status, Loading):
                    self._capabilities = capabilities
                    self._status = Ready()
        except Exception as error:
            logger.exception("the engine did not load")
            failure = (
                error
                if isinstance(error, BackendError)
                else BackendUnavailable(phrase("backend.load_failed"), detail=repr(error))
            )
            with self._lock:
                if isinstance(self._status, Loading):
                    self._status = Failed(failure)
        finally:
            self._settled.set()


def _check(request: ChatRequest, can: Capabilities) -> None:
    """Raises UnsupportedRequest for what the checkpoint cannot do, before any work is spent on it."""
    for modality in request.modalities - can.outputs:
        raise UnsupportedRequest(can.missing_outputs.get(modality) or phrase("request.no_output", modality=modality))
    if request.voice is not None and "audio" in request.modalities and request.voice not in can.voices:
        raise UnsupportedRequest(phrase("request.no_voice", voice=request.voice, voices=", ".join(can.voices)))
    _check_answer_prefix(request, can)
    if not request.messages or request.messages[-1].role != "user":
        raise UnsupportedRequest(phrase("request.no_user_turn"))
    for message in request.messages:
        _check_media(message, can)
    last = request.messages[-1]
    if not can.text_prompts and [getattr(part, "type", "text") for part in last.content] != ["audio"]:
        raise UnsupportedRequest(phrase("request.one_recording"))
    if not last.text.strip() and not any(isinstance(part, MediaPart) for part in last.content):
        raise UnsupportedRequest(phrase("request.empty"))


def _check_answer_prefix(request: ChatRequest, can: Capabilities) -> None:
    if not request.answer_prefix:
        return
    if can.no_answer_prefix is not None:
        raise UnsupportedRequest(can.no_answer_prefix)
    if "audio" in request.modalities:
        raise UnsupportedRequest(phrase("request.spoken_prefix"))
    if len(request.answer_prefix) > defaults.ANSWER_PREFIX_CHARACTERS:
        raise UnsupportedRequest(phrase("request.long_prefix", limit=defaults.ANSWER_PREFIX_CHARACTERS))


def _check_media(message: Message, can: Capabilities) -> None:
    counts: dict[str, int] = {}
    for part in message.content:
        if not isinstance(part, MediaPart):
            continue
        if part.type not in can.inputs:
            raise UnsupportedRequest(
                can.missing_inputs.get(part.type) or phrase("request.no_input", name=part.label, type=part.type)
            )
        counts[part.type] = counts.get(part.type, 0) + 1
        limit = can.limits.per_message.get(part.type)
        if limit is not None and counts[part.type] > limit:
            raise UnsupportedRequest(phrase(f"request.too_many_{part.type}", name=part.label, limit=limit))


__all__ = ["Backend", "Failed", "Loading", "Ready", "ReportProgress", "Status"]
