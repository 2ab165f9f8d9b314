"""The vLLM backend: many answers at a time, by continuous batching.

The engine lives on an event loop of its own, in a thread of this backend, because callers may come from several
loops. Media is decoded in threads, as in the Transformers engine and by the same code.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass

from omni_backend import defaults
from omni_backend.base import Backend, ReportProgress
from omni_backend.capabilities import Capabilities
from omni_backend.catalogue import Phrase, phrase
from omni_backend.checkpoint import Checkpoint, capabilities_of, read_checkpoint
from omni_backend.errors import BackendError, BackendUnavailable, GenerationFailed, OutOfMemory
from omni_backend.hub import find_checkpoint, short_name
from omni_backend.media import MediaLoader
from omni_backend.own_loop import OwnLoop
from omni_backend.processor import Processing, load_processing
from omni_backend.registry import BackendOptions
from omni_backend.text_stream import TextStream
from omni_backend.torchvision_ops import define_missing_ops
from omni_backend.types import AudioDelta, ChatRequest, Done, FinishReason, Notice, StreamEvent, Usage
from omni_backend.vllm_arguments import engine_arguments, this_machine
from omni_backend.vllm_engine import Engine, EngineInputs, NewSound, NewTokens, TextEngine
from omni_backend.vllm_inputs import engine_inputs
from omni_backend.vllm_log import EngineLog, heard_by
from omni_backend.vllm_omni import OmniEngine, why_no_device, why_no_omni
from omni_backend.vllm_omni_arguments import omni_plan


def create(options: BackendOptions) -> Backend:
    """The registry's factory."""
    return VllmBackend(options)


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """An engine that answers, and what is needed to ask it."""

    checkpoint: Checkpoint
    processing: Processing
    engine: Engine
    loop: OwnLoop
    """Where the engine lives."""
    media: MediaLoader


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which engine to start. `no_speech`: why it is not the one that speaks, where that was asked for."""

    start: Callable[[], Engine]
    context_tokens: int
    max_num_seqs: int
    no_speech: Phrase | None = None


class VllmBackend(Backend):
    """One checkpoint, on all GPUs of this machine or on its CPU."""

    def __init__(self, options: BackendOptions) -> None:
        super().__init__()
        self._options = options
        self._decoders = ThreadPoolExecutor(max_workers=defaults.DECODERS, thread_name_prefix="omni-media")
        self._numbers = itertools.count()
        self._loop: OwnLoop | None = None
        self._loaded: Loaded | None = None

    @property
    def loaded(self) -> Loaded:
        """The engine, for comparisons with the bare one. Only once the backend is ready."""
        assert self._loaded is not None
        return self._loaded

    def _load(self, report: ReportProgress) -> Capabilities:
        report(phrase("vllm.importing"), None)
        _set_environment()
        define_missing_ops()
        folder = find_checkpoint(self._options.checkpoint, report)
        checkpoint = read_checkpoint(folder, short_name(self._options.checkpoint))
        plan = _plan(self._options, checkpoint)
        processing = load_processing(checkpoint, plan.context_tokens)
        self._loop = loop = OwnLoop("omni-vllm")
        engine = _start_engine(plan, loop, checkpoint.name, report)
        can = capabilities_of(
            checkpoint,
            engine=engine.description,
            speaks=engine.speaks,
            context_tokens=plan.context_tokens,
            max_concurrency=plan.max_num_seqs,
            no_speech=plan.no_speech,
        )
        media = MediaLoader(can.limits, roots=self._options.upload_roots, cache_bytes=self._options.media_cache_bytes)
        self._loaded = Loaded(checkpoint, processing, engine, loop, media)
        return can

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        loaded = self._loaded
        if loaded is None:  # closed at this moment
            return
        home = asyncio.get_running_loop()
        inputs, notices = await home.run_in_executor(self._decoders, _prepare, loaded, request)
        for notice in notices:
            yield notice
        tokenizer = loaded.processing.processor.tokenizer
        voice = request.voice or loaded.checkpoint.voices[0] if "audio" in request.modalities else None
        source = loaded.engine.generate(
            inputs,
            request.sampling or loaded.checkpoint.sampling,
            eos_token_ids=loaded.processing.eos_token_ids,
            voice=voice,
            request_id=f"omni-{next(self._numbers)}",
        )
        async with aclosing(loaded.loop.iterate(source)) as outputs:
            answer = _Answer(TextStream(tokenizer, inputs.text, request.answer_prefix))
            async for output in outputs:
                for event in answer.take(output):
                    yield event
        for event in answer.finish():
            yield event

    def _alive(self) -> bool:
        return self._loaded is not None and not self._loaded.engine.errored

    def _unload(self) -> None:
        loaded, self._loaded = self._loaded, None
        loop, self._loop = self._loop, None
        if loop is not None:
            if loaded is not None:
                loop.call(_shut_down(loaded.engine))
            loop.close()
        if self._closed:
            self._decoders.shutdown(wait=False, cancel_futures=True)


class _Answer:
    """What an engine gives for one request → events."""

    def __init__(self, text: TextStream) -> None:
        self._text = text
        self._tokens = 0
        self._prompt_tokens = 0
        self._seconds = 0.0
        self._finish_reason: str | None = None

    def take(self, output: NewTokens | NewSound) -> list[StreamEvent]:
        """The events that an output makes."""
        if isinstance(output, NewSound):
            self._seconds += len(output.pcm) / output.sample_rate
            return [AudioDelta(output.pcm, output.sample_rate)]
        self._prompt_tokens = output.prompt_tokens
        self._tokens += len(output.ids)
        self._finish_reason = output.finish_reason or self._finish_reason
        return [event for token in output.ids for event in self._text.feed(token)]

    def finish(self) -> list[StreamEvent]:
        """The end of a complete answer; nothing where the engine was shut down. Raises GenerationFailed."""
        if self._finish_reason is None:
            return []
        if self._finish_reason not in ("stop", "length"):
            raise GenerationFailed(phrase("backend.failed"), detail=self._finish_reason)
        usage = Usage(self._prompt_tokens, self._tokens, round(self._seconds / defaults.FRAME_SECONDS))
        reason: FinishReason = "stop" if self._finish_reason == "stop" else "length"
        return [*self._text.finish(), Done(reason, usage)]


def _prepare(loaded: Loaded, request: ChatRequest) -> tuple[EngineInputs, list[Notice]]:
    """Blocking: decodes the media and lays the prompt out. Raises BadMedia."""
    prompt, text = loaded.processing.prompt(request, loaded.media)
    return engine_inputs(prompt, text), prompt.notices


def _plan(options: BackendOptions, checkpoint: Checkpoint) -> _Plan:
    """vLLM-Omni where speech is asked for and it is there; else vLLM, which gives text alone."""
    machine = this_machine()
    no_speech = None
    if options.generate_audio and checkpoint.has_talker:
        no_speech = why_no_omni() or why_no_device()
        if no_speech is None:
            plan = omni_plan(options, checkpoint, machine)
            return _Plan(lambda: OmniEngine(plan), plan.context_tokens, plan.max_num_seqs)
    arguments = engine_arguments(options, checkpoint, machine)
    length, sequences = arguments["max_model_len"], arguments["max_num_seqs"]
    return _Plan(lambda: TextEngine(arguments), int(length), int(sequences), no_speech)


def _start_engine(plan: _Plan, loop: OwnLoop, name: str, report: ReportProgress) -> Engine:
    """Starts the engine's processes. Raises BackendUnavailable or OutOfMemory."""

    async def start() -> Engine:
        return plan.start()

    report(phrase("vllm.starting"), None)
    log = EngineLog(name, report)
    try:
        with heard_by(log.take):
            return loop.call(start())
    except BackendError:
        raise
    except Exception as error:
        detail = f"{error!r}\n{log.tail()}"
        if log.out_of_memory:
            raise OutOfMemory(phrase("load.out_of_memory", name=name), detail=detail) from error
        raise BackendUnavailable(phrase("vllm.not_started"), detail=detail) from error


async def _shut_down(engine: Engine) -> None:
    engine.shutdown()


def _set_environment() -> None:
    """What vLLM takes only from the environment; what somebody has set stays."""
    for name, value in defaults.VLLM_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
