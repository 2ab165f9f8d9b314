"""The features of a chat's files, kept for its next turns.

Every turn hands the whole conversation to the processor. Spectrograms and patches of files that were there before
would be most of the wait for the first word once the thinker no longer reads them again.
"""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any

import numpy as np
from PIL import Image

from omni_backend import defaults
from omni_backend.media_cache import Cache
from omni_backend.media_values import digest


def remember_files(processor: Any, *, max_bytes: int = defaults.FEATURE_CACHE_BYTES) -> None:
    """Lets the image, video and sound parts of a Hugging Face processor keep what they made of the latest files."""
    cache = Cache(max_bytes)
    for name in ("image_processor", "video_processor", "feature_extractor"):
        setattr(processor, name, _Remembering(getattr(processor, name), cache))


class _Remembering:
    """Stands in for one part: the same files and settings give the same features. All else is the part's own."""

    def __init__(self, part: Any, cache: Cache) -> None:
        self._part = part
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return deepcopy(self._part, memo)  # Hugging Face copies a processor to print it

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        key = (type(self._part).__name__, _contents(args), _contents(kwargs))
        features = self._cache.get(key, lambda: self._part(*args, **kwargs), _bytes)
        return copy(features)  # the processor takes entries out


def _contents(value: Any) -> object:
    """Equal for equal contents, hashable."""
    if isinstance(value, dict):
        return tuple((key, _contents(entry)) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return tuple(_contents(entry) for entry in value)
    if isinstance(value, Image.Image) or hasattr(value, "__array__"):
        return digest(np.asarray(value))
    return repr(value)


def _bytes(features: Any) -> int:
    return sum(getattr(value, "nbytes", 0) for value in features.values())
