"""Splits `<think>…</think>` from the answer while it streams: a pure state machine.

A Thinking checkpoint either writes `<think>` itself or its chat template has already written it, so that the
answer begins in mid-thought; `starts_inside` says which. Only a `<think>` before any other text counts: later
ones are the answer's own words. So are all where `answer_begun`: the first words stood in the prompt already.
"""

from __future__ import annotations

from typing import Final

from omni_backend.types import ReasoningDelta, TextDelta

THINK_START: Final = "<think>"
THINK_END: Final = "</think>"


class ReasoningSplitter:
    """Feed text as it comes, get deltas back; the result does not depend on where the text was cut."""

    def __init__(self, *, starts_inside: bool = False, answer_begun: bool = False) -> None:
        self._inside = starts_inside
        self._at_start = not starts_inside and not answer_begun
        self._trim = starts_inside
        self._held = ""

    def feed(self, text: str) -> list[ReasoningDelta | TextDelta]:
        """The deltas that are certain after `text`; what may still become a tag is held back."""
        self._held += text
        deltas: list[ReasoningDelta | TextDelta] = []
        while self._step(deltas):
            pass
        return _merged(deltas)

    def finish(self) -> list[ReasoningDelta | TextDelta]:
        """What was held back, at the end of the answer."""
        rest, self._held = self._held, ""
        if not rest:
            return []
        return [ReasoningDelta(rest) if self._inside else TextDelta(rest)]

    def _step(self, deltas: list[ReasoningDelta | TextDelta]) -> bool:
        """Takes one decision; True when there may be another."""
        if self._trim:
            self._held = self._held.lstrip()
            self._trim = not self._held
        if not self._held:
            return False
        if self._inside:
            return self._step_inside(deltas)
        if self._at_start:
            return self._step_at_start()
        deltas.append(TextDelta(self._held))
        self._held = ""
        return False

    def _step_inside(self, deltas: list[ReasoningDelta | TextDelta]) -> bool:
        thought, tag, rest = self._held.partition(THINK_END)
        if tag:
            # White space around a thought is layout, not content.
            if thought.rstrip():
                deltas.append(ReasoningDelta(thought.rstrip()))
            self._held, self._inside, self._trim = rest, False, True
            return True
        sure = self._held[: len(self._held) - _overlap(self._held, THINK_END)].rstrip()
        if sure:
            deltas.append(ReasoningDelta(sure))
            self._held = self._held[len(sure) :]
        return False

    def _step_at_start(self) -> bool:
        stripped = self._held.lstrip()
        if stripped.startswith(THINK_START):
            self._held, self._inside, self._trim = stripped[len(THINK_START) :], True, True
            self._at_start = False
            return True
        if THINK_START.startswith(stripped):
            return False
        self._at_start = False
        return True


def strip_reasoning(text: str) -> str:
    """The answer alone, for sending it back as history."""
    splitter = ReasoningSplitter()
    deltas = splitter.feed(text) + splitter.finish()
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that is a beginning of `tag`."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if tag.startswith(text[-n:])), 0)


def _merged(deltas: list[ReasoningDelta | TextDelta]) -> list[ReasoningDelta | TextDelta]:
    merged: list[ReasoningDelta | TextDelta] = []
    for delta in deltas:
        if merged and type(merged[-1]) is type(delta):
            merged[-1] = type(delta)(merged[-1].text + delta.text)
        else:
            merged.append(delta)
    return merged
