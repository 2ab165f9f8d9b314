"""The world of the embedded checkpoint: what is drawn and computed, what is asked and answered."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from omni_backend.catalogue import Language
from tests.tiny_lessons import hum, lesson
from tools.tiny import language
from tools.tiny.drawings import RGB, Film, Picture, draw_scene, make_film
from tools.tiny.files import LOSSY, decoded, encoded_sound
from tools.tiny.lessons import TASKS, Medium, Movie, Studio
from tools.tiny.sounds import LONG, RATE, Clip, Samples, make_clip
from tools.tiny.world import DIRECTIONS, Motion, Scene, Sound, Thing, random_scene

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
    film = make_film(Motion("black", Thing("yellow", "star"), (direction,)), random.Random(3), 2.0)
    assert way(film, 0.0, 2.0) == direction


@pytest.mark.parametrize("directions", list(itertools.permutations(DIRECTIONS, 2)))
def test_a_film_turns_in_the_middle_and_stays_within_the_picture(directions: tuple[str, str]) -> None:
    film = make_film(Motion("black", Thing("yellow", "star"), directions), random.Random(3), 4.0)
    assert (way(film, 0.0, 2.0), way(film, 2.0, 4.0)) == directions
    for time in np.arange(0.0, 4.01, 0.25):
        shown = np.asarray(film.frame(time)).max(axis=2) > 128
        assert not np.concatenate([shown[0], shown[-1], shown[:, 0], shown[:, -1]]).any()


@pytest.mark.parametrize("seed", range(8))
def test_the_sound_of_a_turning_film_falls_into_the_half_that_is_asked_for(seed: int) -> None:
    (turn,) = lesson("timed sound", seed).turns
    (movie,) = turn.media
    assert isinstance(movie, Movie)
    assert movie.clip is not None
    loud = np.flatnonzero(np.abs(movie.clip.samples) > 0.05) / RATE
    half = movie.film.seconds / 2
    assert (loud < half).all() or (loud > half).all()
    moved = movie.film.motion.directions[int(loud[0] > half)]
    assert turn.answer in (f"It moves {moved}.", language.direction_answer(moved, "zh"))


@pytest.mark.parametrize("seed", range(8))
def test_of_two_pictures_the_right_one_is_described(seed: int) -> None:
    (turn,) = lesson("two pictures", seed).turns
    seen = []
    for picture in turn.media:
        assert isinstance(picture, Picture)
        spoken: Language = "en" if turn.question.isascii() else "zh"
        seen.append(language.sentence(language.scene_phrase(picture.scene, spoken), spoken))
    places = {"first": seen[:1], "一张图": seen[:1], "second": seen[1:], "二张图": seen[1:]}
    asked = next((wanted for word, wanted in places.items() if word in turn.question), seen)
    assert turn.answer in (" ".join(asked), "".join(asked))


def way(film: Film, begin: float, end: float) -> str:
    """Which way the thing moves between two times."""

    def middle(time: float) -> NDArray[np.float64]:
        rows, columns = np.nonzero(np.asarray(film.frame(time)).max(axis=2) > 128)
        return np.array([columns.mean(), rows.mean()])

    x, y = middle(end) - middle(begin)
    assert min(abs(x), abs(y)) < 2
    assert max(abs(x), abs(y)) > 20
    return ("left" if x < 0 else "right") if abs(x) > abs(y) else ("up" if y < 0 else "down")


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
    assert language.motion_answer(Motion("white", scene.things[0], ("up",)), sound, "zh") == (
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


def test_lessons_have_more_of_what_is_mistaken_than_examinations() -> None:
    def share(task: str, exam: bool, hard: Callable[[Medium], bool]) -> float:
        media = [lesson(task, seed, exam=exam).turns[0].media[0] for seed in range(200)]
        return sum(map(hard, media)) / len(media)

    def same_color(medium: Medium) -> bool:
        assert isinstance(medium, Picture)
        return len({thing.color for thing in medium.scene.things}) == 1

    def beeps(medium: Medium) -> bool:
        assert isinstance(medium, Clip)
        return medium.sound.kind == "beeps"

    assert share("two things", True, same_color) < 0.2 < share("two things", False, same_color)
    assert share("sound", True, beeps) < 0.37 < share("sound", False, beeps)


def test_boxes_are_coarse_to_learn_from_and_exact_in_examinations() -> None:
    def sides(exam: bool) -> list[int]:
        answers = [lesson("box", seed, exam=exam).turns[0].answer for seed in range(20)]
        return [side for answer in answers for side in json.loads(answer)[0]["bbox_2d"]]

    assert all(side % 50 == 0 for side in sides(False))
    assert any(side % 10 for side in sides(True))
