"""The real vLLM engine: what only it promises. What every engine promises stands in `test_contract_vllm`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from gradio_client import Client

from omni_backend import (
    Backend,
    BackendOptions,
    BackendUnavailable,
    Capabilities,
    ChatRequest,
    ContextTooLong,
    EngineDied,
    MediaPart,
    Phrase,
    ReasoningDelta,
    SamplingParams,
    TextDelta,
    UnsupportedRequest,
    create_backend,
)
from omni_backend.base import ReportProgress
from tests.browser import Visit
from tests.contract import answer, assert_in_order, done, refusal, request, running, text_of, until
from tests.serving import serving
from tests.tiny_checkpoints import TINY_CHECKPOINT
from tests.vllm_engine import CONTEXT, SEQUENCES, llm, start, unfinished, written
from tests.waiting import wait_until
from tools.running_app import running_app

pytestmark = pytest.mark.vllm

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
LONG = 4000


def holds_memory(backend: Backend) -> bool:
    """Whether the engine's process holds KV cache for any request: only an idle one empties its prefix cache."""
    loaded = cast(Any, backend).loaded
    return not loaded.loop.call(loaded.engine.llm.reset_prefix_cache())


def test_it_says_what_it_is(vllm_engine: Backend) -> None:
    can = vllm_engine.capabilities
    assert can.engine.startswith("vLLM ")
    assert can.max_concurrency == SEQUENCES
    assert can.limits.context_tokens == CONTEXT
    assert can.outputs == {"text"}


@pytest.mark.asyncio
async def test_pictures_and_sounds_are_understood(vllm_engine: Backend) -> None:
    files = [MediaPart("image", str(EXAMPLES / "square.png")), MediaPart("audio", str(EXAMPLES / "tone.wav"))]
    events = await answer(vllm_engine, request(*files, "What do you see and hear?"))
    assert text_of(events) == "I see a blue square on a white background. I hear a high tone."
    assert len([event for event in events if isinstance(event, TextDelta)]) > 4


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_the_engine_lets_go_of_what_is_stopped(vllm_never_ending: Backend, how: str) -> None:
    asked = request("Hello!", max_tokens=LONG)
    async with running(vllm_never_ending, asked, 2) as [first, second]:
        await first.begun()
        await second.begun()
        assert holds_memory(vllm_never_ending)
        if how == "cancelled":
            await first.cancelled()
            assert unfinished(vllm_never_ending) == 1
            assert holds_memory(vllm_never_ending)
            await second.cancelled()
    await until(lambda: not holds_memory(vllm_never_ending))
    assert unfinished(vllm_never_ending) == 0


@pytest.mark.browser
def test_a_closed_tab_frees_the_engine(visit: Callable[..., Visit], vllm_never_ending: Backend) -> None:
    with serving(vllm_never_ending) as app:
        page = visit(app.url)
        page.say("Hello!")
        wait_until(lambda: unfinished(vllm_never_ending) == 1, "an answer in the engine")
        page.live.get_by_text("Hello!").first.wait_for()
        page.page.close()
        tokens = [0]

        def idle() -> bool:
            tokens.append(written(vllm_never_ending))
            return unfinished(vllm_never_ending) == 0

        wait_until(idle, "an idle engine")
        assert max(tokens) < CONTEXT * 3 // 4, "the answer ended by itself"


@pytest.mark.asyncio
async def test_too_long_a_conversation(vllm_engine: Backend) -> None:
    with pytest.raises(ContextTooLong, match=str(CONTEXT)):
        await refusal(vllm_engine, request("word " * CONTEXT))
    assert_in_order(await answer(vllm_engine, request("Hello!")))


@pytest.mark.asyncio
async def test_sampling_that_vllm_does_not_take_is_told(vllm_engine: Backend) -> None:
    hot = replace(request("Hello!"), sampling=SamplingParams(temperature=3.0))
    with pytest.raises(UnsupportedRequest, match=r"temperature.*3\.0"):
        await refusal(vllm_engine, hot)


@pytest.mark.asyncio
async def test_many_clips_are_in_flight_on_a_captioner(vllm_captioner: Backend, float32_checkpoint: Path) -> None:
    clip = request(MediaPart("audio", str(EXAMPLES / "word.wav")), max_tokens=400)
    most = 0
    async with running(vllm_captioner, clip, 2 * SEQUENCES) as clips:
        for one in clips:
            while not one.task.done():
                most = max(most, sum(bool(other.events) and not other.task.done() for other in clips))
                await asyncio.sleep(0)
        captions = {text_of(one.events) for one in clips}
    assert most >= SEQUENCES  # the end of one may be read after the beginning of the next
    assert len(captions) == 1
    with pytest.raises(UnsupportedRequest):
        await refusal(vllm_captioner, request(MediaPart("audio", str(EXAMPLES / "word.wav")), "What is this?"))


@pytest.mark.asyncio
async def test_a_thinking_checkpoint_thinks(vllm_thinking: Backend) -> None:
    assert vllm_thinking.capabilities.reasoning
    events = await answer(vllm_thinking, request("Hello!"))
    assert isinstance(events[0], ReasoningDelta)
    assert done(events).usage.completion_tokens == 48


def test_an_unknown_engine_argument_is_named() -> None:
    with pytest.raises(BackendUnavailable, match="no_such_thing"):
        start(TINY_CHECKPOINT, engine_args=(("no_such_thing", "1"),))


def test_what_vllm_refuses_is_told_with_its_reason() -> None:
    with pytest.raises(BackendUnavailable) as caught:
        start(TINY_CHECKPOINT, quantization="nonsense")
    assert "nonsense" in caught.value.detail


def test_loading_tells_its_steps_and_a_dead_engine_is_started_again(float32_checkpoint: Path) -> None:
    steps: list[str] = []

    class Watched(type(create_backend("vllm", BackendOptions("")))):  # type: ignore[misc]
        def _load(self, report: ReportProgress) -> Capabilities:
            def note(step: Phrase, fraction: float | None) -> None:
                steps.append(step.key)
                report(step, fraction)

            return super()._load(note)  # type: ignore[no-any-return]

    backend = Watched(BackendOptions(str(float32_checkpoint), max_num_seqs=SEQUENCES, max_model_len=CONTEXT))
    backend.wait_until_ready()
    try:
        assert steps[:2] == ["vllm.importing", "vllm.starting"]
        assert {"load.weights", "vllm.memory", "vllm.warming"} <= set(steps)
        asyncio.run(_dies_in_mid_answer(backend))
        asyncio.run(_dies_while_idle(backend))
        assert steps.count("vllm.starting") == 3
    finally:
        processes = psutil.Process().children(recursive=True)
        ours = [process for process in processes if process.pid == _engine_process(backend).pid]
        backend.close()
    assert ours
    assert not psutil.wait_procs(ours, timeout=20)[1]


async def _dies_in_mid_answer(backend: Backend) -> None:
    async with running(backend, request("Hello!", max_tokens=LONG), 2) as both:
        for one in both:
            await one.begun()
        _engine_process(backend).kill()
        for one in both:
            with pytest.raises(EngineDied) as caught:
                await one.task
            assert text_of(one.events), "the partial answer is lost"
            assert caught.value.text("zh")
    assert_in_order(await answer(backend, request("Hello!", max_tokens=3)))


async def _dies_while_idle(backend: Backend) -> None:
    _engine_process(backend).kill()
    await until(lambda: llm(backend).errored)
    assert_in_order(await answer(backend, request("Hello!", max_tokens=3)))


def _engine_process(backend: Backend) -> Any:
    [process] = llm(backend).engine_core.resources.engine_manager.processes
    return process


def test_sigterm_in_mid_answer_leaves_no_process(float32_checkpoint: Path) -> None:
    options = ("--backend", "vllm", "-c", str(float32_checkpoint), "--no-generate-audio", "--max-num-seqs", "2")
    with running_app(*options) as url:
        [app] = [process for process in psutil.Process().children() if "app.py" in " ".join(process.cmdline())]
        job = Client(url, verbose=False, httpx_kwargs={"timeout": 120}).submit(
            {"text": "Hello!", "files": []}, False, api_name="/chat"
        )
        assert next(iter(job))
        children = app.children(recursive=True)
        assert children
        app.terminate()
        assert not psutil.wait_procs([app, *children], timeout=20)[1]
        with contextlib.suppress(Exception):
            job.cancel()


def test_sigterm_while_it_starts_leaves_no_process(float32_checkpoint: Path) -> None:
    with running_app("--backend", "vllm", "-c", str(float32_checkpoint), "--no-generate-audio"):
        [app] = [process for process in psutil.Process().children() if "app.py" in " ".join(process.cmdline())]

        def started() -> list[psutil.Process]:
            return [child for child in app.children(recursive=True) if "spawn_main" in " ".join(child.cmdline())]

        wait_until(started, "the engine's process", seconds=120)
        children = app.children(recursive=True)
        app.terminate()
        assert not psutil.wait_procs([app, *children], timeout=20)[1]


@pytest.mark.asyncio
async def test_an_answer_that_nobody_reads_does_not_hold_up_others(vllm_never_ending: Backend) -> None:
    async with aclosing(vllm_never_ending.stream(request("Hello!", max_tokens=LONG))) as idle:
        await anext(idle)
        assert_in_order(await answer(vllm_never_ending, request("Hello!", max_tokens=3)))
    assert unfinished(vllm_never_ending) == 0


@pytest.mark.asyncio
async def test_a_seed_holds_beside_other_answers(vllm_never_ending: Backend) -> None:
    def drawn(seed: int) -> ChatRequest:
        hot = SamplingParams(temperature=2.0, top_p=1.0, top_k=0, max_tokens=12, seed=seed)
        return replace(request("Hello!"), sampling=hot)

    alone = text_of(await answer(vllm_never_ending, drawn(5)))
    together = await asyncio.gather(*(answer(vllm_never_ending, drawn(seed)) for seed in (6, 5, 7)))
    assert text_of(together[1]) == alone
    assert text_of(together[0]) != alone
