"""Uploads as Gradio keeps them: `<uploads>/<hash>/<name>`, for an hour, however many there are."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

_FOLDER: Final = re.compile(r"[0-9a-f]{64}")
"""Named by the SHA-256 of the contents."""


def is_upload(path: Path, uploads: Path | None) -> bool:
    """Whether Gradio keeps an upload there; nothing else lies in such a folder."""
    return path.parent.parent == uploads and _FOLDER.fullmatch(path.parent.name) is not None


def trim_uploads(uploads: Path, limit: int, *, since: float, empty_before: float) -> None:
    """Deletes the oldest uploads that no conversation links to, until they have at most `limit` bytes together.

    What is dated before `since` (Unix time) is the app's own. Empty folders go, too, if they are dated
    before `empty_before`: into a new one an upload may be on its way.
    """
    loose: list[tuple[float, int, Path]] = []
    for folder in uploads.iterdir() if uploads.is_dir() else ():
        if _FOLDER.fullmatch(folder.name):
            with suppress(OSError):  # somebody else was quicker
                loose += _loose_files(folder, since)
                if folder.stat().st_mtime < empty_before:
                    folder.rmdir()  # only if it is empty
    total = sum(size for _, size, _ in loose)
    for _, size, path in sorted(loose):
        if total <= limit:
            break
        with suppress(OSError):
            path.unlink()
            total -= size


def link_or_copy(source: Path, target: Path) -> bool:
    """Gives a file a second name; whether it is a link and no copy.

    Raises OSError when `source` is gone or cannot be read.
    """
    try:
        os.link(source, target)
        return True
    except FileNotFoundError:
        raise
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)
        return False


def _loose_files(folder: Path, since: float) -> list[tuple[float, int, Path]]:
    """Date, size and path of what nobody links to."""
    files = [(path, path.stat()) for path in folder.iterdir()]
    return [
        (stat.st_mtime, stat.st_size, path) for path, stat in files if stat.st_nlink == 1 and stat.st_mtime >= since
    ]


__all__ = ["is_upload", "link_or_copy", "trim_uploads"]
