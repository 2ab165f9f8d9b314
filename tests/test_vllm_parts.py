"""The vLLM backend's parts that need no vLLM: its log, its arguments, its loop."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import make_dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from omni_backend import BackendOptions, Phrase, defaults
from omni_backend.checkpoint import Checkpoint, read_checkpoint
from omni_backend.media import Video
from omni_backend.prompt import Prompt
from omni_backend.vllm_arguments import Machine, engine_arguments, max_num_seqs, tensor_parallel_size
from omni_backend.vllm_inputs import engine_inputs
from omni_backend.vllm_log import EngineLog, heard_by, read_step
from tests.contract import until
from tests.tiny_checkpoints import TINY_CHECKPOINT
from tests.vllm_engine import lowered

GB = 10**9
H100 = Machine(1, 80 * GB)


@pytest.fixture
def checkpoint() -> Checkpoint:
    return read_checkpoint(TINY_CHECKPOINT, "tiny")


@pytest.fixture
def published(checkpoint: Checkpoint) -> Checkpoint:
    """The sizes of the published Instruct checkpoint; its KV cache takes 96 KiB a token."""
    return replace(
        checkpoint,
        weight_bytes=70 * GB,
        attention_heads=(32, 16, 20),
        kv_bytes_per_token=2 * 2 * 48 * 4 * 128,
        context_tokens=32_768,
    )


def arguments(checkpoint: Checkpoint, machine: Machine, **options: Any) -> dict[str, Any]:
    return engine_arguments(BackendOptions("there", **options), checkpoint, machine)


def test_the_checkpoint_says_what_the_engine_needs(checkpoint: Checkpoint) -> None:
    assert checkpoint.weight_bytes == (TINY_CHECKPOINT / "model.safetensors").stat().st_size
    assert len(checkpoint.attention_heads) == 3
    assert checkpoint.kv_bytes_per_token > 0


@pytest.mark.parametrize(("gpus", "parallel"), [(1, 1), (2, 2), (3, 2), (4, 4), (8, 4)])
def test_weights_are_split_over_as_many_gpus_as_divide_all_heads(
    published: Checkpoint, gpus: int, parallel: int
) -> None:
    assert tensor_parallel_size(published, gpus) == parallel
    assert arguments(published, Machine(gpus, 80 * GB))["tensor_parallel_size"] == parallel


def test_more_memory_means_more_users(published: Checkpoint) -> None:
    counts = [
        max_num_seqs(published, Machine(1, size * GB), 32_768, 0.95, parallel)
        for size, parallel in ((80, 1), (96, 1), (141, 1), (80, 2))
    ]
    assert counts == sorted(counts)
    assert counts[0] >= 2
    assert counts[-1] == defaults.MAX_NUM_SEQS


def test_options_beat_the_defaults(published: Checkpoint) -> None:
    chosen = arguments(
        published,
        Machine(4, 80 * GB),
        tensor_parallel_size=2,
        gpu_memory_utilization=0.5,
        max_model_len=4096,
        max_num_seqs=3,
        quantization="fp8",
    )
    assert chosen["tensor_parallel_size"] == 2
    assert chosen["gpu_memory_utilization"] == 0.5
    assert (chosen["max_model_len"], chosen["max_num_seqs"], chosen["quantization"]) == (4096, 3, "fp8")
    assert "dtype" not in chosen


def test_defaults_of_the_published_checkpoint(published: Checkpoint) -> None:
    chosen = arguments(published, H100)
    assert chosen["max_model_len"] == 32_768
    assert chosen["gpu_memory_utilization"] == defaults.GPU_MEMORY_UTILIZATION
    assert chosen["enable_prefix_caching"]
    assert chosen["mm_processor_cache_gb"] > 0
    assert set(chosen["limit_mm_per_prompt"]) == {"image", "audio", "video"}
    assert "quantization" not in chosen


def test_where_nobody_asks_twice_no_media_are_kept(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    vllm = ModuleType("vllm")
    vllm.AsyncEngineArgs = make_dataclass("AsyncEngineArgs", ["mm_processor_cache_gb"])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    chosen = arguments(checkpoint, H100, single_turn=True)
    assert chosen["mm_processor_cache_gb"] == 0
    assert chosen["enable_prefix_caching"]
    given = arguments(checkpoint, H100, single_turn=True, engine_args=(("mm_processor_cache_gb", "2"),))
    assert given["mm_processor_cache_gb"] == 2


def test_on_a_cpu(checkpoint: Checkpoint) -> None:
    chosen = arguments(checkpoint, Machine(0, 0))
    assert chosen["dtype"] == "float32"
    assert "gpu_memory_utilization" not in chosen
    assert chosen["tensor_parallel_size"] == 1


@pytest.mark.parametrize(
    ("line", "key", "fraction"),
    [
        ("(Worker) INFO 01-01 [x.py:1] Starting to load model /there/omni...", "load.weights", None),
        ("Loading safetensors checkpoint shards:  53% Completed | 8/15 [00:01<00:01]", "load.weights", 0.53),
        ("INFO [default_loader.py:501] Loading weights took 21.04 seconds", "vllm.memory", None),
        ("INFO [backends.py:1167] Dynamo bytecode transform time: 8.10 s", "vllm.compiling", None),
        ("INFO [kv_cache_utils.py:1] GPU KV cache size: 524,288 tokens", "vllm.warming", None),
        ("Capturing CUDA graphs (decode, FULL):  50%|##  | 3/6 [00:01<00:01]", "vllm.graphs", 0.5),
    ],
)
def test_log_lines_become_steps(line: str, key: str, fraction: float | None) -> None:
    step = read_step(line, "omni")
    assert step is not None
    assert (step[0].key, step[1]) == (key, fraction)
    assert step[0].text("zh")


def test_other_lines_are_no_steps() -> None:
    assert read_step("INFO [model.py:1] Resolved architecture: Omni", "omni") is None


@pytest.mark.parametrize(
    ("line", "short"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB", True),
        ("ValueError: No available memory for the cache blocks. Try increasing", True),
        ("ValueError: Free memory on device (3.2/80 GiB) on startup is less than desired", True),
        ("ValueError: Unknown quantization method: nonsense", False),
    ],
)
def test_a_lack_of_memory_is_told_apart(line: str, short: bool) -> None:
    log = EngineLog("omni", lambda *_: None)
    log.take("INFO starting")
    log.take(line)
    assert log.out_of_memory is short
    assert line in log.tail()


@pytest.mark.asyncio
async def test_what_a_child_writes_is_heard_and_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    script = (
        "import sys; sys.stderr.write('one\\ntwo 10%\\rtwo 20%\\r'); sys.stderr.flush(); sys.stderr.write('end\\n')"
    )
    lines: list[str] = []
    with heard_by(lines.append):
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    os.write(2, b"ours\n")
    await child.wait()
    await until(lambda: "end" in lines)
    assert lines == ["one", "two 10%", "two 20%", "end"]
    assert "two 20%" in capfd.readouterr().err


def test_the_log_reports_to_the_page() -> None:
    seen: list[tuple[Phrase, float | None]] = []
    log = EngineLog("omni", lambda step, fraction: seen.append((step, fraction)))
    log.take("Loading safetensors checkpoint shards:  40% Completed | 6/15")
    log.take("nothing to see")
    assert [(step.key, fraction) for step, fraction in seen] == [("load.weights", 0.4)]


def test_films_come_with_their_true_rate_and_as_they_are() -> None:
    frames = np.zeros((4, 3, 32, 64), np.uint8)
    video = Video(frames, 1.0, None, 4.0)
    inputs = engine_inputs(Prompt(videos=[video], fps=1.0), "text")
    [(pictures, metadata)] = inputs.multi_modal_data["video"]
    assert pictures.shape == (4, 32, 64, 3)
    assert pictures.flags.writeable
    assert inputs.mm_processor_kwargs["videos_kwargs"] == {
        "fps": 1.0,
        "do_resize": False,
        "do_sample_frames": False,
    }
    assert (metadata["fps"], metadata["total_num_frames"], metadata["duration"]) == (1.0, 4, 4.0)


def test_words_alone_need_no_processor() -> None:
    assert engine_inputs(Prompt(), "text").as_prompt() == {"prompt": "text"}


@pytest.mark.parametrize(
    ("text", "inside"), [("/autogroup-858 nice 3\n", "10"), ("", ""), (None, None)], ids=["session", "first", "no file"]
)
def test_the_weight_of_a_session_is_lowered_where_there_is_one(
    text: str | None, inside: str | None, tmp_path: Path
) -> None:
    weight = tmp_path / "autogroup"
    if text is not None:
        weight.write_text(text)
    with lowered(weight):
        assert (weight.read_text() if weight.exists() else None) == inside
    assert (weight.read_text() if weight.exists() else None) == ("3" if inside else inside)
