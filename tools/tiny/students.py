"""The model to be trained: from the embedded checkpoint's files, with its weights or with random ones."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any, Final

import torch

from omni_backend.checkpoint import read_checkpoint
from omni_backend.processor import Processing, load_processing
from omni_backend.torchvision_ops import define_missing_ops

EMBEDDED: Final = Path(__file__).parent.parent.parent / "assets" / "tiny-qwen3-omni"
ENCODERS: Final = ("visual", "audio_tower")
"""What the thinker sees and hears with."""
_EXPERT_STD: Final = 0.05
_ROUTER_STD: Final = 0.02


def load_student(folder: Path) -> Any:
    """The Qwen3OmniMoeForConditionalGeneration in `folder`, float32, on the CPU."""
    define_missing_ops()
    from transformers import Qwen3OmniMoeForConditionalGeneration

    model: Any = Qwen3OmniMoeForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model


def fresh_student(folder: Path, seed: int) -> Any:
    """The same with random weights of `seed`, all of them: stock leaves the talker's experts as they come."""
    define_missing_ops()
    from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

    torch.manual_seed(seed)
    config = Qwen3OmniMoeConfig.from_pretrained(folder)
    config.dtype = torch.float32
    model: Any = Qwen3OmniMoeForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.talker.named_parameters():
            if "experts." in name:
                parameter.normal_(0.0, _EXPERT_STD)
            elif name.endswith("mlp.gate.weight"):
                parameter.normal_(0.0, _ROUTER_STD)
    return model


def processing_of(folder: Path) -> Processing:
    """The processor of a checkpoint, as the app loads it."""
    checkpoint = read_checkpoint(folder, folder.name)
    return load_processing(checkpoint, checkpoint.context_tokens)


def save_student(model: Any, template: Path, folder: Path) -> None:
    """Writes `model` in bfloat16 into `folder`, beside the files of `template` (processor, settings, config)."""
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # Transformers leaves it to its owner alone
    for file in template.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copy(file, folder / file.name)


def encoder(model: Any, name: str) -> Any:
    """The thinker's part `name` of `ENCODERS`, which newer Transformers keep one step deeper."""
    thinker = model.thinker
    return getattr(thinker, name) if hasattr(thinker, name) else getattr(thinker.model, name)
