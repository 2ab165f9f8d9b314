"""Checkpoints for tests: the embedded one, and small ones of other shapes with random weights, made on the spot.

Made from the embedded checkpoint's own files, so that every key of the published config is there.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from omni_backend.torchvision_ops import define_missing_ops

if TYPE_CHECKING:
    import torch

TINY_CHECKPOINT: Final = Path(__file__).parent.parent / "assets" / "tiny-qwen3-omni"

_CONFIG_TOKENS: Final = {
    "audio_token_id": "<|audio_pad|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "audio_start_token_id": "<|audio_start|>",
    "audio_end_token_id": "<|audio_end|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "im_start_token_id": "<|im_start|>",
    "im_end_token_id": "<|im_end|>",
    "tts_pad_token_id": "<tts_pad>",
    "tts_bos_token_id": "<tts_text_bos>",
    "tts_eos_token_id": "<tts_text_eod>",
    "system_token_id": "system",
    "user_token_id": "user",
    "assistant_token_id": "assistant",
}
_END_OF_ANSWER: Final = "<|im_end|>"
_PADDING: Final = "<|endoftext|>"
_ASSISTANT_PROMPT: Final = "<|im_start|>assistant\n"

# Wider than the usual 0.02, so that random weights of this width give varied answers and sound.
_STD: Final = 0.1
# Of code2wav: its sound is then neither silent nor all at the limits.
_SOUND_STD: Final = 0.07


@dataclass(frozen=True, slots=True)
class Shape:
    """How a random checkpoint differs. The defaults are the smallest that runs."""

    kind: Literal["instruct", "thinking", "captioner"] = "instruct"
    """Thinking and Captioner have no talker; the folder's name says which it is, as the published ones do."""
    code_groups: int = 4
    """Codebooks of the speech codes; the published checkpoint has 16."""
    width: int = 64
    """Of every hidden layer but those of code2wav; a multiple of 64."""
    head_dim: int = 32
    """Of the text and talker layers; a multiple of 8. vLLM takes 32, 64 and 128."""
    layers: int = 2
    vocabulary: Literal["embedded", "bytes"] = "embedded"
    """"bytes": special tokens first, then the 256 bytes, so that every id differs from the embedded one's."""
    seed: int = 0

    @property
    def speaks(self) -> bool:
        """Whether it has a talker and code2wav."""
        return self.kind == "instruct"


def make_checkpoint(parent: Path, shape: Shape) -> Path:
    """Writes a checkpoint of `shape` with random float32 weights into `parent`/random-omni-<kind>; its path.

    Raises FileExistsError when that folder is already there.
    """
    folder = parent / f"random-omni-{shape.kind}"
    folder.mkdir()
    for name in ("processor_config.json", "tokenizer_config.json"):
        shutil.copy(TINY_CHECKPOINT / name, folder / name)
    tokenizer = _read("tokenizer.json")
    if shape.vocabulary == "bytes":
        _keep_bytes_only(tokenizer)
    _write(folder / "tokenizer.json", tokenizer)
    _write_template(folder, shape)
    tokens = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    config = _config(shape, tokens)
    _save_model(folder, config, shape.seed)
    eos = {"eos_token_id": tokens[_END_OF_ANSWER], "pad_token_id": tokens[_PADDING]}
    _write(folder / "generation_config.json", eos)
    return folder


def _keep_bytes_only(tokenizer: dict[str, Any]) -> None:
    """Special tokens first, then the bytes, then the three roles, each of which must be one token."""
    specials = [token["content"] for token in tokenizer["added_tokens"]]
    # A byte-level vocabulary writes each byte as one printable character.
    symbols = sorted(token for token in tokenizer["model"]["vocab"] if len(token) == 1)
    merges, words = [], []
    for role in ("user", "system", "assistant"):
        for end in range(1, len(role)):
            merges.append([role[:end], role[end]])
            words.append(role[: end + 1])
    vocabulary = {token: index for index, token in enumerate([*reversed(specials), *symbols, *words])}
    tokenizer["model"] |= {"vocab": vocabulary, "merges": merges}
    for token in tokenizer["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    tokenizer["added_tokens"].sort(key=lambda token: token["id"])


def _write_template(folder: Path, shape: Shape) -> None:
    template = (TINY_CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8")
    if shape.kind == "thinking":
        before, prompt, after = template.rpartition(_ASSISTANT_PROMPT)
        assert prompt
        template = before + prompt + "<think>\n" + after
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _config(shape: Shape, tokens: dict[str, int]) -> dict[str, Any]:
    """The embedded checkpoint's config with the sizes of `shape` and the ids of `tokens`."""
    config = _read("config.json")
    config["dtype"] = "float32"
    thinker, talker = config["thinker_config"], config["talker_config"]
    for part in (config, thinker, talker):
        for key, token in _CONFIG_TOKENS.items():
            if key in part:
                part[key] = tokens[token]
    heads = {"num_attention_heads": shape.width // 32, "num_key_value_heads": shape.width // 64}
    layer = {"hidden_size": shape.width, "intermediate_size": 2 * shape.width, "num_hidden_layers": shape.layers}
    text = layer | heads | {"head_dim": shape.head_dim, "initializer_range": _STD}
    thinker["text_config"] |= text | {
        "vocab_size": -(-(max(tokens.values()) + 1) // 64) * 64,
        "moe_intermediate_size": shape.width,
        "rope_parameters": _rope(shape),
    }
    thinker["audio_config"] |= {
        "d_model": shape.width,
        "output_dim": shape.width,
        "encoder_ffn_dim": shape.width,
        "encoder_attention_heads": shape.width // 32,
    }
    thinker["vision_config"] |= {
        "hidden_size": shape.width,
        "out_hidden_size": shape.width,
        "intermediate_size": shape.width,
        "num_heads": shape.width // 32,
        "depth": 2,
    }
    if not shape.speaks:
        for key in ("talker_config", "code2wav_config"):
            del config[key]
        return config | {"enable_audio_output": False}
    groups = {"num_code_groups": shape.code_groups}
    talker |= groups | {"accept_hidden_layer": shape.layers - 1, "thinker_hidden_size": shape.width}
    talker["text_config"] |= text | {"shared_expert_intermediate_size": shape.width, "rope_parameters": _rope(shape)}
    # The code predictor's layer types are one for each of its two layers.
    talker["code_predictor_config"] |= text | groups | {"num_hidden_layers": 2}
    config["code2wav_config"] |= {
        "num_quantizers": shape.code_groups,
        "hidden_size": 64,
        "decoder_dim": 64,
        "initializer_range": _SOUND_STD,
    }
    return config


def _rope(shape: Shape) -> dict[str, Any]:
    """Position sections for time, height and width: half a head in all."""
    rope: dict[str, Any] = _read("config.json")["thinker_config"]["text_config"]["rope_parameters"]
    return rope | {"mrope_section": [shape.head_dim // 4, shape.head_dim // 8, shape.head_dim // 8]}


def _save_model(folder: Path, config: dict[str, Any], seed: int) -> None:
    define_missing_ops()
    import torch
    from transformers import Qwen3OmniMoeConfig, Qwen3OmniMoeForConditionalGeneration

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # In this mode PyTorch fills memory that nobody initialised with NaN: stock leaves the talker's experts so.
        mode = torch.get_deterministic_debug_mode()
        torch.set_deterministic_debug_mode("error")
        try:
            model = Qwen3OmniMoeForConditionalGeneration(Qwen3OmniMoeConfig.from_dict(config))
        finally:
            torch.set_deterministic_debug_mode(mode)
        _initialise_the_rest(model)
    model.save_pretrained(folder)


def _initialise_the_rest(model: torch.nn.Module) -> None:
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if not torch.isfinite(parameter).all():
                parameter.normal_(0.0, _STD)


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((TINY_CHECKPOINT / name).read_text(encoding="utf-8"))
    return content


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
