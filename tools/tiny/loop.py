"""One training loop for every stage: steps of several losses, a learning rate that falls, progress, and resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

Report = Callable[[str], None]
Losses = Callable[[int], Iterable[torch.Tensor]]
"""The parts of a step's loss; each is freed before the next is computed."""

_DECAY: Final = 0.02  # of weights, not of biases and norms
_BETAS: Final = (0.9, 0.98)
_CLIP: Final = 1.0
_LEAST_RATE: Final = 0.03  # share of the learning rate at the end
_SMOOTHING: Final = 0.97


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast."""

    steps: int
    rate: float
    """The highest learning rate."""
    warmup: int = 60
    minutes: float = math.inf
    """Ends earlier after so many minutes, the learning rate falling in time. Steps alone can be reproduced."""
    save_every: int = 200
    report_every: int = 25

    def share(self, step: int, seconds: float) -> float:
        """How much of the training is done, 0 to 1."""
        return min(1.0, max(step / self.steps, seconds / 60 / self.minutes))

    def rate_at(self, step: int, seconds: float) -> float:
        """Warmed up, then a cosine."""
        falling = 0.5 * (1 + math.cos(math.pi * self.share(step, seconds)))
        return self.rate * min(1.0, (step + 1) / self.warmup) * (falling * (1 - _LEAST_RATE) + _LEAST_RATE)


class Progress:
    """Where a stage is: kept in a file, so that it can go on where it was interrupted."""

    def __init__(self, file: Path, modules: dict[str, torch.nn.Module]) -> None:
        self._file = file
        self._modules = modules
        self.step = 0
        self.seconds = 0.0

    def load(self, optimizer: torch.optim.Optimizer) -> bool:
        """Goes back to what was saved; False when nothing was."""
        if not self._file.exists():
            return False
        saved: dict[str, Any] = torch.load(self._file, map_location="cpu", weights_only=True)
        self.step, self.seconds = saved["step"], saved["seconds"]
        for name, module in self._modules.items():
            module.load_state_dict(saved["modules"][name])
        optimizer.load_state_dict(saved["optimizer"])
        return True

    def save(self, optimizer: torch.optim.Optimizer) -> None:
        """Writes all that is needed to go on; a crash leaves the file before it."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._file.with_suffix(".tmp")
        modules = {name: module.state_dict() for name, module in self._modules.items()}
        state = {"step": self.step, "seconds": self.seconds, "modules": modules, "optimizer": optimizer.state_dict()}
        torch.save(state, unfinished)
        unfinished.replace(self._file)


def fit(
    modules: dict[str, torch.nn.Module],
    losses: Losses,
    schedule: Schedule,
    file: Path,
    report: Report,
) -> None:
    """Trains the parameters of `modules` that are not frozen.

    `file` keeps the progress; where it exists, training goes on.
    """
    everything = [parameter for module in modules.values() for parameter in module.parameters()]
    parameters = [parameter for parameter in everything if parameter.requires_grad]
    optimizer = _optimizer(parameters, schedule.rate)
    progress = Progress(file, modules)
    if progress.load(optimizer):
        report(f"going on after step {progress.step}")
    smooth: float | None = None
    for step in range(progress.step, schedule.steps):
        began = time.monotonic()
        if schedule.share(step, progress.seconds) >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step, progress.seconds)
        optimizer.zero_grad(set_to_none=True)
        loss = sum(_backward(losses(step)))
        torch.nn.utils.clip_grad_norm_(parameters, _CLIP)
        optimizer.step()
        smooth = loss if smooth is None else _SMOOTHING * smooth + (1 - _SMOOTHING) * loss
        progress.step, progress.seconds = step + 1, progress.seconds + time.monotonic() - began
        if progress.step % schedule.report_every == 0:
            report(f"step {progress.step}  loss {smooth:.4f}  {progress.seconds / 60:.1f} min")
        if progress.step % schedule.save_every == 0:
            progress.save(optimizer)
    progress.save(optimizer)


def _backward(losses: Iterable[torch.Tensor]) -> Iterator[float]:
    for loss in losses:
        loss.backward()
        yield loss.item()


def _optimizer(parameters: Sequence[torch.nn.Parameter], rate: float) -> torch.optim.Optimizer:
    groups = [
        {"params": [each for each in parameters if each.ndim > 1], "weight_decay": _DECAY},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=_BETAS)
