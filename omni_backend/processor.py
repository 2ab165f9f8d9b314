"""The checkpoint's own processor and what follows from it. Local engines share it, so that they see the same prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omni_backend import defaults
from omni_backend.checkpoint import Checkpoint
from omni_backend.media import FrameBudget, MediaLoader
from omni_backend.prompt import Prompt, build_prompt
from omni_backend.text_stream import begin_answer
from omni_backend.torchvision_ops import define_missing_ops
from omni_backend.types import ChatRequest


@dataclass(frozen=True, slots=True, eq=False)
class Processing:
    """`processor` is a Qwen3OmniMoeProcessor; the rest is read from it and from the checkpoint."""

    processor: Any
    budget: FrameBudget
    """How large the frames of a film may be."""
    patch_size: int
    eos_token_ids: frozenset[int]
    """The checkpoint's own ends of answer; the engines' defaults are the published vocabulary's."""
    reserved_tokens: frozenset[str]
    """The tokenizer's special tokens, which mark turns and media."""

    def prompt(self, request: ChatRequest, media: MediaLoader) -> tuple[Prompt, str]:
        """The conversation laid out, and as the chat template's text with the beginning of the answer.

        Blocking. Raises BadMedia.
        """
        prompt = build_prompt(request, media, self.budget, patch_size=self.patch_size, reserved=self.reserved_tokens)
        text = self.processor.apply_chat_template(prompt.chat, add_generation_prompt=True, tokenize=False)
        return prompt, begin_answer(text, prompt.answer_prefix)


def load_processing(checkpoint: Checkpoint, context_tokens: int) -> Processing:
    """Loads the processor from the folder of a checkpoint that reads `context_tokens`. Takes seconds."""
    define_missing_ops()
    from transformers import Qwen3OmniMoeProcessor

    processor: Any = Qwen3OmniMoeProcessor.from_pretrained(checkpoint.folder)
    # Frames come resized (see `frame_budget`); unset, Transformers warns about how it would resize them.
    processor.video_processor.cap_pixels_per_frame = False
    tokenizer = processor.tokenizer
    return Processing(
        processor=processor,
        budget=frame_budget(processor, context_tokens),
        patch_size=processor.image_processor.patch_size,
        eos_token_ids=checkpoint.eos_token_ids | ({tokenizer.eos_token_id} - {None}),
        reserved_tokens=frozenset(token.content for token in tokenizer.added_tokens_decoder.values() if token.special),
    )


def frame_budget(processor: Any, context_tokens: int) -> FrameBudget:
    """How large the frames of a film may be for this checkpoint.

    The published range is qwen-omni-utils' 128 to 768 tokens a frame pair. A checkpoint whose own processor
    allows less than that range's lower end was made for small frames: then its own range holds.
    """
    define_missing_ops()
    from qwen_omni_utils.v2_5 import vision_process as utils  # type: ignore[import-untyped]

    video = processor.video_processor
    factor = video.patch_size * video.merge_size
    token = factor * factor
    low, high = utils.VIDEO_MIN_TOKEN_NUM * token, utils.VIDEO_MAX_TOKEN_NUM * token
    own_low, own_high = video.size["shortest_edge"], video.size["longest_edge"]
    if own_low and own_high and own_high < low:
        low, high = own_low, own_high
    return FrameBudget(
        factor=factor,
        min_pixels=low,
        max_pixels=high,
        total_pixels=int(context_tokens * defaults.VIDEO_CONTEXT_SHARE) * token,
    )
