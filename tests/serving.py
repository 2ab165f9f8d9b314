"""The real app on a free port of this machine, over any engine, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from omni_backend import Backend, BackendOptions
from omni_ui.cli import Settings
from omni_ui.server import App
from tools.running_app import free_port as free_port


@contextmanager
def serving(backend: Backend, *, embedded: bool = False) -> Iterator[App]:
    """The app over `backend`, which is left open."""

    def make_backend(_: tuple[Path, ...]) -> Backend:
        return backend

    settings = Settings(BackendOptions("tests", generate_audio=True), embedded=embedded, server_port=free_port())

    async def launch() -> App:
        return App(make_backend, settings)

    # Gradio makes event loops and forgets to close them, unless it finds a running one.
    with ThreadPoolExecutor(1) as threads:
        app = threads.submit(asyncio.run, launch()).result()
    try:
        yield app
    finally:
        app.close()
