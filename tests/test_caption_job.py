"""A job asks the engine about every window once, says how far it is, and no file stops another."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, cast

import av
import numpy as np
import pytest

from omni_backend import (
    LANGUAGES,
    Backend,
    BackendOptions,
    Done,
    EngineDied,
    GenerationFailed,
    MediaPart,
    Message,
    OutOfMemory,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    TextPart,
    create_backend,
    phrase,
)
from omni_backend.caption import CaptionSettings
from omni_backend.caption.collect import Found
from omni_backend.caption.job import WINDOWS, CaptionJob
from omni_backend.caption.requests import CHINESE_PREFIX, caption_request
from omni_backend.caption.store import Counts, JobStore
from omni_backend.catalogue import Language
from omni_backend.transformers_backend import TransformersBackend
from omni_backend.wav import wav
from tests.caption_jobs import ENDLESS, Ears, item, job_store, steps, texts
from tests.media_files import film_file, image_file, sound_file
from tests.tiny_checkpoints import TINY_CHECKPOINT
from tests.waiting import until
from tools.make_examples import EXAMPLES, tone

OWN: Final = SamplingParams(temperature=0.6, top_p=0.95, max_tokens=99)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Callable[..., JobStore]]:
    """Makes the test's jobs."""
    with ExitStack() as stores:

        def make(files: dict[str, bytes], **settings: Any) -> JobStore:
            return stores.enter_context(closing(job_store(tmp_path, files, **settings)))

        yield make


async def run(store: JobStore, ears: Ears) -> CaptionJob:
    """Runs a job to its end."""
    job = CaptionJob(store, ears)
    await job.run()
    return job


def states(store: JobStore) -> list[str]:
    return [one.state for one in store.items()]


def left_over(store: JobStore) -> list[Path]:
    return list(store.folder.glob(f"{WINDOWS}*"))


# What is asked


@pytest.mark.asyncio
async def test_every_window_is_asked_about_once(made: Callable[..., JobStore], tmp_path: Path) -> None:
    store, ears = made({"a.wav": steps(3), "b.wav": steps(1)}), Ears(default_sampling=OWN)
    job = await run(store, ears)
    assert sorted(ears.heard) == ["a.wav 0", "a.wav 1", "a.wav 2", "b.wav 0"]
    assert (texts(store, 1), texts(store, 2)) == (["a.wav 0", "a.wav 1", "a.wav 2"], ["b.wav 0"])
    assert [(one.start, one.end) for one in store.segments(1)] == [(0.0, 5.0), (5.0, 10.0), (10.0, 15.0)]
    assert store.counts == Counts(done=2, seconds=20.0, captioned=20.0)
    assert (job.problem, job.live, left_over(store)) == (None, {}, [])
    for request in ears.requests:
        [part, question] = request.messages[0].content
        assert isinstance(part, MediaPart)
        assert part.name in ("a.wav", "b.wav")
        assert Path(part.path).is_relative_to(store.folder)
        assert question == TextPart("What do you hear?")
        assert (request.sampling, request.answer_prefix) == (OWN, "")


@pytest.mark.asyncio
async def test_windows_overlap(made: Callable[..., JobStore]) -> None:
    store, ears = made({"a.wav": steps(2)}, overlap_seconds=2.0), Ears()
    await run(store, ears)
    cuts = [(start, end) for _, start, end, _ in store.cuts(1)]
    assert [start for start, _ in cuts[1:]] == [end for _, end in cuts[:-1]]
    assert sorted(ears.lengths) == pytest.approx(sorted(end - max(0, start - 2) for start, end in cuts))


@pytest.mark.asyncio
async def test_windows_are_as_long_as_the_checkpoint_hears_well(made: Callable[..., JobStore]) -> None:
    store, ears = made({"a.wav": steps(4)}, window_seconds=None), Ears(audio_window_seconds=10.0)
    await run(store, ears)
    assert sorted(ears.lengths) == [10.0, 10.0]


@pytest.mark.asyncio
async def test_a_click_is_made_long_enough_to_be_heard(made: Callable[..., JobStore]) -> None:
    click = wav(np.full(9, 0.01, np.float32), 16_000, exact=True)
    store, ears = made({"click.wav": click, "gap.wav": steps(1)}), Ears()
    await run(store, ears)
    assert sorted(ears.lengths) == [0.1, 5.0]
    assert (texts(store), item(store).seconds) == (["click.wav 0"], 0.01)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_checkpoint_that_takes_words_is_asked_in_words(language: Language) -> None:
    can = Ears().wait_until_ready()
    question = caption_request(Path("/x.wav"), CaptionSettings(language), can, name="rain.wav")
    words = {"en": "What do you hear?", "zh": "你听到了什么？"}[language]
    sound = MediaPart("audio", "/x.wav", "rain.wav")
    assert question.messages == (Message("user", (sound, TextPart(words))),)
    assert question.answer_prefix == ""
    own = caption_request(Path("/x.wav"), CaptionSettings(language, " Which birds? "), can, name="rain.wav")
    assert own.messages == (Message("user", (sound, TextPart("Which birds?"))),)


@pytest.mark.parametrize(("language", "prefix"), [("en", ""), ("zh", "这个音频剪辑")])
@pytest.mark.asyncio
async def test_a_captioner_is_given_no_words(made: Callable[..., JobStore], language: str, prefix: str) -> None:
    store = made({"a.wav": steps(1)}, language=language, instruction="Which birds?", samples=2)
    ears = Ears({"a.wav 0": [(TextDelta("里"), TextDelta("有雨声。"))]}, text_prompts=False)
    await run(store, ears)
    for request in ears.requests:
        [part] = request.messages[0].content
        assert isinstance(part, MediaPart)
        assert request.answer_prefix == prefix
    assert store.segments(1)[0].captions == (f"{prefix}里有雨声。", f"{prefix}a.wav 0")


@pytest.mark.parametrize(("seed", "seeds"), [(5, [5, 6, 7]), (0, [0, 1, 2]), (None, [None] * 3)])
@pytest.mark.asyncio
async def test_each_sample_has_a_seed_of_its_own(
    made: Callable[..., JobStore], seed: int | None, seeds: list[int | None]
) -> None:
    sampling = SamplingParams(temperature=1.0, top_k=5, seed=seed)
    store, ears = made({"a.wav": steps(2)}, samples=3, sampling=sampling), Ears(default_sampling=OWN)
    await run(store, ears)
    asked = list(zip(ears.heard, [request.sampling for request in ears.requests], strict=True))
    for label in ("a.wav 0", "a.wav 1"):
        drawn = [one for heard, one in asked if heard == label and one is not None]
        assert [one.seed for one in drawn] == seeds
        assert {(one.temperature, one.top_k) for one in drawn} == {(1.0, 5)}
    assert len(asked) == 6


@pytest.mark.asyncio
async def test_the_words_of_the_answer_are_the_caption(made: Callable[..., JobStore]) -> None:
    script = (ReasoningDelta("It patters."), TextDelta("\n Rain "), TextDelta("on a roof\n"), Done("length"))
    store = made({"a.wav": steps(2)})
    await run(store, Ears({"a.wav 0": [script]}))
    assert [(one.text, one.cut_short) for one in store.segments(1)] == [("Rain on a roof", True), ("a.wav 1", False)]


# How much at once


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.asyncio
async def test_one_more_is_in_flight_than_the_engine_answers_at_a_time(
    made: Callable[..., JobStore], concurrency: int
) -> None:
    store, ears = made({"a.wav": steps(concurrency + 6)}), Ears(max_concurrency=concurrency)
    ears.open.clear()
    running = asyncio.create_task(run(store, ears))
    # One more waits in the queue, and the next one to come into it: then nothing moves any more.
    await until(lambda: len(store.cuts(1)) == concurrency + 3 and len(ears.heard) == concurrency + 1)
    for _ in range(20):
        await asyncio.to_thread(int)
    assert (len(store.cuts(1)), ears.active_requests) == (concurrency + 3, concurrency + 1)
    [folder] = left_over(store)
    assert len(list(folder.iterdir())) == concurrency + 1
    there: list[int] = []
    ears.on_hearing = lambda label: there.append(len(list(folder.iterdir())))
    ears.open.set()
    await running
    assert max(there) <= concurrency + 1
    assert (len(ears.heard), left_over(store)) == (concurrency + 6, [])


@pytest.mark.asyncio
async def test_jobs_share_what_is_in_flight(tmp_path: Path) -> None:
    ears, slots = Ears(), asyncio.Semaphore(2)
    ears.open.clear()
    with ExitStack() as stores:
        jobs = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            jobs.append(CaptionJob(stores.enter_context(closing(job_store(tmp_path / name, {"a": steps(6)}))), ears))
            jobs[-1].slots = slots
        running = [asyncio.create_task(job.run()) for job in jobs]
        await until(lambda: [len(job.store.cuts(1)) for job in jobs] == [4, 4] and ears.active_requests == 2)
        ears.open.set()
        await asyncio.gather(*running)
        assert [texts(job.store) for job in jobs] == [[f"a {index}" for index in range(6)]] * 2


# How far it is


@pytest.mark.parametrize(("can", "begin"), [({}, ""), ({"text_prompts": False}, CHINESE_PREFIX)])
@pytest.mark.asyncio
async def test_captions_can_be_watched_while_they_are_written(
    made: Callable[..., JobStore], can: dict[str, Any], begin: str
) -> None:
    store = made({"a.wav": steps(1)}, language="zh", samples=2)
    ears = Ears({"a.wav 0": [(TextDelta("x"),), ENDLESS]}, **can)
    job = CaptionJob(store, ears)
    running = asyncio.create_task(job.run())
    await until(lambda: len(job.live.get((1, 0, 1), "")) > len(begin) + 20)
    assert job.live.keys() == {(1, 0, 1)}
    assert job.live[1, 0, 1].startswith(f"{begin}on and on and ")
    running.cancel()
    await asyncio.wait([running])
    assert job.live == {}


@pytest.mark.asyncio
async def test_what_remains(made: Callable[..., JobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """By how fast this run has been; the second one goes on after a half."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("omni_backend.caption.job.time", SimpleNamespace(monotonic=lambda: clock.now))
    store = made({"a.wav": steps(3), "b.wav": steps(1), "bad.wav": b"text"})
    ears = Ears({"a.wav 1": [ENDLESS], "a.wav 2": [ENDLESS] * 2, "b.wav 0": [ENDLESS] * 2}, max_concurrency=4)
    job = CaptionJob(store, ears)
    assert job.remaining(store.counts) is None
    running = asyncio.create_task(job.run())
    await until(lambda: store.counts.captioned == 5.0 and len(ears.heard) == 4)
    clock.now = 110.0
    assert job.remaining(store.counts) == pytest.approx((20 - 5) * 10 / 5)
    running.cancel()
    await asyncio.wait([running])
    assert job.remaining(store.counts) is None

    ears.open.clear()
    running = asyncio.create_task(job.run())
    await until(lambda: ears.active_requests == 3)
    assert job.remaining(store.counts) is None
    clock.now = 117.0
    ears.open.set()
    await until(lambda: store.counts.captioned == 10.0)
    assert job.remaining(store.counts) == pytest.approx((20 - 10) * 7 / 5)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.asyncio
async def test_the_only_file_is_measured_while_it_is_captioned(made: Callable[..., JobStore]) -> None:
    store, ears = made({"a.wav": steps(2)}), Ears({"a.wav 1": [ENDLESS]}, max_concurrency=2)
    running = asyncio.create_task(run(store, ears))
    await until(lambda: store.counts.captioned == 5.0)
    assert store.counts == Counts(running=1, seconds=10.0, captioned=5.0)
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.asyncio
async def test_files_that_wait_are_measured(made: Callable[..., JobStore]) -> None:
    store, ears = made({"a.wav": steps(6), "bad.wav": b"text", "b.wav": steps(2)}), Ears()
    ears.open.clear()
    running = asyncio.create_task(run(store, ears))
    await until(lambda: store.counts.seconds == 40.0)
    assert [one.seconds for one in store.items()] == [30.0, None, 10.0]
    assert states(store) == ["running", "waiting", "waiting"]
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.asyncio
async def test_files_that_are_added_meanwhile_are_taken(made: Callable[..., JobStore], tmp_path: Path) -> None:
    store, ears = made({"a.wav": steps(3)}), Ears()
    (tmp_path / "b.wav").write_bytes(steps(1))

    def add(label: str) -> None:
        if label == "a.wav 0":
            store.add([Found("b.wav", tmp_path / "b.wav")])

    ears.on_hearing = add
    await run(store, ears)
    assert (states(store), texts(store, 2)) == (["done", "done"], ["b.wav 0"])


# Files that fail


def bad_files() -> dict[str, tuple[bytes, str]]:
    """Each with the key of the sentence that says why."""
    return {
        "text.wav": (b"no sound, only words", "media.unknown"),
        "empty.mp3": (b"", "media.empty"),
        "picture.wav": (image_file("PNG"), "media.not_audio"),
        "silent.mp4": (film_file("mp4", hertz=None), "media.no_sound"),
        "nothing.wav": (wav(np.zeros(0, np.float32), 16_000, exact=False), "media.no_sound"),
        "half.flac": (sound_file("flac")[:60], "media.broken"),
    }


@pytest.mark.asyncio
async def test_bad_files_say_why_and_stop_nothing_else(made: Callable[..., JobStore], tmp_path: Path) -> None:
    bad = bad_files()
    files = {name: content for name, (content, _) in bad.items()}
    store, ears = made({"first.wav": steps(1), **files, "last.wav": steps(2)}), Ears()
    store.add([Found("gone.wav", tmp_path / "gone.wav")])
    job = await run(store, ears)
    assert job.problem is None
    wrong = {one.name: one.error for one in store.items(state="failed")}
    expected = {name: phrase(key, name=name) for name, (_, key) in bad.items()}
    assert wrong == expected | {"gone.wav": phrase("media.not_found", name="gone.wav")}
    assert [one.name for one in store.items(state="done")] == ["first.wav", "last.wav"]
    assert len(ears.heard) == 3


@pytest.mark.parametrize("error", [OutOfMemory, GenerationFailed])
@pytest.mark.asyncio
async def test_a_window_that_fails_keeps_the_captions_before_it(
    made: Callable[..., JobStore], error: type[GenerationFailed]
) -> None:
    store = made({"a.wav": steps(4), "b.wav": steps(1)})
    reason = phrase("backend.failed")
    ears = Ears({"a.wav 2": [(TextDelta("Half of "), error(reason))]})
    job = await run(store, ears)
    assert (job.problem, states(store), item(store).error) == (None, ["failed", "done"], reason)
    kept = texts(store)
    assert kept
    assert "a.wav 2" not in kept
    assert [one.name for one in store.captioned_files()] == ["a.wav", "b.wav"]

    before = len(ears.heard)
    store.retry(1)
    await run(store, ears)
    assert sorted(ears.heard[before:]) == [f"a.wav {index}" for index in range(4) if f"a.wav {index}" not in kept]
    assert (states(store), texts(store)) == (["done", "done"], [f"a.wav {index}" for index in range(4)])


@pytest.mark.asyncio
async def test_no_more_is_read_of_a_file_that_failed(made: Callable[..., JobStore]) -> None:
    store = made({"a.wav": steps(20)})
    first = [f"a.wav {index}" for index in range(3)]
    failed = (GenerationFailed(phrase("backend.failed")),)
    ears = Ears({label: [failed] for label in first}, max_concurrency=2)
    ears.open.clear()
    running = asyncio.create_task(run(store, ears))
    await until(lambda: len(store.cuts(1)) == 5 and len(ears.heard) == 3)
    ears.open.set()
    await running
    assert (sorted(ears.heard), states(store), texts(store)) == (first, ["failed"], [])
    assert len(store.cuts(1)) < 20


@pytest.mark.asyncio
async def test_only_the_samples_that_are_missing_are_asked_for(made: Callable[..., JobStore]) -> None:
    store = made({"a.wav": steps(1)}, samples=3, sampling=SamplingParams(seed=5))
    ears = Ears({"a.wav 0": [(TextDelta("one"),), (GenerationFailed(phrase("backend.failed")),)]})
    await run(store, ears)
    assert (states(store), texts(store)) == (["failed"], [])
    store.retry()
    await run(store, ears)
    assert [request.sampling.seed for request in ears.requests if request.sampling] == [5, 6, 6, 7]
    assert store.segments(1)[0].captions == ("one", "a.wav 0", "a.wav 0")


@pytest.mark.asyncio
async def test_a_window_with_which_the_engine_died_is_tried_once_more(made: Callable[..., JobStore]) -> None:
    store = made({"a.wav": steps(1), "b.wav": steps(1)})
    death = (TextDelta("Half of "), EngineDied(phrase("backend.died")))
    ears = Ears({"a.wav 0": [death], "b.wav 0": [death, death]}, max_concurrency=2)
    job = await run(store, ears)
    assert (job.problem, states(store)) == (None, ["done", "failed"])
    assert (texts(store), item(store, 2).error) == (["a.wav 0"], phrase("backend.died"))
    assert sorted(ears.heard) == ["a.wav 0"] * 2 + ["b.wav 0"] * 2


@pytest.mark.asyncio
async def test_a_file_that_changed_is_captioned_anew(made: Callable[..., JobStore], tmp_path: Path) -> None:
    store, ears = made({"a.wav": steps(3)}), Ears()
    await run(store, ears)
    store.fail(1, phrase("media.broken", name="a.wav"))
    store.retry()
    (tmp_path / "a.wav").write_bytes(steps(2))
    await run(store, ears)
    assert (texts(store), item(store).seconds) == (["a.wav 0", "a.wav 1"], 10.0)
    assert len(ears.heard) == 3


# The real engine


def tone_file(format: str, codec: str, rate: int, layout: str, loudness: Sequence[float] = (1.0,)) -> bytes:
    """A high tone in any kind of file. `loudness`: in each channel, or in all.

    Of 1,500 Hz: at 880 the checkpoint takes what AC-3 adds for beeps.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=format) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, av.AudioStream)
        volumes = np.broadcast_to(np.asarray(loudness, np.float32), len(stream.layout.channels))
        frame = av.AudioFrame.from_ndarray(volumes[:, None] * tone(1500.0, 1.5, rate), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        resampler = av.AudioResampler(stream.format, stream.layout, rate, frame_size=stream.frame_size or 1024)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.engine
@pytest.mark.asyncio
@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_examples_are_captioned_as_they_say(
    made: Callable[..., JobStore], engine: Backend, language: Language
) -> None:
    examples = json.loads((EXAMPLES / "captions.json").read_text(encoding="utf-8"))
    names = sorted({name for example in examples for name in example["files"]})
    store = made({name: (EXAMPLES / name).read_bytes() for name in names}, window_seconds=None, language=language)
    job = CaptionJob(store, engine)
    await job.run()
    assert job.problem is None
    found = {one.name: texts(store, one.id) for one in store.items()}
    for example in examples:
        assert [text for name in example["files"] for text in found[name]] == example["answer"][language]


@pytest.mark.engine
@pytest.mark.asyncio
async def test_sounds_of_every_kind_are_heard(made: Callable[..., JobStore], engine: Backend) -> None:
    tones = {
        "telephone.wav": tone_file("wav", "pcm_mulaw", 8_000, "mono"),
        "studio.wav": tone_file("wav", "pcm_s24le", 96_000, "stereo"),
        "ac3.mkv": tone_file("matroska", "ac3", 48_000, "5.1"),
        "only the middle.mp4": tone_file("mp4", "aac", 48_000, "5.1", (0, 0, 1, 0, 0, 0)),
        "really mp3.wav": tone_file("mp3", "libmp3lame", 44_100, "stereo"),
    }
    silences = {
        "silence.wav": wav(np.zeros(32_000, np.float32), 16_000, exact=False),
        "one sample.wav": wav(np.zeros(1, np.float32), 16_000, exact=False),
    }
    store = made(tones | silences)
    await CaptionJob(store, engine).run()
    heard = {one.name: " ".join(texts(store, one.id)) for one in store.items()}
    assert heard == dict.fromkeys(tones, "A high tone.") | dict.fromkeys(silences, "Silence.")


@pytest.mark.engine
@pytest.mark.asyncio
async def test_a_captioner_goes_on_in_chinese(made: Callable[..., JobStore], tmp_path: Path) -> None:
    folder = shutil.copytree(TINY_CHECKPOINT, tmp_path / "tiny-captioner")
    backend = create_backend("transformers", BackendOptions(str(folder), single_turn=True))
    prompts: list[str] = []
    try:
        assert not backend.wait_until_ready().text_prompts
        loaded = cast(TransformersBackend, backend).loaded
        generate = loaded.model.thinker.generate

        def spy(**inputs: Any) -> Any:
            prompts.append(loaded.processor.tokenizer.decode(inputs["input_ids"][0]))
            return generate(**inputs)

        loaded.model.thinker.generate = spy
        store = made({"tone.wav": (EXAMPLES / "tone.wav").read_bytes()}, language="zh", instruction="Which birds?")
        await CaptionJob(store, backend).run()
    finally:
        backend.close()
    [prompt] = prompts
    assert prompt.endswith("<|audio_end|><|im_end|>\n<|im_start|>assistant\n这个音频剪辑")
    assert "birds" not in prompt
    [text] = texts(store)
    assert text.startswith("这个音频剪辑")
    assert len(text) > len("这个音频剪辑")
