"""The whole path in a real Chromium: hand-like steps on the page, the real engine behind it, sound measured."""

from __future__ import annotations

import os
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, Page, expect

from omni_backend import Backend
from omni_ui.server import App
from tests.browser import listening, open_page
from tests.serving import serving
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.engine]

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
ANSWER_MS = 60_000


@pytest.fixture(scope="module")
def app(engine: Backend) -> Iterator[App]:
    with serving(engine, embedded=True) as app:
        yield app


@pytest.fixture
def page(browser: Browser, app: App) -> Iterator[Page]:
    with open_page(browser, app.url) as page:
        yield page


def send(page: Page, text: str, *files: str) -> None:
    """Attaches example files through the file dialogue, writes, and presses Enter."""
    if files:
        with page.expect_file_chooser() as dialogue:
            page.locator("#omni-composer button:visible").first.click()
        dialogue.value.set_files([EXAMPLES / file for file in files])
        expect(page.locator("#omni-composer .thumbnail-item")).to_have_count(len(files))
    composer = page.locator("#omni-composer textarea")
    composer.fill(text)
    composer.press("Enter")


def answer(page: Page, number: int = 0) -> str:
    """The text of the answer `number` once it is in the history."""
    expect(page.locator(".omni-metrics")).to_be_visible(timeout=ANSWER_MS)
    bubble = page.locator("#omni-history .bot.message").nth(number)
    expect(bubble).to_be_visible()
    return bubble.inner_text()


def spoken_file() -> NDArray[np.float32]:
    """The newest sound file of any conversation, as the browser would play it."""
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    files = sorted(uploads.rglob("answer.wav"), key=lambda file: file.stat().st_mtime)
    with wave.open(str(files[-1]), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def test_what_is_said_sounds_without_a_gap(page: Page) -> None:
    with listening(page) as heard:
        send(page, "What do you see and hear?", "square.png", "tone.wav")
        assert "I see a blue shape on a white background. I hear a high tone." in answer(page)
        file = spoken_file()
        wait_until(lambda: heard().size >= file.size - 2 and page.evaluate("omniPlayer.state") == "idle")
        sound = heard()

    assert page.evaluate("omniPlayer.underruns") == 0
    assert np.sqrt(np.mean(sound**2)) > 0.02
    assert np.abs(sound).max() < 1.0
    # Sample for sample what the chat keeps: nothing is missing, repeated, or torn apart.
    trimmed = np.trim_zeros(file)
    assert sound.size == trimmed.size
    assert np.abs(sound - trimmed).max() < 1e-4
    expect(page.locator("#omni-history .bot audio, #omni-history .bot .waveform-container").first).to_be_attached()


def test_photo_recording_and_film_in_one_message(page: Page) -> None:
    with listening(page) as heard:
        send(page, "What do you see and hear?", "star.png", "word.wav", "film.mp4")
        assert answer(page).strip()
        wait_until(lambda: heard().size > 24_000)
        assert np.sqrt(np.mean(heard() ** 2)) > 0.02
    asked = page.locator("#omni-history .user.message").first
    expect(asked.locator("img")).to_have_count(1)
    expect(asked.locator("video")).to_have_count(1)


def test_a_name_is_remembered(page: Page) -> None:
    send(page, "My name is Maria.")
    assert "Maria" in answer(page)
    send(page, "What is my name?")
    expect(page.locator("#omni-history .bot.message").nth(1)).to_contain_text("Your name is Maria.", timeout=ANSWER_MS)


def test_stop_in_mid_answer_frees_the_engine(browser: Browser, never_ending: Backend) -> None:
    with serving(never_ending) as app, open_page(browser, app.url) as page, listening(page) as heard:
        send(page, "What do you see and hear?")
        wait_until(lambda: heard().size > 2400)
        page.locator("#omni-composer .stop-button").click()
        wait_until(lambda: never_ending.active_requests == 0)
        silent = heard().size
        expect(page.locator("#omni-history .bot.message").first).to_be_visible()
        assert heard().size == silent, "it went on sounding"
        assert page.evaluate("omniPlayer.state") == "idle"
