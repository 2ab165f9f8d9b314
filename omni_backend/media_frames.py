"""Picks and resizes the frames of a film while it is decoded, in fixed memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from omni_backend.media_values import FrameBudget, bad_media

if TYPE_CHECKING:
    from av import VideoFrame

MIN_FRAMES: Final = 4  # FPS_MIN_FRAMES of qwen-omni-utils
_EDGE: Final = 0.25  # of the time between two samples
_TIE: Final = 1e-4  # seconds; containers round time stamps


def sample_count(duration: float, fps: float) -> int:
    """How many frames stand for `duration` seconds at `fps`: an even number, 4 at least.

    The times are k / fps. One that lies less than a quarter of a step before the end is left out: films of a
    nominal 4 s last 4.004 s or, with their sound, 4.03 s, and would pay for two frames more.
    """
    count = max(1, math.ceil(duration * fps - _EDGE))
    return max(MIN_FRAMES, count + count % 2)


def frame_size(height: int, width: int, count: int, budget: FrameBudget) -> tuple[int, int]:
    """Height and width of each of `count` frames, by the rule of qwen-omni-utils' `fetch_video`.

    Raises ValueError for pictures that are much longer than wide, or wider than long.
    """
    from omni_backend.torchvision_ops import define_missing_ops

    define_missing_ops()
    from qwen_omni_utils.v2_5.vision_process import FRAME_FACTOR, smart_resize  # type: ignore[import-untyped]

    share = min(budget.max_pixels, budget.total_pixels / count * FRAME_FACTOR)
    max_pixels = max(share, int(budget.min_pixels * 1.05))
    size = smart_resize(
        height, width, factor=budget.factor, min_pixels=budget.min_pixels, max_pixels=cast(int, max_pixels)
    )
    return cast(tuple[int, int], size)


class FrameSampler:
    """Takes the frames of a film in order and keeps those shown at k / fps, k = 0 … count - 1, resized.

    Shown at a time is the last frame that began by then; before the first frame, the first.
    """

    def __init__(self, name: str, count: int, fps: float, budget: FrameBudget, max_pixels: int) -> None:
        self._name = name
        self._count = count
        self._fps = fps
        self._budget = budget
        self._max_pixels = max_pixels
        self._frames: NDArray[np.uint8] | None = None
        self._filled = 0
        self._shown: VideoFrame | None = None
        self._turn: _Turn | None = None

    def add(self, frame: VideoFrame, time: float) -> None:
        """The next frame, shown from `time` seconds after the film's start. Raises BadMedia when it is huge."""
        if frame.width * frame.height > self._max_pixels:
            raise bad_media("too_big_image", self._name, width=frame.width, height=frame.height, limit=self._max_pixels)
        self._fill_before(time, frame if self._shown is None else self._shown)
        self._shown = frame

    def finish(self) -> NDArray[np.uint8] | None:
        """The frames, shape (count, 3, height, width), the last one held; None when there was none at all."""
        if self._shown is None:
            return None
        self._fill_before(math.inf, self._shown)
        assert self._frames is not None
        self._frames.flags.writeable = False
        return self._frames

    def _fill_before(self, end: float, frame: VideoFrame) -> None:
        """Writes `frame` at all open times before `end`."""
        first = self._filled
        while self._filled < self._count and self._filled / self._fps < end - _TIE:
            self._filled += 1
        if self._filled == first:
            return
        if self._turn is None:
            self._turn = _turn(frame)
        picture = _pixels(frame, self._turn)
        if self._frames is None:
            height, width = frame_size(picture.shape[0], picture.shape[1], self._count, self._budget)
            self._frames = np.empty((self._count, 3, height, width), dtype=np.uint8)
        self._frames[first : self._filled] = _resized(picture, self._frames.shape[2], self._frames.shape[3])


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Width and height of the frame as it is meant to be seen."""
    return (frame.height, frame.width) if _turn(frame).swapped else (frame.width, frame.height)


class _Turn(NamedTuple):
    """How to turn the stored pixels upright: swap the axes, then mirror left and right, then top and bottom."""

    swapped: bool = False
    mirrored: bool = False
    flipped: bool = False


def _turn(frame: VideoFrame) -> _Turn:
    """From the display matrix that phones write: (x, y) → (a·x + c·y, b·x + d·y), nine int32 a b u c d v x y w.

    Quarter turns and mirrorings only; others do not occur. It is asked once for each film: a frame whose side
    data was looked at sits in a reference cycle and would keep its pixels until the next garbage collection.
    """
    matrix = cast(Mapping[str, Any], frame.side_data).get("DISPLAYMATRIX")
    if matrix is None:
        return _Turn()
    a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5]
    if abs(b) > abs(a):
        return _Turn(True, bool(c < 0), bool(b < 0))
    return _Turn(False, bool(a < 0), bool(d < 0))


def _pixels(frame: VideoFrame, turn: _Turn) -> NDArray[np.uint8]:
    """The pixels as they are meant to be seen: upright, RGB, transparent parts on white; (height, width, 3)."""
    if any(component.is_alpha for component in frame.format.components):
        rgba = cast(NDArray[np.uint8], frame.to_ndarray(format="rgba"))
        alpha = rgba[..., 3:].astype(np.uint16)
        picture = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    else:
        picture = cast(NDArray[np.uint8], frame.to_ndarray(format="rgb24"))
    if turn.swapped:
        picture = picture.transpose(1, 0, 2)
    if turn.mirrored:
        picture = picture[:, ::-1]
    if turn.flipped:
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _resized(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Bicubic with antialias, as `fetch_video` of qwen-omni-utils resizes; shape (3, height, width)."""
    import torch
    from torchvision.transforms import InterpolationMode, functional  # type: ignore[import-untyped]

    pixels = torch.from_numpy(picture).permute(2, 0, 1)
    resized = functional.resize(pixels, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)
    return cast(NDArray[np.uint8], resized.numpy())
