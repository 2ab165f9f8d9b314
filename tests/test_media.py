"""Media are decoded as they are seen and heard: every format, the sampling rule, turning, offsets."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from omni_backend import BadMedia, MediaPart, MediaType
from omni_backend.media import MAX_RATIO, FrameBudget, MediaInfo, MediaLoader, Video, media_type
from omni_backend.media_frames import sample_count
from omni_backend.media_sound import SoundTrack
from omni_backend.torchvision_ops import define_missing_ops
from tests import media_files as made
from tests.media_files import BLUE, BUDGET, GREEN, RED, WHITE, Colour, shown

Give = Callable[..., MediaPart]


@pytest.fixture
def give(tmp_path: Path) -> Give:
    """`written`, in a folder of the test's own."""

    def write(kind: MediaType, content: bytes, name: str = "file.bin") -> MediaPart:
        return made.written(tmp_path, kind, content, name)

    return write


@pytest.fixture
def loader() -> MediaLoader:
    return MediaLoader()


def film(loader: MediaLoader, part: MediaPart, fps: float = 2.0, budget: FrameBudget = BUDGET) -> Video:
    return loader.video(part, fps=fps, budget=budget)


def onset(waveform: NDArray[np.float32]) -> float:
    """When the sound begins, in seconds."""
    return float(np.argmax(np.abs(waveform) > 0.1) / 16_000)


def refusal(call: Callable[[], object]) -> BadMedia:
    with pytest.raises(BadMedia) as caught:
        call()
    assert caught.value.text("zh") != caught.value.text("en")
    return caught.value


# Sounds


@pytest.mark.parametrize("kind", made.SOUNDS)
def test_every_kind_of_sound_becomes_mono_16_khz(kind: str, give: Give, loader: MediaLoader) -> None:
    part = give("audio", made.sound_file(kind), f"tone.{kind.split('-')[0]}")
    info = loader.probe(part)
    assert (info.type, info.has_audio, info.size) == ("audio", True, None)
    assert info.duration == pytest.approx(1.0, abs=0.1)
    waveform = loader.audio(part)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert waveform.size % 160 == 0
    assert waveform.size / 16_000 == pytest.approx(1.0, abs=0.1)
    assert made.pitch(waveform) == pytest.approx(440, abs=2)
    assert np.abs(waveform[3_000:13_000]).max() == pytest.approx(0.4, abs=0.03)


def test_channels_are_averaged(give: Give, loader: MediaLoader) -> None:
    waveform = loader.audio(give("audio", made.sound_file("wav-6ch", channels=(1, 0.5, 0, 0, 0, 0))))
    assert np.abs(waveform[3_000:13_000]).max() == pytest.approx(0.4 * 1.5 / 6, abs=0.002)


def test_sound_is_padded_with_zeros_to_160_samples(give: Give, loader: MediaLoader) -> None:
    waveform = loader.audio(give("audio", made.sound_file("wav", seconds=0.505)))
    assert waveform.size == 8_160
    assert not waveform[8_080:].any()
    assert waveform[8_070:8_080].all()


def test_a_click_is_followed_by_silence(give: Give, loader: MediaLoader) -> None:
    click = give("audio", made.sound_file("wav", seconds=0.01))
    waveform = loader.audio(click)
    assert waveform.size == 1_600
    assert not waveform[160:].any()
    assert np.concatenate(list(loader.sound(click))).size == 160


@pytest.mark.parametrize("kind", ["mp3", "flac", "mp4"])
def test_cover_art_is_no_film(kind: str, give: Give, loader: MediaLoader) -> None:
    part = give("video", made.song_with_cover(kind), f"song.{kind}")
    assert loader.probe(part).type == "audio"
    assert made.pitch(loader.audio(part)) == pytest.approx(440, abs=2)
    assert refusal(lambda: film(loader, part)).phrase.key == "media.not_video"


def test_a_sound_part_may_be_a_film(give: Give, loader: MediaLoader) -> None:
    part = give("audio", made.film_file(hertz=300.0))
    assert made.pitch(loader.audio(part)) == pytest.approx(300, abs=2)
    silent = give("audio", made.film_file(hertz=None), "silent.mp4")
    assert refusal(lambda: loader.audio(silent)).text() == "silent.mp4 holds no sound."


def sound_frame(start: float, seconds: float, rate: int = 8_000) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.full((1, round(seconds * rate)), 0.5, np.float32), "fltp", "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, round(start * rate), Fraction(1, rate)
    return frame


def test_gaps_in_a_sound_are_filled_with_silence() -> None:
    track = SoundTrack("x", None, 10.0)
    for start in (5.0, 5.5, 7.0):  # the clock of the file need not begin at 0
        track.add(sound_frame(start, 0.5))
    waveform = track.finish()
    assert waveform.size == 2.5 * 16_000
    loud = waveform.reshape(25, -1).mean(axis=1) > 0.25
    assert loud.tolist() == [True] * 10 + [False] * 10 + [True] * 5


def test_what_was_taken_of_a_sound_is_not_kept() -> None:
    track = SoundTrack("x", None, 10_000.0)
    track.add(sound_frame(0.0, 0.5))
    first = np.concatenate(track.take())
    track.add(sound_frame(7_200.0, 0.505))  # the gap's two hours take no memory
    pieces = track.take()
    assert max(piece.size for piece in pieces) <= 16_000
    rest = track.finish()
    sizes = [first.size, sum(piece.size for piece in pieces), rest.size]
    assert sum(sizes) == 7_200.51 * 16_000
    assert track.take() == []


@pytest.mark.parametrize("kind", made.SOUNDS)
def test_a_sound_piece_by_piece_is_the_same_sound(kind: str, give: Give, loader: MediaLoader) -> None:
    part = give("audio", made.sound_file(kind, seconds=3.3), f"tone.{kind.split('-')[0]}")
    pieces = list(loader.sound(part))
    assert len(pieces) > 1
    assert np.array_equal(np.concatenate(pieces), loader.audio(part))


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "webm", "webm-live", "ts"])
def test_the_sound_of_a_film_alone_keeps_the_time_of_the_film(give: Give, loader: MediaLoader, kind: str) -> None:
    part = give("audio", made.film_file(kind, hertz=1000.0, sound_at=0.7))
    heard = loader.audio(part)
    begins = float(np.flatnonzero(np.abs(heard) > 0.05)[0] / 16_000)
    assert begins == pytest.approx(0.7, abs=0.05)
    assert heard.size / 16_000 == pytest.approx(2.0, abs=0.1)


def test_what_is_no_sound_is_said_when_its_pieces_are_read(give: Give, loader: MediaLoader) -> None:
    silent = give("audio", made.film_file(hertz=None), "silent.mp4")
    assert refusal(lambda: list(loader.sound(silent))).text() == "silent.mp4 holds no sound."
    picture = give("audio", made.image_file(), "picture.png")
    assert refusal(lambda: list(loader.sound(picture))).phrase.key == "media.not_audio"
    text = give("audio", b"this is no sound at all", "text.wav")
    assert refusal(lambda: list(loader.sound(text))).phrase.key == "media.unknown"


def test_values_that_are_no_numbers_become_silence() -> None:
    track = SoundTrack("x", None, 10.0)
    frame = sound_frame(0.0, 1.0, rate=16_000)
    values = np.full((1, 16_000), 0.5, np.float32)
    values[0, 1000:1003] = np.nan, np.inf, -np.inf
    frame.planes[0].update(values.tobytes())
    track.add(frame)
    waveform = track.finish()
    assert waveform[999:1004].tolist() == [0.5, 0, 0, 0, 0.5]
    assert np.isfinite(waveform).all()


def test_sound_before_the_start_of_the_film_is_cut() -> None:
    track = SoundTrack("x", 1.0, 10.0)
    track.add(sound_frame(0.5, 1.0))
    track.add(sound_frame(1.5, 0.5))
    assert track.finish().size == 16_000


# Films


@pytest.mark.parametrize("kind", made.FILMS)
def test_every_kind_of_film_shows_its_colours_and_sounds_its_tone(kind: str, give: Give, loader: MediaLoader) -> None:
    part = give("video", made.film_file(kind), "film")
    info = loader.probe(part)
    assert (info.type, info.has_audio, info.size) == ("video", True, (64, 48))
    assert info.duration == pytest.approx(2.0, abs=0.11)
    video = film(loader, part, fps=4.0)
    assert video.fps == 4.0
    assert video.duration == pytest.approx(2.0, abs=0.11)
    assert video.frames.dtype == np.uint8
    assert video.frames.shape == (sample_count(video.duration, 4.0), 3, 64, 64)
    assert [shown(video, time) for time in (0, 0.5, 0.75, 1.25, 1.75)] == [RED, RED, RED, BLUE, BLUE]
    assert video.audio is not None
    assert video.audio.size / 16_000 == pytest.approx(2.0, abs=0.06)
    assert made.pitch(video.audio) == pytest.approx(440, abs=2)


def test_a_silent_film_has_no_sound(give: Give, loader: MediaLoader) -> None:
    part = give("video", made.film_file(hertz=None))
    assert loader.probe(part) == MediaInfo("video", 2.0, False, (64, 48))
    assert film(loader, part).audio is None


@pytest.mark.parametrize(
    ("seconds", "fps", "count"),
    [
        *[(2.0, 2.0, 4), (4.0, 2.0, 8), (4.004, 2.0, 8), (4.03, 2.0, 8), (4.3, 2.0, 10), (0.2, 2.0, 4)],
        *[(2.6, 2.0, 6), (10.0, 1.0, 10), (9.5, 1.0, 10), (3.0, 2 / 3, 4), (60.0, 2.0, 120)],
    ],
)
def test_number_of_frames(seconds: float, fps: float, count: int) -> None:
    assert sample_count(seconds, fps) == count


def test_frames_are_those_shown_at_their_times_whatever_the_rate(give: Give, loader: MediaLoader) -> None:
    pictures = [(0.0, RED), (0.033, GREEN), (0.5, BLUE), (0.52, WHITE), (1.7, RED), (2.6, GREEN)]
    content = made.film_file("webm-live", pictures, rate=None, hertz=None)
    with av.open(io.BytesIO(content), "r") as container:
        assert container.duration is None
        assert container.streams.video[0].frames == 0
    part = give("video", content)
    duration = loader.probe(part).duration
    assert duration == pytest.approx(2.6 + 2.6 / 5)  # the last picture lasts as long as the mean of the others
    video = film(loader, part)
    assert video.duration == duration
    assert [shown(video, k / 2) for k in range(len(video.frames))] == [RED, BLUE, WHITE, WHITE, RED, RED]
    assert [shown(film(loader, part, fps=10.0), time) for time in (0.1, 0.4, 0.6, 2.5, 2.6)] == [
        *(GREEN, GREEN, WHITE, RED, GREEN)
    ]


def test_a_short_film_is_held_for_four_frames(give: Give, loader: MediaLoader) -> None:
    video = film(loader, give("video", made.film_file(pictures=[(0, RED), (0.2, GREEN)], seconds=0.4)))
    assert [shown(video, k / 2) for k in range(len(video.frames))] == [RED, GREEN, GREEN, GREEN]
    assert video.fps == 2.0
    assert video.duration == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "webm", "webm-live", "ts"])
def test_late_sound_stays_late(kind: str, give: Give, loader: MediaLoader) -> None:
    video = film(loader, give("video", made.film_file(kind, hertz=1000.0, sound_at=0.7)), fps=10.0)
    assert video.audio is not None
    assert onset(video.audio) == pytest.approx(0.7, abs=0.005)
    assert [shown(video, time) for time in (0.9, 1.0)] == [RED, BLUE]


@pytest.mark.parametrize("kind", ["mkv", "webm", "ts"])
def test_the_clock_of_a_film_need_not_begin_at_0(kind: str, give: Give, loader: MediaLoader) -> None:
    content = made.film_file(kind, hertz=1000.0, picture_at=3.0, sound_at=3.5, sound_seconds=1.5)
    video = film(loader, give("video", content), fps=10.0)
    assert video.duration == pytest.approx(2.0, abs=0.03)
    assert [shown(video, time) for time in (0.0, 0.9, 1.0, 1.9)] == [RED, RED, BLUE, BLUE]
    assert video.audio is not None
    assert onset(video.audio) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("kind", ["mp4", "mov", "mkv", "webm"])
def test_a_late_picture_stays_late(kind: str, give: Give, loader: MediaLoader) -> None:
    video = film(loader, give("video", made.film_file(kind, hertz=1000.0, picture_at=0.5)), fps=10.0)
    assert video.audio is not None
    assert onset(video.audio) < 0.005
    assert [shown(video, time) for time in (0.0, 0.4, 1.4, 1.5)] == [RED, RED, RED, BLUE]


def test_the_last_picture_is_held_while_the_sound_goes_on(give: Give, loader: MediaLoader) -> None:
    video = film(loader, give("video", made.film_file("mkv", seconds=1.0, sound_seconds=3.0, pictures=[(0, GREEN)])))
    assert video.duration == pytest.approx(3.0, abs=0.01)
    assert [shown(video, k / 2) for k in range(len(video.frames))] == [GREEN] * 6


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_phone_films_are_turned_upright(turn: int, mirrored: bool, give: Give, loader: MediaLoader) -> None:
    expected = np.zeros((2, 2), bool)
    expected[0, 0] = True  # red in the left upper quarter as stored
    expected = np.rot90(expected, turn // 90)
    expected = expected[:, ::-1] if mirrored else expected
    part = give("video", made.split_film((96, 64), turn, mirrored))
    width, height = (64, 96) if turn % 180 else (96, 64)
    assert loader.probe(part).size == (width, height)
    frame = film(loader, part).frames[0]
    assert frame.shape == (3, height, width)
    red = frame[0].reshape(2, height // 2, 2, width // 2).mean(axis=(1, 3)) > 127
    assert red.tolist() == expected.tolist()


def test_frames_are_resized_as_qwen_omni_utils_does(
    give: Give, loader: MediaLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_missing_ops()
    import torch
    from qwen_omni_utils.v2_5 import vision_process  # type: ignore[import-untyped]

    part = give("video", made.split_film((200, 120)))
    with av.open(part.path, "r") as container:
        stored = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])[[0, 2, 5, 7]]

    def read(_: dict[str, Any]) -> tuple[torch.Tensor, dict[str, Any], float]:
        return torch.from_numpy(stored).permute(0, 3, 1, 2), {}, 4.0

    monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "torchvision", read)
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "torchvision")
    for budget in (
        FrameBudget(32, 4 * 32**2, 768 * 32**2, 10_000 * 32**2),
        FrameBudget(32, 128 * 32**2, 768 * 32**2, 10_000 * 32**2),
        FrameBudget(32, 4 * 32**2, 12 * 32**2, 10_000 * 32**2),
        FrameBudget(32, 4 * 32**2, 768 * 32**2, 40 * 32**2),
        FrameBudget(32, 23 * 32**2, 768 * 32**2, 20 * 32**2),
        FrameBudget(28, 4 * 28**2, 768 * 28**2, 10_000 * 28**2),
    ):
        limits = {"min_pixels": budget.min_pixels, "total_pixels": budget.total_pixels}
        asked = {"video": part.path, **limits, "max_pixels": budget.max_pixels}
        expected = vision_process.fetch_video(asked, image_patch_size=budget.factor // 2).numpy()
        ours = film(loader, part, fps=4.0, budget=budget).frames
        assert ours.shape == expected.shape
        assert np.abs(ours - expected).max() == 0


def test_gifs(give: Give, loader: MediaLoader) -> None:
    part = give("video", made.animation_file(), "moves.gif")
    assert loader.probe(part) == MediaInfo("video", 2.0, False, (64, 48))
    assert media_type(part.path) == "video"
    video = film(loader, part)
    assert [shown(video, k / 2) for k in range(4)] == [RED, GREEN, BLUE, WHITE]
    assert video.audio is None
    assert loader.image(part).getpixel((9, 9)) == RED
    still = give("image", made.image_file("GIF", BLUE), "still.gif")
    assert loader.probe(still).type == "image"
    assert loader.image(still).getpixel((9, 9)) == BLUE


def test_transparent_parts_of_an_animation_are_white(give: Give, loader: MediaLoader) -> None:
    clear, dot = Image.new("RGBA", (64, 64)), Image.new("RGBA", (64, 64))
    dot.paste((0, 0, 255, 255), (0, 0, 32, 64))
    content = made.encoded(clear, "GIF", save_all=True, append_images=[dot], duration=1000, disposal=2)
    video = film(loader, give("video", content))
    assert shown(video, 0) == WHITE
    assert video.frames[2, :, 32, 50].tolist() == [255, 255, 255]
    assert video.frames[2, :, 32, 10].tolist() == [0, 0, 255]


# Images


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_kind_of_image(kind: str, give: Give, loader: MediaLoader) -> None:
    part = give("image", made.image_file(kind, RED, (100, 60)), "photo.jpg")  # whatever its name says
    assert loader.probe(part) == MediaInfo("image", None, False, (100, 60))
    assert media_type(part.path) == "image"
    image = loader.image(part)
    assert (image.mode, image.size) == ("RGB", (96, 64))
    pixel = image.getpixel((40, 40))
    assert isinstance(pixel, tuple)
    assert np.abs(np.subtract(pixel, RED)).max() < 4


@pytest.mark.parametrize("patch_size", [14, 16])
@pytest.mark.parametrize("size", [(30, 20), (333, 127), (20, 1900)])
def test_images_are_resized_as_qwen_omni_utils_does(
    size: tuple[int, int], patch_size: int, give: Give, loader: MediaLoader
) -> None:
    define_missing_ops()
    from qwen_omni_utils.v2_5.vision_process import fetch_image  # type: ignore[import-untyped]

    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    expected = fetch_image({"image": Image.fromarray(noise)}, image_patch_size=patch_size)
    ours = loader.image(give("image", made.encoded(Image.fromarray(noise))), patch_size)
    assert np.array_equal(np.asarray(ours), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(orientation: int, give: Give, loader: MediaLoader) -> None:
    from PIL import ImageOps

    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:32, :48], picture[32:, 48:] = RED, BLUE
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = made.encoded(Image.fromarray(picture), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    part = give("image", content)
    assert loader.probe(part).size == expected.size
    assert np.array_equal(np.asarray(loader.image(part)), np.asarray(expected))


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("RGBA", (64, 64), (0, 0, 0, 0)), WHITE),
        (Image.new("LA", (64, 64), (0, 0)), WHITE),
        (Image.new("RGBA", (64, 64), (0, 0, 255, 255)), BLUE),
        (Image.new("L", (64, 64), 100), (100, 100, 100)),
        (Image.new("1", (64, 64), 1), WHITE),
        (Image.new("I;16", (64, 64), 100 * 256), (100, 100, 100)),
        (Image.new("RGB", (64, 64), GREEN).quantize(4), GREEN),
    ],
)
def test_every_mode_becomes_rgb(image: Image.Image, colour: Colour, give: Give, loader: MediaLoader) -> None:
    assert loader.image(give("image", made.encoded(image))).getpixel((30, 30)) == colour


def test_the_ratio_limit_is_that_of_qwen_omni_utils() -> None:
    define_missing_ops()
    from qwen_omni_utils.v2_5 import vision_process

    assert MAX_RATIO == vision_process.MAX_RATIO
