"""Answers with a pool of kept prompts beside answers without one, and what the tests of both say and show."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from omni_backend import ChatRequest, MediaPart, Message, SamplingParams, StreamEvent, TextDelta, TextPart
from omni_backend.media import MediaLoader
from omni_backend.transformers_answer import Answer
from omni_backend.transformers_loader import LoadedModel
from omni_backend.transformers_prefix import PrefixPool
from omni_backend.transformers_speech import WaveDecoder

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
GREEDY = SamplingParams(temperature=0, max_tokens=32)
SYSTEM = Message(
    "system", (TextPart("You are a helpful assistant who looks and listens closely to what people send."),)
)


def picture(name: str = "square.png") -> MediaPart:
    return MediaPart("image", str(EXAMPLES / name))


def sound(name: str = "tone.wav") -> MediaPart:
    return MediaPart("audio", str(EXAMPLES / name))


def film() -> MediaPart:
    return MediaPart("video", str(EXAMPLES / "film.mp4"))


def said(*parts: str | MediaPart) -> Message:
    return Message("user", tuple(TextPart(part) if isinstance(part, str) else part for part in parts))


@dataclass(frozen=True)
class Told:
    """One answer: `ids` of the prompt, `tokens` of the answer and how many ids were not read again."""

    ids: list[int]
    tokens: list[int]
    text: str
    reused: int
    frames: torch.Tensor | None = None


class Bench:
    """Answers through `Answer`, with a pool of its own and without any."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.pool = self.new_pool()
        self.media = MediaLoader()

    def new_pool(self, **limits: int) -> PrefixPool:
        return PrefixPool(self.loaded.model.thinker.config.text_config, **limits)

    def tell(
        self,
        messages: Sequence[Message],
        *,
        pool: PrefixPool | None,
        stop_after: int | None = None,
        **changes: Any,
    ) -> Told:
        """The answer to `messages`; the user stops it after `stop_after` deltas."""
        request = replace(ChatRequest(tuple(messages), GREEDY), **changes)
        cancelled = threading.Event()
        deltas: list[str] = []

        def emit(event: StreamEvent) -> None:
            if isinstance(event, TextDelta):
                deltas.append(event.text)
                if len(deltas) == stop_after:
                    cancelled.set()

        answer = Answer(self.loaded, request, emit, cancelled, pool)
        answer.prepare(self.media)
        before = pool.reused if pool else 0
        with recorded_frames() as frames:
            answer.run()
        return Told(
            ids=answer.inputs["input_ids"][0].tolist(),
            tokens=answer.tokens,
            text="".join(deltas),
            reused=(pool.reused if pool else 0) - before,
            frames=torch.cat(frames) if frames else None,
        )

    def check(self, messages: Sequence[Message], **changes: Any) -> Told:
        """The answer with the pool, which must be the one without."""
        told = self.tell(messages, pool=self.pool, **changes)
        whole = self.tell(messages, pool=None, **changes)
        assert told.tokens == whole.tokens
        assert told.ids == whole.ids
        if whole.frames is not None:
            assert told.frames is not None
            assert torch.equal(told.frames, whole.frames)
        return told

    def chat(self, *turns: Message, start: Sequence[Message] = (), **changes: Any) -> list[Told]:
        """A conversation in which every answer becomes history."""
        history, answers = list(start), []
        for turn in turns:
            history.append(turn)
            answers.append(self.check(history, **changes))
            history.append(Message("assistant", (TextPart(answers[-1].text),)))
        return answers


@contextmanager
def recorded_frames() -> Iterator[list[torch.Tensor]]:
    """The codec frames that are spoken meanwhile."""
    frames: list[torch.Tensor] = []
    feed = WaveDecoder.feed

    def recording(self: WaveDecoder, frame: torch.Tensor) -> Any:
        frames.append(frame)
        return feed(self, frame)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WaveDecoder, "feed", recording)
        yield frames
