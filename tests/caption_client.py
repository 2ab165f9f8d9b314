"""The captioner's endpoints as a program calls them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradio_client import Client, handle_file

from omni_ui.captioner.server import CaptionApp
from tests.caption_desks import SOUND
from tests.waiting import wait_until


@contextmanager
def client_of(app: CaptionApp, folder: Path) -> Iterator[Client]:
    client = Client(app.url, verbose=False, download_files=folder)
    try:
        yield client
    finally:
        client.close()


def nothing_left(app: CaptionApp) -> None:
    """The jobs of the calls are gone."""
    calls = app.desk.uploads / "calls"
    wait_until(lambda: not calls.exists() or not list(calls.iterdir()), "the end of the calls' jobs")


def caption(client: Client, sound: Path | None, **options: Any) -> Any:
    return client.predict(sound=sound and handle_file(str(sound)), api_name="/caption", **options)


def batch(client: Client, *files: Path, **options: Any) -> Any:
    return client.predict(files=[handle_file(str(file)) for file in files], api_name="/caption_batch", **options)


def written(folder: Path, name: str, contents: bytes = SOUND) -> Path:
    (folder / name).write_bytes(contents)
    return folder / name
