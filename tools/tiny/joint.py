"""The thinker as a whole: encoders and text layers learn to answer lessons, fresh ones at every step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch

from tools.tiny.ahead import ahead
from tools.tiny.inputs import IGNORED, Example, Tensors, collate, example
from tools.tiny.lessons import TASKS, random_lesson
from tools.tiny.loop import Losses, Schedule, fit
from tools.tiny.run import Run
from tools.tiny.students import ENCODERS, encoder

Batch = tuple[Tensors, torch.Tensor, bool]
"""Inputs, labels (batch, tokens) and `use_audio_in_video`."""

BATCH_TOKENS: Final = 2048
"""Padded tokens that are read at once; it bounds memory, and changes no result but for rounding."""


LESSONS: Final = 32
"""Of a step."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """Some tasks come up more often at first, since they are learned soon where little else is, and late otherwise."""

    steps: int
    """At most; of fewer steps in all (`--steps`, `--scale`) a quarter. `--minutes` does not shorten it."""
    weights: Mapping[str, float]


NAMES_FIRST: Final = Beginning(600, {"shape": 14.0, "one thing": 10.0, "box": 0.0})
"""What things are called."""
TIME_FIRST: Final = Beginning(400, {"timed sound": 120.0, "turning film": 60.0, "sounding film": 15.0, "film": 8.0})
"""What is seen at the time of a sound."""


@dataclass(frozen=True, slots=True)
class JointPlan:
    """What is learned and how much at a time."""

    schedule: Schedule
    lessons: int = LESSONS
    """In a step."""
    weights: Mapping[str, float] = field(default_factory=lambda: {name: task.weight for name, task in TASKS.items()})
    """How often each task comes up."""
    first: Beginning | None = None
    keep_words: bool = False
    """Whether the token embeddings stay as they are, so that a talker that was trained on them still knows them."""
    encoders: bool = False
    """Whether the encoders learn, too: in the stage `refine`, at a lower rate. Earlier they lose what they learned
    alone before the text layers can read it."""
    batch_tokens: int = BATCH_TOKENS

    @property
    def stage(self) -> str:
        """Its name."""
        return "refine" if self.encoders else "joint"


def step_batches(run: Run, plan: JointPlan, step: int) -> list[Batch]:
    """What is learned at a step: a pure function of the run's seed and the step."""
    weights = dict(plan.weights)
    if plan.first and step < min(plan.first.steps, plan.schedule.steps // 4):
        weights |= plan.first.weights
    examples = []
    for index in range(plan.lessons):
        rng = random.Random(f"{plan.stage}/{run.seed}/{step}/{index}")
        lesson = random_lesson(rng, run.say, weights)
        examples.append(example(lesson, run.processing, rng))
    return batches(examples, run.processing.processor.tokenizer.pad_token_id, plan.batch_tokens)


def batches(examples: list[Example], padding: int, tokens: int) -> list[Batch]:
    """Examples of similar length together, at most `tokens` padded tokens at once (one example at least)."""
    made: list[Batch] = []
    for hears_films in (False, True):
        group: list[Example] = []
        for each in sorted((e for e in examples if e.hears_films == hears_films), key=lambda e: e.tokens):
            if group and (len(group) + 1) * each.tokens > tokens:
                made.append((*collate(group, padding), hears_films))
                group = []
            group.append(each)
        if group:
            made.append((*collate(group, padding), hears_films))
    return made


def train_joint(run: Run, plan: JointPlan) -> None:
    """Trains the thinker of the run's model."""
    thinker = run.model.thinker.to(run.device).train()
    thinker.get_input_embeddings().requires_grad_(not plan.keep_words)
    for name in ENCODERS:
        encoder(run.model, name).requires_grad_(plan.encoders)
    made = ahead(partial(step_batches, run, plan), plan.schedule.steps, run.workers)
    losses = answer_losses(thinker, made, run.device)
    fit({"thinker": thinker}, losses, plan.schedule, run.folder / f"{plan.stage}.pt", run.report)
    thinker.requires_grad_(True).eval()


def answer_losses(thinker: Any, batches_of: Callable[[int], list[Batch]], device: torch.device) -> Losses:
    """The cross entropy of the answers' tokens, a mean over the step, in parts."""

    def losses(step: int) -> Iterator[torch.Tensor]:
        step_parts = batches_of(step)
        count = sum(int((labels[:, 1:] != IGNORED).sum()) for _, labels, _ in step_parts)
        for inputs, labels, hears_films in step_parts:
            wanted = labels[:, 1:].to(device)
            learned = wanted != IGNORED
            moved = {key: value.to(device) for key, value in inputs.items()}
            logits = _logits(thinker, moved, learned, hears_films)
            yield torch.nn.functional.cross_entropy(logits.float(), wanted[learned], reduction="sum") / count

    return losses


def _logits(thinker: Any, inputs: Tensors, learned: torch.Tensor, hears_films: bool) -> torch.Tensor:
    """(tokens, vocabulary) where `learned` (batch, positions but the last) says so; the others are not computed."""
    head = thinker.lm_head.register_forward_pre_hook(lambda _, args: (args[0][:, :-1][learned],))
    try:
        logits: torch.Tensor = thinker(**inputs, use_audio_in_video=hears_films, use_cache=False).logits
    finally:
        head.remove()
    return logits
