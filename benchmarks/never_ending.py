"""A copy of the embedded checkpoint that never ends an answer by itself, for measurements of a fixed length."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

EMBEDDED: Final = Path(__file__).parent.parent / "assets" / "tiny-qwen3-omni"


def build(folder: Path, *, tokens: int, frames: int) -> Path:
    """Writes the copy into `folder` and returns it.

    Unless asked for otherwise its answers have `tokens` tokens and `frames` codec frames (80 ms each).
    """
    shutil.copytree(EMBEDDED, folder, dirs_exist_ok=True)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    # A row of zeros gives the logit 0, which is never the largest of a trained head.
    ends = {
        "thinker.lm_head.weight": config["im_end_token_id"],
        "talker.codec_head.weight": config["talker_config"]["codec_eos_token_id"],
    }
    for name, row in ends.items():
        weights[name][row] = torch.zeros_like(weights[name][row])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    generation_file = folder / "generation_config.json"
    generation = json.loads(generation_file.read_text(encoding="utf-8"))
    generation["max_new_tokens"] = tokens
    # The last code that is drawn is never fed back, so it makes no frame.
    generation["talker_max_new_tokens"] = frames + 1
    generation_file.write_text(json.dumps(generation), encoding="utf-8")
    return folder
