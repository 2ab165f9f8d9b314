"""A sound in a form that every browser plays, for files that the browser itself cannot."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from omni_backend import MediaPart, defaults
from omni_backend.caption.job import sound_loader
from omni_backend.caption.store import Item

BITS_PER_SECOND: Final = 64_000
"""Of AAC: 29 MB an hour."""


def make_preview(item: Item, folder: Path) -> Path:
    """What the model hears of a file, as AAC in MP4: mono, 16 kHz. Made once; blocking, in fixed memory.

    For one caller at a time: it takes a whole core. Raises BadMedia and OSError.
    """
    import av

    target = folder / f"preview-{item.id}.m4a"
    if target.exists():
        return target
    unfinished = target.with_suffix(".part")
    try:
        _encode(item, unfinished)
        unfinished.rename(target)
    except av.FFmpegError as error:
        raise OSError(str(error)) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()
    return target


def _encode(item: Item, target: Path) -> None:
    """Raises BadMedia, OSError and av.FFmpegError."""
    import av
    from av.audio.stream import AudioStream

    with av.open(str(target), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=defaults.SAMPLE_RATE_IN)
        assert isinstance(stream, AudioStream)
        stream.layout = "mono"
        stream.bit_rate = BITS_PER_SECOND
        for piece in sound_loader().sound(MediaPart("audio", str(item.path), item.name)):
            if piece.size:
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece[None]), "fltp", "mono")
                frame.sample_rate = defaults.SAMPLE_RATE_IN
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
