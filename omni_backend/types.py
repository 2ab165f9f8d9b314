"""Pure values: what is asked of a backend and what it answers. Equality by content, no I/O, no engine.

Names follow OpenAI's and vLLM's requests and events.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from omni_backend.catalogue import Phrase

MediaType = Literal["image", "audio", "video"]
Role = Literal["system", "user", "assistant"]
OutputModality = Literal["text", "audio"]
FinishReason = Literal["stop", "length"]
SamplingName = Literal["temperature", "top_p", "top_k", "max_tokens", "repetition_penalty", "seed"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """Words."""

    text: str


@dataclass(frozen=True, slots=True)
class MediaPart:
    """An image, a sound or a film: a local path, or a `file://`, `data:` or `http(s)://` URL."""

    type: MediaType
    path: str
    name: str = ""
    """What the user calls the file; empty: taken from `path`."""

    @property
    def label(self) -> str:
        """A short name to show to people."""
        if self.name:
            return self.name
        if self.path.startswith("data:"):
            return self.path.removeprefix("data:").split(",", 1)[0].split(";", 1)[0] or "data"
        url = re.match(r"[a-z]+://[^/?#]*([^?#]*)", self.path)
        return PurePosixPath(unquote(url[1]) if url else self.path).name or self.path


Part = TextPart | MediaPart


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of one speaker. The parts keep the order in which the user gave them."""

    role: Role
    content: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All its words, the media left out."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How tokens of the answer's text are drawn; the names and meanings are vLLM's."""

    temperature: float = 0.7
    """0 is greedy."""
    top_p: float = 0.8
    top_k: int = 20
    """0 considers every token."""
    max_tokens: int = 2048
    repetition_penalty: float = 1.0
    seed: int | None = None
    """The same seed on the same machine gives the same answer."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One turn to answer: the whole conversation so far and how to answer it."""

    messages: tuple[Message, ...]
    sampling: SamplingParams | None = None
    """None: the checkpoint's own, `Capabilities.default_sampling`."""
    modalities: frozenset[OutputModality] = frozenset({"text"})
    voice: str | None = None
    """None: the checkpoint's first voice."""
    use_audio_in_video: bool = True
    """Whether the model hears the sound tracks of films; one value for the whole conversation."""
    answer_prefix: str = ""
    """How the answer begins: words that the model continues as if it had written them itself. Not repeated in the
    stream. A checkpoint that thinks first answers without a thought then: its answer has already begun."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written, and codec frames spoken (one frame is 80 ms)."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    audio_frames: int = 0


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds since the request was made; None for what never came."""

    first_text: float | None = None
    last_text: float | None = None
    first_audio: float | None = None
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of what the model thinks before it answers. Never sent back as history."""

    text: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class AudioDelta:
    """More of the spoken answer. `pcm`: float32, mono, shape (samples,), within [-1, 1]."""

    pcm: NDArray[np.float32]
    sample_rate: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that the user should know about how the request was read (a silent film, say)."""

    phrase: Phrase


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of every complete stream, exactly once."""

    finish_reason: FinishReason
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)


StreamEvent = ReasoningDelta | TextDelta | AudioDelta | Notice | Done
