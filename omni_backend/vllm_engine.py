"""What the vLLM backend needs of an engine, and the text engine: vLLM's AsyncLLM.

Everything here lives on one event loop, the engine's own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from omni_backend.catalogue import phrase
from omni_backend.errors import BackendError, ContextTooLong, EngineDied, GenerationFailed, UnsupportedRequest
from omni_backend.types import SamplingParams


@dataclass(frozen=True, slots=True, eq=False)
class EngineInputs:
    """One prompt as vLLM takes it: the chat template's text, the decoded media, and how to process them."""

    text: str
    multi_modal_data: dict[str, Any]
    mm_processor_kwargs: dict[str, Any]
    multi_modal_uuids: dict[str, list[str]] = field(default_factory=dict)
    """Names by which vLLM keeps media, where their contents alone do not tell them apart."""

    def as_prompt(self) -> dict[str, Any]:
        """A vLLM TextPrompt."""
        prompt: dict[str, Any] = {"prompt": self.text}
        if self.multi_modal_data:
            prompt |= {"multi_modal_data": self.multi_modal_data, "mm_processor_kwargs": self.mm_processor_kwargs}
        if self.multi_modal_uuids:
            prompt["multi_modal_uuids"] = self.multi_modal_uuids
        return prompt


@dataclass(frozen=True, slots=True)
class NewTokens:
    """More of the answer: ids of the thinker, its end included."""

    ids: tuple[int, ...]
    prompt_tokens: int
    finish_reason: str | None = None
    """vLLM's: "stop", "length", "abort", "error"; None while it goes on."""


@dataclass(frozen=True, slots=True, eq=False)
class NewSound:
    """More of the spoken answer: float32, mono, shape (samples,)."""

    pcm: NDArray[np.float32]
    sample_rate: int


class Engine(Protocol):
    """A loaded checkpoint that answers many requests at a time."""

    @property
    def description(self) -> str:
        """One line for people: the engine and its version."""

    @property
    def speaks(self) -> bool:
        """Whether it gives sound."""

    @property
    def errored(self) -> bool:
        """Whether it has died."""

    def generate(
        self,
        inputs: EngineInputs,
        sampling: SamplingParams,
        *,
        eos_token_ids: frozenset[int],
        voice: str | None,
        request_id: str,
    ) -> AsyncGenerator[NewTokens | NewSound, None]:
        """Answers; `voice` is None for text alone. Closing it aborts the request. Raises BackendError."""

    def shutdown(self) -> None:
        """Ends the engine and its processes."""


class TextEngine:
    """AsyncLLM. It runs the thinker and knows no talker."""

    speaks = False

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Starts the engine's processes and waits for them. Needs a running loop, which it blocks meanwhile.

        `arguments`: of vLLM's AsyncEngineArgs.
        """
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self.llm: Any = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self._limit = int(self.llm.model_config.max_model_len)

    @property
    def description(self) -> str:
        """One line for people."""
        import vllm

        config = self.llm.vllm_config
        gpus = config.parallel_config.tensor_parallel_size
        dtype = str(config.model_config.dtype).removeprefix("torch.")
        device = config.device_config.device_type
        return f"vLLM {vllm.__version__}, {dtype}, {f'{gpus} × ' if gpus > 1 else ''}{device}"

    @property
    def errored(self) -> bool:
        """Whether the engine has died."""
        return self.llm is None or bool(self.llm.errored)

    async def generate(
        self,
        inputs: EngineInputs,
        sampling: SamplingParams,
        *,
        eos_token_ids: frozenset[int],
        voice: str | None,
        request_id: str,
    ) -> AsyncGenerator[NewTokens | NewSound, None]:
        """Streams token ids. Raises ContextTooLong, UnsupportedRequest, EngineDied or GenerationFailed."""
        prompt_tokens = 0
        try:
            params = text_params(sampling, eos_token_ids)
            async with aclosing(self.llm.generate(inputs.as_prompt(), params, request_id)) as outputs:
                async for output in outputs:
                    prompt_tokens = prompt_tokens or len(output.prompt_token_ids or ())
                    answer = output.outputs[0]
                    yield NewTokens(tuple(answer.token_ids), prompt_tokens, answer.finish_reason)
        except Exception as error:
            raise translated(error, self._limit) from error

    def shutdown(self) -> None:
        """Ends the engine and its processes."""
        if self.llm is None:
            return
        self.llm.shutdown(timeout=0)
        self.llm = None  # its destructor does not bear to run when the interpreter ends


def text_params(sampling: SamplingParams, eos_token_ids: frozenset[int]) -> Any:
    """vLLM's SamplingParams for a stream of token ids; the text is made from them by `TextStream`."""
    from vllm import SamplingParams as VllmSamplingParams
    from vllm.sampling_params import RequestOutputKind

    return VllmSamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed,
        stop_token_ids=sorted(eos_token_ids),
        output_kind=RequestOutputKind.DELTA,
        # vLLM's own detokenizer never hands out a character that was cut off at the end.
        detokenize=False,
    )


def translated(error: Exception, limit: int) -> BackendError:
    """What vLLM raised, for people. `limit`: tokens that the engine reads at most."""
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, BackendError):
        return error
    chain = [error, *([error.__cause__] if error.__cause__ else [])]
    if any(isinstance(one, EngineDeadError) for one in chain):
        return EngineDied(phrase("backend.died"), detail=repr(error))
    said = " ".join(str(one) for one in chain)
    if "maximum context length" in said or "maximum model length" in said:
        return ContextTooLong(phrase("vllm.context_too_long", limit=limit), detail=said)
    if isinstance(error, VLLMValidationError):
        return UnsupportedRequest(phrase("vllm.refused", reason=str(error)), detail=repr(chain))
    return GenerationFailed(phrase("backend.failed"), detail=repr(chain))
