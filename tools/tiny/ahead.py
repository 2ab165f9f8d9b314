"""The data of coming steps, made in other processes while this one learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")

_WAITING: int = 4  # steps that each process may be ahead


def ahead(make: Callable[[int], T], steps: int, workers: int) -> Callable[[int], T]:
    """`make`, its results computed beforehand by `workers` processes; with none it is called when asked.

    With workers steps must be asked for one after the other, from any first one. The results are the same either way.
    """
    if not workers:
        return make
    torch.multiprocessing.set_sharing_strategy("file_system")  # the other way runs out of file descriptors
    iterators: list[Iterator[T]] = []

    def take(step: int) -> T:
        if not iterators:
            loader: DataLoader[T] = DataLoader(
                _Steps(make, steps),
                batch_size=None,
                sampler=range(step, steps),
                num_workers=workers,
                prefetch_factor=_WAITING,
                multiprocessing_context="fork",
                collate_fn=_as_it_is,
            )
            iterators.append(iter(loader))
        return next(iterators[0])

    return take


class _Steps(Dataset[T]):
    def __init__(self, make: Callable[[int], T], steps: int) -> None:
        self._make = make
        self._steps = steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> T:
        return self._make(step)


def _as_it_is(made: T) -> T:
    return made
