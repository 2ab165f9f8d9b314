"""Loads a Qwen3-Omni checkpoint with stock Transformers classes and says how far it is."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from omni_backend.base import ReportProgress
from omni_backend.catalogue import Phrase, phrase
from omni_backend.checkpoint import Checkpoint, read_checkpoint
from omni_backend.errors import BackendUnavailable, OutOfMemory
from omni_backend.hub import find_checkpoint, reporting_tqdm, short_name
from omni_backend.processor import Processing, load_processing
from omni_backend.registry import BACKENDS, BackendOptions
from omni_backend.torchvision_ops import define_missing_ops

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

_OLDEST_TRANSFORMERS: Final = (5, 19)  # of the range in requirements.txt
_MIN_FLASH_CAPABILITY: Final = (8, 0)  # Ampere: flash-attn's own requirement


@dataclass(slots=True, eq=False)
class LoadedModel:
    """A checkpoint in memory. `model` is a Qwen3OmniMoeForConditionalGeneration."""

    checkpoint: Checkpoint
    model: Any
    processing: Processing
    can_speak: bool
    attention: str
    notices: tuple[Phrase, ...]

    @property
    def processor(self) -> Any:
        """The checkpoint's Qwen3OmniMoeProcessor."""
        return self.processing.processor

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The checkpoint's own ends of answer."""
        return self.processing.eos_token_ids

    @property
    def device(self) -> torch.device:
        """Where the prompt goes in: the device of the thinker's token embeddings."""
        device: torch.device = self.model.thinker.get_input_embeddings().weight.device
        return device


def load_model(options: BackendOptions, report: ReportProgress) -> LoadedModel:
    """Imports the engine and loads the checkpoint. Blocking. Raises BackendUnavailable or OutOfMemory."""
    report(phrase("load.importing"), None)
    define_missing_ops()
    # The talker has no prompt ids that its penalty could count; stock speaks the same way.
    warnings.filterwarnings("ignore", message="Passing `repetition_penalty` with `inputs_embeds`")
    import torch
    import transformers
    from transformers import Qwen3OmniMoeForConditionalGeneration

    check_version(transformers.__version__)
    _set_threads(torch, speech=options.generate_audio)
    checkpoint = read_checkpoint(find_checkpoint(options.checkpoint, report), short_name(options.checkpoint))
    speak = options.generate_audio and checkpoint.has_talker
    attention, notices = choose_attention(options.flash_attn2, checkpoint.dtype)
    report(phrase("load.weights", name=checkpoint.name), 0.0)
    try:
        with _weights_progress(lambda fraction: report(phrase("load.weights", name=checkpoint.name), fraction)):
            # Without speech the talker is never built, instead of being loaded and dropped.
            model = Qwen3OmniMoeForConditionalGeneration.from_pretrained(
                checkpoint.folder,
                dtype="auto",
                device_map="auto",
                attn_implementation=attention,
                enable_audio_output=speak,
            ).eval()
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(phrase("load.out_of_memory", name=checkpoint.name), detail=repr(error)) from error
    if speak and torch.cuda.is_available() and {"cpu", "disk"} & set(map(str, model.hf_device_map.values())):
        # Weights that did not fit were put aside; text would come slowly, speech not at all.
        raise OutOfMemory(phrase("load.out_of_memory", name=checkpoint.name), detail=str(model.hf_device_map))
    # Stock makes logits of the whole prompt (10 GB at 32,768 tokens); `generate` reads those of the last position.
    model.thinker.lm_head.register_forward_pre_hook(lambda _, args: (args[0][:, -1:],))
    if speak:
        # The talker's position ids need the sound encoder's window, which its own config lacks.
        model.talker.config.audio_config = model.thinker.config.audio_config
        if model.code2wav.device.type == "cpu":
            # CPUs have no fast bfloat16 convolutions: measured 5 to 9 times slower than float32.
            model.code2wav.float()
    logger.info("loaded %s: attention %s, speech %s", checkpoint.name, attention, "on" if speak else "off")
    return LoadedModel(
        checkpoint=checkpoint,
        model=model,
        processing=load_processing(checkpoint, checkpoint.context_tokens),
        can_speak=speak,
        attention=attention,
        notices=notices,
    )


def check_version(installed: str) -> None:
    """Raises BackendUnavailable for a Transformers that misreads films with their sound (5.14 was seen to)."""
    oldest = ".".join(map(str, _OLDEST_TRANSFORMERS))
    if tuple(int(number) for number in installed.split(".")[:2]) < _OLDEST_TRANSFORMERS:
        install = BACKENDS["transformers"].install
        raise BackendUnavailable(phrase("load.old_transformers", found=installed, oldest=oldest, install=install))


def choose_attention(flash_attn2: bool, dtype: str) -> tuple[str, tuple[Phrase, ...]]:
    """The attention implementation to load with, and why it is not FlashAttention 2 where that was asked for."""
    if not flash_attn2:
        return "sdpa", ()
    import torch

    reason: Phrase | None = None
    if not torch.cuda.is_available():
        reason = phrase("load.flash_no_gpu")
    elif torch.cuda.get_device_capability() < _MIN_FLASH_CAPABILITY:
        reason = phrase("load.flash_old_gpu", gpu=torch.cuda.get_device_name())
    elif find_spec("flash_attn") is None:
        reason = phrase("load.flash_not_installed", install="pip install flash-attn --no-build-isolation")
    elif dtype not in ("float16", "bfloat16"):
        reason = phrase("load.flash_dtype", dtype=dtype)
    if reason is None:
        return "flash_attention_2", ()
    logger.warning("%s", reason)
    return "sdpa", (reason,)


def _set_threads(torch: Any, *, speech: bool) -> None:
    """On a CPU thinker and talker compute side by side: more threads than cores makes both many times slower."""
    if "OMP_NUM_THREADS" not in os.environ and not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // 2 if speech else cores - 1))


@contextmanager
def _weights_progress(tell: Callable[[float], None]) -> Iterator[None]:
    """Hears the progress bars that Transformers shows while it loads weights."""
    from transformers.utils import logging as transformers_logging

    bar_class = reporting_tqdm(tell, unit="it")

    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return bar_class(*args, **kwargs)

    previous = transformers_logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(previous)
