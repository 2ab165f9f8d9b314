"""Captions in a real Chromium from the real engine: one click, a film, a recording, a batch with bad files, exports."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pysubs2
import pytest
from playwright.sync_api import expect

from omni_backend import Backend, Language, phrase
from omni_backend.caption.exports import FORMATS
from omni_ui.captioner.server import CaptionApp
from tests.browser import EXAMPLES, Visit
from tests.caption_page import CaptionPage
from tests.serving import captioning
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.engine]

OFFERS: list[dict[str, Any]] = json.loads((EXAMPLES / "captions.json").read_text(encoding="utf-8"))
HALF_A_MINUTE = next(offer for offer in OFFERS if offer["files"] == ["sounds.mp3"])
SAID = {"tone": "A high tone.", "word": "Someone says music.", "sweep": "A rising sweep.", "film": "A high tone."}


@pytest.fixture(scope="module")
def app(engine: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaptionApp]:
    with captioning(engine, tmp_path_factory.mktemp("jobs"), embedded=True) as app:
        yield app


@pytest.fixture
def page(app: CaptionApp, visit: Callable[..., Visit]) -> CaptionPage:
    return CaptionPage(visit(app.url))


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty sounds and films in folders, three of them bad, and a file that is none."""
    folder = tmp_path_factory.mktemp("given") / "batch"
    (folder / "rain").mkdir(parents=True)
    for number in range(16):
        kind = ("tone", "word", "sweep")[number % 3]
        shutil.copy(EXAMPLES / f"{kind}.wav", folder / ("rain" if number % 2 else ".") / f"{kind}-{number:02}.wav")
    shutil.copy(EXAMPLES / "film.mp4", folder)
    (folder / "text.wav").write_text("These are only words.\n" * 100)
    (folder / "empty.wav").touch()
    shutil.copy(EXAMPLES / "star.png", folder / "picture.mp3")
    (folder / "notes.txt").write_text("They are left out.")
    return folder


def offer(page: CaptionPage, files: list[str], language: Language = "en") -> None:
    """Clicks on an example."""
    title = next(offer["text"][language] for offer in OFFERS if offer["files"] == files)
    page.page.locator("#omni-examples").get_by_role("button", name=title).click()


def test_one_click_gives_captions_with_times_that_seek(page: CaptionPage) -> None:
    offer(page, ["sounds.mp3"])
    page.reads(*HALF_A_MINUTE["answer"]["en"])
    expect(page.far).to_have_text(phrase("captioner.one_done").text())
    times = page.page.locator(".omni-time")
    spans = [tuple(time.split(" – ")) for time in times.all_inner_texts()]
    assert [start for start, _ in spans[1:]] == [end for _, end in spans[:-1]], "no gap, no overlap"
    assert spans[0][0] == "0:00.0"
    starts = [float(time.get_attribute("data-start") or "") for time in times.all()]
    assert starts == sorted(set(starts))

    times.nth(3).click()
    assert starts[3] <= page.time() < starts[3] + 2
    expect(page.page.locator(".omni-open li").nth(3)).to_have_class(re.compile("omni-now"))
    wave = page.page.locator(".omni-wave svg")
    box = wave.bounding_box()
    assert box is not None
    wave.click(position={"x": box["width"] / 2, "y": box["height"] / 2})
    half = float(wave.get_attribute("data-seconds") or "") / 2
    assert half - 0.2 <= page.time() < half + 2
    wait_until(lambda: page.time() > half + 0.1, "the player, which plays from there")


def test_chinese_by_the_page_and_by_the_choice(app: CaptionApp, visit: Callable[..., Visit]) -> None:
    page = CaptionPage(visit(app.url, locale="zh-CN"))
    offer(page, ["sounds.mp3"], "zh")
    page.reads(*HALF_A_MINUTE["answer"]["zh"])
    page = CaptionPage(visit(app.url))
    page.page.get_by_role("radio", name="中文").check()
    page.caption(EXAMPLES / "tone.wav")
    page.reads("高音。")
    expect(page.far).to_have_text("Captioned.")


def test_a_film_is_shown_and_its_sound_captioned(page: CaptionPage) -> None:
    offer(page, ["sweep.wav", "tone.wav", "word.wav", "film.mp4"])
    expect(page.far).to_have_text("4 files captioned")
    page.button("film.mp4").click()
    page.reads("A high tone.")
    film = page.page.locator(".omni-player video")
    wait_until(lambda: film.evaluate("(film) => film.readyState >= 2 && film.videoWidth > 0"), "the picture")
    page.button("Previous file").click()
    page.reads("Someone says music.")
    expect(page.page.locator(".omni-player audio")).to_have_count(1)
    expect(film).to_have_count(0)


def test_a_recording_is_captioned_and_played(page: CaptionPage) -> None:
    page.button("Record a sound").click()
    expect(page.page.get_by_role("timer")).to_have_text(re.compile("0:0[2-9]"))
    page.page.locator("#omni-record").click()
    expect(page.given).to_have_accessible_name(re.compile(r"sound-\d{6}\.\w+"))
    page.start()
    expect(page.far).to_have_text("Captioned.")
    expect(page.boxes).to_have_value(re.compile(r"\w+.*\."))
    length = "document.querySelector('.omni-player audio')?.duration"
    wait_until(lambda: 1.5 < (page.page.evaluate(length) or 0) < 20, "the recording in the player")


@pytest.mark.parametrize("way", ["folder", "zip"])
def test_a_batch_with_bad_files(page: CaptionPage, batch: Path, way: str, tmp_path: Path) -> None:
    if way == "folder":
        root, left_out = "batch", page.error
        page.page.locator("#omni-go input[type=file]").set_input_files(batch)
        expect(page.given).to_have_count(20)
    else:
        root, left_out = "given/batch", page.page.locator(".omni-summary")
        page.give(shutil.make_archive(str(tmp_path / "given"), "zip", batch.parent))
        page.start()
    expect(left_out).to_contain_text(phrase("captioner.skipped_one", name=f"{root}/notes.txt").text())
    if way == "folder":
        page.start()
    expect(page.far).to_have_text("17 files captioned · 3 failed", timeout=60_000)
    expect(page.rows).to_have_count(20)
    for path in (path for path in batch.rglob("*.*") if path.stem[:-3] in SAID or path.stem in SAID):
        row = page.row(f"{root}/{path.relative_to(batch)}")
        expect(row).to_contain_text(SAID[path.stem.split("-")[0]])
        expect(row).to_contain_text("Done")
    for bad, key in (("text.wav", "unknown"), ("empty.wav", "empty"), ("picture.mp3", "not_audio")):
        name = f"{root}/{bad}"
        expect(page.row(name)).to_contain_text(phrase(f"media.{key}", name=name).text())
    with page.page.expect_request("**/retry?*") as asked:
        page.button(f"Try again: {root}/text.wav").click()
    assert set(asked.value.post_data_json or {}) == {"item"}
    expect(page.far).to_have_text("17 files captioned · 3 failed")
    expect(page.row(f"{root}/text.wav")).to_contain_text("Failed")


def test_every_export_can_be_opened(page: CaptionPage) -> None:
    offer(page, ["sounds.mp3"])
    page.reads(*HALF_A_MINUTE["answer"]["en"])
    said = HALF_A_MINUTE["answer"]["en"]
    page.page.locator(".omni-exports summary").click()
    with page.page.expect_download() as srt:
        page.button("Download").click()
    assert srt.value.suggested_filename == "sounds.srt"
    subtitles = pysubs2.load(str(srt.value.path()), format_="srt")
    assert [line.text for line in subtitles] == said
    starts = [float(time.get_attribute("data-start") or "") for time in page.page.locator(".omni-time").all()]
    assert [line.start for line in subtitles] == [round(1000 * start) for start in starts]

    page.page.locator(".omni-exports summary").click()
    for box in page.page.locator(".omni-exports input").all():
        box.check()
    with page.page.expect_download() as download:
        page.button("Download").click()
    assert download.value.suggested_filename == "captions.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    assert sorted(files) == ["captions.csv", "captions.jsonl", "sounds.srt", "sounds.txt", "sounds.vtt"]
    assert len(files) == len(FORMATS)
    assert [line.text for line in pysubs2.SSAFile.from_string(files["sounds.vtt"], format_="vtt")] == said
    assert [row["caption"] for row in csv.DictReader(io.StringIO(files["captions.csv"]))] == said
    assert [json.loads(line)["caption"] for line in files["captions.jsonl"].splitlines()] == said
    assert all(caption in files["sounds.txt"] for caption in said)
