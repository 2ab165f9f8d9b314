"""The whole path in a real Chromium: hand-like steps on the page, the real engine behind it, sound measured."""

from __future__ import annotations

import os
import re
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import expect

from omni_backend import Backend
from omni_ui.server import App
from tests.browser import Visit
from tests.ear import Ear
from tests.serving import serving
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.engine]

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"


@pytest.fixture(scope="module")
def app(engine: Backend) -> Iterator[App]:
    with serving(engine, embedded=True) as app:
        yield app


@pytest.fixture
def page(app: App, visit: Callable[..., Visit]) -> Visit:
    return visit(app.url)


def spoken_file() -> NDArray[np.float32]:
    """The newest sound file of any conversation, as the browser would play it."""
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    files = sorted(uploads.rglob("answer.wav"), key=lambda file: file.stat().st_mtime)
    with wave.open(str(files[-1]), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)


def level(sound: NDArray[np.float32]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(sound**2)))


def test_one_click_on_an_example_is_answered_aloud_without_a_gap(page: Visit) -> None:
    ear = Ear(page.page)
    page.page.get_by_role("button", name="circle.png").click()
    page.finished()
    expect(page.history).to_contain_text("I see a red circle on a white background. I hear a rising sweep.")
    file = np.trim_zeros(spoken_file())
    wait_until(lambda: ear.heard().size >= file.size and page.player()[0] == "idle", "the end of the speech")
    sound = ear.heard()

    assert level(sound) > 0.02
    assert np.abs(sound).max() < 1.0
    # Sample for sample what the chat keeps: nothing is missing or repeated; and torn apart only by a slow engine.
    if page.player()[1]:
        sound, file = sound[sound != 0], file[file != 0]
    assert sound.size == file.size
    assert np.abs(sound - file).max() < 1e-4


def test_photo_recording_and_film_in_one_message(page: Visit) -> None:
    ear = Ear(page.page)
    page.attach(*(EXAMPLES / name for name in ("star.png", "word.wav", "film.mp4")))
    page.say("What do you see and hear?")
    page.finished()
    wait_until(lambda: ear.heard().size > 24_000, "a second of speech")

    assert level(ear.heard()) > 0.02
    asked = page.history.locator(".user-row").first
    expect(asked.locator("img")).to_have_count(1)
    expect(asked.locator("video")).to_have_count(1)
    expect(page.history.locator(".bot-row").first).to_contain_text("I see")


def test_a_recording_by_microphone_is_sent(page: Visit) -> None:
    composer = page.page.locator("#omni-composer")
    composer.get_by_role("button", name="Record a sound").click()
    expect(composer).to_contain_text(re.compile("0:0[1-9]"))
    composer.get_by_role("button", name="Stop recording").click()
    composer.get_by_role("button", name="Attach the recording").click()
    composer.locator(".thumbnail-item").wait_for()
    page.say("What do you hear?")
    page.finished()

    recording = page.history.locator(".user-row audio")
    wait_until(lambda: recording.evaluate("(player) => player.duration") > 0.5, "the recording")
    expect(page.history.locator(".bot-row").first).to_contain_text(".")


def test_a_name_is_remembered(page: Visit) -> None:
    page.say("My name is Maria.")
    page.finished()
    page.say("What is my name?")
    page.finished(answers=2)
    expect(page.history).to_contain_text("Your name is Maria.")


def listened(page: Visit) -> None:
    """Half a second has sounded, or been silent."""
    now = page.page.evaluate("omniPlayer.context.currentTime")
    wait_until(lambda: page.page.evaluate("omniPlayer.context.currentTime") > now + 0.5, "half a second")


def test_stop_in_mid_answer_frees_the_engine(visit: Callable[..., Visit], never_ending: Backend) -> None:
    with serving(never_ending) as app:
        page = visit(app.url)
        ear = Ear(page.page)
        page.say("What do you see and hear?")
        wait_until(lambda: ear.heard().size > 2400, "the first sound")
        page.stop.click()
        wait_until(lambda: never_ending.active_requests == 0, "an idle engine")
        wait_until(lambda: page.player()[0] == "idle", "silence")
        listened(page)
        silent = ear.heard().size
        page.finished()
        listened(page)

        assert ear.heard().size == silent, "it went on sounding"
        assert page.player()[0] == "idle"
