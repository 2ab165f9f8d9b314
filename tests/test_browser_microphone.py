"""Recording in a real Chromium with a fake microphone: heard by the engine, discarded, refused, left at once."""

from __future__ import annotations

import re
import wave
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import expect

from omni_backend import MediaPart, ScriptedBackend, phrase
from omni_ui.server import App
from tests.browser import EXAMPLES, Visit
from tests.composer import button, media, previews, recorded, words
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]

GIVEN = """() => {
  window.given = [];
  const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    const stream = await real(wanted);
    given.push(...stream.getTracks());
    return stream;
  };
}"""


def beeps(part: MediaPart) -> tuple[float, float]:
    """A recording's seconds, and which share of them is loud."""
    with wave.open(str(part.path)) as file:
        assert file.getsampwidth() == 2
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
        return len(samples) / file.getframerate(), float((np.abs(samples[:, 0]) > 3000).mean())


def test_a_recording_is_heard_by_the_engine(page: Visit, backend: ScriptedBackend) -> None:
    page.attach(EXAMPLES / "star.png")
    recorded(page)
    button(page, "Stop recording").click()
    expect(button(page, "Play")).to_be_visible()
    button(page, "Attach the recording").click()
    expect(previews(page)).to_have_count(2)
    expect(previews(page).nth(1)).to_have_accessible_name(re.compile(r"sound-\d{6}\.wav"))
    page.say("Listen")
    page.finished()
    assert [part.type for part in media(backend)] == ["image", "audio"]
    seconds, loud = beeps(media(backend)[1])
    assert seconds > 1.5
    assert 0.005 < loud < 0.9


def test_a_recording_is_made_by_the_keyboard(page: Visit) -> None:
    button(page, "Record a sound").focus()
    for name in ("Record a sound", "Stop recording", "Attach the recording"):
        expect(button(page, name)).to_be_focused()
        if name == "Stop recording":
            expect(page.page.locator("#omni-composer .timestamp")).to_have_text(re.compile("0:0[1-9]"))
        page.page.keyboard.press("Enter")
    expect(button(page, "Record a sound")).to_be_focused()
    expect(previews(page)).to_have_count(1)


@pytest.mark.parametrize("stopped", [True, False])
def test_sending_takes_the_recording_along(page: Visit, backend: ScriptedBackend, stopped: bool) -> None:
    recorded(page)
    if stopped:
        button(page, "Stop recording").click()
        expect(button(page, "Attach the recording")).to_be_visible()
    page.composer.fill("Listen")
    page.composer.press("Enter")
    page.composer.press("Enter")  # a second time changes nothing
    page.finished()
    assert [part.type for part in media(backend)] == ["audio"]
    assert words(backend) == ["Listen"]
    seconds, loud = beeps(media(backend)[0])
    assert seconds > 1.5
    assert loud > 0.005
    expect(page.page.locator("#omni-composer .recording-overlay")).to_have_count(0)


@pytest.mark.parametrize("stopped", [True, False])
def test_a_discarded_recording_is_sent_nowhere(page: Visit, backend: ScriptedBackend, stopped: bool) -> None:
    uploads: list[str] = []
    page.page.on("request", lambda request: uploads.append(request.url) if "/upload" in request.url else None)
    recorded(page, 1)
    if stopped:
        button(page, "Stop recording").click()
        expect(button(page, "Attach the recording")).to_be_visible()
    button(page, "Discard the recording").click()
    expect(page.page.locator("#omni-composer .recording-overlay")).to_have_count(0)
    page.say("Nothing to hear")
    page.finished()
    page.say("Still nothing")
    page.finished(answers=2)
    assert media(backend) == []
    assert len(uploads) == stopped
    recorded(page, 1)  # the next one is wanted again
    page.send.click()
    page.finished(answers=3)
    assert [part.type for part in media(backend)] == ["audio"]


def test_the_microphone_is_asked_for_once(page: Visit) -> None:
    page.page.evaluate(GIVEN)
    button(page, "Record a sound").dblclick()
    expect(page.page.locator("#omni-composer .timestamp")).to_have_text(re.compile("0:0[1-9]"))
    button(page, "Stop recording").click()
    expect(button(page, "Attach the recording")).to_be_visible()
    assert page.page.evaluate("given.map((track) => track.readyState)") == ["ended"]


@pytest.mark.parametrize("name", ["Stop recording", "Discard the recording"])
def test_a_recorder_left_at_once_lets_the_microphone_go(page: Visit, backend: ScriptedBackend, name: str) -> None:
    page.page.evaluate(GIVEN)
    page.page.evaluate(
        """(name) => new MutationObserver((_, watch) => {
          const button = document.querySelector(`#omni-composer [aria-label="${name}"]`);
          if (button) watch.disconnect(), button.click();
        }).observe(document.querySelector("#omni-composer"), { childList: true, subtree: true, attributes: true })""",
        name,
    )
    button(page, "Record a sound").click()
    wait_until(lambda: page.page.evaluate("given.map((track) => track.readyState)") == ["ended"], "the end of it")
    expect(page.page.locator("#omni-composer .recording-overlay")).to_have_count(0)
    page.say("Hi")
    page.finished()
    assert media(backend) == []
    recorded(page, 1)
    page.send.click()
    page.finished(answers=2)
    assert [part.type for part in media(backend)] == ["audio"]
    wait_until(lambda: page.page.evaluate("given.map((track) => track.readyState)") == ["ended"] * 2, "the end of it")


@pytest.mark.parametrize(
    ("problem", "key"),
    [
        ("NotAllowedError", "composer.microphone_refused"),
        ("NotFoundError", "composer.microphone_none"),
        ("NotReadableError", "composer.microphone_busy"),
        (None, "composer.microphone_insecure"),
    ],
)
def test_a_microphone_that_cannot_be_used_says_why(app: App, visit: Open, problem: str | None, key: str) -> None:
    page = visit(app.url)
    page.page.evaluate(
        """(problem) => {
          const refuse = () => Promise.reject(new DOMException("", problem));
          const value = problem ? { getUserMedia: refuse, enumerateDevices: async () => [] } : undefined;
          Object.defineProperty(navigator, "mediaDevices", { value });
        }""",
        problem,
    )
    page.composer.fill("Hi")
    button(page, "Record a sound").click()
    expect(page.alert).to_have_text(phrase(key).text())
    expect(page.page.locator("#omni-composer .recording-overlay")).to_have_count(0)
    page.send.click()
    page.finished()
    expect(page.alert).to_have_count(0)
