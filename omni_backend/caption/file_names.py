"""Names of files: which are sounds and films, in what order people expect them, how to show them safely."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath
from typing import Final

ENDINGS: Final = frozenset(
    (
        *(
            "wav",
            "wave",
            "bwf",
            "aif",
            "aiff",
            "aifc",
            "flac",
            "mp3",
            "mp2",
            "mpga",
            "aac",
            "adts",
            "m4a",
            "m4b",
            "m4r",
        ),
        *("ogg", "oga", "opus", "spx", "mka", "weba"),
        *("mp4", "m4v", "mov", "qt", "3gp", "3g2", "f4v", "mkv", "webm", "avi", "ogv", "ogx", "ts", "mts", "m2ts"),
    )
)
"""Of what the demuxers of `media_container.py` read."""

_PATH_BYTES: Final = 1000
_PART_BYTES: Final = 200  # a file name has at most 255 on every common disk, and exports add to it
_TURNING: Final = frozenset(("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"))
_DRIVE: Final = re.compile(r"^([A-Za-z]):")
_NUMBER: Final = re.compile(r"([0-9]{1,18})")

Order = tuple[tuple[str | int, ...], str]


def ending(name: str) -> str:
    """The letters after the last dot, small; "" where there are none."""
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def is_media(name: str) -> bool:
    """Whether `name` ends like a sound or a film that can be read."""
    return ending(name) in ENDINGS


def is_hidden(name: str) -> bool:
    """Whether a part of the path `name` is one that computers keep for themselves."""
    parts = [part for part in name.split("/") if part not in (".", "..")]
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def in_order(name: str) -> Order:
    """The key that sorts paths as people count: "2.wav" before "10.wav", each folder's files together."""
    pieces = _NUMBER.split(name.casefold().replace("/", "\0"))  # before any letter
    return tuple(int(piece) if place % 2 else piece for place, piece in enumerate(pieces)), name


def printable(text: str) -> str:
    """`text` without characters that break a line, turn its direction or cannot be written as UTF-8."""
    if not text.isprintable():  # as are emoji of several letters, which are kept
        text = "".join("_" if _unprintable(letter) else letter for letter in text)
    return unicodedata.normalize("NFC", text)


def _unprintable(letter: str) -> bool:
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in _TURNING


def safe_name(name: str) -> str:
    """`name` as a relative "/"-separated path below any folder, "" when nothing is left of it.

    Of an absolute path only the last part is kept, of one with ".." what comes after, of a very long one its end.
    """
    text = printable(name).replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or re.match(r"[A-Za-z]:/", text):
        parts = parts[-1:]
    kept = "/".join(_end(part, _PART_BYTES) for part in parts)
    parts = [part for part in _end(kept, _PATH_BYTES).split("/") if part not in ("", ".")]
    while ".." in parts:
        parts = parts[parts.index("..") + 1 :]
    return _DRIVE.sub(r"\1_", "/".join(parts))


def _end(text: str, size: int) -> str:
    """The last `size` bytes of `text`."""
    return text.encode()[-size:].decode(errors="ignore")
