"""The real vLLM-Omni engine on a tiny checkpoint, on a CPU.

Its code knows some of the published checkpoints' values by heart, so the tiny one here has them: 16 code groups, the
published ids of the tokens that mark turns, and bfloat16. The thinker is the embedded checkpoint's, which has learnt
to answer; the talker is random.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from omni_backend import Backend, BackendOptions, create_backend, defaults
from tests.tiny_checkpoints import TINY_CHECKPOINT, Shape, make_checkpoint

if TYPE_CHECKING:
    import torch

PLUGIN: Final = Path(__file__).parent / "vllm_omni_cpu"
STAGES: Final = [0, 1, 2]
SEQUENCES: Final = 2
FRAMES: Final = 60
"""Of a spoken answer, 80 ms each; a random talker never ends one by itself."""

# Of the published tokenizer.
_PUBLISHED: Final = {
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|vision_start|>": 151652,
    "<|vision_end|>": 151653,
    "<|image_pad|>": 151655,
    "<|video_pad|>": 151656,
    "<|audio_start|>": 151669,
    "<|audio_end|>": 151670,
    "<tts_pad>": 151671,
    "<tts_text_bos>": 151672,
    "<tts_text_eod>": 151673,
    "<|audio_pad|>": 151675,
    "user": 872,
    "system": 8948,
    "assistant": 77091,
}
_VOCABULARY: Final = 152_064  # rows of the published embedding table
_TOKENS: Final = ("thinker.model.embed_tokens.weight", "thinker.lm_head.weight")


def start(checkpoint: Path, **options: Any) -> Backend:
    """The vLLM backend on `checkpoint`, ready, with speech."""
    # The engine's processes look for the platform where this one does.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PLUGIN), os.environ.get("PYTHONPATH")]))
    if str(PLUGIN) not in sys.path:
        sys.path.insert(0, str(PLUGIN))
    # This variable would overrule what the deployment says, and three engines would not fit into 24 GB.
    defaults.VLLM_ENVIRONMENT.pop("VLLM_CPU_KVCACHE_SPACE", None)
    os.environ.pop("VLLM_CPU_KVCACHE_SPACE", None)
    chosen: dict[str, Any] = {
        "generate_audio": True,
        "max_num_seqs": SEQUENCES,
        "max_model_len": 4096,
        "engine_args": (("deploy_config", str(PLUGIN / "deploy.yaml")),),
    }
    backend = create_backend("vllm", BackendOptions(str(checkpoint), **(chosen | options)))
    backend.wait_until_ready()
    return backend


def omni(backend: Backend) -> Any:
    """The bare AsyncOmni."""
    return cast(Any, backend).loaded.engine.omni


def idle(backend: Backend) -> list[bool]:
    """Of each stage, whether its engine core holds no memory for any request: only then it empties its cache."""
    return [bool(emptied) for emptied in omni(backend).engine.collective_rpc("reset_prefix_cache", stage_ids=STAGES)]


@pytest.fixture(scope="session")
def omni_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Answers as the embedded checkpoint does, and speaks `FRAMES` frames of noise."""
    return build(tmp_path_factory.mktemp("omni"), frames=FRAMES)


@pytest.fixture(scope="session")
def omni_endless_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its answers end only at their limit, to be stopped in the middle."""
    return build(tmp_path_factory.mktemp("omni-endless"), frames=4000, ends=False)


@pytest.fixture(scope="session")
def omni_engine(omni_checkpoint: Path) -> Iterator[Backend]:
    """On the checkpoint that ends its answers."""
    backend = start(omni_checkpoint)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def omni_endless(omni_endless_checkpoint: Path) -> Iterator[Backend]:
    """On the checkpoint that does not."""
    backend = start(omni_endless_checkpoint)
    yield backend
    backend.close()


def build(parent: Path, *, frames: int, ends: bool = True) -> Path:
    """Writes the checkpoint into `parent` and returns its folder. `ends`: whether its answers end by themselves."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = make_checkpoint(parent, Shape(code_groups=16, width=128, layers=4))
    embedded = _read(TINY_CHECKPOINT / "config.json")
    tokenizer = _read(TINY_CHECKPOINT / "tokenizer.json")
    places = _publish(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    weights = {name: one for name, one in load_file(folder / "model.safetensors").items() if not _of_thinker(name)}
    thinker = {name: one for name, one in load_file(TINY_CHECKPOINT / "model.safetensors").items() if _of_thinker(name)}
    for name in _TOKENS:
        thinker[name] = _moved(thinker[name], places)
    if not ends:
        # A row of zeros gives the logit 0, which is never the largest of a trained head.
        thinker["thinker.lm_head.weight"][_PUBLISHED["<|im_end|>"]] = 0
    both = {name: one.to(torch.bfloat16) for name, one in (weights | thinker).items()}
    save_file(both, folder / "model.safetensors", metadata={"format": "pt"})
    config = _read(folder / "config.json")
    config["thinker_config"] = embedded["thinker_config"]
    config["thinker_config"]["text_config"]["vocab_size"] = _VOCABULARY
    _write(folder / "config.json", _published_ids(_without_dtypes(config), places) | {"dtype": "bfloat16"})
    generation = {
        "eos_token_id": _PUBLISHED["<|im_end|>"],
        "pad_token_id": _PUBLISHED["<|endoftext|>"],
        "do_sample": False,
        "talker_do_sample": False,
        "talker_repetition_penalty": 1.0,
        # The last code that is drawn is never fed back, so it makes no frame.
        "talker_max_new_tokens": frames + 1,
    }
    _write(folder / "generation_config.json", generation)
    shutil.copy(TINY_CHECKPOINT / "chat_template.jinja", folder)
    return folder


def _of_thinker(name: str) -> bool:
    return name.startswith("thinker.")


def _publish(tokenizer: dict[str, Any]) -> dict[int, int]:
    """Gives the marking tokens of a tokenizer.json their published ids; old id → new id of all that moved.

    A token that stood in such a place takes the place of the one that came.
    """
    vocabulary = tokenizer["model"]["vocab"] | {one["content"]: one["id"] for one in tokenizer["added_tokens"]}
    words = {place: word for word, place in vocabulary.items()}
    places: dict[int, int] = {}
    for word, new in _PUBLISHED.items():
        old = vocabulary[word]
        places[old] = new
        if new in words:
            places[new] = old
    moved = {word: places.get(place, place) for word, place in vocabulary.items()}
    # Transformers complains about every id that has no word.
    free = set(range(max(moved.values()))) - set(moved.values())
    tokenizer["model"]["vocab"] = moved | {f"<{place}>": place for place in free}
    for one in tokenizer["added_tokens"]:
        one["id"] = places.get(one["id"], one["id"])
    tokenizer["added_tokens"].sort(key=lambda one: int(one["id"]))
    return places


def _moved(table: torch.Tensor, places: Mapping[int, int]) -> torch.Tensor:
    """A table with a row for each token, larger, its rows at their new places."""
    larger = table.new_zeros(_VOCABULARY, table.shape[1])
    for old in range(len(table)):
        larger[places.get(old, old)] = table[old]
    return larger


def _without_dtypes(config: dict[str, Any]) -> dict[str, Any]:
    """As published: one `dtype` for all. vLLM-Omni gives a part with its own that one and the rest another."""
    parts = {key: _without_dtypes(value) if isinstance(value, dict) else value for key, value in config.items()}
    parts.pop("dtype", None)
    return parts


def _published_ids(config: dict[str, Any], places: Mapping[int, int]) -> dict[str, Any]:
    """Every `…_token_id` of the tokenizer moved; the talker's own codes stay."""
    moved: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            moved[key] = _published_ids(value, places)
        elif key.endswith("_token_id") and not key.startswith("codec_") and isinstance(value, int):
            moved[key] = places.get(value, value)
        else:
            moved[key] = value
    return moved


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
