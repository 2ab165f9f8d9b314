"""The real engine on the embedded checkpoint, once per test session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.never_ending import build
from omni_backend import Backend, BackendOptions, create_backend
from tests.tiny_checkpoints import TINY_CHECKPOINT


@pytest.fixture(scope="session")
def engine() -> Iterator[Backend]:
    """The Transformers backend on the embedded checkpoint, with speech, ready to answer."""
    backend = create_backend("transformers", BackendOptions(str(TINY_CHECKPOINT), generate_audio=True))
    backend.wait_until_ready()
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def never_ending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The same with a checkpoint whose answers end only at their limit, to be stopped in the middle."""
    folder = build(tmp_path_factory.mktemp("never") / "tiny-qwen3-omni", tokens=20_000, frames=4000)
    backend = create_backend("transformers", BackendOptions(str(folder), generate_audio=True))
    backend.wait_until_ready()
    yield backend
    backend.close()
