"""What a model is asked about one window of sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from omni_backend.capabilities import Capabilities
from omni_backend.caption.values import CaptionSettings
from omni_backend.catalogue import phrase
from omni_backend.types import ChatRequest, MediaPart, Message, Part, SamplingParams, TextPart

CHINESE_PREFIX: Final = "这个音频剪辑"
"""The words ("this audio clip") with which Qwen3-Omni-30B-A3B-Captioner answers in Chinese, by its model card.

It is not an instruction: the captioner reads none. The answer begins with these words and the model goes on.
"""


def answer_prefix(settings: CaptionSettings, can: Capabilities) -> str:
    """How the captions begin. Checkpoints that take words are told the language in words."""
    return CHINESE_PREFIX if settings.language == "zh" and not can.text_prompts else ""


def caption_request(
    sound: Path, settings: CaptionSettings, can: Capabilities, *, sample: int = 0, name: str = ""
) -> ChatRequest:
    """Asks for a caption of the file `sound`, the `sample`-th of several. `name`: what people call it."""
    content: tuple[Part, ...] = (MediaPart("audio", str(sound), name),)
    if can.text_prompts:
        instruction = settings.instruction.strip() or phrase("caption.instruction").text(settings.language)
        content += (TextPart(instruction),)
    return ChatRequest(
        (Message("user", content),),
        sampling=_drawn(settings.sampling or can.default_sampling, sample),
        answer_prefix=answer_prefix(settings, can),
    )


def _drawn(sampling: SamplingParams, sample: int) -> SamplingParams:
    """Each sample has a seed of its own, so that all can be made again."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + sample)
