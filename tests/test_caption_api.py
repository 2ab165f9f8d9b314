"""The captioner's endpoints for programs: what they take and refuse, and that a call that ends leaves nothing."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from omni_backend import BackendError, BackendUnavailable, OutOfMemory, ScriptedBackend, TextDelta, phrase
from omni_backend.caption.collect import Collected, collect
from omni_ui.captioner.server import CaptionApp
from tests.caption_client import batch, caption, client_of, nothing_left, written
from tests.caption_desks import SOUND
from tests.conversations import FOREVER
from tests.given import zipped
from tests.serving import captioning
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def scripted() -> Iterator[ScriptedBackend]:
    backend = ScriptedBackend()
    backend.wait_until_ready()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def app(scripted: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaptionApp]:
    with captioning(scripted, tmp_path_factory.mktemp("jobs")) as app:
        yield app


@pytest.fixture(scope="module")
def client(app: CaptionApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with client_of(app, tmp_path_factory.mktemp("exports")) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_is_left(app: CaptionApp) -> Iterator[None]:
    yield
    nothing_left(app)


def test_the_two_endpoints_are_all_there_is(client: Client) -> None:
    api = client.view_api(return_format="dict", print_info=False)
    assert isinstance(api, dict)
    assert list(api["named_endpoints"]) == ["/caption", "/caption_batch"]
    assert api["unnamed_endpoints"] == {}
    settings = ["language", "instruction", "window_seconds", "overlap_seconds", "samples", "sampling"]
    for name, first, last in (("/caption", "sound", []), ("/caption_batch", "files", ["formats"])):
        parameters = api["named_endpoints"][name]["parameters"]
        assert [parameter["parameter_name"] for parameter in parameters] == [first, *settings, *last]
        needed = [name["parameter_name"] for name in parameters if not name["parameter_has_default"]]
        assert needed == [first]


def test_settings_reach_the_engine(client: Client, scripted: ScriptedBackend, tmp_path: Path) -> None:
    sound = written(tmp_path, "rain.wav")
    for said in ("one", "two"):
        scripted.enqueue(TextDelta(said))
    _, [segment] = caption(
        client, sound, instruction="Which bird?", samples=2, sampling={"temperature": 0.5, "seed": 7}
    )
    assert segment["captions"] == ["one", "two"]
    asked = scripted.requests[-2:]
    assert [request.messages[-1].text for request in asked] == ["Which bird?"] * 2
    own = scripted.capabilities.default_sampling
    assert [request.sampling for request in asked] == [replace(own, temperature=0.5, seed=seed) for seed in (7, 8)]


def test_a_batch_shows_how_far_it_is(client: Client, scripted: ScriptedBackend, tmp_path: Path) -> None:
    for _ in range(3):
        scripted.enqueue(TextDelta("Rain."), 0.4)
    files = [handle_file(str(written(tmp_path, f"{number}.wav"))) for number in range(3)]
    *shown, (state, exports) = client.submit(files=files, api_name="/caption_batch")
    assert state == {"files": 3, "done": 3, "failed": 0, "errors": {}, "skipped": []}
    assert exports
    done = [state["done"] for state, none in shown if none is None]
    assert len(set(done)) >= 2
    assert done == sorted(done)
    with zipfile.ZipFile(exports) as zipped_exports:
        assert zipped_exports.namelist() == ["captions.jsonl"]


def test_a_batch_names_what_it_left_out(client: Client, tmp_path: Path) -> None:
    archive = written(tmp_path, "all.zip", bytes(zipped(("1.wav", SOUND), ("notes.txt", b"a text"))))
    state, _ = client.predict(files=[handle_file(str(archive))], api_name="/caption_batch")
    assert state == {"files": 1, "done": 1, "failed": 0, "errors": {}, "skipped": ["all/notes.txt"]}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"language": "tlh"}, phrase("captioner.no_such_language", languages="en, zh").text()),
    ({"instruction": "x" * 5000}, "5000"),
    ({"window_seconds": 4}, phrase("captioner.window").text()),
    ({"window_seconds": 31}, phrase("captioner.window").text()),
    ({"window_seconds": "long"}, phrase("captioner.window").text()),
    ({"window_seconds": 10**400}, phrase("captioner.window").text()),
    ({"overlap_seconds": -1}, phrase("captioner.overlap").text()),
    ({"overlap_seconds": None}, phrase("captioner.overlap").text()),
    ({"overlap_seconds": [1]}, phrase("captioner.overlap").text()),
    ({"samples": 0}, phrase("captioner.samples").text()),
    ({"samples": 99}, phrase("captioner.samples").text()),
    ({"samples": "many"}, phrase("captioner.samples").text()),
    ({"samples": True}, phrase("captioner.samples").text()),
    ({"sampling": {"warmth": 1}}, "warmth"),
    ({"sampling": {"temperature": 9}}, phrase("panel.temperature").text()),
    ({"sampling": ["temperature"]}, "temperature"),
    ({"sampling": [["temperature"]]}, "temperature"),
    ({"sampling": 5}, "5"),
    ({"sampling": "warm"}, "warm"),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=[str(options)[:40] for options, _ in WRONG])
def test_wrong_settings_are_one_sentence(
    client: Client, scripted: ScriptedBackend, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    sound, asked = written(tmp_path, "rain.wav"), len(scripted.requests)
    for call in (caption, batch):
        with pytest.raises(AppError) as refused:
            call(client, sound, **options)
        assert said in str(refused.value)
    assert len(scripted.requests) == asked
    assert caption(client, sound)[0] == "ok"


def test_wrong_files_are_one_sentence(
    client: Client, scripted: ScriptedBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_ui.captioner.api.API_FILES", 2)
    sound, asked = written(tmp_path, "rain.wav"), len(scripted.requests)
    archive = written(tmp_path, "two.zip", bytes(zipped(("1.wav", SOUND), ("2.wav", SOUND))))
    wrong: list[tuple[Callable[..., Any], list[Path | None], str]] = [
        (caption, [None], phrase("captioner.nothing_given").text()),
        (batch, [], phrase("captioner.nothing_given").text()),
        (caption, [archive], phrase("captioner.one_only").text()),
        (batch, [sound] * 3, phrase("captioner.too_many", count=3, limit=2).text()),
        (caption, [written(tmp_path, "bad.wav", b"no sound")], phrase("media.unknown", name="bad.wav").text()),
        (caption, [written(tmp_path, "empty.wav", b"")], phrase("media.empty", name="empty.wav").text()),
    ]
    for call, files, said in wrong:
        with pytest.raises(AppError) as refused:
            call(client, *files)
        assert said in str(refused.value)
    assert len(scripted.requests) == asked


@pytest.mark.parametrize(
    "problem", [OutOfMemory(phrase("backend.failed")), BackendUnavailable(phrase("backend.load_failed"))]
)
def test_an_engine_that_fails_is_one_sentence(
    client: Client, scripted: ScriptedBackend, tmp_path: Path, problem: BackendError
) -> None:
    scripted.enqueue(problem)
    with pytest.raises(AppError) as refused:
        caption(client, written(tmp_path, "rain.wav"))
    assert problem.text() in str(refused.value)


def test_the_uploads_of_others_are_not_taken(app: CaptionApp, client: Client, scripted: ScriptedBackend) -> None:
    secret = Path(upload(app, "secret.wav"))
    asked = len(scripted.requests)
    for path in (app.desk.uploads, secret.parent, app.desk.uploads / ".." / app.desk.uploads.name):
        assert events_of(called(app, str(path)))[-1] == "error"
    assert len(scripted.requests) == asked
    assert events_of(called(app, str(secret)))[-1] == "complete"


@pytest.mark.parametrize("endpoint", ["/caption", "/caption_batch"])
def test_cancelling_the_call_frees_the_engine_and_leaves_nothing(
    app: CaptionApp, client: Client, scripted: ScriptedBackend, tmp_path: Path, endpoint: str
) -> None:
    scripted.enqueue(TextDelta("half"), FOREVER)
    sound = handle_file(str(written(tmp_path, "rain.wav")))
    given = {"sound": sound} if endpoint == "/caption" else {"files": [sound]}
    job = client.submit(api_name=endpoint, **given)
    wait_until(lambda: job.outputs() and scripted.active_requests, "the first output")
    assert list((app.desk.uploads / "calls").iterdir())
    job.cancel()
    wait_until(lambda: scripted.active_requests == 0, "the end of the work")
    nothing_left(app)


def test_a_call_that_is_cancelled_while_its_files_are_unpacked_leaves_nothing(
    client: Client, scripted: ScriptedBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacking, cancelled = threading.Event(), threading.Event()

    def slowly(given: list[tuple[str, Path]], folder: Path) -> Collected:
        unpacking.set()
        assert cancelled.wait(20)
        return collect(given, folder)

    monkeypatch.setattr("omni_ui.captioner.desk.collect", slowly)
    scripted.enqueue(TextDelta("half"), FOREVER)
    job = client.submit(sound=handle_file(str(written(tmp_path, "rain.wav"))), api_name="/caption")
    assert unpacking.wait(20)
    job.cancel()
    cancelled.set()
    wait_until(lambda: job.done(), "the end of the call")
    wait_until(lambda: len(scripted.requests) > 0 and scripted.active_requests == 0, "the end of the work")


def test_a_client_that_vanishes_frees_the_engine(
    app: CaptionApp, scripted: ScriptedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("omni_ui.captioner.api.PULSE_SECONDS", 0.1)
    scripted.enqueue(TextDelta("half"), FOREVER)
    with httpx.stream("GET", called(app, upload(app, "rain.wav")), timeout=20) as reply:
        assert any("half" in line for line in reply.iter_lines())
        assert scripted.active_requests == 1
    wait_until(lambda: scripted.active_requests == 0, "the end of the work")
    nothing_left(app)


def upload(app: CaptionApp, name: str) -> str:
    """Where the server keeps it."""
    reply = httpx.post(f"{app.url}gradio_api/upload", files={"files": (name, SOUND)})
    return str(reply.json()[0])


def called(app: CaptionApp, path: str) -> str:
    """The address of the events of a call that names a file of the server's."""
    sound = {"path": path, "meta": {"_type": "gradio.FileData"}}
    call = f"{app.url}gradio_api/call/caption"
    return f"{call}/{httpx.post(call, json={'data': [sound, 'en', '', 0, 0, 1, {}]}).json()['event_id']}"


def events_of(address: str) -> list[str]:
    """How a call went."""
    reply = httpx.get(address, timeout=20)
    return [line.removeprefix("event: ") for line in reply.text.splitlines() if line.startswith("event: ")]
