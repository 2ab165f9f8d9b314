"""In which language a reader is spoken to: the browser's own, out of the catalogue."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr
from gradio.i18n import I18nData

from omni_backend import DEFAULT_LANGUAGE, LANGUAGES, Language, sentences

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


def language_of(request: gr.Request | None) -> Language:
    """The first language of the request's Accept-Language that the catalogue has."""
    header = request.headers.get("accept-language", "") if request is not None else ""
    for choice in header.split(","):
        name = choice.split(";")[0].strip().lower()
        for language in LANGUAGES:
            if name == language or name.startswith(f"{language}-"):
                return language
    return DEFAULT_LANGUAGE
