"""Files come to the captioner by every way, in a real Chromium: chosen, dropped, pasted, recorded, folders and all."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from omni_backend import Capabilities, phrase
from omni_backend.caption import limits
from omni_ui.captioner.server import CaptionApp
from tests.browser import EXAMPLES, Visit, settle
from tests.caption_page import CaptionPage, Scribe, jobs_of, sounds
from tests.composer import Gate
from tests.serving import captioning
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

FOLDER = "#omni-go input[type=file]"


@pytest.fixture(scope="module")
def embedded() -> bool:
    return True


@pytest.fixture
def names(captioner: CaptionApp, jobs_dir: Path) -> Callable[[], list[str]]:
    """What the files of the only job are called."""

    def called() -> list[str]:
        [job] = jobs_of(captioner, jobs_dir)
        return [item.name for item in job.store.items()]

    return called


def tree(root: Path) -> Path:
    """A folder with sounds below folders, a hidden file and one that is no sound."""
    sounds(root, ["b.wav", "a/10.wav", "a/9.wav", "a/c/rain.wav", ".hidden.wav"])
    (root / "a" / "notes.txt").write_text("They are left out.")
    return root


def drop(page: CaptionPage, *paths: Path) -> None:
    """Drags files or folders of this machine over the page, and lets them go."""
    session = page.page.context.new_cdp_session(page.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 60, "data": data})
        if kind == "dragOver":
            expect(page.page.locator("#omni-drop")).to_have_text(phrase("jobs.drop").text())
    expect(page.page.locator("#omni-drop")).to_be_hidden()
    session.detach()


def listed(page: CaptionPage, *expected: str) -> None:
    """Waits until exactly these files are given."""
    expect(page.given).to_have_count(len(expected))
    for row, name in zip(page.given.all(), expected, strict=True):
        expect(row).to_have_accessible_name(name)


def test_files_are_dropped_pasted_and_removed(captions: CaptionPage, names: Callable[[], list[str]]) -> None:
    drop(captions, EXAMPLES / "tone.wav", EXAMPLES / "film.mp4")
    listed(captions, "tone.wav", "film.mp4")
    captions.page.locator("h1").evaluate(
        """(place) => {
          const clipboardData = new DataTransfer();
          for (const name of ["pasted.wav", "other.wav"]) clipboardData.items.add(new File([name], name));
          place.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }"""
    )
    listed(captions, "tone.wav", "film.mp4", "pasted.wav", "other.wav")
    captions.button("Remove film.mp4").press("Enter")
    listed(captions, "tone.wav", "pasted.wav", "other.wav")
    expect(captions.button("Remove pasted.wav")).to_be_focused()
    with captions.page.expect_file_chooser() as chooser:
        captions.button("Add files").click()
    chooser.value.set_files([EXAMPLES / "word.wav"])
    listed(captions, "tone.wav", "pasted.wav", "other.wav", "word.wav")
    captions.start()
    expect(captions.far).to_have_text("2 files captioned · 2 failed")
    assert names() == ["tone.wav", "pasted.wav", "other.wav", "word.wav"]
    expect(captions.given).to_have_count(0)


def test_all_files_are_removed_at_once(captions: CaptionPage) -> None:
    captions.give(EXAMPLES / "tone.wav", EXAMPLES / "word.wav")
    captions.button("Remove all files").press("Enter")
    expect(captions.given).to_have_count(0)
    expect(captions.page.locator("#omni-files .upload-container")).to_be_focused()
    captions.start()
    expect(captions.error).to_have_text(phrase("captioner.nothing_given").text())
    expect(captions.far).to_have_count(0)
    captions.page.locator("#omni-examples button").first.click()
    captions.reads("ok")
    expect(captions.error).to_have_text("")


def test_a_start_that_is_refused_leaves_the_job_that_is_open(captions: CaptionPage) -> None:
    first, second = EXAMPLES / "tone.wav", EXAMPLES / "word.wav"
    captions.caption(first, second)
    captions.button("word.wav").click()
    captions.reads("ok")
    captions.start()
    expect(captions.error).to_have_text(phrase("captioner.nothing_given").text())
    settle(captions.page)
    expect(captions.page.locator(".omni-open h2")).to_have_text(re.compile("word.wav"))


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_a_folder_keeps_its_names(
    captions: CaptionPage, names: Callable[[], list[str]], tmp_path: Path, way: str
) -> None:
    folder = tree(tmp_path / "given")
    if way == "chosen":
        captions.page.locator(FOLDER).set_input_files(folder)
    else:
        drop(captions, folder, EXAMPLES / "tone.wav")
    more = ["tone.wav"] if way == "dropped" else []
    expect(captions.given).to_have_count(4 + len(more))
    left_out = {f"given/{name}" for name in (".hidden.wav", "a/notes.txt")}
    said = captions.error.inner_text().strip()
    assert said.startswith("2 files that are no sounds were left out")
    assert all(name in said for name in left_out)
    captions.start()
    expect(captions.far).to_have_text(f"{4 + len(more)} files captioned")
    assert names() == ["given/a/9.wav", "given/a/10.wav", "given/a/c/rain.wav", "given/b.wav", *more]


def test_an_example_leaves_what_is_given(captions: CaptionPage) -> None:
    captions.give(EXAMPLES / "film.mp4")
    captions.page.locator("#omni-examples button").first.click()
    captions.reads("ok")
    listed(captions, "film.mp4")


def test_what_is_too_large_is_named_and_the_rest_is_taken(
    visit: Callable[..., Visit], scribe: Scribe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FILE_BYTES", 10_000)
    with captioning(scribe, tmp_path / "jobs") as app:
        page = CaptionPage(visit(app.url))
        page.page.locator("#omni-files input[type=file]").set_input_files(
            [EXAMPLES / "tone.wav", *sounds(tmp_path, ["small.wav"])]
        )
        listed(page, "small.wav")
        expect(page.told).to_have_text("tone.wav is larger than 9.766 kB, the most that is taken.")
        folder = tmp_path / "given"
        sounds(folder, ["a/small.wav"])
        sounds(folder, ["a/large.wav"], seconds=1)
        page.page.locator(FOLDER).set_input_files(folder)
        listed(page, "small.wav", "small.wav")
        expect(page.told).to_have_text("large.wav is larger than 9.766 kB, the most that is taken.")
        expect(page.page.locator(".toast-body")).to_have_count(0)
        page.start()
        expect(page.far).to_have_text("2 files captioned")
        expect(page.row("given/a/small.wav")).to_have_count(1)
        expect(page.told).to_be_hidden()
        page.page.close()


def test_a_job_waits_for_its_files(captions: CaptionPage, names: Callable[[], list[str]], tmp_path: Path) -> None:
    gate = Gate(captions.visit)
    line = captions.page.locator(".omni-uploading")
    captions.page.locator("#omni-files input[type=file]").set_input_files(
        [EXAMPLES / "tone.wav", EXAMPLES / "word.wav"]
    )
    first = gate.next()
    expect(line.get_by_role("status")).to_have_text("Uploading tone.wav and word.wav")
    expect(line.get_by_role("progressbar")).to_be_visible()
    captions.page.locator(FOLDER).set_input_files(tree(tmp_path / "given"))
    captions.start()
    expect(line.get_by_role("status")).to_have_text(phrase("jobs.begins_later").text())
    expect(captions.error).to_have_text("")
    first.continue_()
    gate.open()
    expect(captions.far).to_have_text("6 files captioned")
    assert {"tone.wav", "word.wav", "given/b.wav"} < set(names())
    expect(line.get_by_role("status")).to_have_text("")


def test_an_upload_is_called_off(captions: CaptionPage, scribe: Scribe) -> None:
    captions.give(EXAMPLES / "tone.wav")
    gate = Gate(captions.visit)
    captions.page.locator("#omni-files input[type=file]").set_input_files([EXAMPLES / "film.mp4"])
    gate.next()
    captions.start()
    captions.button("Cancel").click()
    expect(captions.page.locator(".omni-uploading").get_by_role("status")).to_have_text("")
    listed(captions, "tone.wav")
    expect(captions.told).to_be_hidden()
    assert not scribe.requests
    captions.start()
    captions.reads("ok")


@pytest.mark.parametrize("way", ["files", "folder"])
def test_an_upload_that_fails_is_tried_again(
    captions: CaptionPage, names: Callable[[], list[str]], tmp_path: Path, way: str
) -> None:
    gate = Gate(captions.visit)
    if way == "files":
        captions.page.locator("#omni-files input[type=file]").set_input_files([EXAMPLES / "tone.wav"])
    else:
        captions.page.locator(FOLDER).set_input_files(sounds(tmp_path / "given", ["a/tone.wav"])[0].parent.parent)
    upload = gate.next()
    captions.start()
    upload.abort()
    expect(captions.told).to_contain_text(phrase("composer.upload_failed", name="tone.wav").text())
    expect(captions.told).to_be_in_viewport()
    expect(captions.page.locator(".toast-body")).to_have_count(0)
    expect(captions.given).to_have_count(0)
    gate.open()
    captions.told.get_by_role("button", name="Try again").click()
    listed(captions, "tone.wav")
    expect(captions.told).to_be_hidden()
    captions.start()
    captions.reads("ok")
    assert names() == ["tone.wav" if way == "files" else "given/a/tone.wav"]
    # What the browser itself writes about an answer that did not come cannot be kept from its console.
    captions.visit.problems[:] = [
        line for line in captions.visit.problems if "upload" not in line and "Failed to load" not in line
    ]


def test_a_recording_ends_when_captions_are_wanted(captions: CaptionPage, names: Callable[[], list[str]]) -> None:
    record = captions.page.locator("#omni-record")
    record.press("Enter")
    expect(record).to_have_accessible_name(re.compile("^Stop recording"))
    expect(captions.page.get_by_role("timer")).to_have_text(re.compile("0:0[1-9]"))
    captions.start()
    captions.reads("ok")
    [name] = names()
    assert re.fullmatch(r"sound-\d{6}\.\w+", name)
    expect(record).to_have_accessible_name("Record a sound")


@pytest.mark.parametrize(
    ("problem", "key"),
    [
        ("NotAllowedError", "composer.microphone_refused"),
        ("NotFoundError", "composer.microphone_none"),
        (None, "composer.microphone_insecure"),
    ],
)
def test_a_microphone_that_cannot_be_used_says_why(captions: CaptionPage, problem: str | None, key: str) -> None:
    captions.page.evaluate(
        """(problem) => {
          const refuse = () => Promise.reject(new DOMException("", problem));
          Object.defineProperty(navigator, "mediaDevices", { value: problem ? { getUserMedia: refuse } : undefined });
        }""",
        problem,
    )
    captions.button("Record a sound").click()
    expect(captions.told).to_have_text(phrase(key).text())
    expect(captions.button("Record a sound")).to_be_visible()


def test_the_settings_reach_the_engine(
    captions: CaptionPage, captioner: CaptionApp, jobs_dir: Path, scribe: Scribe
) -> None:
    captions.page.locator("#omni-settings").click()
    panel = captions.page.locator("#omni-panel")
    panel.get_by_label("Question").fill("What rings?")
    for name, value in (("Longest stretch, seconds", "10"), ("Overlap, seconds", "2")):
        panel.get_by_role("spinbutton", name=name).fill(value)
    panel.get_by_role("button", name=phrase("panel.sampling").text()).click()
    temperature = panel.get_by_role("spinbutton", name=phrase("panel.temperature").text())
    expect(temperature).to_have_value("0.7")
    settle(captions.page)
    temperature.fill("0.9")
    panel.get_by_role("spinbutton", name=phrase("panel.max_tokens").text()).fill("77")
    expect(panel.get_by_role("slider", name=phrase("panel.temperature").text())).to_have_value("0.9")
    captions.page.keyboard.press("Escape")
    captions.caption(EXAMPLES / "sounds.mp3")
    expect(captions.far).to_have_text("Captioned.")
    [job] = jobs_of(captioner, jobs_dir)
    assert (job.store.settings.window_seconds, job.store.settings.overlap_seconds) == (10, 2)
    for request in scribe.requests:
        assert request.messages[-1].text == "What rings?"
        assert request.sampling is not None
        assert (request.sampling.temperature, request.sampling.max_tokens) == (0.9, 77)
    assert len(scribe.requests) == captions.boxes.count() >= 3
    spans = [
        [float(time.get_attribute(f"data-{end}") or "") for end in ("start", "end")]
        for time in captions.page.locator(".omni-time").all()
    ]
    assert all(end - start <= 10 for start, end in spans)


def test_a_captioner_takes_no_question(visit: Callable[..., Visit], tmp_path: Path) -> None:
    scribe = Scribe(Capabilities("captioner", "a script", inputs=frozenset({"audio"}), text_prompts=False))
    with captioning(scribe, tmp_path) as app:
        page = CaptionPage(visit(app.url))
        page.page.locator("#omni-settings").click()
        question = page.page.get_by_label("Question")
        expect(question).to_be_disabled()
        expect(question).to_have_value("")
        expect(page.page.locator("#omni-panel")).to_contain_text(phrase("captioner.no_instruction").text())
        page.page.keyboard.press("Escape")
        page.page.get_by_role("radio", name="中文").check()
        page.caption(EXAMPLES / "tone.wav")
        expect(page.far).to_have_text("Captioned.")
        [request] = scribe.requests
        assert request.messages[-1].text == ""
        assert request.answer_prefix == "这个音频剪辑"
        page.page.close()
    scribe.close()


def test_a_language_that_the_engine_cannot_begin_in_says_why(visit: Callable[..., Visit], tmp_path: Path) -> None:
    scribe = Scribe(
        Capabilities("captioner", "a script", text_prompts=False, no_answer_prefix=phrase("request.one_recording"))
    )
    with captioning(scribe, tmp_path) as app:
        page = CaptionPage(visit(app.url, locale="zh-CN"))
        expect(page.page.get_by_role("radio", name="中文")).to_be_disabled()
        expect(page.page.get_by_role("radio", name="English")).to_be_checked()
        expect(page.page.locator("#omni-caption-language")).to_contain_text(phrase("request.one_recording").text("zh"))
        page.page.close()
    scribe.close()


def test_files_stay_in_order_while_they_are_uploaded(captions: CaptionPage) -> None:
    gate = Gate(captions.visit)
    captions.page.locator("#omni-files input[type=file]").set_input_files([EXAMPLES / "tone.wav"])
    first = gate.next()
    drop(captions, EXAMPLES / "word.wav")  # Gradio has no place for it before the first is there
    first.continue_()
    gate.next().continue_()
    wait_until(lambda: captions.page.evaluate("true") and captions.given.count() == 2, "both files")
    listed(captions, "tone.wav", "word.wav")
