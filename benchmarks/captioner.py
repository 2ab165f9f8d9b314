"""What the captioner costs beside the model: our job and a bare loop over the engine, on the same clips in one run.

    python -m benchmarks.captioner [--clips 24] [--rounds 3] [--tokens 64 256] [--backend transformers|vllm]

Transformers, one clip at a time: the loop is the model card's script, qwen-omni-utils, processor, `thinker.generate`
and nothing else. vLLM, 8 clips in flight: AsyncLLM under a semaphore. Both ways use the same loaded model, greedy, with
the same limit of tokens, take turns, and on Transformers must write the same captions.

The tiny checkpoint answers in milliseconds, so that what surrounds the model weighs as it never does beside the real
one, whose captions take seconds; rows with answers of a fixed length (`--tokens`) are nearer to it. Clips are WAV and
FLAC of 16 kHz, which every decoder reads alike; in the last row they are such as people have.

Files a minute: of the wall clock, from the paths to the captions. On a busy machine they favour what has more threads,
which is the job; CPU time does not. CPU outside the model: of this process, all threads. On Transformers that is
without the CPU of `thinker.generate` in its thread, except for what the streamer and the stopping criteria take there,
which is the caller's; torch has one thread. vLLM's model lives in processes of its own, so all CPU of this one counts.
Medians of the rounds after the first; each share is the median of the rounds' own shares, as machines drift.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import soundfile  # type: ignore[import-untyped]
from numpy.typing import NDArray

from benchmarks.long_chat import running
from benchmarks.never_ending import EMBEDDED, build
from omni_backend import Backend, BackendOptions, SamplingParams, phrase
from omni_backend.caption import limits
from omni_backend.caption.collect import collect
from omni_backend.caption.job import CaptionJob
from omni_backend.caption.store import JobStore
from omni_backend.caption.values import CaptionSettings
from omni_backend.torchvision_ops import define_missing_ops

SHORTEST, LONGEST = 2.0, 29.0  # seconds; each clip is one window
EXACT: Final = (("wav", 16_000, 1), ("flac", 16_000, 1), ("wav", 16_000, 2))
"""Endings, rates and channels of files that every decoder reads alike, to the last bit."""
USUAL: Final = (("mp3", 44_100, 2), ("wav", 48_000, 2), ("mp3", 16_000, 1))
"""As people have them. Decoders and resamplers round differently, so that greedy words may differ."""
IN_FLIGHT: Final = 8
OWN_LENGTH: Final = 256  # tokens at most where the checkpoint ends its answers itself
BARE: Final = "bare loop"
JOB: Final = "this job"

Captions = dict[str, str]
Way = Callable[[], Captions]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of captioning all clips once, in seconds."""

    wall: float
    cpu: float
    """Of this process."""
    outside: float
    """Of that, outside the model."""


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    name: str
    checkpoint: Path
    tokens: int
    """At most, of each answer."""
    clips: list[Path]
    exact: bool = True
    """Whether the clips are `EXACT`."""


def cases_of(lengths: list[int], count: int, folder: Path) -> list[Case]:
    """Answers of the checkpoint's own length and of each of `lengths`; and of the first for the usual files."""
    exact = write_clips(folder / "exact", count, EXACT)
    usual = write_clips(folder / "usual", count, USUAL)
    own = Case("own length", EMBEDDED, OWN_LENGTH, exact)
    fixed = [Case(f"{n} tokens", build(folder / f"{n}", tokens=n, frames=1), n, exact) for n in lengths]
    first = (fixed or [own])[0]
    return [own, *fixed, replace(first, name=f"{first.name}, MP3 and 48 kHz", clips=usual, exact=False)]


def write_clips(folder: Path, count: int, kinds: Sequence[tuple[str, int, int]]) -> list[Path]:
    """Sound files of evenly spread lengths in mixed order, of each kind in turn: sweeps and clatter."""
    folder.mkdir()
    random = np.random.default_rng(0)
    clips = []
    for number, seconds in enumerate(random.permutation(np.linspace(SHORTEST, LONGEST, count).round(1))):
        kind, rate, channels = kinds[number % len(kinds)]
        path = folder / f"{number:03}.{kind}"
        sound = np.stack([_sound(random, float(seconds), rate) for _ in range(channels)], axis=1)
        soundfile.write(path, sound, rate)
        clips.append(path)
    return clips


def _sound(random: np.random.Generator, seconds: float, rate: int) -> NDArray[np.float64]:
    times = np.arange(round(seconds * rate)) / rate
    sweep = 0.2 * np.sin(2 * np.pi * (random.uniform(100, 800) + random.uniform(0, 40) * times) * times)
    clatter = random.normal(0, 0.1, times.size) * (np.sin(random.uniform(1, 9) * times) > 0.8)
    return sweep + clatter


class ModelClock:
    """CPU seconds of `thinker.generate` in its thread, without those of the streamer and the stopping criteria."""

    def __init__(self, thinker: Any) -> None:
        self.seconds = 0.0
        self._generate = thinker.generate
        self._told = 0.0
        thinker.generate = self._timed

    def _timed(self, **kwargs: Any) -> Any:
        from transformers import StoppingCriteriaList

        if "streamer" in kwargs:
            streamer = kwargs["streamer"]
            streamer.put, streamer.end = self._theirs(streamer.put), self._theirs(streamer.end)
        if "stopping_criteria" in kwargs:
            kwargs["stopping_criteria"] = StoppingCriteriaList(map(self._theirs, kwargs["stopping_criteria"]))
        self._told, started = 0.0, time.thread_time()
        try:
            return self._generate(**kwargs)
        finally:
            self.seconds += time.thread_time() - started - self._told

    def _theirs(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                self._told += time.thread_time() - started

        return timed


def conversation(clip: Path) -> list[dict[str, Any]]:
    """What the guide's scripts ask. The embedded checkpoint takes words, as the published captioner does not."""
    instruction = phrase("caption.instruction").text("en")
    return [{"role": "user", "content": [{"type": "audio", "audio": str(clip)}, {"type": "text", "text": instruction}]}]


def bare_transformers(loaded: Any, clips: list[Path], tokens: int) -> Captions:
    """A script as the model card's, one clip after the other."""
    from qwen_omni_utils import process_mm_info  # type: ignore[import-untyped]

    processor, model = loaded.processor, loaded.model
    captions = {}
    for clip in clips:
        chat = conversation(clip)
        text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        audios, images, videos = process_mm_info(chat, use_audio_in_video=False)
        inputs = processor(text=text, audio=audios, images=images, videos=videos, return_tensors="pt", padding=True)
        inputs = inputs.to(model.device, model.dtype)
        ids = model.thinker.generate(
            **inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=sorted(loaded.eos_token_ids)
        )
        answer = ids[:, inputs["input_ids"].shape[1] :]
        captions[clip.name] = processor.batch_decode(answer, skip_special_tokens=True)[0].strip()
    return captions


def bare_vllm(loaded: Any, clips: list[Path], tokens: int, run: int) -> Captions:
    """AsyncLLM, `IN_FLIGHT` clips at a time. `run`: makes the requests' names its own."""
    from qwen_omni_utils import process_mm_info
    from vllm import SamplingParams as VllmSamplingParams
    from vllm.sampling_params import RequestOutputKind

    llm, processor = loaded.engine.llm, loaded.processing.processor
    params = VllmSamplingParams(
        temperature=0,
        max_tokens=tokens,
        stop_token_ids=sorted(loaded.processing.eos_token_ids),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )

    def prepare(clip: Path) -> dict[str, Any]:
        chat = conversation(clip)
        text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        [sound], _, _ = process_mm_info(chat, use_audio_in_video=False)
        return {"prompt": text, "multi_modal_data": {"audio": sound}}

    async def all_of_them() -> Captions:
        turn, captions = asyncio.Semaphore(IN_FLIGHT), {}

        async def one(clip: Path) -> None:
            async with turn:
                prompt = await asyncio.to_thread(prepare, clip)
                async for output in llm.generate(prompt, params, f"bare-{run}-{clip.name}"):
                    captions[clip.name] = output.outputs[0].text.strip()

        await asyncio.gather(*map(one, clips))
        return captions

    return cast(Captions, loaded.loop.call(all_of_them()))


def our_job(backend: Backend, clips: list[Path], tokens: int, folder: Path) -> Captions:
    """The captioner, from the paths on; its job lies in `folder`, as that of `python -m omni_backend.caption` does."""
    settings = CaptionSettings(
        sampling=SamplingParams(temperature=0, max_tokens=tokens), window_seconds=limits.WINDOW_SECONDS
    )
    store = JobStore.create(folder, settings)
    try:
        found = collect([(clip.name, clip) for clip in clips], folder / "unpacked")
        store.add(found.found, found.refused)
        asyncio.run(CaptionJob(store, backend).run())
        return {
            file.name: " ".join(segment.text for segment in file.segments).strip() for file in store.captioned_files()
        }
    finally:
        store.close()
        shutil.rmtree(folder)


@contextmanager
def ways_of(engine: str, case: Case, work: Path) -> Iterator[tuple[dict[str, Way], Callable[[], float]]]:
    """Both ways over one loaded model, and the clock of the model's CPU in this process."""
    vllm = engine == "vllm"
    clips, tokens = case.clips, case.tokens
    options = BackendOptions(str(case.checkpoint), single_turn=True)
    if vllm:  # every clip is heard again in every round, and must be read again
        options = replace(options, max_num_seqs=IN_FLIGHT, engine_args=(("enable_prefix_caching", "false"),))
    with running(engine, options) as backend:
        loaded = cast(Any, backend).loaded
        runs = itertools.count()
        ways: dict[str, Way] = {
            BARE: lambda: bare_vllm(loaded, clips, tokens, next(runs)),
            JOB: lambda: our_job(backend, clips, tokens, work / "job"),
        }
        if vllm:
            yield ways, lambda: 0.0
            return
        import torch

        torch.set_num_threads(1)
        clock = ModelClock(loaded.model.thinker)
        yield ways | {BARE: lambda: bare_transformers(loaded, clips, tokens)}, lambda: clock.seconds


def measure(ways: dict[str, Way], model_cpu: Callable[[], float], rounds: int) -> tuple[dict[str, list[Cost]], int]:
    """What each way costs, `rounds` times after one to warm up; each begins every second round.

    And how many captions were the same both ways, in the round with the fewest.
    """
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    alike = []
    for number in range(rounds + 1):
        captions: dict[str, Captions] = {}
        for name in list(ways)[:: -1 if number % 2 else 1]:
            gc.collect()
            wall, cpu, model = time.perf_counter(), time.process_time(), model_cpu()
            captions[name] = ways[name]()
            used = time.process_time() - cpu
            cost = Cost(time.perf_counter() - wall, used, used - (model_cpu() - model))
            if number:
                costs[name].append(cost)
        bare, job = captions[BARE], captions[JOB]
        assert bare.keys() == job.keys(), f"captions are missing: {bare.keys() ^ job.keys()}"
        alike.append(sum(bare[clip] == job[clip] for clip in bare))
    return costs, min(alike)


def row(name: str, costs: dict[str, list[Cost]], alike: int, clips: int) -> str:
    """Medians of the rounds, and the medians of the rounds' shares."""

    def share(value: Callable[[Cost], float]) -> float:
        pairs = zip(costs[JOB], costs[BARE], strict=True)
        return statistics.median(value(job) / value(bare) for job, bare in pairs)

    def cells(value: Callable[[Cost], float], digits: int) -> str:
        medians = (statistics.median(map(value, costs[way])) for way in (BARE, JOB))
        return "".join(f"{median:>8.{digits}f}" for median in medians) + f"{share(value):>8.2f}"

    rates = cells(lambda cost: 60 * clips / cost.wall, 0)
    outside = cells(lambda cost: 1000 * cost.outside / clips, 1)
    return f"{name:<28}{rates}  {outside}{share(lambda cost: cost.cpu):>10.2f}{f'{alike}/{clips}':>8}"


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backend", choices=("transformers", "vllm"), default="transformers", help="default: %(default)s"
    )
    parser.add_argument("--clips", type=int, default=24, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, after one to warm up (default: %(default)s)")
    parser.add_argument("--tokens", type=int, nargs="*", default=[64, 256], help="of fixed lengths (default: 64 256)")
    chosen = parser.parse_args()
    define_missing_ops()
    print(f"{'':<28}{'files a minute':>24}  {'CPU outside, ms a file':>24}{'all CPU':>10}{'same':>8}")
    print(f"{'':<28}" + 2 * f"{'bare':>8}{'job':>8}{'/ bare':>8}  " + f"{'/ bare':>8}{'words':>8}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for case in cases_of(chosen.tokens, chosen.clips, work):
            with ways_of(chosen.backend, case, work) as (ways, model_cpu):
                costs, alike = measure(ways, model_cpu, chosen.rounds)
            print(row(case.name, costs, alike, len(case.clips)), flush=True)
            # vLLM's sums depend on what else is in flight.
            assert alike == len(case.clips) or not case.exact or chosen.backend == "vllm", "the captions differ"
    print("\naim: within 5 % of the bare loop")


if __name__ == "__main__":
    main()
