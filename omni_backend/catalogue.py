"""Every sentence that a person reads, in English and Chinese, from one catalogue.

The sentences live in `locale/<language>/*.json`, a file for each area: key → text with `{named}` gaps.
Code carries a `Phrase` (a key and its values) and renders it only at the edge, in the reader's language.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
DEFAULT_LANGUAGE: Language = "en"

_LOCALE = Path(__file__).parent / "locale"


@dataclass(frozen=True, slots=True)
class Phrase:
    """A sentence of the catalogue with its values, not yet in any language. Make one with `phrase()`."""

    key: str
    values: tuple[tuple[str, str | int | float], ...] = ()

    def text(self, language: Language = DEFAULT_LANGUAGE) -> str:
        """The sentence in `language`. Raises KeyError for a key that the catalogue does not have."""
        return sentences(language)[self.key].format_map(dict(self.values))

    def __str__(self) -> str:
        return self.text()


def phrase(key: str, /, **values: str | int | float) -> Phrase:
    """The sentence `key` of the catalogue, its gaps filled with `values`."""
    return Phrase(key, tuple(values.items()))


@cache
def sentences(language: Language) -> dict[str, str]:
    """The whole catalogue of one language: key → text with `{named}` gaps."""
    merged: dict[str, str] = {}
    for file in sorted((_LOCALE / language).glob("*.json")):
        merged |= json.loads(file.read_text(encoding="utf-8"))
    return merged
