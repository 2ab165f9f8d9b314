"""An engine that dies is noticed, said, and started again by the base class."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from omni_backend import BackendUnavailable, Capabilities, EngineDied, ScriptedBackend, TextDelta, phrase
from omni_backend.base import ReportProgress
from omni_backend.scripted import Step
from tests.contract import answer, request, running, text_of

HELLO = request("Hello!")


class Mortal(ScriptedBackend):
    """Dies when told to, and counts how often it was loaded and cleared away."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        super().__init__(*scripts)
        self.loads = self.unloads = 0
        self.alive = True

    def _load(self, report: ReportProgress) -> Capabilities:
        self.loads += 1
        self.alive = True
        return super()._load(report)

    def _unload(self) -> None:
        self.unloads += 1

    def _alive(self) -> bool:
        return self.alive


@pytest.mark.asyncio
async def test_an_engine_that_dies_with_its_answers_is_loaded_once_more() -> None:
    death: tuple[Step, ...] = (TextDelta("Half"), 0.02, EngineDied(phrase("backend.died")))
    backend = Mortal(death, death)
    backend.wait_until_ready()
    async with running(backend, HELLO, 2) as both:
        for one in both:
            with pytest.raises(EngineDied):
                await one.task
            assert text_of(one.events) == "Half"
    assert text_of(await answer(backend, HELLO)) == "ok"
    assert (backend.loads, backend.unloads) == (2, 1)
    backend.close()
    assert backend.unloads == 2


@pytest.mark.asyncio
async def test_an_engine_that_died_while_idle_costs_no_answer() -> None:
    backend = Mortal()
    backend.wait_until_ready()
    backend.alive = False
    assert text_of(await answer(backend, HELLO)) == "ok"
    assert backend.loads == 2
    backend.close()


@pytest.mark.asyncio
async def test_a_closed_engine_is_not_started_again() -> None:
    backend = Mortal((TextDelta("Half"), EngineDied(phrase("backend.died"))))
    backend.wait_until_ready()
    await asyncio.to_thread(backend.close)
    backend.alive = False
    with pytest.raises(BackendUnavailable):
        await answer(backend, HELLO)
    assert backend.loads == 1
