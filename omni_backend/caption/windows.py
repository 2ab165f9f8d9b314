"""A sound of any length → windows that the model can hear, cut where it is quietest. Pure: no files, no decoding.

The captioner describes everything that can be heard, so cuts follow the level of the sound and not whether somebody
speaks (docs/decisions/caption-windows.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from omni_backend import defaults

RATE: Final = defaults.SAMPLE_RATE_IN
PEAKS_PER_SECOND: Final = 50

_HOP: Final = RATE // PEAKS_PER_SECOND  # samples between two looks at the level
_SMOOTH: Final = 15  # hops that one look covers: 0.3 s, as long as a short pause between sentences
_FLOOR: Final = 1e-8  # of the power: -80 dB of full scale; below that all is silence
_AS_QUIET: Final = 2.0  # times the power of the quietest place (3 dB): as good a place, and later ones are better
_LEAST_TAIL: Final = RATE  # samples; a shorter last window would say nothing


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What the model hears at once. Times are seconds from the beginning of the sound."""

    index: int
    start: float
    """The cut before it."""
    end: float
    """The cut after it, or the end of the sound."""
    pcm: NDArray[np.float32]
    """Mono, 16 kHz; begins with what overlaps the window before."""
    peaks: bytes
    """The loudest sample between the cuts in each 20 ms, 0 to 255 for full scale: for a waveform."""


def cut(
    sound: Iterable[NDArray[np.float32]], *, window_seconds: float, overlap_seconds: float = 0.0
) -> Iterator[Window]:
    """The windows of a sound (pieces of mono 16 kHz), as soon as each is complete; one at a time is held.

    Each holds at most `window_seconds`, the first `overlap_seconds` of it from the window before. Cuts lie in the
    second half of what a window could hold, where it is quietest. An empty sound has no windows.
    """
    longest = round(window_seconds * RATE)
    overlap = round(overlap_seconds * RATE)
    buffer = _Buffer()
    for piece in sound:
        buffer.add(piece)
        while buffer.new >= longest + _LEAST_TAIL:
            yield buffer.cut(_quietest(buffer.sound, longest - buffer.heard), overlap)
    while buffer.new > longest - buffer.heard:
        most = min(longest - buffer.heard, max(buffer.new - _LEAST_TAIL, buffer.new // 2))
        yield buffer.cut(_quietest(buffer.sound, most), overlap)
    if buffer.new:
        yield buffer.cut(buffer.new, overlap)


class _Buffer:
    """What was not cut off yet, and before it what is heard again."""

    def __init__(self) -> None:
        self.new = 0
        """Samples after the last cut."""
        self._pieces: list[NDArray[np.float32]] = []
        self._heard = np.zeros(0, np.float32)
        self._at = 0  # samples before the last cut
        self._index = 0

    @property
    def heard(self) -> int:
        """Samples before the last cut that the next window begins with."""
        return self._heard.size

    @property
    def sound(self) -> NDArray[np.float32]:
        """What came after the last cut."""
        if len(self._pieces) != 1:
            self._pieces = [np.concatenate(self._pieces)] if self._pieces else [np.zeros(0, np.float32)]
        return self._pieces[0]

    def add(self, piece: NDArray[np.float32]) -> None:
        self._pieces.append(piece)
        self.new += piece.size

    def cut(self, samples: int, overlap: int) -> Window:
        """Takes the next `samples` out as a window."""
        whole = self.sound
        fresh, rest = whole[:samples], whole[samples:].copy()
        pcm = np.concatenate([self._heard, fresh])
        window = Window(self._index, self._at / RATE, (self._at + samples) / RATE, pcm, _peaks(fresh))
        self._pieces, self.new = [rest], rest.size
        self._heard = pcm[pcm.size - min(overlap, pcm.size) :].copy()
        self._at += samples
        self._index += 1
        return window


def _quietest(sound: NDArray[np.float32], most: int) -> int:
    """Where to cut, in samples: in the second half of the first `most`, at the last of the quietest places."""
    power = np.square(sound[:most], dtype=np.float64)
    hops = power[: most // _HOP * _HOP].reshape(-1, _HOP).mean(axis=1)
    first = hops.size // 2
    if hops.size < 2 * _SMOOTH:
        return most
    level = np.maximum(np.convolve(hops, np.ones(_SMOOTH) / _SMOOTH, mode="valid"), _FLOOR)
    # level[k] covers hops k to k + _SMOOTH - 1; the cut goes into its middle.
    levels = level[first:]
    last = int(np.flatnonzero(levels <= levels.min() * _AS_QUIET)[-1])
    if last == levels.size - 1:
        return most  # as quiet as anywhere right to the end
    return int(first + last + _SMOOTH // 2) * _HOP


def _peaks(sound: NDArray[np.float32]) -> bytes:
    padded = np.concatenate([sound, np.zeros(-sound.size % _HOP, np.float32)])
    loudest = np.abs(padded.reshape(-1, _HOP)).max(axis=1)
    scaled: NDArray[np.uint8] = (np.clip(loudest, 0.0, 1.0) * 255).round().astype(np.uint8)
    return scaled.tobytes()
