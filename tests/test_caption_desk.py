"""Jobs on the server: made of uploads alone, found again after a restart, stopped, tried again and deleted."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from omni_backend import (
    LANGUAGES,
    BackendUnavailable,
    Capabilities,
    ChatRequest,
    OutOfMemory,
    ScriptedBackend,
    StreamEvent,
    TextDelta,
    UnsupportedRequest,
    phrase,
)
from omni_backend.caption.store import DATABASE, JobStore
from omni_ui.captioner.desk import DeskJob, JobDesk
from omni_ui.captioner.limits import DeskLimits
from tests.caption_desks import SETTINGS, SOUND, Named, Place, asked, captions, ended, states
from tests.caption_jobs import full_disk
from tests.conversations import FOREVER, TWO_AT_ONCE
from tests.given import zipped
from tests.waiting import wait_until

NO_MEMORY = OutOfMemory(phrase("backend.failed"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def backend() -> Iterator[Named]:
    backend = Named(capabilities=TWO_AT_ONCE)
    yield backend
    backend.close()


@pytest.fixture
def desk(place: Place, backend: Named) -> Iterator[JobDesk]:
    with place.desk(backend) as desk:
        yield desk


def made(desk: JobDesk, place: Place, *names: str) -> DeskJob:
    """A new job of sounds with these names."""
    return desk.create([place.upload(name) for name in names], SETTINGS)


def writing(job: DeskJob, *done: str) -> None:
    """Waits until a caption of it is being written that does not end, and the files `done` are captioned."""
    wait_until(lambda: "half" in job.work.live.values() and all(states(job)[name] == "done" for name in done))


def two_endless(backend: Named) -> None:
    """The first file is captioned, the second and the third never are."""
    backend.says("1.wav", TextDelta("Rain."))
    for name in ("2.wav", "3.wav"):
        backend.says(name, TextDelta("half"), FOREVER)


# What a job is made of


def test_uploads_become_a_job_that_begins_at_once(desk: JobDesk, place: Place, backend: Named) -> None:
    given = [place.upload("rain/roof.wav"), place.upload("rain/roof.wav"), place.upload("talk.wav")]
    job = ended(desk.create(given, SETTINGS))
    assert captions(job) == {"rain/roof.wav": ["ok"], "rain/roof (2).wav": ["ok"], "talk.wav": ["ok"]}
    assert sorted(asked(backend)) == sorted(captions(job))
    assert desk.get(job.id) is job
    for _, path in given:  # the job has its own
        path.unlink()
    assert all(item.path.read_bytes() == SOUND for item in job.store.items())


def test_an_archive_becomes_its_sounds(desk: JobDesk, place: Place) -> None:
    archive = bytes(zipped(("a/1.wav", SOUND), ("a/2.wav", SOUND), ("notes.txt", b"text")))
    job = ended(desk.create([place.upload("all.zip", archive), place.upload("b.wav")], SETTINGS))
    assert captions(job) == {"all/a/1.wav": ["ok"], "all/a/2.wav": ["ok"], "b.wav": ["ok"]}
    assert job.skipped == ("all/notes.txt",)


def test_nothing_but_uploads_is_taken(desk: JobDesk, place: Place, backend: Named, tmp_path: Path) -> None:
    (tmp_path / "secret.wav").write_bytes(SOUND)
    place.upload("of somebody else.wav")
    link = place.uploads / "link.wav"
    link.symlink_to(tmp_path / "secret.wav")
    outside = [tmp_path / "secret.wav", place.uploads / ".." / "secret.wav", link]
    folders = [place.uploads, place.uploads / "..", *(path for path in place.uploads.iterdir() if path.is_dir())]
    for given in ([], *([("a.wav", path)] for path in (*outside, *folders))):
        with pytest.raises(UnsupportedRequest) as refused:
            desk.create(given, SETTINGS)
        assert refused.value.phrase == phrase("captioner.nothing_given")
    job = ended(desk.create([("secret.wav", outside[0]), place.upload("mine.wav")], SETTINGS))
    assert asked(backend) == ["mine.wav"]
    assert place.kept() == {job.id}


def test_an_upload_that_is_gone_fails_alone(desk: JobDesk, place: Place) -> None:
    name, path = place.upload("gone.wav")
    path.unlink()
    job = ended(desk.create([(name, path), place.upload("rain.wav")], SETTINGS))
    assert states(job) == {"rain.wav": "done", "gone.wav": "failed"}
    [failed] = job.store.items(state="failed")
    assert failed.error is not None
    assert "gone.wav" in failed.error.text()
    desk.resume(job, failed=True)
    assert states(ended(job))["gone.wav"] == "failed"


@pytest.mark.parametrize("id", [None, "", "../..", "..", ".", "a" * 31, "a" * 33, "é" * 32, "/" * 32, "." * 32])
def test_what_is_no_id_gives_nothing(desk: JobDesk, place: Place, id: str | None) -> None:
    job = made(desk, place, "rain.wav")
    assert desk.get(id) is None
    assert desk.get(job.id[:-1] + ("A" if job.id[-1] != "A" else "B")) is None
    assert desk.get(job.id) is job


# Over a restart


def test_a_job_goes_on_after_a_restart_and_does_nothing_again(place: Place, backend: Named) -> None:
    two_endless(backend)
    with place.desk(backend) as desk:
        job = made(desk, place, "1.wav", "2.wav", "3.wav")
        writing(job, "1.wav")
    assert backend.active_requests == 0
    assert desk.get(job.id) is None
    backend.forget()
    with place.desk(backend) as desk:
        again = desk.get(job.id)
        assert again is not None
        assert captions(ended(again)) == {"1.wav": ["Rain."], "2.wav": ["ok"], "3.wav": ["ok"]}
    assert asked(backend).count("1.wav") == 1


def test_a_job_that_a_person_stopped_waits_for_the_person(place: Place, backend: Named) -> None:
    backend.says("1.wav", TextDelta("half"), FOREVER)
    with place.desk(backend) as desk:
        job = made(desk, place, "1.wav")
        writing(job)
        desk.stop(job)
    with place.desk(backend) as desk:
        again = desk.get(job.id)
        assert again is not None
        assert not again.running
        assert states(again) == {"1.wav": "waiting"}
        desk.resume(again)
        assert captions(ended(again)) == {"1.wav": ["ok"]}
    assert len(backend.requests) == 2


def test_a_job_that_was_being_made_when_the_server_died_goes(place: Place, backend: Named) -> None:
    half = place.jobs / ("a" * 32)
    JobStore.create(half, SETTINGS).close()
    with place.desk(backend):
        assert place.kept() == set()


def test_what_a_program_asked_for_ends_with_the_server(place: Place, backend: Named) -> None:
    backend.says("rain.wav", TextDelta("half"), FOREVER)
    with place.desk(backend) as desk:
        job = desk.create([place.upload()], SETTINGS, keep=False)
        writing(job)
        assert job.store.folder.is_relative_to(place.uploads)
        assert place.kept() == set()
    desk.delete(job)
    assert not job.store.folder.exists()
    with place.desk(backend):
        assert len(backend.requests) == 1


DAMAGES = {
    "garbage": b"not a database at all, but long enough to be read as one" * 100,
    "empty": b"",
    "header": b"SQLite format 3\x00" + bytes(5000),
}


def damage(folder: Path, kind: str) -> None:
    """A job that cannot be read."""
    JobStore.create(folder, SETTINGS).close()
    if kind in DAMAGES:
        (folder / DATABASE).write_bytes(DAMAGES[kind])
        return
    database = sqlite3.connect(folder / DATABASE)
    with database:
        database.execute(kind)
    database.close()


@pytest.mark.parametrize(
    "kind",
    [
        *DAMAGES,
        "DELETE FROM settings",
        "DROP TABLE items",
        "UPDATE settings SET value = 'no JSON'",
        """UPDATE settings SET value = '{"of": "another version"}'""",
    ],
)
def test_a_damaged_job_stops_neither_the_server_nor_the_others(place: Place, backend: Named, kind: str) -> None:
    with place.desk(backend, start=False) as desk:
        backend.says("rain.wav", TextDelta("half"), FOREVER)
        good = made(desk, place, "rain.wav")
        writing(good)
    damaged = "damaged-" + "x" * 24
    damage(place.jobs / damaged, kind)
    with place.desk(backend) as desk:
        again = desk.get(good.id)
        assert again is not None
        assert captions(ended(again)) == {"rain.wav": ["ok"]}
        assert desk.get(damaged) is None
    with place.desk(backend, DeskLimits(idle_seconds=0)) as desk:
        desk.sweep()
        assert place.kept() == set()


def test_a_job_that_cannot_go_on_keeps_no_other_from_it(place: Place, backend: Named) -> None:
    good, bad = place.leave("good.wav"), place.leave("bad.wav")
    with closing(sqlite3.connect(place.jobs / bad / DATABASE)) as database:
        database.execute("ALTER TABLE settings DROP COLUMN wanted")
    with place.desk(backend) as desk:
        again = desk.get(good)
        assert again is not None
        assert states(ended(again)) == {"good.wav": "done"}


# Stop, retry, delete


def test_stopping_frees_the_engine_and_keeps_what_is_done(desk: JobDesk, place: Place, backend: Named) -> None:
    two_endless(backend)
    job = made(desk, place, "1.wav", "2.wav", "3.wav")
    writing(job, "1.wav")
    desk.stop(job)
    assert (backend.active_requests, job.running) == (0, False)
    assert backend.cancelled >= 1
    assert states(job) == {"1.wav": "done", "2.wav": "waiting", "3.wav": "waiting"}
    desk.stop(job)
    backend.forget()
    desk.resume(job)
    desk.resume(job)
    assert captions(ended(job)) == {"1.wav": ["Rain."], "2.wav": ["ok"], "3.wav": ["ok"]}


def test_one_file_or_all_that_failed_are_tried_again(desk: JobDesk, place: Place, backend: Named) -> None:
    for name in ("1.wav", "2.wav", "3.wav"):
        backend.says(name, NO_MEMORY)
    job = ended(made(desk, place, "1.wav", "2.wav", "3.wav", "4.wav"))
    assert states(job) == {"1.wav": "failed", "2.wav": "failed", "3.wav": "failed", "4.wav": "done"}
    desk.resume(job, failed=True, item=2)
    assert states(ended(job)) == {"1.wav": "failed", "2.wav": "done", "3.wav": "failed", "4.wav": "done"}
    desk.resume(job, failed=True)
    assert set(states(ended(job)).values()) == {"done"}
    assert sorted(asked(backend)) == ["1.wav", "1.wav", "2.wav", "2.wav", "3.wav", "3.wav", "4.wav"]


def test_a_file_that_there_is_not_is_not_tried_again(desk: JobDesk, place: Place, backend: Named) -> None:
    backend.says("1.wav", TextDelta("half"), FOREVER)
    job = made(desk, place, "1.wav")
    writing(job)
    desk.stop(job)
    with pytest.raises(KeyError):
        desk.resume(job, failed=True, item=7)
    assert not job.running
    assert not job.store.wanted


def test_files_are_tried_again_while_others_run(desk: JobDesk, place: Place, backend: Named) -> None:
    backend.says("1.wav", NO_MEMORY)
    go = threading.Event()
    backend.says("2.wav", go, TextDelta("Rain."))
    job = made(desk, place, "1.wav", "2.wav")
    wait_until(lambda: states(job)["1.wav"] == "failed", "the failure")
    desk.resume(job, failed=True)
    go.set()
    assert captions(ended(job)) == {"1.wav": ["ok"], "2.wav": ["Rain."]}


def test_deleting_ends_a_job_and_leaves_nothing_of_it(desk: JobDesk, place: Place, backend: Named) -> None:
    done = ended(made(desk, place, "done.wav"))
    backend.says("2.wav", TextDelta("half"), FOREVER)
    archive = bytes(zipped(("1.wav", SOUND)))
    running = desk.create([place.upload("all.zip", archive), place.upload("2.wav")], SETTINGS)
    writing(running)
    desk.delete(running)
    assert backend.active_requests == 0
    assert desk.get(running.id) is None
    assert place.kept() == {done.id}
    desk.delete(running)
    desk.delete(done)
    assert place.kept() == set()


def test_a_job_that_is_being_deleted_is_not_opened_again(
    desk: JobDesk, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ended(made(desk, place, "rain.wav"))
    found: list[object] = []
    remove = shutil.rmtree

    def slowly(path: Path, **options: Any) -> None:
        found.append(desk.get(job.id))
        remove(path, **options)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    desk.delete(job)
    assert found == [None]
    assert place.kept() == set()


def test_closing_twice_is_closing_once(place: Place, backend: Named) -> None:
    with place.desk(backend) as desk:
        desk.close()
        assert desk.closed


# Sharing the engine


class Counting(ScriptedBackend):
    """Knows the most that it was asked at the same time."""

    most = 0

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.most = max(self.most, self.active_requests)
        async for event in super()._stream(request):
            yield event


def test_jobs_share_the_engine_and_each_gets_its_turn(place: Place) -> None:
    can = Capabilities("scripted", "a script", max_concurrency=2)
    ids = [place.leave(*(f"{name}{number}.wav" for number in range(8))) for name in "abc"]
    backend = Counting(capabilities=can, fallback=[0.01, TextDelta("ok")])
    with place.desk(backend) as desk:
        for id in ids:
            job = desk.get(id)
            assert job is not None
            assert set(states(ended(job)).values()) == {"done"}
    backend.close()
    assert backend.most == 3
    assert {name[0] for name in asked(backend)[:12]} == {"a", "b", "c"}


def test_more_jobs_than_may_run_wait_their_turn(place: Place, backend: Named) -> None:
    backend.says("a.wav", TextDelta("half"), FOREVER)
    with place.desk(backend, DeskLimits(running=1)) as desk:
        first, second, third = (made(desk, place, f"{name}.wav") for name in "abc")
        writing(first)
        assert second.running
        desk.stop(second)
        assert not second.running
        desk.stop(first)
        assert states(ended(third)) == {"c.wav": "done"}
        desk.resume(second)
        ended(second)
    assert asked(backend) == ["a.wav", "c.wav", "b.wav"]


def test_an_engine_that_does_not_load_stops_the_job_and_says_why(place: Place) -> None:
    problem = BackendUnavailable(phrase("backend.load_failed"))
    backend = ScriptedBackend(load=[problem])
    with place.desk(backend) as desk:
        job = ended(made(desk, place, "rain.wav"))
        assert job.work.problem is problem
        assert (states(job), job.store.wanted) == ({"rain.wav": "waiting"}, False)
    backend.close()
    again = ScriptedBackend()
    with place.desk(again) as desk:
        found = desk.get(job.id)
        assert found is not None
        assert not found.running
        desk.resume(found)
        assert found.work.problem is None
        assert states(ended(found)) == {"rain.wav": "done"}
    again.close()


def test_what_stopped_a_job_is_forgotten_while_it_waits_for_its_turn(place: Place, backend: Named) -> None:
    backend.says("bad.wav", BackendUnavailable(phrase("backend.load_failed")))
    backend.says("rain.wav", TextDelta("half"), FOREVER)
    with place.desk(backend, DeskLimits(running=1)) as desk:
        job = ended(made(desk, place, "bad.wav"))
        assert job.work.problem is not None
        writing(made(desk, place, "rain.wav"))
        desk.resume(job)
        assert job.running
        assert job.work.problem is None


# Where nothing can be written


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, backend: Named) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackendUnavailable) as refused:
        JobDesk(backend, tmp_path / "file" / "jobs", tmp_path)
    for language in LANGUAGES:
        assert str(tmp_path / "file" / "jobs") in refused.value.text(language)
        assert "--jobs-dir" in refused.value.text(language)


def test_two_servers_do_not_work_on_the_same_jobs(place: Place, backend: Named) -> None:
    with place.desk(backend):
        with pytest.raises(BackendUnavailable) as refused:
            JobDesk(backend, place.jobs, place.uploads)
        assert refused.value.phrase == phrase("captioner.folder_taken", folder=str(place.jobs))
    with place.desk(backend) as desk:
        assert states(ended(made(desk, place, "rain.wav"))) == {"rain.wav": "done"}


def test_a_full_disk_is_one_sentence_and_jobs_can_still_be_ended(desk: JobDesk, place: Place, backend: Named) -> None:
    backend.says("rain.wav", TextDelta("half"), FOREVER)
    job = made(desk, place, "rain.wav")
    writing(job)
    given = place.upload("more.wav")
    with full_disk():
        with pytest.raises(BackendUnavailable) as refused:
            desk.create([given], SETTINGS)
        assert refused.value.phrase == phrase("captioner.not_kept")
        with pytest.raises(sqlite3.OperationalError):
            desk.stop(job)
        assert (backend.active_requests, job.running) == (0, False)
        assert place.kept() == {job.id}
        desk.delete(job)
    assert place.kept() == set()


def test_a_disk_that_fills_up_while_files_are_copied_leaves_no_job(
    desk: JobDesk, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> bool:
        target.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("omni_ui.captioner.desk.link_or_copy", full)
    with pytest.raises(BackendUnavailable) as refused:
        made(desk, place, "rain.wav")
    assert refused.value.phrase == phrase("captioner.not_kept")
    assert place.kept() == set()


def test_a_disk_that_fills_up_stops_the_job_until_there_is_room(desk: JobDesk, place: Place, backend: Named) -> None:
    go = threading.Event()
    backend.says("rain.wav", TextDelta("half"), go, TextDelta(" of it"))
    job = made(desk, place, "rain.wav", "more.wav")
    writing(job)
    with full_disk():
        go.set()
        ended(job)
    assert job.work.problem is not None
    assert job.work.problem.phrase == phrase("caption.disk")
    desk.resume(job)
    assert set(states(ended(job)).values()) == {"done"}
