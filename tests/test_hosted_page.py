"""The page where others host it: in a frame of another site, as on Hugging Face, and behind a proxy's prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest
from playwright.sync_api import Frame, expect

from omni_backend import AudioDelta, Capabilities, ScriptedBackend, TextDelta
from omni_ui.server import App
from tests.browser import EXAMPLES, Visit
from tests.ear import Ear
from tests.proxy import proxied
from tests.serving import serving
from tests.waiting import wait_until

PREFIX = "/some/path"
PIECES = 12
SOUND = (0.3 * np.sin(2 * np.pi * 440 * np.arange(6000) / 24_000)).astype(np.float32)


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return Capabilities("scripted", "a script", outputs=frozenset({"text", "audio"}), voices=("ethan",))


def speak(backend: ScriptedBackend) -> None:
    """The next answer is 12 words and 3 s of a tone."""
    backend.enqueue(
        *[step for n in range(PIECES) for step in (TextDelta(f"word{n} "), AudioDelta(SOUND, 24_000), 0.05)]
    )


def hears_it_all(ear: Ear) -> None:
    """Waits for the whole tone and compares every sample."""
    spoken = np.trim_zeros(np.tile(SOUND, PIECES))
    wait_until(lambda: ear.heard().size >= spoken.size, "the end of the sound")
    assert ear.heard().size == spoken.size
    assert np.abs(ear.heard() - spoken).max() < 1e-4


@pytest.fixture
def app(backend: ScriptedBackend) -> Iterator[App]:
    with serving(backend) as app:
        yield app


@pytest.fixture
def prefixed(backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the app behind a proxy."""
    monkeypatch.setenv("GRADIO_ROOT_PATH", PREFIX)
    with serving(backend) as app, proxied(app.url.removesuffix("/").removesuffix(PREFIX), PREFIX) as url:
        yield url


@pytest.mark.browser
def test_in_a_frame_of_another_site_it_answers_and_is_heard(
    app: App, framed: Callable[[str], Frame], backend: ScriptedBackend
) -> None:
    frame = framed(app.url)
    speak(backend)
    ear = Ear(frame)
    composer = frame.get_by_role("textbox", name="Message")
    composer.fill("Speak")
    composer.press("Enter")
    hears_it_all(ear)
    expect(frame.locator("#omni-history .bot-row")).to_contain_text("word11")
    tracks = frame.evaluate("""async () => {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
      return stream.getTracks().map((track) => track.kind).sort();
    }""")
    assert tracks == ["audio", "video"]


@pytest.mark.browser
def test_behind_a_prefix_it_answers_and_is_heard(
    prefixed: str, visit: Callable[..., Visit], backend: ScriptedBackend
) -> None:
    page = visit(prefixed)
    page.attach(EXAMPLES / "tone.wav")
    speak(backend)
    ear = Ear(page.page)
    page.say("Speak")
    hears_it_all(ear)
    page.finished()
    assert backend.requests[-1].messages[-1].content[0].label == "tone.wav"  # type: ignore[union-attr]
    expect(page.history.locator(".bot-row")).to_contain_text("word11")
    media = page.page.evaluate("""() => [...document.querySelectorAll("[src], a[download]")]
      .map((element) => element.src || element.href)
      .filter((url) => url.startsWith("http"))""")
    assert all(link.startswith(prefixed) for link in media)
    assert sum("/file=" in link for link in media) >= 1


def test_the_address_that_a_proxy_was_asked_for_is_the_pages_own(app: App) -> None:
    """Hugging Face's proxy speaks HTTPS, and the app behind it HTTP."""
    asked = {"x-forwarded-host": "someone-omni.hf.space", "x-forwarded-proto": "https"}
    assert httpx.get(f"{app.url}config", headers=asked).json()["root"] == "https://someone-omni.hf.space"
