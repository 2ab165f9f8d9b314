"""The caption page for browser tests: what is given, the job on its board, the captions of one file.

`captioner` serves it over an engine that is scripted window by window, once for each test file; a file overrides
`abilities` or `embedded` of `scripted_app.py` where it needs another engine or page.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from omni_backend import Capabilities, ChatRequest, MediaPart, ScriptedBackend, StreamEvent
from omni_backend.scripted import Step
from omni_ui.captioner.desk import DeskJob
from omni_ui.captioner.server import CaptionApp
from tests.browser import Visit
from tests.media_files import sound_file
from tests.serving import captioning

OpenCaptions = Callable[..., "CaptionPage"]


class Scribe(ScriptedBackend):
    """Plays a script for a window of a file, whenever it is asked about it; "ok" where there is none."""

    def __init__(self, capabilities: Capabilities | None = None, **options: Any) -> None:
        super().__init__(capabilities=capabilities, **options)
        self._windows: defaultdict[str, deque[Sequence[Step]]] = defaultdict(deque)

    def write(self, window: str, *steps: Step) -> None:
        """Adds the script for one more request about "<file>-<window>": "2-0" is the first of the second file."""
        self._windows[window].append(steps)

    @property
    def asked(self) -> Counter[str]:
        """How often it was asked about each window."""
        return Counter(map(_window, self.requests))

    def forget(self) -> None:
        """As if it had been neither asked nor told anything."""
        self._windows.clear()
        self.requests.clear()

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        scripts = self._windows[_window(request)]
        if scripts:
            self.enqueue(*scripts.popleft())
        async with aclosing(super()._stream(request)) as events:
            async for event in events:
                yield event


def _window(request: ChatRequest) -> str:
    [sound] = [part for part in request.messages[-1].content if isinstance(part, MediaPart)]
    return Path(sound.path).stem


@dataclass(frozen=True, slots=True)
class CaptionPage:
    """One open page of the captioner."""

    visit: Visit

    @property
    def page(self) -> Page:
        return self.visit.page

    @property
    def given(self) -> Locator:
        """The names of the files that wait for the job to be made."""
        return self.page.locator("#omni-files .filename")

    @property
    def far(self) -> Locator:
        """How far the job is."""
        return self.page.locator(".omni-far")

    @property
    def rows(self) -> Locator:
        return self.page.locator(".omni-table tbody tr")

    @property
    def boxes(self) -> Locator:
        """The captions of the open file."""
        return self.page.locator(".omni-open textarea")

    @property
    def writing(self) -> Locator:
        """The captions that are being written."""
        return self.page.locator(".omni-writing")

    @property
    def told(self) -> Locator:
        """What the page's own scripts have to say."""
        return self.page.locator("#omni-refused")

    @property
    def error(self) -> Locator:
        """Why no job was made."""
        return self.page.locator("#omni-error")

    @property
    def earlier(self) -> Locator:
        return self.page.locator("#omni-earlier button")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def row(self, name: str) -> Locator:
        """The line of the table of one file."""
        return self.rows.filter(has=self.page.get_by_role("button", name=name, exact=True))

    def give(self, *files: Any) -> None:
        """Chooses files and waits until they are uploaded."""
        before = self.given.count()
        self.page.locator("#omni-files input[type=file]").set_input_files(list(files))
        expect(self.given).to_have_count(before + len(files))

    def start(self) -> None:
        self.page.locator("#omni-start").click()

    def caption(self, *files: Any) -> None:
        """Makes a job of files."""
        self.give(*files)
        self.start()
        self.far.wait_for()

    def ended(self) -> None:
        """Waits until nothing of the job runs any more."""
        self.far.wait_for()
        expect(self.page.locator(".omni-summary progress")).to_have_count(0)
        expect(self.button("Stop")).to_have_count(0)

    def reads(self, *captions: str) -> None:
        """Waits until exactly these are the captions of the open file."""
        expect(self.boxes).to_have_count(len(captions))
        for box, caption in zip(self.boxes.all(), captions, strict=True):
            expect(box).to_have_value(caption)

    def time(self) -> float:
        """Where the player is, in seconds."""
        return float(self.page.locator(".omni-player :is(audio, video)").evaluate("(sound) => sound.currentTime"))


def sounds(folder: Path, names: Sequence[str], *, seconds: float = 0.2) -> list[Path]:
    """Files of a tone with these names."""
    contents = sound_file("wav", seconds=seconds)
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    return paths


def jobs_of(app: CaptionApp, folder: Path) -> list[DeskJob]:
    """All jobs that the app keeps in `folder`."""
    found = [app.desk.get(path.name) for path in folder.iterdir() if path.is_dir()]
    return [job for job in found if job is not None]


@pytest.fixture(scope="module")
def jobs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the jobs of `captioner` lie."""
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def scribe(abilities: Capabilities | None) -> Iterator[Scribe]:
    """The engine of `captioner`, ready."""
    scribe = Scribe(abilities)
    scribe.wait_until_ready()
    yield scribe
    scribe.close()


@pytest.fixture(scope="module")
def captioner(scribe: Scribe, jobs_dir: Path, embedded: bool) -> Iterator[CaptionApp]:
    """The captioner over `scribe`."""
    with captioning(scribe, jobs_dir, embedded=embedded) as app:
        yield app


@pytest.fixture
def without_jobs(captioner: CaptionApp, scribe: Scribe, jobs_dir: Path) -> Iterator[None]:
    """At the end there is no job any more, and the engine is as new."""
    yield
    for job in jobs_of(captioner, jobs_dir):
        captioner.desk.delete(job)
    scribe.forget()


@pytest.fixture
def open_captions(captioner: CaptionApp, without_jobs: None, visit: Callable[..., Visit]) -> OpenCaptions:
    """Opens the captioner's page; takes the options of `visit`."""
    return lambda **options: CaptionPage(visit(captioner.url, **options))


@pytest.fixture
def captions(open_captions: OpenCaptions) -> CaptionPage:
    """The captioner's page in a wide window."""
    return open_captions()
