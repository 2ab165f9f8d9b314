"""The contract over the real vLLM engine, text alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_backend import Backend
from tests.contract import TextContract
from tests.vllm_engine import start, unfinished


@pytest.mark.vllm
class TestVllmContract(TextContract):
    @pytest.fixture
    def backend(self, vllm_engine: Backend) -> Backend:
        return vllm_engine

    @pytest.fixture
    def endless(self, vllm_never_ending: Backend) -> Backend:
        return vllm_never_ending

    @pytest.fixture
    def mortal(self, float32_checkpoint: Path) -> Backend:
        return start(float32_checkpoint)

    @pytest.fixture
    def narrow(self, vllm_captioner: Backend) -> Backend:
        return vllm_captioner

    @pytest.fixture(autouse=True)
    def nothing_left_in_the_engine(self, vllm_never_ending: Backend) -> None:
        assert unfinished(vllm_never_ending) == 0
