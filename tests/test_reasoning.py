"""The splitter gives the same whatever the pieces in which an answer arrives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations, product

import pytest

from omni_backend.reasoning import ReasoningSplitter, strip_reasoning
from omni_backend.types import ReasoningDelta, TextDelta

Delta = ReasoningDelta | TextDelta

CASES = {
    "thought and answer": ("<think>\nFirst this.\n\nThen that.\n</think>\n\nThe answer.\n", False),
    "begins inside": ("\nFirst this.\n</think>\n\nThe answer.", True),
    "no thought": ("The answer.", False),
    "white space before an answer": ("\n The answer.", False),
    "tag in the middle is text": ("Write <think> and </think> so.", False),
    "tag after a thought is text": ("<think>a</think>b <think>c</think> d", False),
    "empty thought": ("<think>\n\n</think>\n\nThe answer.", False),
    "nearly a tag in a thought": ("<think>a </thin b <</think>c", False),
    "nearly a tag at the start": ("<thin ice", False),
    "ends within a tag": ("<think>a</thi", False),
    "ends within the first tag": (" <thi", False),
    "unfinished thought": ("<think>It goes on \n", False),
    "unfinished, begins inside": ("It goes on", True),
    "Chinese": ("<think>先想一想。</think>答案是三。", False),
    "nothing": ("", False),
}


def expected(text: str, starts_inside: bool) -> tuple[str, str]:
    """Thought and answer of a whole text, found with a look at all of it."""
    if not starts_inside:
        tag = re.match(r"\s*<think>", text)
        if tag is None:
            return "", text
        text = text[tag.end() :]
    thought, end, answer = text.lstrip().partition("</think>")
    return (thought.rstrip(), answer.lstrip()) if end else (thought, "")


def split(pieces: Sequence[str], starts_inside: bool) -> list[Delta]:
    splitter = ReasoningSplitter(starts_inside=starts_inside)
    deltas = [delta for piece in pieces for delta in splitter.feed(piece)]
    return deltas + splitter.finish()


def joined(deltas: list[Delta]) -> tuple[str, str]:
    """Thought and answer; asserts that no delta is empty and that the thought comes first."""
    assert all(delta.text for delta in deltas)
    kinds = [isinstance(delta, TextDelta) for delta in deltas]
    assert kinds == sorted(kinds)
    thought = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))
    return thought, "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


@pytest.mark.parametrize(("text", "starts_inside"), CASES.values(), ids=CASES.keys())
def test_every_cut_gives_the_same(text: str, starts_inside: bool) -> None:
    whole = expected(text, starts_inside)
    assert joined(split([text], starts_inside)) == whole
    assert joined(split(list(text), starts_inside)) == whole
    for first in range(len(text) + 1):
        assert joined(split([text[:first], text[first:]], starts_inside)) == whole
    for first, second in combinations(range(len(text) + 1), 2):
        pieces = [text[:first], text[first:second], text[second:]]
        assert joined(split(pieces, starts_inside)) == whole, pieces


@pytest.mark.parametrize("starts_inside", [False, True])
def test_every_mixture_of_tags_and_white_space(starts_inside: bool) -> None:
    for count in range(5):
        for parts in product(["<think>", "</think>", "</th", "<", "a", " ", "\n"], repeat=count):
            whole = expected("".join(parts), starts_inside)
            assert joined(split(parts, starts_inside)) == whole, parts
            assert joined(split(list("".join(parts)), starts_inside)) == whole, parts


def test_cases_are_what_they_say() -> None:
    assert {name: expected(*case) for name, case in CASES.items()} == {
        "thought and answer": ("First this.\n\nThen that.", "The answer.\n"),
        "begins inside": ("First this.", "The answer."),
        "no thought": ("", "The answer."),
        "white space before an answer": ("", "\n The answer."),
        "tag in the middle is text": ("", "Write <think> and </think> so."),
        "tag after a thought is text": ("a", "b <think>c</think> d"),
        "empty thought": ("", "The answer."),
        "nearly a tag in a thought": ("a </thin b <", "c"),
        "nearly a tag at the start": ("", "<thin ice"),
        "ends within a tag": ("a</thi", ""),
        "ends within the first tag": ("", " <thi"),
        "unfinished thought": ("It goes on \n", ""),
        "unfinished, begins inside": ("It goes on", ""),
        "Chinese": ("先想一想。", "答案是三。"),
        "nothing": ("", ""),
    }


def test_nothing_is_held_longer_than_it_must() -> None:
    splitter = ReasoningSplitter()
    assert splitter.feed("<think>First") == [ReasoningDelta("First")]
    assert splitter.feed(" this") == [ReasoningDelta(" this")]
    assert splitter.feed(".</") == [ReasoningDelta(".")]
    assert splitter.feed("think>Yes") == [TextDelta("Yes")]
    assert splitter.feed(" <") == [TextDelta(" <")]
    assert splitter.finish() == []
    assert ReasoningSplitter().feed("Yes") == [TextDelta("Yes")]
    assert ReasoningSplitter().feed("<thinner") == [TextDelta("<thinner")]


def test_history_holds_no_thoughts() -> None:
    assert strip_reasoning("<think>a</think>\n\nb") == "b"
    assert strip_reasoning("b <think>c</think>") == "b <think>c</think>"
    assert strip_reasoning("<think>only a thought") == ""
