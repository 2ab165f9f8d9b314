"""The embedded checkpoint, its example messages and the random ones, through stock Transformers classes alone."""

from __future__ import annotations

import json
import runpy
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from omni_backend import MediaPart
from omni_backend.media import MediaLoader
from omni_backend.torchvision_ops import define_missing_ops
from tests.tiny_checkpoints import TINY_CHECKPOINT, Shape

define_missing_ops()

from qwen_omni_utils.v2_5.vision_process import fetch_image  # type: ignore[import-untyped]  # noqa: E402
from transformers import Qwen3OmniMoeForConditionalGeneration, Qwen3OmniMoeProcessor  # noqa: E402

pytestmark = pytest.mark.engine

EXAMPLES = TINY_CHECKPOINT.parent / "examples"

SHAPES = [
    Shape(),
    Shape(code_groups=16, width=128, head_dim=64, layers=3),
    Shape(vocabulary="bytes", code_groups=8, seed=1),
    Shape("thinking"),
    Shape("captioner", vocabulary="bytes"),
]


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The model and what Transformers says about its weights."""
    stock: Any = Qwen3OmniMoeForConditionalGeneration
    model, info = stock.from_pretrained(folder, dtype="auto", output_loading_info=True)
    if model.config.enable_audio_output:
        model.talker.config.audio_config = model.thinker.config.audio_config
    return model.eval(), info


class Stock:
    """Asks a checkpoint as any user of Transformers would, greedily."""

    def __init__(self, folder: Path) -> None:
        self.model, self.info = load(folder)
        self.processor: Any = Qwen3OmniMoeProcessor.from_pretrained(folder)

    def inputs(self, turns: list[dict[str, Any]], media: list[Path]) -> Any:
        """The prompt's tensors. `media` are those of the turns, in order."""
        images = [fetch_image({"image": Image.open(file)}, image_patch_size=16) for file in media if is_image(file)]
        sounds = [read_sound(file) for file in media if not is_image(file)]
        prompt = self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        tensors = self.processor(text=prompt, images=images or None, audio=sounds or None, return_tensors="pt")
        return tensors.to(self.model.dtype)

    def answer(self, turns: list[dict[str, Any]], media: list[Path] | None = None) -> str:
        """The answer's text."""
        inputs = self.inputs(turns, media or [])
        tokens = self.model.thinker.generate(
            **inputs, max_new_tokens=48, do_sample=False, eos_token_id=self.model.config.im_end_token_id
        )
        return self.text(tokens, inputs)

    def speak(self, turns: list[dict[str, Any]]) -> tuple[str, torch.Tensor]:
        """The answer's text and its sound, shape (samples,)."""
        inputs = self.inputs(turns, [])
        result, sound = self.model.generate(
            **inputs,
            return_audio=True,
            thinker_max_new_tokens=24,
            thinker_do_sample=False,
            thinker_eos_token_id=self.model.config.im_end_token_id,
            talker_max_new_tokens=32,
            talker_do_sample=False,
            talker_repetition_penalty=1.0,
        )
        return self.text(getattr(result, "sequences", result), inputs), sound.reshape(-1).float()

    def text(self, tokens: torch.Tensor, inputs: Any) -> str:
        """What was added to the prompt."""
        added = tokens[0, inputs["input_ids"].shape[1] :]
        return str(self.processor.tokenizer.decode(added, skip_special_tokens=True))


def is_image(file: Path) -> bool:
    return file.suffix == ".png"


def read_sound(file: Path) -> NDArray[np.float32]:
    """Mono, shape (samples,), padded to whole steps of 10 ms."""
    with wave.open(str(file)) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getsampwidth()) == (16_000, 1, 2)
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 32_768
    return np.pad(samples, (0, -len(samples) % 160))


def user(text: str, media: list[Path] | None = None) -> dict[str, Any]:
    """One turn: the media, then the words."""
    parts = [{"type": "image" if is_image(file) else "audio", "path": str(file)} for file in media or []]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


@pytest.fixture(scope="module")
def embedded(tiny_checkpoint: Path) -> Stock:
    return Stock(tiny_checkpoint)


def examples() -> list[dict[str, Any]]:
    """But those with films, which `test_truth` asks through the app's engine."""
    listed: list[dict[str, Any]] = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    return [each for each in listed if not any(file.endswith(".mp4") for file in each["files"])]


def assert_loads(model: torch.nn.Module, info: dict[str, Any]) -> None:
    """Every weight has its place and a value, and no place is left over."""
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not info["mismatched_keys"]
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_embedded_checkpoint_loads(embedded: Stock) -> None:
    assert_loads(embedded.model, embedded.info)
    assert sum(parameter.numel() for parameter in embedded.model.parameters()) == 8_790_673
    assert embedded.model.dtype == torch.bfloat16
    # The model card names these figures.
    assert "8.79 million parameters" in (TINY_CHECKPOINT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("example", examples(), ids=lambda example: f"{example['text']['en']} {example['files']}")
def test_examples_are_answered_rightly(embedded: Stock, example: dict[str, Any], language: Literal["en", "zh"]) -> None:
    media = [EXAMPLES / name for name in example["files"]]
    assert embedded.answer([user(example["text"][language], media)], media) == example["answer"][language]


@pytest.mark.parametrize(
    ("said", "asked", "answer"),
    [
        ("My name is Maria.", "What is my name?", "Your name is Maria."),
        ("我叫小红。", "我叫什么名字？", "你叫小红。"),
        ("My favorite color is green.", "What is my favorite color?", "Your favorite color is green."),
    ],
)
def test_it_remembers_earlier_turns(embedded: Stock, said: str, asked: str, answer: str) -> None:
    turns = [user(said)]
    turns += [{"role": "assistant", "content": embedded.answer(turns)}, user(asked)]
    assert embedded.answer(turns) == answer


def test_embedded_checkpoint_speaks(embedded: Stock) -> None:
    text, sound = embedded.speak([user("Hello!")])
    assert text == "Hello! How can I help you?"
    assert torch.isfinite(sound).all()
    assert sound.abs().max() <= 1
    # About the level of a voice; one to three seconds for six words.
    assert 0.03 < sound.square().mean().sqrt() < 0.3
    assert 24_000 < len(sound) < 3 * 24_000


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_checkpoints_load_and_answer(random_checkpoint: Callable[[Shape], Path], shape: Shape) -> None:
    stock = Stock(random_checkpoint(shape))
    assert_loads(stock.model, stock.info)
    assert stock.model.config.enable_audio_output is shape.speaks
    turns = [user("What do you see and hear?", [EXAMPLES / "square.png", EXAMPLES / "tone.wav"])]
    assert stock.answer(turns, [EXAMPLES / "square.png", EXAMPLES / "tone.wav"])
    if shape.speaks:
        assert stock.model.config.talker_config.num_code_groups == shape.code_groups
        _, sound = stock.speak([user("Hello!")])
        assert torch.isfinite(sound).all()
        assert 0.001 < sound.square().mean().sqrt() < 0.9


def test_random_checkpoints_are_the_same_for_the_same_seed(
    random_checkpoint: Callable[[Shape], Path], tmp_path: Path
) -> None:
    from tests.tiny_checkpoints import make_checkpoint

    first = (random_checkpoint(Shape()) / "model.safetensors").read_bytes()
    assert (make_checkpoint(tmp_path, Shape()) / "model.safetensors").read_bytes() == first


def test_byte_vocabulary_moves_every_id(random_checkpoint: Callable[[Shape], Path], tiny_checkpoint: Path) -> None:
    def ids(folder: Path) -> dict[str, int]:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        parts = (config, config["thinker_config"], config["talker_config"])
        return {key: value for part in parts for key, value in part.items() if key.endswith("token_id")}

    moved, embedded = ids(random_checkpoint(Shape(vocabulary="bytes", code_groups=8, seed=1))), ids(tiny_checkpoint)
    assert {key for key, value in embedded.items() if moved[key] == value} == {"codec_eos_token_id"}


def test_thinking_checkpoint_begins_in_a_thought(random_checkpoint: Callable[[Shape], Path]) -> None:
    processor: Any = Qwen3OmniMoeProcessor.from_pretrained(random_checkpoint(Shape("thinking")))
    prompt = processor.apply_chat_template([user("Hello!")], add_generation_prompt=True, tokenize=False)
    assert prompt.endswith("<|im_start|>assistant\n<think>\n")


def test_example_media_can_be_made_again(tmp_path: Path) -> None:
    script = runpy.run_path(str(TINY_CHECKPOINT.parent.parent / "tools" / "make_examples.py"))
    script["main"](tmp_path)
    made = {file.name for file in tmp_path.iterdir()}
    assert made | {"word.wav"} == {file.name for file in EXAMPLES.iterdir() if file.suffix not in (".json", ".md")}
    # Nearly, because sines and resizing may round differently in other versions and on other processors.
    for name in made - {"film.mp4"}:
        assert np.abs(pixels_or_samples(tmp_path / name) - pixels_or_samples(EXAMPLES / name)).mean() < 0.001


def pixels_or_samples(file: Path) -> NDArray[np.float32]:
    """The content of a picture or sound, from 0 or -1 to 1."""
    if file.suffix == ".mp3":
        return MediaLoader().audio(MediaPart("audio", str(file)))
    if not is_image(file):
        return read_sound(file)
    with Image.open(file) as image:
        return (np.asarray(image) / 255).astype(np.float32)
