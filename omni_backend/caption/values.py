"""Pure values of captioning. Times are seconds from the beginning of a file."""

from __future__ import annotations

from dataclasses import dataclass

from omni_backend.catalogue import Language
from omni_backend.types import SamplingParams


@dataclass(frozen=True, slots=True)
class CaptionSettings:
    """How captions are wanted; one for all files of a job."""

    language: Language = "en"
    """Of the captions. Chinese is asked for by the beginning of the answer: see `requests.py`."""
    instruction: str = ""
    """What a checkpoint that takes words is told; a captioner takes none."""
    sampling: SamplingParams | None = None
    """None: the checkpoint's own. Sample n of a clip is drawn with `seed` + n."""
    window_seconds: float | None = None
    """The most that the model hears at once, overlap included; None: what it hears well."""
    overlap_seconds: float = 0.0
    """How much of the window before each window is heard again."""
    samples: int = 1
    """How many captions are made of each window, to choose from."""


@dataclass(frozen=True, slots=True)
class Segment:
    """The stretch between two cuts and what was written about it."""

    index: int
    start: float
    end: float
    captions: tuple[str, ...]
    """One for each sample, in their order."""
    chosen: int = 0
    """Which of the captions is used."""
    edited: str | None = None
    """What a person wrote instead; None: nothing."""
    cut_short: bool = False
    """Whether the used caption reached its length limit."""

    @property
    def text(self) -> str:
        """The caption that counts."""
        return self.captions[self.chosen] if self.edited is None else self.edited


@dataclass(frozen=True, slots=True)
class CaptionedFile:
    """One file with its captions, ready to be exported."""

    name: str
    """As people know it, with the folders it came in: "rain/roof.wav". Never absolute, never with "..". Unique."""
    seconds: float
    segments: tuple[Segment, ...]
