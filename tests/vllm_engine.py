"""The real vLLM engine on tiny checkpoints, each started once per test session."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from omni_backend import Backend, BackendOptions, create_backend
from tests.tiny_checkpoints import TINY_CHECKPOINT, Shape

SEQUENCES = 4
CONTEXT = 8192


@pytest.fixture(scope="session", autouse=True)
def give_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lets the browser's processes go first while vLLM computes.

    Linux divides its cores between sessions of processes (sched(7), autogroup), and on two cores one in which vLLM
    computes without a pause now and then kept the browser's, of the same weight, from running for half a minute.
    Playwright gives its browser a session of its own; everything else that the tests run has a lower weight meanwhile.
    """
    if not any(item.get_closest_marker("vllm") for item in request.session.items):
        yield
        return
    with lowered(Path("/proc/self/autogroup")):
        yield


@contextmanager
def lowered(weight: Path) -> Iterator[None]:
    """Gives the session whose `/proc/self/autogroup` this is a lower weight for a while.

    Nothing happens where the kernel has no such file, where it is empty, as it is for the processes of the system's
    first session, or where it may not be written: tests may starve then, but are not wrong.
    """
    before: list[str] = []
    with suppress(OSError):
        before = weight.read_text(encoding="ascii").split()
    if not before:
        yield
        return
    with suppress(OSError):
        weight.write_text("10", encoding="ascii")
    try:
        yield
    finally:
        with suppress(OSError):
            weight.write_text(before[-1], encoding="ascii")


def start(checkpoint: Path, **options: Any) -> Backend:
    """The vLLM backend on `checkpoint`, ready."""
    chosen = {"max_num_seqs": SEQUENCES, "max_model_len": CONTEXT} | options
    backend = create_backend("vllm", BackendOptions(str(checkpoint), **chosen))
    backend.wait_until_ready()
    return backend


def unfinished(backend: Backend) -> int:
    """How many requests the engine itself knows of."""
    return int(llm(backend).get_num_unfinished_requests())


def written(backend: Backend) -> int:
    """How many tokens the engine has written for the requests that it still knows of."""
    states = list(llm(backend).output_processor.request_states.values())  # the engine's thread changes them meanwhile
    return sum(state.stats.num_generation_tokens for state in states)


def llm(backend: Backend) -> Any:
    """The bare AsyncLLM."""
    return cast(Any, backend).loaded.engine.llm


def _kept(checkpoint: Path) -> Iterator[Backend]:
    backend = start(checkpoint)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def vllm_engine() -> Iterator[Backend]:
    """On the embedded checkpoint."""
    yield from _kept(TINY_CHECKPOINT)


@pytest.fixture(scope="session")
def float32_checkpoint(never_ending_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The never-ending checkpoint with its weights in float32, in which engines can be compared token by token."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("float32") / never_ending_checkpoint.name
    shutil.copytree(never_ending_checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    whole = {name: weight.float() for name, weight in weights.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(_all_float32(config)), encoding="utf-8")
    return folder


def _all_float32(config: dict[str, Any]) -> dict[str, Any]:
    """`dtype` stands in each part of a config."""
    parts = {key: _all_float32(value) for key, value in config.items() if isinstance(value, dict)}
    return config | parts | ({"dtype": "float32"} if "dtype" in config else {})


@pytest.fixture(scope="session")
def vllm_never_ending(float32_checkpoint: Path) -> Iterator[Backend]:
    """On the never-ending checkpoint."""
    yield from _kept(float32_checkpoint)


@pytest.fixture(scope="session")
def vllm_captioner(random_checkpoint: Callable[[Shape], Path]) -> Iterator[Backend]:
    """On a captioner with random weights."""
    yield from _kept(random_checkpoint(Shape(kind="captioner")))


@pytest.fixture(scope="session")
def vllm_thinking(random_checkpoint: Callable[[Shape], Path]) -> Iterator[Backend]:
    """On a thinking checkpoint with random weights."""
    yield from _kept(random_checkpoint(Shape(kind="thinking")))
