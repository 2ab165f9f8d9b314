"""What the checkpoint speaks with: each word of its answers in three voices, as 24 kHz sound and as speech codes.

A code frame is 80 ms. Words come from espeak-ng, monotone, and are shifted so that the pulses of a voice fall on the
same places of every frame; few different frames are then enough. Codes are residual k-means over log-mel spectra.
Only English is spoken.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from tools.tiny import language
from tools.tiny.sounds import Samples
from tools.tiny.voices import Manner, resampled, speak
from tools.tiny.world import BACKGROUNDS, COLORS, DIRECTIONS, NAMES, SHAPES, WORDS

RATE: Final = 24_000
FRAME: Final = 1920  # samples, 80 ms
CODEBOOKS: Final = (1024, 256, 128, 64)
"""Entries used of each code group; the checkpoint has room for 2,048."""
SIGNS: Final = {",": 1, ".": 2, "!": 2, "?": 2}
"""Frames of silence."""
_SPEED: Final = 175  # words a minute, espeak-ng's own; slower words are understood less
_LEVEL: Final = 0.6  # of full scale, the loudest sample of each word
_HOP: Final = 320  # samples; six spectra in a frame
_WINDOW: Final = 1024
_MELS: Final = 48
_ROUNDS: Final = 30  # of k-means

Unit = tuple[str, str]
"""A voice and a word in small letters, or a sign."""


@dataclass(frozen=True, slots=True)
class Voice:
    """One of the checkpoint's voices."""

    name: str
    variant: str
    """Of espeak-ng."""
    setting: int
    """espeak-ng's pitch, at which it speaks at about `pitch`: what is left is mended by speaking faster or slower, and
    a few hundredths of that are not heard."""
    pitch: float
    """Hz, a multiple of 12.5."""

    @property
    def period(self) -> int:
        """Samples between two pulses; a whole number of them is a frame."""
        return round(RATE / self.pitch)


VOICES: Final = (
    Voice("ethan", "en-us", 60, 100.0),
    Voice("chelsie", "en-us+f2", 65, 200.0),
    Voice("aiden", "en-us+m3", 78, 125.0),
)


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """Sound and codes of every unit."""

    sounds: dict[Unit, Samples]
    codes: dict[Unit, torch.Tensor]
    """Shape (frames, code groups)."""

    @classmethod
    def load(cls, file: Path) -> Lexicon:
        """The lexicon in `file`, made now if it is not there. Raises NoSynthesizer."""
        if not file.exists():
            made = build(answer_words())
            file.parent.mkdir(parents=True, exist_ok=True)
            sounds = {unit: torch.from_numpy(sound) for unit, sound in made.sounds.items()}
            torch.save({"sounds": sounds, "codes": made.codes}, file)
        stored: dict[str, Any] = torch.load(file, weights_only=True)
        return cls({unit: sound.numpy() for unit, sound in stored["sounds"].items()}, stored["codes"])

    def spoken(self, answer: str, voice: str) -> torch.Tensor | None:
        """The codes of an answer (frames, code groups); None when it holds what is not in the lexicon."""
        found = [self.codes.get((voice, unit)) for unit in units(answer)]
        return torch.cat([codes for codes in found if codes is not None]) if found and None not in found else None

    def sound(self, answer: str, voice: str) -> Samples:
        """An answer as the synthesizer says it, at 24 kHz, without what is not in the lexicon."""
        found = [self.sounds[voice, unit] for unit in units(answer) if (voice, unit) in self.sounds]
        return np.concatenate([np.zeros(0, np.float32), *found])


def units(answer: str) -> list[str]:
    """Words in small letters and signs; anything else stands for itself and is in no lexicon."""
    return [unit.lower() for unit in re.findall(r"[A-Za-z]+|[^A-Za-z\s]", answer)]


def answer_words() -> list[str]:
    """All words of English answers, in order."""
    said = [*COLORS, *BACKGROUNDS, *SHAPES, *DIRECTIONS, *WORDS, *NAMES, *language.NUMBERS]
    said += [answer for _, answer in language.SMALL_TALK["en"]]
    said += [
        language.REFUSAL["en"],
        "a high low tone rising falling sweep white noise silence beep beeps someone say says",
    ]
    said += ["on background and the is there one shape are shapes I see hear moving it moves plus"]
    said += ["Nice to meet you, your name is. I do not know your name. favorite color nice"]
    return sorted({unit for text in said for unit in units(text) if unit not in SIGNS})


def build(words: Sequence[str], rounds: int = _ROUNDS) -> Lexicon:
    """Speaks `words` in all voices and gives them codes. Raises NoSynthesizer."""
    jobs = [(voice, word) for voice in VOICES for word in words]
    with ThreadPoolExecutor(2) as pool:
        spoken = list(pool.map(lambda job: _speak(*job), jobs))
    sounds: dict[Unit, Samples] = {(voice.name, word): sound for (voice, word), sound in zip(jobs, spoken, strict=True)}
    for voice in VOICES:
        for sign, frames in SIGNS.items():
            sounds[voice.name, sign] = np.zeros(frames * FRAME, np.float32)
    features = torch.cat([frame_features(sound) for sound in sounds.values()])
    codes = torch.split(residual_codes(features, rounds), [sound.size // FRAME for sound in sounds.values()])
    return Lexicon(sounds, {unit: own.clone() for unit, own in zip(sounds, codes, strict=True)})


def _speak(voice: Voice, word: str) -> Samples:
    """A word on the grid of frames, silent before and after."""
    # On its own the letter would be named.
    text = "uh" if word == "a" else word
    markup = f"<speak><prosody range='0%'>{text}</prosody></speak>"
    sound = speak(markup, Manner(voice.variant, _SPEED, voice.setting, markup=True), RATE)
    sound = resampled(sound, round(RATE * voice.pitch / pitch_of(sound)), RATE)
    folded = np.abs(sound[: sound.size // voice.period * voice.period].reshape(-1, voice.period).mean(axis=0))
    lead = voice.period + int(-np.argmax(folded)) % voice.period
    placed = np.zeros(-(-(lead + sound.size) // FRAME) * FRAME, np.float32)
    placed[lead : lead + sound.size] = sound / np.abs(sound).max() * _LEVEL
    return placed


def pitch_of(sound: Samples) -> float:
    """Hz of a monotone voice at 24 kHz: of the loudest place, by autocorrelation."""
    window = 2048
    starts = range(0, max(1, sound.size - window), 256)
    loudest = max(starts, key=lambda start: float(np.square(sound[start : start + window]).sum()))
    piece = sound[loudest : loudest + window]
    alike = np.correlate(piece, piece, "full")[piece.size - 1 :]
    low, high = RATE // 300, RATE // 60
    return RATE / (low + int(np.argmax(alike[low : min(high, alike.size)])))


def frame_features(sound: Samples) -> torch.Tensor:
    """What a frame sounds like: six log-mel spectra, shape (frames, 6 × mels)."""
    spectra = log_mel(torch.from_numpy(sound), _HOP)[:, : sound.size // _HOP]
    return spectra.T.reshape(sound.size // FRAME, -1)


def log_mel(sound: torch.Tensor, hop: int) -> torch.Tensor:
    """Natural logarithms, shape (mels, times)."""
    window = torch.hann_window(_WINDOW)
    spectrum = torch.stft(sound, _WINDOW, hop, window=window, return_complex=True, center=True).abs()
    return torch.log(_mel_filters() @ spectrum + 1e-3)


def _mel_filters() -> torch.Tensor:
    """Triangles from 60 to 11,000 Hz, evenly on the mel scale; shape (mels, bins)."""
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (60, 11_000))
    edges = 700 * (10 ** (np.linspace(low, high, _MELS + 2) / 2595) - 1) * _WINDOW / RATE
    bins = np.arange(_WINDOW // 2 + 1)[None]
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle)).clip(0)
    return torch.from_numpy(triangles.astype(np.float32))


def residual_codes(features: torch.Tensor, rounds: int = _ROUNDS) -> torch.Tensor:
    """Each code group says what the ones before left over; shape (frames, code groups)."""
    left = features.clone()
    groups = []
    for index, size in enumerate(CODEBOOKS):
        centers = k_means(left, min(size, left.shape[0]), rounds, seed=index)
        nearest = torch.cdist(left, centers).argmin(dim=1)
        groups.append(nearest)
        left = left - centers[nearest]
    return torch.stack(groups, dim=1)


def k_means(points: torch.Tensor, count: int, rounds: int, seed: int) -> torch.Tensor:
    """Centres (count, width). Equal points may leave some of them unused."""
    generator = torch.Generator().manual_seed(seed)
    centers = points[torch.randperm(points.shape[0], generator=generator)[:count]].clone()
    for _ in range(rounds):
        nearest = torch.cdist(points, centers).argmin(dim=1)
        sums = torch.zeros_like(centers).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=count)
        used = counts > 0
        centers[used] = sums[used] / counts[used, None]
    return centers


def random_phrase(
    lexicon: Lexicon, voices: Iterable[str], frames: int, rng: random.Random
) -> tuple[Samples, torch.Tensor]:
    """Words one after the other in one voice, cut to `frames`: sound (frames × 1920,) and codes (frames, groups)."""
    voice = rng.choice(list(voices))
    own = [unit for unit in lexicon.sounds if unit[0] == voice]
    chosen: list[Unit] = []
    while sum(lexicon.codes[unit].shape[0] for unit in chosen) < frames:
        chosen.append(rng.choice(own))
    sound = np.concatenate([lexicon.sounds[unit] for unit in chosen])
    codes = torch.cat([lexicon.codes[unit] for unit in chosen])
    first = rng.randint(0, codes.shape[0] - frames)
    return sound[first * FRAME : (first + frames) * FRAME], codes[first : first + frames]
