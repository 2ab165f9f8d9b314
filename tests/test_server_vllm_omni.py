"""The server backend over a real vLLM-Omni server: text and speech from every kind of question."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from omni_backend import AudioDelta, MediaPart
from omni_backend.server_backend import ServerBackend
from tests.contract import SPOKEN, answer, assert_in_order, done, request, text_of, until
from tests.omni_engine import PLUGIN
from tests.parity import EXAMPLES
from tests.vllm_server import VllmServer, vllm_serve

pytestmark = [pytest.mark.vllm_omni, pytest.mark.timeout(900)]

FRAMES: Final = 39
"""Of a spoken answer: the random talker never ends one by itself, and the server heeds only the deployment's limit."""

STAR = MediaPart("image", str(EXAMPLES / "star.png"))
WORD = MediaPart("audio", str(EXAMPLES / "word.wav"))
FILM = MediaPart("video", str(EXAMPLES / "film.mp4"))


@pytest.fixture(scope="module")
def server(omni_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    folder = tmp_path_factory.mktemp("omni")
    stock = (PLUGIN / "deploy.yaml").read_text(encoding="utf-8")
    short = stock.replace("top_k: 50, max_tokens: 4096", f"top_k: 50, max_tokens: {FRAMES + 1}")
    assert short != stock
    (folder / "deploy.yaml").write_text(short, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")])))
        with vllm_serve(
            omni_checkpoint,
            folder,
            "--omni",
            f"--deploy-config={folder / 'deploy.yaml'}",
            options={},
        ) as started:
            yield started


@pytest.fixture(scope="module")
def backend(server: VllmServer) -> Iterator[ServerBackend]:
    backend = server.backend()
    yield backend
    backend.close()


def test_what_it_can_do(backend: ServerBackend) -> None:
    can = backend.capabilities
    assert can.engine.startswith("vLLM-Omni ")
    assert can.outputs == {"text", "audio"}
    assert {"ethan", "chelsie", "aiden"} >= set(can.voices)
    assert can.voices[0] == "ethan"
    assert can.inputs == {"image", "audio", "video"}
    assert not can.notices, "sound and pictures of films are interleaved"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (("Hello!",), "Hello! How can I help you?"),
        ((STAR, "What do you see?"), "A yellow star on a black background."),
        ((WORD, "Which word do you hear?"), "Music."),
        ((FILM, "What happens in the video?"), "A yellow star moving right. I hear a high tone."),
        ((FILM, WORD), ""),
    ],
    ids=["text", "image", "sound", "film with its sound", "spoken question about a film"],
)
async def test_text_and_speech(backend: ServerBackend, parts: tuple[str | MediaPart, ...], words: str) -> None:
    events = await answer(backend, request(*parts, modalities=SPOKEN))
    assert_in_order(events)
    assert words in text_of(events)
    sound = np.concatenate([event.pcm for event in events if isinstance(event, AudioDelta)])
    assert np.sqrt(np.mean(sound**2)) > 0.001
    assert done(events).usage.audio_frames == FRAMES


@pytest.mark.asyncio
async def test_every_voice_speaks_and_text_alone_is_silent(backend: ServerBackend) -> None:
    for voice in backend.capabilities.voices:
        events = await answer(backend, request("Hello!", modalities=SPOKEN, voice=voice))
        assert any(isinstance(event, AudioDelta) for event in events)
    assert not [event for event in await answer(backend, request("Hello!")) if isinstance(event, AudioDelta)]


@pytest.mark.asyncio
async def test_stopping_in_mid_speech(backend: ServerBackend, server: VllmServer) -> None:
    before = server.log.read_text(errors="replace").count(" aborted")
    async with aclosing(backend.stream(request("Hello!", modalities=SPOKEN))) as events:
        async for event in events:
            if isinstance(event, AudioDelta):
                break
    await until(lambda: server.log.read_text(errors="replace").count(" aborted") > before)
    assert text_of(await answer(backend, request("Hello!")))
