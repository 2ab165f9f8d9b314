"""Draws scenes and films: shapes of varied sizes and places, one flat colour each, edges smoothed.

Boxes are in pixels of the picture: left, top, right, bottom.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from tools.tiny.world import Motion, Scene, Thing

Rgb = tuple[int, int, int]
Box = tuple[float, float, float, float]

RGB: Final[dict[str, Rgb]] = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (30, 60, 220),
    "yellow": (245, 220, 40),
    "purple": (130, 40, 160),
    "pink": (250, 130, 180),
    "black": (10, 10, 10),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
}
SIZES: Final = (
    *[(128, 128)] * 3,
    *[(256, 256)] * 3,
    *((320, 240), (240, 320), (640, 480), (480, 640), (200, 200), (160, 128), (512, 512)),
)
"""Width and height of pictures; the processor brings them all to about 100 × 100."""
FILM_SIZES: Final = ((96, 96), (128, 96), (96, 128), (160, 128), (256, 256), (320, 240))
_STEPS: Final = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_LEG: Final = (0.55, 1.0)  # of the way that there is
_RADIUS: Final = (0.12, 0.3)  # of a shape, as a share of the shorter side
_SMOOTH: Final = 2  # pixels drawn for each pixel kept, in both directions
_THING_JITTER: Final = 14  # of each colour channel
_BACKGROUND_JITTER: Final = 6


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A drawn scene and the box around each of its things."""

    scene: Scene
    image: Image.Image
    boxes: tuple[Box, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """A moving thing that can be drawn at any time."""

    motion: Motion
    size: tuple[int, int]
    seconds: float
    radius: float
    path: tuple[tuple[float, float], ...]
    """Where its centre goes, in pixels, in equal times from each point to the next."""
    colors: tuple[Rgb, Rgb]
    """Of the thing and of the background."""

    def frame(self, time: float) -> Image.Image:
        """What is shown at `time` seconds."""
        legs = len(self.path) - 1
        done = legs * min(1.0, max(0.0, time / self.seconds))
        leg = min(int(done), legs - 1)
        x, y = (a + (done - leg) * (b - a) for a, b in zip(*self.path[leg : leg + 2], strict=True))
        canvas = _Canvas(self.size, self.colors[1])
        canvas.draw(self.motion.thing.shape, x, y, self.radius, self.colors[0])
        return canvas.finish()


def draw_scene(scene: Scene, rng: random.Random, size: tuple[int, int] | None = None) -> Picture:
    """The things side by side, each somewhere in a column of its own."""
    width, height = size or rng.choice(SIZES)
    canvas = _Canvas((width, height), _jitter(RGB[scene.background], rng, _BACKGROUND_JITTER))
    column = width / len(scene.things)
    boxes = []
    for index, thing in enumerate(scene.things):
        radius = max(0.1 * min(width, height), min(rng.uniform(*_RADIUS) * min(width, height), 0.42 * column))
        x = column * index + _place(column, radius, rng)
        y = _place(height, radius, rng)
        boxes.append(canvas.draw(thing.shape, x, y, radius, _jitter(RGB[thing.color], rng, _THING_JITTER)))
    return Picture(scene, canvas.finish(), tuple(boxes))


def make_film(motion: Motion, rng: random.Random, seconds: float) -> Film:
    """The thing crosses a good part of the picture in each of its directions, evenly, in `seconds` altogether."""
    size = rng.choice(FILM_SIZES)
    radius = rng.uniform(0.14, 0.24) * min(size)
    margin = 1.15 * radius
    across, down = [0.0], [0.0]
    for direction in motion.directions:
        right, below = _STEPS[direction]
        across.append(across[-1] + right * rng.uniform(*_LEG) * (size[0] - 2 * margin))
        down.append(down[-1] + below * rng.uniform(*_LEG) * (size[1] - 2 * margin))
    path = tuple(zip(_within(across, margin, size[0], rng), _within(down, margin, size[1], rng), strict=True))
    colors = _film_colors(motion.thing, motion.background, rng)
    return Film(motion, size, seconds, radius, path, colors)


def _within(places: list[float], margin: float, side: float, rng: random.Random) -> list[float]:
    """`places` moved together to anywhere between the margins."""
    offset = rng.uniform(margin - min(places), side - margin - max(places))
    return [place + offset for place in places]


def thousandths(box: Box, size: tuple[int, int], step: int) -> tuple[int, int, int, int]:
    """A box in thousandths of the picture's sides, rounded to `step`."""
    left, top, right, bottom = (
        min(1000, max(0, round(1000 * value / side / step) * step)) for value, side in zip(box, size * 2, strict=True)
    )
    return left, top, right, bottom


class _Canvas:
    """Draws larger than wanted and shrinks at the end, which smooths the edges."""

    def __init__(self, size: tuple[int, int], background: Rgb) -> None:
        self._size = size
        self._image = Image.new("RGB", (size[0] * _SMOOTH, size[1] * _SMOOTH), background)
        self._pen = ImageDraw.Draw(self._image)

    def draw(self, shape: str, x: float, y: float, radius: float, color: Rgb) -> Box:
        """One shape around (x, y), in pixels of the finished picture; returns its box."""
        if shape == "circle":
            corners = [(x - radius, y - radius), (x + radius, y + radius)]
            self._pen.ellipse(_scaled(corners), fill=color)
        else:
            corners = _corners(shape, x, y, radius)
            self._pen.polygon(_scaled(corners), fill=color)
        across, down = zip(*corners, strict=True)
        return min(across), min(down), max(across), max(down)

    def finish(self) -> Image.Image:
        return self._image.resize(self._size, Image.Resampling.BOX)


def _corners(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Of a square, triangle, five-pointed star or upright cross."""
    if shape == "square":
        half = 0.88 * radius
        return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]
    if shape == "triangle":
        return [(x, y - radius), (x + radius, y + 0.8 * radius), (x - radius, y + 0.8 * radius)]
    if shape == "star":
        points = []
        for index in range(10):
            reach = radius * (1.1 if index % 2 == 0 else 0.45)
            angle = index * math.pi / 5
            points.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
        return points
    arm = 0.33 * radius
    upper = [(x - arm, y - radius), (x + arm, y - radius), (x + arm, y - arm), (x + radius, y - arm)]
    upper += [(x + radius, y + arm), (x + arm, y + arm)]
    return upper + [(2 * x - a, 2 * y - b) for a, b in upper]


def _scaled(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [(_SMOOTH * x, _SMOOTH * y) for x, y in points]


def _place(side: float, radius: float, rng: random.Random) -> float:
    """A centre from which the shape does not reach over the edges."""
    margin = min(1.12 * radius, side / 2)
    return rng.uniform(margin, side - margin)


def _film_colors(thing: Thing, background: str, rng: random.Random) -> tuple[Rgb, Rgb]:
    return _jitter(RGB[thing.color], rng, _THING_JITTER), _jitter(RGB[background], rng, _BACKGROUND_JITTER)


def _jitter(color: Rgb, rng: random.Random, most: int) -> Rgb:
    red, green, blue = (max(0, min(255, channel + rng.randint(-most, most))) for channel in color)
    return red, green, blue
