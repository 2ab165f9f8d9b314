"""Captioning over vLLM: as many windows in flight as it answers at a time; Chinese through the beginning of answers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from omni_backend import Backend, SamplingParams
from omni_backend.caption import CaptionSettings
from omni_backend.caption.collect import Found
from omni_backend.caption.job import CaptionJob
from omni_backend.caption.requests import CHINESE_PREFIX
from omni_backend.caption.store import JobStore
from tests import vllm_engine as engines
from tests.tiny_checkpoints import TINY_CHECKPOINT

pytestmark = pytest.mark.vllm

EXAMPLES = TINY_CHECKPOINT.parent / "examples"


def job_of(folder: Path, backend: Backend, files: list[Path], settings: CaptionSettings) -> CaptionJob:
    store = JobStore.create(folder, settings)
    store.add(Found(f"{number}-{file.name}", file) for number, file in enumerate(files))
    return CaptionJob(store, backend)


def captions(job: CaptionJob) -> list[str]:
    return [segment.text for item in job.store.items() for segment in job.store.segments(item.id)]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.asyncio
async def test_examples_are_captioned_rightly(vllm_engine: Backend, tmp_path: Path, language: str) -> None:
    listed = json.loads((EXAMPLES / "captions.json").read_text(encoding="utf-8"))
    files = [EXAMPLES / name for entry in listed for name in entry["files"]]
    job = job_of(tmp_path, vllm_engine, files, CaptionSettings(language="zh" if language == "zh" else "en"))
    await job.run()
    assert job.problem is None
    assert captions(job) == [caption for entry in listed for caption in entry["answer"][language]]


@pytest.mark.asyncio
async def test_as_many_windows_as_it_answers_are_in_flight(vllm_never_ending: Backend, tmp_path: Path) -> None:
    limited = CaptionSettings(sampling=SamplingParams(temperature=0.0, max_tokens=48))
    job = job_of(tmp_path, vllm_never_ending, [EXAMPLES / "tone.wav"] * 12, limited)
    running = asyncio.create_task(job.run())
    most = 0
    while not running.done():
        most = max(most, engines.unfinished(vllm_never_ending))
        await asyncio.sleep(0.002)
    await running
    assert job.store.counts.done == 12
    assert engines.SEQUENCES <= most <= engines.SEQUENCES + 1


@pytest.mark.asyncio
async def test_chinese_captions_go_on_from_the_prefix(vllm_captioner: Backend, tmp_path: Path) -> None:
    sampling = SamplingParams(temperature=0.0, max_tokens=12)
    texts = {}
    for language in ("en", "zh"):
        settings = CaptionSettings(language="zh" if language == "zh" else "en", sampling=sampling)
        job = job_of(tmp_path / language, vllm_captioner, [EXAMPLES / "tone.wav"], settings)
        await job.run()
        [texts[language]] = captions(job)
    assert texts["zh"].startswith(CHINESE_PREFIX)
    assert texts["zh"].removeprefix(CHINESE_PREFIX) != texts["en"], "the model did not read the prefix"
