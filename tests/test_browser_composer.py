"""The composer in a real Chromium: files by every way, previews, uploads that wait or fail."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from omni_backend import BadMedia, ScriptedBackend, defaults, phrase
from omni_ui.server import App
from tests.axe import violations
from tests.browser import EXAMPLES, PHONE, Visit
from tests.composer import Gate, button, media, names, previews, recorded, sent, words
from tests.serving import serving
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]

BASKET = """(files) => {
  const basket = new DataTransfer();
  for (const [name, type, data] of files) {
    const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
    basket.items.add(new File([bytes], name, { type }));
  }
  return basket;
}"""
TYPES = {".png": "image/png", ".wav": "audio/wav", ".mp4": "video/mp4"}


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "FILE_BYTES", 10_000)


def basket(page: Visit, *files: str) -> Any:
    """Example files as the page's own DataTransfer."""
    data = [[name, TYPES[Path(name).suffix], encoded(EXAMPLES / name)] for name in files]
    return page.page.evaluate_handle(BASKET, data)


def encoded(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()


def test_several_files_by_the_button(page: Visit, backend: ScriptedBackend) -> None:
    with page.page.expect_file_chooser() as chooser:
        button(page, "Attach files").click()
    assert chooser.value.is_multiple()
    chooser.value.set_files([EXAMPLES / name for name in ("film.mp4", "star.png", "tone.wav")])
    names(page, "film.mp4", "star.png", "tone.wav")
    seen = "([film, image]) => film.readyState >= 2 && film.videoWidth > 0 && image.naturalWidth > 0"
    wait_until(
        lambda: page.page.locator("#omni-composer").evaluate(
            f"(root) => ({seen})([...root.querySelectorAll('.thumbnail-item > :is(video, img)')])"
        )
    )
    page.say("Look")
    page.finished()
    assert sent(backend) == [("video", "film.mp4"), ("image", "star.png"), ("audio", "tone.wav")]
    assert words(backend) == ["Look"]
    for part in media(backend):
        assert Path(part.path).read_bytes() == (EXAMPLES / part.label).read_bytes()


@pytest.mark.parametrize("place", ["#omni-composer textarea", "body"])
def test_files_of_any_kind_are_pasted(page: Visit, backend: ScriptedBackend, place: str) -> None:
    files = basket(page, "tone.wav", "film.mp4", "square.png")
    page.page.locator(place).evaluate(
        """(place, clipboardData) => {
          const news = { clipboardData, bubbles: true, cancelable: true };
          window.taken = !place.dispatchEvent(new ClipboardEvent("paste", news));
        }""",
        files,
    )
    names(page, "tone.wav", "film.mp4", "square.png")
    assert page.page.evaluate("taken")
    page.send.click()
    page.finished()
    assert sent(backend) == [("audio", "tone.wav"), ("video", "film.mp4"), ("image", "square.png")]


def test_pasted_text_stays_text(page: Visit) -> None:
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.page.evaluate("navigator.clipboard.writeText('from elsewhere')")
    page.composer.press("Control+V")
    expect(page.composer).to_have_value("from elsewhere")
    files = basket(page, "square.png")  # as office programs do: the words and a picture of them
    left = page.composer.evaluate(
        """(place, clipboardData) => {
          clipboardData.setData("text/plain", "a cell");
          clipboardData.setData("text/html", "<table><tr><td>a cell</td></tr></table>");
          return place.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }""",
        files,
    )
    assert left, "the browser pastes the words by itself"
    page.attach(EXAMPLES / "tone.wav")
    names(page, "tone.wav")


@pytest.mark.parametrize("place", ["#omni-composer textarea", "h1"])
def test_files_are_dropped_anywhere(page: Visit, backend: ScriptedBackend, place: str) -> None:
    files = basket(page, "star.png", "tone.wav")
    drag = """(place, [name, dataTransfer]) =>
      !place.dispatchEvent(new DragEvent(name, { dataTransfer, bubbles: true, cancelable: true }))"""
    hint = page.page.get_by_text("Drop the files here")
    target = page.page.locator(place)
    for name in ("dragenter", "dragover"):
        assert target.evaluate(drag, [name, files])
        expect(hint).to_be_visible()
    target.evaluate(drag, ["dragleave", files])
    expect(hint).to_be_hidden()
    target.evaluate(drag, ["dragenter", files])
    assert target.evaluate(drag, ["drop", files])
    expect(hint).to_be_hidden()
    names(page, "star.png", "tone.wav")
    page.send.click()
    page.finished()
    assert sent(backend) == [("image", "star.png"), ("audio", "tone.wav")]


def test_a_file_in_the_middle_is_removed(page: Visit, backend: ScriptedBackend) -> None:
    page.attach(*[EXAMPLES / name for name in ("star.png", "film.mp4", "tone.wav", "square.png")])
    names(page, "star.png", "film.mp4", "tone.wav", "square.png")
    button(page, "Remove film.mp4").click()
    names(page, "star.png", "tone.wav", "square.png")
    expect(page.page.locator("#omni-composer video")).to_have_count(0)
    page.attach(EXAMPLES / "word.wav")
    names(page, "star.png", "tone.wav", "square.png", "word.wav")
    page.say("Go")
    page.finished()
    assert sent(backend) == [
        ("image", "star.png"),
        ("audio", "tone.wav"),
        ("image", "square.png"),
        ("audio", "word.wav"),
    ]
    expect(previews(page)).to_have_count(0)


def test_a_film_that_the_browser_cannot_show_is_asked_for_once(page: Visit, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a film")
    asked: list[str] = []
    page.page.on("request", lambda request: asked.append(request.url) if "broken.mp4" in request.url else None)
    page.attach(broken)
    names(page, "broken.mp4")
    expect(page.page.locator("#omni-composer .thumbnail-item > svg")).to_be_visible()
    for name in ("star.png", "tone.wav"):
        page.attach(EXAMPLES / name)
    names(page, "broken.mp4", "star.png", "tone.wav")
    expect(page.page.locator("#omni-composer video")).to_have_count(0)
    assert len(asked) <= 2, asked


def test_a_file_is_removed_during_an_upload(page: Visit, backend: ScriptedBackend) -> None:
    page.attach(EXAMPLES / "tone.wav", EXAMPLES / "sweep.wav")
    names(page, "tone.wav", "sweep.wav")
    gate = Gate(page)
    page.page.locator("#omni-composer input[type=file]").set_input_files([EXAMPLES / "star.png"])
    upload = gate.next()
    button(page, "Remove tone.wav").click()
    names(page, "sweep.wav")
    upload.continue_()
    names(page, "sweep.wav", "star.png")
    page.send.click()
    page.finished()
    assert sent(backend) == [("audio", "sweep.wav"), ("image", "star.png")]


def test_files_are_removed_by_the_keyboard_without_losing_the_place(page: Visit) -> None:
    page.attach(*[EXAMPLES / name for name in ("star.png", "tone.wav", "square.png")])
    button(page, "Remove tone.wav").press("Enter")
    expect(button(page, "Remove square.png")).to_be_focused()
    page.page.keyboard.press("Enter")
    expect(button(page, "Remove star.png")).to_be_focused()
    page.page.keyboard.press("Enter")
    expect(button(page, "Attach files")).to_be_focused()
    expect(previews(page)).to_have_count(0)


@pytest.mark.usefixtures("small_limit")
def test_what_is_too_large_is_named_and_the_rest_is_taken(visit: Open) -> None:
    backend = ScriptedBackend()
    with serving(backend) as app:
        page = visit(app.url)
        page.composer.fill("Look")
        with page.page.expect_file_chooser() as chooser:
            button(page, "Attach files").click()
        chooser.value.set_files([EXAMPLES / name for name in ("square.png", "tone.wav", "star.png")])
        names(page, "square.png", "star.png")
        expect(page.alert).to_have_text("tone.wav is larger than 9.766 kB, the most that is taken.")
        page.page.locator("h1").evaluate(
            "(place, dataTransfer) => place.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true }))",
            basket(page, "tone.wav", "sweep.wav"),
        )
        expect(page.alert).to_have_text("tone.wav and sweep.wav are each larger than 9.766 kB, the most that is taken.")
        expect(page.composer).to_have_value("Look")
        page.send.click()
        page.finished()
        expect(page.alert).to_have_count(0)
        assert sent(backend) == [("image", "square.png"), ("image", "star.png")]
        page.page.close()
    backend.close()


def test_a_message_waits_for_its_files(page: Visit, backend: ScriptedBackend) -> None:
    asked = len(backend.requests)
    gate = Gate(page)
    composer = page.page.locator("#omni-composer")
    status = composer.get_by_role("status")
    for name in ("film.mp4", "star.png"):
        composer.locator("input[type=file]").set_input_files([EXAMPLES / name])
    expect(status).to_have_text("Uploading film.mp4 and star.png")
    expect(composer.get_by_role("progressbar", name="Uploaded so far")).to_be_visible()
    page.composer.fill("Look")
    page.composer.press("Enter")
    expect(status).to_have_text(phrase("composer.sends_later").text())
    page.send.click()  # a second time changes nothing
    gate.next().continue_()
    second = gate.next()
    expect(page.composer).to_have_value("Look")
    assert len(backend.requests) == asked
    second.continue_()
    page.finished()
    assert len(backend.requests) == asked + 1
    assert sent(backend) == [("video", "film.mp4"), ("image", "star.png")]
    assert words(backend) == ["Look"]
    expect(status).to_have_text("")


def test_an_upload_is_called_off(page: Visit, backend: ScriptedBackend) -> None:
    asked = len(backend.requests)
    page.attach(EXAMPLES / "tone.wav")
    gate = Gate(page)
    page.page.locator("#omni-composer input[type=file]").set_input_files([EXAMPLES / "film.mp4"])
    page.say("Look")
    gate.next()
    button(page, "Cancel").click()
    expect(page.page.locator("#omni-composer").get_by_role("status")).to_have_text("")
    expect(page.composer).to_have_value("Look")
    names(page, "tone.wav")
    expect(page.alert).to_have_count(0)
    assert len(backend.requests) == asked
    page.send.click()
    page.finished()
    assert sent(backend) == [("audio", "tone.wav")]


@pytest.mark.parametrize(("status", "key"), [(413, "composer.upload_too_large"), (None, "composer.upload_failed")])
def test_an_upload_that_fails_loses_nothing(
    page: Visit, backend: ScriptedBackend, status: int | None, key: str
) -> None:
    asked = len(backend.requests)
    page.attach(EXAMPLES / "tone.wav")
    gate = Gate(page)
    page.page.locator("#omni-composer input[type=file]").set_input_files([EXAMPLES / "film.mp4", EXAMPLES / "star.png"])
    page.say("Look")
    upload = gate.next()
    upload.abort() if status is None else upload.fulfill(status=status)
    expect(page.alert).to_contain_text(phrase(key, name="film.mp4 and star.png").text())
    expect(page.page.locator(".toast-wrap")).to_have_text("")
    expect(page.composer).to_have_value("Look")
    names(page, "tone.wav")
    assert len(backend.requests) == asked
    gate.open()
    page.alert.get_by_role("button", name="Try again").click()
    names(page, "tone.wav", "film.mp4", "star.png")
    expect(page.alert).to_have_count(0)
    page.send.click()
    page.finished()
    assert sent(backend) == [("audio", "tone.wav"), ("video", "film.mp4"), ("image", "star.png")]
    # What the browser itself writes about an answer that did not come cannot be kept from its console.
    page.problems[:] = [line for line in page.problems if "upload" not in line and "Failed to load" not in line]


def test_files_that_come_back_keep_their_names(page: Visit, backend: ScriptedBackend) -> None:
    page.attach(EXAMPLES / "tone.wav", EXAMPLES / "film.mp4")
    names(page, "tone.wav", "film.mp4")
    backend.enqueue(BadMedia(phrase("media.empty", name="tone.wav")))
    page.send.click()  # without a word: Gradio tells nobody that such a value has changed
    expect(page.alert).to_contain_text("tone.wav")
    names(page, "tone.wav", "film.mp4")
    button(page, "Remove tone.wav").click()
    names(page, "film.mp4")


def test_what_the_checkpoint_does_not_take_says_why(page: Visit) -> None:
    missing = {"audio": "It is deaf.", "image": "It is blind.", "video": "It sees no films."}
    page.page.locator(".omni-ready").evaluate("(line, value) => { line.dataset.missing = value }", json.dumps(missing))
    for name, reason in (("Record a sound", "It is deaf."), ("Open the camera", "It is blind.")):
        control = button(page, name)
        expect(control).to_have_attribute("aria-disabled", "true")
        expect(control).to_have_accessible_description(reason)
        control.focus()
        page.page.keyboard.press("Enter")
        expect(page.alert).to_have_text(reason)
    expect(page.page.get_by_role("dialog")).to_have_count(0)
    expect(page.page.locator("#omni-composer .recording-overlay")).to_have_count(0)


def test_all_controls_speak_chinese(app: App, visit: Open) -> None:
    page = visit(app.url, locale="zh-CN")
    page.page.locator("#omni-composer input[type=file]").set_input_files([EXAMPLES / "star.png"])
    composer = page.page.get_by_role("group", name="撰写消息")
    seen: list[str] = []

    def look() -> None:
        # Of everything that has a name, except files and the operating system's microphones.
        found = composer.evaluate("""(root) => [...root.querySelectorAll("[aria-label], [title]")]
          .filter((node) => node.checkVisibility())
          .flatMap((node) => [node.getAttribute("aria-label"), node.getAttribute("title")])
          .filter(Boolean)""")
        seen.extend(found)

    expect(composer.get_by_role("button", name="移除 star.png")).to_be_visible()
    look()
    composer.get_by_role("button", name="录音").click()
    expect(composer.locator(".timestamp")).to_have_text(re.compile("0:0[1-9]"))
    look()
    composer.get_by_role("button", name="停止录音").click()
    expect(composer.get_by_role("button", name="播放")).to_be_visible()
    look()
    assert {"消息", "添加文件", "打开摄像头", "发送", "放弃录音", "添加录音", "已添加的文件"} <= set(seen)
    assert {name for name in seen if name.isascii()} == {"star.png"}


@pytest.mark.parametrize("phone", [True, False])
def test_files_and_recorder_fit_and_can_be_touched(app: App, visit: Open, phone: bool) -> None:
    page = visit(app.url, **(PHONE if phone else {}))
    page.attach(*[EXAMPLES / name for name in ("star.png", "film.mp4", "tone.wav", "square.png", "word.wav")])
    recorded(page, 1)
    width = 390 if phone else 1280
    least = 44 if phone else 24
    assert page.page.evaluate("document.documentElement.scrollWidth") == width
    for name in ("Attach files", "Open the camera", "Send", "Stop recording", "Discard the recording"):
        box = button(page, name).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44, name
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width, name
    box = button(page, "Remove word.wav").bounding_box()
    assert box is not None
    assert min(box["width"], box["height"]) >= least
    assert box["x"] + box["width"] <= width


@pytest.mark.parametrize(("phone", "scheme"), [(True, "dark"), (False, "light")])
def test_axe_finds_nothing_in_any_state(app: App, visit: Open, phone: bool, scheme: str) -> None:
    page = visit(app.url, color_scheme=scheme, **(PHONE if phone else {}))
    page.attach(EXAMPLES / "star.png", EXAMPLES / "film.mp4")
    names(page, "star.png", "film.mp4")
    assert violations(page.page) == []
    recorded(page, 1)
    assert violations(page.page) == []
    button(page, "Stop recording").click()
    expect(button(page, "Play")).to_be_visible()
    assert violations(page.page) == []
    gate = Gate(page)
    page.page.locator("#omni-composer input[type=file]").set_input_files([EXAMPLES / "tone.wav"])
    gate.next()
    assert violations(page.page) == []
    button(page, "Cancel").click()
    expect(previews(page)).to_have_count(2)
