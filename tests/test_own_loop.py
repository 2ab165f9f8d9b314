"""A loop of one's own: what runs there is read from elsewhere, cancelled from elsewhere, and never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import aclosing

import pytest

from omni_backend.own_loop import OwnLoop, ended


class Source:
    """Counts on the engine's loop and tells how it ended."""

    def __init__(self, end: int) -> None:
        self.end = end
        self.closed = False

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.end):
                await asyncio.sleep(0)
                yield number
            if self.end == 3:
                raise ValueError("three")
        finally:
            self.closed = True


@pytest.mark.asyncio
async def test_a_generator_of_another_loop_is_read_to_its_end() -> None:
    loop = OwnLoop("test")
    source = Source(5)
    assert [item async for item in loop.iterate(source.items())] == [0, 1, 2, 3, 4]
    assert source.closed
    loop.close()


@pytest.mark.asyncio
async def test_its_error_arrives_after_its_items() -> None:
    loop = OwnLoop("test")
    seen: list[int] = []

    async def read() -> None:
        async for item in loop.iterate(Source(3).items()):
            seen.append(item)

    with pytest.raises(ValueError, match="three"):
        await read()
    assert seen == [0, 1, 2]
    loop.close()


@pytest.mark.asyncio
async def test_leaving_it_early_closes_it_before_going_on() -> None:
    loop = OwnLoop("test")
    source = Source(10**9)
    async with aclosing(loop.iterate(source.items())) as items:
        async for item in items:
            if item == 2:
                break
    assert source.closed
    loop.close()


@pytest.mark.asyncio
async def test_closing_the_loop_ends_what_is_read_and_what_is_asked_later() -> None:
    loop = OwnLoop("test")
    source = Source(10**9)
    seen = 0
    async for _ in loop.iterate(source.items()):
        seen += 1
        if seen == 2:
            await asyncio.to_thread(loop.close)
    assert source.closed
    assert not [item async for item in loop.iterate(Source(5).items())]
    loop.close()


@pytest.mark.asyncio
async def test_nothing_starts_on_a_closed_loop() -> None:
    loop = OwnLoop("test")
    loop.close()
    with pytest.raises(RuntimeError):
        loop.call(asyncio.sleep(0))


@pytest.mark.asyncio
async def test_a_cancellation_waits_for_work_that_ends_and_is_not_lost() -> None:
    work: Future[None] = Future()
    waiting = asyncio.create_task(ended(work))
    for _ in range(2):
        await asyncio.sleep(0)
        waiting.cancel()
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    work.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await waiting
