"""How far a job is, on standard error: a bar on a terminal, now and then a line anywhere else."""

from __future__ import annotations

import math
import sys
import time
from typing import Final, Protocol

LINES_SECONDS: Final = 10.0
"""Between two lines where there is no terminal."""


class Display(Protocol):
    """Where progress is shown."""

    def show(self, share: float, sentence: str) -> None:
        """How far it is, 0 to 1, and in words. Replaces what was shown before."""

    def tell(self, sentence: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """Shows no progress any more; lines can still be told."""


def display() -> Display:
    """The one that suits standard error."""
    return _Bar() if sys.stderr.isatty() else _Lines()


class _Bar:
    """A bar that redraws itself below the lines that stay."""

    def __init__(self) -> None:
        from tqdm import tqdm  # type: ignore[import-untyped]

        form = "{percentage:3.0f}% {bar:24} {desc}"
        self._bar = tqdm(total=1.0, bar_format=form, file=sys.stderr, dynamic_ncols=True, leave=False)

    def show(self, share: float, sentence: str) -> None:
        self._bar.n = share
        self._bar.set_description_str(sentence)

    def tell(self, sentence: str) -> None:
        self._bar.write(sentence, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


class _Lines:
    """Lines for a log."""

    def __init__(self) -> None:
        self._last = ""
        self._at = -math.inf

    def show(self, share: float, sentence: str) -> None:
        now = time.monotonic()
        if sentence != self._last and now - self._at >= LINES_SECONDS:
            self._last, self._at = sentence, now
            self.tell(sentence)

    def tell(self, sentence: str) -> None:
        print(sentence, file=sys.stderr, flush=True)

    def close(self) -> None:
        pass
