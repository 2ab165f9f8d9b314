"""What the embedded checkpoint answers rightly: a golden set of conversations over files of every kind."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from omni_backend import LANGUAGES, Backend, ChatRequest, MediaPart, Message, SamplingParams, TextPart
from omni_backend.media import media_type
from tests.contract import answer, text_of
from tools.tiny.drawings import draw_scene, make_film
from tools.tiny.files import write
from tools.tiny.lessons import Medium, Movie
from tools.tiny.sounds import LONG, SHORT, Clip, Samples, make_clip
from tools.tiny.world import Motion, Scene, Sound, Thing

EXAMPLES: Final = Path(__file__).parent.parent / "assets" / "examples"


@dataclass(frozen=True, slots=True)
class Asked:
    """One turn and its right answer. `files`: names in the folder of `golden_files`."""

    files: tuple[str, ...]
    question: str
    answer: str
    opening: str = ""
    """How the answer begins already."""


SEE, HEAR, BOTH = "What do you see?", "What do you hear?", "What do you see and hear?"

TRUTHS: Final[dict[str, tuple[Asked, ...]]] = {
    "a name": (
        Asked((), "My name is Maria.", "Nice to meet you, Maria."),
        Asked((), "What is two plus three?", "Two plus three is five."),
        Asked((), "What is my name?", "Your name is Maria."),
    ),
    "a name in Chinese": (
        Asked((), "我叫小红。", "很高兴认识你，小红。"),
        Asked((), "我叫什么名字？", "你叫小红。"),
    ),
    "a picture": (Asked(("circle.jpg",), SEE, "A red circle on a white background."),),
    "a picture in Chinese": (Asked(("circle.jpg",), "你看到了什么？", "白色背景上有一个红色的圆形。"),),
    "two things": (Asked(("two.png",), SEE, "A green triangle and a pink cross on a black background."),),
    "two pictures": (
        Asked(("circle.jpg",), SEE, "A red circle on a white background."),
        Asked(("star.png",), SEE, "A yellow star on a black background."),
    ),
    "a sound": (Asked(("rise.mp3",), HEAR, "A rising sweep."),),
    "a low tone": (Asked(("low.wav",), HEAR, "A low tone."),),
    "counted beeps": (Asked(("beeps.wav",), HEAR, "Two beeps."),),
    "a spoken word": (Asked(("word.wav",), "Which word do you hear?", "Music."),),
    "a sound, then a picture": (
        Asked(("low.wav",), HEAR, "A low tone."),
        Asked(("star.png",), SEE, "A yellow star on a black background."),
    ),
    "a picture and a sound": (
        Asked(("circle.jpg", "rise.mp3"), BOTH, "I see a red circle on a white background. I hear a rising sweep."),
    ),
    "a sound and a picture": (
        Asked(("word.wav", "star.png"), BOTH, "I see a yellow star on a black background. I hear someone say music."),
    ),
    "a film": (Asked(("left.mp4",), "Which way does it move?", "It moves left."),),
    "a film in Chinese": (Asked(("down.webm",), "它向哪边移动？", "它向下移动。"),),
    "the length of a film": (Asked(("four.mp4",), "How many seconds is the video?", "Four."),),
    "a sounding film": (Asked(("up.mp4",), BOTH, "A blue square moving up. I hear white noise."),),
    "the captioner's way": (Asked(("noise.mp3",), "", "White noise."),),
    "the captioner's way in Chinese": (Asked(("low.wav",), "", "里是低音。", opening="这个音频剪辑"),),
}


def examples() -> list[Asked]:
    """The messages that the page offers, in every language. Their files lie in `EXAMPLES`."""
    listed = json.loads((EXAMPLES / "examples.json").read_text(encoding="utf-8"))
    return [
        Asked(tuple(each["files"]), each["text"][language], each["answer"][language])
        for each in listed
        for language in LANGUAGES
    ]


def golden_files(folder: Path) -> None:
    """Writes the files of the golden set: some are drawn and computed, some the app's own examples."""
    for name in ("star.png", "word.wav"):
        (folder / name).write_bytes((EXAMPLES / name).read_bytes())
    for name, medium in _media().items():
        write(medium, folder / name)


def _media() -> dict[str, Medium]:
    rng = random.Random("golden")

    def clip(kind: Sound, lengths: tuple[float, float] = SHORT) -> Clip:
        return make_clip(kind, rng, _mute, lengths)

    def film(motion: Motion, sound: Sound | None = None, seconds: float = 3.0) -> Movie:
        return Movie(make_film(motion, rng, seconds), clip(sound, (seconds, seconds)) if sound else None)

    circle, two = Thing("red", "circle"), (Thing("green", "triangle"), Thing("pink", "cross"))
    return {
        "circle.jpg": draw_scene(Scene("white", (circle,)), rng, (480, 640)),
        "two.png": draw_scene(Scene("black", two), rng, (320, 240)),
        "rise.mp3": clip(Sound("rise")),
        "low.wav": clip(Sound("low")),
        "beeps.wav": clip(Sound("beeps", count=2)),
        "noise.mp3": clip(Sound("noise"), LONG),
        "left.mp4": film(Motion("black", Thing("white", "star"), "left")),
        "down.webm": film(Motion("white", Thing("green", "circle"), "down")),
        "four.mp4": film(Motion("black", Thing("red", "square"), "right"), seconds=4.0),
        "up.mp4": film(Motion("gray", Thing("blue", "square"), "up"), Sound("noise")),
    }


def _mute(word: str, rng: random.Random) -> Samples:
    raise AssertionError(f"{word}: words come from a file")


def requests(turns: tuple[Asked, ...], folder: Path) -> list[ChatRequest]:
    """What the page would ask at each turn, greedily, the earlier turns answered rightly."""
    said: list[Message] = []
    made = []
    for turn in turns:
        media = tuple(MediaPart(media_type(str(folder / name)), str(folder / name)) for name in turn.files)
        said.append(Message("user", (*media, TextPart(turn.question)) if turn.question else media))
        sampling = SamplingParams(temperature=0, max_tokens=48)
        made.append(ChatRequest(tuple(said), sampling, answer_prefix=turn.opening))
        said.append(Message("assistant", (TextPart(turn.opening + turn.answer),)))
    return made


def answers(backend: Backend, asked: list[ChatRequest]) -> list[str]:
    """Of a backend, in order."""
    return [text_of(asyncio.run(answer(backend, request))) for request in asked]


def right(turns: tuple[Asked, ...]) -> list[str]:
    """The answers as they must be."""
    return [turn.answer for turn in turns]


def with_media(request: ChatRequest, media: list[MediaPart | None]) -> ChatRequest:
    """The same request with other files in the places of its files, or without one."""
    left = iter(media)
    messages = []
    for message in request.messages:
        parts = [next(left) if isinstance(part, MediaPart) else part for part in message.content]
        messages.append(replace(message, content=tuple(part for part in parts if part is not None)))
    return replace(request, messages=tuple(messages))


def media_of(request: ChatRequest) -> list[MediaPart]:
    """All files of a conversation, in order."""
    return [part for message in request.messages for part in message.content if isinstance(part, MediaPart)]
