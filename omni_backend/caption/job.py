"""Runs a job: decodes its files, cuts them, has every window captioned and keeps what comes. Knows no page.

    job = CaptionJob(store, backend)
    await job.run()            # until nothing is left to do; cancel it to stop, run it again to go on

As many windows are in flight as the engine answers at a time and one more, which is prepared meanwhile. One window of
each of them is in memory, however long the files are. A file that fails stops nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from omni_backend import defaults
from omni_backend.base import Backend
from omni_backend.capabilities import Capabilities, Limits
from omni_backend.caption import limits
from omni_backend.caption.requests import answer_prefix, caption_request
from omni_backend.caption.store import Counts, Item, JobStore
from omni_backend.caption.windows import Window, cut
from omni_backend.catalogue import Phrase, phrase
from omni_backend.errors import BackendError, BackendUnavailable, EngineDied, GenerationFailed, UnsupportedRequest
from omni_backend.media import MediaLoader
from omni_backend.types import Done, MediaPart, TextDelta
from omni_backend.wav import wav

logger = logging.getLogger(__name__)

WINDOWS: Final = "windows-"
"""How the folders begin in which windows lie while they are asked about; the next run deletes what is left over."""
MOST_STARTS: Final = 3
"""How often a file is begun while the program dies of it."""
TRIES: Final = 2
"""Of a window whose engine died: it may not have been its fault."""


@dataclass(slots=True, eq=False)
class _Work:
    """A file that is being captioned."""

    item: Item
    left: int = 1
    """Windows that are not captioned yet, and one until all are cut."""
    seconds: float = 0.0
    failed: Phrase | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """A window of a file on its way to the engine."""

    work: _Work
    window: Window
    samples: list[int] = field(default_factory=list)
    """Which are still to be made."""


class CaptionJob:
    """One job over one backend. Lives on one event loop; `live` and `problem` may be read from any thread."""

    def __init__(self, store: JobStore, backend: Backend) -> None:
        self.store = store
        self.slots: asyncio.Semaphore | None = None
        """What is in flight of all jobs that share the backend, so that each gets its turn; None: of this one alone."""
        self.live: dict[tuple[int, int, int], str] = {}
        """The captions that are being written: (item, window, sample) → the text so far."""
        self.problem: BackendError | None = None
        """Why the last run ended early: the engine is not there, or cannot do what the job asks for."""
        self._backend = backend
        self._began: tuple[float, float] | None = None

    async def run(self) -> None:
        """Captions what waits, until nothing does. Cancelling it frees the engine; what is done is kept.

        Ends early when the engine is not there or refuses such requests: see `problem`.
        """
        self.problem = None
        try:
            can = await self._backend.ready()
            self._clear_up()
            self._began = time.monotonic(), self.store.counts.captioned
            in_flight = can.max_concurrency + 1
            tasks: asyncio.Queue[_Task | None] = asyncio.Queue(1)
            slots = self.slots or asyncio.Semaphore(in_flight)
            loader = sound_loader()  # one for both who look at the files, so that each is looked at once
            with tempfile.TemporaryDirectory(
                prefix=WINDOWS, dir=self.store.folder, ignore_cleanup_errors=True
            ) as folder:
                async with asyncio.TaskGroup() as group:
                    for _ in range(in_flight):
                        group.create_task(self._work(tasks, slots, can, Path(folder)))
                    group.create_task(self._measure(loader))
                    await self._feed(loader, tasks, can)
                    for _ in range(in_flight):
                        await tasks.put(None)
        except* BackendError as problems:
            self.problem = _first(problems)
        except* (OSError, sqlite3.Error) as problems:
            logger.exception("the job could not go on")
            self.problem = GenerationFailed(phrase("caption.disk"), detail=repr(problems.exceptions[0]))
        finally:
            self._began = None
            with suppress(sqlite3.Error):  # nothing can be written: the next run does it
                self.store.put_back()

    def remaining(self, counts: Counts) -> float | None:
        """Seconds until the end, by how fast this run has been; None while that cannot be told. `counts`: of now."""
        began = self._began  # read once: the run may end at this moment
        if began is None:
            return None
        at, captioned = began
        made = counts.captioned - captioned
        if made <= 0:
            return None
        return (counts.seconds - counts.captioned) * (time.monotonic() - at) / made

    def _clear_up(self) -> None:
        """Takes back what an earlier run could not: it was killed, or the disk was full."""
        self.store.put_back()
        for folder in self.store.folder.glob(f"{WINDOWS}*"):
            shutil.rmtree(folder, ignore_errors=True)

    async def _feed(self, loader: MediaLoader, tasks: asyncio.Queue[_Task | None], can: Capabilities) -> None:
        """Cuts one file after the other, no faster than the windows are captioned."""
        while waiting := self.store.items(state="waiting", limit=1):
            [item] = waiting
            if item.starts >= MOST_STARTS:
                self.store.fail(item.id, phrase("caption.deadly", name=item.name, limit=MOST_STARTS))
                continue
            self.store.start(item.id)
            work = _Work(item)
            try:
                await self._cut(loader, work, tasks, can)
            except BackendError as error:
                self._failed(work, error)
            self._ended(work)

    async def _cut(
        self, loader: MediaLoader, work: _Work, tasks: asyncio.Queue[_Task | None], can: Capabilities
    ) -> None:
        """Decodes one file. Raises BadMedia."""
        settings = self.store.settings
        part = MediaPart("audio", str(work.item.path), work.item.name)
        info = await asyncio.to_thread(loader.probe, part)
        if info.duration is not None:
            self.store.measured(work.item.id, info.duration)
        windows: Iterator[Window] = await asyncio.to_thread(
            lambda: cut(
                loader.sound(part),
                window_seconds=settings.window_seconds or can.audio_window_seconds,
                overlap_seconds=settings.overlap_seconds,
            )
        )
        while (window := await asyncio.to_thread(next, windows, None)) is not None:
            if work.failed:
                return
            work.seconds = window.end
            samples = self.store.begin_window(work.item.id, window)
            if samples:
                work.left += 1
                await tasks.put(_Task(work, window, samples))

    async def _work(
        self, tasks: asyncio.Queue[_Task | None], slots: asyncio.Semaphore, can: Capabilities, folder: Path
    ) -> None:
        """Captions windows until there are no more; in `folder` lies the window that the engine is asked about."""
        while (task := await tasks.get()) is not None:
            work, window = task.work, task.window
            file = folder / f"{work.item.id}-{window.index}.wav"
            try:
                await asyncio.to_thread(file.write_bytes, wav(window.pcm, defaults.SAMPLE_RATE_IN, exact=True))
                for sample in task.samples:
                    if work.failed:
                        break
                    async with slots:
                        await self._caption(task, sample, can, file)
            except (BackendUnavailable, UnsupportedRequest):
                raise  # it would be the same for every file
            except BackendError as error:
                self._failed(work, error)
            finally:
                file.unlink(missing_ok=True)
            self._ended(work)

    async def _caption(self, task: _Task, sample: int, can: Capabilities, file: Path) -> None:
        """Asks for one caption and keeps it. Raises BackendError."""
        item, window = task.work.item, task.window
        request = caption_request(file, self.store.settings, can, sample=sample, name=item.name)
        key = (item.id, window.index, sample)
        for tries_left in reversed(range(TRIES)):
            text = self.live[key] = answer_prefix(self.store.settings, can)
            try:
                async with aclosing(self._backend.stream(request)) as events:
                    async for event in events:
                        if isinstance(event, TextDelta):
                            text = self.live[key] = text + event.text
                        elif isinstance(event, Done):
                            short = event.finish_reason == "length"
                            self.store.put(item.id, window.index, sample, text.strip(), cut_short=short)
                return
            except EngineDied:
                if not tries_left:
                    raise
            finally:
                self.live.pop(key, None)

    def _failed(self, work: _Work, error: BackendError) -> None:
        if work.failed is None:
            logger.warning("%s: %s %s", work.item.name, error, error.detail)
            work.failed = error.phrase

    def _ended(self, work: _Work) -> None:
        """One more part of a file has ended; when it was the last, so has the file."""
        work.left -= 1
        if work.left == 0:
            if work.failed:
                self.store.fail(work.item.id, work.failed)
            else:
                self.store.finish(work.item.id, work.seconds)

    async def _measure(self, loader: MediaLoader) -> None:
        """Finds out how long the files are that wait, so that the remaining time can be told."""
        for item in self.store.items(state="waiting"):
            now = self.store.item(item.id)
            if item.seconds is None and now is not None and now.state == "waiting":
                with suppress(BackendError):  # it is told when its turn comes
                    info = await asyncio.to_thread(loader.probe, MediaPart("audio", str(item.path), item.name))
                    if info.duration is not None:
                        self.store.measured(item.id, info.duration)


_LOOKS_BYTES: Final = 1024**2


def sound_loader() -> MediaLoader:
    """Reads sounds as long as a job takes them; keeps nothing but what a look at each of the latest files said."""
    return MediaLoader(
        Limits(file_bytes=limits.FILE_BYTES, audio_seconds=limits.FILE_SECONDS, video_seconds=limits.FILE_SECONDS),
        cache_bytes=_LOOKS_BYTES,
    )


def _first(problems: BaseExceptionGroup[BackendError]) -> BackendError:
    """One of the errors that ended all workers."""
    error: BaseException = problems
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, BackendError)
    return error


__all__ = ["CaptionJob", "sound_loader"]
