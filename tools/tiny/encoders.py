"""The encoders alone, each with linear heads that are thrown away: much faster than learning through the text layers.

Of pictures each token (32 × 32 pixels) learns what covers it, of films each pair of frames which way things move,
of sounds the whole clip what it is. Inputs are those of lessons, through the checkpoint's own processor.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from omni_backend.processor import Processing
from tools.tiny.ahead import ahead
from tools.tiny.drawings import Box, Picture, draw_scene, make_film
from tools.tiny.inputs import IGNORED, Tensors, collate, example
from tools.tiny.lessons import Lesson, Medium, Movie, Turn
from tools.tiny.loop import Schedule, fit
from tools.tiny.run import Run
from tools.tiny.sounds import LONG, SHORT, make_clip
from tools.tiny.students import encoder
from tools.tiny.world import (
    BACKGROUNDS,
    COLORS,
    DIRECTIONS,
    MOST_BEEPS,
    SHAPES,
    STEADY,
    WORDS,
    Sound,
    random_motion,
    random_scene,
    random_sound,
)

SOUND_CLASSES: Final = (
    *(Sound(kind) for kind in STEADY),
    *(Sound("beeps", count=count + 1) for count in range(MOST_BEEPS)),
    *(Sound("word", word=word) for word in WORDS),
)
_PICTURES: Final = 24
_FILMS: Final = 8
_CLIPS: Final = 16
_FILM_EVERY: Final = 4  # steps of the vision encoder
_LESSER: Final = 0.3  # weight of what is learned beside the main thing
_TOKENS_PER_SECOND: Final = 13  # of the sound encoder
_COVERED: Final = 0.3  # of a thing's box; less is no reason to call a token by it


class VisionHeads(nn.Module):
    """What the vision encoder's tokens are asked."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shape = nn.Linear(width, len(SHAPES))
        self.color = nn.Linear(width, len(COLORS))
        self.background = nn.Linear(width, len(BACKGROUNDS))
        self.direction = nn.Linear(width, len(DIRECTIONS))


class SoundHeads(nn.Module):
    """What a whole clip is asked: its mean, its sum in seconds and its maximum are known."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kind = nn.Linear(3 * width, len(SOUND_CLASSES))


@dataclass(frozen=True, slots=True, eq=False)
class SeenBatch:
    """Patches of pictures or films as the vision encoder takes them, and labels by the name of their head."""

    patches: torch.Tensor
    grid: torch.Tensor
    labels: dict[str, torch.Tensor]
    films: bool


@dataclass(frozen=True, slots=True, eq=False)
class HeardBatch:
    """Spectra one after the other, (mels, times), their lengths, how many tokens each becomes, and the classes."""

    features: torch.Tensor
    lengths: torch.Tensor
    tokens: list[int]
    labels: torch.Tensor


def train_vision(run: Run, schedule: Schedule) -> None:
    """Trains the vision encoder of the run's model."""
    torch.manual_seed(run.seed)
    tower = encoder(run.model, "visual").to(run.device).train()
    heads = VisionHeads(run.model.config.thinker_config.vision_config.out_hidden_size).to(run.device)
    made = ahead(partial(seen_batch, run), schedule.steps, run.workers)

    def losses(step: int) -> Iterator[torch.Tensor]:
        yield vision_loss(tower, heads, made(step), run.device)

    fit({"tower": tower, "heads": heads}, losses, schedule, run.folder / "vision.pt", run.report)
    tower.eval()


def train_sound(run: Run, schedule: Schedule) -> None:
    """Trains the sound encoder of the run's model, with clips of all lengths, half of them short."""
    torch.manual_seed(run.seed)
    tower = encoder(run.model, "audio_tower").to(run.device).train()
    heads = SoundHeads(run.model.config.thinker_config.audio_config.output_dim).to(run.device)
    made = ahead(partial(heard_batch, run), schedule.steps, run.workers)

    def losses(step: int) -> Iterator[torch.Tensor]:
        yield sound_loss(tower, heads, made(step), run.device)

    fit({"tower": tower, "heads": heads}, losses, schedule, run.folder / "sound.pt", run.report)
    tower.eval()


def seen_batch(run: Run, step: int) -> SeenBatch:
    """Pictures at most steps, films at every fourth; a pure function of the run's seed and the step."""
    rng = random.Random(f"vision/{run.seed}/{step}")
    return _films(run, rng) if step % _FILM_EVERY == _FILM_EVERY - 1 else _pictures(run, rng)


def heard_batch(run: Run, step: int) -> HeardBatch:
    """Clips; a pure function of the run's seed and the step."""
    rng = random.Random(f"sound/{run.seed}/{step}")
    clips = []
    for _ in range(_CLIPS):
        sound = random_sound(rng)
        clips.append(make_clip(sound, rng, run.say, rng.choice([SHORT, LONG])))
    batch = _batch(clips, run.processing, rng)
    audio = run.processing.processor.tokenizer.convert_tokens_to_ids("<|audio_pad|>")
    mask = batch["feature_attention_mask"].bool()
    return HeardBatch(
        features=batch["input_features"].permute(0, 2, 1)[mask].permute(1, 0),
        lengths=mask.sum(dim=1),
        tokens=(batch["input_ids"] == audio).sum(dim=1).tolist(),
        labels=torch.tensor([SOUND_CLASSES.index(clip.sound) for clip in clips]),
    )


def vision_loss(tower: Any, heads: VisionHeads, batch: SeenBatch, device: torch.device) -> torch.Tensor:
    """The sum of the heads' cross entropies; those of the background, and of what moves, count less."""
    tokens = tower(batch.patches.to(device), grid_thw=batch.grid.to(device)).pooler_output
    if batch.films:
        counts = (batch.grid.prod(dim=1) // 4).tolist()
        pairs = [
            # The last pair may show a thing that has arrived.
            own.view(times, -1, own.shape[-1]).mean(dim=1)[: max(1, times - 1)]
            for own, times in zip(torch.split(tokens, counts), batch.grid[:, 0].tolist(), strict=True)
        ]
        tokens = torch.cat(pairs)
        weights = {"direction": 1.0, "shape": _LESSER, "color": _LESSER}
    else:
        weights = {"shape": 1.0, "color": 1.0, "background": _LESSER}
    total = torch.zeros((), device=device)
    for name, weight in weights.items():
        logits = getattr(heads, name)(tokens)
        total = total + weight * cross_entropy(logits, batch.labels[name].to(device), ignore_index=IGNORED)
    return total


def sound_loss(tower: Any, heads: SoundHeads, batch: HeardBatch, device: torch.device) -> torch.Tensor:
    """The cross entropy of what the clips are."""
    heard = tower(batch.features.to(device), feature_lens=batch.lengths.to(device)).last_hidden_state
    pooled = [
        torch.cat([own.mean(dim=0), own.sum(dim=0) / _TOKENS_PER_SECOND, own.max(dim=0).values])
        for own in torch.split(heard, batch.tokens)
    ]
    return cross_entropy(heads.kind(torch.stack(pooled)), batch.labels.to(device))


def token_labels(picture: Picture, rows: int, columns: int) -> tuple[list[int], list[int]]:
    """The shape and the colour of each token of a grid, row by row; `IGNORED` where nothing covers much of it."""
    shapes, colors = [], []
    for row in range(rows):
        for column in range(columns):
            cell = (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
            thing = _covering(picture, cell)
            shapes.append(IGNORED if thing is None else SHAPES.index(picture.scene.things[thing].shape))
            colors.append(IGNORED if thing is None else COLORS.index(picture.scene.things[thing].color))
    return shapes, colors


def _covering(picture: Picture, cell: Box) -> int | None:
    """Which thing covers most of `cell` (in shares of the sides), if it is a good part of the thing."""
    best, found = 0.0, None
    width, height = picture.image.size
    for index, (left, top, right, bottom) in enumerate(picture.boxes):
        across = min(right / width, cell[2]) - max(left / width, cell[0])
        down = min(bottom / height, cell[3]) - max(top / height, cell[1])
        area = max(0.0, across) * max(0.0, down)
        if area > best and area > _COVERED * min(
            (right - left) * (bottom - top) / width / height, (cell[2] - cell[0]) * (cell[3] - cell[1])
        ):
            best, found = area, index
    return found


def _batch(media: Sequence[Medium], processing: Processing, rng: random.Random) -> Tensors:
    """One medium in each row, without any words."""
    rows = [example(Lesson("", "en", (Turn((medium,), "", ""),)), processing, rng) for medium in media]
    return collate(rows, processing.processor.tokenizer.pad_token_id)[0]


def _pictures(run: Run, rng: random.Random) -> SeenBatch:
    pictures = [draw_scene(random_scene(rng), rng) for _ in range(_PICTURES)]
    batch = _batch(pictures, run.processing, rng)
    grid = batch["image_grid_thw"]
    labels: dict[str, list[int]] = {"shape": [], "color": [], "background": []}
    for picture, (_, height, width) in zip(pictures, grid.tolist(), strict=True):
        shapes, colors = token_labels(picture, height // 2, width // 2)
        labels["shape"] += shapes
        labels["color"] += colors
        labels["background"] += [BACKGROUNDS.index(picture.scene.background)] * len(shapes)
    return SeenBatch(batch["pixel_values"], grid, {name: torch.tensor(own) for name, own in labels.items()}, False)


def _films(run: Run, rng: random.Random) -> SeenBatch:
    """Labels of all pairs of frames but the last of each film (see `vision_loss`)."""
    films = [make_film(random_motion(rng), rng, rng.uniform(1.5, 4.0)) for _ in range(_FILMS)]
    batch = _batch([Movie(film, None) for film in films], run.processing, rng)
    grid = batch["video_grid_thw"]
    times = grid[:, 0].tolist()
    motions = [film.motion for film, count in zip(films, times, strict=True) for _ in range(max(1, count - 1))]
    labels = {
        "direction": [DIRECTIONS.index(motion.directions[0]) for motion in motions],
        "shape": [SHAPES.index(motion.thing.shape) for motion in motions],
        "color": [COLORS.index(motion.thing.color) for motion in motions],
    }
    patches = batch["pixel_values_videos"]
    return SeenBatch(patches, grid, {name: torch.tensor(own) for name, own in labels.items()}, True)
