"""The running app without a browser: its published endpoint, what it hides, and how it starts and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from omni_backend import (
    AudioDelta,
    BadMedia,
    Capabilities,
    ReasoningDelta,
    ScriptedBackend,
    TextDelta,
    phrase,
)
from omni_ui.server import App
from tests.serving import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "assets" / "examples"
FOREVER = 3600.0
SOUND = AudioDelta(np.full(4800, 0.25, np.float32), 24_000)


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return Capabilities(
        model="scripted",
        engine="a script",
        outputs=frozenset({"text", "audio"}),
        voices=("ethan", "chelsie"),
        max_concurrency=4,
    )


@pytest.fixture(scope="module")
def embedded() -> bool:
    return True


@contextmanager
def client_of(app: App, folder: Path) -> Iterator[Client]:
    client = Client(app.url, verbose=False, download_files=folder)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def client(app: App, tmp_path: Path) -> Iterator[Client]:
    with client_of(app, tmp_path) as client:
        yield client


def ask(client: Client, text: str, *files: Path, **options: Any) -> Any:
    message = {"text": text, "files": [handle_file(str(file)) for file in files]}
    return client.predict(message=message, api_name="/chat", **options)


def test_chat_is_the_only_endpoint(client: Client) -> None:
    api = client.view_api(return_format="dict", print_info=False)
    assert isinstance(api, dict)
    assert list(api["named_endpoints"]) == ["/chat"]
    assert api["unnamed_endpoints"] == {}
    names = [parameter["parameter_name"] for parameter in api["named_endpoints"]["/chat"]["parameters"]]
    assert names == ["message", "speak", "voice", "system_prompt", "new_conversation", "sampling"]


def test_a_message_is_answered_in_text(client: Client, backend: ScriptedBackend) -> None:
    backend.enqueue(ReasoningDelta("Hm."), TextDelta("Hello "), TextDelta("there."))
    assert ask(client, "Hi") == ("Hello there.", None)
    request = backend.requests[-1]
    assert [(message.role, message.text) for message in request.messages] == [("user", "Hi")]
    assert request.modalities == {"text"}


def test_the_text_streams(client: Client, backend: ScriptedBackend) -> None:
    backend.enqueue(*[step for word in ("one ", "two ", "three ") for step in (TextDelta(word), 0.3)])
    job = client.submit(message={"text": "Count", "files": []}, api_name="/chat")
    texts = [output[0] for output in job]
    assert texts[0] == "one "
    assert texts[-1] == "one two three "
    assert len(texts) >= 3


def test_files_reach_the_engine_in_their_order_by_their_names(client: Client, backend: ScriptedBackend) -> None:
    ask(client, "See and hear", EXAMPLES / "star.png", EXAMPLES / "tone.wav", EXAMPLES / "film.mp4")
    parts = backend.requests[-1].messages[-1].content
    kinds = [(part.type, part.label) for part in parts[:-1]]  # type: ignore[union-attr]
    assert kinds == [("image", "star.png"), ("audio", "tone.wav"), ("video", "film.mp4")]
    for part, name in zip(parts, ("star.png", "tone.wav", "film.mp4"), strict=False):
        assert Path(part.path).read_bytes() == (EXAMPLES / name).read_bytes()  # type: ignore[union-attr]


def test_a_spoken_answer_ends_with_its_sound(client: Client, backend: ScriptedBackend) -> None:
    backend.enqueue(TextDelta("Hello"), SOUND, SOUND)
    text, sound = ask(client, "Hi", speak=True, voice="chelsie")
    assert text == "Hello"
    assert backend.requests[-1].voice == "chelsie"
    with wave.open(sound) as file:
        assert (file.getframerate(), file.getnframes()) == (24_000, 9600)
        assert np.frombuffer(file.readframes(9600), "<i2").tolist() == [8192] * 9600


def test_a_conversation_goes_on_until_it_is_begun_anew(client: Client, backend: ScriptedBackend) -> None:
    backend.enqueue(TextDelta("One."))
    ask(client, "first", system_prompt="Be brief.")
    ask(client, "second")
    said = [(message.role, message.text) for message in backend.requests[-1].messages]
    assert said == [("user", "first"), ("assistant", "One."), ("user", "second")]
    ask(client, "third", new_conversation=True, system_prompt="Be brief.")
    said = [(message.role, message.text) for message in backend.requests[-1].messages]
    assert said == [("system", "Be brief."), ("user", "third")]


def test_sampling_is_the_checkpoints_own_but_for_what_is_given(client: Client, backend: ScriptedBackend) -> None:
    own = backend.capabilities.default_sampling
    ask(client, "first")
    assert backend.requests[-1].sampling == own
    ask(client, "second", sampling={"temperature": 0, "top_k": 5, "seed": 7})
    assert backend.requests[-1].sampling == replace(own, temperature=0.0, top_k=5, seed=7)
    asked = len(backend.requests)
    refused: list[tuple[object, str]] = [
        ({"temperature": 3}, "Temperature"),
        ({"top_k": "many"}, "Top-k"),
        ({"top_k": 10**400}, "Top-k"),
        ({"warmth": 1}, "warmth"),
        (["warmth"], "warmth"),
    ]
    for wrong, said in refused:
        with pytest.raises(AppError, match=said):
            ask(client, "third", sampling=wrong)
    assert len(backend.requests) == asked


def test_two_clients_share_nothing(app: App, client: Client, backend: ScriptedBackend, tmp_path: Path) -> None:
    ask(client, "a secret")
    with client_of(app, tmp_path) as other:
        ask(other, "What did the other say?")
    assert [message.text for message in backend.requests[-1].messages] == ["What did the other say?"]


def test_errors_are_sentences_and_leave_the_conversation_as_it_was(
    client: Client, backend: ScriptedBackend, tmp_path: Path
) -> None:
    ask(client, "first")
    asked = len(backend.requests)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a film")
    with pytest.raises(AppError, match=r"broken\.mp4"):
        ask(client, "second", broken)
    with pytest.raises(AppError, match=phrase("request.empty").text()):
        ask(client, "  ")
    assert len(backend.requests) == asked
    backend.enqueue(BadMedia(phrase("media.empty", name="x.png")))
    with pytest.raises(AppError, match=r"x\.png"):
        ask(client, "third")
    with pytest.raises(AppError, match="baritone"):
        ask(client, "fourth", speak=True, voice="baritone")
    ask(client, "fifth")
    said = [message.text for message in backend.requests[-1].messages]
    assert said == ["first", "ok", "fifth"]


def test_calls_that_fail_leave_no_conversation_behind(app: App) -> None:
    before = len(app.sessions)
    for _ in range(3):
        with pytest.raises(AppError):
            ask(Client(app.url, verbose=False), " ")
    assert len(app.sessions) == before


def test_cancelling_the_job_frees_the_engine(client: Client, backend: ScriptedBackend) -> None:
    before = backend.cancelled
    backend.enqueue(TextDelta("half"), FOREVER)
    job = client.submit(message={"text": "Hi", "files": []}, api_name="/chat")
    wait_until(lambda: job.outputs(), "the first text")
    job.cancel()
    wait_until(lambda: backend.active_requests == 0, "the end of the work")
    assert backend.cancelled == before + 1


def test_the_page_and_its_scripts_come_from_here_alone(app: App) -> None:
    page = httpx.get(app.url).text
    assert "omniPlayer" in page
    assert "fonts.googleapis" not in page
    config = httpx.get(f"{app.url}config").json()
    public = [event["api_name"] for event in config["dependencies"] if event["api_visibility"] == "public"]
    assert public == ["chat"]


@pytest.mark.parametrize("path", ["app.py", "assets/tiny-qwen3-omni/config.json", "/etc/passwd", "omni_ui/page.py"])
def test_the_servers_own_files_are_not_handed_out(app: App, path: str) -> None:
    for name in (path, str(ROOT / path)):
        assert httpx.get(f"{app.url}gradio_api/file={name}").status_code == 403


def test_a_file_that_is_too_large_is_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app._demo, "max_file_size", 1000)
    reply = httpx.post(f"{app.url}gradio_api/upload", files={"files": ("big.wav", bytes(2000))})
    assert reply.status_code == 413


def start(*argv: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "app.py", *argv],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_app_answers_soon_and_ends_when_told(number: signal.Signals) -> None:
    """About 4 s and 1 s on a quiet machine with two slow cores; a busy one may take its time."""
    port = free_port()
    # A proxy of the environment must not come between the app and itself.
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    process = start("--server-port", str(port), "-c", str(ROOT / "assets" / "tiny-qwen3-omni"), **proxy)
    try:

        def answers() -> bool:
            assert process.poll() is None
            try:
                return httpx.get(f"http://127.0.0.1:{port}/", timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, "the page", seconds=120)
        process.send_signal(number)
        process.wait(60)
        assert process.returncode == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_a_port_that_is_taken_is_one_sentence(app: App) -> None:
    port = app.url.rstrip("/").rsplit(":", 1)[1]
    process = start("--server-port", port)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert port in errors
    assert "Traceback" not in errors
