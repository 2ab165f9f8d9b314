"""A real Chromium for tests: one for the whole session, a clean context for each page, and an ear in the page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

FLAGS: Final = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WIDE: Final = {"width": 1280, "height": 800}
PHONE: Final = {"width": 390, "height": 844}

# Records every sample that the player puts out, from the first that is not 0 on; a worklet of its own, so that
# nothing of the player is trusted.
_EAR: Final = """
async () => {
  const source = `registerProcessor("ear", class extends AudioWorkletProcessor {
    process([[samples]]) { if (samples) this.port.postMessage(samples.slice()); return true; }
  })`;
  const player = window.omniPlayer;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  await player.context.audioWorklet.addModule(url);
  const ear = new AudioWorkletNode(player.context, "ear");
  window.heard = [];
  ear.port.onmessage = ({ data }) => window.heard.push(data);
  player.output.connect(ear);
  ear.connect(player.context.destination);
}
"""
_HEARD: Final = """
() => {
  const whole = new Float32Array(window.heard.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of window.heard) { whole.set(piece, at); at += piece.length; }
  const bytes = new Uint8Array(whole.buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
}
"""


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """One Chromium for the session."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def open_page(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """The page at `url`, ready to be used, in a context of its own. Fails when its console saw an error."""
    errors: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error":
            errors.append(message.text)

    with browser.new_context(**({"viewport": WIDE, "locale": "en-US"} | context)) as opened:
        page = opened.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.locator(".omni-ready").wait_for(timeout=60_000)
        yield page
    assert not errors


@contextmanager
def listening(page: Page) -> Iterator[Callable[[], NDArray[np.float32]]]:
    """Hears what the page plays: the samples so far, 24 kHz, silence before and after cut off."""
    page.locator("#omni-title").click()  # a page may sound only after a gesture
    page.wait_for_function("window.omniPlayer.output !== null")
    page.evaluate(_EAR)

    def heard() -> NDArray[np.float32]:
        samples = np.frombuffer(base64.b64decode(page.evaluate(_HEARD)), "<f4")
        return np.trim_zeros(samples)

    yield heard
