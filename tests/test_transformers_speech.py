"""Streamed speech against stock `generate`: the same tokens, the same codec frames, the same sound."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from omni_backend import AudioDelta, Backend, ChatRequest, MediaPart, Message, SamplingParams, TextPart
from omni_backend.media import MediaLoader
from omni_backend.transformers_answer import Answer
from omni_backend.transformers_backend import TransformersBackend
from omni_backend.transformers_loader import LoadedModel
from omni_backend.transformers_speech import SAMPLE_RATE, WaveDecoder

pytestmark = pytest.mark.engine

EXAMPLES = Path(__file__).parent.parent / "assets" / "examples"
GREEDY = SamplingParams(temperature=0, max_tokens=32)


def picture() -> MediaPart:
    return MediaPart("image", str(EXAMPLES / "square.png"))


def sound() -> MediaPart:
    return MediaPart("audio", str(EXAMPLES / "tone.wav"))


def film() -> MediaPart:
    return MediaPart("video", str(EXAMPLES / "film.mp4"))


CONVERSATIONS: dict[str, tuple[Message, ...]] = {
    "text": (Message("user", (TextPart("Who are you?"),)),),
    "picture and sound": (Message("user", (picture(), sound(), TextPart("What do you see and hear?"))),),
    "sounding film": (Message("user", (film(), TextPart("What do you see and hear?"))),),
    "film beside a sound": (Message("user", (film(), sound(), TextPart("What do you see and hear?"))),),
    "second turn": (
        Message("system", (TextPart("You are a helpful assistant."),)),
        Message("user", (picture(), TextPart("What do you see?"))),
        Message("assistant", (TextPart("A red shape."),)),
        Message("user", (TextPart("What color is the background?"),)),
    ),
}


def loaded_model(backend: Backend) -> LoadedModel:
    return cast(TransformersBackend, backend).loaded


def streamed(
    loaded: LoadedModel, request: ChatRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, list[int], torch.Tensor, NDArray[np.float32]]:
    """Inputs, token ids, codec frames (frames, code groups) and samples of our answer."""
    frames: list[torch.Tensor] = []
    feed = WaveDecoder.feed

    def recording(self: WaveDecoder, frame: torch.Tensor) -> NDArray[np.float32] | None:
        frames.append(frame)
        return feed(self, frame)

    monkeypatch.setattr(WaveDecoder, "feed", recording)
    events: list[Any] = []
    answer = Answer(loaded, request, events.append, threading.Event())
    answer.prepare(MediaLoader())
    answer.run()
    pcm = [event.pcm for event in events if isinstance(event, AudioDelta)]
    return answer.inputs, answer.tokens, torch.cat(frames), np.concatenate(pcm)


def stock(
    loaded: LoadedModel, inputs: Any, *, use_audio_in_video: bool
) -> tuple[list[int], torch.Tensor, NDArray[np.float32]]:
    """Token ids, codec frames and samples of stock `generate` on the same inputs."""
    model = loaded.model
    codes: list[torch.Tensor] = []
    decode: Callable[..., torch.Tensor] = model.code2wav.chunked_decode

    def recording(frames: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        codes.append(frames)
        return decode(frames, **kwargs)

    model.code2wav.chunked_decode = recording
    try:
        sequences, wave = model.generate(
            **inputs,
            speaker=loaded.checkpoint.voices[0],
            use_audio_in_video=use_audio_in_video,
            thinker_max_new_tokens=GREEDY.max_tokens,
            thinker_do_sample=False,
            thinker_eos_token_id=sorted(loaded.eos_token_ids),
            talker_do_sample=False,
            talker_repetition_penalty=1.0,
            talker_max_new_tokens=loaded.checkpoint.talker.max_new_tokens,
        )
    finally:
        del model.code2wav.chunked_decode
    sequences = getattr(sequences, "sequences", sequences)
    return (
        sequences[0, inputs["input_ids"].shape[1] :].tolist(),
        codes[0][0].T,
        wave.reshape(-1).float().numpy(),
    )


@pytest.mark.parametrize("conversation", list(CONVERSATIONS))
def test_streamed_speech_equals_stock(engine: Backend, conversation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = loaded_model(engine)
    request = ChatRequest(CONVERSATIONS[conversation], GREEDY, modalities=frozenset({"text", "audio"}))

    inputs, tokens, frames, wave = streamed(loaded, request, monkeypatch)
    expected_tokens, expected_frames, expected_wave = stock(
        loaded, inputs, use_audio_in_video=conversation == "sounding film"
    )

    assert tokens == expected_tokens
    assert frames.shape == expected_frames.shape
    assert torch.equal(frames, expected_frames)
    assert wave.shape == expected_wave.shape
    # The windows see 25 frames of context; what lies before them is below the resolution of 16 bits.
    assert np.abs(wave - expected_wave).max() < 1 / 32768


def test_windows_join_without_gap_or_repeat(engine: Backend) -> None:
    code2wav = loaded_model(engine).model.code2wav
    generator = torch.Generator().manual_seed(7)
    shape = (1, code2wav.config.num_quantizers, 90)
    codes = torch.randint(0, code2wav.config.codebook_size, shape, generator=generator)
    decoder = WaveDecoder(code2wav)
    with torch.inference_mode():
        whole = code2wav(codes).reshape(-1).numpy()
        pieces = [decoder.feed(codes[..., index]) for index in range(codes.shape[-1])] + [decoder.finish()]
    joined = np.concatenate([piece for piece in pieces if piece is not None])

    assert decoder.frames == 90
    assert sum(piece is not None for piece in pieces) > 3
    assert joined.shape == whole.shape
    assert np.abs(joined - whole).max() < 1 / 32768
    assert abs(joined.size / SAMPLE_RATE - 90 * 0.08) < 0.08
