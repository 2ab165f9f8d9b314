"""Makes the README's picture: python -m tools.screenshot

Starts the app on the embedded checkpoint and uses it in Chromium as a visitor would.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from playwright.sync_api import Page, sync_playwright

from tools.running_app import running_app

TARGET: Final = Path(__file__).parent.parent / "assets" / "screenshot.png"
SIZE: Final = {"width": 1000, "height": 780}
FLAGS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


def main() -> None:
    """Takes the picture."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    with running_app() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport=SIZE, locale="en-US")  # type: ignore[arg-type]
        page.goto(url)
        page.locator(".omni-ready").wait_for(timeout=60_000)
        ask_an_example(page, "square.png")
        page.screenshot(path=TARGET, full_page=True)
        browser.close()


def ask_an_example(page: Page, file: str) -> None:
    """Sends the example message that has `file` and waits for the whole answer."""
    page.locator("#omni-examples button", has_text=file).click()
    page.locator("#omni-composer textarea").press("Enter")
    page.locator(".omni-metrics").wait_for(timeout=60_000)
    page.locator("#omni-history audio, #omni-history .waveform-container").last.wait_for(state="attached")
    page.locator("#omni-composer").scroll_into_view_if_needed()


if __name__ == "__main__":
    main()
