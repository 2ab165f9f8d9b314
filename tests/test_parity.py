"""vLLM reads and answers what Transformers does, token by token, from this app's own requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omni_backend import Backend, ChatRequest, MediaPart
from tests.contract import answer
from tests.engine import load
from tests.media_files import BLUE, GREEN, RED, WHITE, film_file
from tests.parity import EXAMPLES, NAMES, Reading, ask, read_by_transformers, turn, turns
from tests.tiny_checkpoints import Shape
from tests.vllm_engine import llm

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatRequest]:
    return turns(tmp_path_factory.mktemp("turns"))


@pytest.fixture(scope="module")
def transformers_never_ending(float32_checkpoint: Path) -> Iterator[Backend]:
    yield from load(float32_checkpoint)


@pytest.fixture(scope="module")
def transformers_thinking(random_checkpoint: Callable[[Shape], Path]) -> Iterator[Backend]:
    yield from load(random_checkpoint(Shape(kind="thinking")))


def read_by_vllm(backend: Backend, request: ChatRequest, monkeypatch: pytest.MonkeyPatch) -> Reading:
    """What went into and came out of AsyncLLM for a request."""
    engine = llm(backend)
    prompt: list[int] = []
    tokens: list[int] = []
    generate = engine.generate

    async def listen(*arguments: Any) -> AsyncGenerator[Any, None]:
        async for output in generate(*arguments):
            prompt[:] = output.prompt_token_ids or prompt
            tokens.extend(output.outputs[0].token_ids)
            yield output

    with monkeypatch.context() as patch:
        patch.setattr(engine, "generate", listen)
        asyncio.run(answer(backend, request))
    return Reading(tuple(prompt), tuple(tokens))


@pytest.mark.parametrize("name", NAMES)
def test_same_prompt_and_same_tokens(
    name: str,
    requests: dict[str, ChatRequest],
    transformers_never_ending: Backend,
    vllm_never_ending: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = read_by_transformers(transformers_never_ending, requests[name])
    assert len(expected.answer) == 32
    assert read_by_vllm(vllm_never_ending, requests[name], monkeypatch) == expected


@pytest.mark.parametrize("name", NAMES)
def test_same_prompt_and_same_tokens_of_random_weights(
    name: str,
    requests: dict[str, ChatRequest],
    transformers_thinking: Backend,
    vllm_thinking: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Random weights heed everything, trained ones only what they were trained for."""
    expected = read_by_transformers(transformers_thinking, requests[name])
    assert read_by_vllm(vllm_thinking, requests[name], monkeypatch) == expected


def test_the_set_is_complete(requests: dict[str, ChatRequest]) -> None:
    assert tuple(requests) == NAMES


def test_films_that_share_their_sound(
    tmp_path: Path, transformers_never_ending: Backend, vllm_never_ending: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM keeps pictures and sounds each by itself, and fails on a film of which it has kept the sound alone."""
    films = []
    for name, colours in (("first.mp4", (RED, BLUE)), ("second.mp4", (GREEN, WHITE))):
        (tmp_path / name).write_bytes(film_file("mkv", tuple(enumerate(colours)), hertz=555.0))
        films.append(MediaPart("video", str(tmp_path / name)))
    first, second = films
    question = MediaPart("audio", str(EXAMPLES / "word.wav"))
    for parts in ((first,), (second,), (first,), (first, question), (second, first), (first,)):
        asked = ask(turn(*parts, "What do you see?"))
        assert read_by_vllm(vllm_never_ending, asked, monkeypatch) == read_by_transformers(
            transformers_never_ending, asked
        ), parts
