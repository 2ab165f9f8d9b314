"""Lessons of the embedded checkpoint, spoken without a synthesizer."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from tools.tiny.lessons import Lesson, make_lesson
from tools.tiny.sounds import RATE, Samples


def hum(word: str, rng: random.Random) -> Samples:
    """Stands in for a synthesizer: a tone of the word's own pitch."""
    pitch = 150 + 7 * sum(map(ord, word)) % 300
    return np.sin(2 * np.pi * pitch * np.arange(rng.randint(4000, 8000)) / RATE).astype(np.float32)


def lesson(task: str, seed: int = 0, **options: Any) -> Lesson:
    """One of `task`; `options`: of `make_lesson`."""
    return make_lesson(task, random.Random(seed), hum, **options)
