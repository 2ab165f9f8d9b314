"""Hands that only have a keyboard: where the focus is, whether it can be seen, and in which order it goes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page

STEPS = 80
"""More than any way on the page has."""

# The element with the focus: where it is, and the ring around it (of the whole composer for its words).
FOCUS = """async () => {
  const finite = document.getAnimations() // those of what is not seen would never end
    .filter(({ effect }) => effect.getComputedTiming().endTime !== Infinity && effect.target.checkVisibility());
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
  const covered = write && !write.contains(one) && !one.closest("#omni-panel");
  const cover = covered ? write.getBoundingClientRect().top : innerHeight;
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

    page: Page

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

    def focus(self) -> dict[str, Any]:
        """What has the focus; it must be there to be seen."""
        found: dict[str, Any] = self.page.evaluate(FOCUS)
        assert not found["lost"]
        assert found["seen"], found
        assert found["inWindow"], found
        assert found["own"] or (found["ring"] >= 2 and found["contrast"] >= 3), found
        return found

    def on(self, selector: str) -> bool:
        return bool(self.page.evaluate("(it) => document.activeElement.matches(it)", selector))

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


def in_order(keys: Keys) -> None:
    """Goes once through the whole page: from above to below, from left to right, and not into the closed panel."""
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


def inside(one: dict[str, Any], other: dict[str, Any]) -> bool:
    across = other["left"] <= one["left"] and one["right"] <= other["right"]
    return bool(across and other["top"] <= one["top"] and one["bottom"] <= other["bottom"])
