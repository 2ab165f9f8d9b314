"""The server backend over a real `vllm serve`: the same prompts and answers as the engines here, and its own errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omni_backend import (
    Backend,
    ChatRequest,
    ContextTooLong,
    MediaPart,
    SamplingParams,
    TextDelta,
    UnsupportedRequest,
    server_backend,
)
from omni_backend.server_backend import ServerBackend
from omni_backend.server_client import chunks
from tests.contract import answer, done, refusal, request, running, text_of, until
from tests.engine import load
from tests.media_files import BLUE, GREEN, RED, WHITE, film_file
from tests.parity import EXAMPLES, NAMES, Reading, read_by_transformers, turns
from tests.vllm_server import CONTEXT, IMAGES, VllmServer, vllm_serve

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

FREED_SECONDS = 5.0  # on a machine that does other things, too; the answers would take far longer
ENDLESS = replace(request("word " * 100), sampling=SamplingParams(temperature=0, max_tokens=4000))


@pytest.fixture(scope="module")
def server(float32_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """On a checkpoint whose answers end only at their limit."""
    folder = tmp_path_factory.mktemp("vllm")
    with vllm_serve(float32_checkpoint, folder, "--enforce-eager", "--trust-request-mm-kwargs") as started:
        yield started


@pytest.fixture(scope="module")
def backend(server: VllmServer) -> Iterator[ServerBackend]:
    """Media inside the requests."""
    backend = server.backend()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatRequest]:
    return turns(tmp_path_factory.mktemp("turns"))


@pytest.fixture(scope="module")
def filing(server: VllmServer, requests: dict[str, ChatRequest]) -> Iterator[ServerBackend]:
    """Media as files that the server reads."""
    made = {Path(part.path).parent for one in requests.values() for part in media(one)}
    backend = server.backend(server.folder, EXAMPLES, *made)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def transformers(float32_checkpoint: Path) -> Iterator[Backend]:
    yield from load(float32_checkpoint)


@pytest.fixture(autouse=True)
def server_log(server: VllmServer) -> Iterator[None]:
    """What the server wrote meanwhile, which pytest shows when the test fails."""
    before = server.log.stat().st_size
    yield
    print(server.log.read_bytes()[before:].decode(errors="replace"))


def media(asked: ChatRequest) -> list[MediaPart]:
    return [part for message in asked.messages for part in message.content if isinstance(part, MediaPart)]


def read(backend: ServerBackend, asked: ChatRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Reading, str]:
    """What went into and came out of the server's engine, and what was sent."""
    prompt: list[int] = []
    tokens: list[int] = []
    sent: list[str] = []

    async def listen(client: Any, arguments: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        sent.append(str(arguments["messages"]))
        extra = {**arguments["extra_body"], "return_token_ids": True}
        async with aclosing(chunks(client, {**arguments, "extra_body": extra})) as pieces:
            async for piece in pieces:
                prompt.extend(piece.get("prompt_token_ids") or ())
                for choice in piece["choices"]:
                    tokens.extend(choice.get("token_ids") or ())
                yield piece

    with monkeypatch.context() as patch:
        patch.setattr(server_backend, "chunks", listen)
        asyncio.run(answer(backend, asked))
    return Reading(tuple(prompt), tuple(tokens)), "".join(sent)


def test_what_it_can_do(backend: ServerBackend, filing: ServerBackend, float32_checkpoint: Path) -> None:
    can, facts = backend.capabilities, backend.facts
    assert can.engine.startswith("vLLM ")
    assert can.model == "tiny"
    assert can.inputs == {"image", "audio", "video"}
    assert can.outputs == {"text"}
    assert "text only" in can.missing_outputs["audio"].text()
    assert not can.notices
    assert can.limits.context_tokens == CONTEXT
    assert facts.listing.root == float32_checkpoint
    assert (facts.media_arguments, facts.exact_sound) == (True, True)
    assert (facts.file_urls, filing.facts.file_urls) == (False, True)


@pytest.mark.parametrize("name", NAMES)
def test_same_prompt_and_same_tokens(
    name: str,
    requests: dict[str, ChatRequest],
    transformers: Backend,
    backend: ServerBackend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = read_by_transformers(transformers, requests[name])
    assert len(expected.answer) == 32
    found, sent = read(backend, requests[name], monkeypatch)
    assert found == expected
    assert "file:" not in sent


@pytest.mark.parametrize("name", ["image and sound", "film with its sound", "spoken question about a sounding film"])
def test_the_same_as_files(
    name: str,
    requests: dict[str, ChatRequest],
    backend: ServerBackend,
    filing: ServerBackend,
    server: VllmServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, sent = read(filing, requests[name], monkeypatch)
    assert found == read(backend, requests[name], monkeypatch)[0]
    assert "file:" in sent
    assert "base64" not in sent
    assert not list(server.folder.iterdir())


def test_two_films_with_the_same_sound(
    transformers: Backend, backend: ServerBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM fails on pictures that are new beside sound that it has kept, unless it is told that they are one."""
    for name, colours in (("first.mp4", (RED, BLUE)), ("second.mp4", (GREEN, WHITE))):
        film = tmp_path / name
        film.write_bytes(film_file("mkv", tuple(enumerate(colours)), hertz=555.0))
        asked = request(MediaPart("video", str(film)), "What do you see?", max_tokens=32)
        assert read(backend, asked, monkeypatch)[0] == read_by_transformers(transformers, asked)


@pytest.mark.asyncio
async def test_text_streams_and_is_counted(backend: ServerBackend) -> None:
    events = await answer(backend, request("Hello!", max_tokens=20))
    assert done(events).finish_reason == "length"
    assert done(events).usage.completion_tokens == 20
    assert done(events).usage.prompt_tokens == 10
    assert len([event for event in events if isinstance(event, TextDelta)]) > 5


async def close_stream(backend: ServerBackend) -> None:
    async with aclosing(backend.stream(ENDLESS)) as events:
        await anext(events)


async def cancel_task(backend: ServerBackend) -> None:
    async with running(backend, ENDLESS, 1) as [one]:
        await one.begun()
        await one.cancelled()


@pytest.mark.asyncio
@pytest.mark.parametrize("stop", [close_stream, cancel_task])
async def test_stopping_frees_the_engine(
    stop: Callable[[ServerBackend], Any], backend: ServerBackend, server: VllmServer
) -> None:
    async with aclosing(backend.stream(ENDLESS)) as events:
        await anext(events)
        await until_running(server, 1)
    await until_running(server, 0)
    await stop(backend)
    await until_running(server, 0)


async def until_running(server: VllmServer, count: int) -> None:
    """Waits until the engine works on so many requests by its own counters, which come a little after its tokens."""
    began = time.perf_counter()
    while (found := await asyncio.to_thread(server.running)) != count:
        assert time.perf_counter() - began < FREED_SECONDS, f"the engine works on {found}"


@pytest.mark.asyncio
async def test_closing_the_backend_frees_the_engine(server: VllmServer) -> None:
    mortal = await asyncio.to_thread(server.backend)
    async with running(mortal, ENDLESS, 2) as both:
        for one in both:
            await one.begun()
        await asyncio.to_thread(mortal.close)
        await until_running(server, 0)


@pytest.mark.asyncio
async def test_many_at_once(backend: ServerBackend) -> None:
    asked = request("Hello!", max_tokens=64)
    async with running(backend, asked, 12) as all_of_them:
        await until(lambda: all(one.task.done() for one in all_of_them))
        assert len({text_of(one.events) for one in all_of_them}) == 1
        assert all(done(one.events).usage.completion_tokens == 64 for one in all_of_them)


@pytest.mark.asyncio
async def test_a_conversation_that_is_too_long(backend: ServerBackend) -> None:
    with pytest.raises(ContextTooLong, match=f"{CONTEXT}"):
        await refusal(backend, request("word " * (CONTEXT + 10)))
    nearly = await answer(backend, request("word " * (CONTEXT - 100), max_tokens=100_000))
    assert done(nearly).usage.prompt_tokens + done(nearly).usage.completion_tokens == CONTEXT


@pytest.mark.asyncio
async def test_more_images_than_it_takes(backend: ServerBackend) -> None:
    image = MediaPart("image", str(EXAMPLES / "star.png"))
    with pytest.raises(UnsupportedRequest, match=f"at most {IMAGES} images"):
        await refusal(backend, request(*[image] * (IMAGES + 1), "What?"))
    assert text_of(await answer(backend, request(image, "What?")))
