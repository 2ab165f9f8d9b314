"""Jobs on the caption page over a scripted engine: captions grow, stop, go on; pages and servers come and go."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from omni_backend import Capabilities, GenerationFailed, ScriptedBackend, TextDelta, phrase
from omni_ui.captioner.server import CaptionApp
from tests.browser import EXAMPLES, Visit
from tests.caption_page import CaptionPage, Scribe, jobs_of, sounds
from tests.serving import captioning, free_port
from tests.states import FOREVER, Stuck
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

WINDOWS = 6
"""Of sounds.mp3, 5 s each at most."""


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return Capabilities("scripted", "a script", audio_window_seconds=5)


def begin(page: CaptionPage, scribe: Scribe) -> None:
    """A job of which two windows are done, the third is being written and three wait."""
    go = threading.Event()
    scribe.write("1-0", go, TextDelta("One."))
    scribe.write("1-1", TextDelta("Two."))
    for window in ("1-2", "1-3"):
        scribe.write(window, TextDelta("Thr"), FOREVER)
    page.caption(EXAMPLES / "sounds.mp3")
    wait_until(lambda: len(scribe.requests) == 2, "the second window in line")
    go.set()
    page.reads("One.", "Two.")
    expect(page.writing.filter(has_text="Thr")).to_have_count(1)
    wait_until(lambda: len(scribe.requests) == 4, "the window that waits for its turn")


def went_on(page: CaptionPage, scribe: Scribe) -> None:
    """The job has ended, and what was done was not done again."""
    page.reads("One.", "Two.", *["ok"] * (WINDOWS - 2))
    expect(page.far).to_have_text("Captioned.")
    assert scribe.asked == {"1-0": 1, "1-1": 1, "1-2": 2, "1-3": 2, "1-4": 1, "1-5": 1}


def test_a_caption_is_seen_while_it_is_written(captions: CaptionPage, scribe: Scribe) -> None:
    go = threading.Event()
    scribe.write("1-0", TextDelta("A dog "), go, TextDelta("<b>barks</b>."), FOREVER)
    captions.caption(EXAMPLES / "tone.wav")
    expect(captions.far).to_have_text(phrase("captioner.listening").text())
    expect(captions.writing).to_have_text("A dog ", use_inner_text=True)
    go.set()
    expect(captions.writing).to_have_text("A dog <b>barks</b>.")
    expect(captions.page.get_by_role("progressbar", name="Progress")).to_be_visible()
    expect(captions.boxes).to_have_count(0)


def test_stop_frees_the_engine_and_resume_goes_on(captions: CaptionPage, scribe: Scribe) -> None:
    begin(captions, scribe)
    expect(captions.far).to_have_text(re.compile(r"^Listening … · about \d+:\d\d left$"))
    cancelled = scribe.cancelled
    captions.button("Stop").click()
    expect(captions.far).to_have_text("Stopped")
    expect(captions.writing).to_have_count(0)
    assert scribe.cancelled > cancelled
    assert scribe.active_requests == 0
    captions.reads("One.", "Two.")
    captions.button("Resume").click()
    went_on(captions, scribe)


def test_a_job_goes_on_without_a_page(captions: CaptionPage, scribe: Scribe) -> None:
    go = threading.Event()
    scribe.write("1-0", TextDelta("A dog "), go, TextDelta("barks."))
    captions.caption(EXAMPLES / "tone.wav")
    expect(captions.writing).to_have_text(re.compile("A dog"))
    other = captions.page.context.new_page()
    captions.page.close()
    go.set()
    other.goto(captions.visit.url)
    page = CaptionPage(Visit(other, captions.visit.url))
    page.reads("A dog barks.")
    expect(page.far).to_have_text("Captioned.")


def test_an_open_page_outlives_a_restart_of_the_server(
    visit: Callable[..., Visit], scribe: Scribe, tmp_path: Path
) -> None:
    port = free_port()
    with captioning(scribe, tmp_path, port=port) as app:
        page = CaptionPage(visit(app.url))
        begin(page, scribe)
    expect(page.told).to_have_text(phrase("jobs.lost").text())
    expect(page.boxes.first).to_have_value("One.")
    with captioning(scribe, tmp_path, port=port):
        went_on(page, scribe)
        expect(page.told).to_be_hidden()
        page.visit.forgive(503)  # while the server ends; after that the browser itself writes that it is not there
        page.visit.problems[:] = [line for line in page.visit.problems if "ERR_CONNECTION" not in line]
        page.page.close()


def test_jobs_before_are_listed_opened_and_deleted(
    captions: CaptionPage, captioner: CaptionApp, jobs_dir: Path, scribe: Scribe, tmp_path: Path
) -> None:
    for text, name in (("A dog.", "dog.wav"), ("A cat.", "cat.wav")):
        scribe.write("1-0", TextDelta(text))
        captions.caption(*sounds(tmp_path, [name]))
        captions.reads(text)
        expect(captions.given).to_have_count(0)
    captions.caption(*sounds(tmp_path, ["cow.wav", "sheep.wav"]))
    expect(captions.far).to_have_text("2 files captioned")
    expect(captions.earlier).to_have_text([re.compile("^cat.wav .*20"), re.compile("^dog.wav .*20")])
    captions.earlier.nth(1).click()
    captions.reads("A dog.")
    expect(captions.page.locator(".omni-board")).to_be_focused()
    expect(captions.earlier.first).to_have_text(re.compile("^cow.wav and 1 more .*20"))

    question = captions.page.get_by_role("dialog", name=phrase("jobs.confirm_delete").text())
    captions.button("Delete").click()
    question.get_by_role("button", name="Cancel").click()
    expect(question).to_have_count(0)
    captions.reads("A dog.")
    captions.button("Delete").click()
    question.get_by_role("button", name="Delete").click()
    expect(captions.far).to_have_count(0)
    expect(captions.earlier).to_have_count(2)
    assert len(jobs_of(captioner, jobs_dir)) == 2
    captions.visit.reload()
    expect(captions.far).to_have_text("2 files captioned")
    expect(captions.earlier).to_have_text([re.compile("^cat.wav")])


def test_a_job_that_is_gone_is_said_and_forgotten(captions: CaptionPage, captioner: CaptionApp, jobs_dir: Path) -> None:
    captions.caption(EXAMPLES / "tone.wav")
    captions.reads("ok")
    for job in jobs_of(captioner, jobs_dir):
        captioner.desk.delete(job)
    captions.visit.reload()
    expect(captions.told).to_have_text(phrase("captioner.gone").text())
    expect(captions.far).to_have_count(0)
    captions.visit.reload()
    captions.page.locator(".omni-ready").wait_for()
    expect(captions.told).to_be_hidden()
    captions.visit.forgive(404)


def test_what_is_given_before_the_engine_is_there_begins_by_itself(visit: Callable[..., Visit], tmp_path: Path) -> None:
    backend = Stuck(capabilities=Capabilities("scripted", "a script"))
    backend.loaded = threading.Event()
    with captioning(backend, tmp_path) as app:
        page = CaptionPage(visit(app.url, wait=False))
        page.page.get_by_role("progressbar").wait_for()
        page.caption(EXAMPLES / "tone.wav", EXAMPLES / "word.wav")
        expect(page.page.get_by_role("radio", name="中文")).to_be_disabled()
        expect(page.far).to_have_text("Begins as soon as the model is loaded · 0 of 2 files")
        backend.loaded.set()
        expect(page.far).to_have_text("2 files captioned")
        expect(page.page.get_by_role("radio", name="中文")).to_be_enabled()
        page.page.close()
    backend.close()


def test_an_engine_that_cannot_be_loaded_is_said(visit: Callable[..., Visit], tmp_path: Path) -> None:
    backend = ScriptedBackend(load=[GenerationFailed(phrase("backend.load_failed"), detail="no such file: a/b")])
    with captioning(backend, tmp_path) as app:
        page = CaptionPage(visit(app.url, wait=False))
        page.page.locator("#omni-status [role=alert]").wait_for()
        page.caption(EXAMPLES / "tone.wav")
        expect(page.page.locator(".omni-summary [role=alert]")).to_contain_text(phrase("backend.load_failed").text())
        expect(page.far).to_have_text("Stopped")
        expect(page.button("Resume")).to_be_visible()
        page.page.close()
    backend.close()


def test_another_language_keeps_the_job(captions: CaptionPage, scribe: Scribe) -> None:
    begin(captions, scribe)
    captions.page.locator("#omni-languages a:visible").click()
    captions.page.locator("html:lang(zh) .omni-ready").wait_for()
    captions.reads("One.", "Two.")
    expect(captions.writing.filter(has_text="Thr")).to_have_count(1)
    expect(captions.far).to_contain_text(phrase("captioner.listening").text("zh"))
    captions.button("停止").click()
    expect(captions.far).to_have_text(phrase("captioner.stopped").text("zh"))


def test_two_pages_show_the_same_job(captions: CaptionPage, scribe: Scribe) -> None:
    begin(captions, scribe)
    other = CaptionPage(Visit(captions.page.context.new_page(), captions.visit.url))
    other.page.goto(captions.visit.url)
    other.reads("One.", "Two.")
    other.button("Stop").click()
    expect(captions.far).to_have_text("Stopped")
    wait_until(lambda: scribe.active_requests == 0, "an idle engine")
