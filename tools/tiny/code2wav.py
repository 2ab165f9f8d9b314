"""code2wav alone: speech codes → 24 kHz sound, on random words of the lexicon."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import torch
from torch import nn

from tools.tiny.ahead import ahead
from tools.tiny.lexicon import VOICES, Lexicon, random_phrase
from tools.tiny.loop import Schedule, fit
from tools.tiny.run import Run

_FRAMES: Final = 12
_PHRASES: Final = 6
_WINDOWS: Final = (256, 512, 1024)  # samples, of the spectra that are compared
_LOG_FLOOR: Final = 0.1  # with less the loss is about the silence between words
_WAVE_WEIGHT: Final = 3.0  # of the samples' own difference; without it the sound has the wrong phase


def initialise(code2wav: Any) -> None:
    """Random weights at which it neither saturates nor falls silent."""
    with torch.no_grad():
        code2wav.code_embedding.weight.normal_(0.0, 1.0)
        for module in code2wav.modules():
            if isinstance(getattr(module, "gamma", None), nn.Parameter):
                module.gamma.fill_(0.1)
            if isinstance(module, nn.Conv1d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            elif isinstance(module, nn.ConvTranspose1d):
                module.weight.normal_(0.0, (0.5 / module.in_channels) ** 0.5)
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d) and module.bias is not None:
                module.bias.zero_()
        for module in code2wav.modules():
            if type(module).__name__.endswith("ResidualUnit"):
                module.conv2.conv.weight.mul_(0.15)
        code2wav.decoder[-1].conv.weight.mul_(0.05)


def train_code2wav(run: Run, lexicon: Lexicon, schedule: Schedule) -> None:
    """Trains code2wav of the run's model."""
    code2wav = run.model.code2wav.to(run.device).train()

    made = ahead(partial(step_phrases, run.seed, lexicon), schedule.steps, run.workers)

    def losses(step: int) -> Iterator[torch.Tensor]:
        wanted, codes = (each.to(run.device) for each in made(step))
        sound = code2wav(codes)[:, 0]
        wanted = wanted[:, : sound.shape[1]]
        yield spectral_loss(sound, wanted) + _WAVE_WEIGHT * (sound - wanted).abs().mean()

    fit({"code2wav": code2wav}, losses, schedule, run.folder / "code2wav.pt", run.report)
    code2wav.eval()


def step_phrases(seed: int, lexicon: Lexicon, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Sounds (phrases, samples) and their codes (phrases, code groups, frames); a pure function of seed and step."""
    rng = random.Random(f"code2wav/{seed}/{step}")
    names = [voice.name for voice in VOICES]
    sounds, codes = zip(*(random_phrase(lexicon, names, _FRAMES, rng) for _ in range(_PHRASES)), strict=True)
    return torch.stack([torch.from_numpy(sound) for sound in sounds]), torch.stack([own.T for own in codes])


def spectral_loss(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """How far the magnitudes of short spectra are apart, relative and in logarithms; sounds (batch, samples)."""
    total = made.new_zeros(())
    for size in _WINDOWS:
        window = torch.hann_window(size, device=made.device)
        ours, theirs = (
            torch.stft(each, size, size // 4, window=window, return_complex=True).abs().clamp_min(1e-5)
            for each in (made, wanted)
        )
        total = total + (ours - theirs).norm() / (theirs.norm() + 1e-4)
        total = total + (torch.log(ours + _LOG_FLOOR) - torch.log(theirs + _LOG_FLOOR)).abs().mean()
    return total / len(_WINDOWS)
