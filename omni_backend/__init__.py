"""Qwen3-Omni behind one interface: `stream(ChatRequest)` → events, whatever the engine.

Importing this package loads no engine: torch, transformers and the like come in with `Backend.start()`.
"""

from omni_backend.base import Backend, Failed, Loading, Ready, Status
from omni_backend.capabilities import Capabilities, Limits
from omni_backend.catalogue import DEFAULT_LANGUAGE, LANGUAGES, Language, Phrase, phrase, sentences
from omni_backend.errors import (
    BackendError,
    BackendUnavailable,
    BadMedia,
    ContextTooLong,
    EngineDied,
    GenerationFailed,
    OutOfMemory,
    UnsupportedRequest,
)
from omni_backend.registry import BACKENDS, BackendOptions, BackendSpec, create_backend
from omni_backend.scripted import ScriptedBackend
from omni_backend.types import (
    AudioDelta,
    ChatRequest,
    Done,
    FinishReason,
    MediaPart,
    MediaType,
    Message,
    Notice,
    OutputModality,
    Part,
    ReasoningDelta,
    Role,
    SamplingName,
    SamplingParams,
    StreamEvent,
    TextDelta,
    TextPart,
    Timing,
    Usage,
)

__all__ = [
    "BACKENDS",
    "DEFAULT_LANGUAGE",
    "LANGUAGES",
    "AudioDelta",
    "Backend",
    "BackendError",
    "BackendOptions",
    "BackendSpec",
    "BackendUnavailable",
    "BadMedia",
    "Capabilities",
    "ChatRequest",
    "ContextTooLong",
    "Done",
    "EngineDied",
    "Failed",
    "FinishReason",
    "GenerationFailed",
    "Language",
    "Limits",
    "Loading",
    "MediaPart",
    "MediaType",
    "Message",
    "Notice",
    "OutOfMemory",
    "OutputModality",
    "Part",
    "Phrase",
    "Ready",
    "ReasoningDelta",
    "Role",
    "SamplingName",
    "SamplingParams",
    "ScriptedBackend",
    "Status",
    "StreamEvent",
    "TextDelta",
    "TextPart",
    "Timing",
    "UnsupportedRequest",
    "Usage",
    "create_backend",
    "phrase",
    "sentences",
]
