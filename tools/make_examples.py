"""Makes the example pictures, sounds and film in assets/examples.

    python tools/make_examples.py [folder]

Everything is drawn or computed here with fixed seeds, but for `word.wav`, which needs a voice and is only kept.
"""

from __future__ import annotations

import math
import sys
import wave
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Samples = NDArray[np.float32]
Color = tuple[int, int, int]

BLACK: Color = (10, 10, 10)
WHITE: Color = (250, 250, 250)
YELLOW: Color = (245, 220, 40)
RED: Color = (220, 30, 30)
BLUE: Color = (30, 60, 220)

SAMPLE_RATE = 16_000  # Hz, what the audio encoder hears
SUPERSAMPLING = 4

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"

FILM_FPS = 12
FILM_SECONDS = 3


def star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """The ten corners of a five-pointed star around (x, y), in pixels."""
    corners = []
    for index in range(10):
        reach = radius * (1.1 if index % 2 == 0 else 0.45)
        angle = index * math.pi / 5
        corners.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
    return corners


def square(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """The four corners of a square around (x, y), in pixels."""
    half = 0.88 * radius
    return [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)]


def circle(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """So many corners that none is seen, around (x, y), in pixels."""
    angles = (2 * math.pi * index / 360 for index in range(360))
    return [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]


def picture(
    shape: Callable[[float, float, float], list[tuple[float, float]]],
    color: Color,
    background: Color,
    size: tuple[int, int] = (256, 256),
    center: tuple[float, float] = (0.5, 0.5),
) -> Image.Image:
    """One filled shape; `center` is a share of width and height."""
    width, height = size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING
    image = Image.new("RGB", (width, height), background)
    corners = shape(center[0] * width, center[1] * height, 0.24 * min(width, height))
    ImageDraw.Draw(image).polygon(corners, fill=color)
    return image.resize(size, Image.Resampling.LANCZOS)


def tone(frequency: NDArray[np.float64] | float, seconds: float, rate: int = SAMPLE_RATE) -> Samples:
    """A sine of `frequency` Hz (one value, or one for each sample), faded in and out within 3 ms."""
    count = round(seconds * rate)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(frequency, count)) / rate
    fade = np.minimum(1.0, np.minimum(np.arange(count), np.arange(count)[::-1]) / (0.003 * rate))
    return (0.4 * np.sin(phase) * fade).astype(np.float32)


def sweep(low: float, high: float, seconds: float) -> Samples:
    """A tone that rises evenly, in octaves a second, from `low` to `high` Hz."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return tone(low * (high / low) ** (times / seconds), seconds)


def recorded(samples: Samples) -> Samples:
    """`samples` with the faint noise of a quiet room."""
    noise = np.random.default_rng(0).normal(0.0, 1e-4, len(samples))
    return (samples + noise).astype(np.float32)


def many_sounds(word: Samples) -> Samples:
    """Half a minute of one sound after the other, with short pauses between them."""
    seconds, pause = 4.3, np.zeros(round(0.3 * SAMPLE_RATE), np.float32)
    noise = (0.1 * np.random.default_rng(3).standard_normal(round(seconds * SAMPLE_RATE))).astype(np.float32)
    spoken = np.concatenate([word, np.zeros(round(seconds * SAMPLE_RATE) - len(word), np.float32)])
    sounds = (noise, spoken, tone(220.0, seconds), noise, tone(880.0, seconds), spoken)
    return np.concatenate([part for sound in sounds for part in (sound, pause)]).astype(np.float32)


def read_sound(path: Path) -> Samples:
    """What `write_sound` wrote."""
    with wave.open(str(path)) as file:
        whole = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return whole.astype(np.float32) / np.float32(32_767)


def write_mp3(path: Path, samples: Samples) -> None:
    """A mono MP3 file."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp3", rate=SAMPLE_RATE, layout="mono", options={"b": "64000"})
        sound = av.AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


def write_sound(path: Path, samples: Samples) -> None:
    """A mono wave file of 16-bit samples."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples * 32_767).round().astype("<i2").tobytes())


def film_frames() -> Iterator[Image.Image]:
    """A yellow star that crosses a black picture from left to right."""
    count = FILM_FPS * FILM_SECONDS
    for index in range(count):
        yield picture(star, YELLOW, BLACK, (160, 128), (0.25 + 0.5 * index / (count - 1), 0.5))


def write_film(path: Path) -> None:
    """The star as H.264 with a tone as AAC, ready to play before it is read whole."""
    rate = 24_000
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FILM_FPS, options={"crf": "23", "threads": "1"})
        video.width, video.height, video.pix_fmt = 160, 128, "yuv420p"
        audio = container.add_stream("aac", rate=rate, layout="mono", options={"b": "48000"})
        for image in film_frames():
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(tone(880.0, FILM_SECONDS, rate)[None, :], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = rate, 0, Fraction(1, rate)
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))


def main(folder: Path) -> None:
    """Writes every file into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    picture(star, YELLOW, BLACK).save(folder / "star.png", optimize=True)
    picture(square, BLUE, WHITE).save(folder / "square.png", optimize=True)
    picture(circle, RED, WHITE).save(folder / "circle.png", optimize=True)
    sounds = {"tone": tone(880.0, 1.5), "sweep": sweep(220.0, 880.0, 1.5)}
    for name, samples in sounds.items():
        write_sound(folder / f"{name}.wav", recorded(samples))
    write_mp3(folder / "sounds.mp3", recorded(many_sounds(read_sound(EXAMPLES / "word.wav"))))
    write_film(folder / "film.mp4")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES)
