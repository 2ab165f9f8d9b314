"""The caption page by keyboard alone: all that a pointer can do, in the order of the screen, the focus always seen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from omni_backend import Capabilities, GenerationFailed, TextDelta, phrase
from tests.caption_page import CaptionPage, OpenCaptions, Scribe, sounds
from tests.caption_states import CAPTION_STATES
from tests.keys import Keys, in_order
from tests.states import FOREVER

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return Capabilities("scripted", "a script", audio_window_seconds=5)


@pytest.fixture(scope="module")
def embedded() -> bool:
    return True


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["wide", "phone"])
def page(open_captions: OpenCaptions, request: pytest.FixtureRequest) -> CaptionPage:
    width, scheme = request.param
    return open_captions(viewport={"width": width, "height": 780}, color_scheme=scheme, reduced_motion="reduce")


def test_from_files_to_exports(page: CaptionPage, scribe: Scribe, tmp_path: Path) -> None:
    keys = Keys(page.page)
    page.page.on("filechooser", lambda _: None)  # else the browser is told too late that there is nobody to choose
    files = sounds(tmp_path, ["1.wav", "2.wav", "3.wav"], seconds=7)
    keys.to("#omni-files .upload-container")
    with page.page.expect_file_chooser() as chooser:
        keys.press("Enter")
    chooser.value.set_files(files[:2])
    expect(page.given).to_have_count(2)
    assert keys.on("#omni-start")
    keys.back_to("#omni-more")
    with page.page.expect_file_chooser() as chooser:
        keys.press("Space")
    chooser.value.set_files(files[2:])
    expect(page.given).to_have_count(3)
    keys.to("#omni-caption-language input")
    keys.press("ArrowRight")
    keys.to("#omni-start")

    scribe.write("1-0", TextDelta("A dog."))
    scribe.write("2-0", GenerationFailed(phrase("backend.failed")))
    for window in ("3-0", "3-1"):
        scribe.write(window, FOREVER)
    keys.press("Enter")
    expect(page.far).to_have_text(re.compile("^2 of 3 files · 1 failed"))
    keys.to('[data-do="stop"]')
    keys.press("Space")
    expect(page.far).to_have_text("Stopped · 2 of 3 files · 1 failed")
    assert keys.on('[data-do="resume"]')
    keys.focus()
    keys.press("Enter")
    expect(page.far).to_have_text("2 files captioned · 1 failed")
    keys.focus()
    keys.to('tbody [data-do="retry"]')
    keys.press("Enter")
    expect(page.far).to_have_text("3 files captioned")
    assert keys.on('[data-do="open"][data-item="2"]')
    keys.focus()

    keys.back_to('[data-do="open"][data-item="1"]')
    keys.press("Enter")
    expect(page.page.locator(".omni-open h2")).to_be_focused()
    keys.focus()
    keys.to(".omni-open [data-do=seek]")
    keys.to('[data-do="seek"][data-start]:not([data-start="0.000"])')
    keys.press("Enter")
    assert page.time() > 1
    keys.back_to(".omni-open textarea")
    keys.press("Control+A")
    page.page.keyboard.type("A cat.")
    keys.to("[data-omni=copy]")
    expect(page.page.locator("#omni-heard")).to_have_text(phrase("jobs.saved").text())
    page.page.locator('[data-do="restore"]').wait_for()
    keys.press("Enter")
    expect(page.page.locator("#omni-heard")).to_have_text(phrase("page.copied").text())
    keys.back_to('[data-do="restore"]')
    keys.press("Enter")
    expect(page.boxes.first).to_have_value("A dog.")
    keys.focus()
    keys.back_to('.omni-steps [data-do="open"]:enabled')
    keys.press("Enter")
    expect(page.page.locator(".omni-open h2")).to_have_text("2.wav")
    keys.to('[data-do="table"]')
    keys.press("Enter")
    expect(page.button("2.wav")).to_be_focused()
    keys.focus()

    keys.back_to(".omni-exports summary")
    keys.press("Enter")
    keys.to(".omni-exports input[value=csv]")
    keys.press("Space")
    keys.to(".omni-exports button")
    with page.page.expect_download() as download:
        keys.press("Enter")
    assert download.value.suggested_filename == "captions.zip"
    keys.focus()
    keys.to('[data-do="delete"]')
    keys.press("Enter")
    keys.press("Escape")
    keys.focus()
    assert keys.on('[data-do="delete"]')
    keys.press("Enter")
    keys.to('#omni-ask [value="yes"]')
    keys.press("Enter")
    expect(page.far).to_have_count(0)
    assert keys.on("#omni-start")
    keys.focus()


def test_the_settings_and_an_earlier_job(page: CaptionPage, scribe: Scribe) -> None:
    keys = Keys(page.page)
    keys.to("#omni-settings")
    keys.press("Enter")
    expect(page.page.locator("#omni-panel .toggle-button")).to_be_focused()
    keys.to("#omni-panel textarea")
    page.page.keyboard.type(" And what else?")
    keys.to("#omni-panel input[type=range]")
    keys.press("ArrowRight")
    keys.press("Escape")
    expect(page.page.locator("#omni-settings")).to_be_focused()
    keys.to("#omni-examples button")
    keys.press("Enter")
    page.reads("ok")
    assert scribe.requests[-1].messages[-1].text == "What do you hear? And what else?"
    keys.to("#omni-examples button")
    keys.press("Enter")
    expect(page.earlier).to_have_count(1)
    keys.to("#omni-earlier button")
    keys.press("Enter")
    expect(page.page.locator(".omni-board")).to_be_focused()
    keys.focus()


@pytest.mark.parametrize("state", ["given", "opened", "written"])
def test_the_order_is_that_of_the_screen(page: CaptionPage, scribe: Scribe, state: str) -> None:
    CAPTION_STATES[state](page, scribe)
    in_order(Keys(page.page))
    page.visit.forgive(500)
