"""Any sound to mono 16 kHz, placed by its time stamps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from omni_backend import defaults
from omni_backend.media_values import bad_media, seconds_text

if TYPE_CHECKING:
    from av import AudioFifo, AudioFrame
    from av.audio.resampler import AudioResampler

RATE: Final = defaults.SAMPLE_RATE_IN
BLOCK: Final = 160  # samples; engines pad to it differently (10 ms, one mel step), so it is done before them
GRACE: Final = 1.01  # a recording cut to the limit lasts a little longer
_GAP: Final = 0.1  # seconds without sound that are filled in; less is the rounding of time stamps
_AT_ONCE: Final = 0.5  # seconds that are resampled at a time; frame by frame takes several times as long
_SILENCE: Final = np.zeros(RATE, np.float32)
_SILENCE.flags.writeable = False


class SoundTrack:
    """Takes the frames of a track in order and makes one waveform of them.

    Channels are averaged. Gaps in the time stamps are filled with silence, so that sound and picture stay
    together. `start`: the time on the file's clock that becomes 0; None: that of the first frame.
    """

    def __init__(self, name: str, start: float | None, max_seconds: float) -> None:
        self._name = name
        self._start = start
        self._max_seconds = max_seconds
        self._blocks: list[NDArray[np.float32]] = []
        self._made = 0  # samples in the blocks
        self._clock = 0.0  # seconds, where the next frame should begin
        self._lead = 0  # samples before the start that are still to be cut
        self._resampler: AudioResampler | None = None
        self._waiting: AudioFifo | None = None  # for the resampler
        self._kind: tuple[str, str, int] | None = None

    def add(self, frame: AudioFrame) -> None:
        """The next frame. Raises BadMedia when the sound grows longer than the limit."""
        if frame.sample_rate <= 0 or frame.samples == 0:
            return
        self._place(frame.time)
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._drain()
            self._kind = kind
        if self._resampler is None or self._waiting is None:
            from av import AudioFifo
            from av.audio.resampler import AudioResampler

            self._resampler = AudioResampler(format="fltp", layout=frame.layout, rate=RATE)
            self._waiting = AudioFifo()
        self._clock += frame.samples / frame.sample_rate
        self._check(self._clock)
        frame.pts = None  # the resampler is to count samples
        self._waiting.write(frame)
        if self._waiting.samples >= _AT_ONCE * frame.sample_rate:
            self._resample(self._waiting.read())

    def take(self) -> list[NDArray[np.float32]]:
        """What has come since the last call, in pieces; it is not kept, so that a sound of any length fits."""
        blocks, self._blocks = self._blocks, []
        return blocks

    def finish(self) -> NDArray[np.float32]:
        """What was not taken, zero-padded so that the whole is a multiple of 160 samples; empty when there is none."""
        self._drain()
        self._append(np.zeros(-self._made % BLOCK, np.float32))
        waveform = np.concatenate([np.zeros(0, np.float32), *self.take()])
        waveform.flags.writeable = False
        return waveform

    @property
    def seconds(self) -> float:
        """How much came so far."""
        return self._clock

    def _place(self, time: float | None) -> None:
        """Makes room up to `time` on the file's clock."""
        if self._start is None:
            self._start = time or 0.0
        if time is None:
            return
        at = time - self._start
        fresh = self._clock == 0.0
        if fresh and at < 0:
            self._lead = round(-at * RATE)
            self._clock = at
        elif at - self._clock > (0 if fresh else _GAP):
            self._check(at)
            self._drain()
            self._append_silence(round(at * RATE) - self._made)
            self._clock = at

    def _drain(self) -> None:
        if self._waiting is not None:
            if self._waiting.samples:
                self._resample(self._waiting.read())
            self._resample(None)
        self._resampler = self._waiting = None

    def _resample(self, frame: AudioFrame | None) -> None:
        """None: the end."""
        assert self._resampler is not None
        for piece in self._resampler.resample(frame):
            self._keep(piece)

    def _keep(self, frame: AudioFrame) -> None:
        channels = np.nan_to_num(frame.to_ndarray(), posinf=0.0, neginf=0.0)  # float files may hold anything
        samples = channels.mean(axis=0, dtype=np.float32)
        cut = min(self._lead, samples.size)
        self._lead -= cut
        self._append(samples[cut:])

    def _append(self, samples: NDArray[np.float32]) -> None:
        self._blocks.append(samples)
        self._made += samples.size

    def _append_silence(self, samples: int) -> None:
        """In pieces that share their memory: a gap may be as long as the longest sound."""
        while samples > 0:
            self._append(_SILENCE[:samples])
            samples -= _SILENCE.size

    def _check(self, seconds: float) -> None:
        if seconds > self._max_seconds * GRACE:
            raise bad_media("longer", self._name, limit=seconds_text(self._max_seconds))
