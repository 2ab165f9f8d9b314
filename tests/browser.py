"""A real Chromium for tests: one for the whole test session, a fresh context for each page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Frame, Locator, Page, Route, expect, sync_playwright

EXAMPLES = Path(__file__).resolve().parent.parent / "assets" / "examples"
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True}
HOST = "https://host.example/"
LOCAL = "local-network-access"  # what a browser asks for here only: the host is no machine of this network
ALLOW = f"microphone; camera; autoplay; clipboard-write; {LOCAL}"
FRAME = '<!doctype html><iframe src="{url}" allow="{allow}" style="width: 1000px; height: 700px"></iframe>'
LEFT = ("console: AbortError: signal is aborted", "console: Unexpected error Connection errored out.")
"""What Gradio's script logs as a page is left whose stream is still open: it ends the stream itself."""
PATIENCE_MS = 60_000
"""For what a page does on a machine that has much else to do."""
expect.set_options(timeout=20_000)  # for the same reason; what comes at once costs nothing
ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),  # a microphone that beeps
)


@dataclass
class Visit:
    """One open page of the app, with what went wrong on it."""

    page: Page
    url: str
    problems: list[str] = field(default_factory=list)

    @property
    def composer(self) -> Locator:
        return self.page.get_by_role("textbox", name="Message")

    @property
    def history(self) -> Locator:
        return self.page.locator("#omni-history")

    @property
    def live(self) -> Locator:
        return self.page.locator("#omni-live")

    @property
    def alert(self) -> Locator:
        return self.page.get_by_role("alert")

    @property
    def stop(self) -> Locator:
        return self.page.locator("#omni-composer .stop-button")

    @property
    def send(self) -> Locator:
        return self.page.locator("#omni-composer .submit-button")

    def attach(self, *files: Any) -> None:
        """Chooses files as people do, by the composer's button, and waits until they are uploaded."""
        shown = self.page.locator("#omni-composer .thumbnail-item")
        before = shown.count()
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("#omni-composer .omni-attach-button").click()
        chooser.value.set_files(list(files))
        shown.nth(before + len(files) - 1).wait_for()

    def say(self, text: str) -> None:
        """Writes `text` and sends it by a click, which lets the page sound."""
        self.composer.fill(text)
        self.send.click()

    def reload(self) -> None:
        """Loads the page again; that streams of the page before have ended is no problem."""
        known = len(self.problems)
        self.page.reload()
        self.problems[known:] = [problem for problem in self.problems[known:] if not problem.startswith(LEFT)]

    def forgive(self, status: int) -> None:
        """Forgets answers with this status: what the browser itself writes of them cannot be kept from its console."""
        about = re.compile(rf"^{status}: |status of {status} ")
        self.problems[:] = [problem for problem in self.problems if not about.search(problem)]

    def finished(self, answers: int = 1) -> None:
        """Waits until so many answers are in the history and a new message can be sent."""
        self.history.locator(".bot-row").nth(answers - 1).wait_for()
        self.send.wait_for()

    def player(self) -> tuple[str, int]:
        """The player's state and how often it ran dry."""
        state, underruns = self.page.evaluate("[omniPlayer.state, omniPlayer.underruns]")
        return str(state), int(underruns)


def settle(page: Page) -> None:
    """Waits out the frame in which Gradio writes its values into what was just unfolded, over what is typed there."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Browser tests come last: Playwright keeps the main thread's event loop for itself from its start on."""
    items.sort(key=lambda item: item.get_closest_marker("browser") is not None)


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    """The browser of the whole test session."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens pages for one test."""
    with visits(browser) as open_page:
        yield open_page


@contextmanager
def visits(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Opens the page of an address in a context of its own; at the end no visit may have had a problem."""
    contexts: list[BrowserContext] = []
    made: list[Visit] = []

    def open_page(url: str, *, wait: bool = True, **options: Any) -> Visit:
        context = browser.new_context(**({"locale": "en-GB", "viewport": {"width": 1280, "height": 800}} | options))
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        visit = Visit(context.new_page(), url)
        made.append(visit)
        _watch(visit)
        visit.page.goto(url)
        if wait:
            _filled(visit.page)
        return visit

    yield open_page
    for context in contexts:
        context.close()
    assert [problem for visit in made for problem in visit.problems] == []


@pytest.fixture
def framed(browser: Browser) -> Iterator[Callable[[str], Frame]]:
    """Opens an address in a frame of another site; at the end nothing may have gone wrong there."""
    context = browser.new_context(
        locale="en-GB", viewport={"width": 1100, "height": 800}, permissions=[LOCAL, "microphone", "camera"]
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    problems: list[str] = []
    _note_problems(page, problems)

    def open_frame(url: str) -> Frame:
        def answer(route: Route) -> None:
            route.fulfill(body=FRAME.format(url=url, allow=ALLOW), content_type="text/html")

        page.route(HOST, answer)
        page.goto(HOST)
        frame = page.locator("iframe").element_handle().content_frame()
        assert frame is not None
        _filled(frame)
        return frame

    yield open_frame
    context.close()
    assert problems == []


def _filled(page: Page | Frame) -> None:
    """Waits for the engine, and then for the settings: they come with the next answer of the server."""
    page.locator(".omni-ready").wait_for()
    page.locator("#omni-panel .info-text").first.wait_for(state="attached")


def _watch(visit: Visit) -> None:
    """Notes errors on the console, failed answers and requests to other machines."""
    page, problems = visit.page, visit.problems
    _note_problems(page, problems)

    def look(url: str) -> None:
        if not url.startswith((visit.url, "blob:", "data:")):
            problems.append(f"outside: {url}")

    page.on("request", lambda request: look(request.url))


def _note_problems(page: Page, problems: list[str]) -> None:
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("console", lambda line: problems.append(f"console: {line.text}") if line.type == "error" else None)
    page.on("response", lambda reply: problems.append(f"{reply.status}: {reply.url}") if reply.status >= 400 else None)
