"""Pictures, sounds and films of lessons as the files that people send: png, jpg, wav, mp3, mp4 and webm."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from omni_backend.media_sound import SoundTrack
from tools.tiny.drawings import Picture
from tools.tiny.lessons import Medium, Movie
from tools.tiny.sounds import RATE, Clip, Samples


@dataclass(frozen=True, slots=True)
class _Coding:
    """How sound is stored. `rate`: Hz that the codec is given."""

    container: str
    codec: str
    rate: int


FILM_FPS: Final = 12
_SOUNDS: Final = {
    "wav": _Coding("wav", "pcm_s16le", RATE),
    "mp3": _Coding("mp3", "libmp3lame", RATE),
    "aac": _Coding("adts", "aac", 48_000),
    "ogg": _Coding("ogg", "libopus", 48_000),
    "ac3": _Coding("ac3", "ac3", 48_000),
}
LOSSY: Final = tuple(kind for kind in _SOUNDS if kind != "wav")
"""Kinds of sound files that change what is heard."""
_FILM_CODECS: Final = {"mp4": ("libx264", "aac"), "webm": ("libvpx", "libopus")}
_FILM_RATE: Final = 48_000  # Hz, of sound tracks


def write(medium: Medium, path: Path) -> Path:
    """Writes `medium` as `path`, whose ending says the format; returns `path`."""
    ending = path.suffix[1:]
    if isinstance(medium, Picture):
        medium.image.save(path, quality=90)
    elif isinstance(medium, Clip):
        path.write_bytes(encoded_sound(medium.samples, ending))
    else:
        _write_film(medium, path, ending)
    return path


def ending(medium: Medium, rng: random.Random) -> str:
    """One of the formats in which people send it."""
    if isinstance(medium, Picture):
        return rng.choice(["png", "jpg"])
    return rng.choice(["wav", "mp3"] if isinstance(medium, Clip) else ["mp4", "webm"])


def encoded_sound(samples: Samples, kind: str, bit_rate: int = 64_000) -> bytes:
    """A mono file: "wav" or one of `LOSSY`. `bit_rate`: bits a second, of the lossy ones."""
    coding, file = _SOUNDS[kind], io.BytesIO()
    with av.open(file, "w", format=coding.container) as container:
        stream = cast(AudioStream, container.add_stream(coding.codec, rate=coding.rate, layout="mono"))
        if kind in LOSSY:
            stream.bit_rate = bit_rate
        _mux_sound(container, stream, samples, coding.rate)
    return file.getvalue()


def decoded(content: bytes) -> Samples:
    """A sound file as the app hears it."""
    track = SoundTrack("sound", None, 3600.0)
    with av.open(io.BytesIO(content), "r") as container:
        for frame in container.decode(audio=0):
            track.add(frame)
    return track.finish()


def _mux_sound(container: OutputContainer, stream: AudioStream, samples: Samples, rate: int) -> None:
    """Writes all of a sound at 16 kHz into a stream of `rate` Hz."""
    from tools.tiny.voices import resampled

    values = samples if rate == RATE else resampled(samples, RATE, rate)
    whole = stream.format.name == "s16"
    if whole:
        values = np.clip((values * 32_768).round(), -32_768, 32_767).astype("<i2")
    values = np.ascontiguousarray(values[None])
    frame = av.AudioFrame.from_ndarray(values, format="s16" if whole else "fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_film(movie: Movie, path: Path, ending: str) -> None:
    video_codec, audio_codec = _FILM_CODECS[ending]
    with av.open(str(path), "w") as container:
        video = cast(VideoStream, container.add_stream(video_codec, rate=FILM_FPS, options={"threads": "1"}))
        video.width, video.height = movie.film.size
        video.pix_fmt = "yuv420p"
        audio = None
        if movie.clip is not None:
            audio = cast(AudioStream, container.add_stream(audio_codec, rate=_FILM_RATE, layout="mono"))
        for index in range(round(movie.film.seconds * FILM_FPS)):
            image = movie.film.frame(index / FILM_FPS)
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None and movie.clip is not None:
            _mux_sound(container, audio, movie.clip.samples, _FILM_RATE)
