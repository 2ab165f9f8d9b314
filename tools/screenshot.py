"""Makes the README's pictures: python -m tools.screenshot

Starts the pages on the embedded checkpoint and uses them in Chromium as visitors would: the chat on a desktop, in the
dark with the settings open, and on a phone in Chinese; the captioner on a desktop.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, Page, sync_playwright

from tools.running_app import running_app

ASSETS: Final = Path(__file__).parent.parent / "assets"
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
PATIENCE_MS: Final = 60_000


def show_settings(page: Page) -> None:
    """Opens the side panel and waits until it has slid in."""
    page.locator("#omni-settings").click()
    page.locator("#omni-panel.open").wait_for()
    page.wait_for_function("document.getAnimations().every((moving) => moving.playState !== 'running')")


def leave_as_it_is(page: Page) -> None:
    """For a page that needs no more."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One file: how its page is opened, what is said there, what is done at the end."""

    file: str
    width: int
    height: int
    questions: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    finish: Callable[[Page], None] = leave_as_it_is


PICTURES: Final = (
    Picture("screenshot.png", 1100, 860, ("circle.png · sweep.wav",), {"locale": "en-US"}),
    Picture(
        *("screenshot-dark.png", 1280, 960, ("star.png", "What color is the background?")),
        {"locale": "en-US", "color_scheme": "dark"},
        show_settings,
    ),
    Picture(
        *("screenshot-phone.png", 390, 844, ("star.png",)),
        {"locale": "zh-CN", "is_mobile": True, "has_touch": True, "device_scale_factor": 2},
    ),
)


def main() -> None:
    """Takes all pictures."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as jobs:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        with running_app() as url:
            for picture in PICTURES:
                take(picture, browser, url)
        with running_app("--jobs-dir", jobs, program="app_captioner.py") as url:
            take_captions(browser, url)
        browser.close()


def take_captions(browser: Browser, url: str) -> None:
    """Half a minute of sounds with its captions; the last one is being played."""
    context = browser.new_context(viewport={"width": 1100, "height": 1020}, locale="en-US")
    page = context.new_page()
    page.goto(url)
    page.locator(".omni-ready").wait_for(timeout=PATIENCE_MS)
    page.locator("#omni-examples button", has_text="· sounds.mp3").click()
    page.locator("#omni-job textarea").nth(5).wait_for(timeout=PATIENCE_MS)
    page.locator(".omni-time").nth(2).click()
    page.locator(".omni-now").wait_for()
    page.evaluate("document.querySelector('#omni-job audio').pause(); document.activeElement.blur()")
    page.mouse.move(0, 0)
    page.locator("#omni-job").evaluate("(job) => job.scrollIntoView()")
    page.screenshot(path=ASSETS / "screenshot-captions.png")
    context.close()


def take(picture: Picture, browser: Browser, url: str) -> None:
    """Opens the page, has the conversation, and writes the file."""
    context = browser.new_context(viewport={"width": picture.width, "height": picture.height}, **picture.options)
    page = context.new_page()
    page.goto(url)
    page.locator(".omni-ready").wait_for(timeout=PATIENCE_MS)
    example, *more = picture.questions
    page.locator("#omni-examples button", has_text=f"· {example}").first.click()
    answered(page, 1)
    for number, question in enumerate(more, start=2):
        page.locator("#omni-composer textarea").fill(question)
        page.locator("#omni-composer textarea").press("Enter")
        answered(page, number)
    picture.finish(page)
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    page.screenshot(path=ASSETS / picture.file)
    context.close()


def answered(page: Page, number: int) -> None:
    """Waits for answer `number`, whole, and until its sound has died away."""
    page.locator("#omni-history .bot-row").nth(number - 1).wait_for(timeout=PATIENCE_MS)
    page.locator("#omni-composer .submit-button").wait_for()
    page.locator("#omni-history audio").nth(number - 1).wait_for(state="attached", timeout=PATIENCE_MS)
    page.wait_for_function("omniPlayer.state === 'idle'", timeout=PATIENCE_MS)


if __name__ == "__main__":
    main()
