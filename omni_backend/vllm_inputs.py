"""A prompt → what vLLM takes. Its processor must be told everything that the Transformers engine is told."""

from __future__ import annotations

from typing import Any

import numpy as np

from omni_backend import defaults
from omni_backend.media import Video
from omni_backend.media_values import digest
from omni_backend.prompt import Prompt
from omni_backend.vllm_engine import EngineInputs


def engine_inputs(prompt: Prompt, text: str) -> EngineInputs:
    """`text`: the prompt as the chat template renders it, one placeholder for each medium."""
    media: dict[str, Any] = {}  # in the order in which vLLM's cache forgets: sounds before their films
    kwargs: dict[str, Any] = {}
    if prompt.images:
        media["image"] = prompt.images
    if prompt.audios:
        media["audio"] = [(audio, defaults.SAMPLE_RATE_IN) for audio in prompt.audios]
    if prompt.videos:
        media["video"] = [_film(video, prompt.fps) for video in prompt.videos]
        kwargs = mm_processor_kwargs(prompt.use_audio_in_video, prompt.fps)
    # vLLM keeps pictures and sounds each by itself, and fails on a film of which it has kept the sound alone.
    names = [_name(video) for video in prompt.videos] if prompt.use_audio_in_video else []
    return EngineInputs(text, media, kwargs, {"video": names, "audio": names} if names else {})


def mm_processor_kwargs(use_audio_in_video: bool, fps: float) -> dict[str, Any]:
    """What vLLM's processor must be told of films that come sampled at `fps` frames a second and resized.

    It assumes one frame a second unless told. Images are left to it, as in Transformers.
    """
    return {
        "use_audio_in_video": use_audio_in_video,
        "videos_kwargs": {"fps": fps, "do_resize": False, "do_sample_frames": False},
    }


def _name(video: Video) -> str:
    """The same for the same pictures with the same sound."""
    parts = (video.frames,) if video.audio is None else (video.frames, video.audio)
    return "-".join(digest(part).hex() for part in parts)


def _film(video: Video, fps: float) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """Frames of shape (T, height, width, 3) and the metadata that keeps vLLM from choosing among them."""
    count = len(video.frames)
    metadata = {
        "fps": fps,
        "duration": count / fps,
        "total_num_frames": count,
        "frames_indices": list(range(count)),
        "do_sample_frames": False,
        "video_backend": "pyav",
    }
    return np.ascontiguousarray(video.frames.transpose(0, 2, 3, 1)), metadata
