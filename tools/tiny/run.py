"""What every stage of a training is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from omni_backend.processor import Processing
from tools.tiny.loop import Report
from tools.tiny.sounds import Say


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One training. The stages change `model` in place."""

    model: Any
    """A Qwen3OmniMoeForConditionalGeneration in float32."""
    processing: Processing
    say: Say
    folder: Path
    """Keeps the progress of each stage."""
    device: torch.device
    report: Report
    seed: int = 0
    workers: int = 0
    """Processes that make lessons; 0: the training's own does."""
