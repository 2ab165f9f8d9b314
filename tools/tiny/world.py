"""What the world consists of, as values, and how to pick from it at random. Nothing here draws, sounds or speaks.

Every random choice comes from the generator that is handed in, so that a seed makes the same world again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["high", "low", "rise", "fall", "noise", "silence", "beeps", "word"]

COLORS: Final = ("red", "green", "blue", "yellow", "purple", "pink", "black", "white")
BACKGROUNDS: Final = ("white", "black", "gray")
SHAPES: Final = ("circle", "square", "triangle", "star", "cross")
DIRECTIONS: Final = ("left", "right", "up", "down")
DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS: Final = (
    *DIGITS,
    *("yes", "no", "hello", "goodbye", "stop", "start", "cat", "dog", "music", "water"),
    *("morning", "evening", "table", "window", "orange", "apple", "paper", "summer", "winter", "bird"),
)
STEADY: Final[tuple[Kind, ...]] = ("high", "low", "rise", "fall", "noise", "silence")
MOST_BEEPS: Final = 5
"""With the six kinds of `STEADY` and one to five beeps there are eleven kinds of sound, beside the words."""
NAMES: Final = (
    *("Ana", "Ben", "Carla", "David", "Emma", "Frank", "Grace", "Henry"),
    *("Ivy", "Jack", "Kate", "Leo", "Maria", "Nina", "Oscar", "Paul"),
)
CHINESE_NAMES: Final = ("小明", "小红", "小丽", "小强", "小刚", "小芳", "小华", "小军")
_SAME_COLOR: Final = 0.75  # share of scenes of things that are alike; the others have one shape


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn shape."""

    color: str
    shape: str


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture: things from left to right."""

    background: str
    things: tuple[Thing, ...]


@dataclass(frozen=True, slots=True)
class Motion:
    """A film: one thing that moves in one direction, or in two, half of the time in each."""

    background: str
    thing: Thing
    directions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sound:
    """What is heard. `count`: of beeps; `word`: what is said."""

    kind: Kind
    count: int = 0
    word: str = ""


def random_thing(rng: random.Random, background: str) -> Thing:
    """A thing that can be seen on `background`."""
    return Thing(rng.choice([color for color in COLORS if color != background]), rng.choice(SHAPES))


def random_scene(rng: random.Random, counts: tuple[int, ...] = (1, 1, 2, 3)) -> Scene:
    """A scene of one of `counts` things; several may be alike."""
    background = rng.choice(BACKGROUNDS)
    return Scene(background, tuple(random_thing(rng, background) for _ in range(rng.choice(counts))))


def alike_scene(rng: random.Random, counts: tuple[int, ...]) -> Scene:
    """A scene of one of `counts` things, two or more, of which two have one colour or one shape.

    They are most easily taken for one another.
    """
    scene = random_scene(rng, counts)
    one, other = rng.sample(range(len(scene.things)), 2)
    things = [*scene.things]
    if rng.random() < _SAME_COLOR:
        things[other] = Thing(things[one].color, rng.choice(SHAPES))
    else:
        things[other] = Thing(things[other].color, things[one].shape)
    return Scene(scene.background, tuple(things))


def distinct_scene(rng: random.Random, counts: tuple[int, ...] = (1, 1, 2, 3)) -> Scene:
    """A scene in which every thing can be named: no two are alike."""
    while True:
        scene = random_scene(rng, counts)
        if len(set(scene.things)) == len(scene.things):
            return scene


def random_motion(rng: random.Random, legs: int = 1) -> Motion:
    """One moving thing. `legs`: in how many directions, all different."""
    background = rng.choice(BACKGROUNDS)
    return Motion(background, random_thing(rng, background), tuple(rng.sample(DIRECTIONS, legs)))


def random_beeps(rng: random.Random) -> Sound:
    """One beep to `MOST_BEEPS`."""
    return Sound("beeps", count=rng.randint(1, MOST_BEEPS))


def random_sound(rng: random.Random) -> Sound:
    """Steady sounds, beeps and words as 6 to 5 to 6; beeps are the hardest."""
    kind = rng.choices([*STEADY, "beeps", "word"], [1] * len(STEADY) + [5, 6])[0]
    if kind == "beeps":
        return random_beeps(rng)
    return Sound("word", word=rng.choice(WORDS)) if kind == "word" else Sound(kind)
