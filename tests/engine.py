"""The real engine on the embedded checkpoint, once per test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import never_ending
from omni_backend import Backend, BackendOptions, create_backend
from tests.tiny_checkpoints import TINY_CHECKPOINT


def load(checkpoint: Path, *, generate_audio: bool = False) -> Iterator[Backend]:
    """The Transformers backend on `checkpoint`, ready; closed when the fixture ends."""
    backend = create_backend("transformers", BackendOptions(str(checkpoint), generate_audio=generate_audio))
    backend.wait_until_ready()
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def engine() -> Iterator[Backend]:
    """On the embedded checkpoint, with speech."""
    yield from load(TINY_CHECKPOINT, generate_audio=True)


@pytest.fixture(scope="session")
def never_ending_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded checkpoint, but its answers end only at their limit, to be stopped in the middle."""
    folder = tmp_path_factory.mktemp("never") / "tiny-qwen3-omni"
    return never_ending.build(folder, tokens=20_000, frames=4000)


@pytest.fixture(scope="session", name="never_ending")
def never_ending_engine(never_ending_checkpoint: Path) -> Iterator[Backend]:
    """On the never-ending checkpoint, with speech."""
    yield from load(never_ending_checkpoint, generate_audio=True)
