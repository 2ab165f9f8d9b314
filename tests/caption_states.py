"""The states of the caption page that people meet, each driven over a scripted engine, for tests of all of them."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from playwright.sync_api import expect

from omni_backend import GenerationFailed, TextDelta, phrase
from tests.browser import EXAMPLES
from tests.caption_page import CaptionPage, Scribe, sounds
from tests.composer import Gate
from tests.states import FOREVER

LONG: Final = "A large dog barks beside a road, <b>cars</b> pass by, and far away somebody laughs. " * 4

DriveCaptions = Callable[[CaptionPage, Scribe], None]


def empty(page: CaptionPage, scribe: Scribe) -> None:
    """Before anything is given, with the examples."""
    page.page.locator("#omni-examples button").first.wait_for()


def nothing(page: CaptionPage, scribe: Scribe) -> None:
    """Captions were wanted of nothing."""
    page.start()
    page.page.locator("#omni-error .omni-error").wait_for()


def given(page: CaptionPage, scribe: Scribe) -> None:
    """Files wait for the job, and a sound is being recorded."""
    page.give(EXAMPLES / "tone.wav", EXAMPLES / "film.mp4")
    page.page.locator("#omni-record").click()
    expect(page.page.get_by_role("timer")).to_have_text(re.compile("0:0[1-9]"))


def uploading(page: CaptionPage, scribe: Scribe) -> None:
    """One file is on its way, the other is not; captions are wanted of both."""
    page.give(EXAMPLES / "tone.wav")
    gate = Gate(page.visit)
    page.page.locator("#omni-files input[type=file]").set_input_files([EXAMPLES / "film.mp4"])
    gate.next()
    page.start()
    expect(page.page.locator(".omni-uploading [role=status]")).not_to_have_text("")


def running(page: CaptionPage, scribe: Scribe) -> None:
    """Many files: one done, one failed, one half done, others waiting."""
    scribe.write("1-0", TextDelta(LONG))
    scribe.write("2-0", GenerationFailed(phrase("backend.failed")))
    for window in ("3-1", "3-2"):
        scribe.write(window, TextDelta(LONG), FOREVER)
    _four(page)
    expect(page.row("sounds.mp3")).to_contain_text("%")


def stopped(page: CaptionPage, scribe: Scribe) -> None:
    """The same, stopped, with the formats to choose from."""
    running(page, scribe)
    page.page.locator('[data-do="stop"]').click()
    page.page.locator('[data-do="resume"]').wait_for()
    page.page.locator(".omni-exports summary").click()


def opened(page: CaptionPage, scribe: Scribe) -> None:
    """One of many files is open while its captions are written."""
    running(page, scribe)
    page.row("sounds.mp3").get_by_role("button").click()
    page.boxes.first.wait_for()
    page.writing.first.wait_for()


def written(page: CaptionPage, scribe: Scribe) -> None:
    """One film, three captions to choose from, one changed and not saved; a job before it."""
    page.caption(*sounds(Path(tempfile.mkdtemp()), ["rain.wav"]))
    page.ended()
    page.page.locator("#omni-settings").click()
    page.page.locator("#omni-panel input[type=number]").nth(2).fill("3")
    page.page.keyboard.press("Escape")
    for _ in range(3):
        scribe.write("1-0", TextDelta(LONG))
    page.caption(EXAMPLES / "film.mp4")
    expect(page.boxes).to_have_value(LONG.strip())
    page.boxes.fill("A cat.")
    page.page.locator("h1").click()
    page.page.locator('[data-do="restore"]').wait_for()
    page.page.route("**/edit?*", lambda route: route.fulfill(status=500))
    page.boxes.fill("A cow.")
    page.told.wait_for()
    page.earlier.wait_for()


def failed(page: CaptionPage, scribe: Scribe) -> None:
    """One file that is none."""
    folder = Path(tempfile.mkdtemp())
    (folder / "a long name of a file that is none.wav").write_text("words")
    page.caption(*folder.iterdir())
    page.ended()


def paged(page: CaptionPage, scribe: Scribe) -> None:
    """More files than the table shows at a time."""
    folder = Path(tempfile.mkdtemp())
    sounds(folder / "many", [f"{number:02}.wav" for number in range(51)])
    page.caption(shutil.make_archive(str(folder / "many"), "zip", folder / "many"))
    page.page.locator(".omni-pager button").first.wait_for()
    page.ended()


def asking(page: CaptionPage, scribe: Scribe) -> None:
    """Whether a job is to be deleted is asked."""
    page.caption(EXAMPLES / "tone.wav")
    page.ended()
    page.page.locator('[data-do="delete"]').click()
    page.page.get_by_role("dialog").wait_for()


def settings(page: CaptionPage, scribe: Scribe) -> None:
    """The panel is open, with all that unfolds in it."""
    page.page.locator("#omni-settings").click()
    page.page.locator("#omni-panel.open").wait_for()
    page.page.locator("#omni-sampling > button").click()
    expect(page.page.locator("#omni-sampling input[type=range]").first).to_be_visible()


def _four(page: CaptionPage) -> None:
    folder = Path(tempfile.mkdtemp())
    names = ["rain on a roof/1.wav", "rain on a roof/a_very_long_name_without_any_space_in_it_that_has_to_wrap.wav"]
    sounds(folder, names)
    page.give(*[folder / name for name in names], EXAMPLES / "sounds.mp3", EXAMPLES / "tone.wav")
    page.start()
    expect(page.rows).to_have_count(4)


CAPTION_STATES: Final[dict[str, DriveCaptions]] = {
    drive.__name__: drive
    for drive in (empty, nothing, given, uploading, running, stopped, opened, written, failed, paged, asking, settings)
}
