"""Lessons → the tensors that the app would feed, through the app's own code and the checkpoint's own processor.

Only the reading of files is left out: pictures, sounds and films are handed over as they were drawn. Some sounds go
through lossy codecs and some pictures through JPEG, so that what those do to them is known too.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from omni_backend.media import FrameBudget, MediaInfo, MediaLoader, Video
from omni_backend.media_frames import FrameSampler, sample_count
from omni_backend.media_sound import BLOCK
from omni_backend.processor import Processing
from omni_backend.types import ChatRequest, MediaPart, MediaType, Message, Part, TextPart
from tools.tiny.drawings import Picture
from tools.tiny.files import LOSSY, decoded, encoded_sound
from tools.tiny.lessons import Lesson, Medium, Movie
from tools.tiny.sounds import Clip

if TYPE_CHECKING:
    from av import VideoFrame

Tensors = dict[str, torch.Tensor]

IGNORED: Final = -100
"""The label of what is not to be learned."""
_LOSSY: Final = 0.25  # share of sounds
_BIT_RATES: Final = (48_000, 64_000, 96_000)
_JPEG: Final = 0.2  # share of pictures
_MAX_PIXELS: Final = 10**8


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One lesson as tensors, batch 1."""

    inputs: Tensors
    labels: torch.Tensor
    """Shape (tokens,): the answers' ids, `IGNORED` elsewhere."""
    hears_films: bool
    """`use_audio_in_video`, one value for all that is read at once."""

    @property
    def tokens(self) -> int:
        """The length of the sequence."""
        return self.labels.shape[0]


def media_type(medium: Medium) -> MediaType:
    """What kind of file it would be."""
    if isinstance(medium, Picture):
        return "image"
    return "audio" if isinstance(medium, Clip) else "video"


def messages(lesson: Lesson, turns: int, parts: dict[int, MediaPart]) -> tuple[Message, ...]:
    """The first `turns` user turns with the right answers between them. `parts`: by `id` of each medium."""
    said: list[Message] = [Message("system", (TextPart(lesson.system),))] if lesson.system else []
    for index, turn in enumerate(lesson.turns[:turns]):
        content: list[Part] = [parts[id(medium)] for medium in turn.media]
        if turn.question:
            content.append(TextPart(turn.question))
        said.append(Message("user", tuple(content)))
        if index < turns - 1:
            said.append(Message("assistant", (TextPart(turn.opening + turn.answer),)))
    return tuple(said)


class DrawnMedia(MediaLoader):
    """Stands in for the app's reader of files: `add` a medium, get its part."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._media: dict[str, Medium] = {}

    def add(self, medium: Medium) -> MediaPart:
        """The part that stands for `medium` in a message."""
        name = str(len(self._media))
        self._media[name] = medium
        return MediaPart(media_type(medium), name)

    def probe(self, part: MediaPart) -> MediaInfo:
        """Type and seconds."""
        medium = self._media[part.path]
        if isinstance(medium, Movie):
            return MediaInfo("video", medium.film.seconds, medium.clip is not None, medium.film.size)
        return MediaInfo(part.type, medium.seconds if isinstance(medium, Clip) else None, True, None)

    def image(self, part: MediaPart, patch_size: int = 16) -> Image.Image:
        """The picture, resized as the app does."""
        from qwen_omni_utils.v2_5.vision_process import fetch_image  # type: ignore[import-untyped]

        medium = self._media[part.path]
        assert isinstance(medium, Picture)
        image = medium.image
        if self._rng.random() < _JPEG:
            image = _through_jpeg(image, self._rng.randint(60, 95))
        resized: Image.Image = fetch_image({"image": image}, image_patch_size=patch_size)
        return resized

    def audio(self, part: MediaPart) -> NDArray[np.float32]:
        """The sound, padded as the app does."""
        medium = self._media[part.path]
        assert isinstance(medium, Clip)
        return self._heard(medium)

    def video(self, part: MediaPart, *, fps: float, budget: FrameBudget) -> Video:
        """The frames that the app would pick, and the sound track."""
        import av

        medium = self._media[part.path]
        assert isinstance(medium, Movie)
        film = medium.film
        count = sample_count(film.seconds, fps)
        sampler = FrameSampler(part.path, count, fps, budget, _MAX_PIXELS)
        for index in range(count):
            frame: VideoFrame = av.VideoFrame.from_ndarray(np.asarray(film.frame(index / fps)), format="rgb24")
            sampler.add(frame, index / fps)
        frames = sampler.finish()
        assert frames is not None
        return Video(frames, fps, None if medium.clip is None else self._heard(medium.clip), film.seconds)

    def _heard(self, clip: Clip) -> NDArray[np.float32]:
        samples = clip.samples
        if self._rng.random() < _LOSSY:
            samples = decoded(encoded_sound(samples, self._rng.choice(LOSSY), self._rng.choice(_BIT_RATES)))
        return np.pad(samples, (0, -samples.size % BLOCK))


def example(lesson: Lesson, processing: Processing, rng: random.Random) -> Example:
    """What the model reads of a lesson, and which of it it should have written itself."""
    from omni_backend.transformers_answer import processor_kwargs

    media = DrawnMedia(rng)
    parts = {id(medium): media.add(medium) for turn in lesson.turns for medium in turn.media}
    request = ChatRequest(messages(lesson, len(lesson.turns), parts), answer_prefix=lesson.turns[-1].opening)
    prompt, text = processing.prompt(request, media)
    processor = processing.processor
    inputs: Tensors = dict(processor(text=text, return_tensors="pt", **processor_kwargs(prompt, processor)))
    asked = inputs["input_ids"][0]
    tokenizer = processor.tokenizer
    answer = tokenizer(lesson.turns[-1].answer)["input_ids"] + [tokenizer.eos_token_id]
    inputs["input_ids"] = torch.cat([asked, torch.tensor(answer)])[None]
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    labels = torch.cat([_earlier_answers(asked, processor.tokenizer), torch.tensor(answer)])
    return Example(inputs, labels, prompt.use_audio_in_video)


def collate(examples: Sequence[Example], padding: int) -> tuple[Tensors, torch.Tensor]:
    """One batch of examples whose `hears_films` is the same: inputs, and labels (batch, tokens).

    Sequences are padded at their end with `padding`; media are concatenated in order.
    """
    longest = max(each.tokens for each in examples)
    labels = torch.full((len(examples), longest), IGNORED)
    ids = torch.full((len(examples), longest), padding)
    mask = torch.zeros((len(examples), longest), dtype=torch.long)
    for row, each in enumerate(examples):
        labels[row, : each.tokens] = each.labels
        ids[row, : each.tokens] = each.inputs["input_ids"][0]
        mask[row, : each.tokens] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    for key in ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "video_second_per_grid"):
        found = [each.inputs[key] for each in examples if key in each.inputs]
        if found:
            batch[key] = torch.cat([torch.as_tensor(one) for one in found])
    heard = [each.inputs for each in examples if "input_features" in each.inputs]
    if heard:
        frames = max(one["input_features"].shape[-1] for one in heard)
        for key in ("input_features", "feature_attention_mask"):
            batch[key] = torch.cat(
                [torch.nn.functional.pad(one[key], (0, frames - one[key].shape[-1])) for one in heard]
            )
    return batch, labels


def _earlier_answers(ids: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    """Labels of the turns before the last: what stands between `assistant\\n` and `<|im_end|>`, that included."""
    start, role = tokenizer.convert_tokens_to_ids(["<|im_start|>", "assistant"])
    labels = torch.full_like(ids, IGNORED)
    ends = torch.nonzero(ids == tokenizer.eos_token_id).flatten().tolist()
    for begin in torch.nonzero((ids[:-1] == start) & (ids[1:] == role)).flatten().tolist():
        end = next((position for position in ends if position > begin), None)
        if end is not None:
            labels[begin + 3 : end + 1] = ids[begin + 3 : end + 1]
    return labels


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")
