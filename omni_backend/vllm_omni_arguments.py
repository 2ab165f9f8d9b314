"""BackendOptions, a checkpoint and the machine → how vLLM-Omni is started: its three stages and their GPUs.

The stages are those of vLLM-Omni's own deployment of Qwen3-Omni; here they are only given their places and sizes.
With more than one GPU the thinker is split over all but the last, which takes the talker and code2wav; where the
thinker does not fit so, or there is one GPU, they share.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from omni_backend import defaults
from omni_backend.catalogue import phrase
from omni_backend.checkpoint import Checkpoint, TalkerParams
from omni_backend.errors import BackendUnavailable
from omni_backend.registry import BackendOptions
from omni_backend.vllm_arguments import Machine, max_num_seqs, read_value, tensor_parallel_size

STAGES: Final = ("thinker", "talker", "code2wav")

_OWN_ARGUMENTS: Final = frozenset(
    {"deploy_config", "stage_overrides", "parallel_stage_init", "init_timeout", "stage_init_timeout"}
)
"""What `--engine-arg` may give that is AsyncOmni's; all else is the thinker's."""


@dataclass(frozen=True, slots=True)
class OmniPlan:
    """How to start vLLM-Omni. `arguments`: of AsyncOmni."""

    arguments: dict[str, Any]
    context_tokens: int
    max_num_seqs: int
    gpus: int
    """How many the thinker is split over; 0 for a CPU."""
    talker: TalkerParams
    codec_eos_token_id: int
    """Ends a spoken answer. vLLM-Omni knows only the published checkpoints' own."""


@dataclass(frozen=True, slots=True)
class Placement:
    """GPUs of each stage by number, and the share of each GPU's memory that the stage may use."""

    devices: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    shares: tuple[float, float, float]

    def as_overrides(self) -> list[dict[str, Any]]:
        """As vLLM-Omni takes it, a dict for each stage."""
        stages: list[dict[str, Any]] = [
            {
                "devices": ",".join(map(str, gpus)),
                "tensor_parallel_size": len(gpus),
                "gpu_memory_utilization": round(share, 3),
            }
            for gpus, share in zip(self.devices, self.shares, strict=True)
        ]
        if self.devices[1][0] in self.devices[0]:
            stages[0]["max_num_batched_tokens"] = defaults.SHARED_BATCHED_TOKENS
        return stages


def omni_plan(options: BackendOptions, checkpoint: Checkpoint, machine: Machine) -> OmniPlan:
    """Raises BackendUnavailable for an `--engine-arg` that neither vLLM-Omni nor vLLM knows."""
    own, further = _further(options.engine_args)
    weights = stage_bytes(checkpoint.folder)
    placement = place(weights, options, checkpoint, machine) if machine.gpus and "deploy_config" not in own else None
    length, sequences = capacity(weights[0], placement, options, checkpoint, machine)
    stages = placement.as_overrides() if placement else [{}, {}, {}]
    for stage in stages:
        stage["max_num_seqs"] = sequences
    stages[0] |= {
        "max_model_len": length,
        "limit_mm_per_prompt": dict.fromkeys(("image", "audio", "video"), defaults.FILES_PER_CONVERSATION),
        "mm_processor_cache_gb": options.mm_cache_gb,
    }
    config = _talker_config(checkpoint.folder)
    # The talker reads the prompt and then its own frames.
    positions = config["text_config"]["max_position_embeddings"]
    stages[1]["max_model_len"] = min(positions, length + checkpoint.talker.max_new_tokens)
    if options.quantization:
        stages[0]["quantization"] = options.quantization
    stages[0] |= further
    overrides = {str(number): stage for number, stage in enumerate(stages)}
    for number, stage in own.pop("stage_overrides", {}).items():
        overrides.setdefault(number, {}).update(stage)
    return OmniPlan(
        arguments={"model": str(checkpoint.folder), "trust_remote_code": False, "stage_overrides": overrides} | own,
        context_tokens=length,
        max_num_seqs=sequences,
        gpus=len(placement.devices[0]) if placement else 0,
        talker=checkpoint.talker,
        codec_eos_token_id=int(config["codec_eos_token_id"]),
    )


def place(
    weights: tuple[int, int, int], options: BackendOptions, checkpoint: Checkpoint, machine: Machine
) -> Placement:
    """Where each stage goes. `weights`: bytes of each. `machine` has at least one GPU."""
    total = options.gpu_memory_utilization or defaults.GPU_MEMORY_UTILIZATION
    room = max(defaults.TALKER_ROOM_BYTES, int(defaults.TALKER_ROOM_SHARE * machine.memory))
    talker = (weights[1] + room) / machine.memory
    sound = (weights[2] + defaults.CODE2WAV_ROOM_BYTES) / machine.memory
    apart = options.tensor_parallel_size or tensor_parallel_size(checkpoint, machine.gpus - 1)
    if apart < machine.gpus and weights[0] < defaults.THINKER_WEIGHTS_SHARE * total * machine.memory * apart:
        last = (apart,)
        return Placement((tuple(range(apart)), last, last), (total, defaults.TALKER_SHARE, defaults.CODE2WAV_SHARE))
    together = options.tensor_parallel_size or tensor_parallel_size(checkpoint, machine.gpus)
    last = (together - 1,)
    return Placement((tuple(range(together)), last, last), (total - talker - sound, talker, sound))


def capacity(
    weights: int, placement: Placement | None, options: BackendOptions, checkpoint: Checkpoint, machine: Machine
) -> tuple[int, int]:
    """The longest conversation (tokens), and how many are answered at a time. `weights`: bytes of the thinker."""
    length = options.max_model_len or checkpoint.context_tokens
    if placement is None:
        return length, options.max_num_seqs or max_num_seqs(checkpoint, machine, length, 0.0, 1)
    share, parallel = placement.shares[0], len(placement.devices[0])
    if options.max_model_len is None:
        room = share * machine.memory * parallel - weights - defaults.THINKER_ROOM_BYTES * parallel
        fitting = int(room / max(checkpoint.kv_bytes_per_token, 1))
        length = min(length, max(fitting, defaults.LEAST_CONTEXT_TOKENS))
    thinker = replace(checkpoint, weight_bytes=weights)
    return length, options.max_num_seqs or max_num_seqs(thinker, machine, length, share, parallel)


def stage_bytes(folder: Path) -> tuple[int, int, int]:
    """Of the weights of thinker, talker and code2wav, from the heads of a checkpoint's safetensors files."""
    sizes = dict.fromkeys(STAGES, 0)
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))  # the format's own: a length, then JSON
            head = json.loads(stream.read(length))
        for name, tensor in head.items():
            stage = name.split(".", 1)[0]
            if stage in sizes:
                begin, end = tensor["data_offsets"]
                sizes[stage] += end - begin
    return sizes["thinker"], sizes["talker"], sizes["code2wav"]


def _talker_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))["talker_config"]
    return config


def _further(pairs: tuple[tuple[str, str], ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `--engine-arg` gave, AsyncOmni's own and the thinker's."""
    own: dict[str, Any] = {}
    thinker: dict[str, Any] = {}
    for key, text in pairs:
        (own if key in _OWN_ARGUMENTS else thinker)[key] = read_value(text)
    if thinker:
        from vllm_omni.engine.arg_utils import OmniEngineArgs

        for key in thinker:
            if key not in OmniEngineArgs.__dataclass_fields__:
                raise BackendUnavailable(phrase("vllm.unknown_argument", name=key))
    return own, thinker
