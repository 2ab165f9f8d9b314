"""The running app: what Gradio keeps of a visitor's files is gone when the conversation is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from omni_backend import MediaPart, ScriptedBackend, TextDelta
from omni_ui.server import App
from tests.conversations import SOUND, files_under
from tests.media_files import image_file
from tests.serving import serving


@pytest.fixture(scope="module")
def backend() -> Iterator[ScriptedBackend]:
    backend = ScriptedBackend(fallback=[TextDelta("A picture."), SOUND])
    yield backend
    backend.close()


@pytest.fixture
def app(backend: ScriptedBackend) -> Iterator[App]:
    with serving(backend) as app:
        backend.wait_until_ready()
        yield app


def test_nothing_is_left_of_a_visitors_files(app: App, backend: ScriptedBackend, tmp_path: Path) -> None:
    uploads = Path(os.environ["GRADIO_TEMP_DIR"])
    before = files_under(uploads)
    photo = tmp_path / "photo.png"
    photo.write_bytes(image_file())
    client = Client(app.url, verbose=False)
    message = {"text": "What is it?", "files": [handle_file(str(photo))]}
    _, sound = client.predict(message=message, speak=True, api_name="/chat")
    assert sound is not None
    part = backend.requests[-1].messages[-1].content[0]
    assert isinstance(part, MediaPart)
    adopted = Path(part.path)
    (original,) = [path for path in files_under(uploads) - before if path.name == photo.name and path != adopted]
    assert original.samefile(adopted)
    assert len(app.sessions) == 1
    app.sessions.close()
    assert files_under(uploads) == before
