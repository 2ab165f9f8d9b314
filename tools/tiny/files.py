"""Pictures, sounds and films of lessons as the files that people send: png, jpg, wav, mp3, mp4 and webm."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Final, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from omni_backend.media_sound import SoundTrack
from tools.tiny.drawings import Picture
from tools.tiny.lessons import Medium, Movie
from tools.tiny.sounds import RATE, Clip, Samples

FILM_FPS: Final = 12
_SOUND_CODECS: Final = {"wav": "pcm_s16le", "mp3": "libmp3lame"}
_SAMPLE_FORMATS: Final = {"wav": "s16", "mp3": "fltp"}
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


def encoded_sound(samples: Samples, kind: str, bit_rate: int = 64_000) -> bytes:
    """A mono file of 16 kHz: "wav" or "mp3"."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = cast(AudioStream, container.add_stream(_SOUND_CODECS[kind], rate=RATE, layout="mono"))
        if kind != "wav":
            stream.bit_rate = bit_rate
        container.mux(stream.encode(_sound_frame(samples, RATE, _SAMPLE_FORMATS[kind])))
        container.mux(stream.encode(None))
    return file.getvalue()


def decoded(content: bytes) -> Samples:
    """A sound file as the app hears it."""
    track = SoundTrack("sound", None, 3600.0)
    with av.open(io.BytesIO(content), "r") as container:
        for frame in container.decode(audio=0):
            track.add(frame)
    return track.finish()


def _sound_frame(samples: Samples, rate: int, format_name: str) -> av.AudioFrame:
    """One frame with all samples, as floats or as 16-bit integers."""
    if format_name.startswith("s16"):
        values = np.clip((samples * 32_768).round(), -32_768, 32_767).astype("<i2")[None]
    else:
        values = np.ascontiguousarray(samples[None])
    frame = av.AudioFrame.from_ndarray(values, format=format_name, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame


def _write_film(movie: Movie, path: Path, ending: str) -> None:
    from tools.tiny.voices import resampled

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
            samples = resampled(movie.clip.samples, RATE, _FILM_RATE)
            resampler = av.AudioResampler(format=audio.format, layout="mono", rate=_FILM_RATE)
            for piece in resampler.resample(_sound_frame(samples, _FILM_RATE, "fltp")):
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
