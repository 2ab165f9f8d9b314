"""How long each turn of a long chat waits for its first word, for every engine that is installed, in one run.

    python -m benchmarks.long_chat [--rounds 3] [--turns 10] [--checkpoint FOLDER] [--server-url URL]

The first message holds an image and a minute of sound, which stay in the chat; short questions follow. With a prefix
cache a turn reads only what is new, so that turn 10 waits hardly longer than turn 2 (aim: at most 1.2 times).

Greedy, the engine's own answers as history, new files in every round, so that each chat starts cold. Medians; what
counts is the ratio within one row, since machines differ. The engines run one after the other, each alone.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import wave
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from PIL import Image

from benchmarks.never_ending import EMBEDDED
from omni_backend import (
    Backend,
    BackendError,
    BackendOptions,
    ChatRequest,
    Done,
    MediaPart,
    Message,
    SamplingParams,
    TextDelta,
    TextPart,
    create_backend,
)

SOUND_SECONDS: Final = 60.0
SIDE: Final = 768  # pixels, of the square image
SAMPLING: Final = SamplingParams(temperature=0, max_tokens=24)
QUESTIONS: Final = ("What do you see and hear?", "What is your name?", "What color is it?", "Tell me a story.")

Chat = Callable[[Backend, Path, int, int], list[float]]


def chat(backend: Backend, folder: Path, number: int, turns: int) -> list[float]:
    """Seconds until the first word of each turn of chat `number`."""
    return asyncio.run(_chat(backend, opening(folder, number), turns, lambda: None))


def chat_without_reuse(backend: Backend, folder: Path, number: int, turns: int) -> list[float]:
    """The same on the Transformers engine, each turn read whole."""
    return asyncio.run(_chat(backend, opening(folder, number), turns, cast(Any, backend).prefixes.clear))


async def _chat(
    backend: Backend, opening: tuple[MediaPart, ...], turns: int, before_turn: Callable[[], None]
) -> list[float]:
    history: list[Message] = []
    waits: list[float] = []
    for turn in range(turns):
        question = TextPart(QUESTIONS[turn % len(QUESTIONS)])
        history.append(Message("user", (question,) if turn else (*opening, question)))
        before_turn()
        answer = ""
        async with aclosing(backend.stream(ChatRequest(tuple(history), SAMPLING))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    answer += event.text
                elif isinstance(event, Done):
                    assert event.timing.first_text is not None, "an answer without words"
                    waits.append(event.timing.first_text)
        history.append(Message("assistant", (TextPart(answer),)))
    return waits


def opening(folder: Path, number: int) -> tuple[MediaPart, ...]:
    """An image and a minute of sound that no other chat has."""
    random = np.random.default_rng(number)
    image, sound = folder / f"{number}.png", folder / f"{number}.wav"
    Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(image)
    times = np.arange(round(SOUND_SECONDS * 16_000)) / 16_000
    pitch = random.uniform(200, 400) + 100 * np.sin(times)
    samples = 8000 * np.sin(2 * np.pi * pitch * times)
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(samples.astype(np.int16).tobytes())
    return MediaPart("image", str(image)), MediaPart("audio", str(sound))


@contextmanager
def running(engine: str, options: BackendOptions) -> Iterator[Backend]:
    """The engine, ready."""
    backend = create_backend(engine, options)
    try:
        backend.wait_until_ready()
        yield backend
    finally:
        backend.close()


def measure(backend: Backend, ways: dict[str, Chat], rounds: int, turns: int) -> dict[str, list[list[float]]]:
    """`rounds` chats in each way, taking turns, after one to warm up."""
    waits: dict[str, list[list[float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        number = 0
        for round_ in range(rounds + 1):
            for name, way in ways.items():
                seconds = way(backend, Path(folder), number, turns)
                number += 1
                if round_:
                    waits[name].append(seconds)
    return waits


def row(name: str, chats: list[list[float]]) -> str:
    """Medians in milliseconds and the ratio of the last turn to the second."""
    medians = [statistics.median(turn) for turn in zip(*chats, strict=True)]
    return f"{name:<32}" + "".join(f"{1000 * wait:>7.0f}" for wait in medians) + f"{medians[-1] / medians[1]:>9.2f}"


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="chats, after one to warm up (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=10, help="turns of a chat, 2 or more (default: %(default)s)")
    parser.add_argument("--checkpoint", default=str(EMBEDDED), help="folder or id (default: the embedded one)")
    parser.add_argument("--server-url", help="measure an OpenAI-compatible server too")
    parser.add_argument("--api-key", help="the server's key")
    parser.add_argument("--model", help="the server's model")
    arguments = parser.parse_args()
    local = BackendOptions(arguments.checkpoint)
    engines: dict[str, tuple[str, BackendOptions, dict[str, Chat]]] = {
        "transformers": (
            "transformers",
            local,
            {"transformers, read whole": chat_without_reuse, "transformers, prefix kept": chat},
        )
    }
    if find_spec("vllm"):
        engines["vllm"] = ("vllm", local, {"vllm": chat})
    if arguments.server_url:
        remote = BackendOptions(
            arguments.checkpoint,
            server_url=arguments.server_url,
            api_key=arguments.api_key,
            model=arguments.model,
        )
        engines["server"] = ("server", remote, {f"server {arguments.server_url}": chat})
    print(f"{'first word, ms, turn':<32}" + "".join(f"{turn:>7}" for turn in range(1, arguments.turns + 1)), end="")
    print(f"{f'{arguments.turns} / 2':>9}")
    for engine, options, ways in engines.values():
        try:
            with running(engine, options) as backend:
                for name, chats in measure(backend, ways, arguments.rounds, arguments.turns).items():
                    print(row(name, chats), flush=True)
        except BackendError as error:
            print(f"{engine}: {error} {error.detail}", flush=True)


if __name__ == "__main__":
    main()
