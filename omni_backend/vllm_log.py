"""vLLM's log lines → how far it is.

The engine's processes write to the standard error that they inherit. While they are started, that is a pipe; a
thread reads it for as long as they live and passes everything on.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from omni_backend.base import ReportProgress
from omni_backend.catalogue import Phrase, phrase

KEPT_LINES: Final = 200
"""The last lines of the log that are kept to tell why the engine did not start."""

# A line, the step that begins with it, and, where the line counts, its per cent.
_STEPS: Final = (
    (re.compile(r"Starting to load model"), "load.weights"),
    (re.compile(r"checkpoint shards:\s+(\d+)%"), "load.weights"),
    (re.compile(r"Loading weights took"), "vllm.memory"),
    (re.compile(r"Dynamo bytecode|Compiling a graph"), "vllm.compiling"),
    (re.compile(r"KV cache size"), "vllm.warming"),
    (re.compile(r"Capturing CUDA graphs.*?(\d+)%"), "vllm.graphs"),
)
_NO_MEMORY: Final = re.compile(
    r"out of memory|No available memory for the cache|Free memory on device|bad_alloc|Cannot allocate memory"
    r"|KV cache is needed, which is larger",
    re.IGNORECASE,
)


class EngineLog:
    """Reads what the engine's processes say while and after they start."""

    def __init__(self, name: str, report: ReportProgress) -> None:
        """`name`: of the checkpoint, as people call it."""
        self._name = name
        self._report = report
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    @property
    def out_of_memory(self) -> bool:
        """Whether a line said that memory was short."""
        return any(_NO_MEMORY.search(line) for line in tuple(self._lines))

    def tail(self) -> str:
        """The last lines."""
        return "\n".join(tuple(self._lines)[-20:])

    def take(self, line: str) -> None:
        """One line of the log."""
        self._lines.append(line)
        if step := read_step(line, self._name):
            self._report(*step)


def read_step(line: str, name: str) -> tuple[Phrase, float | None] | None:
    """The step that a line of vLLM's log begins and how far it is, 0 to 1; None for other lines."""
    for pattern, key in _STEPS:
        if found := pattern.search(line):
            fraction = int(found[1]) / 100 if pattern.groups else None
            return (phrase(key, name=name) if key == "load.weights" else phrase(key)), fraction
    return None


@contextmanager
def heard_by(take: Callable[[str], None]) -> Iterator[None]:
    """Inside, processes that are started have their standard error heard: `take` gets every line of it.

    This process writes there too meanwhile. All of it still reaches the real standard error.
    """
    sys.stderr.flush()
    real = os.dup(2)
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    threading.Thread(target=_pass_on, args=(reader, os.dup(real), take), name="omni-vllm-log", daemon=True).start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(real, 2)
        os.close(real)


def _pass_on(reader: int, real: int, take: Callable[[str], None]) -> None:
    """Runs until the last process that writes has ended."""
    rest = b""
    with open(reader, "rb", buffering=0) as pipe:
        while chunk := pipe.read(1 << 16):
            os.write(real, chunk)
            *lines, rest = re.split(rb"[\r\n]+", rest + chunk)
            for line in lines:
                if line.strip():
                    take(line.decode(errors="replace"))
    os.close(real)
