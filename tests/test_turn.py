"""One turn over a scripted engine: what a viewer sees, and that every way out frees the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
import pytest

from omni_backend import (
    AudioDelta,
    ChatRequest,
    GenerationFailed,
    Message,
    Notice,
    OutOfMemory,
    ReasoningDelta,
    ScriptedBackend,
    StreamEvent,
    TextDelta,
    TextPart,
    phrase,
)
from omni_backend.scripted import Step
from omni_ui.turn import LOOK_SECONDS, Answer, Turn
from tests.waiting import until

pytestmark = pytest.mark.asyncio

FOREVER = 3600.0
REQUEST = ChatRequest((Message("user", (TextPart("Hi"),)),), modalities=frozenset({"text", "audio"}))
SOUND = AudioDelta(np.full(2400, 0.25, np.float32), 24_000)


async def views(turn: Turn) -> list[Answer]:
    async with aclosing(turn.look()) as answers:
        return [answer async for answer in answers]


async def test_the_last_view_is_the_whole_answer() -> None:
    notice = phrase("ui.reading")
    script: list[Step] = [
        Notice(notice),
        ReasoningDelta("Well. "),
        ReasoningDelta("So."),
        TextDelta("Hel"),
        SOUND,
        TextDelta("lo"),
    ]
    backend = ScriptedBackend(script)
    turn = Turn(backend, REQUEST)
    last = (await views(turn))[-1]
    assert (last.reasoning, last.text, last.notices) == ("Well. So.", "Hello", (notice,))
    assert last.speech_seconds == pytest.approx(0.1)
    assert last.ended
    assert not last.stopped
    assert last.error is None
    assert last.done is not None
    assert last.done.timing.first_text is not None
    assert turn.ended
    assert backend.active_requests == 0


async def test_the_first_text_is_seen_at_once_and_the_rest_in_batches() -> None:
    words: list[Step] = [step for n in range(100) for step in (TextDelta(f"{n} "), 0.005)]
    first: list[Step] = [TextDelta("first "), 0.01]
    began = time.monotonic()
    seen = await views(Turn(ScriptedBackend(first + words), REQUEST))
    seconds = time.monotonic() - began
    texts = [answer.text for answer in seen if answer.text]
    assert texts[0] == "first "
    assert texts[-1].endswith(" 99 ")
    assert 3 <= len(texts) <= seconds / LOOK_SECONDS + 2


async def test_a_view_without_news_does_not_come() -> None:
    turn = Turn(ScriptedBackend([TextDelta("one"), FOREVER]), REQUEST)
    async with aclosing(turn.look()) as answers:
        assert not (await anext(answers)).started
        assert (await anext(answers)).text == "one"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(answers), 4 * LOOK_SECONDS)


async def test_a_waiting_viewer_is_told_again_and_again() -> None:
    """So that it can say what the answer waits for, which changes without events."""
    backend = ScriptedBackend([FOREVER])
    turn = Turn(backend, REQUEST)
    async with aclosing(turn.look()) as answers:
        assert [(await anext(answers)).started for _ in range(3)] == [False, False, False]
    assert backend.cancelled == 1


async def test_stop_keeps_what_there_is_and_frees_the_engine() -> None:
    backend = ScriptedBackend([TextDelta("half"), SOUND, FOREVER, TextDelta("never")])
    turn = Turn(backend, REQUEST)
    viewer = asyncio.create_task(views(turn))
    await until(lambda: turn.answer.text)
    answer = await turn.stop()
    assert (answer.text, answer.stopped, answer.ended, answer.done) == ("half", True, True, None)
    assert (backend.cancelled, backend.active_requests) == (1, 0)
    assert (await viewer)[-1] == answer
    assert turn.speech.ended
    assert await turn.stop() == answer


class Slow(ScriptedBackend):
    """Takes until `released` to let go of its engine."""

    def __init__(self) -> None:
        super().__init__([TextDelta("half"), FOREVER])
        self.released = asyncio.Event()

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        try:
            async with aclosing(super()._stream(request)) as events:
                async for event in events:
                    yield event
        finally:
            await self.released.wait()


async def test_a_second_stop_waits_for_the_engine_like_the_first() -> None:
    backend = Slow()
    turn = Turn(backend, REQUEST)
    await until(lambda: turn.answer.text)
    stops = [asyncio.create_task(turn.stop()) for _ in range(3)]
    turn.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert (turn.ended, backend.active_requests) == (False, 1)
    backend.released.set()
    assert [answer.stopped for answer in await asyncio.gather(*stops)] == [True] * 3
    assert backend.active_requests == 0


async def test_an_error_is_kept_without_the_memory_of_the_failed_answer() -> None:
    turn = Turn(ScriptedBackend([RuntimeError("engine")]), REQUEST)
    error = (await turn.wait()).error
    assert error is not None
    assert (error.__traceback__, error.__cause__, error.__context__) == (None, None, None)
    assert "engine" in error.detail


async def test_a_turn_that_is_stopped_before_it_begins_ends() -> None:
    backend = ScriptedBackend()
    turn = Turn(backend, REQUEST)
    answer = await turn.stop()
    assert (answer.stopped, answer.ended, answer.text) == (True, True, "")
    assert backend.requests == []


async def test_stop_after_the_end_changes_nothing() -> None:
    turn = Turn(ScriptedBackend([TextDelta("all")]), REQUEST)
    whole = await turn.wait()
    assert await turn.stop() == whole
    assert not whole.stopped


async def test_a_viewer_that_leaves_ends_the_turn() -> None:
    backend = ScriptedBackend([TextDelta("half"), FOREVER])
    turn = Turn(backend, REQUEST)
    async with aclosing(turn.look()) as answers:
        async for answer in answers:
            if answer.text:
                break
    assert turn.ended
    assert (backend.cancelled, backend.active_requests) == (1, 0)


async def test_a_viewer_that_is_cancelled_ends_the_turn() -> None:
    backend = ScriptedBackend([TextDelta("half"), FOREVER])
    turn = Turn(backend, REQUEST)
    viewer = asyncio.create_task(views(turn))
    await until(lambda: turn.answer.text)
    viewer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await viewer
    assert turn.ended
    assert backend.active_requests == 0


async def test_cancelling_works_from_another_thread() -> None:
    backend = ScriptedBackend([TextDelta("half"), FOREVER])
    turn = Turn(backend, REQUEST)
    await until(lambda: turn.answer.text)
    await asyncio.to_thread(turn.cancel)
    assert (await turn.wait()).stopped


async def test_an_error_in_mid_answer_keeps_the_text() -> None:
    error = OutOfMemory(phrase("backend.failed"))
    last = (await views(Turn(ScriptedBackend([TextDelta("half"), error]), REQUEST)))[-1]
    assert (last.text, last.error, last.stopped, last.done) == ("half", error, False, None)


async def test_a_stray_exception_becomes_an_error_to_read() -> None:
    last = (await views(Turn(ScriptedBackend([ValueError("oops")]), REQUEST)))[-1]
    assert isinstance(last.error, GenerationFailed)
    assert "oops" in last.error.detail


async def test_on_end_comes_once_when_the_engine_is_free_and_before_the_viewer() -> None:
    backend = ScriptedBackend([TextDelta("all")])
    ends: list[tuple[int, str]] = []
    turn = Turn(backend, REQUEST, lambda turn: ends.append((backend.active_requests, turn.answer.text)))
    async with aclosing(turn.look()) as answers:
        async for answer in answers:
            if answer.ended:
                assert ends == [(0, "all")]
    assert ends == [(0, "all")]


async def test_a_turn_waits_for_the_model() -> None:
    backend = ScriptedBackend([TextDelta("at last")], load=[0.2])
    turn = Turn(backend, REQUEST)
    seen = await views(turn)
    assert not seen[0].started
    assert seen[-1].text == "at last"
