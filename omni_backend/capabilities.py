"""What a loaded checkpoint can take, give and bear, with the reason where it cannot."""

from __future__ import annotations

from dataclasses import dataclass, field

from omni_backend import defaults
from omni_backend.catalogue import Phrase
from omni_backend.types import MediaType, OutputModality, SamplingName, SamplingParams


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds of one request. Bytes, seconds, pixels and counts are those of the files as uploaded."""

    context_tokens: int = defaults.CONTEXT_TOKENS
    file_bytes: int = defaults.FILE_BYTES
    image_pixels: int = defaults.IMAGE_PIXELS
    audio_seconds: float = defaults.AUDIO_SECONDS
    video_seconds: float = defaults.VIDEO_SECONDS
    per_message: dict[MediaType, int] = field(default_factory=lambda: dict(defaults.FILES_PER_MESSAGE))


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What one loaded checkpoint can do on one engine. The UI reads this and never an engine's name.

    `missing_inputs`, `missing_outputs` and `missing_sampling` give, for what is absent, the reason to show to people.
    """

    model: str
    """A short name of the checkpoint, for people."""
    engine: str
    """The engine, its attention and its device in one line, for people and logs."""
    inputs: frozenset[MediaType] = frozenset({"image", "audio", "video"})
    outputs: frozenset[OutputModality] = frozenset({"text"})
    missing_inputs: dict[MediaType, Phrase] = field(default_factory=dict)
    missing_outputs: dict[OutputModality, Phrase] = field(default_factory=dict)
    notices: tuple[Phrase, ...] = ()
    """What the user should know about how the checkpoint was loaded (attention fell back, say)."""
    voices: tuple[str, ...] = ()
    """From the checkpoint's own `speaker_id` table; the first is the default."""
    reasoning: bool = False
    """Whether it thinks before it answers."""
    text_prompts: bool = True
    """False for a captioner, which takes one audio and no words."""
    limits: Limits = field(default_factory=Limits)
    audio_window_seconds: float = defaults.AUDIO_WINDOW_SECONDS
    """Into how long stretches a long sound is best cut for it."""
    default_sampling: SamplingParams = field(default_factory=SamplingParams)
    missing_sampling: dict[SamplingName, Phrase] = field(default_factory=dict)
    """What of SamplingParams the engine cannot be told."""
    no_answer_prefix: Phrase | None = None
    """Why answers cannot be begun for the model (`ChatRequest.answer_prefix`); None: they can."""
    max_concurrency: int = 1
    """How many requests are answered at the same time; more than that wait their turn."""
