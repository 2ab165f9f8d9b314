"""How much of caption jobs a server keeps: so many, so large, so long; never is one deleted that runs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from omni_backend import BackendUnavailable, ScriptedBackend, TextDelta, phrase
from omni_backend.caption.collect import Collected, collect
from omni_ui.captioner.desk import DeskJob, JobDesk
from omni_ui.captioner.limits import DeskLimits
from tests.caption_desks import SETTINGS, Place, ended, states
from tests.conversations import FOREVER
from tests.media_files import sound_file
from tests.waiting import wait_until

DAY = 86_400.0
LARGE = sound_file("wav", seconds=20.0)  # 640 kB, far more than the rest of a job


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def backend() -> Iterator[ScriptedBackend]:
    backend = ScriptedBackend()
    yield backend
    backend.close()


def made(desk: JobDesk, place: Place, contents: bytes | None = None) -> DeskJob:
    """A job that has ended."""
    given = place.upload() if contents is None else place.upload(contents=contents)
    return ended(desk.create([given], SETTINGS))


def left_alone(desk: JobDesk, job: DeskJob, days: float) -> None:
    """As if nobody had looked at it for so long."""
    then = time.time() - days * DAY
    for path in (job.store.folder, *job.store.folder.iterdir()):
        os.utime(path, (then, then))
    assert desk.used_at(job) == pytest.approx(then)


def started(desk: JobDesk, place: Place, backend: ScriptedBackend) -> DeskJob:
    """A job that goes on and on."""
    backend.enqueue(TextDelta("half"), FOREVER)
    job = desk.create([place.upload()], SETTINGS)
    wait_until(lambda: job.work.live, "the caption")
    return job


def test_the_job_that_was_left_alone_longest_makes_room_for_a_new_one(place: Place, backend: ScriptedBackend) -> None:
    with place.desk(backend, DeskLimits(jobs=3)) as desk:
        jobs = [made(desk, place) for _ in range(3)]
        for job, days in zip(jobs, (1, 3, 2), strict=True):
            left_alone(desk, job, days)
        desk.sweep()
        assert place.kept() == {job.id for job in jobs}
        desk.used(jobs[1])
        new = made(desk, place)
        assert place.kept() == {jobs[0].id, jobs[1].id, new.id}
        assert desk.get(jobs[2].id) is None


def test_a_job_that_nobody_looks_at_goes_after_so_many_days(place: Place, backend: ScriptedBackend) -> None:
    with place.desk(backend, DeskLimits(idle_seconds=30 * DAY)) as desk:
        old, young = made(desk, place), made(desk, place)
        left_alone(desk, old, 30.1)
        left_alone(desk, young, 29.9)
        desk.sweep()
        assert place.kept() == {young.id}


def test_a_restart_makes_no_job_younger(place: Place, backend: ScriptedBackend) -> None:
    with place.desk(backend) as desk:
        job = made(desk, place)
        left_alone(desk, job, 29)
    with place.desk(backend) as desk:
        again = desk.get(job.id)
        assert again is not None
        assert time.time() - desk.used_at(again) > 28 * DAY


def test_jobs_have_so_many_bytes_together(place: Place, backend: ScriptedBackend) -> None:
    with place.desk(backend, DeskLimits(total_bytes=int(2.5 * len(LARGE)))) as desk:
        jobs = [made(desk, place, LARGE) for _ in range(3)]
        for age, job in enumerate(reversed(jobs)):
            left_alone(desk, job, age)
        desk.sweep()
        assert place.kept() == {jobs[1].id, jobs[2].id}


def test_jobs_may_have_half_of_what_the_disk_has_for_them(
    place: Place, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.desk(backend) as desk:
        jobs = [made(desk, place, LARGE) for _ in range(2)]
        left_alone(desk, jobs[0], 1)
    for free, kept in ((3, jobs), (1, jobs[1:])):
        disk = SimpleNamespace(free=free * len(LARGE))
        monkeypatch.setattr("shutil.disk_usage", lambda _, disk=disk: disk)
        with place.desk(backend) as desk:
            desk.sweep()
            assert place.kept() == {job.id for job in kept}


def test_what_runs_is_never_deleted(place: Place, backend: ScriptedBackend) -> None:
    with place.desk(backend, DeskLimits(jobs=1, idle_seconds=DAY, total_bytes=1)) as desk:
        job = started(desk, place, backend)
        left_alone(desk, job, 100)
        desk.sweep()
        assert desk.get(job.id) is job
        assert job.running
        with pytest.raises(BackendUnavailable) as refused:
            desk.create([place.upload()], SETTINGS)
        assert refused.value.phrase == phrase("captioner.full")
        assert place.kept() == {job.id}
        desk.stop(job)
        new = made(desk, place)
        assert place.kept() == {new.id}


def test_a_job_that_is_being_made_is_not_deleted(
    place: Place, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.desk(backend, DeskLimits(idle_seconds=-1)) as desk:

        def slowly(given: list[tuple[str, Path]], folder: Path) -> Collected:
            [id] = place.kept()
            assert desk.get(id) is None
            desk.sweep()
            return collect(given, folder)

        monkeypatch.setattr("omni_ui.captioner.desk.collect", slowly)
        job = ended(desk.create([place.upload()], SETTINGS))
        assert states(job) == {"rain.wav": "done"}
        desk.sweep()
        assert place.kept() == set()


def test_uploads_that_nobody_sends_go_when_they_are_too_many(
    place: Place, backend: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_ui.captioner.desk.UNSENT_BYTES", int(1.5 * len(LARGE)))
    with place.desk(backend) as desk:
        (_, old), (_, new), (_, sent) = (place.upload(contents=LARGE) for _ in range(3))
        os.utime(old, (time.time() + 1, time.time() + 1))
        os.utime(new, (time.time() + 2, time.time() + 2))
        job = ended(desk.create([("sent.wav", sent)], SETTINGS))
        desk.sweep()
        assert (old.exists(), new.exists(), sent.exists()) == (False, True, True)
        assert states(job) == {"sent.wav": "done"}
