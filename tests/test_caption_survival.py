"""A job on disk bears many threads, a full disk and a program that ends at any moment."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pytest

from omni_backend.caption import CaptionSettings
from omni_backend.caption.store import Counts, JobStore
from tests.caption_jobs import caption, found, full_disk, item, reopened, texts, window

ROOT: Final = Path(__file__).parent.parent


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with closing(JobStore.create(tmp_path / "job", CaptionSettings())) as made:
        yield made


def test_many_threads_write_and_read_at_once(store: JobStore) -> None:
    store.add(map(found, "abcd"))

    def write(id: int) -> None:
        for index in range(25):
            caption(store, id, index, f"{id}.{index}", seconds=2.0)
            assert texts(store, id)[-1] == f"{id}.{index}"
            assert store.counts.captioned >= 2.0 * (index + 1)
        store.finish(id, 50.0)

    before = store.version
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, (1, 2, 3, 4)))
    assert store.counts == Counts(done=4, seconds=200.0, captioned=200.0)
    assert [texts(store, id) for id in (1, 2, 3, 4)] == [[f"{id}.{n}" for n in range(25)] for id in (1, 2, 3, 4)]
    assert store.version == before + 4 * (25 * 2 + 1)


def test_captions_are_read_with_their_own_cuts(store: JobStore) -> None:
    store.add([found("a.wav")])
    over = threading.Event()

    def write() -> None:
        for turn in range(300):
            seconds = 10.0 + turn % 2
            store.begin_window(1, window(0, 0.0, seconds))
            store.put(1, 0, 0, str(seconds))
        over.set()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not over.is_set() and not writing.done():
            for segment in store.segments(1):
                assert segment.text == str(segment.end)
        writing.result()


def test_a_full_disk_is_an_error_and_the_job_goes_on_when_there_is_room(store: JobStore) -> None:
    store.add([found("a.wav")])
    caption(store, 1, 0, "Rain.")
    version = store.version
    with full_disk():
        with pytest.raises(sqlite3.OperationalError, match="disk"):
            store.begin_window(1, window(1, 10.0, 20.0))
        with pytest.raises(sqlite3.OperationalError, match="disk"):
            store.start(1)
    assert (store.version, texts(store), item(store).state) == (version, ["Rain."], "waiting")
    caption(store, 1, 1, "Snow.")
    store.finish(1, 20.0)
    with reopened(store) as again:
        assert texts(again) == ["Rain.", "Snow."]


WRITE: Final = """
import os, sys
from pathlib import Path
import numpy as np
from omni_backend.caption.store import JobStore
from omni_backend.caption.windows import Window
store = JobStore.open(Path(sys.argv[1]))
store.start(1)
for index in range(int(sys.argv[2])):
    store.begin_window(1, Window(index, float(index), index + 1.0, np.zeros(0, np.float32), b""))
    store.put(1, index, 0, f"caption {index}")
    print(index, flush=True)
os._exit(1)
"""


def written(store: JobStore, windows: int, kill_after: int | None = None) -> int:
    """How many captions a program has told of that writes up to `windows` and is killed after `kill_after` at least."""
    line = [sys.executable, "-c", WRITE, str(store.folder), str(windows)]
    told = 0
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in process.stdout:
            told += 1
            if told == kill_after:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGKILL)
    assert process.returncode == (1 if kill_after is None else -signal.SIGKILL)
    return told


@pytest.mark.parametrize(("windows", "kill_after"), [(40, None), (10**6, 30)], ids=["exit", "kill"])
def test_a_program_that_ends_at_any_moment_loses_nothing(store: JobStore, windows: int, kill_after: int | None) -> None:
    store.add([found("a.wav"), found("b.wav")])
    store.close()
    told = written(store, windows, kill_after)
    assert told >= (kill_after or windows)
    with closing(JobStore.open(store.folder)) as again:
        captions = texts(again)
        # One more may have been kept before it was told.
        assert captions == [f"caption {index}" for index in range(len(captions))]
        assert told <= len(captions) <= told + 1
        assert (item(again).state, item(again).starts, item(again).captioned) == ("waiting", 1, len(captions))
        caption(again, 2, 0, "and on")
