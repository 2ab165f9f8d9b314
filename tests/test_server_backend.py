"""Answers of servers that behave, and of servers that do not."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_backend import (
    LANGUAGES,
    AudioDelta,
    BackendError,
    BackendOptions,
    BackendUnavailable,
    BadMedia,
    ChatRequest,
    ContextTooLong,
    Done,
    GenerationFailed,
    MediaPart,
    Notice,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    UnsupportedRequest,
)
from omni_backend.server_backend import ServerBackend
from omni_backend.server_client import context_numbers, too_long
from tests.contract import SPOKEN, answer, request, text_of, until
from tests.fake_server import Drop, FakeServer, Nature, Refusal, SoundShape, fake_server
from tests.media_files import film_file, image_file
from tests.waiting import wait_until

KEY = "sk-secret"
Serve = Callable[..., tuple[FakeServer, ServerBackend]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes a server and a backend that is connected to it."""
    with ExitStack() as stack:

        def make(nature: Nature | None = None, **changes: Any) -> tuple[FakeServer, ServerBackend]:
            context: AbstractContextManager[FakeServer] = fake_server(nature)
            server = stack.enter_context(context)
            roots = changes.pop("upload_roots", ())
            options = BackendOptions("", generate_audio=True, server_url=server.url, api_key=KEY, upload_roots=roots)
            backend = ServerBackend(options, **changes)
            stack.callback(backend.close)
            backend.wait_until_ready()
            server.requests.clear()
            return server, backend

        yield make


async def broken(
    backend: ServerBackend, asked: ChatRequest, then: Callable[[], Awaitable[None]] | None = None
) -> tuple[list[StreamEvent], BackendError]:
    """What came, and the error that ended it. `then`: to do after each event."""
    seen: list[StreamEvent] = []

    async def collect() -> None:
        async with aclosing(backend.stream(asked)) as events:
            async for event in events:
                seen.append(event)
                if then is not None:
                    await then()

    with pytest.raises(BackendError) as caught:
        await asyncio.wait_for(collect(), 20)
    for language in LANGUAGES:
        assert KEY not in caught.value.text(language)
    assert KEY not in caught.value.detail
    return seen, caught.value


def start_of(path: str) -> bytes:
    """The first bytes of a file."""
    return Path(path).read_bytes()[:4]


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return [path.name for path in folder.iterdir()]


HELLO = request("Hello!")


@pytest.mark.asyncio
@pytest.mark.parametrize("shape", ["content", "delta.audio", "second choice", "message"])
async def test_speech_in_every_shape(serve: Serve, shape: SoundShape) -> None:
    server, backend = serve(Nature(speaks=shape))
    wave = (0.3 * np.sin(np.arange(9600) / 9)).astype(np.float32)
    server.enqueue(TextDelta("Hel"), *(AudioDelta(part, 24_000) for part in np.split(wave, 5)), TextDelta("lo."))
    events = await answer(backend, request("Hello!", modalities=SPOKEN))
    heard = np.concatenate([event.pcm for event in events if isinstance(event, AudioDelta)])
    assert text_of(events) == "Hello."
    assert np.abs(heard - wave).max() < 1e-4
    last = events[-1]
    assert isinstance(last, Done)
    assert last.usage.audio_frames == 5


@pytest.mark.asyncio
async def test_an_answer_is_begun(serve: Serve) -> None:
    """What the model goes on with is answer, tags included."""
    server, backend = serve()
    server.enqueue(TextDelta("<think>"), TextDelta(" is a tag."))
    events = await answer(backend, request("Hello!", answer_prefix="A tag: "))
    assert text_of(events) == "<think> is a tag."
    [body] = server.requests
    assert body["messages"][-1] == {"role": "assistant", "content": "A tag: "}
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


@pytest.mark.asyncio
async def test_an_answer_that_cannot_be_begun_is_not_asked_for(serve: Serve) -> None:
    server, backend = serve(Nature(continues=None))
    _, error = await broken(backend, request("Hello!", answer_prefix="Well,"))
    assert isinstance(error, UnsupportedRequest)
    assert error.phrase == backend.capabilities.no_answer_prefix
    assert not server.requests
    assert text_of(await answer(backend, HELLO)) == "Hello."


@pytest.mark.asyncio
@pytest.mark.parametrize("reasoning", ["reasoning", "reasoning_content", "<think>"])
async def test_thoughts_in_every_shape(serve: Serve, reasoning: Any) -> None:
    server, backend = serve(Nature(reasoning=reasoning))
    server.enqueue(ReasoningDelta("H"), ReasoningDelta("m."), TextDelta("Yes."))
    events = await answer(backend, HELLO)
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "Hm."
    assert text_of(events) == "Yes."


@pytest.mark.asyncio
async def test_the_checkpoints_own_sampling_is_the_default(serve: Serve) -> None:
    server, backend = serve()
    await answer(backend, replace(HELLO, sampling=None))
    assert server.requests[-1]["temperature"] == backend.capabilities.default_sampling.temperature
    assert server.requests[-1]["top_k"] == 20


@pytest.mark.asyncio
async def test_a_silent_film_is_sent_with_a_notice(serve: Serve, tmp_path: Path) -> None:
    server, backend = serve()
    film = tmp_path / "silent.mp4"
    film.write_bytes(film_file("mp4", hertz=None))
    events = await answer(backend, request(MediaPart("video", str(film)), "What?"))
    assert [event.phrase.key for event in events if isinstance(event, Notice)] == ["prompt.silent_film"]
    assert server.requests[-1]["mm_processor_kwargs"]["use_audio_in_video"] is False


@pytest.mark.asyncio
async def test_files_are_there_while_the_server_reads_and_gone_after(serve: Serve, tmp_path: Path) -> None:
    server, backend = serve(Nature(files=True), upload_roots=(tmp_path,))
    image = tmp_path / "image.png"
    image.write_bytes(image_file("PNG"))
    server.enqueue(TextDelta("on and "), 1000.0)
    async with aclosing(backend.stream(request(MediaPart("image", str(image)), "What?"))) as events:
        await anext(events)
        url = server.requests[-1]["messages"][0]["content"][0]["image_url"]["url"]
        assert start_of(url.removeprefix("file://")) == b"\x89PNG"
    assert names(tmp_path) == ["image.png"]


@pytest.mark.asyncio
async def test_the_server_never_fetches_what_a_user_names(serve: Serve, tmp_path: Path) -> None:
    server, backend = serve(upload_roots=(tmp_path,))
    for path in ("http://127.0.0.1/x.png", "file:///etc/hostname", "/etc/hostname", "http://169.254.169.254/x.png"):
        _, error = await broken(backend, request(MediaPart("image", path), "What?"))
        assert isinstance(error, BadMedia)
    assert not server.requests


# Faults before the answer begins


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "message", "kind", "words"),
    [
        (401, f"bad key {KEY}", BackendUnavailable, "API key"),
        (403, "no", BackendUnavailable, "API key"),
        (404, "no", BackendUnavailable, "does not have the model tiny"),
        (400, "temperature must be positive", UnsupportedRequest, "refused"),
        (400, "Failed to load image: cannot identify image file", BadMedia, "could not read"),
        (400, "At most 2 image(s) may be provided in one prompt.", UnsupportedRequest, "at most 2 images"),
        (413, "Request Entity Too Large", BadMedia, "larger than"),
        (418, "teapot", GenerationFailed, "418"),
    ],
)
async def test_refusals(serve: Serve, status: int, message: str, kind: type[BackendError], words: str) -> None:
    server, backend = serve()
    server.enqueue(Refusal(status, message))
    seen, error = await broken(backend, HELLO)
    assert not seen
    assert type(error) is kind
    assert words in str(error)
    assert str(status) in error.detail
    assert text_of(await answer(backend, HELLO)) == "Hello."


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (429, BackendUnavailable, "too many requests"),
        (503, BackendUnavailable, "cannot answer"),
        (500, GenerationFailed, "500"),
    ],
)
async def test_trouble_is_tried_again_then_said(
    serve: Serve, status: int, kind: type[BackendError], words: str
) -> None:
    server, backend = serve()
    server.enqueue(Refusal(status))
    assert text_of(await answer(backend, HELLO)) == "Hello."
    assert len(server.requests) == 2
    for _ in range(3):
        server.enqueue(Refusal(status))
    _, error = await broken(backend, HELLO)
    assert type(error) is kind
    assert words in str(error)


TOO_LONG = {
    "vLLM": "This model's maximum context length is 8192 tokens. However, your prompt contains at least 9000 input "
    "tokens, which exceeds this limit even without any output tokens.",
    "older vLLM": "The decoder prompt (length 9000) is longer than the maximum model length; maximum context length is "
    "8192 tokens. However, you requested 9000 tokens in the messages.",
    "OpenAI": "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
    "llama.cpp": "the request exceeds the available context size (8192 tokens), try increasing it",
    "somebody": "prompt too long",
}


@pytest.mark.asyncio
@pytest.mark.parametrize("server_kind", TOO_LONG)
async def test_too_long(serve: Serve, server_kind: str) -> None:
    server, backend = serve()
    server.enqueue(Refusal(400, TOO_LONG[server_kind]))
    _, error = await broken(backend, HELLO)
    assert isinstance(error, ContextTooLong)
    limit, tokens = context_numbers(TOO_LONG[server_kind])
    assert limit == (None if server_kind == "somebody" else 8192)
    assert tokens == (9000 if "9000" in TOO_LONG[server_kind] else None)
    assert all(str(number) in str(error) for number in (limit, tokens) if number)
    assert len(server.requests) == 1


def test_other_refusals_are_not_too_long() -> None:
    assert too_long("max_tokens must be at least 1, got 0") is None


@pytest.mark.asyncio
async def test_an_answer_that_would_not_fit_is_asked_for_shorter(serve: Serve) -> None:
    """Where the prompt fits and only the wished length does not."""
    server, backend = serve()
    server.enqueue(
        Refusal(
            400,
            "This model's maximum context length is 4097 tokens. However, you requested 6048 tokens "
            "(4000 in the messages, 2048 in the completion).",
        )
    )
    assert text_of(await answer(backend, request("Hello!", max_tokens=2048))) == "Hello."
    assert [body["max_tokens"] for body in server.requests] == [2048, 97]


@pytest.mark.asyncio
async def test_a_server_that_went_away_and_came_back(serve: Serve) -> None:
    server, backend = serve()
    assert text_of(await answer(backend, HELLO)) == "Hello."
    server.stop()
    seen, error = await broken(backend, HELLO)
    assert not seen
    assert isinstance(error, BackendUnavailable)
    assert "cannot be reached" in str(error)
    server.start()
    assert text_of(await answer(backend, HELLO)) == "Hello."


# Faults in mid-answer


@pytest.mark.asyncio
async def test_a_broken_connection_keeps_what_came(serve: Serve) -> None:
    server, backend = serve()
    server.enqueue(TextDelta("on and "), TextDelta("on"), 0.05, Drop())
    seen, error = await broken(backend, HELLO)
    assert text_of(seen) == "on and on"
    assert type(error) is GenerationFailed
    assert "connection to the model server broke" in str(error)
    assert len(server.requests) == 1, "an answer that has begun is not begun again"
    assert text_of(await answer(backend, HELLO)) == "Hello."


@pytest.mark.asyncio
async def test_a_server_that_dies_in_mid_answer(serve: Serve) -> None:
    server, backend = serve()
    server.enqueue(TextDelta("on and "), 1000.0)
    seen, error = await broken(backend, HELLO, then=lambda: asyncio.to_thread(server.stop))
    assert text_of(seen) == "on and "
    assert type(error) is GenerationFailed
    server.start()
    assert text_of(await answer(backend, HELLO)) == "Hello."


@pytest.mark.asyncio
async def test_a_server_that_goes_silent(serve: Serve) -> None:
    server, backend = serve(silence_seconds=0.2)
    server.enqueue(TextDelta("on and "), 1000.0)
    seen, error = await broken(backend, HELLO)
    assert text_of(seen) == "on and "
    assert "went silent" in str(error)
    await until(lambda: server.active == 0)


@pytest.mark.asyncio
async def test_a_server_that_never_begins(serve: Serve) -> None:
    server, backend = serve(first_seconds=0.2, silence_seconds=0.2)
    server.enqueue(1000.0)
    seen, error = await broken(backend, HELLO)
    assert not seen
    assert "went silent" in str(error)
    await until(lambda: server.active == 0)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"error": {"message": f"engine died {KEY}", "code": 500}}, "failed in mid-answer"),
        ({"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}, "failed|broke"),
        (b"data: {not json\n\n", "failed in mid-answer"),
        (b"data: [DONE]\n\n", "broke the answer off"),
    ],
    ids=["error", "abort", "no JSON", "no end"],
)
async def test_answers_that_go_wrong(serve: Serve, fault: Any, words: str) -> None:
    server, backend = serve()
    server.enqueue(TextDelta("on and "), fault, *([] if isinstance(fault, bytes) else [b"data: [DONE]\n\n"]))
    seen, error = await broken(backend, HELLO)
    assert text_of(seen) == "on and "
    assert type(error) is GenerationFailed
    assert any(word in str(error) for word in words.split("|"))


@pytest.mark.asyncio
async def test_chunks_of_unknown_shape_do_no_harm(serve: Serve) -> None:
    server, backend = serve()
    odd: list[Any] = [
        b": a comment\n\n",
        b"event: ping\ndata: {}\n\n",
        b'data: "text"\n\n',
        b"data: [1, 2]\n\n",
        {"choices": [{"index": 0, "delta": {"content": {"a": 1}, "tool_calls": "x"}}], "usage": []},
    ]
    server.enqueue(TextDelta("Hel"), *odd, TextDelta("lo."))
    assert text_of(await answer(backend, HELLO)) == "Hello."


@pytest.mark.asyncio
async def test_sound_that_is_none_is_one_clear_error(serve: Serve) -> None:
    server, backend = serve()
    server.enqueue(TextDelta("Hel"), {"choices": [{"index": 0, "delta": {"audio": {"data": "%%%"}}}]})
    seen, error = await broken(backend, request("Hello!", modalities=SPOKEN))
    assert text_of(seen) == "Hel"
    assert "cannot be played" in str(error)


# Stopping


@pytest.mark.asyncio
async def test_closing_closes_the_connection_at_once(serve: Serve) -> None:
    server, backend = serve()
    server.enqueue(TextDelta("on and "), 1000.0)
    async with aclosing(backend.stream(HELLO)) as events:
        await anext(events)
        assert server.active == 1
        began = time.perf_counter()
    await until(lambda: server.active == 0)
    assert time.perf_counter() - began < 5  # of 1000
    assert server.cancelled == 1


@pytest.mark.asyncio
async def test_closing_before_the_answer_begins(serve: Serve) -> None:
    server, backend = serve()
    server.enqueue(1000.0)
    task = asyncio.create_task(answer(backend, HELLO))
    await until(lambda: server.active == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: server.active == 0)
    assert backend.active_requests == 0


def test_several_loops_one_after_another_and_at_once(serve: Serve) -> None:
    _, backend = serve()
    for _ in range(3):
        assert text_of(asyncio.run(answer(backend, HELLO))) == "Hello."
    texts: list[str] = []

    def run() -> None:
        texts.append(text_of(asyncio.run(answer(backend, HELLO))))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == ["Hello."] * 4


def test_a_listener_whose_loop_ends_frees_the_server(serve: Serve) -> None:
    server, backend = serve()
    server.enqueue(*((TextDelta("on and "), 0.01) * 10_000))

    async def leave() -> None:
        stream = backend.stream(HELLO)
        await anext(stream)

    asyncio.run(leave())
    wait_until(lambda: server.active == 0)


def test_closing_the_backend_ends_its_threads(serve: Serve) -> None:
    _, backend = serve()
    assert "omni-server" in {thread.name for thread in threading.enumerate()}
    backend.close()
    assert "omni-server" not in {thread.name for thread in threading.enumerate()}
