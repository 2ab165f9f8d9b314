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
from contextlib import suppress
from pathlib import Path
from typing import Final

from omni_backend import Backend, BackendUnavailable, UnsupportedRequest, phrase
from omni_backend.caption import CaptionSettings
from omni_backend.caption.collect import Collected, Found, Refused, collect
from omni_backend.caption.job import CaptionJob
from omni_backend.caption.store import FILES, JobStore, holds_job
from omni_backend.own_loop import OwnLoop
from omni_ui.captioner.limits import SWEEP_SECONDS, UNSENT_BYTES, DeskLimits
from omni_ui.uploads import link_or_copy, trim_uploads

logger = logging.getLogger(__name__)

_ID: Final = re.compile(r"[A-Za-z0-9_-]{32}")


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
        """Raises BackendUnavailable when `folder` cannot be written."""
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
        self._total_bytes = min(desk_limits.total_bytes, free // 2)
        self._unsent_bytes = min(UNSENT_BYTES, free // 4)
        self._started_at = time.time()
        self._jobs: dict[str, DeskJob] = {}
        self._lock = threading.RLock()
        self._loop = OwnLoop("omni-captions")
        self._slots: asyncio.Semaphore | None = None
        self._turns = asyncio.Semaphore(desk_limits.running)
        self._closed = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_again_and_again, name="omni-sweep", daemon=True)

    def start(self) -> None:
        """Goes on with every job that ran when the server ended last, and begins to sweep. Once."""
        for id in self._ids():
            job = self.get(id)
            if job is not None and job.store.wanted and job.store.counts.open:
                self._run(job)
        self._sweeper.start()

    def create(self, given: Iterable[tuple[str, Path]], settings: CaptionSettings) -> DeskJob:
        """A new job that begins at once. `given`: what the user calls each upload, and where it is. Blocking.

        Raises UnsupportedRequest when nothing of it is a file to caption.
        """
        self.sweep()
        id = secrets.token_urlsafe(24)
        folder = self._folder / id
        store = JobStore.create(folder, settings)
        try:
            collected = self._collect(list(given), folder / FILES)
            store.add(collected.found, collected.refused)
        except BaseException:
            store.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        job = self._keep(id, store)
        job.skipped = collected.skipped
        self._run(job)
        return job

    def get(self, id: str | None) -> DeskJob | None:
        """The job `id`; None when there is none."""
        if not id or not _ID.fullmatch(id) or self._closed.is_set():
            return None
        with self._lock:
            job = self._jobs.get(id)
            if job is None and holds_job(self._folder / id):
                try:
                    job = self._keep(id, JobStore.open(self._folder / id))
                except sqlite3.DatabaseError:
                    logger.exception("the job %s cannot be read", id)
            return job

    def used(self, job: DeskJob) -> None:
        """Notes that somebody looks at it."""
        with suppress(OSError):
            os.utime(job.store.folder)

    def resume(self, job: DeskJob, *, failed: bool = False, item: int | None = None) -> None:
        """Goes on with what waits. `failed`: with what failed, too, or with the file `item` of it."""
        if failed:
            job.store.retry(item)
        job.store.wanted = True
        self._run(job)

    def stop(self, job: DeskJob) -> None:
        """Ends what runs of it; the engine is free afterwards, what is done is kept."""
        job.store.wanted = False
        if job.task is not None:
            self._loop.call(_cancelled(job.task))

    def delete(self, job: DeskJob) -> None:
        """Ends it and deletes all of it."""
        self.stop(job)
        with self._lock:
            self._jobs.pop(job.id, None)
            job.store.close()
        shutil.rmtree(job.store.folder, ignore_errors=True)

    def close(self) -> None:
        """Ends what runs. It goes on at the next start. Further calls do nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._loop.close()
        with self._lock:
            for job in self._jobs.values():
                job.store.close()

    def sweep(self) -> None:
        """Deletes jobs that are too old or too many, and uploads that nobody sent."""
        with self._lock:
            ages = sorted((_used_at(self._folder / id), id) for id in self._ids())
            sizes = {id: _bytes(self._folder / id) for _, id in ages}
            oldest, total = time.time() - self._limits.idle_seconds, sum(sizes.values())
            left = len(ages)
            for used_at, id in ages:
                if used_at >= oldest and left < self._limits.jobs and total <= self._total_bytes:
                    break
                job = self.get(id)
                if job is not None and job.running:
                    continue
                if job is not None:
                    self.delete(job)
                else:
                    shutil.rmtree(self._folder / id, ignore_errors=True)
                left, total = left - 1, total - sizes[id]
        trim_uploads(self.uploads, self._unsent_bytes, since=self._started_at, empty_before=time.time() - 3600)

    def _ids(self) -> list[str]:
        return [path.name for path in self._folder.iterdir() if _ID.fullmatch(path.name)]

    def _keep(self, id: str, store: JobStore) -> DeskJob:
        job = DeskJob(id, store, CaptionJob(store, self._backend))
        with self._lock:
            self._jobs[id] = job
        return job

    def _collect(self, given: list[tuple[str, Path]], folder: Path) -> Collected:
        """The uploads as the job's own files. Raises UnsupportedRequest."""
        mine = [(name, path) for name, path in given if path.resolve().is_relative_to(self.uploads)]
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
            except OSError:
                refused.append(Refused(one.name, phrase("ui.file_gone", name=one.name)))
        return Collected(tuple(found), tuple(refused), collected.skipped)

    def _run(self, job: DeskJob) -> None:
        with self._lock, suppress(RuntimeError):  # closed at this moment: it goes on at the next start
            self._loop.call(self._begin(job))

    async def _begin(self, job: DeskJob) -> None:
        if not job.running:
            job.task = asyncio.create_task(self._caption(job))

    async def _caption(self, job: DeskJob) -> None:
        """Captions until nothing waits any more, files that are let try again meanwhile included."""
        async with self._turns:
            try:
                can = await self._backend.ready()
                self._slots = self._slots or asyncio.Semaphore(can.max_concurrency + 1)
                job.work.slots = self._slots
            except BackendUnavailable:
                pass  # the job says so itself
            while job.store.wanted and job.store.counts.waiting:
                await job.work.run()
                if job.work.problem is not None:
                    job.store.wanted = False

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
    try:
        return folder.stat().st_mtime
    except OSError:  # deleted at this moment
        return 0.0


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


__all__ = ["DeskJob", "JobDesk"]
