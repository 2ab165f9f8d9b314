"""Starts and ends a page: the page first, the engine behind it. What all pages share."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gradio as gr
from starlette.routing import BaseRoute

from omni_backend import Backend, BackendError, phrase
from omni_backend.command_line import close_engine, console_language
from omni_ui.cli import Settings
from omni_ui.layout import theme

QUEUE_SIZE: Final = 64
LOOK_SECONDS: Final = 0.5
"""Between two looks for a signal to end."""

MakeBackend = Callable[[tuple[Path, ...]], Backend]
"""Takes the folders in which uploaded files lie, gives the engine, not yet started."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a server needs to know of a page."""

    demo: gr.Blocks
    routes: tuple[BaseRoute, ...]
    """Its own addresses beside Gradio's."""
    texts: gr.I18n
    styles: list[Path]
    head: str
    """Its scripts."""
    file_bytes: int
    """The most that an uploaded file may have."""


class Host(ABC):
    """A running page: a server, and the engine that loads behind it."""

    def __init__(self, make_backend: MakeBackend, settings: Settings) -> None:
        """Opens the port and begins to load. Raises BackendError (no such engine) and OSError (port taken)."""
        # Gradio sums up all past events after each one, for a page that is switched off here.
        os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(sys.maxsize))
        self._work = tempfile.TemporaryDirectory(prefix="omni-", ignore_cleanup_errors=True)
        # Gradio has no other way to be told where uploads go.
        self._gradio_folder = os.environ.get("GRADIO_TEMP_DIR")
        root = Path(self._work.name).resolve()
        os.environ["GRADIO_TEMP_DIR"] = str(root)
        try:
            self.backend = make_backend((root, *self._more_roots(settings)))
            self._launch(self._build(settings, root), settings)
        except BaseException:
            self._tidy()
            raise
        self._begin()
        self.backend.start()  # only now: importing torch would keep the page from answering

    def _more_roots(self, settings: Settings) -> tuple[Path, ...]:
        """Further folders that the engine may read files from."""
        return ()

    @abstractmethod
    def _build(self, settings: Settings, root: Path) -> Page:
        """The page over `self.backend`. `root`: where uploads lie."""

    @abstractmethod
    def _begin(self) -> None:
        """What runs beside the page begins."""

    @abstractmethod
    def end(self) -> None:
        """Ends what runs on the engine. Further calls do nothing."""

    @property
    def url(self) -> str:
        """Where the page is."""
        return str(self._demo.local_url)

    def close(self) -> None:
        """Ends the work and the server, and deletes the uploads. The engine is its owner's to close."""
        self.end()
        # Gradio's event streams would wait ten seconds for news; cut them, without a traceback for each.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._demo.close(verbose=False)
        self._tidy()

    def _launch(self, page: Page, settings: Settings) -> None:
        _spare_the_proxy(settings.server_name)
        self._demo = page.demo
        self._demo.queue(max_size=QUEUE_SIZE, api_open=True, default_concurrency_limit=None)
        self._demo.launch(
            server_name=settings.server_name,
            server_port=settings.server_port,
            share=settings.share,
            inbrowser=settings.inbrowser,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            footer_links=["api"],
            max_file_size=page.file_bytes,
            app_kwargs={"routes": list(page.routes)},
            i18n=page.texts,
            theme=theme(),
            css_paths=page.styles,
            head=page.head,
        )
        if self._demo.server is not None:
            self._demo.server.config.timeout_graceful_shutdown = 0

    def _tidy(self) -> None:
        if self._gradio_folder is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = self._gradio_folder
        self._work.cleanup()


def _spare_the_proxy(server_name: str) -> None:
    """Gradio asks its own server whether it is up; a proxy of the environment could not answer that."""
    for variable in ("no_proxy", "NO_PROXY"):
        spared = [os.environ.get(variable, ""), "127.0.0.1", "localhost", server_name]
        os.environ[variable] = ",".join(host for host in spared if host)


def run(host: type[Host], make_backend: MakeBackend, settings: Settings) -> int:
    """Runs a page until Ctrl+C or SIGTERM; the process's exit status."""
    language = console_language(os.environ)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        app = host(make_backend, settings)
    except BackendError as problem:
        print(problem.text(language), file=sys.stderr)
        return 1
    except OSError:
        taken = phrase("cli.port_taken", name=settings.server_name, port=settings.server_port)
        print(taken.text(language), file=sys.stderr)
        return 1
    print(phrase("cli.started", url=app.url).text(language), flush=True)
    while not stop.wait(LOOK_SECONDS):
        pass  # a signal that reached another thread is seen only when this one wakes
    print(phrase("cli.closing").text(language), flush=True)
    app.end()
    engine = threading.Thread(target=close_engine, args=(app.backend,), name="omni-end")
    engine.start()
    app.close()
    engine.join()
    return 0


__all__ = ["Host", "MakeBackend", "Page", "run"]
