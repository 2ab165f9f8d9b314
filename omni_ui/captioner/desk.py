"""All caption jobs of this server: made, run beside the pages, found again after a restart, deleted when they are old.

A job belongs to whoever knows its unguessable id. Any thread may call it. Knows nothing of gradio.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from omni_backend import Backend, BackendError, BackendUnavailable, GenerationFailed, UnsupportedRequest, phrase
from omni_backend.caption import CaptionSettings
from omni_backend.caption.claim import claim, sqlite_code
from omni_backend.caption.collect import Collected, Found, Refused, collect
from omni_backend.caption.job import CaptionJob
from omni_backend.caption.store import FILES, JobStore, holds_job
from omni_backend.own_loop import OwnLoop
from omni_ui.captioner.limits import SWEEP_SECONDS, UNSENT_BYTES, DeskLimits
from omni_ui.uploads import link_or_copy, trim_uploads

logger = logging.getLogger(__name__)

_ID: Final = re.compile(r"[A-Za-z0-9_-]{32}")
_USED: Final = "used"
"""In a job's folder: dated whenever somebody looks at it. The folder itself is dated by what SQLite does there."""


class DeskJob:
    """One job: what is on disk, and what runs of it."""

    def __init__(self, id: str, store: JobStore, job: CaptionJob) -> None:
        self.id = id
        self.store = store
        self.work = job
        self.skipped: tuple[str, ...] = ()
        """Files that came along and are no sounds."""
        self.task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether it is being captioned or waits for its turn."""
        return self.task is not None and not self.task.done()


class JobDesk:
    """`folder`: where jobs are kept over a restart. `uploads`: where uploaded files lie; nothing else is taken."""

    def __init__(self, backend: Backend, folder: Path, uploads: Path, desk_limits: DeskLimits = DeskLimits()) -> None:  # noqa: B008 - immutable
        """Raises BackendUnavailable when `folder` cannot be written, or is another server's."""
        self._backend = backend
        self._folder = folder
        self.uploads = uploads.resolve()
        """Where uploads lie, and what is made for callers."""
        self._limits = desk_limits
        try:
            folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(folder).free
            if not os.access(folder, os.W_OK):
                raise PermissionError(folder)
        except OSError as error:
            raise BackendUnavailable(phrase("captioner.no_folder", folder=str(folder)), detail=repr(error)) from error
        self._claim = claim(folder, phrase("captioner.folder_taken", folder=str(folder)))
        self._total_bytes = min(desk_limits.total_bytes, (free + _bytes(folder)) // 2)
        self._unsent_bytes = min(UNSENT_BYTES, free // 4)
        self._started_at = time.time()
        self._jobs: dict[str, DeskJob] = {}
        self._unready: set[str] = set()
        """Being made or deleted: nobody may open them."""
        self._lock = threading.RLock()
        self._loop = OwnLoop("omni-captions")
        self._slots: asyncio.Semaphore | None = None
        self._turns = asyncio.Semaphore(desk_limits.running)
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_again_and_again, name="omni-sweep", daemon=True)

    def start(self) -> None:
        """Goes on with every job that ran when the server ended last, and begins to sweep. Once."""
        for id in self._ids():
            try:
                self._go_on(id)
            except sqlite3.Error:  # the others are as they were
                logger.exception("the job %s cannot go on", id)
        self._sweeper.start()

    def _go_on(self, id: str) -> None:
        job = self.get(id)
        if job is None:
            return
        counts = job.store.counts
        if not counts.files:  # the server ended while it was being made, so nobody knows its id
            self.delete(job)
        elif job.store.wanted and counts.open:
            self._run(job)

    def create(self, given: Iterable[tuple[str, Path]], settings: CaptionSettings, *, keep: bool = True) -> DeskJob:
        """A new job that begins at once. `given`: what the user calls each upload, and where it is. Blocking.

        `keep`: over a restart, too. Raises UnsupportedRequest when nothing of it is a file to caption, and
        BackendUnavailable when there is no room for it.
        """
        id = secrets.token_urlsafe(24)
        with self._lock:
            if not self._make_room(1):
                raise BackendUnavailable(phrase("captioner.full"))
            self._unready.add(id)
        try:
            job = self._make(id, (self._folder if keep else self.uploads / "calls") / id, list(given), settings)
        except (OSError, sqlite3.Error) as error:
            logger.exception("a job could not be made")
            raise BackendUnavailable(phrase("captioner.not_kept"), detail=repr(error)) from error
        finally:
            self._unready.discard(id)
        self._run(job)
        return job

    def _make(self, id: str, folder: Path, given: list[tuple[str, Path]], settings: CaptionSettings) -> DeskJob:
        """A job with its files, or nothing is left of it. Raises UnsupportedRequest, OSError and sqlite3.Error."""
        try:
            with ExitStack() as undo:
                store = JobStore.create(folder, settings)
                undo.callback(store.close)
                collected = self._collect(given, folder / FILES)
                store.add(collected.found, collected.refused)
                undo.pop_all()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        job = self._keep(id, store)
        job.skipped = collected.skipped
        self.used(job)
        return job

    def get(self, id: str | None) -> DeskJob | None:
        """The job `id`; None when there is none. Raises sqlite3.OperationalError when it cannot be read just now."""
        if not id or not _ID.fullmatch(id) or self.closed:
            return None
        with self._lock:
            job = self._jobs.get(id)
            if job is None and id not in self._unready and holds_job(self._folder / id):
                store = self._open(id)
                job = None if store is None else self._keep(id, store)
            return job

    @property
    def closed(self) -> bool:
        """Whether the server is ending: no job is to be had, but what there is goes on at its next start."""
        return self._closed.is_set()

    def used(self, job: DeskJob) -> None:
        """Notes that somebody looks at it."""
        with suppress(OSError):
            (job.store.folder / _USED).touch()

    def used_at(self, job: DeskJob) -> float:
        """When somebody looked at it last, Unix time."""
        return _used_at(job.store.folder)

    def resume(self, job: DeskJob, *, failed: bool = False, item: int | None = None) -> None:
        """Goes on with what waits. `failed`: with what failed, too, or with the file `item` of it.

        Raises KeyError: no such file.
        """
        if item is not None and job.store.item(item) is None:
            raise KeyError(item)
        if failed:
            job.store.retry(item)
        job.store.wanted = True
        self._run(job)

    def stop(self, job: DeskJob) -> None:
        """Ends what runs of it; the engine is free afterwards, what is done is kept."""
        try:
            job.store.wanted = False
        finally:
            if job.task is not None and not self.closed:
                self._loop.call(_cancelled(job.task))

    def delete(self, job: DeskJob) -> None:
        """Ends it and deletes all of it."""
        with suppress(sqlite3.Error):  # nothing can be written, or it was deleted meanwhile
            self.stop(job)
        with self._lock:
            self._jobs.pop(job.id, None)
            self._unready.add(job.id)
            job.store.close()
        shutil.rmtree(job.store.folder, ignore_errors=True)
        self._unready.discard(job.id)

    def new_place(self) -> Path:
        """A new folder for what is handed out. It lies among the uploads and goes like one that nobody sent."""
        place = self.uploads / secrets.token_hex(32)
        place.mkdir()
        return place

    def close(self) -> None:
        """Ends what runs. It goes on at the next start. Further calls do nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._loop.close()
        with self._lock:
            for job in self._jobs.values():
                job.store.close()
        self._claim.close()

    def sweep(self) -> None:
        """Deletes jobs that are too old or too many, and uploads that nobody sent."""
        with self._lock:
            self._make_room(0)
        trim_uploads(self.uploads, self._unsent_bytes, since=self._started_at, empty_before=time.time() - 3600)

    def _make_room(self, wanted: int) -> bool:
        """Whether there is room for so many more jobs, after jobs that may go have gone."""
        ages = sorted((_used_at(self._folder / id), id) for id in self._ids())
        sizes = {id: _bytes(self._folder / id) for _, id in ages}
        oldest, total = time.time() - self._limits.idle_seconds, sum(sizes.values())
        left = len(ages) + wanted
        for used_at, id in ages:
            if used_at >= oldest and left <= self._limits.jobs and total <= self._total_bytes:
                break
            job = self._jobs.get(id)
            if id in self._unready or (job is not None and job.running):
                continue
            if job is not None:
                self.delete(job)
            else:
                shutil.rmtree(self._folder / id, ignore_errors=True)
            left, total = left - 1, total - sizes[id]
        return left <= self._limits.jobs and total <= self._total_bytes

    def _ids(self) -> list[str]:
        return [path.name for path in self._folder.iterdir() if _ID.fullmatch(path.name)]

    def _open(self, id: str) -> JobStore | None:
        """What is on disk of a job; None when it is damaged. Raises sqlite3.OperationalError."""
        try:
            return JobStore.open(self._folder / id)
        except Exception as error:  # whatever a damaged file gives to read
            logger.exception("the job %s cannot be read", id)
            if isinstance(error, sqlite3.OperationalError) and sqlite_code(error) != sqlite3.SQLITE_ERROR:
                raise  # a full disk, or another program that reads it: no damage
            return None

    def _keep(self, id: str, store: JobStore) -> DeskJob:
        job = DeskJob(id, store, CaptionJob(store, self._backend))
        with self._lock:
            self._jobs[id] = job
        return job

    def _collect(self, given: list[tuple[str, Path]], folder: Path) -> Collected:
        """The uploads as the job's own files. Raises UnsupportedRequest and OSError."""
        mine = [(name, path) for name, path in given if self._may_take(path)]
        if not mine:
            raise UnsupportedRequest(phrase("captioner.nothing_given"))
        collected = collect(mine, folder)
        folder.mkdir(exist_ok=True)
        found: list[Found] = []
        refused: list[Refused] = list(collected.refused)
        for number, one in enumerate(collected.found):
            if one.path.is_relative_to(folder):
                found.append(one)
                continue
            target = folder / f"given-{number}{one.path.suffix}"
            try:
                link_or_copy(one.path, target)
                found.append(Found(one.name, target))
            except FileNotFoundError:
                refused.append(Refused(one.name, phrase("ui.file_gone", name=one.name)))
        return Collected(tuple(found), tuple(refused), collected.skipped)

    def _may_take(self, path: Path) -> bool:
        """Whether it is an upload. A folder is none: that of all uploads would give everybody's."""
        real = path.resolve()
        return real.is_relative_to(self.uploads) and not real.is_dir()

    def _run(self, job: DeskJob) -> None:
        with self._lock, suppress(RuntimeError):  # closed at this moment: it goes on at the next start
            self._loop.call(self._begin(job))

    async def _begin(self, job: DeskJob) -> None:
        if not job.running:
            job.work.problem = None
            job.task = asyncio.create_task(self._caption(job))

    async def _caption(self, job: DeskJob) -> None:
        """Captions until nothing waits any more, files that are let try again meanwhile included."""
        async with self._turns:
            try:
                can = await self._backend.ready()
                self._slots = self._slots or asyncio.Semaphore(can.max_concurrency + 1)
                job.work.slots = self._slots
            except BackendError:
                pass  # the job says so itself
            try:
                while job.store.wanted and job.store.counts.open:
                    await job.work.run()
                    if job.work.problem is not None:
                        job.store.wanted = False
            except sqlite3.Error as error:
                logger.exception("the job %s could not go on", job.id)
                job.work.problem = GenerationFailed(phrase("caption.disk"), detail=repr(error))

    def _sweep_again_and_again(self) -> None:
        while not self._closed.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except Exception:  # the next one may do better
                logger.exception("sweeping the jobs failed")


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Ends a task of this loop, and waits until it has."""
    task.cancel()
    await asyncio.wait([task])


def _used_at(folder: Path) -> float:
    for path in (folder / _USED, folder):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0  # deleted at this moment


def _bytes(folder: Path) -> int:
    """Of all files in it that are not deleted at this moment."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(inside, name)).st_size  # noqa: PTH116, PTH118 - many thousands
    return total


__all__ = ["DeskJob", "JobDesk"]
