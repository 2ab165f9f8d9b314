"""What stands in the composer ↔ messages. Knows the form of a gr.MultimodalTextbox's value."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from omni_backend import BadMedia, MediaPart, Message, Part, TextPart, UnsupportedRequest, phrase
from omni_backend.media import media_type
from omni_ui.sessions import Session

MESSAGE_CHARS: Final = 400_000
"""The longest message: about three times what the model reads."""
MESSAGE_FILES: Final = 64
"""More than any checkpoint takes; what it takes is the engine's to say."""

Draft = dict[str, Any]
"""The composer's value: {"text": words, "files": paths}."""


def read_message(value: Draft, session: Session) -> Message:
    """The composer's value as a message: its files in their order, then its words. Blocking.

    Raises BadMedia for a file that cannot be used and UnsupportedRequest when there is nothing to send or too much.
    """
    files = [Path(path) for path in value.get("files") or []]
    if len(files) > MESSAGE_FILES:
        raise UnsupportedRequest(phrase("ui.too_many_files", count=len(files), limit=MESSAGE_FILES))
    text = value.get("text") or ""
    if len(text) > MESSAGE_CHARS:
        raise UnsupportedRequest(phrase("ui.too_many_words", count=len(text), limit=MESSAGE_CHARS))
    types = [media_type(str(file), file.name) for file in files]
    parts: list[Part] = []
    for file, type in zip(files, types, strict=True):
        try:
            parts.append(MediaPart(type, str(session.adopt(file)), file.name))
        except OSError as error:
            raise BadMedia(phrase("ui.file_gone", name=file.name), detail=str(error)) from error
    if text.strip():
        parts.append(TextPart(text))
    if not parts:
        raise UnsupportedRequest(phrase("request.empty"))
    return Message("user", tuple(parts))


def draft(message: Message) -> Draft:
    """A message as the composer's value, so that nothing is lost."""
    files = [part.path for part in message.content if isinstance(part, MediaPart)]
    return {"text": message.text, "files": files}


def joined(first: Draft, then: Draft | None) -> Draft:
    """Two drafts as one, in this order."""
    then = then or {}
    texts = [text for text in (first.get("text"), then.get("text")) if text]
    return {"text": "\n".join(texts), "files": [*(first.get("files") or []), *(then.get("files") or [])]}
