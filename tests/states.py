"""The states of the page that people meet, each driven over a scripted engine, for tests of all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from playwright.sync_api import expect

from omni_backend import (
    AudioDelta,
    Capabilities,
    GenerationFailed,
    ReasoningDelta,
    ScriptedBackend,
    TextDelta,
    phrase,
)
from omni_backend.base import ReportProgress
from omni_ui.server import App
from tests.browser import EXAMPLES, Visit
from tests.serving import serving

FOREVER: Final = 3600.0
QUESTION: Final = "What is *this*?\n  And <b>that</b>?"
MARKDOWN: Final = f"""# Heading
Some **bold**, *slanted* and `short code` words, and a [link](https://example.org/).

## Second
1. first
2. second
   - a dot

> quoted

| name | value |
|------|-------|
| a    | {"wide" * 20} |

```python
def hello(name: str) -> None:
    print(f"hello {{name}}, {"y" * 80}", 1)  # a remark
```
"""
TONE: Final = AudioDelta((0.3 * np.sin(np.arange(12_000) / 10)).astype(np.float32), 24_000)

Drive = Callable[[Visit, ScriptedBackend], None]


class Stuck(ScriptedBackend):
    """Loads until it is told to be ready."""

    loaded: threading.Event

    def _load(self, report: ReportProgress) -> Capabilities:
        report(phrase("load.waiting"), 0.5)
        self.loaded.wait()
        return super()._load(report)


@contextmanager
def scripted(*, embedded: bool = False) -> Iterator[tuple[ScriptedBackend, App]]:
    """The app over an engine that is ready; with the examples if `embedded`."""
    backend = ScriptedBackend(capabilities=abilities())
    backend.wait_until_ready()
    with serving(backend, embedded=embedded) as app:
        yield backend, app
    backend.close()


@contextmanager
def loading() -> Iterator[App]:
    """The app over an engine that goes on loading."""
    backend = Stuck(capabilities=abilities())
    backend.loaded = threading.Event()
    with serving(backend, embedded=True) as app:
        yield app
    backend.loaded.set()
    backend.close()


@contextmanager
def failing() -> Iterator[App]:
    """The app over an engine that cannot be loaded."""
    backend = ScriptedBackend(load=[GenerationFailed(phrase("backend.load_failed"), detail="no such file: a/b")])
    with serving(backend) as app:
        yield app
    backend.close()


def abilities() -> Capabilities:
    """A checkpoint that speaks with two voices; its engine takes no seed."""
    return Capabilities(
        model="scripted",
        engine="a script",
        outputs=frozenset({"text", "audio"}),
        voices=("ethan", "chelsie"),
        missing_sampling={"seed": phrase("request.one_recording")},
        notices=(phrase("load.waiting"),),
        max_concurrency=4,
    )


def say(page: Visit, text: str) -> None:
    """Sends `text`, whatever the page's language."""
    page.page.locator("#omni-composer textarea").fill(text)
    page.send.click()


def empty(page: Visit, backend: ScriptedBackend) -> None:
    """Before the first message."""


def talked(page: Visit, backend: ScriptedBackend) -> None:
    """Two turns: one of everything, unfolded, and one that was cut short."""
    page.attach(EXAMPLES / "star.png", EXAMPLES / "tone.wav", EXAMPLES / "film.mp4")
    backend.enqueue(ReasoningDelta("Let me see.\n" * 3), TextDelta(MARKDOWN), TONE)
    say(page, QUESTION)
    page.finished()
    page.history.locator("summary").first.click()
    backend.enqueue(TextDelta("Half an answer"), GenerationFailed(phrase("backend.failed"), detail="a cause: 0x7f"))
    say(page, "And then?")
    page.finished(answers=2)
    page.page.locator("#omni-error summary").click()


def writing(page: Visit, backend: ScriptedBackend) -> None:
    """An answer grows under its unfolded thoughts."""
    backend.enqueue(ReasoningDelta("Let me see.\n" * 3), TextDelta("# Heading\nSome **bold** words,"), FOREVER)
    say(page, QUESTION)
    expect(page.live).to_contain_text("bold")
    page.page.locator("#omni-thinking button").click()
    expect(page.page.locator(".omni-thoughts")).to_be_visible()


def waiting(page: Visit, backend: ScriptedBackend) -> None:
    """Nothing of the answer has come yet."""
    backend.enqueue(FOREVER)
    say(page, QUESTION)
    page.page.locator(".omni-waiting").wait_for()


def editing(page: Visit, backend: ScriptedBackend) -> None:
    """An earlier message, with a file, is being changed."""
    page.attach(EXAMPLES / "star.png")
    say(page, QUESTION)
    page.finished()
    page.history.locator('[data-omni="edit"]').click()
    page.page.locator("#omni-editing").wait_for()


def noted(app: App, page: Visit, backend: ScriptedBackend) -> None:
    """The conversation before is gone, and the page says so."""
    say(page, QUESTION)
    page.finished()
    app.sessions.discard(page.page.evaluate("omni.session"))
    page.reload()
    page.page.locator("#omni-notes .omni-notice").wait_for()


def settings(page: Visit, backend: ScriptedBackend) -> None:
    """The panel is open, with all that unfolds in it."""
    page.page.locator("#omni-settings").click()
    page.page.locator("#omni-panel.open").wait_for()
    page.page.locator("#omni-rules summary").click()
    page.page.locator("#omni-sampling > button").click()
    expect(page.page.locator("#omni-sampling input[type=range]").first).to_be_visible()


def voices(page: Visit, backend: ScriptedBackend) -> None:
    """The panel is open and a voice is being chosen."""
    page.page.locator("#omni-settings").click()
    page.page.locator("#omni-panel.open").wait_for()
    page.page.locator("#omni-panel .secondary-wrap input").click()
    page.page.get_by_role("option").first.wait_for()


def recording(page: Visit, backend: ScriptedBackend) -> None:
    """A sound is being recorded, beside a file."""
    page.attach(EXAMPLES / "film.mp4")
    page.page.locator("#omni-composer .microphone-button").click()
    page.page.locator("#omni-composer .recording-overlay .stop-button").wait_for()


def camera(page: Visit, backend: ScriptedBackend) -> None:
    """The camera's window is open."""
    page.page.locator("#omni-composer .omni-camera-button").click()
    page.page.wait_for_function("document.querySelector('#omni-camera video')?.videoWidth > 0")


STATES: Final[dict[str, Drive]] = {
    drive.__name__: drive for drive in (empty, talked, writing, waiting, editing, settings, voices, recording, camera)
}
