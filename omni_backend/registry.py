"""The engines as data: the command line's choices, lazy imports and install hints derive from `BACKENDS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final, cast

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
    flash_attn2: bool = False
    """Ask for FlashAttention 2; without it (or where it does not fit) SDPA is used."""
    upload_roots: tuple[Path, ...] = ()
    """Folders in which media paths and `file://` URLs must lie; empty: anywhere (a script of one's own)."""


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


BACKENDS: Final[dict[str, BackendSpec]] = {
    "transformers": BackendSpec(
        factory="omni_backend.transformers_backend:create",
        requires=("torch", "transformers"),
        install="pip install -r requirements.txt",
        summary="Hugging Face Transformers, text and speech, one answer at a time",
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
