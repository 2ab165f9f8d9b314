"""The whole page by keyboard alone: all that a pointer can do, in the order of the screen, the focus always seen."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import expect

from omni_backend import Capabilities, ReasoningDelta, ScriptedBackend, TextDelta, phrase
from omni_ui.server import App
from tests import states
from tests.browser import Visit
from tests.states import FOREVER, STATES

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
STEPS = 80
"""More than any way on the page has."""

# The element with the focus: where it is, and the ring around it (of the whole composer for its words).
FOCUS = """async () => {
  const finite = document.getAnimations().filter((one) => one.effect.getComputedTiming().endTime !== Infinity);
  await Promise.allSettled(finite.map((one) => one.finished));
  const one = document.activeElement;
  const ringed = one.matches("#omni-composer textarea") ? one.closest("#omni-composer") : one;
  const style = getComputedStyle(ringed);
  const box = one.getBoundingClientRect();
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)); // WCAG 2.1
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let ground = ringed;
  while (/, 0\\)$/.test(getComputedStyle(ground).backgroundColor) || ground === ringed) ground = ground.parentElement;
  const colours = [style.outlineColor, getComputedStyle(ground).backgroundColor];
  const [dark, bright] = colours.map(light).sort((a, b) => a - b);
  const { left, right, top, bottom, width, height } = box;
  const write = document.querySelector("#omni-write");
  const cover = write.contains(one) || one.closest("#omni-panel") ? innerHeight : write.getBoundingClientRect().top;
  return {
    what: one.outerHTML.slice(0, 160),
    lost: one === document.body,
    seen: one.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && width > 0 && height > 0,
    inWindow: bottom > 0 && top < Math.min(innerHeight, cover),
    own: one.matches("audio, video") || one.shadowRoot !== null, // the browser's own controls have its own ring
    ring: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
    contrast: (bright + 0.05) / (dark + 0.05),
    left, right, top: top + scrollY, bottom: bottom + scrollY,
    inPanel: one.closest("#omni-panel") !== null,
  };
}"""


@dataclass
class Keys:
    """Hands that only have a keyboard."""

    page: Visit

    def press(self, key: str) -> None:
        self.page.page.keyboard.press(key)

    def focus(self) -> dict[str, Any]:
        """What has the focus; it must be there to be seen."""
        found: dict[str, Any] = self.page.page.evaluate(FOCUS)
        assert not found["lost"]
        assert found["seen"], found
        assert found["inWindow"], found
        assert found["own"] or (found["ring"] >= 2 and found["contrast"] >= 3), found
        return found

    def on(self, selector: str) -> bool:
        return bool(self.page.page.evaluate("(it) => document.activeElement.matches(it)", selector))

    def to(self, selector: str, key: str = "Tab") -> None:
        """Goes on until `selector` has the focus."""
        for _ in range(STEPS):
            self.press(key)
            if not self.on("body"):  # the end of the page, before its beginning
                self.focus()
            if self.on(selector):
                return
        raise AssertionError(f"{selector} cannot be reached")

    def back_to(self, selector: str) -> None:
        self.to(selector, "Shift+Tab")


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


def test_a_conversation(page: Visit, backend: ScriptedBackend) -> None:
    keys = Keys(page)
    keys.to("#omni-examples button")
    keys.press("Enter")
    composing(page, "Hello!")
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
    keys = Keys(page)
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
    keys = Keys(page)
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


def inside(one: dict[str, Any], other: dict[str, Any]) -> bool:
    across = other["left"] <= one["left"] and one["right"] <= other["right"]
    return bool(across and other["top"] <= one["top"] and one["bottom"] <= other["bottom"])


@pytest.mark.parametrize("state", ["empty", "talked"])
def test_the_order_is_that_of_the_screen(page: Visit, backend: ScriptedBackend, state: str) -> None:
    STATES[state](page, backend)
    keys = Keys(page)
    keys.to("body")  # beyond the end, before the beginning
    found = []
    for _ in range(STEPS):
        keys.press("Tab")
        if keys.on("body"):
            break
        found.append(keys.focus())
    assert len(found) > 10
    assert not any(one["inPanel"] for one in found)
    for one, then in itertools.pairwise(found):
        below, beside = then["top"] >= one["bottom"] - 1, then["left"] >= one["right"] - 1
        within = inside(one, then) or inside(then, one)  # a player's own controls, a button on its code
        assert below or beside or within, f"{one['what']}\nbefore {then['what']}"
