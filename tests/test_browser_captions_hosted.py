"""The captioner where others host it: in a frame of another site, as on Hugging Face, and behind a proxy's prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Frame, Page, expect

from omni_backend import phrase
from tests.browser import EXAMPLES, Visit
from tests.caption_page import Scribe
from tests.proxy import proxied
from tests.serving import captioning
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

PREFIX = "/some/path"


@pytest.fixture
def prefixed(scribe: Scribe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the captioner behind a proxy."""
    monkeypatch.setenv("GRADIO_ROOT_PATH", PREFIX)
    with captioning(scribe, tmp_path) as app, proxied(app.url.removesuffix("/").removesuffix(PREFIX), PREFIX) as url:
        yield url


def captions_and_deletes(page: Page | Frame, whole: Page) -> None:
    """Every address of a job is asked: its board, its sound, its export, what is done to it."""
    page.locator("#omni-files input[type=file]").set_input_files(EXAMPLES / "tone.wav")
    page.locator("#omni-files .filename").wait_for()
    page.locator("#omni-start").click()
    box = page.locator(".omni-open textarea")
    expect(box).to_have_value("ok")
    player = page.locator(".omni-player audio")
    wait_until(lambda: player.evaluate("(sound) => sound.readyState >= 1 && sound.duration > 1"), "the sound")
    box.fill("A dog.")
    page.locator("h1").click()
    page.locator('[data-do="restore"]').wait_for()
    page.locator(".omni-exports summary").click()
    with whole.expect_download() as download:
        page.locator(".omni-exports button").click()
    assert "A dog." in Path(download.value.path()).read_text()
    page.locator('[data-do="delete"]').click()
    page.get_by_role("dialog", name=phrase("jobs.confirm_delete").text()).get_by_role("button", name="Delete").click()
    expect(page.locator(".omni-far")).to_have_count(0)


def test_behind_a_prefix(prefixed: str, visit: Callable[..., Visit]) -> None:
    page = visit(prefixed).page
    captions_and_deletes(page, page)
    page.close()


def test_in_a_frame_of_another_site(scribe: Scribe, tmp_path: Path, framed: Callable[[str], Frame]) -> None:
    with captioning(scribe, tmp_path) as app:
        frame = framed(app.url)
        captions_and_deletes(frame, frame.page)
        frame.page.close()
