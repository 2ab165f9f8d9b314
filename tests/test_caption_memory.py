"""An hour of sound is captioned in the memory that five minutes take. Linux only: asks the kernel for the peak."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import pytest

from omni_backend import Backend, BackendOptions, SamplingParams, create_backend
from omni_backend.caption import CaptionSettings
from omni_backend.caption.collect import Found
from omni_backend.caption.job import CaptionJob
from omni_backend.caption.store import JobStore
from tests.media_files import tone
from tests.tiny_checkpoints import TINY_CHECKPOINT

ROOT: Final = Path(__file__).parent.parent
RATE: Final = 16_000
LIMIT: Final = 60.0
"""MiB that the long sound may take more than the short one; 12 were measured. Its waveform alone takes 220."""


def write_sound(path: Path, minutes: int) -> None:
    """A tone as FLAC, written minute by minute."""
    minute = tone(440.0, 60.0, RATE)[None]
    with av.open(str(path), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        assert isinstance(stream, av.AudioStream)
        resampler = av.AudioResampler(stream.format, stream.layout, RATE, frame_size=stream.frame_size or 4096)

        def pieces() -> Iterator[av.AudioFrame]:
            for number in range(minutes):
                frame = av.AudioFrame.from_ndarray(minute, format="fltp", layout="mono")
                frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), number * minute.size
                yield from resampler.resample(frame)
            yield from resampler.resample(None)

        for piece in pieces():
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def peak() -> float:
    """The most memory that was resident since `forget_peak`, in MiB."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def forget_peak() -> None:
    """So that what loading the engine took for a moment hides nothing. `getrusage` cannot, and knows the parent's."""
    Path("/proc/self/clear_refs").write_text("5")


def measured(folder: Path, minutes: int, backend: Backend) -> tuple[int, float]:
    """How many captions a job on a sound of `minutes` made, and its peak in MiB."""
    sound = folder / f"{minutes}.flac"
    write_sound(sound, minutes)
    brief = CaptionSettings(window_seconds=30.0, sampling=SamplingParams(temperature=0, max_tokens=2))
    with closing(JobStore.create(folder / f"job-{minutes}", brief)) as store:
        store.add([Found("sound.flac", sound)])
        forget_peak()
        asyncio.run(CaptionJob(store, backend).run())
        return len(store.segments(1)), peak()


def main(folder: Path) -> None:
    """Prints what was measured of 5 and of 60 minutes."""
    backend = create_backend("transformers", BackendOptions(str(TINY_CHECKPOINT), single_turn=True))
    try:
        backend.wait_until_ready()
        print(json.dumps([measured(folder, minutes, backend) for minutes in (5, 60)]))
    finally:
        backend.close()


@pytest.mark.engine
def test_an_hour_takes_no_more_memory_than_five_minutes(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "tests.test_caption_memory", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (few, short), (many, long) = json.loads(done.stdout)
    assert (few, many) == (10, 120)
    assert long - short < LIMIT, f"{short:.0f} MiB, then {long:.0f} MiB"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
