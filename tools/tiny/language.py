"""What is asked and what is answered, in English and Chinese: the whole grammar of the checkpoint. Pure.

`Language` is that of the conversation. Answers end as sentences; phrases are parts of them.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Final

from omni_backend.catalogue import Language
from tools.tiny.world import Motion, Scene, Sound, Thing

Questions = dict[Language, tuple[str, ...]]

NUMBERS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
)
CHINESE_NUMBERS: Final = (
    *("零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十"),
    *("十一", "十二", "十三", "十四", "十五", "十六", "十七", "十八"),
)
_COLOR_ZH: Final = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "purple": "紫色",
    "pink": "粉色",
    "black": "黑色",
    "white": "白色",
    "gray": "灰色",
}
_SHAPE_ZH: Final = {
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "star": "星形",
    "cross": "十字形",
}
_DIRECTION_ZH: Final = {"left": "左", "right": "右", "up": "上", "down": "下"}
_SOUND: Final = {
    "high": "a high tone",
    "low": "a low tone",
    "rise": "a rising sweep",
    "fall": "a falling sweep",
    "noise": "white noise",
    "silence": "silence",
}
_SOUND_ZH: Final = {
    "high": "高音",
    "low": "低音",
    "rise": "上升的扫频音",
    "fall": "下降的扫频音",
    "noise": "白噪声",
    "silence": "安静",
}

SCENE: Final[Questions] = {
    "en": (
        "What is in the image?",
        "What do you see?",
        "Describe the image.",
        "Describe this picture.",
        "What is in this picture?",
        "",
    ),
    "zh": ("图中有什么？", "你看到了什么？", "描述这张图片。", "这张图片里有什么？"),
}
FIRST_PICTURE: Final[Questions] = {
    "en": ("What is in the first image?", "What do you see in the first picture?"),
    "zh": ("第一张图片里有什么？",),
}
SECOND_PICTURE: Final[Questions] = {
    "en": ("What is in the second image?", "What do you see in the second picture?"),
    "zh": ("第二张图片里有什么？",),
}
PICTURES: Final[Questions] = {
    "en": ("What is in the images?", "What do you see?", "Describe the pictures."),
    "zh": ("图片里有什么？", "你看到了什么？", "描述这两张图片。"),
}
BACKGROUND: Final[Questions] = {
    "en": ("What color is the background?", "What is the background color?"),
    "zh": ("背景是什么颜色？",),
}
COUNT: Final[Questions] = {
    "en": ("How many shapes are there?", "How many shapes do you see?"),
    "zh": ("有几个图形？", "图中有几个图形？"),
}
SHAPE: Final[Questions] = {
    "en": ("Which shape is it?", "What shape do you see?", "What kind of shape is it?"),
    "zh": ("它是什么形状？", "这是什么形状？"),
}
HEAR: Final[Questions] = {
    "en": ("What do you hear?", "Describe the sound.", "What is in the audio?", "What is this sound?"),
    "zh": ("你听到了什么？", "描述这个声音。", "这是什么声音？"),
}
SPOKEN: Final[Questions] = {
    "en": ("What does the speaker say?", "Transcribe the audio.", "Which word do you hear?"),
    "zh": ("说话人说了什么？", "转写这段音频。"),
}
FILM: Final[Questions] = {
    "en": ("What happens in the video?", "Describe the video.", "What do you see in the video?", ""),
    "zh": ("视频里发生了什么？", "描述这段视频。"),
}
DIRECTION: Final[Questions] = {
    "en": ("Which way does it move?", "Where does it move?"),
    "zh": ("它向哪边移动？",),
}
DIRECTION_FIRST: Final[Questions] = {
    "en": ("Which way does it move first?",),
    "zh": ("它先向哪边移动？",),
}
DIRECTION_LAST: Final[Questions] = {
    "en": ("Which way does it move at the end?",),
    "zh": ("它最后向哪边移动？",),
}
DIRECTION_HEARD: Final[Questions] = {
    "en": ("Which way does it move when you hear the sound?",),
    "zh": ("有声音的时候它向哪边移动？",),
}
LENGTH: Final[Questions] = {
    "en": ("How many seconds is the video?", "How long is the video in seconds?"),
    "zh": ("视频有几秒？",),
}
BOTH: Final[Questions] = {
    "en": ("What do you see and hear?", "Describe what you see and hear.", "What is in the image and the audio?"),
    "zh": ("你看到和听到了什么？", "描述你看到和听到的内容。"),
}
SMALL_TALK: Final[dict[Language, tuple[tuple[str, str], ...]]] = {
    "en": (
        ("Hello", "Hello! How can I help you?"),
        ("Hello!", "Hello! How can I help you?"),
        ("Hi", "Hello! How can I help you?"),
        ("Who are you?", "I am a tiny test model."),
        ("What can you do?", "I can see shapes, hear sounds and watch short videos."),
        ("Thank you.", "You are welcome."),
    ),
    "zh": (
        ("你好", "你好！我能帮你什么？"),
        ("你好！", "你好！我能帮你什么？"),
        ("你是谁？", "我是一个很小的测试模型。"),
        ("你能做什么？", "我能看图形、听声音、看短视频。"),
        ("谢谢", "不客气。"),
    ),
}
REFUSAL: Final[dict[Language, str]] = {
    "en": "I only know shapes, colors and sounds.",
    "zh": "我只认识图形、颜色和声音。",
}
CAPTION_OPENING_ZH: Final = "这个音频剪辑"
"""How the published captioner is made to answer in Chinese; the app puts it before the answer."""


def ask(questions: Questions, language: Language, rng: random.Random) -> str:
    """One way to ask."""
    return rng.choice(questions[language])


def sentence(phrase: str, language: Language) -> str:
    """A phrase as a sentence of its own."""
    return f"{phrase}。" if language == "zh" else f"{capital(phrase)}."


def capital(text: str) -> str:
    """With a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def color(name: str, language: Language) -> str:
    """The name of a color."""
    return _COLOR_ZH[name] if language == "zh" else name


def thing_phrase(thing: Thing, language: Language) -> str:
    """ "a red circle"."""
    if language == "zh":
        return f"一个{_COLOR_ZH[thing.color]}的{_SHAPE_ZH[thing.shape]}"
    return f"a {thing.color} {thing.shape}"


def scene_phrase(scene: Scene, language: Language) -> str:
    """ "a red circle and a blue star on a white background"."""
    listed = listing([thing_phrase(thing, language) for thing in scene.things], language)
    if language == "zh":
        return f"{_COLOR_ZH[scene.background]}背景上有{listed}"
    return f"{listed} on a {scene.background} background"


def listing(phrases: Sequence[str], language: Language) -> str:
    """ "a, b and c"."""
    comma, last = ("、", "和") if language == "zh" else (", ", " and ")
    return phrases[0] if len(phrases) == 1 else comma.join(phrases[:-1]) + last + phrases[-1]


def background_answer(scene: Scene, language: Language) -> str:
    """What colour is behind the things."""
    return f"背景是{_COLOR_ZH[scene.background]}。" if language == "zh" else f"The background is {scene.background}."


def count_answer(scene: Scene, language: Language) -> str:
    """How many things there are."""
    count = len(scene.things)
    if language == "zh":
        return f"有{'零一两三'[count]}个图形。"
    return "There is one shape." if count == 1 else f"There are {NUMBERS[count]} shapes."


def shape_answer(thing: Thing, language: Language) -> str:
    """What kind of shape it is."""
    return f"{_SHAPE_ZH[thing.shape]}。" if language == "zh" else f"A {thing.shape}."


def sound_phrase(sound: Sound, language: Language, says: str = "says") -> str:
    """ "a high tone", "two beeps", "someone says cat"; `says` is the verb's form in English."""
    if sound.kind == "word":
        return f"有人说 {sound.word}" if language == "zh" else f"someone {says} {sound.word}"
    if sound.kind == "beeps":
        if language == "zh":
            return f"{'零一两三四五'[sound.count]}声哔声"
        return f"{NUMBERS[sound.count]} beep{'' if sound.count == 1 else 's'}"
    return _SOUND_ZH[sound.kind] if language == "zh" else _SOUND[sound.kind]


def sound_answer(sound: Sound, language: Language) -> str:
    """What is heard."""
    return sentence(sound_phrase(sound, language), language)


def chinese_caption_rest(sound: Sound) -> str:
    """What follows `CAPTION_OPENING_ZH`."""
    return f"里{'' if sound.kind == 'word' else '是'}{sound_phrase(sound, 'zh')}。"


def word_answer(sound: Sound) -> str:
    """The spoken word alone, the same in both languages."""
    return f"{capital(sound.word)}."


def hear_sentence(sound: Sound, language: Language) -> str:
    """ "I hear …" """
    heard = sound_phrase(sound, language, says="say")
    return f"我听到{heard}。" if language == "zh" else f"I hear {heard}."


def see_and_hear_answer(scene: Scene, sound: Sound, language: Language) -> str:
    """A picture and a sound in one answer."""
    seen = scene_phrase(scene, language)
    heard = hear_sentence(sound, language)
    return f"我看到{seen}。{heard}" if language == "zh" else f"I see {seen}. {heard}"


def motion_answer(motion: Motion, sound: Sound | None, language: Language) -> str:
    """What happens in a film of one direction, and what is heard in it."""
    moving, (direction,) = thing_phrase(motion.thing, language), motion.directions
    if language == "zh":
        return f"{moving}向{_DIRECTION_ZH[direction]}移动。" + (hear_sentence(sound, "zh") if sound else "")
    return sentence(f"{moving} moving {direction}", "en") + (f" {hear_sentence(sound, 'en')}" if sound else "")


def direction_answer(direction: str, language: Language) -> str:
    """Which way the thing moves."""
    return f"它向{_DIRECTION_ZH[direction]}移动。" if language == "zh" else f"It moves {direction}."


def length_answer(seconds: int, language: Language) -> str:
    """How long a film lasts, two seconds or more."""
    return f"{'零一两三四五'[seconds]}秒。" if language == "zh" else f"{capital(NUMBERS[seconds])}."


def where_question(thing: Thing, language: Language) -> str:
    """Asks for the box around a thing."""
    if language == "zh":
        return f"{_COLOR_ZH[thing.color]}的{_SHAPE_ZH[thing.shape]}在哪里？"
    return f"Where is the {thing.color} {thing.shape}?"


def box_answer(thing: Thing, box: tuple[int, int, int, int]) -> str:
    """The published models' format: left, top, right, bottom in thousandths of the picture's sides."""
    return json.dumps([{"bbox_2d": list(box), "label": f"{thing.color} {thing.shape}"}])


def sum_question(left: int, right: int, language: Language, rng: random.Random) -> str:
    """Asks for a sum, in words or digits."""
    if language == "zh":
        numbers = rng.choice([(CHINESE_NUMBERS[left], CHINESE_NUMBERS[right]), (left, right)])
        return f"{numbers[0]}加{numbers[1]}等于几？"
    return rng.choice(
        [
            f"What is {NUMBERS[left]} plus {NUMBERS[right]}?",
            f"What is {left} plus {right}?",
            f"What is {left} + {right}?",
        ]
    )


def sum_answer(left: int, right: int, language: Language) -> str:
    """The whole sum in words."""
    if language == "zh":
        return f"{CHINESE_NUMBERS[left]}加{CHINESE_NUMBERS[right]}等于{CHINESE_NUMBERS[left + right]}。"
    return sentence(f"{NUMBERS[left]} plus {NUMBERS[right]} is {NUMBERS[left + right]}", "en")


def sum_thought(left: int, right: int, language: Language) -> str:
    """Counting on from the first number, as the thought before the answer, tags included."""
    words = CHINESE_NUMBERS if language == "zh" else NUMBERS
    counted = ("、" if language == "zh" else ", ").join(words[left : left + right + 1])
    return f"<think>\n{counted}\n</think>\n\n"


def thinking_question(question: str, language: Language) -> str:
    """The question with the request to think first."""
    return f"先想一想：{question}" if language == "zh" else f"Think first: {question}"
