"""What is known of a server after it was asked. Pure values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from omni_backend import defaults
from omni_backend.catalogue import Phrase
from omni_backend.checkpoint import CheckpointKind
from omni_backend.types import MediaType

SoundForm = Literal["input_audio", "input_audio url", "audio_url"]
"""How a recording is handed over: OpenAI's `input_audio` with bare base64, the same with a data URL (DashScope), or
`audio_url` (vLLM, SGLang)."""

PrefixForm = Literal["continue_final_message", "partial"]
"""How an answer is begun: by a last message of the assistant and vLLM's arguments, which SGLang knows and llama.cpp
knows or does not need, or by a mark on that message (DashScope)."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What `GET /models` said of the chosen model."""

    url: str
    """Of the API, with its version: http://127.0.0.1:8000/v1"""
    model: str
    """The name that requests give."""
    owner: str = ""
    """Who serves it: "vllm", "sglang", "llamacpp", …"""
    root: Path | None = None
    """The folder it was loaded from, where this machine has it."""
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class SpeechForm:
    """How speech is asked for, and which voices there are."""

    voices: tuple[str, ...]
    format: Literal["pcm16", "wav"] = "pcm16"
    top_level_voice: bool = True
    """vLLM-Omni reads the voice there, the others in `audio`."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server can do, and in which words it wants to be asked."""

    listing: Listing
    engine: str
    """For people: "vLLM 0.32.0"."""
    kind: CheckpointKind = "instruct"
    context_tokens: int = defaults.CONTEXT_TOKENS
    inputs: frozenset[MediaType] = frozenset({"image", "audio", "video"})
    missing_inputs: dict[MediaType, Phrase] = field(default_factory=dict)
    more_sampling: bool = True
    """Whether it knows `top_k` and `repetition_penalty`, which are not OpenAI's."""
    streams_usage: bool = True
    """Whether it knows `stream_options`."""
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    sound_form: SoundForm = "input_audio"
    exact_sound: bool = False
    """Whether recordings may be WAV files of floats, which hold exactly what local engines are given."""
    media_arguments: bool = False
    """Whether a request may say how media are read: frames as they come, their rate, the sound of films among them."""
    file_urls: bool = False
    """Whether it reads files of this machine."""
    speech: SpeechForm | None = None
    no_speech: Phrase | None = None
    """Why there is no speech."""
    prefix_form: PrefixForm | None = None
    """None: answers cannot be begun."""
    starts_inside: bool = False
    """Whether answers begin in mid-thought, the `<think>` being part of the prompt."""
    reasons: bool = False
    """Whether it was seen to think before it answers."""
