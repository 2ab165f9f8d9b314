"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PATIENCE = 20.0
"""Seconds until a condition that does not come is a failure."""


async def until(condition: Callable[[], object]) -> None:
    """Lets other tasks run until `condition()` holds. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the condition is any expression
            await asyncio.sleep(0.002)


def wait_until(condition: Callable[[], object], what: str = "the condition", seconds: float = PATIENCE) -> None:
    """Blocks until `condition()` holds. Raises AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {seconds} s"
        time.sleep(0.01)
