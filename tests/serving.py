"""The real apps on a free port of this machine, over any engine, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from omni_backend import Backend, BackendOptions
from omni_ui.captioner.server import CaptionApp
from omni_ui.cli import Settings
from omni_ui.host import Host
from omni_ui.server import App
from tools.running_app import free_port as free_port

Served = TypeVar("Served", bound=Host)


@contextmanager
def serving(backend: Backend, *, embedded: bool = False) -> Iterator[App]:
    """The chat over `backend`, which is left open."""
    settings = Settings(BackendOptions("tests", generate_audio=True), embedded=embedded, server_port=free_port())
    with _running(App, backend, settings) as app:
        yield app


@contextmanager
def captioning(
    backend: Backend, jobs_dir: Path, *, embedded: bool = False, port: int | None = None
) -> Iterator[CaptionApp]:
    """The captioner over `backend`, which is left open, with its jobs in `jobs_dir`. `port`: None: any."""
    settings = Settings(BackendOptions("tests"), embedded=embedded, server_port=port or free_port(), jobs_dir=jobs_dir)
    with _running(CaptionApp, backend, settings) as app:
        yield app


@contextmanager
def _running(host: type[Served], backend: Backend, settings: Settings) -> Iterator[Served]:
    def make_backend(_: tuple[Path, ...]) -> Backend:
        return backend

    async def launch() -> Served:
        return host(make_backend, settings)

    # Gradio makes event loops and forgets to close them, unless it finds a running one.
    with ThreadPoolExecutor(1) as threads:
        app = threads.submit(asyncio.run, launch()).result()
    try:
        yield app
    finally:
        app.close()
