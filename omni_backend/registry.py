"""The engines as data: the command line's choices, lazy imports and install hints derive from `BACKENDS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, cast

from omni_backend import defaults
from omni_backend.base import Backend
from omni_backend.catalogue import phrase
from omni_backend.errors import BackendUnavailable


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How to load a checkpoint; every engine takes the same."""

    checkpoint: str
    """A local folder, a Hugging Face id, or `modelscope:` and a ModelScope id."""
    generate_audio: bool = False
    """Load the talker and code2wav, so that answers can be spoken."""
    upload_roots: tuple[Path, ...] = ()
    """Folders in which media paths and `file://` URLs must lie; empty: anywhere (a script of one's own)."""
    single_turn: bool = False
    """Nobody asks a second time about the same media: nothing is kept for later turns."""

    # What only some engines read; BackendSpec.options says which. None: the engine chooses.
    flash_attn2: bool = False
    """Ask for FlashAttention 2; without it (or where it does not fit) SDPA is used."""
    tensor_parallel_size: int | None = None
    """Over how many GPUs the weights are split."""
    gpu_memory_utilization: float | None = None
    """The share of each GPU's memory to use, 0 to 1."""
    max_model_len: int | None = None
    """Tokens of the longest conversation, answer included."""
    max_num_seqs: int | None = None
    """How many requests are answered at the same time."""
    quantization: str | None = None
    """A method by vLLM's name: "fp8", "awq", …"""
    engine_args: tuple[tuple[str, str], ...] = ()
    """Further engine arguments by vLLM's names; a value that is JSON is read as JSON."""
    server_url: str | None = None
    """Where an OpenAI-compatible server is."""
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    """Which of the server's models to use."""

    @property
    def media_cache_bytes(self) -> int:
        """Of decoded media to keep."""
        return defaults.SINGLE_TURN_CACHE_BYTES if self.single_turn else defaults.MEDIA_CACHE_BYTES

    @property
    def encoded_cache_bytes(self) -> int:
        """Of media encoded for a server to keep."""
        return defaults.SINGLE_TURN_CACHE_BYTES if self.single_turn else defaults.ENCODED_CACHE_BYTES

    @property
    def mm_cache_gb(self) -> float:
        """GiB of media processed by vLLM to keep."""
        return defaults.SINGLE_TURN_MM_CACHE_GB if self.single_turn else defaults.MM_CACHE_GB


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """Where an engine lives and what it needs. `factory`: "module:function" taking BackendOptions."""

    factory: str
    requires: tuple[str, ...]
    """Top-level modules that must be importable."""
    install: str
    """The command that installs them."""
    summary: str
    """One line for `--help`."""
    options: frozenset[str] = frozenset()
    """Those fields of BackendOptions, among the ones not every engine reads, that this one does."""
    chosen: Literal["always", "with a GPU", "by name"] = "always"
    """When the engine may be taken without being named; the first of the registry that may and is installed is."""


BACKENDS: Final[dict[str, BackendSpec]] = {
    "vllm": BackendSpec(
        factory="omni_backend.vllm_backend:create",
        requires=("vllm",),
        install="pip install -r requirements-vllm.txt",
        summary="vLLM in this process: many answers at a time; speech where vLLM-Omni is installed",
        options=frozenset(
            {
                "tensor_parallel_size",
                "gpu_memory_utilization",
                "max_model_len",
                "max_num_seqs",
                "quantization",
                "engine_args",
            }
        ),
        chosen="with a GPU",
    ),
    "transformers": BackendSpec(
        factory="omni_backend.transformers_backend:create",
        requires=("torch", "transformers"),
        install="pip install -r requirements.txt",
        summary="Hugging Face Transformers, text and speech, one answer at a time",
        options=frozenset({"flash_attn2"}),
    ),
    "server": BackendSpec(
        factory="omni_backend.server_backend:create",
        requires=("openai",),
        install="pip install -r requirements.txt",
        summary="an OpenAI-compatible server: vllm serve, vLLM-Omni, SGLang, llama.cpp or a hosted one",
        options=frozenset({"server_url", "api_key", "model"}),
        chosen="by name",
    ),
}
"""To add an engine: subclass `Backend`, name it here, and run the contract suite over it (see the README)."""


def create_backend(name: str, options: BackendOptions) -> Backend:
    """The engine `name`, not yet started. Raises BackendUnavailable when it is unknown or not installed."""
    spec = BACKENDS.get(name)
    if spec is None:
        raise BackendUnavailable(phrase("backend.unknown", name=name, names=", ".join(BACKENDS)))
    missing = [module for module in spec.requires if find_spec(module) is None]
    if missing:
        raise BackendUnavailable(
            phrase("backend.not_installed", name=name, missing=", ".join(missing), install=spec.install)
        )
    module, function = spec.factory.split(":")
    factory = cast(Callable[[BackendOptions], Backend], getattr(import_module(module), function))
    return factory(options)
