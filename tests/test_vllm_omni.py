"""The real vLLM-Omni engine, text and speech: the contract, and what only this engine promises.

It needs an environment of its own (`make test-omni`).
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from omni_backend import (
    AudioDelta,
    Backend,
    ContextTooLong,
    EngineDied,
    MediaPart,
    StreamEvent,
    TextDelta,
)
from tests.contract import (
    SPOKEN,
    TEXT,
    BackendContract,
    answer,
    assert_in_order,
    done,
    refusal,
    request,
    running,
    text_of,
    until,
)
from tests.omni_engine import FRAMES, SEQUENCES, idle, start
from tests.tiny_checkpoints import Shape
from tests.waiting import wait_until

pytestmark = [pytest.mark.vllm_omni, pytest.mark.timeout(600)]

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
RATE = 24_000
FRAME = 1920  # samples
TAIL = 555  # samples that code2wav's convolutions swallow at the end
QUESTIONS: dict[str, tuple[str | MediaPart, ...]] = {
    "text": ("Hello!",),
    "image": (MediaPart("image", str(EXAMPLES / "star.png")), "What do you see?"),
    "sound": (MediaPart("audio", str(EXAMPLES / "word.wav")), "What do you hear?"),
    "film with its sound": (MediaPart("video", str(EXAMPLES / "film.mp4")), "What happens in the video?"),
    "image and sound": (
        MediaPart("image", str(EXAMPLES / "star.png")),
        MediaPart("audio", str(EXAMPLES / "tone.wav")),
        "What do you see and hear?",
    ),
}
# What the Transformers engine answers.
ANSWERS = {
    "text": "Hello! How can I help you?",
    "image": "A yellow star on a black background.",
    "sound": "Someone says music.",
    "film with its sound": "A yellow star moving right. I hear a high tone.",
    "image and sound": "I see a yellow star on a black background. I hear a high tone.",
}


class TestOmniContract(BackendContract):
    @pytest.fixture
    def backend(self, omni_engine: Backend) -> Backend:
        return omni_engine

    @pytest.fixture
    def endless(self, omni_endless: Backend) -> Backend:
        return omni_endless

    @pytest.fixture
    def mortal(self, omni_endless_checkpoint: Path) -> Backend:
        return start(omni_endless_checkpoint)

    @pytest.fixture
    def narrow(self, captioner: Backend) -> Backend:
        return captioner


@pytest.fixture(scope="module")
def captioner(random_checkpoint: Callable[[Shape], Path]) -> Iterator[Backend]:
    """A checkpoint without a voice: with speech asked for, it runs on the text engine."""
    cache = (("kv_cache_memory_bytes", str(64 * 1024**2)),)
    backend = start(random_checkpoint(Shape(kind="captioner")), engine_args=cache)
    yield backend
    backend.close()


def sounds(events: Sequence[StreamEvent]) -> list[NDArray[np.float32]]:
    return [event.pcm for event in events if isinstance(event, AudioDelta)]


def whole(events: Sequence[StreamEvent]) -> NDArray[np.float32]:
    return np.concatenate(sounds(events))


def test_it_says_what_it_is(omni_engine: Backend) -> None:
    can = omni_engine.capabilities
    assert "vLLM-Omni 0.30.0 on vLLM 0.30.0" in can.engine
    assert can.outputs == {"text", "audio"}
    assert can.voices == ("ethan", "aiden", "chelsie")
    assert can.max_concurrency == SEQUENCES
    assert can.notices == ()


@pytest.mark.asyncio
async def test_the_sound_is_whole_and_without_gaps(omni_engine: Backend) -> None:
    events = await answer(omni_engine, request("Hello!", modalities=SPOKEN))
    chunks, wave = sounds(events), whole(events)
    assert {event.sample_rate for event in events if isinstance(event, AudioDelta)} == {RATE}
    # The first four frames at once, then twenty-five at a time.
    assert [len(chunk) for chunk in chunks][:2] == [4 * FRAME - TAIL, 25 * FRAME]
    assert len(wave) == FRAMES * FRAME - TAIL
    assert done(events).usage.audio_frames == FRAMES
    assert np.isfinite(wave).all()
    loudness = np.sqrt(np.mean(wave[: len(wave) // FRAME * FRAME].reshape(-1, FRAME) ** 2, axis=1))
    assert loudness.min() > 0.001, "a silent frame"
    # Where two chunks meet the wave jumps no further than it does elsewhere.
    jumps = np.abs(np.diff(wave))
    seams = np.cumsum([len(chunk) for chunk in chunks])[:-1] - 1
    assert jumps[seams].max() <= np.delete(jumps, seams).max()


@pytest.mark.asyncio
async def test_text_and_sound_come_together(omni_endless: Backend) -> None:
    events: list[StreamEvent] = []
    async with aclosing(omni_endless.stream(request("Hello!", max_tokens=2000, modalities=SPOKEN))) as stream:
        async with asyncio.timeout(60):
            async for event in stream:
                events.append(event)
                if len(sounds(events)) == 2:
                    break
    first = next(place for place, event in enumerate(events) if isinstance(event, AudioDelta))
    assert any(isinstance(event, TextDelta) for event in events[:first])
    assert any(isinstance(event, TextDelta) for event in events[first:])


@pytest.mark.asyncio
async def test_a_voice_is_heard_and_holds_for_its_request_alone(omni_engine: Backend) -> None:
    async def spoken(voice: str | None) -> NDArray[np.float32]:
        return whole(await answer(omni_engine, request("Hello!", modalities=SPOKEN, voice=voice)))

    default, ethan, chelsie = await spoken(None), await spoken("ethan"), await spoken("chelsie")
    assert np.array_equal(default, ethan)
    assert not np.array_equal(ethan, chelsie)
    assert np.array_equal(chelsie, await spoken("chelsie"))


@pytest.mark.asyncio
async def test_two_users_at_once(omni_engine: Backend) -> None:
    asked = [request("Hello!", modalities=SPOKEN, voice=voice) for voice in ("ethan", "chelsie")]
    for events in await asyncio.gather(*(answer(omni_engine, one) for one in asked)):
        assert_in_order(events)
        assert len(whole(events)) == FRAMES * FRAME - TAIL


@pytest.mark.asyncio
@pytest.mark.parametrize("question", QUESTIONS)
async def test_it_answers_as_the_embedded_checkpoint_does(omni_engine: Backend, question: str) -> None:
    silent = await answer(omni_engine, request(*QUESTIONS[question]))
    spoken = await answer(omni_engine, request(*QUESTIONS[question], modalities=SPOKEN))
    assert text_of(silent) == text_of(spoken) == ANSWERS[question]
    assert len(whole(spoken)) > FRAME


@pytest.mark.asyncio
async def test_text_alone_leaves_the_talker_out(omni_endless: Backend) -> None:
    async with running(omni_endless, request("Hello!", max_tokens=2000), 1) as [one]:
        await one.begun()
        assert await asyncio.to_thread(idle, omni_endless) == [False, True, True]


@pytest.mark.asyncio
@pytest.mark.parametrize("spoken", [False, True], ids=["text", "speech"])
async def test_closing_frees_every_stage_within_half_a_second(omni_endless: Backend, spoken: bool) -> None:
    asked = request("Hello!", max_tokens=2000, modalities=SPOKEN if spoken else TEXT)
    stream = omni_endless.stream(asked)
    async with asyncio.timeout(60):
        async for event in stream:
            if isinstance(event, AudioDelta if spoken else TextDelta):
                break
    assert not all(await asyncio.to_thread(idle, omni_endless))
    began = time.monotonic()
    await stream.aclose()
    while not all(await asyncio.to_thread(idle, omni_endless)):
        assert time.monotonic() - began < 0.5
    assert time.monotonic() - began < 0.5


@pytest.mark.asyncio
async def test_too_long_a_conversation(omni_engine: Backend) -> None:
    with pytest.raises(ContextTooLong):
        await refusal(omni_engine, request("Hello! " * 4000, modalities=SPOKEN))
    assert_in_order(await answer(omni_engine, request("Hello!")))


@pytest.mark.asyncio
async def test_a_dead_stage_is_noticed_and_the_next_turn_works(omni_endless_checkpoint: Path) -> None:
    others = set(multiprocessing.active_children())
    backend = start(omni_endless_checkpoint)
    [talker] = [one for one in set(multiprocessing.active_children()) - others if "_stage1_" in one.name]
    try:
        async with running(backend, request("Hello!", max_tokens=2000, modalities=SPOKEN), 1) as [one]:
            await one.begun()
            talker.kill()
            with pytest.raises(EngineDied):
                async with asyncio.timeout(30):
                    await one.task
        await asyncio.to_thread(backend.wait_until_ready, 400)
        async with running(backend, request("Hello!", max_tokens=3, modalities=SPOKEN), 1) as [again]:
            await until(lambda: any(isinstance(event, AudioDelta) for event in again.events))
    finally:
        await asyncio.to_thread(backend.close)
    wait_until(lambda: set(multiprocessing.active_children()) <= others, "the end of the stages' processes")
