"""`python app_captioner.py` ends in the middle of jobs when it is told to, and its next start goes on with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import Response

from omni_backend import ScriptedBackend, TextDelta, phrase
from omni_backend.caption.store import JobStore
from tests.caption_desks import SOUND, Place
from tests.conversations import FOREVER
from tests.fake_server import FakeServer, Nature, Step
from tests.serving import free_port
from tests.waiting import wait_until

ROOT: Final = Path(__file__).resolve().parent.parent


class CaptionServer(FakeServer):
    """The engine: a server, since that is soon there. Says "Rain." of the first sound and `says` of the others."""

    def __init__(self, *says: Step) -> None:
        super().__init__(Nature(speaks=None))
        self.says = says
        self.asked = 0
        """For captions; it is also asked what it can do."""

    async def _chat(self, request: Request) -> Response:
        if phrase("caption.instruction").text() in str(await request.json()):
            self.asked += 1
            self.enqueue(*([TextDelta("Rain.")] if self.asked == 1 else self.says))
        return await super()._chat(request)


@pytest.fixture
def server() -> Iterator[CaptionServer]:
    server = CaptionServer(TextDelta("half"), FOREVER)
    server.start()
    yield server
    server.stop()


@contextmanager
def running(server: CaptionServer, jobs: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The program's address, once it answers, and its process."""
    port = free_port()
    argv = ["app_captioner.py", "--server-url", server.url, "--server-port", str(port), "--jobs-dir", str(jobs)]
    process = subprocess.Popen(
        [sys.executable, *argv],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    url = f"http://127.0.0.1:{port}/"

    def answers() -> bool:
        assert process.poll() is None, process.communicate()
        try:
            return httpx.get(url, timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_until(answers, "the page", seconds=120)
        yield url, process
    finally:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Sends the signal; the program says nothing of it but that it ends."""
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    assert errors == ""
    assert output.endswith(f"{phrase('cli.closing').text()}\n")


def call(url: str) -> None:
    """Calls the endpoint for programs and does not wait for the answer."""
    [path] = httpx.post(f"{url}gradio_api/upload", files={"files": ("rain.wav", SOUND)}, timeout=60).json()
    sound = {"path": path, "meta": {"_type": "gradio.FileData"}}
    httpx.post(
        f"{url}gradio_api/call/caption", json={"data": [sound, "en", "", 0, 0, 1, {}]}, timeout=60
    ).raise_for_status()


def texts(folder: Path) -> list[str]:
    """The captions that lie on disk."""
    with closing(JobStore.open(folder)) as store:
        return [segment.text for item in store.items() for segment in store.segments(item.id)]


def test_it_ends_when_told_and_goes_on_by_itself(server: CaptionServer, tmp_path: Path) -> None:
    place = Place(tmp_path)
    id = place.leave("1.wav", "2.wav", "3.wav")
    with running(server, place.jobs) as (url, process):
        wait_until(lambda: server.asked == 3 and server.active == 2, "the job", seconds=60)
        call(url)
        wait_until(lambda: server.active == 3, "the call")
        end(process, signal.SIGTERM)
    wait_until(lambda: server.active == 0, "the end of the work")
    assert texts(place.jobs / id) == ["Rain."]
    assert place.kept() == {id}
    server.says = (TextDelta("Wind."),)
    with running(server, place.jobs) as (url, process):

        def done() -> bool:
            return (
                phrase("captioner.files_done", done=3).text()
                in httpx.get(f"{url}captions/{id}", timeout=60).json()["summary"]
            )

        wait_until(done, "the end of the job", seconds=60)
        end(process, signal.SIGINT)
    assert sorted(texts(place.jobs / id)) == ["Rain.", "Wind.", "Wind."]
    assert server.asked == 3 + 1 + 2


def test_a_folder_of_another_server_is_one_sentence(server: CaptionServer, tmp_path: Path) -> None:
    place = Place(tmp_path)
    never = ScriptedBackend()
    with place.desk(never):
        argv = ["app_captioner.py", "--server-url", server.url, "--jobs-dir", str(place.jobs)]
        done = subprocess.run([sys.executable, *argv], cwd=ROOT, capture_output=True, text=True, timeout=60)
    never.close()
    assert done.returncode == 1
    assert done.stderr == phrase("captioner.folder_taken", folder=str(place.jobs)).text() + "\n"
