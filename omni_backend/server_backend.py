"""Any OpenAI-compatible server as an engine: `vllm serve`, vLLM-Omni, SGLang, llama.cpp, or a hosted API.

The server is asked what it can do when the backend starts. Media are read, checked and cut to size here, as for the
engines on this machine, so that a server never fetches what a user names. All HTTP runs on one event loop of its
own; closing a stream closes its HTTP response, and by that the server stops.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_futures
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from omni_backend import defaults
from omni_backend.base import Backend, ReportProgress
from omni_backend.capabilities import Capabilities, Limits
from omni_backend.catalogue import phrase
from omni_backend.checkpoint import SAMPLING, Checkpoint, CheckpointKind, read_checkpoint
from omni_backend.errors import BackendError, BackendUnavailable
from omni_backend.media import MediaLoader
from omni_backend.own_loop import OwnLoop
from omni_backend.prompt import build_prompt
from omni_backend.registry import BackendOptions
from omni_backend.server_client import Address, chunks, context_numbers, safe_detail, said, too_long, translate
from omni_backend.server_facts import Listing, ServerFacts
from omni_backend.server_find import START_SECONDS, find_api
from omni_backend.server_media import Attachments, MediaEncoder
from omni_backend.server_probe import Probe
from omni_backend.server_prompt import PromptRules, prompt_rules
from omni_backend.server_request import Hand, completion_arguments
from omni_backend.server_stream import ChunkReader
from omni_backend.types import ChatRequest, Notice, StreamEvent

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

MAX_CONCURRENCY: Final = 32
"""Requests under way at the same time; servers batch them."""
FIRST_SECONDS: Final = 300.0
"""How long a server may take until its answer begins: it may have others to answer first."""
SILENCE_SECONDS: Final = 60.0
"""How long it may say nothing in mid-answer."""


def create(options: BackendOptions) -> Backend:
    """The registry's factory."""
    return ServerBackend(options)


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """A server that was found and asked."""

    client: AsyncOpenAI
    address: Address
    facts: ServerFacts
    rules: PromptRules
    slots: asyncio.Semaphore


class ServerBackend(Backend):
    """One model of one server. `patience`: seconds to wait for a server that is still starting.

    `first_seconds` and `silence_seconds`: how long to wait for the beginning of an answer and for its next piece.
    """

    def __init__(
        self,
        options: BackendOptions,
        *,
        patience: float = START_SECONDS,
        first_seconds: float = FIRST_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        super().__init__()
        self._options = options
        self._patience = patience
        self._first_seconds = first_seconds
        self._silence_seconds = silence_seconds
        self._threads: ThreadPoolExecutor | None = None
        self._loop: OwnLoop | None = None
        self._media = MediaLoader(roots=options.upload_roots, cache_bytes=options.media_cache_bytes)
        self._encoder = MediaEncoder(options.encoded_cache_bytes)
        self._connection: Connection | None = None

    @property
    def facts(self) -> ServerFacts:
        """What is known of the server. Only once the backend is ready."""
        assert self._connection is not None
        return self._connection.facts

    def _load(self, report: ReportProgress) -> Capabilities:
        address = Address(self._options.server_url or "")
        self._threads = ThreadPoolExecutor(max_workers=defaults.DECODERS, thread_name_prefix="omni-server-media")
        self._loop = OwnLoop("omni-server")
        self._connection = connection = self._wait(self._loop.submit(self._connect(address, report)))
        limits = Limits(context_tokens=connection.facts.context_tokens)
        self._media = MediaLoader(limits, roots=self._options.upload_roots, cache_bytes=self._options.media_cache_bytes)
        return _capabilities(connection.facts, limits, _checkpoint(self._options, connection.facts.listing))

    def _wait(self, work: Future[Connection]) -> Connection:
        """The result of `work`, which is given up when the backend is closed meanwhile."""
        while not wait_for_futures([work], timeout=0.1).done:
            if self._closed:
                work.cancel()
        try:
            return work.result()
        except CancelledError as error:
            raise BackendUnavailable(phrase("backend.closed")) from error

    async def _connect(self, address: Address, report: ReportProgress) -> Connection:
        options = self._options
        client, listing = await find_api(address, options.api_key, options.model, report, self._patience)
        try:
            report(phrase("server.asking", model=listing.model), None)
            checkpoint = _checkpoint(options, listing)
            context = min(listing.context_tokens or defaults.CONTEXT_TOKENS, defaults.CONTEXT_TOKENS)
            guess = ServerFacts(
                listing=listing,
                engine=address.host,
                kind=checkpoint.kind if checkpoint else _kind(f"{listing.model} {options.checkpoint}"),
                context_tokens=context,
            )
            folder = next(iter(options.upload_roots), None) if address.is_local else None
            facts = await Probe(client, address, options.api_key, guess).ask_all(
                speech=options.generate_audio, folder=folder
            )
            if facts.speech is not None and checkpoint is not None and checkpoint.voices:
                facts = replace(facts, speech=replace(facts.speech, voices=checkpoint.voices))
            rules = await asyncio.to_thread(prompt_rules, checkpoint.folder if checkpoint else None, context)
        except BaseException:
            await client.close()
            raise
        logger.info("%s", facts)
        return Connection(client, address, facts, rules, asyncio.Semaphore(MAX_CONCURRENCY))

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        http, connection = self._loop, self._connection
        if http is None or connection is None:  # closed at this moment
            return
        async with aclosing(http.iterate(self._answer(connection, request))) as events:
            async for event in events:
                yield event

    async def _answer(self, connection: Connection, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        """Runs on the HTTP loop. Raises BackendError."""
        attachments = Attachments(next(iter(self._options.upload_roots), None) if connection.facts.file_urls else None)
        try:
            async with connection.slots:
                arguments, notices = await asyncio.get_running_loop().run_in_executor(
                    self._threads, self._prepare, connection, request, attachments
                )
                for notice in notices:
                    yield notice
                async with aclosing(self._converse(connection, arguments, request)) as events:
                    async for event in events:
                        yield event
        finally:
            attachments.close()

    def _prepare(
        self, connection: Connection, request: ChatRequest, attachments: Attachments
    ) -> tuple[dict[str, Any], list[Notice]]:
        """The arguments of the call. Blocking. Raises BadMedia."""
        rules, facts = connection.rules, connection.facts
        if request.sampling is None:
            request = replace(request, sampling=self.capabilities.default_sampling)
        prompt = build_prompt(
            request, self._media, rules.budget, patch_size=rules.patch_size, reserved=rules.reserved_tokens
        )
        return completion_arguments(request, prompt, facts, Hand(self._encoder, attachments)), prompt.notices

    async def _converse(
        self, connection: Connection, arguments: dict[str, Any], request: ChatRequest
    ) -> AsyncGenerator[StreamEvent, None]:
        """Sends the request and reads the answer; once more with a smaller limit where the server asks for that."""
        for attempt in range(2):
            reader = ChunkReader(
                spoken="audio" in request.modalities,
                starts_inside=connection.facts.starts_inside,
                answer_begun=bool(request.answer_prefix),
            )
            begun = False
            try:
                async with aclosing(chunks(connection.client, arguments)) as pieces:
                    async with asyncio.timeout(self._first_seconds):
                        piece = await anext(pieces, None)
                    while piece is not None:
                        for event in reader.feed(piece):
                            begun = True
                            yield event
                        async with asyncio.timeout(self._silence_seconds):
                            piece = await anext(pieces, None)
                for event in reader.finish():
                    yield event
                return
            except Exception as error:
                room = None if begun or attempt else _room(error)
                if room is None:
                    raise self._meaning(error, connection, begun=begun) from None  # the cause may repeat the key
                arguments[connection.facts.limit_name] = room

    def _meaning(self, error: Exception, connection: Connection, *, begun: bool) -> BackendError:
        key, facts = self._options.api_key, connection.facts
        logger.warning("%s: %s", connection.address.text, safe_detail(error, key))
        return translate(error, connection.address, key, facts.listing.model, begun=begun)

    def _unload(self) -> None:
        http, self._loop = self._loop, None
        connection, self._connection = self._connection, None
        if http is not None:
            if connection is not None:
                http.cancel_all()
                http.call(connection.client.close())
            http.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)


def _room(error: Exception) -> int | None:
    """How many tokens are left for the answer, when the server refused only because more were asked for."""
    message = said(error)
    limit, tokens = context_numbers(message)
    if too_long(message) is None or limit is None or tokens is None or tokens >= limit:
        return None
    return limit - tokens


def _checkpoint(options: BackendOptions, listing: Listing) -> Checkpoint | None:
    """What the served checkpoint's folder says, where this machine has it."""
    named = Path(options.checkpoint).expanduser() if options.checkpoint else None
    folder = named if named is not None and named.is_dir() else listing.root
    if folder is None:
        return None
    with suppress(BackendError):
        return read_checkpoint(folder, f"{folder.name} {listing.model}")
    return None


def _kind(name: str) -> CheckpointKind:
    """What the name of a model gives away."""
    found = re.search(r"captioner|thinking", name.lower())
    return "instruct" if found is None else "captioner" if found[0] == "captioner" else "thinking"


def _capabilities(facts: ServerFacts, limits: Limits, checkpoint: Checkpoint | None) -> Capabilities:
    speech = facts.speech
    mute = facts.no_speech or phrase("load.talker_off" if facts.kind == "instruct" else "load.talker_missing")
    rough = "video" in facts.inputs and not facts.media_arguments
    untold = phrase("server.no_more_sampling")
    thinks = facts.reasons or facts.kind == "thinking"
    no_prefix = phrase("server.no_prefix_thinking" if thinks else "server.no_answer_prefix")
    return Capabilities(
        model=facts.listing.model.rstrip("/").rpartition("/")[2],
        engine=facts.engine,
        inputs=facts.inputs,
        missing_inputs=facts.missing_inputs,
        outputs=frozenset({"text", "audio"} if speech else {"text"}),
        missing_outputs={} if speech else {"audio": mute},
        notices=(phrase("server.rough_films"),) if rough else (),
        voices=speech.voices if speech else (),
        reasoning=thinks,
        text_prompts=facts.kind != "captioner",
        limits=limits,
        audio_window_seconds=checkpoint.audio_window_seconds if checkpoint else defaults.AUDIO_WINDOW_SECONDS,
        default_sampling=checkpoint.sampling if checkpoint else SAMPLING[facts.kind],
        missing_sampling={} if facts.more_sampling else {"top_k": untold, "repetition_penalty": untold},
        no_answer_prefix=None if facts.prefix_form else no_prefix,
        max_concurrency=MAX_CONCURRENCY,
    )
