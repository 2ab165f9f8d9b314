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
from tools.tiny.drawings import Picture, draw_scene, make_film
from tools.tiny.files import decoded, write
from tools.tiny.lessons import Medium, Movie
from tools.tiny.sounds import LONG, SHORT, Clip, Samples, make_clip, within
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
    "a Chinese refusal": (Asked((), "请介绍一下北京。", "我只认识图形、颜色和声音。"),),
    "a refusal": (Asked((), "What is the capital of France?", "I only know shapes, colors and sounds."),),
    "what it can do": (Asked((), "What can you do?", "I can see shapes, hear sounds and watch short videos."),),
    "a sum with a thought": (Asked((), "Think first: What is two plus three?", "Two plus three is five."),),
    "two things": (Asked(("two.png",), SEE, "A green triangle and a pink cross on a black background."),),
    "three things": (Asked(("three.png",), SEE, "A red circle, a blue star and a pink square on a gray background."),),
    "two pictures": (
        Asked(("circle.jpg",), SEE, "A red circle on a white background."),
        Asked(("star.png",), SEE, "A yellow star on a black background."),
    ),
    "the first of two pictures": (
        Asked(("circle.jpg", "star.png"), "What is in the first image?", "A red circle on a white background."),
    ),
    "the second of two pictures": (
        Asked(("circle.jpg", "star.png"), "What is in the second image?", "A yellow star on a black background."),
    ),
    "both of two pictures": (
        Asked(
            ("star.png", "circle.jpg"), SEE, "A yellow star on a black background. A red circle on a white background."
        ),
    ),
    "a sound": (Asked(("rise.mp3",), HEAR, "A rising sweep."),),
    "a falling sweep": (Asked(("fall.wav",), HEAR, "A falling sweep."),),
    "silence": (Asked(("silence.wav",), HEAR, "Silence."),),
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
    "a word in a film": (Asked(("word.mp4",), BOTH, "A pink cross moving down. I hear someone say music."),),
    "a film that turns": (Asked(("late.webm",), "Which way does it move first?", "It moves right."),),
    "a film that turns, its sound at the beginning": (
        Asked(("early.mp4",), "Which way does it move when you hear the sound?", "It moves left."),
    ),
    "a film that turns, its sound at the end": (
        Asked(("late.webm",), "Which way does it move when you hear the sound?", "It moves up."),
    ),
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
    for name, medium in golden_media().items():
        write(medium, folder / name)


def golden_media() -> dict[str, Medium]:
    """What is drawn and computed, by the name of its file, which is also the seed: one more changes no other."""
    circle, two = Thing("red", "circle"), (Thing("green", "triangle"), Thing("pink", "cross"))
    three = (Thing("red", "circle"), Thing("blue", "star"), Thing("pink", "square"))
    return {
        "circle.jpg": _picture("circle.jpg", Scene("white", (circle,)), (480, 640)),
        "two.png": _picture("two.png", Scene("black", two), (320, 240)),
        "three.png": _picture("three.png", Scene("gray", three), (320, 240)),
        "rise.mp3": _clip("rise.mp3", Sound("rise")),
        "fall.wav": _clip("fall.wav", Sound("fall")),
        "low.wav": _clip("low.wav", Sound("low")),
        "silence.wav": _clip("silence.wav", Sound("silence")),
        "beeps.wav": _clip("beeps.wav", Sound("beeps", count=2)),
        "noise.mp3": _clip("noise.mp3", Sound("noise"), LONG),
        "left.mp4": _film("left.mp4", Motion("black", Thing("white", "star"), ("left",))),
        "down.webm": _film("down.webm", Motion("white", Thing("green", "circle"), ("down",))),
        "four.mp4": _film("four.mp4", Motion("black", Thing("red", "square"), ("right",)), seconds=4.0),
        "up.mp4": _film("up.mp4", Motion("gray", Thing("blue", "square"), ("up",)), Sound("noise")),
        "word.mp4": _film("word.mp4", Motion("black", Thing("pink", "cross"), ("down",)), Sound("word", word="music")),
        "early.mp4": _turning_film("early.mp4", Motion("white", Thing("red", "circle"), ("left", "down")), 0.3),
        "late.webm": _turning_film("late.webm", Motion("black", Thing("white", "square"), ("right", "up")), 2.3),
    }


def _picture(name: str, scene: Scene, size: tuple[int, int]) -> Picture:
    return draw_scene(scene, random.Random(name), size)


def _clip(name: str, sound: Sound, lengths: tuple[float, float] = SHORT) -> Clip:
    return make_clip(sound, random.Random(name), _said, lengths)


def _film(name: str, motion: Motion, sound: Sound | None = None, seconds: float = 3.0) -> Movie:
    film = make_film(motion, random.Random(name), seconds)
    return Movie(film, _clip(name, sound, (seconds, seconds)) if sound else None)


def _turning_film(name: str, motion: Motion, begin: float) -> Movie:
    """Four seconds, with a tone for less than half of them after `begin` seconds."""
    tone = _clip(name, Sound("high"), (1.4, 1.4))
    return Movie(make_film(motion, random.Random(name), 4.0), within(tone, 4.0, begin))


def _said(word: str, _: random.Random) -> Samples:
    """A word as one of the app's examples says it."""
    assert word == "music"
    return decoded((EXAMPLES / "word.wav").read_bytes())


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
