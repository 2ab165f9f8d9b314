"""Runs one job for a terminal: collects, captions, says how far it is, exports. Knows no options.

The job lies in a folder of its own beside its exports, so that a later run goes on with it.
"""

from __future__ import annotations

import asyncio
import filecmp
import logging
import re
import shutil
import signal
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePosixPath
from types import FrameType
from typing import Any, Final

from omni_backend.base import Backend, Loading
from omni_backend.capabilities import Capabilities
from omni_backend.caption.claim import claim
from omni_backend.caption.collect import Collected, Found, collect
from omni_backend.caption.exports import Format, write
from omni_backend.caption.job import CaptionJob
from omni_backend.caption.progress import display
from omni_backend.caption.store import FILES, Counts, JobStore, holds_job
from omni_backend.caption.times import clock
from omni_backend.caption.values import CaptionSettings
from omni_backend.catalogue import Language, Phrase, phrase
from omni_backend.command_line import Engine, close_engine
from omni_backend.errors import BackendError
from omni_backend.types import SamplingName

JOB: Final = ".job"
"""The folder in the folder of exports where the job is kept."""
SETTINGS: Final = ("language", "window_seconds", "overlap_seconds", "samples", "instruction")
"""The fields of CaptionSettings that have an option."""
SAMPLING: Final[tuple[SamplingName, ...]] = ("temperature", "top_p", "top_k", "max_tokens", "seed")
"""The fields of SamplingParams that have an option."""
LOOK_SECONDS: Final = 0.2
"""Between two looks at how far it is."""

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
STOPPED: Final = 128
"""And the number of the signal: 130 after Ctrl-C."""

_NUMBERED: Final = re.compile(r" \(\d+\)(?=\.[^.]*$|$)")
"""What tells files apart whose names are the same."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run is to do."""

    engine: Engine
    language: Language
    """Of the terminal."""
    paths: tuple[str, ...]
    """Files, folders and archives as they were typed; none: those of the job that is there."""
    out: Path
    formats: tuple[Format, ...]
    settings: dict[str, Any]
    """Those fields of CaptionSettings that were given."""
    sampling: dict[str, Any]
    """Those fields of SamplingParams that were given; the others are the checkpoint's own."""

    @property
    def given(self) -> list[tuple[str, Path]]:
        """What to call the paths, and where they are."""
        return [(path, Path(path).expanduser().absolute()) for path in self.paths]

    @property
    def folder(self) -> Path:
        """Where the job is, or will be."""
        return self.out / JOB


def option(field: str) -> str:
    """The option that sets a field of SETTINGS or SAMPLING."""
    return "--" + field.removesuffix("_seconds").replace("_", "-")


def run(plan: Plan) -> int:
    """Captions what `plan` says, or goes on with the job that is there; the program's exit status.

    DONE: every file is captioned. FAILED: one is not. WRONG_USAGE: nothing was done. STOPPED: by a signal.
    """
    logging.getLogger("omni_backend.caption").setLevel(logging.ERROR)  # which files failed is told here
    try:
        backend = plan.engine.make_backend((plan.folder,))
    except BackendError as problem:
        print(problem.text(plan.language), file=sys.stderr)
        return FAILED
    try:
        return asyncio.run(_until_signal(_Run(plan, backend)))
    finally:
        close_engine(backend)


async def _until_signal(job: _Run) -> int:
    """Runs `job`; SIGINT and SIGTERM cancel it."""
    loop, work = asyncio.get_running_loop(), asyncio.create_task(job.main())
    caught: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the program as it is
        caught.append(number)
        loop.call_soon_threadsafe(work.cancel)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return await work
    except asyncio.CancelledError:
        return STOPPED + caught[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Ended(Exception):
    """The run cannot go on; `phrase` says why."""

    def __init__(self, phrase: Phrase, status: int) -> None:
        super().__init__(phrase)
        self.phrase = phrase
        self.status = status


class _Run:
    """One run over one backend."""

    def __init__(self, plan: Plan, backend: Backend) -> None:
        self._plan = plan
        self._backend = backend
        self._display = display()
        self._can: Capabilities | None = None
        self._claim: sqlite3.Connection | None = None
        self._told: set[int] = set()
        """The files whose failure was told."""

    async def main(self) -> int:
        """The exit status. Cancelling it keeps what is done and exports it."""
        try:
            with closing(self._display):
                return await self._main()
        except _Ended as end:
            self._tell(end.phrase)
            return end.status
        except BackendError as problem:
            self._tell(problem.phrase)
            return FAILED
        except (OSError, sqlite3.Error) as error:
            self._tell(phrase("caption_cli.unusable", out=str(self._plan.out), reason=str(error)))
            return FAILED
        except asyncio.CancelledError:
            there = holds_job(self._plan.folder)
            self._tell(phrase("caption_cli.stopped") if there else phrase("caption_cli.stopped_early"))
            raise
        finally:
            if self._claim is not None:
                self._claim.close()
                if not holds_job(self._plan.folder):
                    shutil.rmtree(self._plan.folder, ignore_errors=True)

    async def _main(self) -> int:
        plan = self._plan
        store = self._open()
        if store is None:
            self._backend.start()  # it loads while the files are looked for
        collected = await asyncio.to_thread(collect, plan.given, plan.folder / FILES)
        for refused in collected.refused:
            self._tell(refused.reason)
        if store is None:
            if collected.skipped:
                self._tell(phrase("caption_cli.skipped", count=len(collected.skipped)))
            if not collected.found:
                return FAILED
            store = await self._create(collected)
        else:
            store.add(await asyncio.to_thread(_news, store, collected.found))
            store.retry()
        try:
            return await self._caption(store, len(collected.refused))
        finally:
            store.close()

    def _open(self) -> JobStore | None:
        """The job that is there.

        Raises _Ended where it was begun with other settings, BackendUnavailable where another run has it, and OSError.
        """
        plan = self._plan
        plan.folder.mkdir(parents=True, exist_ok=True)
        self._claim = claim(plan.folder, phrase("caption_cli.taken", out=str(plan.out)))
        if not holds_job(plan.folder):
            return None
        store = JobStore.open(plan.folder)
        own, drawn = store.settings, store.settings.sampling
        others = [name for name, value in plan.settings.items() if getattr(own, name) != value]
        others += [name for name, value in plan.sampling.items() if getattr(drawn, name, None) != value]
        if others:
            store.close()
            other = phrase("caption_cli.other_settings", name=option(others[0]), out=str(plan.out))
            raise _Ended(other, WRONG_USAGE)
        return store

    async def _create(self, collected: Collected) -> JobStore:
        """A new job with the files that were found. Raises BackendError, and _Ended for impossible settings."""
        plan, can = self._plan, await self._loaded()
        for name, reason in can.missing_sampling.items():
            if name in plan.sampling:
                raise _Ended(reason, WRONG_USAGE)
        sampling = replace(can.default_sampling, **plan.sampling) if plan.sampling else None
        store = JobStore.create(plan.folder, CaptionSettings(**plan.settings, sampling=sampling))
        store.add(collected.found)
        return store

    async def _caption(self, store: JobStore, refused: int) -> int:
        problem = None
        try:
            if store.counts.open:
                await self._loaded()
                job = CaptionJob(store, self._backend)
                await self._watch(job)
                problem = job.problem
        except asyncio.CancelledError:
            self._export(store)
            raise
        self._display.close()
        if problem:
            self._tell(problem.phrase)
        exported, counts = self._export(store), store.counts
        failed = counts.failed + refused
        self._tell(phrase("caption_cli.ended", done=counts.done, files=counts.files + refused, out=str(self._plan.out)))
        if counts.open or failed:
            self._tell(phrase("caption_cli.again"))
        return DONE if exported and not (problem or counts.open or failed) else FAILED

    async def _loaded(self) -> Capabilities:
        """Waits for the engine. Raises BackendUnavailable."""
        if self._can is None:
            self._backend.start()
            await asyncio.sleep(LOOK_SECONDS)
            while isinstance(status := self._backend.status, Loading):
                self._display.show(status.fraction or 0.0, status.step.text(self._plan.language))
                await asyncio.sleep(LOOK_SECONDS)
            self._can = self._backend.capabilities
            for notice in self._can.notices:
                self._tell(notice)
            if self._plan.settings.get("instruction") and not self._can.text_prompts:
                self._tell(phrase("caption_cli.no_instruction", model=self._can.model))
        return self._can

    async def _watch(self, job: CaptionJob) -> None:
        """Runs `job` and shows how far it is."""
        store = job.store
        running = asyncio.create_task(job.run())
        try:
            while not running.done():
                await asyncio.wait({running}, timeout=LOOK_SECONDS)
                counts = store.counts
                if counts.failed > len(self._told):
                    self._tell_failures(store)
                share = counts.captioned / counts.seconds if counts.seconds else 0.0
                self._display.show(share, _progress(counts, job.remaining(counts)).text(self._plan.language))
            running.result()
        finally:
            running.cancel()
            await asyncio.wait({running})

    def _tell_failures(self, store: JobStore) -> None:
        for item in store.items(state="failed"):
            if item.id not in self._told and item.error is not None:
                self._told.add(item.id)
                reason = item.error.text(self._plan.language)
                self._display.tell(reason if item.name in reason else f"{item.name}: {reason}")

    def _export(self, store: JobStore) -> bool:
        """Whether all that is captioned could be exported."""
        try:
            write(store.captioned_files, self._plan.formats, self._plan.out)
        except (OSError, ValueError) as error:
            self._tell(phrase("caption_cli.unusable", out=str(self._plan.out), reason=str(error)))
            return False
        return True

    def _tell(self, sentence: Phrase) -> None:
        self._display.tell(sentence.text(self._plan.language))


def _news(store: JobStore, found: Iterable[Found]) -> list[Found]:
    """What the job does not have yet, under names that it does not have. Copies of what it has are deleted."""
    items, own = store.items(), store.folder.resolve()
    paths, names = {item.path for item in items}, {item.name.casefold() for item in items}
    unpacked = defaultdict(list)
    for item in items:
        if item.path.resolve().is_relative_to(own):
            unpacked[_NUMBERED.sub("", item.name).casefold()].append(item.path)
    news = []
    for one in found:
        alike = unpacked[_NUMBERED.sub("", one.name).casefold()]
        if one.path.resolve().is_relative_to(own) and any(_same(path, one.path) for path in alike):
            one.path.unlink()  # of an archive that was unpacked in an earlier run, too
        elif one.path not in paths:
            name = _unique(one.name, names)
            names.add(name.casefold())
            news.append(Found(name, one.path))
    return news


def _same(there: Path, other: Path) -> bool:
    """Whether two files hold the same; one that is gone held it, for all that anybody knows."""
    try:
        return filecmp.cmp(there, other, shallow=False)
    except OSError:
        return True


def _unique(name: str, taken: set[str]) -> str:
    """`name`, or "name (2)" where there is one like it, and so on."""
    numbers, unique, suffix = count(2), name, PurePosixPath(name).suffix
    while unique.casefold() in taken:
        unique = f"{name.removesuffix(suffix)} ({next(numbers)}){suffix}"
    return unique


def _progress(counts: Counts, remaining: float | None) -> Phrase:
    """How far it is. `remaining`: seconds until the end, as far as that can be told."""
    ended = counts.done + counts.failed
    heard, sound = clock(round(counts.captioned)), clock(round(counts.seconds))
    if remaining is None:
        return phrase("caption_cli.progress", ended=ended, files=counts.files, heard=heard, sound=sound)
    left = clock(round(remaining))
    return phrase("caption_cli.progress_left", ended=ended, files=counts.files, heard=heard, sound=sound, left=left)
