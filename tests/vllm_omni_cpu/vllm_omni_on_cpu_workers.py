"""vLLM's CPU worker with vLLM-Omni's model runners: one for tokens (thinker and talker), one for sound (code2wav)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.cpu_worker import CPUWorker
from vllm_omni.worker.gpu_ar_model_runner import GPUARModelRunner
from vllm_omni.worker.gpu_generation_model_runner import GPUGenerationModelRunner
from vllm_omni.worker.mixins import OmniWorkerMixin


class TokenRunner(GPUARModelRunner, CPUModelRunner):  # type: ignore[misc]
    """Runs the thinker or the talker, token by token."""


class SoundRunner(GPUGenerationModelRunner, CPUModelRunner):  # type: ignore[misc]
    """Runs code2wav, chunk by chunk."""


class _Worker(OmniWorkerMixin, CPUWorker):  # type: ignore[misc]
    model_runner_cls: ClassVar[type]

    def init_device(self) -> None:
        """As vLLM does it, then with vLLM-Omni's model runner in place of vLLM's."""
        compilation = self.vllm_config.compilation_config
        if compilation.max_cudagraph_capture_size is None:
            compilation.max_cudagraph_capture_size = 0  # vLLM-Omni's runners compare it with numbers
        super().init_device()
        self.use_v2_model_runner = False
        self.model_runner = self.model_runner_cls(self.vllm_config, torch.device("cpu"))


class TokenWorker(_Worker):
    """The worker of the thinker's and the talker's stage."""

    model_runner_cls = TokenRunner

    def load_model(self, *arguments: Any, **options: Any) -> None:
        """As vLLM does it; then no codes are drawn by chance any more, so that a request always sounds the same."""
        super().load_model(*arguments, **options)
        talker = getattr(self.model_runner.model, "talker", None)
        if talker is not None:
            talker.code_predictor._sample_codes_gumbel = lambda logits, **_: logits.argmax(dim=-1, keepdim=True)


class SoundWorker(_Worker):
    """The worker of code2wav's stage."""

    model_runner_cls = SoundRunner
