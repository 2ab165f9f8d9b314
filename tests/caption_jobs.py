"""What the tests of caption jobs share: made-up captions, an engine that says which window it hears, a full disk."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from omni_backend import Capabilities, ChatRequest, MediaPart, ScriptedBackend, StreamEvent, TextDelta
from omni_backend.caption import CaptionSettings
from omni_backend.caption.collect import Found
from omni_backend.caption.store import Item, JobStore
from omni_backend.caption.windows import RATE, Window
from omni_backend.media import MediaLoader
from omni_backend.scripted import Step
from omni_backend.wav import wav

ENDLESS: Final[tuple[Step, ...]] = (TextDelta("on and "), 0.01) * 100_000
WINDOW: Final = 5.0
"""Seconds of each window of the jobs that `job_store` makes."""


# Jobs on disk


def found(name: str) -> Found:
    return Found(name, Path("/there") / name)


def window(index: int, start: float, end: float) -> Window:
    return Window(index, start, end, np.zeros(0, np.float32), bytes([index, 7]))


def caption(store: JobStore, item: int, index: int, text: str, *, seconds: float = 10.0) -> None:
    """All captions of a window of `seconds`; the first is `text`, the others it and their number."""
    begun = store.begin_window(item, window(index, seconds * index, seconds * (index + 1)))
    for sample in begun:
        store.put(item, index, sample, f"{text} {sample}" if sample else text)


def item(store: JobStore, id: int = 1) -> Item:
    there = store.item(id)
    assert there is not None
    return there


def texts(store: JobStore, id: int = 1) -> list[str]:
    return [segment.text for segment in store.segments(id)]


@contextmanager
def reopened(store: JobStore) -> Iterator[JobStore]:
    """The job as the next program finds it."""
    store.close()
    with closing(JobStore.open(store.folder)) as again:
        yield again


@contextmanager
def full_disk() -> Iterator[None]:
    """Nothing can be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Jobs that run


def steps(windows: int) -> bytes:
    """A sound file of so many windows, each a little louder than the one before."""
    levels = np.arange(1, windows + 1).repeat(round(WINDOW * RATE)) / 100
    return wav(levels.astype(np.float32), RATE, exact=True)


def job_store(folder: Path, files: dict[str, bytes], **settings: Any) -> JobStore:
    """A job in `folder` on these files, which are written beside it."""
    store = JobStore.create(folder / "job", CaptionSettings(**{"window_seconds": WINDOW, **settings}))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    store.add([Found(name, folder / name) for name in files])
    return store


class Ears(ScriptedBackend):
    """Says which window it hears: "a.wav 2" for the third one of a file of `steps`.

    `says`: scripts to play instead, the next one each time that it hears the window.
    """

    def __init__(self, says: dict[str, list[Sequence[Step]]] | None = None, **can: Any) -> None:
        super().__init__(capabilities=Capabilities(**{"model": "ears", "engine": "a script", **can}))
        self.says = says or {}
        self.heard: list[str] = []
        self.lengths: list[float] = []
        """Of what it heard, in seconds."""
        self.on_hearing: Callable[[str], None] = lambda label: None
        self.open = asyncio.Event()
        """Nothing is answered while it is cleared."""
        self.open.set()

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        [part] = [part for part in request.messages[-1].content if isinstance(part, MediaPart)]
        sound = MediaLoader().audio(part)
        label = f"{part.name} {round(100 * float(sound.max())) - 1}"
        self.heard.append(label)
        self.lengths.append(sound.size / RATE)
        self.on_hearing(label)
        await self.open.wait()
        scripts = self.says.get(label)
        self.enqueue(*(scripts.pop(0) if scripts else (TextDelta(label),)))
        async with aclosing(super()._stream(request)) as events:
            async for event in events:
                yield event
