"""Probes and decodes images, sounds and films, once for each content; the engines get arrays.

    loader = MediaLoader(limits, roots=(upload_folder,))
    info = loader.probe(part)
    film = loader.video(part, fps=2.0, budget=FrameBudget(32, 128 * 32**2, 768 * 32**2, 16_000 * 32**2))

Blocking and safe to use from several threads. Bad input raises BadMedia and nothing else. Nothing is written to
disk. Of a damaged sound or film what could be decoded is used, as players do, when it lasts 0.1 s or shows one
frame; a damaged image is refused. This module does not know how many tokens anything costs.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from omni_backend import defaults
from omni_backend.capabilities import Limits
from omni_backend.errors import BadMedia
from omni_backend.media_cache import Cache
from omni_backend.media_container import Decoding, first_time, look_at_container, measure, opened, streams
from omni_backend.media_fetch import Fetcher
from omni_backend.media_frames import FrameSampler, sample_count
from omni_backend.media_image import load_image, look_at_image
from omni_backend.media_sound import GRACE, SoundTrack
from omni_backend.media_source import Source, Sources
from omni_backend.media_values import FrameBudget, MediaInfo, Video, bad_media, seconds_text
from omni_backend.types import MediaPart, MediaType

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_RATIO: Final = 200  # of the sides of a picture; MAX_RATIO of qwen-omni-utils
_LEAST_HEARD: Final = defaults.SAMPLE_RATE_IN // 10  # samples; sound encoders fail at less than some 20 ms
_LEAST_SECONDS: Final = 0.1  # of a damaged sound
_URL_FRESH_SECONDS: Final = 600  # how long a fetched file is taken to be what its URL holds
_INFO_BYTES: Final = 256  # what a MediaInfo takes in the cache, roughly

__all__ = ["FrameBudget", "MediaInfo", "MediaLoader", "Video", "media_type"]


class MediaLoader:
    """Decodes the media of requests and keeps the results by content, so that a later turn decodes nothing.

    `roots`: folders in which local files must lie; empty: anywhere. `fetcher`: how http(s) URLs are read.
    `decodes` counts the images, sounds and films decoded so far.
    """

    def __init__(
        self,
        limits: Limits = Limits(),  # noqa: B008 - immutable in use
        *,
        roots: tuple[Path, ...] = (),
        cache_bytes: int = defaults.MEDIA_CACHE_BYTES,
        fetcher: Fetcher | None = None,
    ) -> None:
        self.decodes = 0
        self._limits = limits
        self._sources = Sources(limits.file_bytes, roots, fetcher or Fetcher())
        self._cache = Cache(cache_bytes)
        self._lock = threading.Lock()

    def probe(self, part: MediaPart) -> MediaInfo:
        """What the file of `part` is, whatever the part declares. Raises BadMedia, over-long media included."""
        return self._look(self._find(part), part.type)

    def image(self, part: MediaPart, patch_size: int = 16) -> Image.Image:
        """The picture, RGB, upright, resized by the rule of qwen-omni-utils' `fetch_image`; the caller's own copy.

        Of an animated GIF the first picture. Raises BadMedia.
        """
        source = self._find(part)
        if self._look(source, part.type).type != "image" and not _is_gif(source):
            raise bad_media("not_image", source.name)

        kept = self._cache.get(
            ("image", source.digest, patch_size),
            lambda: self._counted(source, lambda: self._decode_image(source, patch_size)),
            lambda image: 4 * image.width * image.height,
        )
        return kept.copy()

    def audio(self, part: MediaPart) -> NDArray[np.float32]:
        """The sound or the sound track of a film: mono, 16 kHz; read-only.

        Zero-padded to a multiple of 160 samples, and to 0.1 s at least. Raises BadMedia, among others for a file
        without sound.
        """
        source = self._find(part)
        info = self._look(source, "audio")
        if info.type == "image":
            raise bad_media("not_audio", source.name)
        if not info.has_audio:
            raise bad_media("no_sound", source.name)
        return self._cache.get(
            ("audio", source.digest),
            lambda: self._counted(source, lambda: self._decode_audio(source)),
            lambda sound: sound.nbytes,
        )

    def sound(self, part: MediaPart) -> Iterator[NDArray[np.float32]]:
        """The same sound as `audio` in pieces of some seconds at most, decoded while it is read; nothing is kept.

        It is as long as the file, to a multiple of 160 samples. Memory does not grow with its length. Raises BadMedia,
        at any piece.
        """
        source = self._find(part)
        if self._look(source, "audio").type == "image":
            raise bad_media("not_audio", source.name)
        return _safe_iterator(source, self._sound(source))

    def video(self, part: MediaPart, *, fps: float, budget: FrameBudget) -> Video:
        """The film, `fps` frames a second, resized to fit `budget`, and its sound. Raises BadMedia.

        Frame k is the one shown at k / fps seconds after the film's start; see `sample_count` for how many.
        """
        source = self._find(part)
        if self._look(source, "video").type != "video":
            raise bad_media("not_video", source.name)
        return self._cache.get(
            ("video", source.digest, fps, budget),
            lambda: self._counted(source, lambda: self._decode_video(source, fps, budget)),
            lambda film: film.frames.nbytes + (0 if film.audio is None else film.audio.nbytes),
        )

    def _find(self, part: MediaPart) -> Source:
        if not part.path.lower().startswith(("http://", "https://")):
            return self._sources.find(part)
        period = int(time.monotonic() // _URL_FRESH_SECONDS)
        kept = self._cache.get(("url", part.path, period), lambda: self._sources.find(part), lambda s: s.size)
        return replace(kept, name=part.label)

    def _look(self, source: Source, kind: MediaType) -> MediaInfo:
        """What `source` is; checked against the limits for its use as `kind`."""
        longest = self._limits.audio_seconds if kind == "audio" else self._limits.video_seconds

        def make() -> MediaInfo:
            doubtful = min(self._limits.audio_seconds, self._limits.video_seconds)
            return _safely(source, lambda: _look(source, self._limits.image_pixels, doubt_above=doubtful))

        info = self._cache.get(("info", source.digest), make, lambda _: _INFO_BYTES)
        if info.type == "audio":
            longest = self._limits.audio_seconds
        if info.duration is not None:
            _check_length(source, info.duration, longest)
        return info

    def _counted(self, source: Source, decode: Callable[[], T]) -> T:
        with self._lock:
            self.decodes += 1
        return _safely(source, decode)

    def _decode_image(self, source: Source, patch_size: int) -> Image.Image:
        from omni_backend.torchvision_ops import define_missing_ops

        define_missing_ops()
        from qwen_omni_utils.v2_5.vision_process import fetch_image  # type: ignore[import-untyped]

        image = load_image(source, self._limits.image_pixels)
        return cast("Image.Image", fetch_image({"image": image}, image_patch_size=patch_size))

    def _decode_audio(self, source: Source) -> NDArray[np.float32]:
        return _long_enough(np.concatenate(list(self._sound(source))))

    def _sound(self, source: Source) -> Iterator[NDArray[np.float32]]:
        """The sound, piece by piece. Raises BadMedia for a file without any and for one that is too damaged."""
        from av import AudioFrame

        some = False
        with opened(source) as container:
            picture, audio = streams(container, source, self._limits.image_pixels)
            if audio is None:
                raise bad_media("no_sound", source.name)
            start = None if picture is None else first_time(picture, audio)
            track = SoundTrack(source.name, start, self._limits.audio_seconds)
            decoding = Decoding(container, audio)
            for frame in decoding:
                assert isinstance(frame, AudioFrame)
                track.add(frame)
                for block in track.take():
                    some = some or block.size > 0
                    yield block
        rest = track.finish()
        if decoding.damaged and track.seconds < _LEAST_SECONDS:
            raise bad_media("broken", source.name)
        if rest.size == 0 and not some:
            raise bad_media("no_sound", source.name)
        yield rest

    def _decode_video(self, source: Source, fps: float, budget: FrameBudget) -> Video:
        from av import VideoFrame

        max_pixels = self._limits.image_pixels
        span = measure(source, max_pixels)
        duration = span.end - span.start
        _check_length(source, duration, self._limits.video_seconds)
        count = sample_count(duration, fps)
        sampler = FrameSampler(source.name, count, fps, budget, max_pixels)
        track = SoundTrack(source.name, span.start, self._limits.video_seconds)
        with opened(source) as container:
            picture, audio = streams(container, source, max_pixels)
            assert picture is not None
            picture.thread_type = "AUTO"
            for frame in Decoding(container, picture, audio):
                if isinstance(frame, VideoFrame):
                    stamp = frame.pts if frame.pts is not None else frame.dts
                    clock = span.start if stamp is None or frame.time_base is None else float(stamp * frame.time_base)
                    sampler.add(frame, clock - span.start)
                else:
                    track.add(frame)
        frames, sound = sampler.finish(), track.finish()
        if frames is None:
            raise bad_media("broken", source.name)
        return Video(frames, fps, _long_enough(sound) if sound.size else None, duration)


def media_type(path: str, name: str = "") -> MediaType:
    """What the local file at `path` is, by content; `name` is what to call it.

    Raises BadMedia: unknown, empty, broken, too many bytes or pixels.
    """
    limits = Limits()
    source = Sources(limits.file_bytes, (), Fetcher()).find(MediaPart("image", str(Path(path).absolute()), name))
    return _safely(source, lambda: _look(source, limits.image_pixels, doubt_above=math.inf)).type


def _long_enough(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """`sound`, with silence behind it where a sound encoder would fail at its length; read-only."""
    heard = sound if sound.size >= _LEAST_HEARD else np.pad(sound, (0, _LEAST_HEARD - sound.size))
    heard.flags.writeable = False
    return heard


def _check_length(source: Source, seconds: float, longest: float) -> None:
    if seconds > longest * GRACE:
        raise bad_media("too_long", source.name, found=seconds_text(seconds), limit=seconds_text(longest))


def _look(source: Source, max_pixels: int, *, doubt_above: float) -> MediaInfo:
    info = look_at_image(source, max_pixels)
    if info is None:
        info = look_at_container(source, doubt_above=doubt_above, max_pixels=max_pixels)
    if info.size is not None and max(info.size) > MAX_RATIO * min(info.size):
        raise bad_media("too_thin", source.name, width=info.size[0], height=info.size[1], limit=MAX_RATIO)
    return info


def _safely(source: Source, read: Callable[[], T]) -> T:
    """What `read` gives. Decoders meet damage with exceptions of all kinds; here they become BadMedia."""
    try:
        return read()
    except (BadMedia, ImportError):
        raise
    except Exception as error:
        logger.warning("%s could not be read", source.name, exc_info=True)
        raise bad_media("broken", source.name, detail=repr(error)) from error


def _safe_iterator(source: Source, pieces: Iterator[T]) -> Iterator[T]:
    """The same pieces; what fails at any of them is said as `_safely` does."""
    while (piece := _safely(source, lambda: next(pieces, None))) is not None:
        yield piece


def _is_gif(source: Source) -> bool:
    with source.open() as file:
        return file.read(4) == b"GIF8"
