"""The caption page for everybody: axe-core, fingers, narrow windows and every word, in every state of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from omni_backend import Capabilities, GenerationFailed, ScriptedBackend, phrase
from tests.access import LANGUAGE, LOOKS, check_all, looking
from tests.browser import Visit
from tests.caption_page import OpenCaptions, Scribe
from tests.caption_states import CAPTION_STATES
from tests.serving import captioning
from tests.states import Stuck
from tests.words import strange

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return Capabilities(
        "scripted",
        "a script",
        audio_window_seconds=5,
        missing_sampling={"seed": phrase("request.one_recording")},
        notices=(phrase("load.waiting"),),
    )


@pytest.fixture(scope="module")
def embedded() -> bool:
    return True


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("state", CAPTION_STATES)
def test_every_state_is_for_everybody(open_captions: OpenCaptions, scribe: Scribe, state: str, look: str) -> None:
    page = open_captions(**looking(look))
    CAPTION_STATES[state](page, scribe)
    check_all(page.page, LANGUAGE[look], phrase("captioner.start"))
    if state == "written":  # in which the test has forged an answer
        page.visit.forgive(500)


@pytest.mark.parametrize("browser_language", ["de-DE", "zh-HK"])
def test_gradio_speaks_the_language_of_the_page(
    open_captions: OpenCaptions, scribe: Scribe, browser_language: str
) -> None:
    page = open_captions(locale=browser_language)
    CAPTION_STATES["given"](page, scribe)
    assert strange(page.page, "zh" if browser_language.startswith("zh") else "en") == []


@pytest.mark.parametrize("look", LOOKS)
def test_before_and_without_the_engine(visit: Callable[..., Visit], tmp_path: Path, look: str) -> None:
    stuck = Stuck()
    stuck.loaded = threading.Event()
    with captioning(stuck, tmp_path / "stuck") as app:
        page = visit(app.url, wait=False, **looking(look, "en"))
        page.page.get_by_role("progressbar").wait_for()
        check_all(page.page, "en", phrase("load.waiting"))
        page.page.close()
    stuck.loaded.set()
    stuck.close()
    broken = ScriptedBackend(load=[GenerationFailed(phrase("backend.load_failed"), detail="no such file: a/b")])
    with captioning(broken, tmp_path / "broken") as app:
        page = visit(app.url, wait=False, **looking(look, "zh"))
        page.page.locator("#omni-status summary").click()
        check_all(page.page, "zh", phrase("backend.load_failed"))
        page.page.close()
    broken.close()
