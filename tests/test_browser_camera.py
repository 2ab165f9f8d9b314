"""The camera's window in a real Chromium with a fake camera: photo, film with sound, refusals, keyboard."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from omni_backend import MediaPart, ScriptedBackend, defaults, phrase
from omni_backend.media import FrameBudget, MediaLoader
from omni_ui.server import App
from tests.axe import violations
from tests.browser import PHONE, Visit
from tests.serving import serving
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

WIDE: dict[str, Any] = {}
Open = Callable[..., Visit]

# Keeps what the page was given, so that a test can see whether it is let go. `refuse`: (what is wanted) → a problem.
WATCH = """
  window.streams = [];
  window.wanted = [];
  window.refuse = () => "";
  const real = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    window.wanted.push(wanted);
    const problem = refuse(wanted);
    if (problem) throw new DOMException("", problem);
    const stream = await real({ video: Boolean(wanted.video), audio: Boolean(wanted.audio) });
    streams.push(stream);
    return stream;
  };
"""
LIVE = "streams.flatMap((stream) => stream.getTracks()).filter((track) => track.readyState === 'live').length"


@pytest.fixture
def page(app: App, visit: Open) -> Visit:
    return watched(visit(app.url))


def watched(page: Visit) -> Visit:
    page.page.evaluate(f"() => {{ {WATCH} }}")
    return page


def camera(page: Visit) -> Locator:
    return page.page.get_by_role("dialog", name="Camera")


def control(page: Visit, name: str) -> Locator:
    return camera(page).get_by_role("button", name=name, exact=True)


def opened(page: Visit) -> Locator:
    """The camera's window once it shows a picture."""
    page.page.get_by_role("button", name="Open the camera").click()
    expect(control(page, "Take photo")).to_have_attribute("aria-disabled", "false")
    return camera(page)


def filmed(page: Visit, seconds: int = 2) -> None:
    """Records a film of at least so many seconds; its preview is in the composer afterwards."""
    control(page, "Record film").click()
    expect(camera(page).get_by_role("timer")).to_have_text(re.compile(rf"^0:0[{seconds}-9]$"))
    control(page, "Stop recording").click()
    attached(page, r"film-\d{6}\.webm")


def attached(page: Visit, name: str) -> None:
    expect(page.page.locator("#omni-composer .omni-name")).to_have_text(re.compile(name))
    expect(camera(page)).to_be_hidden()


def received(page: Visit, backend: ScriptedBackend) -> MediaPart:
    """Sends the one file that is attached; how the engine gets it."""
    page.send.click()
    page.finished()
    (part,) = backend.requests[-1].messages[-1].content
    assert isinstance(part, MediaPart)
    return part


def live(page: Visit) -> int:
    """How many tracks of camera and microphone still run."""
    return int(page.page.evaluate(LIVE))


@pytest.mark.parametrize("options", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_photo_reaches_the_engine(app: App, visit: Open, backend: ScriptedBackend, options: dict[str, Any]) -> None:
    page = watched(visit(app.url, **options))
    opened(page)
    assert live(page) == 1
    control(page, "Take photo").click()
    attached(page, r"photo-\d{6}\.jpg")
    assert live(page) == 0
    part = received(page, backend)
    assert part.type == "image"
    with Image.open(part.path) as photo:
        assert photo.format == "JPEG"
        assert min(photo.size) >= 240
        assert np.asarray(photo)[..., 1].mean() > 60  # the fake camera is green
    assert [sorted(wanted) for wanted in page.page.evaluate("wanted")] == [["video"]]  # a photo needs no microphone


def test_a_film_with_sound_reaches_the_engine(page: Visit, backend: ScriptedBackend) -> None:
    opened(page)
    filmed(page)
    assert live(page) == 0
    part = received(page, backend)
    assert part.type == "video"
    with av.open(part.path) as film:
        assert len(film.streams.audio) == 1
        assert sum(1 for _ in film.decode(film.streams.video[0])) > 5
    loader = MediaLoader()
    info = loader.probe(part)
    assert info.type == "video"
    assert info.has_audio
    assert info.duration is not None
    assert 1.5 < info.duration < 60  # such films do not tell how long they are
    read = loader.video(part, fps=2.0, budget=FrameBudget(32, 128 * 32**2, 768 * 32**2, 16_000 * 32**2))
    assert len(read.frames) / read.fps == pytest.approx(info.duration, abs=1.5)
    assert read.frames[:, 1].mean() > 60  # the fake camera is green
    assert read.audio is not None
    assert read.audio.size / 16_000 == pytest.approx(info.duration, abs=1.0)
    assert np.abs(read.audio).max() > 0.01  # the fake microphone beeps


def test_a_film_without_a_microphone_is_silent_and_says_so(page: Visit, backend: ScriptedBackend) -> None:
    page.page.evaluate("() => { window.refuse = (wanted) => (wanted.audio ? 'NotAllowedError' : '') }")
    opened(page)
    control(page, "Record film").click()
    expect(camera(page).get_by_role("status")).to_have_text(phrase("camera.no_sound").text())
    expect(camera(page).get_by_role("timer")).to_have_text(re.compile("0:0[1-9]"))
    control(page, "Stop recording").click()
    attached(page, r"film-\d{6}\.webm")
    part = received(page, backend)
    with av.open(part.path) as film:
        assert len(film.streams.audio) == 0
        assert next(film.decode(film.streams.video[0])).width > 0


@pytest.mark.parametrize(
    ("problem", "key"),
    [
        ("NotAllowedError", "camera.refused"),
        ("NotFoundError", "camera.none"),
        ("NotReadableError", "camera.busy"),
        ("UnknownError", "camera.failed"),
        (None, "camera.insecure"),
    ],
)
def test_a_camera_that_cannot_be_used_says_why(page: Visit, problem: str | None, key: str) -> None:
    page.page.evaluate(
        """(problem) => {
          window.refuse = () => problem;
          if (!problem) Object.defineProperty(navigator, "mediaDevices", { value: undefined });
        }""",
        problem,
    )
    page.page.get_by_role("button", name="Open the camera").click()
    expect(camera(page).get_by_role("alert")).to_have_text(phrase(key).text())
    for name in ("Take photo", "Record film"):
        expect(control(page, name)).to_have_attribute("aria-disabled", "true")
        control(page, name).click(force=True)
    control(page, "Close").click()
    expect(camera(page)).to_be_hidden()
    expect(page.page.locator("#omni-composer .thumbnail-item")).to_have_count(0)


def test_a_camera_that_goes_away_is_said(page: Visit) -> None:
    opened(page)
    page.page.evaluate("streams[0].getTracks()[0].dispatchEvent(new Event('ended'))")
    expect(camera(page).get_by_role("alert")).to_have_text(phrase("camera.failed").text())
    assert live(page) == 0


def test_the_keyboard_is_enough(page: Visit, backend: ScriptedBackend) -> None:
    keys = page.page.keyboard
    entry = page.page.get_by_role("button", name="Open the camera")
    page.composer.focus()
    keys.press("Tab")  # to the files
    keys.press("Tab")
    expect(entry).to_be_focused()
    keys.press("Enter")
    expect(control(page, "Take photo")).to_be_focused()
    expect(control(page, "Take photo")).to_have_attribute("aria-disabled", "false")
    keys.press("Escape")
    expect(camera(page)).to_be_hidden()
    expect(entry).to_be_focused()
    wait_until(lambda: live(page) == 0, "the end of the camera")
    keys.press("Enter")
    expect(control(page, "Take photo")).to_have_attribute("aria-disabled", "false")
    keys.press("Tab")
    expect(control(page, "Record film")).to_be_focused()
    keys.press("Space")
    expect(camera(page).get_by_role("timer")).to_have_text(re.compile("0:0[1-9]"))
    expect(control(page, "Stop recording")).to_be_focused()
    keys.press("Tab")
    expect(control(page, "Close")).to_be_focused()
    keys.press("Enter")  # what was filmed is kept
    attached(page, r"film-\d{6}\.webm")
    expect(entry).to_be_focused()
    wait_until(lambda: live(page) == 0, "the end of camera and microphone")
    assert received(page, backend).type == "video"


def test_another_camera_is_shown(page: Visit) -> None:
    opened(page)
    expect(control(page, "Other camera")).to_be_hidden()
    control(page, "Close").click()
    page.page.evaluate("""() => {
      const real = streams[0].getVideoTracks()[0].getSettings().deviceId;
      const list = [{ kind: "videoinput", deviceId: real }, { kind: "videoinput", deviceId: "back" }];
      navigator.mediaDevices.enumerateDevices = async () => list;
    }""")
    opened(page)
    control(page, "Other camera").click()
    expect(control(page, "Take photo")).to_have_attribute("aria-disabled", "false")
    assert page.page.evaluate("wanted.at(-1).video.deviceId") == {"exact": "back"}
    assert live(page) == 1
    control(page, "Close").click()
    wait_until(lambda: live(page) == 0, "the end of the camera")


def test_a_camera_that_opens_late_is_closed_again(page: Visit) -> None:
    page.page.evaluate("""() => {
      const open = navigator.mediaDevices.getUserMedia;
      navigator.mediaDevices.getUserMedia = async (wanted) => {
        await new Promise((resolve) => { window.go = resolve });
        return open(wanted);
      };
    }""")
    page.page.get_by_role("button", name="Open the camera").click()
    expect(camera(page).get_by_role("status")).to_have_text(phrase("camera.opening").text())
    control(page, "Close").click()
    page.page.evaluate("go()")
    wait_until(lambda: page.page.evaluate("streams.length") == 1 and live(page) == 0, "the end of the camera")


def test_a_film_ends_at_the_longest_time(page: Visit) -> None:
    opened(page)
    page.page.evaluate("""() => {
      const now = performance.now.bind(performance);
      window.later = 0;
      performance.now = () => now() + later;
    }""")
    control(page, "Record film").click()
    expect(camera(page).get_by_role("timer")).to_have_text(re.compile("0:0[1-9]"))
    page.page.evaluate("() => { later = 600_000 }")
    attached(page, r"film-\d{6}\.webm")


def test_a_film_ends_before_it_is_too_large(visit: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "FILE_BYTES", 300_000)
    backend = ScriptedBackend()
    with serving(backend) as app:
        page = watched(visit(app.url))
        opened(page)
        control(page, "Record film").click()
        expect(page.page.locator("#omni-composer .omni-name")).to_have_text(re.compile("film"), timeout=60_000)
        assert 0 < Path(received(page, backend).path).stat().st_size <= 300_000
        expect(page.alert).to_have_count(0)
        page.page.close()
    backend.close()


@pytest.mark.parametrize(
    ("missing", "off", "on"), [("image", "Take photo", "Record film"), ("video", "Record film", "Take photo")]
)
def test_what_the_checkpoint_does_not_take_says_why(page: Visit, missing: str, off: str, on: str) -> None:
    value = json.dumps({missing: "Not this one."})
    page.page.locator(".omni-ready").evaluate("(line, value) => { line.dataset.missing = value }", value)
    page.page.get_by_role("button", name="Open the camera").click()
    expect(control(page, on)).to_have_attribute("aria-disabled", "false")
    expect(control(page, off)).to_have_attribute("aria-disabled", "true")
    expect(control(page, off)).to_have_accessible_description("Not this one.")
    control(page, off).click(force=True)
    expect(camera(page)).to_be_visible()
    expect(camera(page).get_by_role("timer")).to_have_text("")


@pytest.mark.parametrize(("options", "scheme"), [(WIDE, "light"), (PHONE, "dark")], ids=["wide", "phone"])
def test_the_window_fits(app: App, visit: Open, options: dict[str, Any], scheme: str) -> None:
    page = watched(visit(app.url, color_scheme=scheme, **options))
    opened(page)
    control(page, "Record film").click()
    expect(camera(page).get_by_role("timer")).to_have_text(re.compile("0:0[0-9]"))
    size = page.page.viewport_size
    assert size is not None
    assert page.page.evaluate("document.documentElement.scrollWidth") == size["width"]
    for name in ("Take photo", "Stop recording", "Close"):
        expect(control(page, name)).to_be_in_viewport(ratio=1)
        box = control(page, name).bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 44
    ground = camera(page).evaluate("(window) => getComputedStyle(window).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground[:3]) < 80) == (scheme == "dark")
    assert violations(page.page) == []


def test_the_window_speaks_chinese(app: App, visit: Open) -> None:
    page = watched(visit(app.url, locale="zh-CN"))
    page.page.get_by_role("button", name="打开摄像头").click()
    window = page.page.get_by_role("dialog", name="摄像头")
    for name in ("拍照", "录制视频", "关闭"):
        expect(window.get_by_role("button", name=name)).to_be_visible()
    window.get_by_role("button", name="拍照").click()
    expect(page.page.get_by_role("button", name=re.compile(r"移除 photo-\d{6}\.jpg"))).to_be_visible()
