"""Listens to what a checkpoint says: how many of its spoken words are understood, in answers of every task.

    python -m tools.tiny.listen assets/tiny-qwen3-omni RUN/lexicon.pt --n 10
    python -m tools.tiny.listen assets/tiny-qwen3-omni RUN/lexicon.pt --sphinx

Our recogniser is not trained: connected words by dynamic time warping against espeak-ng's own rendering of the
lexicon. `--sphinx` asks one that was trained on people instead. Both hear the sound alone and know neither the answer
nor how many words it has. Beside each figure stands how much is understood when espeak-ng says the same.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from omni_backend import (
    AudioDelta,
    Backend,
    BackendOptions,
    ChatRequest,
    MediaPart,
    SamplingParams,
    TextDelta,
    create_backend,
)
from tools.tiny.evaluate import MAX_TOKENS
from tools.tiny.files import ending, write
from tools.tiny.inputs import media_type, messages
from tools.tiny.lessons import Lesson, make_lesson
from tools.tiny.lexicon import SIGNS, VOICES, Lexicon, log_mel, units
from tools.tiny.sounds import Samples
from tools.tiny.sphinx import Sphinx
from tools.tiny.talker import SPOKEN_TASKS
from tools.tiny.voices import speak_afresh

Features = NDArray[np.float32]

_HOP: Final = 240  # samples, 10 ms
_RANGE: Final = 6.0  # natural logarithms below the loudest; what is quieter is silence
_WORD_COST: Final = 12.0  # of beginning a word; without it long words fall into short ones
_QUIET: Final = 1.0  # of `_RANGE`: where the loudest band of a word's edge is below, it is cut off


class Ear(Protocol):
    """Understands words."""

    def hear(self, sound: Samples) -> list[str]:
        """The words of a sound at 24 kHz, in small letters."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """A word at the end of those heard before it."""

    word: str
    before: _Heard | None


class Recogniser:
    """Knows the words of one voice of a lexicon."""

    def __init__(self, lexicon: Lexicon, voice: str) -> None:
        words = [word for name, word in lexicon.sounds if name == voice and word not in SIGNS]
        templates = [_trimmed(features(lexicon.sounds[voice, word])) for word in words]
        silence = np.full((1, templates[0].shape[1]), -_RANGE, np.float32)
        self._words = [*words, ""]
        self._states = np.concatenate([*templates, silence])
        lengths = np.array([*map(len, templates), 1])
        self._lasts = np.cumsum(lengths) - 1
        self._firsts = self._lasts - lengths + 1
        place = np.arange(len(self._states)) - np.repeat(self._firsts, lengths)
        self._second = place == 0, place < 2
        """Which states have no state before them, and which no second one."""

    def hear(self, sound: Samples) -> list[str]:
        """The words of a sound at 24 kHz."""
        states = self._states
        costs = np.full(len(states), np.inf)
        paths: NDArray[np.int64] = np.zeros(len(states), np.int64)
        nodes: list[_Heard | None] = [None]
        exit_cost, exit_node = 0.0, 0
        for frame in features(sound):
            distance = np.sqrt(np.square(states - frame).mean(axis=1))
            step, skip = np.roll(costs, 1), np.roll(costs, 2)
            step[self._second[0]] = np.inf
            skip[self._second[1]] = np.inf
            entry = np.full(len(states), np.inf)
            entry[self._firsts] = exit_cost + _WORD_COST
            entry[self._firsts[-1]] = exit_cost  # silence is no word
            options = np.stack([costs, step, skip, entry])
            chosen = options.argmin(axis=0)
            entered = np.full(len(states), exit_node)
            earlier = np.stack([paths, np.roll(paths, 1), np.roll(paths, 2), entered])
            paths = np.take_along_axis(earlier, chosen[None], axis=0)[0]
            costs = np.take_along_axis(options, chosen[None], axis=0)[0] + distance
            best = int(costs[self._lasts].argmin())
            exit_cost = float(costs[self._lasts[best]])
            exit_node = int(paths[self._lasts[best]])
            if self._words[best]:
                nodes.append(_Heard(self._words[best], nodes[exit_node]))
                exit_node = len(nodes) - 1
        return _unfold(nodes[exit_node])


def features(sound: Samples) -> Features:
    """Log-mel spectra below the loudest, (times, mels), 0 to -`_RANGE`."""
    spectra = log_mel(torch.from_numpy(np.ascontiguousarray(sound)), _HOP).T.numpy()
    below: Features = np.clip(spectra - spectra.max(), -_RANGE, 0.0).astype(np.float32)
    return below


def differences(right: Sequence[str], heard: Sequence[str]) -> int:
    """The fewest words to be changed, added or left out."""
    row = list(range(len(heard) + 1))
    for index, word in enumerate(right, start=1):
        previous, row[0] = row[0], index
        for place, other in enumerate(heard, start=1):
            previous, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, previous + (word != other))
    return row[-1]


def _trimmed(template: Features) -> Features:
    loud = np.flatnonzero(template.max(axis=1) > -_RANGE + _QUIET)
    return template[loud[0] : loud[-1] + 1]


def _unfold(last: _Heard | None) -> list[str]:
    words: list[str] = []
    while last is not None:
        words.append(last.word)
        last = last.before
    return words[::-1]


async def _spoken(backend: Backend, request: ChatRequest) -> tuple[str, Samples]:
    text, sound = "", [np.zeros(0, np.float32)]
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, AudioDelta):
                sound.append(event.pcm)
    return text, np.concatenate(sound)


@dataclass(slots=True)
class Hearing:
    """How many of the words of spoken answers were understood; words that were added count against it."""

    understood: int = 0
    words: int = 0

    def __add__(self, other: Hearing) -> Hearing:
        return Hearing(self.understood + other.understood, self.words + other.words)

    def __str__(self) -> str:
        return f"{self.understood} of {self.words} words understood, {self.understood / max(1, self.words):.1%}"


def spoken_lesson(task: str, seed: int, index: int) -> Lesson:
    """A conversation whose last answer is in English; a pure function of its arguments."""
    rng = random.Random(f"listen/{seed}/{task}/{index}")
    while True:
        lesson = make_lesson(task, rng, speak_afresh, exam=True, system="")
        if lesson.language == "en":
            return lesson


def said(backend: Backend, voice: str, lesson: Lesson) -> tuple[str, Samples]:
    """The answer to the last turn of a lesson, from real files: text, and speech at 24 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        rng = random.Random(lesson.task)
        media = [medium for turn in lesson.turns for medium in turn.media]
        parts = {
            id(medium): MediaPart(
                media_type(medium), str(write(medium, Path(folder, f"{place}.{ending(medium, rng)}")))
            )
            for place, medium in enumerate(media)
        }
        request = ChatRequest(
            messages(lesson, len(lesson.turns), parts),
            SamplingParams(temperature=0, max_tokens=MAX_TOKENS),
            modalities=frozenset({"text", "audio"}),
            voice=voice,
        )
        return asyncio.run(_spoken(backend, request))


def hearing(ear: Ear, text: str, sound: Samples) -> Hearing:
    """How much of `text` is understood of `sound`, at 24 kHz."""
    right = [unit for unit in units(text) if unit not in SIGNS]
    return Hearing(max(0, len(right) - differences(right, ear.hear(sound))), len(right))


def _ears(lexicon: Lexicon, sphinx: bool) -> dict[str, Ear]:
    """One for each voice."""
    if sphinx:
        shared = Sphinx(word for _, word in lexicon.sounds if word not in SIGNS)
        return {voice.name: shared for voice in VOICES}
    return {voice.name: Recogniser(lexicon, voice.name) for voice in VOICES}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", help="a folder")
    parser.add_argument("lexicon", type=Path, help="lexicon.pt of a training; made now if it is not there")
    parser.add_argument("--n", type=int, default=10, help="answers of each task in each voice (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--voice", choices=[voice.name for voice in VOICES], help="only this one")
    parser.add_argument("--sphinx", action="store_true", help="with PocketSphinx instead of our recogniser")
    options = parser.parse_args()
    lexicon = Lexicon.load(options.lexicon)
    ears = _ears(lexicon, options.sphinx)
    backend = create_backend("transformers", BackendOptions(options.checkpoint, generate_audio=True, single_turn=True))
    backend.wait_until_ready()
    for voice, ear in ears.items():
        if options.voice not in (None, voice):
            continue
        whole, best = Hearing(), Hearing()
        for task in SPOKEN_TASKS:
            heard = Hearing()
            for index in range(options.n):
                text, sound = said(backend, voice, spoken_lesson(task, options.seed, index))
                heard += hearing(ear, text, sound)
                best += hearing(ear, text, lexicon.sound(text, voice))
            print(f"{voice}, {task}: {heard}", flush=True)
            whole += heard
        print(f"{voice}: {whole}; of the synthesizer's own: {best}", flush=True)
    backend.close()


if __name__ == "__main__":
    main()
