"""For everybody: what axe-core says of every state of the page, touch, a narrow window, and no jumps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from omni_backend import Capabilities, ReasoningDelta, ScriptedBackend, TextDelta
from omni_ui.server import App
from tests import states
from tests.axe import violations
from tests.browser import PHONE, Visit
from tests.states import FOREVER, STATES, failing, loading, noted, say, scripted

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
LOOKS: dict[str, dict[str, Any]] = {"wide": {"viewport": {"width": 1280, "height": 800}}, "phone": PHONE}
NARROW: Any = {"width": 320, "height": 780}

# What can be touched, its name and the size of its target: of its label, if that is touched in its place. Links
# in running text are as high as their line (WCAG 2.5.8 lets them).
SMALL = """() => {
  const touched = "button, input, select, textarea, summary, a[href], audio, video, [tabindex='0'], " +
    "[role=button], [role=option]";
  const small = [];
  for (const one of document.querySelectorAll(touched)) {
    const seen = one.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    if (!seen || one.matches(".message-content p a, .message-content li a, pre, table")) continue;
    const whole = one.matches("[type=checkbox]") ? one.closest("label")
      : one.matches("#omni-composer textarea") ? one.closest(".input-row") : one;
    const { width, height } = whole.getBoundingClientRect();
    if (width < 44 || height < 44) small.push(`${width}x${height} ${one.outerHTML.slice(0, 200)}`);
  }
  return small;
}"""
OVERFLOW = "document.scrollingElement.scrollWidth - innerWidth"
CUT = """() => [...document.querySelectorAll("button, summary, label, p, h1, .omni-said, .info-text")]
  .filter((one) => one.checkVisibility({ visibilityProperty: true }) && !one.matches(".omni-name, pre *"))
  .filter((one) => {
    const { left, right } = one.getBoundingClientRect();
    return left < 0 || right > innerWidth || one.scrollWidth > Math.ceil(right - left);
  })
  .filter((one) => !one.closest("pre, table, .thumbnails") && !one.matches("#omni-heard"))
  .map((one) => one.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return states.abilities()


def settle(page: Visit) -> None:
    """Waits until nothing moves any more: a colour on its way to another has no contrast of its own."""
    page.page.evaluate(
        "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))).then(() => "
        "Promise.all(document.getAnimations().filter((one) => "
        "one.effect.getComputedTiming().endTime !== Infinity).map((one) => one.finished)))"
    )


def check(page: Visit) -> None:
    """What every state must be: without barriers, light and dark; as wide as the window; fit for fingers on phones."""
    for scheme in ("light", "dark"):
        page.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        expect(page.page.locator("body.dark")).to_have_count(int(scheme == "dark"))
        settle(page)
        assert violations(page.page) == [], scheme
    fits(page)
    if page.page.evaluate("navigator.maxTouchPoints > 0"):
        assert page.page.evaluate(SMALL) == []
        page.page.set_viewport_size(NARROW)
        settle(page)
        fits(page)


def fits(page: Visit) -> None:
    """Nothing sticks out of the window, no word is cut."""
    assert page.page.evaluate(OVERFLOW) == 0
    assert page.page.evaluate(CUT) == []


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("state", STATES)
def test_every_state_is_for_everybody(app: App, visit: Open, backend: ScriptedBackend, state: str, look: str) -> None:
    page = visit(app.url, reduced_motion="reduce", **LOOKS[look])
    STATES[state](page, backend)
    check(page)


@pytest.mark.parametrize("look", LOOKS)
def test_before_and_without_the_engine(visit: Open, look: str) -> None:
    with loading() as app:
        page = visit(app.url, wait=False, **LOOKS[look])
        page.page.get_by_role("progressbar").wait_for()
        check(page)
        page.page.close()
    with failing() as app:
        page = visit(app.url, wait=False, **LOOKS[look])
        page.page.locator("#omni-status summary").click()
        check(page)
        page.page.close()


@pytest.mark.parametrize("look", LOOKS)
def test_examples(visit: Open, look: str) -> None:
    with scripted(embedded=True) as (_, app):
        page = visit(app.url, **LOOKS[look])
        expect(page.page.locator("#omni-examples button")).not_to_have_count(0)
        check(page)
        page.page.close()


@pytest.mark.parametrize("look", LOOKS)
def test_a_conversation_that_is_gone(app: App, visit: Open, backend: ScriptedBackend, look: str) -> None:
    page = visit(app.url, **LOOKS[look])
    noted(app, page, backend)
    check(page)


# Where the words stand and how they look.
PLACE = """() => [".omni-said", ".omni-thoughts", ".message-content h1", ".message-content p"].map((part) => {
  const one = document.querySelector(`#omni-talk ${part}`);
  const { left, top, width, height } = one.getBoundingClientRect();
  const { fontSize, lineHeight, color } = getComputedStyle(one);
  return [part, left, top + scrollY, width, height, fontSize, lineHeight, color];
})"""


@pytest.mark.parametrize("look", LOOKS)
def test_nothing_moves_when_an_answer_is_whole(app: App, visit: Open, backend: ScriptedBackend, look: str) -> None:
    page = visit(app.url, reduced_motion="reduce", **LOOKS[look])
    written = "# Heading\n\nSome **bold** words."
    backend.enqueue(ReasoningDelta("Let me see.\n" * 3), TextDelta(written), FOREVER)
    say(page, "Hi")
    expect(page.live).to_contain_text("bold")
    page.page.locator("#omni-thinking button").click()
    expect(page.page.locator(".omni-thoughts")).to_be_visible()
    settle(page)
    growing = page.page.evaluate(PLACE)
    page.stop.click()
    page.finished()
    expect(page.live).to_have_count(0)
    settle(page)
    assert page.page.evaluate(PLACE) == growing
