"""An event loop in a thread of its own, and async generators that live there read from any other loop.

vLLM's engine and an HTTP client each live on one loop, while a backend serves callers from several.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Future
from contextlib import aclosing, suppress
from typing import Any, Final, TypeVar

T = TypeVar("T")

_END: Final = object()


class OwnLoop:
    """Runs until `close`. All methods may be called from any thread but the loop's own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts a coroutine. Raises RuntimeError once this was closed."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine to its end and gives its result. Blocking."""
        return self.submit(work).result()

    async def iterate(self, source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The items of a generator that runs on this loop, for the caller's loop.

        Closing it closes `source` and waits until that has ended. Ends early when this loop is closed.
        """
        reading = _Reading(source, self._loop)
        try:
            while (item := await reading.items.get()) is not _END:
                yield item
        finally:
            reading.cancel()
            await ended(reading.ended)
        if reading.error is not None:
            raise reading.error

    def cancel_all(self) -> None:
        """Cancels what runs and waits for its end. Blocking."""
        with suppress(RuntimeError):
            self.call(_cancel_others())

    def close(self) -> None:
        """Cancels what runs, waits for its end, and ends the thread. Further calls do nothing."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(_cancel_others())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.run_until_complete(_cancel_others())  # what came while its threads ended
        finally:
            self._loop.close()


class _Reading:
    """A generator that is being read on `home`; its items go to the queue of the loop that made this."""

    def __init__(self, source: AsyncGenerator[Any, None], home: asyncio.AbstractEventLoop) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.ended: Future[None] = Future()
        self.error: Exception | None = None
        self._source = source
        self._home = home
        self._reader = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        try:
            home.call_soon_threadsafe(self._start)
        except RuntimeError:  # `home` is closed
            self._finish()

    def cancel(self) -> None:
        """Begins to end it."""
        with suppress(RuntimeError):
            self._home.call_soon_threadsafe(lambda: self._task and self._task.cancel())

    def _start(self) -> None:
        self._task = self._home.create_task(self._read())
        self._task.add_done_callback(lambda _: self._finish())

    async def _read(self) -> None:
        try:
            async with aclosing(self._source) as items:
                async for item in items:
                    self._put(item)
        except Exception as error:
            self.error = error

    def _finish(self) -> None:
        self._put(_END)
        self.ended.set_result(None)

    def _put(self, item: object) -> None:
        with suppress(RuntimeError):  # the reader's loop is gone, and its generator with it
            self._reader.call_soon_threadsafe(self.items.put_nowait, item)


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def ended(work: Future[None]) -> None:
    """Waits for the end of work in another thread. A cancellation takes effect only then: it raises CancelledError."""
    wrapped = asyncio.wrap_future(work)
    wrapped.add_done_callback(lambda done: done.cancelled() or done.exception())
    cancelled: asyncio.CancelledError | None = None
    while not wrapped.done():
        try:
            await asyncio.wait([wrapped])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
