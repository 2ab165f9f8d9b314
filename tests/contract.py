"""What every backend promises, as one suite. Subclass `BackendContract`, or `TextContract` where nothing speaks, for
an engine and give it its fixtures.

A fake is told what to play with `script`; a real engine answers by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from omni_backend import (
    LANGUAGES,
    AudioDelta,
    Backend,
    BackendUnavailable,
    BadMedia,
    ChatRequest,
    Done,
    Failed,
    MediaPart,
    MediaType,
    Message,
    Notice,
    OutputModality,
    ReasoningDelta,
    SamplingParams,
    StreamEvent,
    TextDelta,
    TextPart,
    UnsupportedRequest,
    Usage,
    phrase,
)
from omni_backend.scripted import Step

PATIENCE = 60.0  # seconds after which something that should have happened has not
FRAME_SECONDS = 0.08  # of sound in one codec frame

TEXT: frozenset[OutputModality] = frozenset({"text"})
SPOKEN: frozenset[OutputModality] = frozenset({"text", "audio"})

SOUND = AudioDelta(np.full(1920, 0.1, np.float32), 24_000)
SPEECH: tuple[Step, ...] = (
    TextDelta("Hel"),
    SOUND,
    TextDelta("lo."),
    SOUND,
    Done("stop", Usage(prompt_tokens=5, completion_tokens=2, audio_frames=2)),
)
ENDLESS: tuple[Step, ...] = (TextDelta("on and "), SOUND, 0.01) * 100_000


def request(
    *parts: str | MediaPart,
    max_tokens: int = 48,
    modalities: frozenset[OutputModality] = TEXT,
    voice: str | None = None,
    answer_prefix: str = "",
) -> ChatRequest:
    """One user message, answered greedily."""
    content = tuple(TextPart(part) if isinstance(part, str) else part for part in parts)
    sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
    return ChatRequest((Message("user", content),), sampling, modalities, voice, answer_prefix=answer_prefix)


async def answer(backend: Backend, asked: ChatRequest) -> list[StreamEvent]:
    """All events of an answer."""
    async with asyncio.timeout(PATIENCE), aclosing(backend.stream(asked)) as events:
        return [event async for event in events]


async def refusal(backend: Backend, asked: ChatRequest) -> list[StreamEvent]:
    """What came before the error, which is raised."""
    seen: list[StreamEvent] = []
    async with asyncio.timeout(PATIENCE), aclosing(backend.stream(asked)) as events:
        async for event in events:
            seen.append(event)
    pytest.fail(f"it was answered: {seen}")


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that other tasks or threads bring about."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - it may come true in a thread
            await asyncio.sleep(0.005)


def text_of(events: Sequence[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def done(events: Sequence[StreamEvent]) -> Done:
    """The last event, which is the only Done."""
    assert [isinstance(event, Done) for event in events] == [False] * (len(events) - 1) + [True]
    last = events[-1]
    assert isinstance(last, Done)
    return last


def assert_in_order(events: Sequence[StreamEvent]) -> None:
    """Deltas with something in them, then one Done with usage and timing."""
    last = done(events)
    for event in events[:-1]:
        assert isinstance(event, TextDelta | ReasoningDelta | AudioDelta | Notice)
        if isinstance(event, TextDelta | ReasoningDelta):
            assert event.text
    assert last.usage.prompt_tokens > 0
    assert last.usage.completion_tokens > 0
    assert last.timing.first_text is not None
    assert 0 < last.timing.first_text <= last.timing.total


class Running:
    """A request that is being answered by a task of its own, with what has come so far."""

    def __init__(self, backend: Backend, asked: ChatRequest, journal: list[tuple[str, StreamEvent]], name: str) -> None:
        self.events: list[StreamEvent] = []
        self.task = asyncio.create_task(self._collect(backend, asked, journal, name))

    async def _collect(
        self, backend: Backend, asked: ChatRequest, journal: list[tuple[str, StreamEvent]], name: str
    ) -> None:
        async with aclosing(backend.stream(asked)) as events:
            async for event in events:
                self.events.append(event)
                journal.append((name, event))

    async def begun(self) -> None:
        """Waits for its first event."""
        await until(lambda: bool(self.events) or self.task.done())
        assert self.events, self.task

    async def cancelled(self) -> None:
        """Cancels the task that awaits the answer and waits for its end."""
        self.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            async with asyncio.timeout(PATIENCE):
                await self.task


@asynccontextmanager
async def running(
    backend: Backend, asked: ChatRequest, count: int, journal: list[tuple[str, StreamEvent]] | None = None
) -> AsyncIterator[list[Running]]:
    """Asks the same `count` times at once; what still runs at the end is cancelled."""
    kept = journal if journal is not None else []
    started = [Running(backend, asked, kept, str(index)) for index in range(count)]
    try:
        yield started
    finally:
        for one in started:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in started), return_exceptions=True)


class TextContract:
    """The promises of a `Backend` that gives text. A subclass gives these fixtures, each a Backend that is ready:

    - `backend`: takes images, sounds and films; may be shared.
    - `endless`: its answers end only at `max_tokens`, 2,000 and more; may be shared.
    - `narrow`: takes only sounds and gives only text; may be shared.
    - `mortal`: like `endless`, but of one test alone, which closes it.
    """

    def script(self, backend: Backend, *steps: Step) -> None:
        """Tells a fake what to play for the next request."""

    @pytest.mark.asyncio
    async def test_text_then_one_done(self, backend: Backend) -> None:
        self.script(backend, TextDelta("Hel"), TextDelta("lo."))
        events = await answer(backend, request("Hello!"))
        assert_in_order(events)
        assert text_of(events).strip()
        assert done(events).finish_reason == "stop"
        assert backend.active_requests == 0

    @pytest.mark.asyncio
    async def test_no_sound_unless_asked(self, backend: Backend) -> None:
        events = await answer(backend, request("Hello!"))
        assert not [event for event in events if isinstance(event, AudioDelta)]
        assert done(events).timing.first_audio is None
        assert done(events).usage.audio_frames == 0

    @pytest.mark.asyncio
    async def test_greedy_answers_repeat(self, backend: Backend) -> None:
        texts = set()
        for _ in range(2):
            self.script(backend, TextDelta("Hel"), TextDelta("lo."))
            texts.add(text_of(await answer(backend, request("Hello!"))))
        assert len(texts) == 1

    @pytest.mark.asyncio
    async def test_length_limit(self, endless: Backend) -> None:
        self.script(endless, TextDelta("on and "), Done("length", Usage(prompt_tokens=5, completion_tokens=3)))
        events = await answer(endless, request("Hello!", max_tokens=3))
        assert_in_order(events)
        assert done(events).finish_reason == "length"
        assert done(events).usage.completion_tokens == 3

    @pytest.mark.asyncio
    async def test_an_answer_that_was_begun_goes_on(self, backend: Backend) -> None:
        self.script(backend, TextDelta("Hel"), TextDelta("lo."))
        whole = text_of(await answer(backend, request("Hello!")))
        begun = whole[: len(whole) // 2]
        self.script(backend, TextDelta("lo."))
        events = await answer(backend, request("Hello!", answer_prefix=begun))
        assert_in_order(events)
        assert begun
        assert not text_of(events).startswith(begun)

    @pytest.mark.asyncio
    async def test_the_beginning_of_an_answer_has_a_limit(self, backend: Backend) -> None:
        with pytest.raises(UnsupportedRequest) as caught:
            await refusal(backend, request("Hello!", answer_prefix="x" * 1001))
        assert all("1000" in caught.value.text(language) for language in LANGUAGES)

    @pytest.mark.asyncio
    async def test_output_that_it_cannot_give(self, narrow: Backend) -> None:
        assert narrow.capabilities.outputs == {"text"}
        with pytest.raises(UnsupportedRequest) as caught:
            await refusal(narrow, request("Hello!", modalities=SPOKEN))
        assert caught.value.phrase == narrow.capabilities.missing_outputs["audio"]

    @pytest.mark.asyncio
    @pytest.mark.parametrize(("kind", "name"), [("image", "face.png"), ("video", "film.mp4")])
    async def test_media_that_it_cannot_take(self, narrow: Backend, kind: MediaType, name: str) -> None:
        assert narrow.capabilities.inputs == {"audio"}
        with pytest.raises(UnsupportedRequest) as caught:
            await refusal(narrow, request(MediaPart(kind, f"/tmp/{name}")))
        reason = narrow.capabilities.missing_inputs.get(kind)
        assert caught.value.phrase == reason if reason else name in str(caught.value)

    @pytest.mark.asyncio
    @pytest.mark.parametrize(
        "messages",
        [
            (),
            (Message("user", ()),),
            (Message("user", (TextPart(" \n"),)),),
            (Message("system", (TextPart("Be brief."),)),),
            (Message("user", (TextPart("Hello!"),)), Message("assistant", (TextPart("Hello."),))),
        ],
        ids=["no message", "no part", "white space", "system only", "answered already"],
    )
    async def test_nothing_to_answer(self, backend: Backend, messages: tuple[Message, ...]) -> None:
        with pytest.raises(UnsupportedRequest) as caught:
            await refusal(backend, ChatRequest(messages))
        assert all(caught.value.text(language) for language in LANGUAGES)
        assert backend.active_requests == 0

    @pytest.mark.asyncio
    async def test_too_many_files(self, backend: Backend) -> None:
        limits = backend.capabilities.limits.per_message
        for kind, limit in limits.items():
            files = [MediaPart(kind, f"/nowhere/{index}.bin") for index in range(limit + 1)]
            with pytest.raises(UnsupportedRequest, match=f"{limit}.bin.* {limit} "):
                await refusal(backend, request(*files, "What is this?"))
        assert limits

    @pytest.mark.asyncio
    @pytest.mark.parametrize("kind", ["image", "audio", "video"])
    @pytest.mark.parametrize("content", [b"", b"this is no media file"], ids=["empty", "not media"])
    async def test_bad_media_then_an_answer(
        self, backend: Backend, kind: MediaType, content: bytes, tmp_path: Path
    ) -> None:
        file = tmp_path / "upload-7.bin"
        file.write_bytes(content)
        self.script(backend, BadMedia(phrase("media.empty", name="holiday.bin")))
        with pytest.raises(BadMedia) as caught:
            await refusal(backend, request(MediaPart(kind, str(file), name="holiday.bin"), "What is this?"))
        for language in LANGUAGES:
            assert "holiday.bin" in caught.value.text(language)
            assert str(tmp_path) not in caught.value.text(language)
        assert backend.active_requests == 0
        assert_in_order(await answer(backend, request("Hello!")))

    @pytest.mark.asyncio
    async def test_closing_early_frees_the_engine(self, endless: Backend) -> None:
        await self.close_early(endless, TEXT)

    async def close_early(self, endless: Backend, modalities: frozenset[OutputModality]) -> None:
        """Leaves an answer at its first text, or at its first sound where one is asked for."""
        awaited = AudioDelta if "audio" in modalities else TextDelta
        self.script(endless, *ENDLESS)
        stream = endless.stream(request("Hello!", max_tokens=2000, modalities=modalities))
        async with asyncio.timeout(PATIENCE):
            async for event in stream:
                if isinstance(event, awaited):
                    break
        assert endless.active_requests == 1
        async with asyncio.timeout(PATIENCE):
            await stream.aclose()
        assert endless.active_requests == 0
        assert_in_order(await answer(endless, request("Hello!", max_tokens=3)))

    @pytest.mark.asyncio
    async def test_cancelling_the_task_frees_the_engine(self, endless: Backend) -> None:
        self.script(endless, *ENDLESS)
        async with running(endless, request("Hello!", max_tokens=2000), 1) as [one]:
            await one.begun()
            await one.cancelled()
        assert endless.active_requests == 0
        assert_in_order(await answer(endless, request("Hello!", max_tokens=3)))

    @pytest.mark.asyncio
    async def test_as_many_run_together_as_it_says_and_the_next_can_leave_the_queue(self, endless: Backend) -> None:
        slots = endless.capabilities.max_concurrency
        for _ in range(slots):
            self.script(endless, *ENDLESS)
        asked = request("Hello!", max_tokens=2000)
        async with running(endless, asked, slots) as first:
            for one in first:
                await one.begun()
            async with running(endless, asked, 1) as [waiting]:
                await until(lambda: endless.active_requests == slots + 1)
                await waiting.cancelled()
                assert not [event for event in waiting.events if not isinstance(event, Notice)]
            assert endless.active_requests == slots
            assert not any(one.task.done() for one in first)
        assert endless.active_requests == 0

    @pytest.mark.asyncio
    async def test_several_at_once_all_finish_within_the_slots(self, backend: Backend) -> None:
        slots = backend.capabilities.max_concurrency
        journal: list[tuple[str, StreamEvent]] = []
        for _ in range(slots + 1):
            self.script(backend, *((TextDelta("word "), 0.001) * 20))
        async with running(backend, request("Hello!"), slots + 1, journal) as all_of_them:
            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(*(one.task for one in all_of_them))
            for one in all_of_them:
                assert_in_order(one.events)
            assert len({text_of(one.events) for one in all_of_them}) == 1
        # From the first text to the last: the engine gives a place away before Done has arrived.
        spoken = [name for name, event in journal if isinstance(event, TextDelta)]
        for at in range(len(spoken)):
            assert len(set(spoken[: at + 1]) & set(spoken[at:])) <= slots

    @pytest.mark.asyncio
    async def test_close_ends_everything(self, mortal: Backend) -> None:
        self.script(mortal, *ENDLESS)
        async with running(mortal, request("Hello!", max_tokens=2000), 1) as [one]:
            await one.begun()
            async with asyncio.timeout(PATIENCE):
                await asyncio.to_thread(mortal.close)
                with pytest.raises(BackendUnavailable):
                    await one.task
        assert mortal.active_requests == 0
        assert isinstance(mortal.status, Failed)
        with pytest.raises(BackendUnavailable):
            await refusal(mortal, request("Hello!"))
        with pytest.raises(BackendUnavailable):
            mortal.wait_until_ready(0)
        mortal.close()


class BackendContract(TextContract):
    """The promises of a `Backend` that speaks as well: so do `backend`, `endless` and `mortal`."""

    @pytest.mark.asyncio
    async def test_speech(self, backend: Backend) -> None:
        self.script(backend, *SPEECH)
        events = await answer(backend, request("Hello!", modalities=SPOKEN))
        assert_in_order(events)
        sounds = [event for event in events if isinstance(event, AudioDelta)]
        assert sounds
        assert len({sound.sample_rate for sound in sounds}) == 1
        for sound in sounds:
            assert sound.pcm.dtype == np.float32
            assert sound.pcm.ndim == 1
            assert len(sound.pcm)
            assert np.abs(sound.pcm).max() <= 1
        whole = np.concatenate([sound.pcm for sound in sounds])
        assert np.sqrt(np.mean(whole**2)) > 0.001, "silent"
        last = done(events)
        assert last.timing.first_audio is not None
        assert 0 < last.timing.first_audio <= last.timing.total
        assert last.usage.audio_frames > 0
        spoken = len(whole) / sounds[0].sample_rate
        assert spoken == pytest.approx(last.usage.audio_frames * FRAME_SECONDS, abs=2 * FRAME_SECONDS)

    @pytest.mark.asyncio
    async def test_every_voice_speaks(self, backend: Backend) -> None:
        assert backend.capabilities.voices
        for voice in backend.capabilities.voices:
            self.script(backend, *SPEECH)
            events = await answer(backend, request("Hello!", modalities=SPOKEN, voice=voice, max_tokens=4))
            assert any(isinstance(event, AudioDelta) for event in events), voice

    @pytest.mark.asyncio
    async def test_a_spoken_answer_cannot_be_begun(self, backend: Backend) -> None:
        with pytest.raises(UnsupportedRequest) as caught:
            await refusal(backend, request("Hello!", modalities=SPOKEN, answer_prefix="Hel"))
        assert all(caught.value.text(language) for language in LANGUAGES)
        assert backend.active_requests == 0

    @pytest.mark.asyncio
    async def test_unknown_voice(self, backend: Backend) -> None:
        with pytest.raises(UnsupportedRequest) as caught:
            await refusal(backend, request("Hello!", modalities=SPOKEN, voice="nobody"))
        for language in LANGUAGES:
            text = caught.value.text(language)
            assert "nobody" in text
            assert all(voice in text for voice in backend.capabilities.voices)

    @pytest.mark.asyncio
    async def test_closing_a_spoken_answer_frees_the_engine(self, endless: Backend) -> None:
        await self.close_early(endless, SPOKEN)
