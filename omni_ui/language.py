"""In which language a reader is spoken to: the chosen one or the browser's own, out of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import gradio as gr
from gradio.i18n import I18nData
from starlette.requests import Request

from omni_backend import DEFAULT_LANGUAGE, LANGUAGES, Language, sentences

LANGUAGE_NAMES: Final[Mapping[Language, str]] = {"en": "English", "zh": "中文"}
"""Each language by its own name, for those who read no other."""
SCRIPT_AREAS: Final = frozenset({"composer", "camera", "page", "jobs"})
"""The areas of the catalogue that are handed to the page's scripts."""

Texts = Mapping[str, Mapping[Language, str]]
"""key → language → text: what a page adds to the catalogue, example messages say."""


def translations(extra: Texts | None = None) -> gr.I18n:
    """The whole catalogue and `extra` for the browser, which picks its language by itself."""
    tables: dict[str, dict[str, str]] = {}
    for language in LANGUAGES:
        table = sentences(language) | {key: texts[language] for key, texts in (extra or {}).items()}
        tables[language] = table
        if language == "zh":  # the names that Gradio gives to Chinese
            tables |= {"zh-CN": table, "zh-TW": table}
    return gr.I18n(**tables)


def label(key: str) -> I18nData:
    """A sentence without gaps that the browser looks up in its own language."""
    return I18nData(key)


def texts_for_scripts() -> dict[Language, dict[str, str]]:
    """The sentences that the page's own scripts say, by language: the areas of SCRIPT_AREAS."""
    return {
        language: {key: text for key, text in sentences(language).items() if key.split(".")[0] in SCRIPT_AREAS}
        for language in LANGUAGES
    }


def language_of(request: gr.Request | Request | None) -> Language:
    """The `lang` of the page's address, else the first language of Accept-Language that the catalogue has."""
    if request is None:
        return DEFAULT_LANGUAGE
    choices = [request.query_params.get("lang") or "", *request.headers.get("accept-language", "").split(",")]
    for choice in choices:
        name = choice.split(";")[0].strip().lower()
        for language in LANGUAGES:
            if name == language or name.startswith(f"{language}-"):
                return language
    return DEFAULT_LANGUAGE
