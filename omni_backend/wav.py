"""Waveforms to WAV files. Pure."""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

PCM: Final = 1  # how the header calls integers
FLOAT: Final = 3


def wav(samples: NDArray[np.float32], rate: int, *, exact: bool) -> bytes:
    """A mono WAV file. `exact`: 32-bit floats, which lose nothing; else 16-bit integers, which everybody reads."""
    if exact:
        data = samples.astype("<f4").tobytes()
        head = struct.pack("<HHIIHHH", FLOAT, 1, rate, 4 * rate, 4, 32, 0)
        fact = struct.pack("<4sII", b"fact", 4, samples.size)
    else:
        data = (np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes()
        head, fact = struct.pack("<HHIIHH", PCM, 1, rate, 2 * rate, 2, 16), b""
    body = b"WAVE" + struct.pack("<4sI", b"fmt ", len(head)) + head + fact
    body += struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body
