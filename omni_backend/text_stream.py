"""Token ids → text deltas, the same for every engine that gives ids."""

from __future__ import annotations

from typing import Any

from omni_backend.reasoning import THINK_START, ReasoningSplitter
from omni_backend.types import ReasoningDelta, TextDelta


class TextStream:
    """Token ids → reasoning and text deltas. Incomplete UTF-8 is held back until it is complete."""

    def __init__(self, tokenizer: Any, prompt_text: str) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer.backend_tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._pending: list[int] = []
        self._splitter = ReasoningSplitter(starts_inside=prompt_text.rstrip().endswith(THINK_START))

    def feed(self, token: int) -> list[ReasoningDelta | TextDelta]:
        """The deltas that `token` completes; often none."""
        self._pending.append(token)
        text = self._decoder.step(self._tokenizer, token)
        if not text:
            return []
        self._pending.clear()
        return self._splitter.feed(text)

    def finish(self) -> list[ReasoningDelta | TextDelta]:
        """What was held back at the end of the answer; a character that was cut off shows as U+FFFD."""
        rest = self._tokenizer.decode(self._pending, skip_special_tokens=True)
        return self._splitter.feed(rest) + self._splitter.finish()
