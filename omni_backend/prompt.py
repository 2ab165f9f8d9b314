"""A request → the chat and the decoded media that every engine on this machine is given.

One place decides what the engines must agree on: the order of media, the frame rate, and how the sound track of
a film is handed over. Either it is interleaved with the frames (`use_audio_in_video`), or it follows the film as a
sound of its own. The switch is one for the whole conversation, because the models' position ids know only one;
interleaving needs every film to have a track and no other sound beside them (docs/decisions/sound-in-video.md).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omni_backend import defaults
from omni_backend.catalogue import phrase
from omni_backend.media import FrameBudget, MediaLoader, Video
from omni_backend.reasoning import strip_reasoning
from omni_backend.types import ChatRequest, MediaPart, Notice, TextPart

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(slots=True, eq=False)
class Prompt:
    """What the chat template and the processor take. The media stand in the order of their placeholders."""

    chat: list[dict[str, Any]] = field(default_factory=list)
    """Messages as the Qwen chat template wants them; media parts carry only their type."""
    images: list[Image] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)
    audios: list[NDArray[np.float32]] = field(default_factory=list)
    """Mono, 16 kHz."""
    audio_from_video: list[int | None] = field(default_factory=list)
    """For each of `audios`: the index of the film whose interleaved track it is, None for a sound of its own."""
    use_audio_in_video: bool = False
    fps: float = defaults.VIDEO_FPS
    """Frames a second of every film in the prompt."""
    answer_prefix: str = ""
    """How the answer begins, to stand behind the chat."""
    notices: list[Notice] = field(default_factory=list)


def build_prompt(
    request: ChatRequest,
    media: MediaLoader,
    budget: FrameBudget,
    *,
    patch_size: int,
    reserved: Collection[str] = (),
) -> Prompt:
    """Decodes the media of the conversation and lays them out. Blocking. Raises BadMedia.

    `reserved`: the tokenizer's special tokens; where somebody writes one it stays ordinary text.
    """
    parts = [part for message in request.messages for part in message.content if isinstance(part, MediaPart)]
    films = [part for part in parts if part.type == "video"]
    fps = frame_rate(max((media.probe(film).duration or 0.0 for film in films), default=0.0), budget)
    silent = {film for film in films if media.video(film, fps=fps, budget=budget).audio is None}
    other_sound = any(part.type == "audio" for part in parts)
    prompt = Prompt(
        use_audio_in_video=request.use_audio_in_video and bool(films) and not silent and not other_sound,
        fps=fps,
        answer_prefix=_plain(request.answer_prefix, reserved),
    )
    for message in request.messages:
        if not any(isinstance(part, MediaPart) for part in message.content):
            said = strip_reasoning(message.text) if message.role == "assistant" else message.text
            prompt.chat.append({"role": message.role, "content": _plain(said, reserved)})
            continue
        content: list[dict[str, Any]] = []
        for part in message.content:
            if isinstance(part, TextPart):
                content.append({"type": "text", "text": _plain(part.text, reserved)})
            else:
                content.extend(_lay_out(part, prompt, media, budget, patch_size, request.use_audio_in_video))
        prompt.chat.append({"role": message.role, "content": content})
    if request.use_audio_in_video:
        last = [part for part in request.messages[-1].content if isinstance(part, MediaPart)]
        prompt.notices.extend(Notice(phrase("prompt.silent_film", name=part.label)) for part in last if part in silent)
    return prompt


def frame_rate(longest: float, budget: FrameBudget) -> float:
    """The highest of 2, 2/2, 2/3 … frames a second at which the longest film (seconds) fits the budget.

    Only these rates give whole position ids in every engine: 13 ids a second, two frames a step.
    """
    frames = min(defaults.VIDEO_MAX_FRAMES, 2 * budget.total_pixels // budget.min_pixels)
    return defaults.VIDEO_FPS / max(1, math.ceil(longest * defaults.VIDEO_FPS / max(frames, 2)))


def _plain(text: str, reserved: Collection[str]) -> str:
    """Breaks special tokens in people's words by a space without width, so that nobody can forge a turn or a file."""
    for token in reserved:
        text = text.replace(token, f"{token[:1]}\u200b{token[1:]}")
    return text


def _lay_out(
    part: MediaPart, prompt: Prompt, media: MediaLoader, budget: FrameBudget, patch_size: int, hear_films: bool
) -> list[dict[str, Any]]:
    """Adds one file to the prompt; returns its placeholders."""
    if part.type == "image":
        prompt.images.append(media.image(part, patch_size))
        return [{"type": "image"}]
    if part.type == "audio":
        prompt.audios.append(media.audio(part))
        prompt.audio_from_video.append(None)
        return [{"type": "audio"}]
    video = media.video(part, fps=prompt.fps, budget=budget)
    prompt.videos.append(video)
    if video.audio is None or not hear_films:
        return [{"type": "video"}]
    prompt.audios.append(video.audio)
    if prompt.use_audio_in_video:
        prompt.audio_from_video.append(len(prompt.videos) - 1)
        return [{"type": "video"}]
    prompt.audio_from_video.append(None)
    return [{"type": "video"}, {"type": "audio"}]
