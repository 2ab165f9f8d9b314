"""The thinker's side of an answer: sampling, stopping, and one token after the other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
from transformers.generation.streamers import BaseStreamer

from omni_backend.types import SamplingParams


class StopOnEvent(StoppingCriteria):
    """Ends `generate` after the current token or frame once the event is set."""

    def __init__(self, event: threading.Event) -> None:
        self._event = event

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._event.is_set(), dtype=torch.bool, device=input_ids.device)


class GumbelNoise(LogitsProcessor):
    """Turns greedy decoding into sampling with a random generator of its own.

    The largest of logits plus Gumbel noise is distributed as softmax(logits) (Gumbel-max). Stock sampling draws
    from the process-wide generator, which the talker uses at the same moment, so that no seed would hold.
    """

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        uniform = torch.rand(scores.shape, generator=self._generator, dtype=torch.float32, device=scores.device)
        return scores - torch.log(-torch.log(uniform.clamp_(1e-20, 1 - 1e-7)))


class TokenStreamer(BaseStreamer):
    """Hands over each new token id as `generate` draws it; the prompt, which comes first, is left out."""

    def __init__(self, on_token: Callable[[int], None]) -> None:
        self._on_token = on_token
        self._prompt = True

    def put(self, value: torch.Tensor) -> None:
        """Called by `generate` with the prompt's ids, then with one id of shape (1,) for each step."""
        if self._prompt:
            self._prompt = False
        else:
            self._on_token(int(value))

    def end(self) -> None:
        """Called by `generate` after the last token."""


def sampling_kwargs(sampling: SamplingParams, device: torch.device) -> dict[str, Any]:
    """`SamplingParams` as arguments of `thinker.generate`."""
    kwargs: dict[str, Any] = {"do_sample": False, "repetition_penalty": sampling.repetition_penalty}
    if sampling.temperature <= 0:
        return kwargs
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(sampling.temperature))])
    if sampling.top_k > 0:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    generator = torch.Generator(device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)
    warpers.append(GumbelNoise(generator))
    return kwargs | {"logits_processor": warpers}
