"""What the tests of caption jobs share: a store of captions that were made up, and a disk that is full."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from omni_backend.caption.collect import Found
from omni_backend.caption.store import Item, JobStore
from omni_backend.caption.windows import Window


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
