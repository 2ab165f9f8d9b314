"""Keys and values of earlier prompts, kept so that the next turn of a chat reads only what is new.

A token's keys and values depend on the tokens up to it, on their position ids and on the contents of the files that
stand among them. `Reading` holds these three; as far as two readings agree, one may go on from the other's cache.
The files of that part are neither encoded nor read again.

In float32 the answers are those of a whole prefill (a test holds that). In bfloat16 a prefill in two parts rounds
differently in the last bits, as it does in every engine with a prefix cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any, Final

import numpy as np
import torch
from transformers import BatchFeature, DynamicCache
from transformers.cache_utils import DynamicLayer

from omni_backend import defaults
from omni_backend.media_values import digest
from omni_backend.prompt import Prompt
from omni_backend.types import MediaType

_PATCHES: Final[tuple[tuple[MediaType, str, str], ...]] = (
    ("image", "pixel_values", "image_grid_thw"),
    ("video", "pixel_values_videos", "video_grid_thw"),
)
"""Inputs with one row for each patch, and those with the number of patches: time, height and width of each file."""
_ROWS: Final[tuple[tuple[MediaType, str], ...]] = (
    ("video", "video_second_per_grid"),
    ("audio", "input_features"),
    ("audio", "feature_attention_mask"),
)
"""Inputs with one row for each file."""

_ANSWER_HEAD: Final = 8
"""Tokens at the end of a prompt that open the answer (`<|im_start|>assistant\n<think>\n`); history may say less."""
_LEAST_SHARE: Final = 0.25
"""Of a prompt. Behind a prefix, attention needs a mask and skips nothing, which a few tokens less do not pay for."""


@dataclass(frozen=True, slots=True)
class FileSpan:
    """Where the placeholders of a file stand; a film and its interleaved sound track share one span."""

    start: int
    stop: int
    files: tuple[tuple[MediaType, bytes], ...]
    """Type and digest of the contents."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What the thinker reads, on the CPU."""

    ids: torch.Tensor
    """Token ids, (tokens,)."""
    positions: torch.Tensor
    """Position ids as `thinker.generate` takes them: text, time, height and width; (4, 1, tokens)."""
    spans: tuple[FileSpan, ...]

    def __len__(self) -> int:
        return self.ids.shape[0]

    def common(self, other: Reading) -> int:
        """How many leading tokens are the same in both; never a part of a file."""
        length = min(len(self), len(other))
        same = self.ids[:length] == other.ids[:length]
        same &= (self.positions[:, 0, :length] == other.positions[:, 0, :length]).all(dim=0)
        cut = int(same.long().cumprod(0).sum())
        for mine, theirs in zip_longest(self.spans, other.spans):
            if mine != theirs:
                return min(cut, *(span.start for span in (mine, theirs) if span is not None))
        return cut

    def extended(self, tokens: list[int], length: int) -> Reading:
        """With the answer's `tokens` behind it, one position each; its first `length` tokens."""
        steps = torch.arange(1, len(tokens) + 1)
        return replace(
            self,
            ids=torch.cat([self.ids, torch.tensor(tokens, dtype=self.ids.dtype)])[:length],
            positions=torch.cat([self.positions, self.positions[..., -1:] + steps], dim=-1)[..., :length],
        )

    def file_tokens(self, start: int, stop: int | None = None) -> torch.Tensor:
        """Which of the tokens from `start` to `stop` stand for files. bool (tokens,)."""
        mask = torch.zeros(len(self), dtype=torch.bool)
        for span in self.spans:
            mask[span.start : span.stop] = True
        return mask[start:stop]


def read_prompt(thinker: Any, prompt: Prompt, inputs: Any) -> Reading:
    """The reading of what the processor made of `prompt`; `inputs`: its BatchFeature, batch 1, on the CPU."""
    ids = inputs["input_ids"]
    sounds = inputs.get("feature_attention_mask")
    positions, _ = thinker.get_rope_index(
        ids,
        image_grid_thw=inputs.get("image_grid_thw"),
        video_grid_thw=inputs.get("video_grid_thw"),
        attention_mask=torch.ones_like(ids),
        use_audio_in_video=prompt.use_audio_in_video,
        audio_seqlens=None if sounds is None else sounds.sum(dim=-1),
        second_per_grids=inputs.get("video_second_per_grid"),
    )
    text_positions = torch.arange(ids.shape[1]).expand(1, 1, -1)
    return Reading(ids[0], torch.cat([text_positions, positions]), tuple(_spans(ids[0], prompt, thinker.config)))


def without_prefix(reading: Reading, inputs: Any, length: int) -> BatchFeature:
    """`inputs` without the files among the first `length` tokens, whose features need no second encoding."""
    rest = dict(inputs)
    read = [kind for span in reading.spans if span.stop <= length for kind, _ in span.files]
    for kind, features, grid in _PATCHES:
        if grid in rest:
            files = read.count(kind)
            patches = int(rest[grid][:files].prod(dim=-1).sum())
            rest |= {features: rest[features][patches:], grid: rest[grid][files:]}
    for kind, key in _ROWS:
        if key in rest:
            rest[key] = rest[key][read.count(kind) :]
    return BatchFeature({key: value for key, value in rest.items() if len(value)})


@dataclass(slots=True, eq=False)
class Prefix:
    """The start of a prompt that has been read before: its first `length` tokens."""

    length: int
    cache: DynamicCache
    """Their keys and values; `generate` adds to it."""
    file_states: torch.Tensor | None
    """What the talker needs of their files, (file tokens, hidden); None when the thinker kept none."""


@dataclass(slots=True, eq=False)
class _Kept:
    reading: Reading
    prompt: int
    """How many of its tokens are the prompt; the answer follows."""
    cache: DynamicCache
    file_states: torch.Tensor | None


class PrefixPool:
    """The caches of the latest chats, `caches` of them and `tokens` in all at most; the longest unused goes first.

    For one thread. `config`: the thinker's text config. `reused` counts the tokens that were not read again.
    """

    def __init__(
        self, config: Any, *, caches: int = defaults.PREFIX_CACHES, tokens: int = defaults.PREFIX_TOKENS
    ) -> None:
        self.reused = 0
        self._config = config
        self._caches = caches
        self._tokens = tokens
        self._kept: list[_Kept] = []

    def __len__(self) -> int:
        return len(self._kept)

    def take(self, reading: Reading) -> Prefix:
        """The longest kept start of `reading`, short of its last token; an empty one where little or nothing fits.

        The caller's own: the pool no longer holds it.
        """
        common = [kept.reading.common(reading) for kept in self._kept]
        length = min(max(common, default=0), len(reading) - 1)
        if length < _LEAST_SHARE * len(reading):
            return Prefix(0, DynamicCache(config=self._config), None)
        self.reused += length
        kept = self._kept[common.index(max(common))]
        if length + _ANSWER_HEAD < kept.prompt:  # another chat, or an edit: what is kept may be wanted again
            cache = self._copy(kept.cache, length)
        else:
            self._kept.remove(kept)
            cache = kept.cache
            cache.crop(length - cache.get_seq_length())
        states = kept.file_states
        if states is not None:
            states = states[: int(reading.file_tokens(0, length).sum())]
        return Prefix(length, cache, states)

    def keep(self, reading: Reading, tokens: list[int], cache: DynamicCache, file_states: torch.Tensor | None) -> None:
        """Keeps the cache of `reading` and of the answer's `tokens`, as far as they were fed back to the thinker."""
        if not all(type(layer) is DynamicLayer for layer in cache.layers):
            return  # a sliding window or a state forgets its start, so it cannot go back to it
        read = cache.get_seq_length()
        length = min(read, len(reading) + len(tokens))
        cache.crop(length - read)
        self._kept.append(_Kept(reading.extended(tokens, length), len(reading), cache, file_states))
        while len(self._kept) > self._caches or sum(len(kept.reading) for kept in self._kept) > self._tokens:
            self._kept.pop(0)

    def clear(self) -> None:
        """Drops every cache."""
        self._kept.clear()

    def _copy(self, cache: DynamicCache, length: int) -> DynamicCache:
        copy = DynamicCache(config=self._config)
        layers: list[Any] = cache.layers
        for index, layer in enumerate(layers):
            copy.update(layer.keys[..., :length, :], layer.values[..., :length, :], index)
        return copy


def _spans(ids: torch.Tensor, prompt: Prompt, config: Any) -> Iterator[FileSpan]:
    """The files in the order of their placeholders. Marks stand between neighbours, so a run is a file."""
    contents: dict[MediaType, Iterator[bytes]] = {
        "image": (digest(np.asarray(image)) for image in prompt.images),
        "audio": (digest(audio) for audio in prompt.audios),
        "video": (digest(video.frames) for video in prompt.videos),
    }
    marks: dict[int, MediaType] = {
        config.image_token_id: "image",
        config.audio_token_id: "audio",
        config.video_token_id: "video",
    }
    kinds = [marks.get(token) for token in ids.tolist()]
    start = 0
    while start < len(kinds):
        stop = start + 1
        if kinds[start] is not None:
            while stop < len(kinds) and kinds[stop] is not None:
                stop += 1
            present = set(kinds[start:stop])
            files = tuple((kind, next(digests)) for kind, digests in contents.items() if kind in present)
            yield FileSpan(start, stop, files)
        start = stop
