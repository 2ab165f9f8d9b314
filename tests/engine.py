"""The real engine on the embedded checkpoint, once per test session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from omni_backend import Backend, BackendOptions, create_backend

TINY_CHECKPOINT: Final = Path(__file__).parent.parent / "assets" / "tiny-qwen3-omni"


@pytest.fixture(scope="session")
def engine() -> Iterator[Backend]:
    """The Transformers backend on the embedded checkpoint, with speech, ready to answer."""
    backend = create_backend("transformers", BackendOptions(str(TINY_CHECKPOINT), generate_audio=True))
    backend.wait_until_ready()
    yield backend
    backend.close()
