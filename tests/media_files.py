"""Small media files of every kind, made in memory: known colours at known times, tones of known pitch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from omni_backend import MediaPart, MediaType
from omni_backend.media import FrameBudget, Video

Colour = tuple[int, int, int]
RED: Final[Colour] = (255, 0, 0)
GREEN: Final[Colour] = (0, 255, 0)
BLUE: Final[Colour] = (0, 0, 255)
WHITE: Final[Colour] = (255, 255, 255)

BUDGET: Final = FrameBudget(factor=32, min_pixels=4 * 32**2, max_pixels=64 * 32**2, total_pixels=10_000 * 32**2)
"""Room for small frames."""

_CLOCK: Final = Fraction(1, 1000)  # of films: milliseconds


@dataclass(frozen=True, slots=True)
class SoundKind:
    """How a kind of sound file is written: FFmpeg's format and codec, and the rate."""

    format: str
    codec: str
    rate: int = 16_000
    layout: str = "mono"


SOUNDS: Final[dict[str, SoundKind]] = {
    "wav": SoundKind("wav", "pcm_s16le"),
    "wav-24bit-48k": SoundKind("wav", "pcm_s24le", 48_000, "stereo"),
    "wav-float": SoundKind("wav", "pcm_f32le", 44_100),
    "wav-8k": SoundKind("wav", "pcm_s16le", 8_000),
    "wav-6ch": SoundKind("wav", "pcm_s16le", 44_100, "5.1"),
    "mp3": SoundKind("mp3", "libmp3lame", 44_100, "stereo"),
    "m4a": SoundKind("ipod", "aac", 44_100, "stereo"),
    "aac": SoundKind("adts", "aac", 22_050),
    "ogg": SoundKind("ogg", "vorbis", 44_100, "stereo"),
    "opus": SoundKind("ogg", "libopus", 48_000),
    "flac": SoundKind("flac", "flac", 32_000, "stereo"),
    "webm": SoundKind("webm", "libopus", 48_000),
    "mp4": SoundKind("mp4", "aac", 48_000),
    "mka": SoundKind("matroska", "flac", 16_000),
    "aiff": SoundKind("aiff", "pcm_s16be", 22_050),
}
"""Every kind of sound file; the name before a hyphen is the usual ending."""


@dataclass(frozen=True, slots=True)
class FilmKind:
    """How a kind of film is written."""

    format: str
    video: str
    audio: str
    live: bool = False
    """As a browser records: no duration in the header, no index."""


FILMS: Final[dict[str, FilmKind]] = {
    "mp4": FilmKind("mp4", "libx264", "aac"),
    "mov": FilmKind("mov", "libx264", "pcm_s16le"),
    "mkv": FilmKind("matroska", "libx264", "flac"),
    "webm": FilmKind("webm", "libvpx", "libopus"),
    "webm-vp9": FilmKind("webm", "libvpx-vp9", "libopus"),
    "webm-live": FilmKind("webm", "libvpx", "libopus", live=True),
    "avi": FilmKind("avi", "mjpeg", "libmp3lame"),
    "ts": FilmKind("mpegts", "libx264", "aac"),
}
"""Every kind of film."""


def written(folder: Path, kind: MediaType, content: bytes, name: str = "file.bin") -> MediaPart:
    """Writes a file and gives the part that names it."""
    (folder / name).write_bytes(content)
    return MediaPart(kind, str(folder / name))


def shown(video: Video, time: float) -> Colour:
    """The pure colour of the frame that stands for `time`."""
    mean = video.frames[round(time * video.fps)].mean(axis=(1, 2))
    red, green, blue = (255 * int(value > 127) for value in mean)
    assert np.abs(mean - (red, green, blue)).max() < 8, mean
    return red, green, blue


def tone(hertz: float = 440.0, seconds: float = 1.0, rate: int = 16_000, amplitude: float = 0.4) -> NDArray[np.float32]:
    """A sine, shape (samples,), float32."""
    times = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def pitch(waveform: NDArray[np.float32], rate: int = 16_000) -> float:
    """The strongest frequency in hertz."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(waveform.size)))
    return float(np.argmax(spectrum) * rate / waveform.size)


def sound_file(
    kind: str = "wav", hertz: float = 440.0, seconds: float = 1.0, *, channels: Sequence[float] | None = None
) -> bytes:
    """A tone in a sound file of `SOUNDS`. `channels`: how loud it is in each channel, default 1 in all."""
    how = SOUNDS[kind]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=how.format) as container:
        stream = _sound_stream(container, how.codec, how.rate, how.layout)
        loudness = np.ones(len(stream.layout.channels)) if channels is None else np.asarray(channels)
        wave = tone(hertz, seconds, how.rate)
        _write_sound(container, stream, wave[None] * loudness[:, None].astype(np.float32), 0.0)
    return buffer.getvalue()


def film_file(
    kind: str = "mp4",
    pictures: Sequence[tuple[float, Colour]] = ((0.0, RED), (1.0, BLUE)),
    seconds: float = 2.0,
    *,
    rate: int | None = 10,
    size: tuple[int, int] = (64, 48),
    hertz: float | None = 440.0,
    sound_at: float = 0.0,
    picture_at: float = 0.0,
    sound_seconds: float | None = None,
    turn: int = 0,
    mirrored: bool = False,
) -> bytes:
    """A film of `FILMS` that shows each colour from its time on.

    `rate`: frames a second; None writes one frame for each picture, whenever it is. `hertz`: the tone of its
    sound track, None for none; the sound begins at `sound_at` seconds, the first picture at `picture_at`.
    `turn`: degrees counter-clockwise by which players are asked to turn it.
    """
    how = FILMS[kind]
    times = [time for time, _ in pictures] if rate is None else [k / rate for k in range(round(seconds * rate))]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=how.format, options={"live": "1"} if how.live else {}) as container:
        video = _video_stream(container, how.video, size, rate)
        if turn or mirrored:
            video.set_display_rotation(turn, hflip=mirrored)
        audio = None if hertz is None else _sound_stream(container, how.audio, 48_000, "mono")
        for time in times:
            colour = [shown for start, shown in pictures if start <= time + 1e-9][-1]
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), colour, np.uint8), format="rgb24")
            frame = frame.reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = round((time + picture_at) / float(_CLOCK)), _CLOCK
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and hertz is not None:
            wave = tone(hertz, seconds - sound_at if sound_seconds is None else sound_seconds, 48_000)
            _write_sound(container, audio, wave[None], sound_at)
    return buffer.getvalue()


def split_film(size: tuple[int, int] = (64, 48), turn: int = 0, mirrored: bool = False) -> bytes:
    """A film of one second whose left upper quarter is red, the rest blue, to be turned by players."""
    buffer = io.BytesIO()
    picture = np.full((size[1], size[0], 3), BLUE, np.uint8)
    picture[: size[1] // 2, : size[0] // 2] = RED
    with av.open(buffer, "w", format="mp4") as container:
        video = _video_stream(container, "libx264", size, 10)
        video.set_display_rotation(turn, hflip=mirrored)
        for k in range(10):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = k * 100, _CLOCK
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return buffer.getvalue()


def image_file(kind: str = "PNG", colour: Colour = RED, size: tuple[int, int] = (64, 48), **options: object) -> bytes:
    """An image of one colour in one of Pillow's formats."""
    return encoded(Image.new("RGB", size, colour), kind, **options)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """`image` as a file of one of Pillow's formats."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animation_file(colours: Sequence[Colour] = (RED, GREEN, BLUE, WHITE), seconds_each: float = 0.5) -> bytes:
    """An animated GIF."""
    first, *rest = (Image.new("RGB", (64, 48), colour) for colour in colours)
    return encoded(first, "GIF", save_all=True, append_images=rest, duration=round(seconds_each * 1000), loop=0)


def song_with_cover(kind: str = "mp3") -> bytes:
    """A sound file with a picture of its cover."""
    how = SOUNDS[kind]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=how.format) as container:
        stream = _sound_stream(container, how.codec, how.rate, how.layout)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), GREEN, np.uint8), format="rgb24")
        container.mux(cover.encode(picture.reformat(format="yuvj420p")))
        container.mux(cover.encode(None))
        wave = tone(440.0, 1.0, how.rate)[None].repeat(len(stream.layout.channels), axis=0)
        _write_sound(container, stream, wave, 0.0)
    return buffer.getvalue()


def _video_stream(container: OutputContainer, codec: str, size: tuple[int, int], rate: int | None) -> VideoStream:
    stream = container.add_stream(codec, rate=rate or 1000)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = size
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.thread_count = 1
    if rate is None:  # nothing is said about how long a picture lasts
        stream.codec_context.time_base, stream.codec_context.framerate = _CLOCK, Fraction(0)
    if codec == "libx264":
        stream.options = {"preset": "ultrafast", "crf": "18"}
    elif codec.startswith("libvpx"):
        stream.options = {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "1000000"}
    return stream


def _sound_stream(container: OutputContainer, codec: str, rate: int, layout: str) -> AudioStream:
    stream = container.add_stream(codec, rate=rate, layout=layout)
    assert isinstance(stream, AudioStream)
    if codec == "vorbis":
        stream.options = {"strict": "-2"}
    return stream


def _write_sound(container: OutputContainer, stream: AudioStream, wave: NDArray[np.float32], start: float) -> None:
    """`wave`: shape (channels, samples), at the stream's own rate."""
    rate = stream.codec_context.sample_rate
    resampler = av.AudioResampler(stream.format, stream.layout, rate, frame_size=stream.frame_size or 1024)
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave), format="fltp", layout=stream.layout.name)
    frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
    frame.pts = round(start * rate)
    for piece in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(stream.encode(piece))
    container.mux(stream.encode(None))
