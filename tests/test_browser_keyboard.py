"""The whole page by keyboard alone: all that a pointer can do, in the order of the screen, the focus always seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from omni_backend import Capabilities, ReasoningDelta, ScriptedBackend, TextDelta, phrase
from omni_ui.server import App
from tests import states
from tests.browser import Visit, settle
from tests.keys import Keys, in_order
from tests.states import FOREVER, STATES

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return states.abilities()


@pytest.fixture(scope="module")
def embedded() -> bool:
    return True


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["wide", "phone"])
def page(app: App, visit: Open, request: pytest.FixtureRequest) -> Visit:
    width, scheme = request.param
    page = visit(app.url, viewport={"width": width, "height": 780}, color_scheme=scheme, reduced_motion="reduce")
    page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    return page


COMPOSER = "#omni-composer textarea"


def composing(page: Visit, text: str) -> None:
    """The focus is in the composer, on `text`."""
    expect(page.page.locator(COMPOSER)).to_be_focused()
    expect(page.page.locator(COMPOSER)).to_have_value(text)


def test_an_example(page: Visit, backend: ScriptedBackend) -> None:
    keys = Keys(page.page)
    keys.to("#omni-examples button")
    backend.enqueue(TextDelta("A circle."))
    keys.press("Enter")
    page.finished()
    expect(page.history).to_contain_text("A circle.")
    composing(page, "")


def test_a_conversation(page: Visit, backend: ScriptedBackend) -> None:
    keys = Keys(page.page)
    keys.to(COMPOSER)
    page.page.keyboard.type("Hello!")
    backend.enqueue(ReasoningDelta("Let me see."), TextDelta("Half an answer"), FOREVER)
    keys.press("Enter")
    expect(page.live).to_contain_text("Half an answer")
    composing(page, "")
    keys.to("#omni-composer .stop-button")
    keys.press("Space")
    page.finished()
    composing(page, "")
    keys.back_to("#omni-history summary")
    keys.press("Enter")
    expect(page.history.get_by_text("Let me see.")).to_be_visible()
    keys.to(".bot-row [data-omni=copy]")
    keys.press("Enter")
    expect(page.page.locator("#omni-heard")).to_have_text("Copied.")
    assert page.page.evaluate("navigator.clipboard.readText()") == "Half an answer"
    keys.back_to("[data-omni=edit]")
    keys.press("Enter")
    composing(page, "Hello!")
    backend.enqueue(TextDelta("A second answer."))
    keys.press("Control+End")
    page.page.keyboard.type(" Again.")
    keys.to("#omni-composer .submit-button")
    keys.press("Enter")
    expect(page.history).to_contain_text("A second answer.")
    composing(page, "")
    backend.enqueue(TextDelta("A third answer."))
    keys.back_to("[data-omni=retry]")
    keys.press("Enter")
    expect(page.history).to_contain_text("A third answer.")
    composing(page, "")
    keys.back_to("[data-omni=undo]")
    keys.press("Enter")
    composing(page, "Hello! Again.")
    expect(page.history.locator(".message-row")).to_have_count(0)


def test_the_settings(page: Visit, backend: ScriptedBackend) -> None:
    keys = Keys(page.page)
    keys.to("#omni-settings")
    keys.press("Enter")
    expect(page.page.locator("#omni-panel .toggle-button")).to_be_focused()
    keys.to("#omni-panel .secondary-wrap input")
    page.page.get_by_role("option").first.wait_for()
    keys.press("ArrowDown")
    keys.press("Enter")
    expect(page.page.locator("#omni-panel .secondary-wrap input")).to_have_value("chelsie")
    keys.to("#omni-sampling .label-wrap")
    keys.press("Enter")
    expect(page.page.locator("#omni-sampling input[type=range]").first).to_be_visible()
    settle(page.page)
    keys.to("#omni-sampling input[type=range]")
    keys.press("ArrowRight")
    keys.press("Escape")
    expect(page.page.locator("#omni-panel")).not_to_have_class("open")
    expect(page.page.locator("#omni-settings")).to_be_focused()
    keys.focus()
    keys.to(COMPOSER)
    page.page.keyboard.type("Hi")
    keys.press("Enter")
    page.finished()
    assert backend.requests[-1].voice == "chelsie"
    sampling = backend.requests[-1].sampling
    assert sampling is not None
    assert sampling.temperature == pytest.approx(0.75)


def test_another_language_and_a_new_chat(page: Visit, backend: ScriptedBackend) -> None:
    keys = Keys(page.page)
    keys.to(COMPOSER)
    page.page.keyboard.type("Hi")
    keys.press("Enter")
    page.finished()
    keys.back_to("#omni-languages a")
    keys.press("Enter")
    expect(page.page.locator("#omni-restart")).to_have_text(phrase("ui.restart").text("zh"))
    page.page.locator(".message-row").first.wait_for()
    keys.to("#omni-restart")
    keys.press("Enter")
    expect(page.page.locator(".message-row")).to_have_count(0)
    composing(page, "")


@pytest.mark.parametrize("state", ["empty", "talked"])
def test_the_order_is_that_of_the_screen(page: Visit, backend: ScriptedBackend, state: str) -> None:
    STATES[state](page, backend)
    in_order(Keys(page.page))
