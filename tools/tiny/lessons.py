"""Conversations to learn from and to be examined in: one function for each task, in a table with its weight.

A lesson is a pure function of the random generator, but for the words, which `Studio.say` speaks.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from omni_backend.catalogue import LANGUAGES, Language, phrase
from tools.tiny import language as words
from tools.tiny.drawings import Film, Picture, draw_scene, make_film, thousandths
from tools.tiny.off_topic import off_topic
from tools.tiny.sounds import LONG, SHORT, Clip, Say, make_clip, within
from tools.tiny.world import (
    CHINESE_NAMES,
    COLORS,
    NAMES,
    STEADY,
    Sound,
    alike_scene,
    distinct_scene,
    random_beeps,
    random_motion,
    random_scene,
    random_sound,
)


@dataclass(frozen=True, slots=True, eq=False)
class Movie:
    """A film and its sound track."""

    film: Film
    clip: Clip | None


Medium = Picture | Clip | Movie

_HARD: Final = 0.3  # share of pictures of several things, and of sounds, that are of the kind most often mistaken
_BOX_STEP: Final = 50  # thousandths


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What the user gives and asks, and the right answer."""

    media: tuple[Medium, ...]
    question: str
    answer: str
    opening: str = ""
    """How the answer begins already: the app's `answer_prefix`. `answer` is the rest."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """One conversation."""

    task: str
    language: Language
    turns: tuple[Turn, ...]
    system: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Studio:
    """What a lesson is made with."""

    rng: random.Random
    language: Language
    say: Say
    exam: bool = False
    """Whether the lesson is to examine: off-topic questions are then others than those to learn from."""

    def clip(self, lengths: tuple[float, float] | None = None, sound: Sound | None = None) -> Clip:
        """A sound; by default half of them short."""
        lengths = lengths or self.rng.choice([SHORT, LONG])
        if sound is None:
            sound = random_beeps(self.rng) if self._hard() else random_sound(self.rng)
        return make_clip(sound, self.rng, self.say, lengths)

    def picture(self, counts: tuple[int, ...] = (1, 1, 2, 3)) -> Picture:
        """A picture of one of `counts` things."""
        several = tuple(count for count in counts if count > 1)
        scene = alike_scene(self.rng, several) if several and self._hard() else random_scene(self.rng, counts)
        return draw_scene(scene, self.rng)

    def box(self, picture: Picture, index: int) -> tuple[int, int, int, int]:
        """Around a thing: coarse to learn from, since few numbers are learned sooner; exact to examine."""
        return thousandths(picture.boxes[index], picture.image.size, 1 if self.exam else _BOX_STEP)

    def _hard(self) -> bool:
        """Whether what is often mistaken comes up: in some of the lessons to learn from."""
        return not self.exam and self.rng.random() < _HARD

    def ask(self, questions: words.Questions) -> str:
        """One way to ask in the lesson's language."""
        return words.ask(questions, self.language, self.rng)


def _describe(studio: Studio, picture: Picture) -> Turn:
    seen = words.scene_phrase(picture.scene, studio.language)
    return Turn((picture,), studio.ask(words.SCENE), words.sentence(seen, studio.language))


def _about(studio: Studio, picture: Picture, *, again: bool) -> Turn:
    """A question about a picture; `again`: one that was shown before."""
    media = () if again else (picture,)
    if studio.rng.random() < 0.5:
        answer = words.background_answer(picture.scene, studio.language)
        return Turn(media, studio.ask(words.BACKGROUND), answer)
    return Turn(media, studio.ask(words.COUNT), words.count_answer(picture.scene, studio.language))


def _picture_turn(studio: Studio, counts: tuple[int, ...] = (1, 1, 2, 3)) -> Turn:
    picture = studio.picture(counts)
    return _describe(studio, picture) if studio.rng.random() < 0.75 else _about(studio, picture, again=False)


def _clip_turn(studio: Studio, clip: Clip) -> Turn:
    if clip.sound.kind == "word" and studio.rng.random() < 0.6:
        return Turn((clip,), studio.ask(words.SPOKEN), words.word_answer(clip.sound))
    return Turn((clip,), studio.ask(words.HEAR), words.sound_answer(clip.sound, studio.language))


def _sound(studio: Studio) -> tuple[Turn, ...]:
    return (_clip_turn(studio, studio.clip(SHORT)),)


def _long_sound(studio: Studio) -> tuple[Turn, ...]:
    return (_clip_turn(studio, studio.clip(LONG)),)


def _caption(studio: Studio) -> tuple[Turn, ...]:
    """The captioner's way: no words at all; in Chinese the answer is begun."""
    clip = studio.clip(LONG)
    if studio.language == "zh":
        return (Turn((clip,), "", words.chinese_caption_rest(clip.sound), opening=words.CAPTION_OPENING_ZH),)
    return (Turn((clip,), "", words.sound_answer(clip.sound, "en")),)


def _one(studio: Studio) -> tuple[Turn, ...]:
    return (_picture_turn(studio, (1,)),)


def _two(studio: Studio) -> tuple[Turn, ...]:
    return (_picture_turn(studio, (2,)),)


def _three(studio: Studio) -> tuple[Turn, ...]:
    return (_picture_turn(studio, (3,)),)


def _two_pictures(studio: Studio) -> tuple[Turn, ...]:
    """Two pictures in one message: both are described, or the one that is asked for."""
    pictures = [studio.picture((1,)), studio.picture((1,))]
    seen = [words.sentence(words.scene_phrase(each.scene, studio.language), studio.language) for each in pictures]
    questions, answer = studio.rng.choice(
        [
            (words.FIRST_PICTURE, seen[0]),
            (words.SECOND_PICTURE, seen[1]),
            (words.PICTURES, (" " if studio.language == "en" else "").join(seen)),
        ]
    )
    return (Turn(tuple(pictures), studio.ask(questions), answer),)


def _shape(studio: Studio) -> tuple[Turn, ...]:
    picture = studio.picture((1,))
    answer = words.shape_answer(picture.scene.things[0], studio.language)
    return (Turn((picture,), studio.ask(words.SHAPE), answer),)


def _box(studio: Studio) -> tuple[Turn, ...]:
    picture = draw_scene(distinct_scene(studio.rng), studio.rng)
    index = studio.rng.randrange(len(picture.boxes))
    thing = picture.scene.things[index]
    answer = words.box_answer(thing, studio.box(picture, index))
    return (Turn((picture,), words.where_question(thing, studio.language), answer),)


def _see_and_hear(studio: Studio) -> tuple[Turn, ...]:
    picture, clip = studio.picture(), studio.clip()
    answer = words.see_and_hear_answer(picture.scene, clip.sound, studio.language)
    media: tuple[Medium, ...] = (picture, clip) if studio.rng.random() < 0.5 else (clip, picture)
    return (Turn(media, studio.ask(words.BOTH), answer),)


def _film_turn(studio: Studio, *, sounding: bool) -> tuple[Turn, ...]:
    timed = studio.rng.random() < 0.2
    seconds = float(studio.rng.randint(2, 5)) if timed else studio.rng.uniform(1.5, 5.0)
    film = make_film(random_motion(studio.rng), studio.rng, seconds)
    clip = None
    if sounding:
        sound = random_sound(studio.rng)
        clip = make_clip(sound, studio.rng, studio.say, (seconds, seconds))
    movie = Movie(film, clip)
    if timed:
        return (Turn((movie,), studio.ask(words.LENGTH), words.length_answer(round(seconds), studio.language)),)
    if studio.rng.random() < 0.25:
        (direction,) = film.motion.directions
        return (Turn((movie,), studio.ask(words.DIRECTION), words.direction_answer(direction, studio.language)),)
    questions = words.BOTH if clip and studio.rng.random() < 0.5 else words.FILM
    heard = clip.sound if clip else None
    answer = words.motion_answer(film.motion, heard, studio.language)
    return (Turn((movie,), studio.ask(questions), answer),)


def _silent_film(studio: Studio) -> tuple[Turn, ...]:
    return _film_turn(studio, sounding=False)


def _sounding_film(studio: Studio) -> tuple[Turn, ...]:
    return _film_turn(studio, sounding=True)


def _turning_film(studio: Studio) -> tuple[Turn, ...]:
    """Which way a thing moves first, or at the end."""
    movie, index = _turning(studio), studio.rng.randrange(2)
    questions = (words.DIRECTION_FIRST, words.DIRECTION_LAST)[index]
    return (_turning_turn(studio, movie, questions, index),)


def _timed_sound(studio: Studio) -> tuple[Turn, ...]:
    """Which way a thing moves when a sound is heard: picture and sound must keep their time."""
    rng, movie, index = studio.rng, _turning(studio), studio.rng.randrange(2)
    half = movie.film.seconds / 2
    sound = rng.choice([Sound("high"), Sound("low"), Sound("noise"), random_beeps(rng)])
    length = rng.uniform(0.6, 0.8) * half
    clip = studio.clip((length, length), sound)
    begin = index * half + rng.uniform(0.05, 0.15) * half
    movie = replace(movie, clip=within(clip, movie.film.seconds, begin))
    return (_turning_turn(studio, movie, words.DIRECTION_HEARD, index),)


def _turning(studio: Studio) -> Movie:
    """A silent film of two directions."""
    return Movie(make_film(random_motion(studio.rng, legs=2), studio.rng, studio.rng.uniform(4.0, 5.0)), None)


def _turning_turn(studio: Studio, movie: Movie, questions: words.Questions, index: int) -> Turn:
    """A question for one of a film's directions."""
    answer = words.direction_answer(movie.film.motion.directions[index], studio.language)
    return Turn((movie,), studio.ask(questions), answer)


def _small_talk(studio: Studio) -> Turn:
    question, answer = studio.rng.choice(words.SMALL_TALK[studio.language])
    return Turn((), question, answer)


def _sum_turn(studio: Studio) -> Turn:
    left, right = studio.rng.randrange(10), studio.rng.randrange(10)
    question = words.sum_question(left, right, studio.language, studio.rng)
    return Turn((), question, words.sum_answer(left, right, studio.language))


def _sum(studio: Studio) -> tuple[Turn, ...]:
    return (_sum_turn(studio),)


def _think(studio: Studio) -> tuple[Turn, ...]:
    left, right = studio.rng.randrange(10), studio.rng.randrange(10)
    question = words.sum_question(left, right, studio.language, studio.rng)
    thought = words.sum_thought(left, right, studio.language)
    answer = words.sum_answer(left, right, studio.language)
    return (Turn((), words.thinking_question(question, studio.language), thought + answer),)


def _refuse(studio: Studio) -> tuple[Turn, ...]:
    question = off_topic(studio.rng, studio.language, exam=studio.exam)
    return (Turn((), question, words.REFUSAL[studio.language]),)


def _name(studio: Studio) -> str:
    return studio.rng.choice(CHINESE_NAMES if studio.language == "zh" else NAMES)


def _introduction(studio: Studio, name: str) -> Turn:
    if studio.language == "zh":
        return Turn((), studio.rng.choice([f"我叫{name}。", f"我的名字是{name}。"]), f"很高兴认识你，{name}。")
    said = studio.rng.choice([f"My name is {name}.", f"Hello, my name is {name}.", f"I am {name}."])
    return Turn((), said, f"Nice to meet you, {name}.")


def _name_asked(studio: Studio, name: str | None) -> Turn:
    if studio.language == "zh":
        question = studio.rng.choice(["我叫什么名字？", "我的名字是什么？"])
        return Turn((), question, f"你叫{name}。" if name else "我不知道你的名字。")
    question = studio.rng.choice(["What is my name?", "Do you know my name?", "Who am I?"])
    return Turn((), question, f"Your name is {name}." if name else "I do not know your name.")


def _favorite_said(studio: Studio, color: str) -> Turn:
    if studio.language == "zh":
        name = words.color(color, "zh")
        return Turn((), f"我最喜欢的颜色是{name}。", f"{name}很好看。")
    return Turn((), f"My favorite color is {color}.", f"{words.capital(color)} is a nice color.")


def _favorite_asked(studio: Studio, color: str) -> Turn:
    if studio.language == "zh":
        return Turn((), "我最喜欢什么颜色？", f"你最喜欢{words.color(color, 'zh')}。")
    return Turn((), "What is my favorite color?", f"Your favorite color is {color}.")


def _between(studio: Studio) -> list[Turn]:
    """Something else, so that what was said before has to be remembered."""
    return [studio.rng.choice([_sum_turn, _small_talk])(studio)] if studio.rng.random() < 0.5 else []


def _memory(studio: Studio) -> tuple[Turn, ...]:
    """Names and favourite colours over turns, and small talk."""
    rng, name, color = studio.rng, _name(studio), studio.rng.choice(COLORS)
    chance = rng.random()
    if chance < 0.4:
        return (_introduction(studio, name), *_between(studio), _name_asked(studio, name))
    if chance < 0.55:
        return (_favorite_said(studio, color), *_between(studio), _favorite_asked(studio, color))
    if chance < 0.65:
        said = [_introduction(studio, name), _favorite_said(studio, color)]
        asked = [_name_asked(studio, name), _favorite_asked(studio, color)]
        rng.shuffle(said)
        rng.shuffle(asked)
        return (*said, *asked)
    if chance < 0.75:
        return (_name_asked(studio, None),)
    return tuple(_small_talk(studio) for _ in range(rng.choice([1, 2])))


def _several(studio: Studio) -> tuple[Turn, ...]:
    """Media over several turns."""
    rng, name, picture = studio.rng, _name(studio), studio.picture()
    shown = _describe(studio, picture) if rng.random() < 0.75 else _about(studio, picture, again=False)
    chance = rng.random()
    if chance < 0.4:
        return (shown, _about(studio, picture, again=True))
    if chance < 0.6:
        return (_introduction(studio, name), shown, _name_asked(studio, name))
    if chance < 0.75:
        return (_clip_turn(studio, studio.clip()), shown)
    if chance < 0.9:
        return (shown, _picture_turn(studio))
    return (shown, _clip_turn(studio, studio.clip()), _about(studio, picture, again=True))


@dataclass(frozen=True, slots=True)
class Task:
    """How lessons of a task are made and how often they come up."""

    make: Callable[[Studio], tuple[Turn, ...]]
    weight: float


TASKS: Final[dict[str, Task]] = {
    "memory": Task(_memory, 2),
    "sum": Task(_sum, 2),
    "sound": Task(_sound, 3),
    "long sound": Task(_long_sound, 3),
    "caption": Task(_caption, 5),
    "one thing": Task(_one, 3),
    "two things": Task(_two, 6),
    "three things": Task(_three, 8),
    "see and hear": Task(_see_and_hear, 26),
    "two pictures": Task(_two_pictures, 5),
    "several turns": Task(_several, 5),
    "shape": Task(_shape, 3),
    "film": Task(_silent_film, 4),
    "sounding film": Task(_sounding_film, 7),
    "turning film": Task(_turning_film, 3),
    "timed sound": Task(_timed_sound, 4),
    "refusal": Task(_refuse, 1),
    "box": Task(_box, 8),
    "thought": Task(_think, 1),
}
SOUND_KINDS: Final = (*STEADY, "beeps", "word")
_CHINESE: Final = 0.35  # share of lessons
_INSTRUCTED: Final = 0.2  # share of lessons with a system prompt, captions excepted


def make_lesson(task: str, rng: random.Random, say: Say, *, exam: bool = False, system: str | None = None) -> Lesson:
    """A lesson of `task`. `system`: the system prompt; None: sometimes one, at random."""
    language: Language = "zh" if rng.random() < _CHINESE else "en"
    studio = Studio(rng, language, say, exam=exam)
    lesson = Lesson(task, language, TASKS[task].make(studio))
    if system is None:
        system = random_system(rng) if task != "caption" and rng.random() < _INSTRUCTED else ""
    return replace(lesson, system=system)


def random_lesson(rng: random.Random, say: Say, weights: dict[str, float]) -> Lesson:
    """A lesson to learn from; `weights`: how often each task comes up."""
    task = rng.choices(list(weights), list(weights.values()))[0]
    return make_lesson(task, rng, say)


def app_system(rng: random.Random, *, spoken: bool | None = None) -> str:
    """The app's own system prompt in either language; `spoken`: with the rules for spoken answers."""
    language = rng.choice(LANGUAGES)
    persona = phrase("panel.persona").text(language)
    if spoken is None:
        spoken = rng.random() < 0.4
    return f"{persona}\n\n{phrase('panel.spoken_rules').text(language)}" if spoken else persona


def random_system(rng: random.Random) -> str:
    """A system prompt: the usual one, the app's, or any other."""
    chance = rng.random()
    if chance < 0.35:
        return "You are a helpful assistant."
    if chance < 0.75:
        return app_system(rng)
    count = rng.randint(1, 3)
    return " ".join(rng.sample(_OTHER_SYSTEM, count))


_OTHER_SYSTEM: Final = (
    "You are a friendly guide.",
    "Answer in one short sentence.",
    "Be brief and polite.",
    "You are a careful listener who describes sounds.",
    "You look at pictures and say what is there.",
    "Today is a sunny day in a small town.",
    "The user is a child who likes to play.",
    "Never use lists.",
    "You work in a museum and help people who visit it.",
    "你是一个乐于助人的助手。",
    "请用简短的句子回答。",
    "你在学校工作，回答孩子们的问题。",
    "回答要准确、友好。",
)
