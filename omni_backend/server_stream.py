"""Streamed chunks of a chat completion → events: a pure state machine that knows all shapes servers send.

Text: `delta.content`. Thoughts: `delta.reasoning` or `delta.reasoning_content`, or `<think>` in the text.
Sound, base64 of WAV or pcm16, wherever it stands:
- in `delta.content`, when the chunk says `modality: "audio"` or the choice has `audio_metadata` (vLLM-Omni);
- in `delta.audio` or `message.audio`, a text or an object with `data` (OpenAI, DashScope, whole answers);
- in a second choice (older vLLM-Omni).
What it does not know it leaves alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from omni_backend import defaults
from omni_backend.catalogue import phrase
from omni_backend.errors import GenerationFailed
from omni_backend.reasoning import ReasoningSplitter
from omni_backend.server_sound import SoundStream
from omni_backend.types import (
    AudioDelta,
    Done,
    FinishReason,
    Notice,
    ReasoningDelta,
    StreamEvent,
    Usage,
)

_BROKEN: Final = frozenset({"abort", "error"})  # ends that are no ends, by vLLM's and SGLang's names


class ChunkReader:
    """Feed the chunks of one answer as dicts, get events back; `finish` gives the Done.

    `spoken`: whether sound was asked for; else it is dropped. `starts_inside`: whether the text begins in
    mid-thought (the chat template wrote `<think>`). `answer_begun`: whether its first words were given.
    """

    def __init__(self, *, spoken: bool, starts_inside: bool = False, answer_begun: bool = False) -> None:
        self._spoken = spoken
        self._splitter = ReasoningSplitter(starts_inside=starts_inside, answer_begun=answer_begun)
        self._sound = SoundStream()
        self._seconds = 0.0
        self._deltas = 0
        self._writes = False  # whether words come as text; else the transcript of the sound is read
        self._prompt_tokens = 0
        self._completion_tokens: int | None = None
        self._reason: str | None = None

    def feed(self, chunk: Mapping[str, Any]) -> list[StreamEvent]:
        """The events of one chunk; often none. Raises GenerationFailed for an error that the server sends."""
        error = chunk.get("error")
        if error or chunk.get("object") == "error":
            said = error if error is not None else chunk.get("message")
            raise GenerationFailed(phrase("server.failed"), detail=str(said))
        self._count(chunk.get("usage"))
        events: list[StreamEvent] = []
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, Mapping):
                events.extend(self._choice(choice, chunk.get("modality")))
        return events

    def finish(self) -> list[StreamEvent]:
        """What was held back, then the Done. Raises GenerationFailed when the server gave no end."""
        events: list[StreamEvent] = [*self._splitter.finish()]
        if self._reason is None or self._reason in _BROKEN:
            raise GenerationFailed(phrase("server.broke_off"), detail=f"finish_reason {self._reason}")
        if self._reason == "content_filter":
            events.append(Notice(phrase("server.filtered")))
        written = self._deltas if self._completion_tokens is None else self._completion_tokens
        frames = max(1, round(self._seconds / defaults.FRAME_SECONDS)) if self._seconds else 0
        reason: FinishReason = "length" if self._reason == "length" else "stop"
        return [*events, Done(reason, Usage(self._prompt_tokens, written, frames))]

    def _choice(self, choice: Mapping[str, Any], modality: object) -> list[StreamEvent]:
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason and self._reason != "length":
            self._reason = reason  # of several, for text and for sound, the one that says that something is missing
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            delta = choice.get("message")
        if not isinstance(delta, Mapping):
            return []
        content, audio = delta.get("content"), delta.get("audio")
        if isinstance(content, str) and ("audio" in (modality, choice.get("modality")) or choice.get("audio_metadata")):
            return self._hear(content, choice.get("audio_metadata"))
        events = self._think(delta.get("reasoning") or delta.get("reasoning_content"))
        words = _words(content)
        if words:
            self._writes = True
        if isinstance(audio, Mapping):
            said = audio.get("transcript")
            if isinstance(said, str) and not self._writes:
                words = said
            return [*events, *self._read(words), *self._hear(audio.get("data"), audio)]
        return [*events, *self._read(words), *self._hear(audio, None)]

    def _think(self, thought: object) -> list[StreamEvent]:
        if not isinstance(thought, str):
            return []
        if not self._deltas:
            self._splitter = ReasoningSplitter()  # the server takes thoughts and answer apart by itself
        self._deltas += 1
        return [ReasoningDelta(thought)]

    def _read(self, words: str) -> list[StreamEvent]:
        if not words:
            return []
        self._deltas += 1
        return [*self._splitter.feed(words)]

    def _hear(self, data: object, about: object) -> list[StreamEvent]:
        if not self._spoken or not isinstance(data, str) or not data:
            return []
        rate = about.get("sample_rate") if isinstance(about, Mapping) else None
        deltas: list[AudioDelta] = self._sound.feed(data, rate if isinstance(rate, int) else None)
        self._seconds += sum(delta.pcm.size / delta.sample_rate for delta in deltas)
        return [*deltas]

    def _count(self, usage: object) -> None:
        if not isinstance(usage, Mapping):
            return
        read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
        self._prompt_tokens = read if isinstance(read, int) else self._prompt_tokens
        self._completion_tokens = written if isinstance(written, int) else self._completion_tokens


def _words(content: object) -> str:
    """Text that comes plain or as a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))
