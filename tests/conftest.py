"""Fixtures that several test files share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny_checkpoints import TINY_CHECKPOINT, Shape, make_checkpoint

pytest_plugins = [
    *("tests.browser", "tests.scripted_app", "tests.caption_page"),
    *("tests.engine", "tests.vllm_engine", "tests.omni_engine"),
]


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """The folder of the embedded checkpoint."""
    return TINY_CHECKPOINT


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Shape], Path]:
    """The folder of a checkpoint of a given shape with random weights; made once for the session."""
    made: dict[Shape, Path] = {}

    def checkpoint(shape: Shape) -> Path:
        if shape not in made:
            made[shape] = make_checkpoint(tmp_path_factory.mktemp("checkpoint"), shape)
        return made[shape]

    return checkpoint


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program: `CHROMIUM` of the environment or Debian's, as in `tools/chromium.sh`."""
    program = shutil.which(os.environ.get("CHROMIUM") or "chromium")
    assert program, "the browser tests need Chromium: run tools/chromium.sh"
    return program
