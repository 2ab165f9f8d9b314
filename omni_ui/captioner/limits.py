"""What the server keeps of caption jobs, how much of it and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SWEEP_SECONDS: Final = 300.0
"""Between two looks for what is due."""
UNSENT_BYTES: Final = 20 * 1024**3
"""Uploads that no job holds yet, but at most a quarter of what the disk has free at the start."""
ROWS: Final = 50
"""Files that the table shows at a time."""
EDIT_CHARS: Final = 20_000
"""The longest caption that a person may write: ten times what a model writes."""
API_FILES: Final = 200
"""Files of one call of the batch endpoint."""


@dataclass(frozen=True, slots=True)
class DeskLimits:
    """How much is kept. Beyond it the job that was left alone longest goes first."""

    jobs: int = 200
    idle_seconds: float = 30 * 86_400.0
    """How long a job is kept that nobody looks at."""
    total_bytes: int = 200 * 1024**3
    """Of all jobs, but at most half of what the disk has free at the start."""
    running: int = 8
    """Jobs that are captioned at the same time; the others wait their turn."""


__all__ = ["API_FILES", "EDIT_CHARS", "ROWS", "SWEEP_SECONDS", "UNSENT_BYTES", "DeskLimits"]
