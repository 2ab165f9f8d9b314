"""What every state of a page must be for everybody: without barriers, fit for fingers, as wide as its window."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from omni_backend import Language, Phrase
from tests.axe import violations
from tests.browser import PHONE
from tests.words import BROWSERS, strange, words

LOOKS: dict[str, dict[str, Any]] = {"wide": {"viewport": {"width": 1280, "height": 800}}, "phone": PHONE}
LANGUAGE: dict[str, Language] = {"wide": "zh", "phone": "en"}
"""The longer words where there is less room."""
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
    const whole = one.matches("[type=checkbox], [type=radio]") ? one.closest("label")
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


def looking(look: str, language: Language | None = None) -> dict[str, Any]:
    """A browser's options for a look at a page. `language`: None: the one in `LANGUAGE`."""
    return {"reduced_motion": "reduce", "locale": BROWSERS[language or LANGUAGE[look]], **LOOKS[look]}


def settle(page: Page) -> None:
    """Waits until nothing moves any more: a colour on its way to another has no contrast of its own."""
    page.evaluate(
        "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn))).then(() => "
        "Promise.all(document.getAnimations().filter(({ effect }) => "
        "effect.getComputedTiming().endTime !== Infinity && effect.target.checkVisibility())"
        ".map((one) => one.finished)))"
    )


def check_all(page: Page, language: Language, said: Phrase) -> None:
    """The page says `said`, nothing that is not in the catalogue, and is for everybody."""
    assert said.text(language) in words(page)
    assert strange(page, language) == []
    check(page)


def check(page: Page) -> None:
    """What every state must be: without barriers, light and dark; as wide as the window; fit for fingers on phones."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        expect(page.locator("body.dark")).to_have_count(int(scheme == "dark"))
        settle(page)
        assert violations(page) == [], scheme
    fits(page)
    if page.evaluate("navigator.maxTouchPoints > 0"):
        assert page.evaluate(SMALL) == []
        page.set_viewport_size(NARROW)
        settle(page)
        fits(page)


def fits(page: Page) -> None:
    """Nothing sticks out of the window, no word is cut."""
    assert page.evaluate(OVERFLOW) == 0
    assert page.evaluate(CUT) == []
