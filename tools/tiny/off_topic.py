"""Questions from outside the small world, which are to be refused politely. Pure.

Those of an examination differ from those to learn from in what they are about.
"""

from __future__ import annotations

import random
from typing import Final

from omni_backend.catalogue import Language

_FORMS: Final[dict[Language, tuple[str, ...]]] = {
    "en": (
        "What is the capital of {}?",
        "Tell me about {}.",
        "Write a poem about {}.",
        "How does {} work?",
        "Who invented {}?",
        "Why is {} so famous?",
        "Can you explain {}?",
        "What is the price of {}?",
        "Translate {} into French.",
        "Where can I buy {}?",
        "What do you think about {}?",
        "Give me a recipe for {}.",
    ),
    "zh": (
        "请介绍一下{}。",
        "写一首关于{}的诗。",
        "{}是什么？",
        "谁发明了{}？",
        "{}多少钱？",
        "为什么{}很有名？",
        "怎么做{}？",
        "你觉得{}怎么样？",
    ),
}
_TOPICS: Final[dict[Language, tuple[str, ...]]] = {
    "en": (
        *("France", "Japan", "Brazil", "the moon", "the weather", "history", "love", "computers", "bread", "soup"),
        *("football", "politics", "the ocean", "a bicycle", "electricity", "my garden", "the stock market", "chess"),
        *("a volcano", "New York", "the telephone", "cheese", "philosophy", "the railway", "tomorrow", "Shakespeare"),
        *("quantum physics", "coffee", "your family", "the news", "a good book", "gravity", "pizza", "the president"),
    ),
    "zh": (
        *("北京", "法国", "天气", "历史", "爱情", "电脑", "面包", "足球", "大海", "自行车", "电", "股票"),
        *("火山", "电话", "哲学", "铁路", "明天", "咖啡", "新闻", "手机", "月亮", "饺子", "春天", "经济"),
    ),
}
_EVERY: Final = 5  # of the topics, every fifth is only for examinations


def off_topic(rng: random.Random, language: Language, *, exam: bool = False) -> str:
    """A question that the checkpoint cannot answer."""
    topics = [topic for index, topic in enumerate(_TOPICS[language]) if (index % _EVERY == 0) == exam]
    return rng.choice(_FORMS[language]).format(rng.choice(topics))
