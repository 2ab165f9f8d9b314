"""How prompts are laid out for a server: read from the checkpoint's folder where this machine has it, else published.

Nothing of Transformers is needed: the numbers stand in JSON files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from omni_backend.media import FrameBudget

PATCH_SIZE: Final = 16  # of Qwen3-Omni's vision encoder
MERGE_SIZE: Final = 2
SHORTEST_EDGE: Final = 56 * 56  # pixels; of the published processor's range, which holds qwen-omni-utils' own
LONGEST_EDGE: Final = 12_845_056

_NAMES: Final = (
    "endoftext",
    *("im_start", "im_end"),
    *("object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end"),
    *("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad"),
    *("audio_start", "audio_end", "audio_pad"),
)
RESERVED_TOKENS: Final = frozenset(
    [f"<|{name}|>" for name in _NAMES] + ["<tts_pad>", "<tts_text_bos>", "<tts_text_eod>", "<tts_text_bos_single>"]
)
"""The special tokens of the published tokenizer."""


@dataclass(frozen=True, slots=True)
class PromptRules:
    """What `build_prompt` needs beside the request."""

    budget: FrameBudget
    patch_size: int = PATCH_SIZE
    reserved_tokens: frozenset[str] = RESERVED_TOKENS


def prompt_rules(folder: Path | None, context_tokens: int) -> PromptRules:
    """The rules of the checkpoint in `folder`; None: those of the published checkpoints."""
    from omni_backend.processor import frame_budget
    from omni_backend.torchvision_ops import define_missing_ops

    define_missing_ops()
    files = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")
    configs = [_read(folder / file) for file in files] if folder else []
    video = _video_settings(configs)
    processor = SimpleNamespace(video_processor=video)
    return PromptRules(
        budget=frame_budget(processor, context_tokens),
        patch_size=video.patch_size,
        reserved_tokens=RESERVED_TOKENS | (_special_tokens(folder) if folder else frozenset()),
    )


def _video_settings(configs: list[dict[str, Any]]) -> SimpleNamespace:
    """The part of a video processor that decides on the size of frames."""
    said: dict[str, Any] = {}
    for config in configs:
        said |= config.get("video_processor", config)
    size = said.get("size") or {}
    return SimpleNamespace(
        patch_size=said.get("patch_size", PATCH_SIZE),
        merge_size=said.get("merge_size", MERGE_SIZE),
        size={
            "shortest_edge": size.get("shortest_edge") or said.get("min_pixels") or SHORTEST_EDGE,
            "longest_edge": size.get("longest_edge") or said.get("max_pixels") or LONGEST_EDGE,
        },
    )


def _special_tokens(folder: Path) -> frozenset[str]:
    added = _read(folder / "tokenizer.json").get("added_tokens", [])
    added += _read(folder / "tokenizer_config.json").get("added_tokens_decoder", {}).values()
    return frozenset(token["content"] for token in added if token.get("special"))


def _read(file: Path) -> dict[str, Any]:
    """A JSON object; empty when there is no such file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
