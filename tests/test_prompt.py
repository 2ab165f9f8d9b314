"""How a conversation is laid out for the engines: order, frame rate, and the sound of films."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omni_backend import ChatRequest, MediaPart, Message, TextPart, defaults
from omni_backend.media import FrameBudget, MediaLoader
from omni_backend.prompt import Prompt, build_prompt, frame_rate
from tests.media_files import film_file, image_file, pitch, sound_file

PUBLISHED = FrameBudget(factor=32, min_pixels=128 * 1024, max_pixels=768 * 1024, total_pixels=16_384 * 1024)
SMALL = FrameBudget(factor=32, min_pixels=9 * 1024, max_pixels=12 * 1024, total_pixels=16_384 * 1024)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MediaPart]:
    folder = tmp_path_factory.mktemp("media")
    content = {
        "picture.png": image_file(),
        "voice.wav": sound_file("wav", hertz=1000.0),
        "film.mp4": film_file("mp4", hertz=300.0),
        "silent.mp4": film_file("mp4", hertz=None),
    }
    types = {"png": "image", "wav": "audio", "mp4": "video"}
    parts = {}
    for name, data in content.items():
        (folder / name).write_bytes(data)
        stem, kind = name.split(".")
        parts[stem] = MediaPart(types[kind], str(folder / name))  # type: ignore[arg-type]
    return parts


def prompt_of(*messages: Message, hear_films: bool = True) -> Prompt:
    request = ChatRequest(messages, use_audio_in_video=hear_films)
    return build_prompt(request, MediaLoader(), SMALL, patch_size=16)


def user(*parts: MediaPart | str) -> Message:
    return Message("user", tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


def placeholders(prompt: Prompt) -> list[str]:
    return [part["type"] for turn in prompt.chat for part in turn["content"] if not isinstance(turn["content"], str)]


def test_parts_keep_their_order(files: dict[str, MediaPart]) -> None:
    there = prompt_of(user(files["picture"], "What?", files["voice"]))
    back = prompt_of(user(files["voice"], "What?", files["picture"]))

    assert placeholders(there) == ["image", "text", "audio"]
    assert placeholders(back) == ["audio", "text", "image"]


def test_the_track_of_a_film_alone_is_interleaved(files: dict[str, MediaPart]) -> None:
    prompt = prompt_of(user(files["film"], "What?"))

    assert prompt.use_audio_in_video
    assert placeholders(prompt) == ["video", "text"]
    assert prompt.audio_from_video == [0]
    assert pitch(prompt.audios[0]) == pytest.approx(300, abs=5)


def test_beside_another_sound_the_track_follows_its_film(files: dict[str, MediaPart]) -> None:
    prompt = prompt_of(user(files["film"], files["voice"], "What?"))

    assert not prompt.use_audio_in_video
    assert placeholders(prompt) == ["video", "audio", "audio", "text"]
    assert prompt.audio_from_video == [None, None]
    assert [round(pitch(wave), -2) for wave in prompt.audios] == [300, 1000]


def test_the_switch_is_one_for_the_conversation(files: dict[str, MediaPart]) -> None:
    said = Message("assistant", (TextPart("A film."),))
    prompt = prompt_of(user(files["film"], "What?"), said, user(files["voice"], "And?"))

    assert not prompt.use_audio_in_video
    assert placeholders(prompt) == ["video", "audio", "text", "audio", "text"]


def test_a_silent_film_turns_interleaving_off_and_is_said_once(files: dict[str, MediaPart]) -> None:
    first = user(files["silent"], files["film"], "What?")
    prompt = prompt_of(first)
    later = prompt_of(first, Message("assistant", (TextPart("Two films."),)), user("And?"))

    assert not prompt.use_audio_in_video
    assert placeholders(prompt) == ["video", "video", "audio", "text"]
    assert ["silent.mp4" in notice.phrase.text() for notice in prompt.notices] == [True]
    assert not later.notices


def test_a_track_without_sound_counts_as_silent(files: dict[str, MediaPart], monkeypatch: pytest.MonkeyPatch) -> None:
    """The container promises a track, but nothing of it can be decoded."""
    promise = MediaLoader.probe
    monkeypatch.setattr(MediaLoader, "probe", lambda self, part: replace(promise(self, part), has_audio=True))
    prompt = prompt_of(user(files["silent"], "What?"))

    assert not prompt.use_audio_in_video
    assert not prompt.audios
    assert len(prompt.notices) == 1


def test_films_can_be_deaf(files: dict[str, MediaPart]) -> None:
    prompt = prompt_of(user(files["film"], files["silent"], "What?"), hear_films=False)

    assert not prompt.audios
    assert not prompt.notices
    assert placeholders(prompt) == ["video", "video", "text"]


def test_thoughts_are_never_sent_back() -> None:
    said = Message("assistant", (TextPart("<think>\nHm.\n</think>\n\nFour."),))
    prompt = prompt_of(user("Two and two?"), said, user("Sure?"))

    assert [turn["content"] for turn in prompt.chat] == ["Two and two?", "Four.", "Sure?"]


def test_true_frame_rate_goes_with_the_frames(files: dict[str, MediaPart]) -> None:
    prompt = prompt_of(user(files["silent"], "What?"))

    assert prompt.fps == prompt.videos[0].fps == defaults.VIDEO_FPS
    assert prompt.videos[0].frames.shape[0] == 4  # two seconds
    assert prompt.videos[0].frames.dtype == np.uint8


@pytest.mark.parametrize(
    ("seconds", "budget", "expected"),
    [
        (0, PUBLISHED, 2),
        (15, PUBLISHED, 2),
        (128, PUBLISHED, 2),
        (129, PUBLISHED, 1),
        (600, PUBLISHED, 2 / 5),
        (384, SMALL, 2),
        (385, SMALL, 1),
    ],
)
def test_long_films_are_sampled_at_whole_fractions_of_two(seconds: float, budget: FrameBudget, expected: float) -> None:
    rate = frame_rate(seconds, budget)

    assert rate == pytest.approx(expected)
    assert (26 / rate) == pytest.approx(round(26 / rate)), "position ids of the steps are whole"


def test_files_of_the_prompt_are_decoded_once(files: dict[str, MediaPart], tmp_path: Path) -> None:
    media = MediaLoader()
    request = ChatRequest((user(files["film"], files["picture"], files["voice"], "What?"),))
    build_prompt(request, media, SMALL, patch_size=16)
    first = media.decodes
    build_prompt(request, media, SMALL, patch_size=16)

    assert first == 3
    assert media.decodes == first
