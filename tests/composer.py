"""What the browser tests of the composer share: its controls, what is attached, what the engine got of it."""

from __future__ import annotations

import re
from typing import Final

from playwright.sync_api import Locator, Route, expect

from omni_backend import MediaPart, ScriptedBackend, TextPart
from tests.browser import Visit
from tests.waiting import wait_until

UPLOAD: Final = re.compile(r"/upload(\?|$)")
"""The address of an upload."""


def previews(page: Visit) -> Locator:
    return page.page.get_by_role("list", name="Attached files").get_by_role("listitem")


def button(page: Visit, name: str) -> Locator:
    return page.page.locator("#omni-composer").get_by_role("button", name=name, exact=True)


def names(page: Visit, *expected: str) -> None:
    """Waits until exactly these files are attached, in this order, and their names can be read."""
    expect(page.page.locator("#omni-composer .omni-name")).to_have_text(list(expected))
    for preview, name in zip(previews(page).all(), expected, strict=True):
        expect(preview).to_have_accessible_name(name)


def sent(backend: ScriptedBackend) -> list[tuple[str, str]]:
    """Type and name of each file of the newest message."""
    return [(part.type, part.label) for part in media(backend)]


def media(backend: ScriptedBackend) -> list[MediaPart]:
    return [part for part in backend.requests[-1].messages[-1].content if isinstance(part, MediaPart)]


def words(backend: ScriptedBackend) -> list[str]:
    return [part.text for part in backend.requests[-1].messages[-1].content if isinstance(part, TextPart)]


class Gate:
    """Holds uploads back until the test lets them go."""

    def __init__(self, page: Visit) -> None:
        self._page = page.page
        self._held: list[Route] = []
        self._page.route(UPLOAD, lambda route: self._held.append(route))

    def next(self) -> Route:
        """The next upload that has come."""
        wait_until(lambda: self._page.evaluate("true") and self._held, "the upload")
        return self._held.pop(0)

    def open(self) -> None:
        """Lets all go that come from now on."""
        self._page.unroute(UPLOAD)


def recorded(page: Visit, seconds: int = 2) -> None:
    """Records the fake microphone, which beeps, for so long."""
    button(page, "Record a sound").click()
    expect(page.page.locator("#omni-composer .timestamp")).to_have_text(re.compile(rf"^0:0[{seconds}-9]$"))
