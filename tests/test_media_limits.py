"""Bad and huge files get one sentence that names the file and the limit; what was decoded once is kept."""

from __future__ import annotations

import struct
import sys
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omni_backend import BadMedia, Limits, MediaPart, MediaType, sentences
from omni_backend.media import FrameBudget, MediaLoader, Video, media_type
from omni_backend.media_image import load_image
from tests import media_files as made
from tests.media_files import BLUE, BUDGET, RED, shown

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


def decoded(loader: MediaLoader, part: MediaPart) -> object:
    """What an engine would get."""
    if part.type == "image":
        return loader.image(part)
    return loader.audio(part) if part.type == "audio" else film(loader, part)


def refusal(call: Callable[[], object]) -> BadMedia:
    with pytest.raises(BadMedia) as caught:
        call()
    assert caught.value.text("zh") != caught.value.text("en")
    return caught.value


# Bad input

PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/hostname\n#EXT-X-ENDLIST\n"
CONCAT = b"ffconcat version 1.0\nfile /etc/hostname\n"
DASH = b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period/></MPD>'
AU = struct.pack(">4s5I", b".snd", 24, 32_000, 3, 16_000, 1) + bytes(32_000)  # a sound that FFmpeg could read
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"


@pytest.mark.parametrize(
    ("kind", "name", "content", "key"),
    [
        ("image", "nothing.png", b"", "empty"),
        ("audio", "notes.wav", b"These are words.\n" * 40, "unknown"),
        ("video", "noise.mp4", np.random.default_rng(3).bytes(20_000), "unknown"),
        ("video", "list.mp4", PLAYLIST, "unknown"),
        ("video", "list.mp4", CONCAT, "unknown"),
        ("video", "list.mp4", DASH, "unknown"),
        ("image", "program.png", EPS, "unknown"),
        ("audio", "off-the-list.wav", AU, "unknown"),
        ("image", "half.png", made.image_file(size=(300, 200))[:-60], "broken"),
        ("image", "half.jpg", made.image_file("JPEG", size=(300, 200))[:-300], "broken"),
        ("image", "stub.png", made.image_file()[:20], "broken"),
        ("video", "half.mp4", made.film_file("mp4")[:-3000], "broken"),  # its index is at the end
        ("video", "stub.webm", made.film_file("webm")[:300], "broken"),
        ("audio", "silent.wav", made.sound_file()[:78], "no_sound"),
        ("audio", "stub.mp3", made.sound_file("mp3")[:300], "broken"),
        ("audio", "photo.wav", made.image_file(), "not_audio"),
        ("video", "photo.mp4", made.image_file(), "not_video"),
        ("video", "tone.mp4", made.sound_file("mp4"), "not_video"),
        ("image", "film.png", made.film_file(), "not_image"),
        ("image", "line.png", made.image_file(size=(2010, 10)), "too_thin"),
    ],
)
def test_bad_files_get_one_sentence(kind: MediaType, name: str, content: bytes, key: str, give: Give) -> None:
    part, loader = give(kind, content, name), MediaLoader()
    error = refusal(lambda: decoded(loader, part))
    assert error.phrase.key == f"media.{key}"
    assert name in error.text("en")
    assert name in error.text("zh")


@pytest.mark.parametrize("content", [b"", b"words " * 99, made.film_file()[:-3000]])
def test_media_type_refuses_what_cannot_be_used(content: bytes, give: Give) -> None:
    part = give("image", content)
    assert refusal(lambda: media_type(part.path, "holiday.mp4")).text().startswith("holiday.mp4")
    assert refusal(lambda: media_type(part.path)).text().startswith("file.bin")


def test_heic_without_pillow_heif_says_what_is_missing(
    give: Give, loader: MediaLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    part = give("image", b"\0\0\0\x1cftypheic\0\0\0\0" + bytes(99), "phone.heic")
    text = refusal(lambda: loader.image(part)).text()
    assert "phone.heic" in text
    assert "pillow-heif" in text


def test_files_cut_short_are_used_as_far_as_they_go(give: Give, loader: MediaLoader) -> None:
    whole = made.film_file("webm", seconds=2.0)
    video = film(loader, give("video", whole[: len(whole) * 2 // 3]))
    assert shown(video, 0) == RED
    assert video.audio is not None or video.duration < 2.0
    flac = made.sound_file("flac", seconds=2.0)
    waveform = loader.audio(give("audio", flac[: len(flac) // 2]))
    assert 0.5 * 16_000 < waveform.size < 1.7 * 16_000
    assert made.pitch(waveform) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
    ("limits", "kind", "content", "said"),
    [
        (Limits(file_bytes=2000), "audio", made.sound_file(), ["31.33 kB", "1.953 kB"]),
        (Limits(image_pixels=3000), "image", made.image_file(), ["64×48", "3000"]),
        (Limits(image_pixels=3000), "video", made.film_file(), ["64×48", "3000"]),
        (Limits(image_pixels=3000), "video", made.animation_file(), ["64×48", "3000"]),
        (Limits(audio_seconds=0.5), "audio", made.sound_file(), ["1 s", "0.5 s"]),
        (Limits(audio_seconds=0.5), "audio", made.sound_file("mp3"), ["1.02 s", "0.5 s"]),
        (Limits(audio_seconds=0.5), "audio", made.film_file(), ["2 s", "0.5 s"]),
        (Limits(video_seconds=1.5), "video", made.film_file(), ["2 s", "1.5 s"]),
        (Limits(video_seconds=1.5), "video", made.film_file("webm-live"), ["2.001 s", "1.5 s"]),
        (Limits(video_seconds=1.5), "video", made.animation_file(), ["2 s", "1.5 s"]),
    ],
)
def test_limits_are_named(limits: Limits, kind: MediaType, content: bytes, said: list[str], give: Give) -> None:
    part, loader = give(kind, content, "big.bin"), MediaLoader(limits)
    text = refusal(lambda: loader.probe(part)).text()
    for word in ("big.bin", *said):
        assert word in text
    assert refusal(lambda: decoded(loader, part)).text() == text
    assert loader.decodes == 0


def test_a_file_of_just_the_limit_is_taken(give: Give) -> None:
    loader = MediaLoader(Limits(audio_seconds=1.0, video_seconds=2.0, image_pixels=64 * 48))
    assert loader.audio(give("audio", made.sound_file())).size == 16_000
    assert len(film(loader, give("video", made.film_file())).frames) == 4
    assert loader.image(give("image", made.image_file())).size == (64, 64)


def test_a_decompression_bomb_is_refused(give: Give, loader: MediaLoader) -> None:
    content = bytearray(made.image_file())
    content[16:24] = struct.pack(">II", 60_000, 60_000)  # PNG's header: width and height
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    text = refusal(lambda: loader.probe(give("image", bytes(content), "bomb.png"))).text()
    assert "bomb.png" in text
    assert "100000000" in text


@pytest.mark.parametrize("hertz", [440.0, None])
def test_a_header_that_lies_about_the_duration_is_found_out(hertz: float | None, give: Give) -> None:
    content = made.film_file("mkv", hertz=hertz)
    at = content.index(b"\x44\x89\x88") + 3  # Matroska's Duration, a double, in milliseconds
    lying = content[:at] + struct.pack(">d", 500.0) + content[at + 8 :]
    part = give("video", lying, "liar.mkv")
    loader = MediaLoader(Limits(audio_seconds=1.0, video_seconds=1.0))
    assert loader.probe(part).duration == 0.5
    assert refusal(lambda: film(loader, part)).text() == "liar.mkv lasts 2 s; at most 1 s are taken."
    if hertz is not None:
        assert refusal(lambda: loader.audio(part)).text() == "liar.mkv is longer than 1 s, the most that is taken."
    boasting = content[:at] + struct.pack(">d", 9e6) + content[at + 8 :]
    assert MediaLoader().probe(give("video", boasting)).duration == pytest.approx(2.0, abs=0.01)


def test_every_sentence_of_this_area_is_in_both_languages() -> None:
    keys = {key for key in sentences("en") if key.startswith("media.")}
    assert len(keys) > 20
    assert keys == {key for key in sentences("zh") if key.startswith("media.")}


# Cache


def test_a_later_turn_decodes_nothing(give: Give, loader: MediaLoader) -> None:
    sound, picture = give("audio", made.sound_file(), "a"), give("image", made.image_file(), "b")
    moving = give("video", made.film_file(), "c")
    first = loader.audio(sound), film(loader, moving), loader.image(picture)
    assert loader.decodes == 3
    copy = give("audio", made.sound_file(), "the same under another name")
    assert loader.audio(copy) is first[0]
    assert film(loader, moving) is first[1]
    assert loader.image(picture) == first[2]
    assert loader.decodes == 3
    film(loader, moving, fps=4.0)
    assert loader.decodes == 4


def test_a_file_that_changed_is_decoded_again(give: Give, loader: MediaLoader) -> None:
    assert loader.image(give("image", made.image_file(colour=RED))).getpixel((9, 9)) == RED
    assert loader.image(give("image", made.image_file(colour=BLUE))).getpixel((9, 9)) == BLUE


def test_what_is_kept_cannot_be_changed(give: Give, loader: MediaLoader) -> None:
    moving = film(loader, give("video", made.film_file()))
    assert moving.audio is not None
    for array in (moving.frames, moving.audio, loader.audio(give("audio", made.sound_file()))):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    part = give("image", made.image_file(colour=RED))
    loader.image(part).paste(BLUE, (0, 0, 64, 64))
    assert loader.image(part).getpixel((9, 9)) == RED


def test_the_cache_is_bounded_and_forgets_the_oldest(give: Give) -> None:
    second = 4 * 16_000
    loader = MediaLoader(cache_bytes=2 * second + 2000)
    parts = [give("audio", made.sound_file(hertz=100.0 * k), str(k)) for k in (1, 2, 3)]
    for part in (parts[0], parts[1], parts[0], parts[2]):  # the second is now the oldest
        loader.audio(part)
    assert loader.decodes == 3
    loader.audio(parts[0])
    assert loader.decodes == 3
    loader.audio(parts[1])
    assert loader.decodes == 4
    nothing = MediaLoader(cache_bytes=0)
    assert np.array_equal(nothing.audio(parts[0]), nothing.audio(parts[0]))
    assert nothing.decodes == 2


def test_two_threads_that_want_the_same_decode_it_once(
    give: Give, loader: MediaLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, other = give("image", made.image_file(colour=RED)), give("image", made.image_file(colour=BLUE), "other")
    inside, go_on = threading.Event(), threading.Event()

    def slow(source: Any, max_pixels: int) -> Image.Image:
        if source.name == "file.bin":
            inside.set()
            assert go_on.wait(20)
        return load_image(source, max_pixels)

    monkeypatch.setattr("omni_backend.media.load_image", slow)
    with ThreadPoolExecutor(5) as pool:
        try:
            same = [pool.submit(loader.image, part) for _ in range(4)]
            assert inside.wait(20)
            assert pool.submit(loader.image, other).result(20).getpixel((9, 9)) == BLUE  # others need not wait
        finally:
            go_on.set()
        assert [future.result(20).getpixel((9, 9)) for future in same] == [RED] * 4
    assert loader.decodes == 2


def test_many_threads_at_once(give: Give, loader: MediaLoader) -> None:
    films = [give("video", made.film_file(hertz=300.0 + 100 * k), f"{k}.mp4") for k in range(4)]
    together = threading.Barrier(8, timeout=20)

    def work(part: MediaPart) -> float:
        together.wait()
        sound = film(loader, part).audio
        assert sound is not None
        return made.pitch(sound)

    with ThreadPoolExecutor(8) as pool:
        pitches = list(pool.map(work, films * 2))
    assert pitches == pytest.approx([300, 400, 500, 600] * 2, abs=2)
    assert loader.decodes == 4


def test_a_file_that_failed_is_tried_again(give: Give, loader: MediaLoader) -> None:
    refusal(lambda: loader.image(give("image", made.image_file()[:-40], "photo.png")))
    assert loader.image(give("image", made.image_file(), "photo.png")).size == (64, 64)
