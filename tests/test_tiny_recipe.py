"""The recipe of the embedded checkpoint: what the model is fed, a few steps of each stage, what comes out."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from omni_backend import Backend, ChatRequest, MediaPart, SamplingParams
from omni_backend.media import MediaLoader
from omni_backend.transformers_answer import Answer
from omni_backend.transformers_backend import TransformersBackend
from omni_backend.transformers_speech import WaveDecoder
from tests.tiny_checkpoints import TINY_CHECKPOINT
from tests.tiny_lessons import hum, lesson
from tools.tiny import inputs, lexicon, voices
from tools.tiny.ahead import ahead
from tools.tiny.code2wav import train_code2wav
from tools.tiny.drawings import Film, draw_scene, make_film
from tools.tiny.encoders import token_labels, train_sound, train_vision
from tools.tiny.evaluate import Exam, is_right, overlap, run_exam, table
from tools.tiny.files import FILM_FPS, write
from tools.tiny.inputs import IGNORED, Example, example, messages
from tools.tiny.joint import Beginning, JointPlan, step_batches, train_joint
from tools.tiny.lessons import TASKS, Lesson, Movie, Turn
from tools.tiny.lexicon import FRAME, Lexicon
from tools.tiny.listen import Hearing, Recogniser, differences, hearing, said, spoken_lesson
from tools.tiny.loop import Schedule
from tools.tiny.run import Run
from tools.tiny.sounds import RATE, Samples, make_clip
from tools.tiny.students import load_student, processing_of, save_student
from tools.tiny.talker import Speech, spoken, talker_logits, train_talker
from tools.tiny.world import Motion, Scene, Sound, Thing

pytestmark = pytest.mark.engine


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A training of the embedded checkpoint that has not begun."""
    processing = processing_of(TINY_CHECKPOINT)
    return Run(load_student(TINY_CHECKPOINT), processing, hum, tmp_path, torch.device("cpu"), lambda _: None)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is learned in each step of the stages that set their own amount."""
    amounts = {"encoders._PICTURES": 3, "encoders._FILMS": 2, "encoders._CLIPS": 2}
    amounts |= {"code2wav._PHRASES": 1, "talker._ANSWERS": 3}
    for name, amount in amounts.items():
        monkeypatch.setattr(f"tools.tiny.{name}", amount)


def schedule(steps: int = 2) -> Schedule:
    return Schedule(steps, 1e-3, warmup=1)


def weights(module: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def changed(module: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}


# What the model is fed


def read_by_the_app(taught: Lesson, engine: Backend, folder: Path) -> dict[str, torch.Tensor]:
    """What the app feeds of a lesson, up to its last answer, from files in `folder`."""
    endings, parts = {"image": "png", "audio": "wav", "video": "mp4"}, {}
    for index, medium in enumerate(medium for turn in taught.turns for medium in turn.media):
        kind = inputs.media_type(medium)
        parts[id(medium)] = MediaPart(kind, str(write(medium, folder / f"{index}.{endings[kind]}")))
    request = ChatRequest(messages(taught, len(taught.turns), parts))
    answer = Answer(cast(TransformersBackend, engine).loaded, request, lambda _: None, threading.Event())
    answer.prepare(MediaLoader())
    return dict(answer.inputs)


def same(ours: Example, theirs: dict[str, torch.Tensor], keys: set[str]) -> None:
    """Asserts that what is asked is the same, and of the inputs those called `keys`."""
    asked = theirs["input_ids"].shape[1]
    assert torch.equal(ours.inputs["input_ids"][:, :asked], theirs["input_ids"])
    assert set(ours.inputs) == set(theirs)
    for key in keys - {"input_ids", "attention_mask"}:
        assert torch.equal(torch.as_tensor(ours.inputs[key]), torch.as_tensor(theirs[key])), key


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The mean difference."""
    return float((one - other).abs().mean())


@pytest.mark.parametrize("task", ["one thing", "long sound", "see and hear", "several turns", "memory"])
def test_inputs_are_those_of_the_app(
    task: str, engine: Backend, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_LOSSY", 0.0)
    monkeypatch.setattr(inputs, "_JPEG", 0.0)
    taught = lesson(task, seed=4, system="You are a helpful assistant.")
    ours = example(taught, run.processing, random.Random(0))

    theirs = read_by_the_app(taught, engine, tmp_path)
    same(ours, theirs, set(theirs))
    asked = theirs["input_ids"].shape[1]
    decode = run.processing.processor.tokenizer.decode
    assert decode(ours.inputs["input_ids"][0, asked:]) == taught.turns[-1].answer + "<|im_end|>"
    learned = decode(ours.labels[ours.labels != IGNORED]).split("<|im_end|>")
    assert learned == [*(turn.answer for turn in taught.turns), ""]


@pytest.mark.parametrize("sounding", [False, True])
def test_a_film_is_read_as_the_app_reads_its_file(
    sounding: bool, engine: Backend, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_LOSSY", 0.0)
    rng, seconds = random.Random(3), 1.6  # a whole number of AAC's frames, which would be filled up with silence
    film = make_film(Motion("white", Thing("red", "star"), ("left",)), rng, seconds)
    clip = make_clip(Sound("rise"), rng, hum, (seconds, seconds)) if sounding else None
    taught = Lesson("film", "en", (Turn((Movie(film, clip),), "What do you see?", "A star."),))
    ours, theirs = example(taught, run.processing, rng), read_by_the_app(taught, engine, tmp_path)
    same(ours, theirs, set(theirs) - {"pixel_values_videos", "input_features"})
    assert ("feature_attention_mask" in theirs) == sounding
    draw = Film.frame
    monkeypatch.setattr(Film, "frame", lambda film, time: draw(film, time - 1 / FILM_FPS))
    late = example(taught, run.processing, rng)
    seen, seen_late, shown = (each["pixel_values_videos"] for each in (ours.inputs, late.inputs, theirs))
    assert apart(seen, shown) < 0.02 < apart(seen_late, shown)
    if sounding:
        heard, played = ours.inputs["input_features"], theirs["input_features"]
        assert apart(heard, played) < 0.025 < apart(heard.roll(1, dims=2), played)  # 10 ms late


def test_a_film_is_read_with_its_sound(run: Run) -> None:
    read = example(lesson("sounding film"), run.processing, random.Random(0))
    assert read.hears_films
    assert float(read.inputs["video_second_per_grid"][0]) == 1.0
    assert "input_features" in read.inputs


def test_labels_of_tokens_say_what_covers_them() -> None:
    picture = draw_scene(Scene("white", (Thing("red", "square"), Thing("blue", "star"))), random.Random(2), (96, 96))
    shapes, colors = token_labels(picture, 3, 3)
    assert {0, 2} <= set(colors) <= {0, 2, IGNORED}
    assert {1, 3} <= set(shapes) <= {1, 3, IGNORED}
    # Red is left of blue.
    assert colors.index(0) % 3 < colors.index(2) % 3 or colors.index(0) < colors.index(2)


# A few steps of each stage


def test_the_joint_stage_learns_and_goes_on_where_it_stopped(run: Run, tmp_path: Path) -> None:
    steps = Schedule(4, 1e-3, warmup=1, save_every=2, report_every=1)
    plan = JointPlan(steps, lessons=3, weights={"sum": 1.0, "sound": 1.0, "one thing": 1.0}, keep_words=True)
    before = weights(run.model)
    train_joint(run, plan)
    moved = changed(run.model, before)
    assert moved
    kept = ("audio_tower", "visual", "embed_tokens")
    assert all(name.startswith("thinker.") and not any(part in name for part in kept) for name in moved)

    def interrupt(line: str) -> None:
        if line.startswith("step 3"):
            raise KeyboardInterrupt

    stopped = replace(run, model=load_student(TINY_CHECKPOINT), folder=tmp_path / "again", report=interrupt)
    with pytest.raises(KeyboardInterrupt):
        train_joint(stopped, plan)
    lines: list[str] = []
    resumed = replace(stopped, model=load_student(TINY_CHECKPOINT), report=lines.append)
    train_joint(resumed, plan)
    assert lines[0] == "going on after step 2"
    assert not changed(resumed.model, weights(run.model))


def test_the_encoders_learn_with_the_rest_when_it_is_refined(run: Run) -> None:
    plan = JointPlan(schedule(2), lessons=2, weights={"see and hear": 1.0}, keep_words=True, encoders=True)
    before = weights(run.model)
    train_joint(run, plan)
    moved = changed(run.model, before)
    assert all(any(part in name for name in moved) for part in ("audio_tower", "visual", "language_model"))
    assert (run.folder / "refine.pt").exists()
    # Other lessons than those of the stage before.
    frozen = replace(plan, encoders=False)
    assert not torch.equal(step_batches(run, plan, 0)[0][1], step_batches(run, frozen, 0)[0][1])


def test_joint_batches_hold_every_lesson_and_no_more_tokens_than_allowed(run: Run) -> None:
    plan = JointPlan(schedule(), lessons=12, batch_tokens=400)
    made = step_batches(run, plan, 0)
    assert sum(labels.shape[0] for _, labels, _ in made) == 12
    assert all(labels.shape[0] == 1 or labels.numel() <= 400 for _, labels, _ in made)
    assert len(made) > 2


@pytest.mark.parametrize(("most", "steps"), [(1, 100), (600, 4)], ids=["long", "short"])
def test_a_stage_begins_with_what_is_learned_first(run: Run, most: int, steps: int) -> None:
    first = Beginning(most, {"sum": 0.0, "thought": 1.0})
    plan = JointPlan(schedule(steps), lessons=2, weights={"sum": 1.0}, first=first)
    thinks = run.processing.processor.tokenizer("<think>")["input_ids"][0]
    begins, later = (torch.cat([labels for _, labels, _ in step_batches(run, plan, step)]) for step in (0, 1))
    assert (begins == thinks).sum() == 2
    assert (later == thinks).sum() == 0


def test_other_processes_make_the_same_batches(run: Run) -> None:
    def make(step: int) -> torch.Tensor:
        return step_batches(run, JointPlan(schedule(4), lessons=2, weights={"sum": 1.0}), step)[0][1]

    beside = ahead(make, 4, workers=2)
    assert all(torch.equal(beside(step), make(step)) for step in (1, 2, 3))


@pytest.mark.usefixtures("small")
def test_the_encoder_stages_change_their_encoder_alone(run: Run) -> None:
    before = weights(run.model)
    train_vision(run, schedule(4))
    seen = changed(run.model, before)
    assert seen
    assert all("visual" in name for name in seen)
    before = weights(run.model)
    train_sound(run, schedule())
    heard = changed(run.model, before)
    assert heard
    assert all("audio_tower" in name for name in heard)


@pytest.fixture(scope="module")
def small_lexicon() -> Lexicon:
    """The words of some answers, hummed; codes as the real ones."""

    def hummed(text: str, manner: voices.Manner, rate: int = RATE) -> Samples:
        period = rate / {voice.variant: voice.pitch for voice in lexicon.VOICES}[manner.voice]
        times = np.arange(rate // 4)
        wave = np.where(times > 100 * len(text), np.sign(np.sin(2 * np.pi * times / period)), 0.0)
        return wave.astype(np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lexicon, "speak", hummed)
        return lexicon.build(lexicon.answer_words(), rounds=1)


def test_the_lexicon_speaks_answers_on_the_grid_of_frames(small_lexicon: Lexicon) -> None:
    codes = small_lexicon.spoken("A red circle on a white background.", "aiden")
    assert codes is not None
    assert codes.shape[1] == 4
    assert int(codes.max()) < 2048
    assert all(sound.size == FRAME * len(small_lexicon.codes[unit]) for unit, sound in small_lexicon.sounds.items())
    assert small_lexicon.spoken("你好", "aiden") is None
    # Every answer in English but boxes can be spoken.
    for task in TASKS:
        for seed in range(20):
            answer = lesson(task, seed).turns[-1].answer
            if answer.isascii() and "[" not in answer:
                assert small_lexicon.spoken(answer.rpartition("</think>\n\n")[2], "ethan") is not None, answer


def test_the_voice_is_silent_while_the_model_thinks(small_lexicon: Lexicon) -> None:
    tokenizer = processing_of(TINY_CHECKPOINT).processor.tokenizer
    thought, said = "<think>\nthree, four\n</think>\n\n", "Two plus two is four."
    silence = small_lexicon.codes["aiden", ","][0]
    loud = spoken(said, "aiden", small_lexicon, tokenizer)
    codes = spoken(thought + said, "aiden", small_lexicon, tokenizer)
    assert loud is not None
    assert codes is not None
    assert torch.equal(codes[-len(loud) :], loud)
    assert len(codes) - len(loud) == len(tokenizer(thought)["input_ids"])
    assert (codes[: -len(loud)] == silence).all()
    assert spoken(thought + "你好", "aiden", small_lexicon, tokenizer) is None


@pytest.mark.usefixtures("small")
def test_the_speech_stages_change_their_part_alone(run: Run, small_lexicon: Lexicon) -> None:
    before = weights(run.model)
    train_code2wav(run, small_lexicon, schedule())
    assert all(name.startswith("code2wav.") for name in changed(run.model, before))
    assert changed(run.model, before)
    before = weights(run.model)
    train_talker(run, small_lexicon, schedule())
    moved = changed(run.model, before)
    assert any("code_predictor" in name for name in moved)
    assert all(name.startswith("talker.") for name in moved)


@pytest.mark.parametrize("task", ["memory", "see and hear", "sounding film"])
def test_the_talker_is_taught_what_it_reads_when_it_speaks(
    task: str, engine: Backend, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own greedy speech is what it finds most likely when it is taught that speech."""
    taught = replace(lesson(task, seed=8), language="en")
    loaded = cast(TransformersBackend, engine).loaded
    frames: list[torch.Tensor] = []
    feed = WaveDecoder.feed

    def recording(self: WaveDecoder, frame: torch.Tensor) -> NDArray[np.float32] | None:
        frames.append(frame)
        return feed(self, frame)

    monkeypatch.setattr(WaveDecoder, "feed", recording)
    media = inputs.DrawnMedia(random.Random(0))
    parts = {id(medium): media.add(medium) for turn in taught.turns for medium in turn.media}
    request = ChatRequest(
        messages(taught, len(taught.turns), parts),
        SamplingParams(temperature=0, max_tokens=24),
        modalities=frozenset({"text", "audio"}),
        voice="aiden",
    )
    answer = Answer(loaded, request, lambda _: None, threading.Event())
    answer.prepare(media)
    answer.run()

    said = loaded.processor.tokenizer.decode(answer.tokens, skip_special_tokens=True)
    spoken = replace(taught, turns=(*taught.turns[:-1], replace(taught.turns[-1], answer=said)))
    student = replace(run, model=loaded.model)
    codes = torch.cat(frames)
    speech = Speech(example(spoken, run.processing, random.Random(0)), "aiden", codes)
    first, _ = talker_logits(student, [speech])
    same = first.argmax(dim=1)[: len(codes)] == codes[:, 0]
    assert same.float().mean() > 0.9  # rounding to bfloat16 may decide between two codes that are equally likely


# What comes out


def test_the_recogniser_hears_words_wherever_they_are_and_none_in_noise() -> None:
    def word(*pitches: float) -> Samples:
        pieces = [np.sin(2 * np.pi * pitch * np.arange(4800) / 24_000) for pitch in pitches]
        return np.concatenate([np.zeros(960), *pieces, np.zeros(960)]).astype(np.float32)

    words = {"one": word(300, 900), "two": word(900, 300), "three": word(2000), "four": word(600, 4000)}
    recogniser = Recogniser(Lexicon({("ethan", name): sound for name, sound in words.items()}, {}), "ethan")
    said = ["two", "one", "one", "four", "three", "two"]
    sound = np.concatenate([np.zeros(5000, np.float32), *(words[name] for name in said)])
    noise = np.random.default_rng(0).normal(0, 0.001, sound.size).astype(np.float32)
    assert recogniser.hear(sound + noise) == said
    # Heard a little slower.
    slower = np.interp(np.arange(0, sound.size, 0.95), np.arange(sound.size), sound).astype(np.float32)
    assert differences(said, recogniser.hear(slower)) <= 1
    assert differences(["a", "b", "c"], ["a", "x", "b"]) == 2


@pytest.mark.parametrize(("task", "index"), [("memory", 1), ("sounding film", 2)])
def test_a_spoken_answer_is_listened_to(
    task: str, index: int, engine: Backend, small_lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.tiny.listen.speak_afresh", hum)
    lesson = spoken_lesson(task, 0, index)  # one without spoken words, which are hummed here
    assert lesson.language == "en"

    def hear(self: Recogniser, sound: Samples) -> list[str]:
        assert sound.size > RATE
        return ["extra"]

    monkeypatch.setattr(Recogniser, "hear", hear)
    text, sound = said(engine, "aiden", lesson)
    assert text == lesson.turns[-1].answer
    heard = hearing(Recogniser(small_lexicon, "aiden"), text, sound)
    assert heard.understood == 0
    assert 1 <= heard.words <= 12
    assert str(heard + Hearing(5, 5)).startswith(f"5 of {heard.words + 5} words understood")


def test_a_saved_checkpoint_is_whole(run: Run, tmp_path: Path) -> None:
    save_student(run.model, TINY_CHECKPOINT, tmp_path / "saved")
    for file in TINY_CHECKPOINT.iterdir():
        if file.suffix in (".json", ".jinja", ".safetensors"):
            # Nothing was trained, so everything is as it was.
            assert (tmp_path / "saved" / file.name).stat().st_size == file.stat().st_size, file.name
    again = load_student(tmp_path / "saved")
    assert not changed(again, weights(run.model))


def test_answers_are_judged_to_the_letter_but_boxes_by_overlap() -> None:
    assert is_right(Turn((), "", "Four."), "Four.")
    assert not is_right(Turn((), "", "Four."), "four.")
    assert is_right(Turn((), "", "Four."), "Four.", "three, four")
    box = Turn((), "", '[{"bbox_2d": [0, 0, 100, 100], "label": "red star"}]')
    assert is_right(box, '[{"bbox_2d": [0, 20, 100, 100], "label": "red star"}]')
    assert not is_right(box, '[{"bbox_2d": [0, 20, 100, 100], "label": "red cross"}]')
    assert not is_right(box, '[{"bbox_2d": [80, 80, 180, 180], "label": "red star"}]')
    assert not is_right(box, "A red star.")
    assert overlap((0, 0, 2, 1), (1, 0, 3, 1)) == pytest.approx(1 / 3)


def test_an_exam_asks_the_backend_from_files(engine: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.tiny.evaluate.speak_afresh", hum)
    exam = Exam("one thing", prompted=False)
    score = run_exam(engine, exam, 4, seed=0)
    assert score.asked.total() == 4
    assert score.right.total() + len(score.wrong) == 4
    assert score.right.total() >= 3
    assert f"| one thing | {score.right.total()} | 4 |" in table({exam: score})
