"""A sound in a form that every browser plays, for files that the browser itself cannot."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

import numpy as np

from omni_backend import MediaPart, defaults
from omni_backend.caption.job import sound_loader
from omni_backend.caption.store import Item

BITS_PER_SECOND: Final = 64_000
"""Of AAC: 29 MB an hour."""

_making = threading.Lock()


def make_preview(item: Item, folder: Path) -> Path:
    """What the model hears of a file, as AAC in MP4: mono, 16 kHz. Made once; blocking, in fixed memory.

    Raises BadMedia and OSError.
    """
    import av
    from av.audio.stream import AudioStream

    target = folder / f"preview-{item.id}.m4a"
    with _making:  # one at a time: it takes a whole core
        if target.exists():
            return target
        unfinished = target.with_suffix(".part")
        with av.open(str(unfinished), "w", format="mp4", options={"movflags": "faststart"}) as container:
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
        unfinished.rename(target)
    return target
