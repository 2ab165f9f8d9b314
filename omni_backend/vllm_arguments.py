"""BackendOptions, a checkpoint and the machine → arguments of vLLM's engine."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Final

from omni_backend import defaults
from omni_backend.catalogue import phrase
from omni_backend.checkpoint import Checkpoint
from omni_backend.errors import BackendUnavailable
from omni_backend.registry import BackendOptions

_FRACTION_OF_CONTEXT: Final = 4
"""A usual conversation takes at most this part of the longest one; KV cache is shared accordingly."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What vLLM can run on. `gpus` is 0 for a CPU; `memory`: bytes of one GPU."""

    gpus: int
    memory: int


def this_machine() -> Machine:
    """Asks vLLM's platform, which does not touch the GPUs."""
    import torch
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return Machine(0, 0)
    return Machine(torch.cuda.device_count(), int(current_platform.get_device_total_memory()))


def engine_arguments(options: BackendOptions, checkpoint: Checkpoint, machine: Machine) -> dict[str, Any]:
    """Arguments of AsyncEngineArgs. Raises BackendUnavailable for an `--engine-arg` that vLLM does not know."""
    length = options.max_model_len or checkpoint.context_tokens
    share = options.gpu_memory_utilization or defaults.GPU_MEMORY_UTILIZATION
    parallel = options.tensor_parallel_size or tensor_parallel_size(checkpoint, machine.gpus)
    arguments: dict[str, Any] = {
        "model": str(checkpoint.folder),
        "max_model_len": length,
        "max_num_seqs": options.max_num_seqs or max_num_seqs(checkpoint, machine, length, share, parallel),
        "tensor_parallel_size": parallel,
        "limit_mm_per_prompt": dict.fromkeys(("image", "audio", "video"), defaults.FILES_PER_CONVERSATION),
        "enable_prefix_caching": True,
        "mm_processor_cache_gb": options.mm_cache_gb,
        "seed": defaults.ENGINE_SEED,
    }
    if machine.gpus:
        arguments["gpu_memory_utilization"] = share
    else:
        # bfloat16 is emulated on most CPUs, and a graph takes longer to compile than small models take to answer.
        arguments |= {"dtype": "float32", "enforce_eager": True, "distributed_executor_backend": "uni"}
    if options.quantization:
        arguments["quantization"] = options.quantization
    return arguments | _further(options.engine_args)


def tensor_parallel_size(checkpoint: Checkpoint, gpus: int) -> int:
    """The most GPUs that the heads of the text model and of both encoders can be split over evenly."""
    return next(
        (n for n in range(gpus, 1, -1) if all(heads % n == 0 for heads in checkpoint.attention_heads)),
        1,
    )


def max_num_seqs(checkpoint: Checkpoint, machine: Machine, length: int, share: float, parallel: int) -> int:
    """How many usual conversations fit beside the weights, within what suits a demo."""
    if not machine.gpus:
        return defaults.MAX_NUM_SEQS_CPU
    room = machine.memory * parallel * share - checkpoint.weight_bytes
    tokens = room / max(checkpoint.kv_bytes_per_token, 1)
    return int(min(max(tokens * _FRACTION_OF_CONTEXT // length, 2), defaults.MAX_NUM_SEQS))


def _further(pairs: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """What `--engine-arg` gave."""
    if not pairs:
        return {}
    from vllm import AsyncEngineArgs

    known = {field.name for field in fields(AsyncEngineArgs)}
    for key, _ in pairs:
        if key not in known:
            raise BackendUnavailable(phrase("vllm.unknown_argument", name=key))
    return {key: read_value(text) for key, text in pairs}


def read_value(text: str) -> Any:
    """What an `--engine-arg` gave: JSON where it is JSON, else words."""
    try:
        return json.loads(text)
    except ValueError:
        return text
