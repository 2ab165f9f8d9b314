"""A processor that remembers files gives what it gave without, and works only on what is new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from omni_backend.processor_memory import remember_files
from omni_backend.torchvision_ops import define_missing_ops
from tests.media_files import BLUE, RED, tone
from tests.tiny_checkpoints import TINY_CHECKPOINT

pytestmark = pytest.mark.engine

PARTS = ("image_processor", "video_processor", "feature_extractor")
TEXT = "<|vision_start|><|image_pad|><|vision_end|><|audio_start|><|audio_pad|><|audio_end|>"


@pytest.fixture
def processor() -> Any:
    define_missing_ops()
    from transformers import Qwen3OmniMoeProcessor

    processor: Any = Qwen3OmniMoeProcessor.from_pretrained(TINY_CHECKPOINT)
    processor.video_processor.cap_pixels_per_frame = False
    return processor


@pytest.fixture
def work(processor: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The parts of the processor that did something, in order."""
    done: list[str] = []
    for name in PARTS:
        part = type(getattr(processor, name))

        def counting(
            self: Any, *args: Any, name: str = name, call: Callable[..., Any] = part.__call__, **kw: Any
        ) -> Any:
            done.append(name)
            return call(self, *args, **kw)

        monkeypatch.setattr(part, "__call__", counting)
    return done


def processed(
    processor: Any, colour: tuple[int, int, int] = RED, hertz: float = 440.0, level: int = 9
) -> dict[str, Any]:
    frames = torch.full((4, 3, 64, 96), level, dtype=torch.uint8)
    return dict(
        processor(
            text=TEXT + "<|vision_start|><|video_pad|><|vision_end|>",
            images=[Image.new("RGB", (96, 96), colour)],
            audio=[tone(hertz)],
            videos=[frames],
            videos_kwargs={"do_resize": False, "do_sample_frames": False, "fps": 2.0},
            return_tensors="pt",
        )
    )


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def test_the_same_files_are_worked_on_once(processor: Any, work: list[str]) -> None:
    plain = processed(processor)
    remember_files(processor)
    work.clear()
    first = processed(processor)
    worked = sorted(work)
    second = processed(processor)

    assert worked == sorted(PARTS)
    assert sorted(work) == worked
    assert same(first, plain)
    assert same(second, plain)


@pytest.mark.parametrize(
    ("change", "part"),
    [({"colour": BLUE}, "image_processor"), ({"hertz": 450.0}, "feature_extractor"), ({"level": 8}, "video_processor")],
)
def test_another_file_of_the_same_size_is_worked_on(
    processor: Any, work: list[str], change: dict[str, Any], part: str
) -> None:
    plain = processed(processor, **change)
    remember_files(processor)
    before = processed(processor)
    work.clear()
    after = processed(processor, **change)

    assert work == [part]
    assert same(after, plain)
    assert not same(after, before)


def test_other_settings_are_worked_on(processor: Any, work: list[str]) -> None:
    remember_files(processor)
    pictures = [Image.new("RGB", (96, 96), RED)]
    plain, fine = (processor.image_processor(pictures, do_normalize=normalize) for normalize in (True, False))

    assert work == ["image_processor", "image_processor"]
    assert not np.array_equal(plain["pixel_values"], fine["pixel_values"])


def test_too_large_features_are_not_kept(processor: Any, work: list[str]) -> None:
    remember_files(processor, max_bytes=10)
    processed(processor)
    processed(processor)

    assert sorted(work) == sorted(PARTS * 2)


def test_the_processor_can_still_be_printed(processor: Any) -> None:
    remember_files(processor)

    assert "feature_extractor" in repr(processor)
