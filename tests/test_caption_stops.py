"""A job that is stopped, loses its engine, its disk or its program goes on later, and asks nothing twice."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from omni_backend import (
    BackendError,
    BackendUnavailable,
    Capabilities,
    Phrase,
    TextDelta,
    UnsupportedRequest,
    phrase,
)
from omni_backend.base import ReportProgress
from omni_backend.caption.job import MOST_STARTS, WINDOWS, CaptionJob
from omni_backend.caption.store import JobStore
from tests.caption_jobs import ENDLESS, Ears, full_disk, item, job_store, reopened, steps, texts
from tests.waiting import until

ALL = [["a.wav 0", "a.wav 1", "a.wav 2"], ["b.wav 0"]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    """A job on two files, of three windows and of one."""
    with closing(job_store(tmp_path, {"a.wav": steps(3), "b.wav": steps(1)})) as made:
        yield made


def states(store: JobStore) -> list[str]:
    return [one.state for one in store.items()]


def captions(store: JobStore) -> list[list[str]]:
    return [texts(store, one.id) for one in store.items()]


def left_over(store: JobStore) -> list[Path]:
    return list(store.folder.glob(f"{WINDOWS}*"))


def problem_of(job: CaptionJob) -> Phrase | None:
    return None if job.problem is None else job.problem.phrase


async def cancelled(running: asyncio.Task[None]) -> None:
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.asyncio
async def test_stopping_frees_the_engine_and_the_next_run_asks_nothing_twice(store: JobStore, concurrency: int) -> None:
    endless = concurrency - 1  # the window, so that one before it is done where there is room
    ears = Ears({f"a.wav {endless}": [ENDLESS]}, max_concurrency=concurrency)
    job = CaptionJob(store, ears)
    running = asyncio.create_task(job.run())
    await until(lambda: job.live.get((1, endless, 0)) and len(texts(store)) >= endless)
    await cancelled(running)
    assert (ears.active_requests, job.live, job.problem, left_over(store)) == (0, {}, None, [])
    assert 1 <= ears.cancelled <= concurrency + 1  # with the one that is prepared beside
    done = [text for kept in captions(store) for text in kept]
    assert ("a.wav 0" in done) is (endless == 1)
    assert (item(store).state, item(store).starts) == ("waiting", 0)

    before = len(ears.heard)
    await job.run()
    assert sorted(ears.heard[before:] + done) == sorted(ALL[0] + ALL[1])
    assert (states(store), captions(store)) == (["done", "done"], ALL)


@pytest.mark.asyncio
async def test_a_job_can_be_stopped_while_the_engine_loads(store: JobStore) -> None:
    class Loading(Ears):
        def _load(self, report: ReportProgress) -> Capabilities:
            self._settled.wait()
            return super()._load(report)

    ears = Loading()
    running = asyncio.create_task(CaptionJob(store, ears).run())
    await until(lambda: ears._loader)
    await cancelled(running)
    assert states(store) == ["waiting", "waiting"]
    ears.close()


@pytest.mark.asyncio
async def test_stopping_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    ears = Ears(max_concurrency=2)
    with closing(job_store(tmp_path, {"a.wav": steps(60)})) as store:
        for moments in range(12):
            before = len(ears.heard)
            running = asyncio.create_task(CaptionJob(store, ears).run())
            await until(lambda before=before: len(ears.heard) > before)  # type: ignore[misc]
            for _ in range(moments):
                await asyncio.sleep(0)
            kept = texts(store)
            await cancelled(running)
            assert (ears.active_requests, states(store), left_over(store)) == (0, ["waiting"], [])
            assert set(texts(store)) >= set(kept)
        await CaptionJob(store, ears).run()
        assert captions(store) == [[f"a.wav {index}" for index in range(60)]]


# The engine


@pytest.mark.parametrize(
    "problem", [BackendUnavailable(phrase("backend.busy")), UnsupportedRequest(phrase("request.empty"))]
)
@pytest.mark.asyncio
async def test_an_engine_that_cannot_do_it_ends_the_run(store: JobStore, problem: BackendError) -> None:
    ears = Ears({"a.wav 1": [(TextDelta("Half of "), problem)], "b.wav 0": [ENDLESS]}, max_concurrency=3)
    job = CaptionJob(store, ears)
    await job.run()
    assert job.problem is problem
    assert ears.active_requests == 0
    assert (states(store), item(store).starts, left_over(store)) == (["waiting", "waiting"], 0, [])
    kept = captions(store)
    assert "a.wav 1" not in kept[0]
    ears.says.clear()
    before = len(ears.heard)
    await job.run()
    assert job.problem is None
    assert (states(store), captions(store)) == (["done", "done"], ALL)
    assert not set(ears.heard[before:]) & {text for texts in kept for text in texts}


@pytest.mark.asyncio
async def test_an_engine_that_did_not_load_is_the_problem(store: JobStore) -> None:
    class Absent(Ears):
        def _load(self, report: ReportProgress) -> Capabilities:
            raise BackendUnavailable(phrase("load.other_model", name="x", found="bert", wanted="qwen3_omni_moe"))

    job = CaptionJob(store, Absent())
    await job.run()
    assert isinstance(job.problem, BackendUnavailable)
    assert job.problem.phrase.key == "load.other_model"
    assert states(store) == ["waiting", "waiting"]


@pytest.mark.asyncio
async def test_chinese_from_an_engine_whose_answers_cannot_be_begun(tmp_path: Path) -> None:
    reason = phrase("server.no_answer_prefix")
    with closing(job_store(tmp_path, {"a.wav": steps(1)}, language="zh")) as store:
        job = CaptionJob(store, Ears(text_prompts=False, no_answer_prefix=reason))
        await job.run()
        assert (problem_of(job), states(store)) == (reason, ["waiting"])


# The disk


@pytest.mark.asyncio
async def test_a_full_disk_ends_the_run_with_a_sentence(store: JobStore, caplog: pytest.LogCaptureFixture) -> None:
    """Not even that files wait again can be written then."""
    caplog.set_level(logging.CRITICAL)
    ears = Ears()
    job = CaptionJob(store, ears)
    with ExitStack() as stack:

        def fill(label: str) -> None:
            if label == "a.wav 1":
                stack.enter_context(full_disk())

        ears.on_hearing = fill
        await job.run()
    assert (problem_of(job), ears.active_requests) == (phrase("caption.disk"), 0)
    kept = captions(store)

    ears.on_hearing = lambda label: None
    before = len(ears.heard)
    await job.run()
    assert (problem_of(job), states(store), captions(store)) == (None, ["done", "done"], ALL)
    assert not set(ears.heard[before:]) & set(kept[0])


@pytest.mark.asyncio
async def test_a_folder_that_is_not_there_any_more_is_a_problem(store: JobStore) -> None:
    shutil.rmtree(store.folder)
    job = CaptionJob(store, Ears())
    await job.run()
    assert problem_of(job) == phrase("caption.disk")


# The program


def die(store: JobStore, times: int = 1) -> None:
    """As if the program ended so often while it captioned the file 1."""
    for _ in range(times):
        with closing(JobStore.open(store.folder)) as again:
            again.start(1)


@pytest.mark.parametrize(("deaths", "state"), [(MOST_STARTS - 1, "done"), (MOST_STARTS, "failed")])
@pytest.mark.asyncio
async def test_a_file_of_which_the_program_dies_is_left_out(store: JobStore, deaths: int, state: str) -> None:
    die(store, deaths)
    with reopened(store) as again:
        ears = Ears()
        await CaptionJob(again, ears).run()
        assert states(again) == [state, "done"]
        assert ("a.wav 0" in ears.heard) is (state == "done")
        if state == "done":
            return
        assert item(again).error == phrase("caption.deadly", name="a.wav", limit=MOST_STARTS)
        again.retry(1)
        await CaptionJob(again, ears).run()
        assert (states(again), captions(again)) == (["done", "done"], ALL)


@pytest.mark.asyncio
async def test_what_a_killed_run_left_in_the_folder_goes(store: JobStore) -> None:
    for name in ("old", "older"):
        (store.folder / f"{WINDOWS}{name}").mkdir()
        (store.folder / f"{WINDOWS}{name}" / "1-0.wav").write_bytes(steps(1))
    (store.folder / "files").mkdir()
    (store.folder / "files" / "mine.wav").write_bytes(steps(1))
    folders: list[list[str]] = []
    ears = Ears()
    ears.on_hearing = lambda label: folders.append([folder.name for folder in left_over(store)])
    await CaptionJob(store, ears).run()
    assert all(len(there) == 1 and "old" not in there[0] for there in folders)
    assert folders
    assert left_over(store) == []
    assert (store.folder / "files" / "mine.wav").is_file()
