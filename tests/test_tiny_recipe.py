"""The recipe of the embedded checkpoint: what it draws and computes, what it feeds, and a few steps of each stage."""

from __future__ import annotations

import random
import sys
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
from tools.tiny import __main__ as command
from tools.tiny import inputs, language, lexicon, voices
from tools.tiny.ahead import ahead
from tools.tiny.code2wav import train_code2wav
from tools.tiny.drawings import RGB, draw_scene, make_film
from tools.tiny.encoders import token_labels, train_sound, train_vision
from tools.tiny.evaluate import Exam, is_right, overlap, run_exam, table
from tools.tiny.files import LOSSY, decoded, encoded_sound, write
from tools.tiny.inputs import IGNORED, example, messages
from tools.tiny.joint import JointPlan, step_batches, train_joint
from tools.tiny.lessons import TASKS, Lesson, Studio, Turn, make_lesson
from tools.tiny.lexicon import FRAME, Lexicon
from tools.tiny.listen import Hearing, Recogniser, differences, listen, spoken_lesson
from tools.tiny.loop import Schedule
from tools.tiny.run import Run
from tools.tiny.sounds import LONG, RATE, Samples, make_clip
from tools.tiny.students import load_student, processing_of, save_student
from tools.tiny.talker import Speech, spoken, talker_logits, train_talker
from tools.tiny.world import Motion, Scene, Sound, Thing, random_scene

pytestmark = pytest.mark.engine


def hum(word: str, rng: random.Random) -> Samples:
    """Stands in for a synthesizer: a tone of the word's own pitch."""
    pitch = 150 + 7 * sum(map(ord, word)) % 300
    return np.sin(2 * np.pi * pitch * np.arange(rng.randint(4000, 8000)) / RATE).astype(np.float32)


def lesson(task: str, seed: int = 0, **options: Any) -> Lesson:
    return make_lesson(task, random.Random(seed), hum, **options)


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


# What is drawn and computed


def test_a_drawn_thing_has_its_color_and_fills_its_box() -> None:
    rng = random.Random(0)
    for _ in range(40):
        picture = draw_scene(random_scene(rng, (1,)), rng)
        pixels = np.asarray(picture.image).astype(int)
        (thing,), (box,) = picture.scene.things, picture.boxes
        left, top, right, bottom = box
        center = pixels[round((top + bottom) / 2), round((left + right) / 2)]
        assert np.abs(center - RGB[thing.color]).max() <= 15
        ground = np.abs(pixels - pixels[0, 0]).max(axis=2) > 40
        rows, columns = np.flatnonzero(ground.any(axis=1)), np.flatnonzero(ground.any(axis=0))
        found = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        assert np.abs(np.subtract(found, box)).max() <= 2.5
        assert np.abs(pixels[0, 0] - RGB[picture.scene.background]).max() <= 7


def test_shapes_differ_in_how_much_of_their_box_they_cover() -> None:
    shares = {}
    for shape in ("circle", "square", "triangle", "star", "cross"):
        picture = draw_scene(Scene("white", (Thing("blue", shape),)), random.Random(1), (200, 200))
        left, top, right, bottom = picture.boxes[0]
        blue = np.abs(np.asarray(picture.image).astype(int) - RGB["blue"]).max(axis=2) < 40
        shares[shape] = blue.sum() / ((right - left) * (bottom - top))
    assert shares["square"] == pytest.approx(1, abs=0.05)
    assert shares["circle"] == pytest.approx(np.pi / 4, abs=0.05)
    assert shares["triangle"] == pytest.approx(1 / 2, abs=0.05)
    assert shares["cross"] == pytest.approx(0.55, abs=0.05)
    assert shares["star"] < 0.45


@pytest.mark.parametrize("direction", ["left", "right", "up", "down"])
def test_films_move_as_they_say(direction: str) -> None:
    film = make_film(Motion("black", Thing("yellow", "star"), direction), random.Random(3), 2.0)

    def middle(time: float) -> NDArray[np.float64]:
        rows, columns = np.nonzero(np.asarray(film.frame(time)).max(axis=2) > 128)
        return np.array([columns.mean(), rows.mean()])

    x, y = middle(2.0) - middle(0.0)
    assert {"left": x < -20, "right": x > 20, "up": y < -20, "down": y > 20}[direction]
    assert min(abs(x), abs(y)) < 2


def beeps_in(samples: Samples) -> int:
    """How often a sound begins."""
    loud = np.abs(samples).reshape(-1, 80).max(axis=1) > 0.05
    return int((np.diff(loud.astype(int), prepend=0) == 1).sum())


def pitches(samples: Samples) -> tuple[float, float]:
    """Hz near the beginning and near the end of what can be heard."""
    loud = np.flatnonzero(np.abs(samples) > 0.05)
    audible = samples[loud[0] : loud[-1]]
    tenth = max(1600, audible.size // 10)
    found = []
    for piece in (audible[:tenth], audible[-tenth:]):
        spectrum = np.abs(np.fft.rfft(piece * np.hanning(piece.size), 4 * RATE))
        found.append(int(spectrum.argmax()) / 4)
    return found[0], found[1]


def test_sounds_are_what_they_are_called() -> None:
    rng = random.Random(5)
    lengths = []
    for _ in range(15):
        for kind in ("high", "low", "rise", "fall", "silence"):
            clip = make_clip(Sound(kind), rng, hum)
            lengths.append(clip.seconds)
            if kind == "silence":
                assert np.abs(clip.samples).max() < 0.01
                continue
            first, last = pitches(clip.samples)
            assert {
                "high": first == pytest.approx(last, rel=0.05) and first > 650,
                "low": first == pytest.approx(last, rel=0.05) and first < 350,
                "rise": last > 1.5 * first,
                "fall": first > 1.5 * last,
            }[kind]
        count = rng.randint(1, 5)
        beeps = make_clip(Sound("beeps", count=count), rng, hum).samples
        assert beeps_in(beeps[: beeps.size // 80 * 80]) == count
    assert all(LONG[0] - 0.01 <= length <= LONG[1] + 0.01 for length in lengths)
    assert min(lengths) < 2
    assert max(lengths) > 20


@pytest.mark.parametrize("kind", LOSSY)
def test_a_codec_changes_a_sound_little(kind: str) -> None:
    tone = (np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE) / 4).astype(np.float32)
    heard = decoded(encoded_sound(tone, kind))
    assert abs(heard.size - tone.size) < 0.1 * RATE
    assert pitches(heard)[0] == pytest.approx(440, abs=5)
    assert float(np.sqrt(np.square(heard).mean())) == pytest.approx(0.25 / np.sqrt(2), rel=0.1)
    assert not np.array_equal(heard[: tone.size], tone)


# What is asked and answered


@pytest.mark.parametrize("task", list(TASKS))
def test_lessons_are_the_same_for_the_same_seed(task: str) -> None:
    first, again, other = lesson(task), lesson(task), lesson(task, seed=1)
    assert [(turn.question, turn.answer) for turn in first.turns] == [
        (turn.question, turn.answer) for turn in again.turns
    ]
    assert first.turns[-1].answer != other.turns[-1].answer or first.turns[-1].question != other.turns[-1].question


def test_answers_say_what_is_there() -> None:
    scene = Scene("white", (Thing("red", "circle"), Thing("blue", "star")))
    sound = Sound("beeps", count=2)
    assert language.scene_phrase(scene, "en") == "a red circle and a blue star on a white background"
    assert language.scene_phrase(scene, "zh") == "白色背景上有一个红色的圆形和一个蓝色的星形"
    assert language.see_and_hear_answer(scene, sound, "en") == (
        "I see a red circle and a blue star on a white background. I hear two beeps."
    )
    assert language.motion_answer(Motion("white", scene.things[0], "up"), sound, "zh") == (
        "一个红色的圆形向上移动。我听到两声哔声。"
    )
    assert language.count_answer(scene, "zh") == "有两个图形。"
    assert language.sum_answer(7, 8, "en") == "Seven plus eight is fifteen."
    assert language.sum_thought(7, 2, "en") == "<think>\nseven, eight, nine\n</think>\n\n"
    assert language.CAPTION_OPENING_ZH + language.chinese_caption_rest(Sound("low")) == "这个音频剪辑里是低音。"
    studio = Studio(random.Random(0), "en", hum)
    assert TASKS["box"].make(studio)[0].answer.startswith('[{"bbox_2d": [')


def test_an_examination_is_about_other_things_than_the_lessons() -> None:
    learned = {lesson("refusal", seed).turns[0].question for seed in range(300)}
    asked = {lesson("refusal", seed, exam=True).turns[0].question for seed in range(100)}
    assert not learned & asked


# What the model is fed


@pytest.mark.parametrize("task", ["one thing", "long sound", "see and hear", "several turns", "memory"])
def test_inputs_are_those_of_the_app(
    task: str, engine: Backend, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_LOSSY", 0.0)
    monkeypatch.setattr(inputs, "_JPEG", 0.0)
    taught = lesson(task, seed=4, system="You are a helpful assistant.")
    ours = example(taught, run.processing, random.Random(0))

    parts = {}
    for index, medium in enumerate(medium for turn in taught.turns for medium in turn.media):
        kind = inputs.media_type(medium)
        file = write(medium, tmp_path / f"{index}.{'png' if kind == 'image' else 'wav'}")
        parts[id(medium)] = MediaPart(kind, str(file))
    loaded = cast(TransformersBackend, engine).loaded
    request = ChatRequest(messages(taught, len(taught.turns), parts))
    answer = Answer(loaded, request, lambda _: None, threading.Event())
    answer.prepare(MediaLoader())

    theirs = dict(answer.inputs)
    asked = theirs["input_ids"].shape[1]
    assert torch.equal(ours.inputs["input_ids"][:, :asked], theirs["input_ids"])
    assert set(ours.inputs) == set(theirs)
    for key in set(theirs) - {"input_ids", "attention_mask"}:
        assert torch.equal(ours.inputs[key], theirs[key]), key
    decode = run.processing.processor.tokenizer.decode
    assert decode(ours.inputs["input_ids"][0, asked:]) == taught.turns[-1].answer + "<|im_end|>"
    learned = decode(ours.labels[ours.labels != IGNORED]).split("<|im_end|>")
    assert learned == [*(turn.answer for turn in taught.turns), ""]


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
    plan = JointPlan(steps, lessons=3, weights={"sum": 1.0, "sound": 1.0, "one thing": 1.0}, first=0, keep_words=True)
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


def test_joint_batches_hold_every_lesson_and_no_more_tokens_than_allowed(run: Run) -> None:
    plan = JointPlan(schedule(), lessons=12, batch_tokens=400)
    made = step_batches(run, plan, 0)
    assert sum(labels.shape[0] for _, labels, _ in made) == 12
    assert all(labels.shape[0] == 1 or labels.numel() <= 400 for _, labels, _ in made)
    assert len(made) > 2


def test_other_processes_make_the_same_batches(run: Run) -> None:
    def make(step: int) -> torch.Tensor:
        return step_batches(run, JointPlan(schedule(4), lessons=2, weights={"sum": 1.0}, first=0), step)[0][1]

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


@pytest.mark.parametrize("task", ["memory", "sounding film"])
def test_a_spoken_answer_is_listened_to(
    task: str, engine: Backend, small_lexicon: Lexicon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.tiny.listen.speak_afresh", hum)
    lesson = spoken_lesson(task, 0, 1)
    assert lesson.language == "en"

    def hear(self: Recogniser, sound: Samples) -> list[str]:
        assert sound.size > RATE
        return ["extra"]

    monkeypatch.setattr(Recogniser, "hear", hear)
    heard = listen(engine, Recogniser(small_lexicon, "aiden"), "aiden", lesson)
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
    assert is_right(Turn((), "", "<think>\nthree, four\n</think>\n\nFour."), "Four.")
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


def test_without_the_synthesizer_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["tools.tiny", "all", str(tmp_path / "run")])
    with pytest.raises(SystemExit, match="apt-get install espeak-ng"):
        command.main()
    assert not (tmp_path / "run").exists()
