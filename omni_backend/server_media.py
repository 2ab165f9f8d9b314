"""Decoded media → files that a server reads back to the very same arrays, or that every server can read.

Pictures go as PNG. Sounds go as WAV. Films go at the frames and size at which local engines are given them:
- exact: lossless RGB H.264 in MOV, the interleaved sound beside it as floats. vLLM's OpenCV and PyAV decode both
  without the loss of a bit. The file plays at 2 frames a second whatever the true rate, because vLLM samples at 2
  and would drop or repeat frames of another rate; the true rate travels in the request.
- otherwise: an ordinary MP4 without sound, which plays at the true rate.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from omni_backend import defaults
from omni_backend.media_cache import Cache
from omni_backend.media_values import Video, digest
from omni_backend.wav import wav

if TYPE_CHECKING:
    from PIL.Image import Image

_ENDINGS: Final = {"image/png": ".png", "audio/wav": ".wav", "video/mp4": ".mp4", "video/quicktime": ".mov"}

Mime = Literal["image/png", "audio/wav", "video/mp4", "video/quicktime"]


class MediaEncoder:
    """Encodes media once for each content. Blocking; safe to use from several threads."""

    def __init__(self, cache_bytes: int = defaults.ENCODED_CACHE_BYTES) -> None:
        self._cache = Cache(cache_bytes)

    def image(self, image: Image) -> bytes:
        """A PNG of an RGB picture."""

        def make() -> bytes:
            file = io.BytesIO()
            image.save(file, "PNG", compress_level=1)
            return file.getvalue()

        return self._cache.get(("image", digest(np.asarray(image))), make, len)

    def sound(self, samples: NDArray[np.float32], *, exact: bool) -> bytes:
        """A WAV of a 16 kHz waveform."""
        key = ("sound", exact, digest(samples))
        return self._cache.get(key, lambda: wav(samples, defaults.SAMPLE_RATE_IN, exact=exact), len)

    def film(self, video: Video, *, exact: bool, with_sound: bool = False) -> bytes:
        """The film in one file; only an exact one may hold its sound."""
        sound = video.audio if with_sound else None
        key = (
            "film",
            exact,
            video.fps,
            digest(video.frames),
            sound is not None and digest(sound),
        )
        return self._cache.get(key, lambda: _exact_film(video, sound) if exact else _plain_film(video), len)


class Attachments:
    """Hands files over: inside the request, or written where the server reads them, until `close`."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._written: list[Path] = []

    def url(self, mime: Mime, data: bytes) -> str:
        """An address of `data` for the server: `data:`, or `file://` where there is a folder for it."""
        if self._folder is None:
            return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"
        handle, name = tempfile.mkstemp(prefix="omni-", suffix=_ENDINGS[mime], dir=self._folder)
        path = Path(name)
        self._written.append(path)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        path.chmod(0o644)  # the server may run as somebody else
        return path.as_uri()

    def close(self) -> None:
        """Removes what was written."""
        for path in self._written:
            with contextlib.suppress(OSError):
                path.unlink()
        self._written.clear()


def _exact_film(video: Video, sound: NDArray[np.float32] | None) -> bytes:
    return _film("mov", "libx264rgb", "rgb24", {"crf": "0", "preset": "ultrafast"}, video, Fraction(2), sound)


def _plain_film(video: Video) -> bytes:
    rate = Fraction(video.fps).limit_denominator(10_000)
    return _film("mp4", "libx264", "yuv420p", {"crf": "18", "preset": "veryfast"}, video, rate, None)


def _film(
    container: str,
    codec: str,
    pixels: str,
    options: dict[str, str],
    video: Video,
    rate: Fraction,
    sound: NDArray[np.float32] | None,
) -> bytes:
    import av
    from av.video.stream import VideoStream

    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        picture = cast(VideoStream, output.add_stream(codec, rate=rate, options=options))
        picture.height, picture.width = video.frames.shape[2:]
        picture.pix_fmt = pixels
        track = None
        if sound is not None:
            track = output.add_stream("pcm_f32le", rate=defaults.SAMPLE_RATE_IN, layout="mono")
        for frame in video.frames:
            rgb = np.ascontiguousarray(frame.transpose(1, 2, 0))
            output.mux(picture.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        output.mux(picture.encode(None))
        if sound is not None and track is not None:
            samples = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="flt", layout="mono")
            samples.sample_rate = defaults.SAMPLE_RATE_IN
            samples.pts = 0
            output.mux(track.encode(samples))
            output.mux(track.encode(None))
    return file.getvalue()
