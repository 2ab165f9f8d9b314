"""How long a user waits: first text, first sound and the whole answer, side by side in one run.

    python -m benchmarks.first_token [--rounds 5]

(a) bare `thinker.generate` with a streamer, text only: the floor
(b) stock `generate`, text and speech, which hands over everything at the end
(c) this backend, text and speech streaming
(d) the running app, asked through gradio_client

All answer the same question with 128 tokens and 125 codec frames (10 s of speech), greedy, taking turns.
Medians; what counts are the ratios, since machines differ.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, cast

from gradio_client import Client

from benchmarks.never_ending import build
from omni_backend import (
    AudioDelta,
    Backend,
    BackendOptions,
    ChatRequest,
    Message,
    SamplingParams,
    TextDelta,
    TextPart,
    create_backend,
)
from tools.running_app import running_app

TOKENS: Final = 128
FRAMES: Final = 125
QUESTION: Final = "What do you see and hear?"

BARE: Final = "(a) bare thinker.generate"
STOCK: Final = "(b) stock generate"
BACKEND: Final = "(c) this backend"
APP_CLIENT: Final = "(d) app, gradio_client"


@dataclass(slots=True)
class Waits:
    """Seconds from asking; None for what does not come."""

    first_text: float | None = None
    first_sound: float | None = None
    text_end: float | None = None
    total: float = 0.0


def request(*, speak: bool) -> ChatRequest:
    return ChatRequest(
        (Message("user", (TextPart(QUESTION),)),),
        SamplingParams(temperature=0, max_tokens=TOKENS),
        modalities=frozenset({"text", "audio"} if speak else {"text"}),
    )


def measure_bare(loaded: Any) -> Waits:
    """(a) The thinker alone. Its first token counts as first text, though no word is decoded yet."""
    from transformers.generation.streamers import BaseStreamer

    class Stopwatch(BaseStreamer):
        puts: ClassVar[list[float]] = []

        def put(self, value: Any) -> None:
            self.puts.append(time.perf_counter() - started)

        def end(self) -> None:
            pass

    started = time.perf_counter()
    stopwatch = Stopwatch()
    stopwatch.puts.clear()
    loaded.model.thinker.generate(
        **stock_inputs(loaded),
        streamer=stopwatch,
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=sorted(loaded.eos_token_ids),
    )
    total = time.perf_counter() - started
    # The first put is the prompt.
    return Waits(first_text=stopwatch.puts[1], text_end=total, total=total)


def measure_stock(loaded: Any) -> Waits:
    """(b) Stock `generate`: everything at the end."""
    started = time.perf_counter()
    loaded.model.generate(
        **stock_inputs(loaded),
        speaker=loaded.checkpoint.voices[0],
        thinker_max_new_tokens=TOKENS,
        thinker_do_sample=False,
        thinker_eos_token_id=sorted(loaded.eos_token_ids),
        talker_do_sample=False,
        talker_repetition_penalty=1.0,
        talker_max_new_tokens=FRAMES + 1,
    )
    total = time.perf_counter() - started
    return Waits(first_text=total, first_sound=total, text_end=total, total=total)


def stock_inputs(loaded: Any) -> Any:
    chat = [{"role": "user", "content": QUESTION}]
    text = loaded.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    return loaded.processor(text=text, return_tensors="pt")


def measure_backend(backend: Backend) -> Waits:
    """(c) This backend."""

    async def ask() -> Waits:
        waits, started = Waits(), time.perf_counter()
        async with aclosing(backend.stream(request(speak=True))) as events:
            async for event in events:
                now = time.perf_counter() - started
                if isinstance(event, TextDelta):
                    waits.first_text = waits.first_text or now
                    waits.text_end = now
                elif isinstance(event, AudioDelta):
                    waits.first_sound = waits.first_sound or now
        waits.total = time.perf_counter() - started
        return waits

    return asyncio.run(ask())


def measure_app(client: Client) -> Waits:
    """(d) The running app. Its endpoint gives the sound as a file, so there is no first sound to hear here."""
    waits, started = Waits(), time.perf_counter()
    job = client.submit({"text": QUESTION, "files": []}, True, None, None, True, api_name="/chat")
    for text, _ in job:
        if text and waits.first_text is None:
            waits.first_text = time.perf_counter() - started
    waits.total = time.perf_counter() - started
    return waits


def table(rounds: dict[str, list[Waits]]) -> str:
    """Medians in milliseconds, and first text and sound as ratios."""

    def median(name: str, field: str) -> float | None:
        values = [value for waits in rounds[name] if (value := getattr(waits, field)) is not None]
        return statistics.median(values) if values else None

    def cell(value: float | None, unit: float = 1000, digits: int = 0) -> str:
        return f"{'-' if value is None else f'{value * unit:.{digits}f}':>12}"

    fields = ("first_text", "first_sound", "text_end", "total")
    lines = [f"{'ms, median':<28}" + "".join(f"{field.replace('_', ' '):>12}" for field in fields)]
    lines += [f"{name:<28}" + "".join(cell(median(name, field)) for field in fields) for name in rounds]
    bare, stock, backend, app = (median(name, "first_text") or 0.0 for name in rounds)
    sound = median(BACKEND, "first_sound") or 0.0
    text_end = median(BACKEND, "text_end") or 0.0
    lines += [
        "",
        f"first text, backend / bare:            {backend / bare:.2f}   (aim: at most 1.1)",
        f"first text, app - bare:                {(app - bare) * 1000:.0f} ms (aim: at most 150)",
        f"first sound, backend / stock:          1/{stock / sound:.1f} (aim: at most 1/8)",
        f"first sound before the end of text:    {'yes' if sound < text_end else 'no'}",
        f"whole answer, backend / stock:         {(median(BACKEND, 'total') or 0.0) / stock:.2f}",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds, after one to warm up (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = build(Path(folder) / "tiny-qwen3-omni", tokens=TOKENS, frames=FRAMES)
        backend = create_backend("transformers", BackendOptions(str(checkpoint), generate_audio=True))
        backend.wait_until_ready()
        loaded = cast(Any, backend).loaded
        with running_app("-c", str(checkpoint), "--generate-audio") as url:
            client = Client(url, verbose=False)
            measure_app(client)  # waits until the model is there
            ways: dict[str, Callable[[], Waits]] = {
                BARE: lambda: measure_bare(loaded),
                STOCK: lambda: measure_stock(loaded),
                BACKEND: lambda: measure_backend(backend),
                APP_CLIENT: lambda: measure_app(client),
            }
            rounds: dict[str, list[Waits]] = {name: [] for name in ways}
            for number in range(options.rounds + 1):
                for name, measure in ways.items():
                    waits = measure()
                    if number:
                        rounds[name].append(waits)
        backend.close()
    print(table(rounds))


if __name__ == "__main__":
    main()
