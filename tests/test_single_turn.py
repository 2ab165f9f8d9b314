"""Where nobody asks a second time, nothing is kept for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from omni_backend import Backend, BackendOptions, MediaPart, create_backend, defaults
from omni_backend.transformers_backend import TransformersBackend
from tests.contract import answer, request, text_of
from tests.fake_server import Nature, fake_server
from tests.media_files import sound_file
from tests.tiny_checkpoints import Shape

KEPT = [(True, 2), (False, 1)]
"""Whether it is for single turns, and how often a file is decoded that is asked about twice."""


@pytest.fixture
def captioner(random_checkpoint: Callable[[Shape], Path]) -> str:
    return str(random_checkpoint(Shape(kind="captioner")))


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MediaPart:
    """Larger, once decoded, than what is kept where nobody asks twice."""
    monkeypatch.setattr(defaults, "SINGLE_TURN_CACHE_BYTES", 16_000)
    (tmp_path / "sound.wav").write_bytes(sound_file("wav", seconds=1.0))
    return MediaPart("audio", str(tmp_path / "sound.wav"))


@contextmanager
def ready(name: str, options: BackendOptions) -> Iterator[Backend]:
    backend = create_backend(name, options)
    try:
        backend.wait_until_ready()
        yield backend
    finally:
        backend.close()


def decodes(backend: Backend) -> int:
    return int(cast(Any, backend)._media.decodes)


@pytest.mark.engine
@pytest.mark.asyncio
@pytest.mark.parametrize(("single_turn", "times"), KEPT)
async def test_transformers(captioner: str, recording: MediaPart, single_turn: bool, times: int) -> None:
    with ready("transformers", BackendOptions(captioner, single_turn=single_turn)) as backend:
        texts = {text_of(await answer(backend, request(recording, max_tokens=8))) for _ in range(2)}
        assert len(texts) == 1
        assert decodes(backend) == times
        held = cast(TransformersBackend, backend)
        assert len(held.prefixes) == (0 if single_turn else 1)
        assert (held.prefixes.reused == 0) is single_turn
        stock = type(held.loaded.processor.feature_extractor).__module__.startswith("transformers.")
        assert stock is single_turn


@pytest.mark.asyncio
@pytest.mark.parametrize(("single_turn", "times"), KEPT)
async def test_a_server(recording: MediaPart, monkeypatch: pytest.MonkeyPatch, single_turn: bool, times: int) -> None:
    encoded: list[int] = []

    def wav(samples: Any, *arguments: Any, **settings: Any) -> bytes:
        encoded.append(len(samples))
        return b"RIFF" * 10_000

    with fake_server(Nature(speaks=None)) as server:
        options = BackendOptions("", server_url=server.url, single_turn=single_turn)
        with ready("server", options) as backend:
            monkeypatch.setattr("omni_backend.server_media.wav", wav)
            for _ in range(2):
                assert text_of(await answer(backend, request(recording, "What?"))) == "Hello."
            assert decodes(backend) == times
            assert len(encoded) == times
