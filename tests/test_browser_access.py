"""For everybody: what axe-core says of every state of the page, touch, a narrow window, every word, and no jumps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from omni_backend import Capabilities, Language, ReasoningDelta, ScriptedBackend, TextDelta, phrase
from omni_ui.server import App
from tests import states
from tests.access import LANGUAGE, LOOKS, check_all, looking, settle
from tests.browser import Visit
from tests.states import FOREVER, STATES, failing, loading, noted, say, scripted

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return states.abilities()


@pytest.mark.parametrize(
    ("state", "look", "language"),
    [*((state, look, LANGUAGE[look]) for state in STATES for look in LOOKS)]
    + [(state, "wide", "en") for state in ("talked", "settings")],
)
def test_every_state_is_for_everybody(
    app: App, visit: Open, backend: ScriptedBackend, state: str, look: str, language: Language
) -> None:
    page = visit(app.url, **looking(look, language))
    STATES[state](page, backend)
    check_all(page.page, language, phrase("ui.restart"))


@pytest.mark.parametrize("look", LOOKS)
def test_before_and_without_the_engine(visit: Open, look: str) -> None:
    with loading() as app:
        page = visit(app.url, wait=False, **looking(look))
        page.page.get_by_role("progressbar").wait_for()
        check_all(page.page, LANGUAGE[look], phrase("load.waiting"))
        page.page.close()
    with failing() as app:
        page = visit(app.url, wait=False, **looking(look))
        page.page.locator("#omni-status summary").click()
        check_all(page.page, LANGUAGE[look], phrase("backend.load_failed"))
        page.page.close()


@pytest.mark.parametrize("look", LOOKS)
def test_examples(visit: Open, look: str) -> None:
    with scripted(embedded=True) as (_, app):
        page = visit(app.url, **looking(look))
        expect(page.page.locator("#omni-examples button")).not_to_have_count(0)
        check_all(page.page, LANGUAGE[look], phrase("ui.embedded"))
        page.page.close()


@pytest.mark.parametrize("look", LOOKS)
def test_a_conversation_that_is_gone(app: App, visit: Open, backend: ScriptedBackend, look: str) -> None:
    page = visit(app.url, **looking(look))
    noted(app, page, backend)
    check_all(page.page, LANGUAGE[look], phrase("session.gone_idle", minutes="60"))


# Where the words stand and how they look.
PLACE = """() => [".omni-said", ".omni-thoughts", ".message-content h1", ".message-content p"].map((part) => {
  const one = document.querySelector(`#omni-talk ${part}`);
  const { left, top, width, height } = one.getBoundingClientRect();
  const { fontSize, lineHeight, color } = getComputedStyle(one);
  return [part, left, top + scrollY, width, height, fontSize, lineHeight, color];
})"""


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_moves_when_an_answer_is_whole(app: App, visit: Open, backend: ScriptedBackend, look: str) -> None:
    page = visit(app.url, **looking(look))
    written = "# Heading\n\nSome **bold** words."
    backend.enqueue(ReasoningDelta("Let me see.\n" * 3), TextDelta(written), FOREVER)
    say(page, "Hi")
    expect(page.live).to_contain_text("bold")
    page.page.locator("#omni-thinking button").click()
    expect(page.page.locator(".omni-thoughts")).to_be_visible()
    settle(page.page)
    growing = page.page.evaluate(PLACE)
    page.stop.click()
    page.finished()
    expect(page.live).to_have_count(0)
    settle(page.page)
    assert page.page.evaluate(PLACE) == growing
