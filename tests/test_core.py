"""The engine-neutral core: values, errors, the base class's promises, the registry and the fake."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import FrozenInstanceError
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import omni_backend
from omni_backend import (
    BACKENDS,
    AudioDelta,
    Backend,
    BackendError,
    BackendOptions,
    BackendSpec,
    BackendUnavailable,
    BadMedia,
    Capabilities,
    ChatRequest,
    Done,
    Failed,
    GenerationFailed,
    Limits,
    Loading,
    MediaPart,
    Message,
    Notice,
    Ready,
    ReasoningDelta,
    ScriptedBackend,
    StreamEvent,
    TextDelta,
    TextPart,
    Timing,
    UnsupportedRequest,
    Usage,
    create_backend,
    phrase,
)
from omni_backend.base import ReportProgress
from tests.contract import PATIENCE, answer, done, refusal, request, running, text_of, until

HELLO = request("Hello!")


class Blocked(Backend):
    """Loads only when it is let, and answers from a list that need not end with Done."""

    def __init__(self, events: Sequence[StreamEvent | Exception] = (), failure: Exception | None = None) -> None:
        super().__init__()
        self.let = threading.Event()
        self.loads = self.unloads = 0
        self._events, self._failure = events, failure

    def _load(self, report: ReportProgress) -> Capabilities:
        self.loads += 1
        report(phrase("load.waiting"), 0.5)
        assert self.let.wait(PATIENCE)
        report(phrase("load.waiting"), 1.0)
        if self._failure is not None:
            raise self._failure
        return Capabilities(model="blocked", engine="a list")

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        for event in self._events:
            if isinstance(event, Exception):
                raise event
            yield event

    def _unload(self) -> None:
        self.unloads += 1


async def seen_until_error(backend: Backend) -> tuple[list[StreamEvent], BackendError]:
    """What came, and the error that ended it."""
    events: list[StreamEvent] = []
    try:
        async with aclosing(backend.stream(HELLO)) as stream:
            async for event in stream:
                events.append(event)
    except BackendError as error:
        return events, error
    pytest.fail(f"it was answered: {events}")


# Values


def test_values_are_equal_by_content_and_frozen() -> None:
    assert Message("user", (TextPart("a"), MediaPart("image", "/b.png"))) == Message(
        "user", (TextPart("a"), MediaPart("image", "/b.png"))
    )
    assert Done("stop", Usage(1, 2, 3), Timing(0.1, total=0.2)) == Done("stop", Usage(1, 2, 3), Timing(0.1, total=0.2))
    assert {HELLO: "found"}[request("Hello!")] == "found"
    with pytest.raises(FrozenInstanceError):
        HELLO.voice = "ethan"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("part", "label"),
    [
        (MediaPart("image", "/a/b c.png"), "b c.png"),
        (MediaPart("image", "/a/b.png", name="holiday.png"), "holiday.png"),
        (MediaPart("audio", "file:///a/b%20c.wav"), "b c.wav"),
        (MediaPart("video", "https://example.org/films/x.mp4?token=secret"), "x.mp4"),
        (MediaPart("audio", "data:audio/wav;base64,AAAA"), "audio/wav"),
        (MediaPart("audio", "data:,hello"), "data"),
        (MediaPart("image", "https://example.org"), "https://example.org"),
        (MediaPart("image", "http://[::1/a.png"), "a.png"),
        (MediaPart("image", "/a/what? #2.png"), "what? #2.png"),
    ],
)
def test_media_label(part: MediaPart, label: str) -> None:
    assert part.label == label


def test_text_of_a_message_leaves_media_out() -> None:
    assert Message("user", (TextPart("a"), MediaPart("image", "/b.png"), TextPart("c"))).text == "ac"


def test_every_public_name_is_there() -> None:
    assert not [name for name in omni_backend.__all__ if not hasattr(omni_backend, name)]


def test_errors_speak_both_languages_and_keep_the_cause() -> None:
    error = BadMedia(phrase("request.too_many_image", name="x.png", limit=3), detail="count")
    assert isinstance(error, BackendError)
    assert str(error) == error.text("en")
    assert "x.png" in error.text("zh")
    assert error.text("zh") != error.text("en")
    assert error.detail == "count"


# Loading


def test_loading_reports_and_ends() -> None:
    backend = Blocked()
    assert isinstance(backend.status, Loading)
    backend.start()
    backend.start()
    with pytest.raises(BackendUnavailable):
        backend.wait_until_ready(0)
    with pytest.raises(BackendUnavailable):
        _ = backend.capabilities
    backend.let.set()
    assert backend.wait_until_ready(PATIENCE).model == "blocked"
    assert isinstance(backend.status, Ready)
    assert backend.loads == 1
    backend.close()


@pytest.mark.parametrize("failure", [BackendUnavailable(phrase("backend.loading")), OSError("disk on fire")])
def test_failed_load_reaches_every_caller(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    backend = Blocked(failure=failure)
    backend.let.set()
    with pytest.raises(BackendUnavailable) as caught:
        backend.wait_until_ready(PATIENCE)
    if isinstance(failure, BackendError):
        assert caught.value is failure
    else:
        assert "disk on fire" in caught.value.detail
    assert isinstance(backend.status, Failed)
    assert backend.status.error is caught.value
    with pytest.raises(BackendUnavailable):
        asyncio.run(refusal(backend, HELLO))
    assert backend.active_requests == 0
    assert "the engine did not load" in caplog.text
    backend.close()


@pytest.mark.asyncio
async def test_request_waits_for_the_load() -> None:
    backend = Blocked([TextDelta("a"), Done("stop")])
    async with running(backend, HELLO, 1) as [one]:
        await until(lambda: backend.active_requests == 1 and backend.loads == 1)
        assert not one.events
        backend.let.set()
        await until(one.task.done)
        assert text_of(one.events) == "a"
    backend.close()


@pytest.mark.asyncio
async def test_request_can_be_cancelled_while_it_waits_for_the_load() -> None:
    backend = Blocked()
    async with running(backend, HELLO, 1) as [one]:
        await until(lambda: backend.active_requests == 1)
        await one.cancelled()
    assert backend.active_requests == 0
    backend.let.set()
    backend.close()


@pytest.mark.asyncio
async def test_close_while_loading() -> None:
    backend = Blocked()
    async with running(backend, HELLO, 1) as [one]:
        await until(lambda: backend.loads == 1)
        closing = asyncio.create_task(asyncio.to_thread(backend.close))
        with pytest.raises(BackendUnavailable) as caught:
            await one.task
        # The engine is taken down only after it is up: here its load goes on until it is let.
        assert backend.unloads == 0
        backend.let.set()
        await closing
    assert backend.unloads == 1
    assert isinstance(backend.status, Failed)
    assert caught.value is backend.status.error


def test_scripted_load_ends_at_close() -> None:
    backend = ScriptedBackend(load=(1000.0,))
    backend.start()
    closer = threading.Thread(target=backend.close)
    closer.start()
    closer.join(PATIENCE)
    assert not closer.is_alive()


def test_nothing_starts_after_close() -> None:
    backend = Blocked()
    backend.close()
    backend.close()
    backend.start()
    with pytest.raises(BackendUnavailable):
        backend.wait_until_ready(PATIENCE)
    assert (backend.loads, backend.unloads) == (0, 1)


# Streams


def ready(events: Sequence[StreamEvent | Exception]) -> Blocked:
    backend = Blocked(events)
    backend.let.set()
    return backend


@pytest.mark.asyncio
async def test_timing_is_filled_in() -> None:
    sound = AudioDelta(np.zeros(4, np.float32), 24_000)
    notice = Notice(phrase("backend.loading"))
    backend = ready([notice, ReasoningDelta("r"), TextDelta("a"), sound, Done("length", Usage(1, 2, 3))])
    events = await answer(backend, HELLO)
    last = done(events)
    assert (last.finish_reason, last.usage) == ("length", Usage(1, 2, 3))
    assert last.timing.first_text is not None
    assert last.timing.first_audio is not None
    assert 0 < last.timing.first_text <= last.timing.first_audio <= last.timing.total
    assert events[:-1] == [notice, ReasoningDelta("r"), TextDelta("a"), sound]
    backend.close()


@pytest.mark.asyncio
async def test_what_never_came_has_no_time() -> None:
    backend = ready([Done("stop")])
    timing = done(await answer(backend, HELLO)).timing
    assert (timing.first_text, timing.first_audio) == (None, None)
    backend.close()


@pytest.mark.asyncio
async def test_nothing_follows_done() -> None:
    backend = ready([TextDelta("a"), Done("stop"), TextDelta("b"), Done("stop")])
    events = await answer(backend, HELLO)
    assert text_of(events) == "a"
    assert done(events)
    backend.close()


@pytest.mark.asyncio
async def test_stream_without_an_end_is_an_error() -> None:
    events, error = await seen_until_error(backend := ready([TextDelta("a")]))
    assert events == [TextDelta("a")]
    assert isinstance(error, GenerationFailed)
    assert error.phrase == phrase("backend.no_end")
    backend.close()


@pytest.mark.asyncio
async def test_stray_exception_becomes_generation_failed(caplog: pytest.LogCaptureFixture) -> None:
    events, error = await seen_until_error(backend := ready([TextDelta("a"), ValueError("odd shape")]))
    assert events == [TextDelta("a")]
    assert isinstance(error, GenerationFailed)
    assert isinstance(error.__cause__, ValueError)
    assert "odd shape" in error.detail
    assert "odd shape" not in str(error)
    assert "the engine failed in mid-answer" in caplog.text
    assert backend.active_requests == 0
    backend.close()


@pytest.mark.asyncio
async def test_backend_errors_pass_as_they_are() -> None:
    cause = BadMedia(phrase("request.empty"))
    events, error = await seen_until_error(backend := ready([TextDelta("a"), cause]))
    assert events == [TextDelta("a")]
    assert error is cause
    backend.close()


@pytest.mark.asyncio
async def test_limit_of_files_counts_each_kind_and_message_alone() -> None:
    backend = ScriptedBackend(
        capabilities=Capabilities(model="m", engine="e", limits=Limits(per_message={"image": 2, "audio": 1}))
    )
    image, sound, film = MediaPart("image", "/a.png"), MediaPart("audio", "/b.wav"), MediaPart("video", "/c.mp4")
    within = Message("user", (image, sound, image, film, film, film))
    assert done(await answer(backend, ChatRequest((within, Message("assistant", (TextPart("ok"),)), within))))
    with pytest.raises(UnsupportedRequest):
        await refusal(backend, ChatRequest((Message("user", (image, image, image)), Message("user", (image,)))))
    backend.close()


@pytest.mark.asyncio
async def test_voice_counts_only_for_speech() -> None:
    backend = ScriptedBackend()
    assert done(await answer(backend, request("Hello!", voice="nobody")))
    backend.close()


@pytest.mark.asyncio
async def test_a_file_without_words_is_a_request() -> None:
    backend = ScriptedBackend()
    assert done(await answer(backend, request(MediaPart("audio", "/a.wav"))))
    assert backend.requests == [request(MediaPart("audio", "/a.wav"))]
    backend.close()


# The fake


@pytest.mark.asyncio
async def test_scripts_play_in_turn_then_the_fallback() -> None:
    backend = ScriptedBackend([TextDelta("one")], [BadMedia(phrase("request.empty"))], fallback=[TextDelta("more")])
    backend.enqueue(TextDelta("three"), 0.001, Done("length"), TextDelta("never"))
    assert text_of(await answer(backend, HELLO)) == "one"
    with pytest.raises(BadMedia):
        await refusal(backend, HELLO)
    third = await answer(backend, HELLO)
    assert (text_of(third), done(third).finish_reason) == ("three", "length")
    for _ in range(2):
        assert text_of(await answer(backend, HELLO)) == "more"
    assert backend.requests == [HELLO] * 5
    assert backend.cancelled == 0
    backend.close()


@pytest.mark.asyncio
async def test_early_close_is_counted() -> None:
    backend = ScriptedBackend([TextDelta("a"), TextDelta("b")], [TextDelta("a"), 1000.0])
    stream = backend.stream(HELLO)
    assert await anext(stream) == TextDelta("a")
    await stream.aclose()
    assert backend.cancelled == 1
    async with running(backend, HELLO, 1) as [one]:
        await one.begun()
        await one.cancelled()
    assert backend.cancelled == 2
    assert backend.active_requests == 0
    backend.close()


@pytest.mark.asyncio
async def test_a_waiting_script_ends_at_close() -> None:
    backend = ScriptedBackend([TextDelta("a"), 1000.0])
    async with running(backend, HELLO, 1) as [one]:
        await one.begun()
        backend.close()
        with pytest.raises(BackendUnavailable):
            async with asyncio.timeout(PATIENCE):
                await one.task


def test_several_event_loops_share_a_backend() -> None:
    backend = ScriptedBackend(fallback=[TextDelta("a"), 0.001] * 20)
    results: list[list[StreamEvent]] = []
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            results.append(asyncio.run(answer(backend, HELLO)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures
    assert [text_of(events) for events in results] == ["a" * 20] * 4
    assert backend.active_requests == 0
    backend.close()


# The registry


@pytest.mark.parametrize("name", BACKENDS)
def test_registry_names_real_factories(name: str) -> None:
    spec = BACKENDS[name]
    module, _, function = spec.factory.partition(":")
    assert callable(getattr(import_module(module), function))
    assert spec.requires
    assert spec.install.startswith("pip install ")
    assert spec.summary


def test_unknown_engine() -> None:
    with pytest.raises(BackendUnavailable) as caught:
        create_backend("abacus", BackendOptions("x"))
    assert "abacus" in str(caught.value)
    assert all(name in str(caught.value) for name in BACKENDS)


def test_missing_engine_names_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = BackendSpec("nowhere:create", ("no_such_module",), "pip install no-such-module", "")
    monkeypatch.setitem(BACKENDS, "missing", spec)
    with pytest.raises(BackendUnavailable) as caught:
        create_backend("missing", BackendOptions("x"))
    assert "no_such_module" in str(caught.value)
    assert spec.install in caught.value.text("zh")


def test_options_reach_the_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr("omni_backend.scripted.create", given.append, raising=False)
    monkeypatch.setitem(BACKENDS, "fake", BackendSpec("omni_backend.scripted:create", ("json",), "", ""))
    options = BackendOptions("folder", generate_audio=True)
    create_backend("fake", options)
    assert given == [options]
