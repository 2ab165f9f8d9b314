"""Computes sounds: mono float32 at 16 kHz, from 1 to 30 s, beginning and ending in many ways."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tools.tiny.world import Sound

Samples = NDArray[np.float32]
Say = Callable[[str, random.Random], Samples]
"""A word → its sound, without silence around it."""

RATE: Final = 16_000
SHORT: Final = (1.0, 2.0)
"""Seconds."""
LONG: Final = (1.0, 30.0)
_LEAST_BODY: Final = 0.5  # seconds of a sound that has silence around it
_HIGH: Final = (700.0, 2000.0)  # Hz
_LOW: Final = (100.0, 300.0)
_SWEEP: Final = (200.0, 500.0)  # Hz, the lower end
_SWEEP_RATIO: Final = (3.0, 5.0)
_FADE: Final = (0.001, 0.5)  # seconds
_TIGHT_BEEPS: Final = ((0.08, 0.12), (0.12, 0.2))  # seconds of beep and pause
_LOOSE_BEEPS: Final = ((0.08, 0.3), (0.12, 0.6))


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """What is heard and its samples."""

    sound: Sound
    samples: Samples

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.samples.size / RATE


def make_clip(sound: Sound, rng: random.Random, say: Say, lengths: tuple[float, float] = LONG) -> Clip:
    """A clip whose seconds lie within `lengths` (all lengths equally likely on a logarithmic scale).

    Many words, beeps and steady sounds have silence before or after them.
    """
    count = round(_log_uniform(lengths, rng) * RATE)
    noise = np.random.default_rng(rng.getrandbits(32))
    body = _body(sound, count, rng, noise, say)
    samples = np.zeros(max(count, body.size), np.float32)
    free = samples.size - body.size
    begin = round(rng.choice([0.0, rng.random(), rng.random(), rng.random() ** 3]) * free)
    samples[begin : begin + body.size] = body
    if rng.random() < 0.8:
        samples += noise.normal(0.0, 10 ** rng.uniform(-5, -3), samples.size).astype(np.float32)
    return Clip(sound, as_stored(samples))


def within(clip: Clip, seconds: float, begin: float) -> Clip:
    """The clip `begin` seconds into a silent track of `seconds`. Raises ValueError when it does not fit."""
    samples = np.zeros(round(seconds * RATE), np.float32)
    first = round(begin * RATE)
    samples[first : first + clip.samples.size] = clip.samples
    return Clip(clip.sound, samples)


def as_stored(samples: Samples) -> Samples:
    """Rounded to 16 bits, as nearly every file is: what is quieter than that is gone."""
    whole = np.clip(np.round(samples * 32_768), -32_768, 32_767)
    return (whole / 32_768).astype(np.float32)


def faded(samples: Samples, seconds_in: float, seconds_out: float) -> Samples:
    """`samples` that swell and die away evenly."""
    shape = np.ones(samples.size, np.float32)
    for seconds, part in ((seconds_in, slice(None, None, 1)), (seconds_out, slice(None, None, -1))):
        length = min(samples.size, round(seconds * RATE))
        shape[part][:length] *= np.linspace(0.0, 1.0, length, endpoint=False, dtype=np.float32)
    return (samples * shape).astype(np.float32)


def _body(sound: Sound, count: int, rng: random.Random, noise: np.random.Generator, say: Say) -> Samples:
    """The sound itself, about `count` samples at most."""
    if sound.kind == "word":
        word = say(sound.word, rng)
        return word * np.float32(rng.uniform(0.2, 0.9) / float(np.abs(word).max()))
    if sound.kind == "beeps":
        return _beeps(sound.count, count, rng)
    if sound.kind == "silence":
        return np.zeros(count, np.float32)
    if rng.random() < 0.3 and count > 2 * _LEAST_BODY * RATE:
        count = round(_log_uniform((_LEAST_BODY, count / RATE), rng) * RATE)
    if sound.kind == "noise":
        body = noise.normal(0.0, rng.uniform(0.04, 0.25), count).astype(np.float32)
    else:
        body = _sine(_frequencies(sound, count, rng), rng)
    if rng.random() < 0.7:
        longest = count / RATE / 3
        body = faded(body, min(longest, _log_uniform(_FADE, rng)), min(longest, _log_uniform(_FADE, rng)))
    return body


def _frequencies(sound: Sound, count: int, rng: random.Random) -> NDArray[np.float64]:
    """Hz at each sample. Sweeps go evenly in octaves a second."""
    if sound.kind in ("high", "low"):
        return np.full(count, rng.uniform(*(_HIGH if sound.kind == "high" else _LOW)))
    low = rng.uniform(*_SWEEP)
    rising = low * rng.uniform(*_SWEEP_RATIO) ** (np.arange(count) / count)
    return rising if sound.kind == "rise" else rising[::-1]


def _beeps(number: int, count: int, rng: random.Random) -> Samples:
    """Equal beeps with equal pauses, closer together where they would not fit."""
    lengths, pauses = _TIGHT_BEEPS if rng.random() < 0.5 else _LOOSE_BEEPS
    length, pause = rng.uniform(*lengths), rng.uniform(*pauses)
    needed = number * length + (number - 1) * pause
    fit = min(1.0, 0.95 * count / RATE / needed)
    beep, gap = round(max(0.07, length * fit) * RATE), round(max(0.1, pause * fit) * RATE)
    one = _sine(np.full(beep, rng.uniform(500.0, 1500.0)), rng)
    if rng.random() < 0.5:
        one = faded(one, 0.005, 0.005)
    silent = np.zeros(gap, np.float32)
    return np.concatenate([part for index in range(number) for part in ((silent,) if index else ()) + (one,)])


def _sine(frequencies: NDArray[np.float64], rng: random.Random) -> Samples:
    wave = np.sin(2 * np.pi * np.cumsum(frequencies) / RATE) * rng.uniform(0.1, 0.7)
    return wave.astype(np.float32)


def _log_uniform(bounds: tuple[float, float], rng: random.Random) -> float:
    low, high = bounds
    return math.exp(rng.uniform(math.log(low), math.log(max(low, high))))
