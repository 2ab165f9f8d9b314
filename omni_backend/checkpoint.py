"""What a checkpoint folder says about itself, read without any engine."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

from omni_backend import defaults
from omni_backend.capabilities import Capabilities, Limits
from omni_backend.catalogue import Phrase, phrase
from omni_backend.errors import BackendUnavailable
from omni_backend.types import SamplingParams

CheckpointKind = Literal["instruct", "thinking", "captioner"]

MODEL_TYPE: Final = "qwen3_omni_moe"

SAMPLING: Final[dict[CheckpointKind, SamplingParams]] = {
    "instruct": defaults.INSTRUCT_SAMPLING,
    "thinking": defaults.THINKING_SAMPLING,
    "captioner": defaults.CAPTIONER_SAMPLING,
}


@dataclass(frozen=True, slots=True)
class TalkerParams:
    """How codec frames are drawn. A checkpoint overrides them with `talker_…` keys in `generation_config.json`."""

    do_sample: bool = True
    temperature: float = defaults.TALKER_TEMPERATURE
    top_k: int = defaults.TALKER_TOP_K
    top_p: float = defaults.TALKER_TOP_P
    repetition_penalty: float = defaults.TALKER_REPETITION_PENALTY
    max_new_tokens: int = defaults.TALKER_MAX_FRAMES


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A Qwen3-Omni checkpoint on disk."""

    folder: Path
    name: str
    kind: CheckpointKind
    has_talker: bool
    """Whether it holds a talker and code2wav, so that it can speak."""
    voices: tuple[str, ...]
    """The talker's `speaker_id` table, in its own order but with `defaults.VOICE` first where it has it."""
    context_tokens: int
    eos_token_ids: frozenset[int]
    """The ids that end an answer, as far as the checkpoint's files say."""
    dtype: str
    """Of its weights as stored: "bfloat16", "float16" or "float32"."""
    weight_bytes: int
    """Of all its weights, as stored."""
    attention_heads: tuple[int, ...]
    """Of the thinker's text model and of its encoders."""
    kv_bytes_per_token: int
    """Of the thinker's KV cache in 16 bit."""
    audio_window_seconds: float
    """How much sound it hears well at once: `audio_window_seconds` of `generation_config.json`, else the published."""
    sampling: SamplingParams
    """How its answers are drawn unless a request says otherwise."""
    talker: TalkerParams


def read_checkpoint(folder: Path, name: str) -> Checkpoint:
    """Reads `config.json` of a checkpoint folder; `name` is what the user called the checkpoint.

    Raises BackendUnavailable when there is no readable config or it is another model's.
    """
    try:
        config = _read_json(folder / "config.json")
        generation = _read_json(folder / "generation_config.json", {})
    except (OSError, ValueError) as error:
        raise BackendUnavailable(phrase("load.no_config", name=name), detail=repr(error)) from error
    if config.get("model_type") != MODEL_TYPE:
        raise BackendUnavailable(
            phrase("load.other_model", name=name, found=str(config.get("model_type")), wanted=MODEL_TYPE)
        )
    has_talker = bool(config.get("enable_audio_output", True)) and "talker_config" in config
    speakers = list(config.get("talker_config", {}).get("speaker_id") or {}) if has_talker else []
    positions = config.get("thinker_config", {}).get("text_config", {}).get("max_position_embeddings")
    kind = _kind(name, has_talker)
    return Checkpoint(
        folder=folder,
        name=name,
        kind=kind,
        has_talker=has_talker,
        voices=tuple(sorted(speakers, key=lambda voice: voice != defaults.VOICE)),
        context_tokens=min(defaults.CONTEXT_TOKENS, positions or defaults.CONTEXT_TOKENS),
        eos_token_ids=_ids(generation.get("eos_token_id")) | _ids(config.get("im_end_token_id")),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "bfloat16"),
        weight_bytes=sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        attention_heads=_attention_heads(config.get("thinker_config", {})),
        kv_bytes_per_token=_kv_bytes_per_token(config.get("thinker_config", {}).get("text_config", {})),
        audio_window_seconds=float(generation.get("audio_window_seconds") or defaults.AUDIO_WINDOW_SECONDS),
        sampling=_sampling(kind, generation),
        talker=TalkerParams(
            **{f.name: generation[f"talker_{f.name}"] for f in fields(TalkerParams) if f"talker_{f.name}" in generation}
        ),
    )


def capabilities_of(
    checkpoint: Checkpoint,
    *,
    engine: str,
    speaks: bool,
    context_tokens: int,
    max_concurrency: int,
    notices: tuple[Phrase, ...] = (),
    no_speech: Phrase | None = None,
) -> Capabilities:
    """What a checkpoint can do on an engine of this machine.

    `engine`: one line for people. `no_speech`: why it does not speak, where that is neither the checkpoint's nature
    nor the missing `--generate-audio`.
    """
    captioner = checkpoint.kind == "captioner"
    only_audio = phrase("request.only_audio")
    silent = no_speech or phrase("load.talker_off" if checkpoint.has_talker else "load.talker_missing")
    return Capabilities(
        model=checkpoint.name,
        engine=engine,
        inputs=frozenset({"audio"} if captioner else {"image", "audio", "video"}),
        missing_inputs={"image": only_audio, "video": only_audio} if captioner else {},
        outputs=frozenset({"text", "audio"} if speaks else {"text"}),
        missing_outputs={} if speaks else {"audio": silent},
        notices=notices,
        voices=checkpoint.voices if speaks else (),
        reasoning=checkpoint.kind == "thinking",
        text_prompts=not captioner,
        limits=Limits(context_tokens=context_tokens),
        audio_window_seconds=checkpoint.audio_window_seconds,
        default_sampling=checkpoint.sampling,
        max_concurrency=max_concurrency,
    )


def _read_json(file: Path, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if default is not None and not file.exists():
        return default
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _ids(value: Any) -> frozenset[int]:
    """An id, several or none, as a set."""
    return frozenset(one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int))


def _attention_heads(thinker: dict[str, Any]) -> tuple[int, ...]:
    keys = {
        "text_config": "num_attention_heads",
        "vision_config": "num_heads",
        "audio_config": "encoder_attention_heads",
    }
    return tuple(thinker[part][key] for part, key in keys.items() if key in thinker.get(part, {}))


def _kv_bytes_per_token(text: dict[str, Any]) -> int:
    """Keys and values of every layer, two bytes a number."""
    heads = text.get("num_key_value_heads", 0)
    return int(2 * 2 * text.get("num_hidden_layers", 0) * heads * text.get("head_dim", 0))


def _sampling(kind: CheckpointKind, generation: dict[str, Any]) -> SamplingParams:
    """The published settings of its kind, unless the checkpoint's `generation_config.json` says otherwise."""
    names = {name: name for name in ("temperature", "top_p", "top_k", "repetition_penalty")}
    names["max_new_tokens"] = "max_tokens"
    said = {name: generation[key] for key, name in names.items() if generation.get(key) is not None}
    chosen = replace(SAMPLING[kind], **said)
    return replace(chosen, temperature=0.0) if generation.get("do_sample") is False else chosen


def _kind(name: str, has_talker: bool) -> CheckpointKind:
    """Thinking and Captioner checkpoints have the same config, so a talker or else the name decides."""
    if "captioner" in name.lower():
        return "captioner"
    return "instruct" if has_talker and "thinking" not in name.lower() else "thinking"
