"""What the media module hands out, and how it says what is wrong with a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omni_backend.catalogue import phrase
from omni_backend.errors import BadMedia
from omni_backend.types import MediaType


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What a look at a file says, without decoding it."""

    type: MediaType
    """By content, not by name."""
    duration: float | None
    """Seconds; None for images."""
    has_audio: bool
    """A film with a sound track; True for sounds."""
    size: tuple[int, int] | None
    """Width and height in pixels, upright; None for sounds."""


@dataclass(frozen=True, slots=True)
class FrameBudget:
    """How large the frames of a film may be for one checkpoint, in pixels."""

    factor: int
    """Sides are multiples of it: patch size × merge size (32 for Qwen3-Omni)."""
    min_pixels: int
    max_pixels: int
    total_pixels: int
    """Bound on frames / 2 × pixels of a whole film, like `total_pixels` of qwen-omni-utils."""


@dataclass(frozen=True, slots=True, eq=False)
class Video:
    """A decoded film. The arrays are read-only and shared."""

    frames: NDArray[np.uint8]
    """Shape (T, 3, height, width), RGB, T even, already resized."""
    fps: float
    """The rate of `frames`: frame k is what the film shows at k / fps seconds."""
    audio: NDArray[np.float32] | None
    """Mono, 16 kHz, from the film's start, zero-padded to a multiple of 160 samples; None for a silent film."""
    duration: float
    """Seconds, of the longer of picture and sound."""


def digest(array: NDArray[Any]) -> bytes:
    """What tells arrays of different contents, shape or type apart; 32 bytes."""
    contents = hashlib.sha256(f"{array.shape} {array.dtype}".encode())
    contents.update(np.ascontiguousarray(array).data)
    return contents.digest()


def bad_media(key: str, name: str, *, detail: str = "", **values: str | int | float) -> BadMedia:
    """The error that says `media.<key>` of the catalogue about the file `name`."""
    return BadMedia(phrase(f"media.{key}", name=name, **values), detail=detail)


def bytes_text(count: int) -> str:
    """A number of bytes for people, in any language."""
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.4g} {unit}"
    return f"{count} B"


def seconds_text(seconds: float) -> str:
    """A length of time for people, in any language."""
    if seconds < 120:
        return f"{seconds:.4g} s"
    if seconds < 7200:
        return f"{seconds / 60:.4g} min"
    return f"{seconds / 3600:.4g} h"
