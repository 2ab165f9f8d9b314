"""Small helpers for tests of conversations on the server."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import numpy as np

from omni_backend import AudioDelta, Capabilities, MediaPart, Message, Phrase, ScriptedBackend, TextPart
from omni_ui.sessions import AnswerOptions, Outcome, Session

FOREVER = 3600.0
SOUND = AudioDelta(np.full(4800, 0.25, np.float32), 24_000)
TWO_AT_ONCE = Capabilities("scripted", "a script", max_concurrency=2)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def user(text: str, *files: Path) -> Message:
    return Message("user", (*(MediaPart("image", str(file)) for file in files), TextPart(text)))


def said(session: Session) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in session.messages]


async def ask(
    session: Session,
    backend: ScriptedBackend,
    message: Message | str = "Hi",
    options: AnswerOptions | None = None,
    *,
    replacing: int | None = None,
) -> Outcome:
    """Asks, waits for the end and gives how it ended."""
    if isinstance(message, str):
        message = user(message)
    await session.ask(backend, message, options or AnswerOptions(), replacing=replacing).wait()
    outcome = session.take_outcome()
    assert outcome is not None
    return outcome


def upload(uploads: Path, name: str = "a photo.png", contents: bytes = b"picture") -> Path:
    """A file as Gradio keeps an upload: in a folder of its own that is named by a hash."""
    folder = uploads / secrets.token_hex(32)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(contents)
    return folder / name


def files_under(folder: Path) -> set[Path]:
    return {Path(at, name) for at, _, names in os.walk(folder) for name in names}  # others may delete meanwhile


def keys(phrases: tuple[Phrase, ...]) -> list[str]:
    return [phrase.key for phrase in phrases]
