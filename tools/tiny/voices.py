"""Words from the synthesizer espeak-ng, many voices, speeds and pitches; rendered once and kept in a file."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import wave
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tools.tiny.sounds import RATE, Samples

VOICES: Final = (
    *("en-us", "en-gb", "en-gb-scotland", "en-029"),
    *("en-us+f2", "en-us+m3", "en-gb+f4", "en-us+f5"),
)
SPEEDS: Final = (110, 210)  # words a minute
PITCHES: Final = (25, 75)  # espeak-ng's scale, 0 to 99
_AUDIBLE: Final = 0.004  # of full scale
_MARGIN: Final = RATE // 100  # samples kept around a word


class NoSynthesizer(SystemExit):
    """espeak-ng is missing; the program ends with this sentence."""

    def __init__(self) -> None:
        super().__init__("espeak-ng is missing; it speaks the words to learn. Install it: apt-get install espeak-ng")


@dataclass(frozen=True, slots=True)
class Manner:
    """How a word is said."""

    voice: str
    speed: int
    pitch: int
    markup: bool = False
    """Whether the text is SSML."""


def random_manner(rng: random.Random) -> Manner:
    """Any voice, speed and pitch."""
    return Manner(rng.choice(VOICES), rng.randint(*SPEEDS), rng.randint(*PITCHES))


def speak(text: str, manner: Manner, rate: int = RATE) -> Samples:
    """`text` at `rate` Hz without silence around it. Raises NoSynthesizer."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise NoSynthesizer
    options = ["-v", manner.voice, "-s", str(manner.speed), "-p", str(manner.pitch), "--stdout"]
    options += ["-m"] if manner.markup else []
    spoken = subprocess.run([program, *options, text], check=True, capture_output=True).stdout
    with wave.open(io.BytesIO(spoken)) as file:
        # The length in the header is that of an endless stream.
        whole = np.frombuffer(file.readframes(file.getnframes()), "<i2") / np.float32(32_768)
        samples = resampled(whole.astype(np.float32), file.getframerate(), rate)
    loud = np.flatnonzero(np.abs(samples) > _AUDIBLE)
    return samples[max(0, loud[0] - _MARGIN) : loud[-1] + _MARGIN]


def resampled(samples: Samples, rate: int, wanted: int) -> Samples:
    """Mono samples at another rate, by FFmpeg."""
    import av
    from av.audio.resampler import AudioResampler

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
    frame.sample_rate = rate
    resampler = AudioResampler(format="fltp", layout="mono", rate=wanted)
    pieces = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([piece.to_ndarray()[0] for piece in pieces]).astype(np.float32)


def speak_afresh(word: str, rng: random.Random) -> Samples:
    """A word in a manner of its own; takes some ms. Raises NoSynthesizer."""
    return speak(word, random_manner(rng))


class WordBank:
    """Words rendered beforehand, to be said quickly."""

    def __init__(self, spoken: dict[str, list[Samples]]) -> None:
        self._spoken = spoken

    @classmethod
    def load(cls, file: Path, words: Sequence[str], takes: int, seed: int) -> WordBank:
        """The bank in `file` (.npz), rendered now if it is not there: `takes` of each word. Raises NoSynthesizer."""
        if not file.exists():
            rng = random.Random(seed)
            jobs = [(word, random_manner(rng)) for word in words for _ in range(takes)]
            with ThreadPoolExecutor(2) as pool:
                rendered = list(pool.map(lambda job: speak(*job), jobs))
            kept: dict[str, NDArray[np.int16]] = {}
            for index, ((word, _), sound) in enumerate(zip(jobs, rendered, strict=True)):
                kept[f"{word}/{index}"] = (sound * 32_767).astype("<i2")
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, **kept)  # type: ignore[arg-type]
        spoken: dict[str, list[Samples]] = {}
        with np.load(file) as stored:
            for name in stored.files:
                spoken.setdefault(name.partition("/")[0], []).append(stored[name].astype(np.float32) / 32_767)
        return cls(spoken)

    def say(self, word: str, rng: random.Random) -> Samples:
        """One of the takes of `word`."""
        return rng.choice(self._spoken[word])
