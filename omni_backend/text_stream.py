"""Token ids → text deltas, the same for every engine that gives ids."""

from __future__ import annotations

from typing import Any

from omni_backend.reasoning import THINK_END, THINK_START, ReasoningSplitter
from omni_backend.types import ReasoningDelta, TextDelta


def begin_answer(prompt_text: str, answer_prefix: str) -> str:
    """The prompt with the words with which the answer begins.

    Where the chat template has opened a thought, it is ended at once: the answer follows it, and so does its prefix.
    """
    if answer_prefix and _in_thought(prompt_text):
        prompt_text = f"{prompt_text.rstrip()}\n\n{THINK_END}\n\n"  # as Qwen3 writes a thought that was left out
    return prompt_text + answer_prefix


class TextStream:
    """Token ids → reasoning and text deltas. Incomplete UTF-8 is held back until it is complete.

    `prompt_text`: ends with `answer_prefix`, if there is one. Behind it all is answer, whatever the model writes.
    """

    def __init__(self, tokenizer: Any, prompt_text: str, answer_prefix: str = "") -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer.backend_tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._pending: list[int] = []
        self._splitter = ReasoningSplitter(
            starts_inside=not answer_prefix and _in_thought(prompt_text), answer_begun=bool(answer_prefix)
        )

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


def _in_thought(prompt_text: str) -> bool:
    return prompt_text.rstrip().endswith(THINK_START)
