"""Captions are reviewed in a real Chromium: changed, chosen, copied, looked through; nothing that is done gets lost."""

from __future__ import annotations

import re
import shutil
import threading
from pathlib import Path

import pytest
from playwright.sync_api import expect

from omni_backend import Capabilities, GenerationFailed, TextDelta, phrase
from omni_ui.captioner.server import CaptionApp
from tests.browser import EXAMPLES
from tests.caption_page import CaptionPage, Scribe, jobs_of, sounds
from tests.states import FOREVER
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

EDITED = phrase("captioner.edited").text()
RESTORE = phrase("captioner.restore").text()


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return Capabilities("scripted", "a script", audio_window_seconds=5)


@pytest.fixture
def kept(captioner: CaptionApp, jobs_dir: Path) -> Kept:
    return Kept(captioner, jobs_dir)


class Kept:
    """What the only job keeps on disk."""

    def __init__(self, app: CaptionApp, folder: Path) -> None:
        self._app = app
        self._folder = folder

    def texts(self, item: int = 1) -> list[str]:
        [job] = jobs_of(self._app, self._folder)
        return [segment.text for segment in job.store.segments(item)]

    def becomes(self, *texts: str) -> None:
        wait_until(lambda: self.texts() == list(texts), f"{texts} on disk")


def test_what_is_written_is_saved_by_itself_and_can_be_taken_back(
    captions: CaptionPage, scribe: Scribe, kept: Kept
) -> None:
    scribe.write("1-0", TextDelta("A dog."))
    captions.caption(EXAMPLES / "tone.wav")
    captions.reads("A dog.")
    captions.boxes.fill("A <b>large</b> dog.\n\nIt barks.")
    kept.becomes("A <b>large</b> dog.\n\nIt barks.")
    expect(captions.page.locator("#omni-heard")).to_have_text(phrase("jobs.saved").text())
    captions.visit.reload()
    captions.reads("A <b>large</b> dog.\n\nIt barks.")
    expect(captions.page.locator(".omni-open li")).to_contain_text(EDITED)
    captions.boxes.fill("\nHalf")
    captions.visit.reload()  # before it was saved by itself
    captions.reads("\nHalf")
    captions.button(RESTORE).press("Enter")
    captions.reads("A dog.")
    kept.becomes("A dog.")
    expect(captions.page.locator(".omni-open li")).not_to_contain_text(EDITED)
    assert captions.page.evaluate("document.activeElement !== document.body"), "the focus stays in the line"


def test_news_do_not_touch_what_is_being_written(captions: CaptionPage, scribe: Scribe) -> None:
    go = threading.Event()
    for window in range(1, 6):
        scribe.write(f"1-{window}", go, TextDelta("More."))
    captions.caption(EXAMPLES / "sounds.mp3")
    box = captions.page.get_by_role("textbox", name="Caption, 0:00.0")
    expect(box).to_have_value("ok")
    box.fill("One dog")
    box.evaluate("(box) => box.setSelectionRange(1, 3)")
    go.set()
    captions.reads("One dog", *["More."] * 5)  # all others are shown meanwhile
    expect(box).to_be_focused()
    assert box.evaluate("(box) => [box.selectionStart, box.selectionEnd]") == [1, 3]


def test_what_cannot_be_saved_is_kept_and_tried_again(captions: CaptionPage, scribe: Scribe, kept: Kept) -> None:
    scribe.write("1-0", TextDelta("A dog."))
    captions.caption(EXAMPLES / "tone.wav")
    captions.reads("A dog.")
    captions.page.route("**/edit?*", lambda route: route.abort())
    captions.boxes.fill("A cat.")
    captions.page.locator("h1").click()
    expect(captions.told).to_have_text(phrase("jobs.not_saved").text())
    expect(captions.told).to_be_in_viewport()
    captions.page.locator(".omni-exports summary").click()
    captions.reads("A cat.")
    assert kept.texts() == ["A dog."]
    captions.page.unroute("**/edit?*")
    kept.becomes("A cat.")
    expect(captions.told).to_be_hidden()
    # What the browser itself writes about an answer that did not come cannot be kept from its console.
    captions.visit.problems[:] = [line for line in captions.visit.problems if "ERR_FAILED" not in line]


def test_one_of_several_captions_is_chosen(captions: CaptionPage, scribe: Scribe, kept: Kept) -> None:
    captions.page.locator("#omni-settings").click()
    captions.page.get_by_role("spinbutton", name="Captions of each stretch").fill("3")
    captions.page.keyboard.press("Escape")
    for text in ("A dog.", "A cat.", "A cow."):
        scribe.write("1-0", TextDelta(text))
    captions.caption(EXAMPLES / "tone.wav")
    captions.reads("A dog.")
    choice = captions.page.get_by_role("group", name=phrase("captioner.samples_of", count=3).text())
    expect(choice.get_by_role("radio")).to_have_count(3)
    expect(choice.get_by_role("radio", name="A dog.")).to_be_checked()
    choice.get_by_text("A cow.").click()
    captions.reads("A cow.")
    kept.becomes("A cow.")
    captions.boxes.fill("A bull.")
    kept.becomes("A bull.")
    choice.get_by_role("radio", name="A cow.").focus()
    expect(choice.get_by_role("radio", name="A cow.")).not_to_be_checked()
    captions.page.keyboard.press("Space")
    captions.reads("A cow.")
    expect(choice.get_by_role("radio", name="A cow.")).to_be_focused()
    captions.page.keyboard.press("ArrowUp")
    captions.reads("A cat.")
    expect(choice.get_by_role("radio", name="A cat.")).to_be_focused()
    kept.becomes("A cat.")


def test_from_file_to_file_and_back_to_the_list(captions: CaptionPage, scribe: Scribe, tmp_path: Path) -> None:
    names = ["1.wav", "2.wav", "3.wav"]
    for number, name in enumerate(names, start=1):
        scribe.write(f"{number}-0", TextDelta(f"Caption of {name}"))
    captions.caption(*sounds(tmp_path, names))
    expect(captions.far).to_have_text("3 files captioned")
    title = captions.page.locator(".omni-open h2")
    captions.button("1.wav").press("Enter")
    expect(title).to_be_focused()
    expect(captions.button("Previous file")).to_be_disabled()
    for name in names[1:]:
        captions.button("Next file").click()
        expect(title).to_have_text(name)
        captions.reads(f"Caption of {name}")
        expect(captions.page.locator("tr.omni-chosen")).to_contain_text(name)
    expect(captions.button("Next file")).to_be_disabled()
    captions.button("Back to the list").click()
    expect(captions.button("3.wav")).to_be_focused()
    expect(captions.button("3.wav")).to_be_in_viewport()


def test_a_caption_is_copied(captions: CaptionPage, scribe: Scribe) -> None:
    captions.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    scribe.write("1-0", TextDelta('A "dog" & a cat.'))
    captions.caption(EXAMPLES / "tone.wav")
    captions.reads('A "dog" & a cat.')
    captions.button(phrase("turn.copy").text()).click()
    expect(captions.page.locator("#omni-heard")).to_have_text(phrase("page.copied").text())
    assert captions.page.evaluate("navigator.clipboard.readText()") == 'A "dog" & a cat.'


def test_many_files_are_looked_through_page_by_page(captions: CaptionPage, tmp_path: Path) -> None:
    sounds(tmp_path / "many", [f"{number:03}.wav" for number in range(120)])
    captions.caption(shutil.make_archive(str(tmp_path / "many"), "zip", tmp_path / "many"))
    expect(captions.far).to_have_text("120 files captioned", timeout=60_000)
    pager = captions.page.locator(".omni-pager")
    back, on = (pager.get_by_role("button", name=name) for name in ("Back", "Next"))
    expect(pager).to_contain_text("1 of 3")
    expect(back).to_be_disabled()
    expect(captions.rows).to_have_count(50)
    on.press("Enter")
    expect(captions.rows.first).to_contain_text("050.wav")
    expect(on).to_be_focused()
    captions.page.keyboard.press("Enter")
    expect(captions.rows).to_have_count(20)
    expect(captions.rows.last).to_contain_text("119.wav")
    expect(pager).to_contain_text("3 of 3")
    expect(on).to_be_disabled()
    expect(back).to_be_focused()
    captions.rows.last.get_by_role("button").click()
    captions.reads("ok")
    captions.button("Previous file").click()
    expect(captions.page.locator(".omni-open h2")).to_have_text(re.compile("118.wav"))


def test_what_is_pressed_is_not_taken_away_by_news(captions: CaptionPage, scribe: Scribe, tmp_path: Path) -> None:
    go = threading.Event()
    scribe.write("1-0", go, TextDelta("One."))
    scribe.write("2-0", FOREVER)
    captions.caption(*sounds(tmp_path, ["1.wav", "2.wav"]))
    expect(captions.row("1.wav")).to_contain_text(re.compile("Listening|%"))
    captions.button("1.wav").hover()
    captions.page.mouse.down()
    with captions.page.expect_response(lambda reply: reply.status == 200 and "One." in reply.text()):
        go.set()
    expect(captions.row("1.wav")).not_to_contain_text("Done")
    captions.page.mouse.up()
    captions.reads("One.")
    expect(captions.row("1.wav")).to_contain_text("Done")


def test_a_right_click_does_not_stop_the_news(captions: CaptionPage, scribe: Scribe, tmp_path: Path) -> None:
    go = threading.Event()
    scribe.write("1-0", go, TextDelta("One."))
    captions.caption(*sounds(tmp_path, ["1.wav", "2.wav"]))
    captions.button("1.wav").hover()
    captions.page.mouse.down(button="right")  # a menu may keep the end of it
    go.set()
    expect(captions.row("1.wav")).to_contain_text("Done")


def test_chosen_formats_outlive_news(captions: CaptionPage, scribe: Scribe, tmp_path: Path) -> None:
    go = threading.Event()
    scribe.write("2-0", go, TextDelta("Two."))
    captions.caption(*sounds(tmp_path, ["1.wav", "2.wav"]))
    captions.page.locator(".omni-exports summary").click()
    captions.page.get_by_label("SRT subtitles").uncheck()
    expect(captions.button("Download")).to_be_disabled()
    captions.page.get_by_label("CSV, one table").check()
    go.set()
    expect(captions.far).to_have_text("2 files captioned")
    expect(captions.button("Stop")).to_have_count(0)
    expect(captions.page.get_by_label("SRT subtitles")).not_to_be_checked()
    expect(captions.page.get_by_label("CSV, one table")).to_be_focused()
    with captions.page.expect_download() as download:
        captions.button("Download").click()
    assert download.value.suggested_filename == "captions.csv"
    expect(captions.button("Download")).to_be_hidden()
    expect(captions.page.locator(".omni-exports summary")).to_be_focused()
    captions.page.keyboard.press("Enter")
    expect(captions.button("Download")).to_be_visible()
    captions.page.keyboard.press("Escape")
    expect(captions.button("Download")).to_be_hidden()


def test_the_only_file_is_tried_again(captions: CaptionPage, scribe: Scribe) -> None:
    scribe.write("1-0", GenerationFailed(phrase("backend.failed")))
    captions.caption(EXAMPLES / "tone.wav")
    expect(captions.far).to_have_text(phrase("captioner.one_failed").text())
    captions.button("Try again").click()
    captions.reads("ok")
    expect(captions.far).to_have_text(phrase("captioner.one_done").text())


def test_what_failed_is_tried_again(captions: CaptionPage, scribe: Scribe, tmp_path: Path) -> None:
    for window in ("1-0", "2-0"):
        scribe.write(window, GenerationFailed(phrase("backend.failed")))
    captions.caption(*sounds(tmp_path, ["1.wav", "2.wav", "3.wav"]))
    expect(captions.far).to_have_text("1 file captioned · 2 failed")
    expect(captions.row("1.wav")).to_contain_text(phrase("backend.failed").text())
    scribe.write("1-0", TextDelta("A dog."))
    captions.button("Try again: 1.wav").press("Enter")
    expect(captions.row("1.wav")).to_contain_text("A dog.")
    expect(captions.button("1.wav")).to_be_focused()
    expect(captions.far).to_have_text("2 files captioned · 1 failed")
    captions.button("Try all failed again").press("Enter")
    expect(captions.far).to_have_text("3 files captioned")
    assert captions.page.evaluate("document.activeElement.closest('.omni-controls') !== null")
