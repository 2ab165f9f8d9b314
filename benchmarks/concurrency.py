"""Many users at once: tokens a second of bare AsyncLLM, this backend, and the running app, on the same requests.

    python -m benchmarks.concurrency [--users 1 2 4 8 16] [--rounds 3] [--tokens 128]

Needs vLLM. Every user asks another question about a picture and gets `--tokens` tokens, greedy. The three ways take
turns in one run; the app has an engine of its own, which idles meanwhile. Medians; what counts are the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, cast

from gradio_client import Client, handle_file

from benchmarks.never_ending import build
from omni_backend import (
    Backend,
    BackendOptions,
    ChatRequest,
    MediaPart,
    Message,
    SamplingParams,
    TextPart,
    create_backend,
)
from omni_backend.media import MediaLoader
from omni_backend.vllm_engine import text_params
from omni_backend.vllm_inputs import engine_inputs
from tools.running_app import running_app

PICTURE: Final = Path(__file__).parent.parent / "assets" / "examples" / "star.png"
BARE: Final = "bare AsyncLLM"
BACKEND: Final = "this backend"
APP: Final = "the app"


def question(user: int) -> str:
    return f"I am user {user}. What do you see?"


def request(user: int, tokens: int) -> ChatRequest:
    parts = (MediaPart("image", str(PICTURE)), TextPart(question(user)))
    return ChatRequest((Message("user", parts),), SamplingParams(temperature=0, max_tokens=tokens))


class Bare:
    """AsyncLLM itself, given ready-made prompts: what the engine can do."""

    def __init__(self, backend: Any, tokens: int) -> None:
        self._llm = backend.loaded.engine.llm
        self._loop = backend.loaded.loop
        self._processing = backend.loaded.processing
        self._tokens = tokens
        self._media = MediaLoader()
        self._count = 0

    def __call__(self, users: int) -> None:
        prompts = [self._prompt(user) for user in range(users)]
        started = self._count
        self._count += users
        work = (self._one(prompt, f"bare-{started + number}") for number, prompt in enumerate(prompts))
        self._loop.call(_all(list(work)))

    def _prompt(self, user: int) -> Any:
        return engine_inputs(*self._processing.prompt(request(user, self._tokens), self._media)).as_prompt()

    async def _one(self, prompt: Any, name: str) -> None:
        params = text_params(SamplingParams(temperature=0, max_tokens=self._tokens), self._processing.eos_token_ids)
        async for _ in self._llm.generate(prompt, params, name):
            pass


async def _all(work: list[Any]) -> None:
    await asyncio.gather(*work)


def through_backend(backend: Backend, tokens: int) -> Callable[[int], None]:
    async def one(user: int) -> None:
        async with aclosing(backend.stream(request(user, tokens))) as events:
            async for _ in events:
                pass

    return lambda users: asyncio.run(_all([one(user) for user in range(users)]))


def through_app(url: str, most: int) -> Callable[[int], None]:
    """Each user has a client of its own. The app's answers have the checkpoint's own length."""
    clients = [Client(url, verbose=False) for _ in range(most)]

    def one(user: int) -> None:
        message = {"text": question(user), "files": [handle_file(str(PICTURE))]}
        for _ in clients[user].submit(message, False, None, None, True, api_name="/chat"):
            pass

    def run(users: int) -> None:
        with ThreadPoolExecutor(users) as pool:
            list(pool.map(one, range(users)))

    return run


def table(rates: dict[str, dict[int, float]]) -> str:
    """Tokens a second of all users together, how many times one user's that is, and the share of the bare engine's."""
    lines = [f"{'users':>6}" + "".join(f"{way + ' tok/s':>22}{'× one user':>12}{'/ bare':>8}" for way in rates)]
    for users in rates[BARE]:
        cells = (
            f"{rate[users]:>22.0f}{rate[users] / rate[1]:>12.1f}{rate[users] / rates[BARE][users]:>8.2f}"
            for rate in rates.values()
        )
        lines.append(f"{users:>6}" + "".join(cells))
    lines += ["", "aims: 8 users ≥ 5 × one user; this backend ≥ 0.9 of bare AsyncLLM"]
    return "\n".join(lines)


def measure(
    ways: dict[str, Callable[[int], None]], users: list[int], rounds: int, tokens: int
) -> dict[str, dict[int, float]]:
    seconds: dict[tuple[str, int], list[float]] = {}
    for number in range(rounds + 1):
        for count in users:
            for way, run in ways.items():
                started = time.perf_counter()
                run(count)
                if number:
                    seconds.setdefault((way, count), []).append(time.perf_counter() - started)
    return {way: {count: count * tokens / statistics.median(seconds[way, count]) for count in users} for way in ways}


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, after one to warm up (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=128, help="of each answer (default: %(default)s)")
    chosen = parser.parse_args()
    users = sorted({1, *chosen.users})
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = build(Path(folder) / "tiny-qwen3-omni", tokens=chosen.tokens, frames=1)
        most = str(users[-1])
        flags = ("-c", str(checkpoint), "--backend", "vllm", "--no-generate-audio", "--max-num-seqs", most)
        backend = create_backend("vllm", BackendOptions(str(checkpoint), max_num_seqs=users[-1]))
        backend.wait_until_ready()
        with running_app(*flags) as url:
            ways: dict[str, Callable[[int], None]] = {
                BARE: Bare(cast(Any, backend), chosen.tokens),
                BACKEND: through_backend(backend, chosen.tokens),
                APP: through_app(url, users[-1]),
            }
            rates = measure(ways, users, chosen.rounds, chosen.tokens)
        backend.close()
    print(table(rates))


if __name__ == "__main__":
    main()
