"""A cache of decoded media: bounded by bytes, the least recently used goes first, nothing is made twice at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TypeVar, cast

T = TypeVar("T")


class Cache:
    """Keeps what `get` makes. Safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._entries: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()
        self._gates: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], T], size: Callable[[T], int]) -> T:
        """The value of `key`; made now when it is not kept. `size` gives its bytes.

        Callers that ask for the same key meanwhile wait for the one that makes it. What `make` raises reaches
        its caller and is not kept; the next in line makes it again. Larger than the whole cache: not kept.
        """
        with self._lock:
            if key in self._entries:
                return cast(T, self._touch(key))
            gate = self._gates.setdefault(key, threading.Lock())
        with gate:
            with self._lock:
                if key in self._entries:
                    return cast(T, self._touch(key))
            try:
                value = make()
                with self._lock:
                    self._keep(key, value, size(value))
            finally:
                with self._lock:
                    self._gates.pop(key, None)
        return value

    def _touch(self, key: Hashable) -> object:
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def _keep(self, key: Hashable, value: object, size: int) -> None:
        if size > self._max_bytes:
            return
        if key in self._entries:
            self._bytes -= self._entries.pop(key)[1]
        self._entries[key] = value, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= self._entries.popitem(last=False)[1][1]
