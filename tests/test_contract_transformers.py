"""The contract over the real Transformers engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omni_backend import Backend
from tests.contract import BackendContract
from tests.engine import load
from tests.tiny_checkpoints import Shape


@pytest.mark.engine
class TestTransformersContract(BackendContract):
    @pytest.fixture
    def backend(self, engine: Backend) -> Backend:
        return engine

    @pytest.fixture
    def endless(self, never_ending: Backend) -> Backend:
        return never_ending

    @pytest.fixture
    def mortal(self, never_ending_checkpoint: Path) -> Iterator[Backend]:
        yield from load(never_ending_checkpoint, generate_audio=True)

    @pytest.fixture
    def narrow(self, random_checkpoint: Callable[[Shape], Path]) -> Iterator[Backend]:
        yield from load(random_checkpoint(Shape(kind="captioner")))
