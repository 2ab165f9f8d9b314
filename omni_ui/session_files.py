"""The files of one conversation, under names of its own, which live as long as something names them.

Knows nothing of gradio, but one of its ways: it deletes files that nobody has dated anew for an hour.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omni_ui.limits import TOUCH_SECONDS, UNSENT_SECONDS
from omni_ui.uploads import is_upload, link_or_copy


@dataclass(slots=True)
class _File:
    size: int
    original: Path | None
    """The upload that it shares its contents with."""
    since: float
    sent: bool = False
    """Whether a message that names it was asked, so that no composer holds its original any more."""


class SessionFiles:
    """Thread-safe. `folder`: for these files alone; made when the first comes.

    An upload is linked, not copied, and its original is deleted with the last of its links, if it is a file of
    its own folder under `uploads`. So uploads that another conversation holds stay, and so does anything else,
    like examples. Where files cannot be linked nobody can tell who else uses an original: it is left to Gradio,
    which deletes it an hour after it came.
    """

    def __init__(self, folder: Path, uploads: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes = 0
        """Of all files together; what is linked twice counts twice."""
        self._folder = folder
        self._uploads = uploads
        self._clock = clock
        self._files: dict[Path, _File] = {}
        self._names = 0
        self._dated = clock()
        self._closed = False
        self._lock = threading.RLock()

    def adopt(self, upload: str | Path) -> Path:
        """The conversation's own name for an upload; one of its own files keeps its name.

        Raises OSError when it is gone.
        """
        upload = Path(upload)
        with self._lock:
            own = self._files.get(upload)
            if own is not None and upload.exists():
                own.since, own.sent = self._clock(), False
                return upload

            def bring(target: Path) -> Path | None:
                return upload if link_or_copy(upload, target) and is_upload(upload, self._uploads) else None

            return self._add(upload.name, bring)

    def save(self, name: str, write: Callable[[Path], None]) -> Path:
        """A new file that `write` fills. Raises OSError when the conversation is closed or the disk is full."""
        with self._lock:
            path = self._add(name, lambda path: write(path))
            self._files[path].sent = True
            return path

    def size(self, paths: Collection[Path]) -> int:
        """Bytes of those of `paths` that are the conversation's own."""
        return sum(file.size for path in paths if (file := self._files.get(path)) is not None)

    def mark_sent(self, paths: Collection[Path]) -> None:
        """The messages with these files were asked: they and their originals go when nothing names them."""
        with self._lock:
            for path in paths:
                if path in self._files:
                    self._files[path].sent = True

    def purge(self, keep: Collection[Path]) -> None:
        """Deletes all but `keep`, and but what came for a message that may just be on its way."""
        with self._lock:
            young = self._clock() - UNSENT_SECONDS
            for path, file in list(self._files.items()):
                if path not in keep and (file.sent or file.since <= young):
                    self._delete(path, with_original=file.sent)

    def touch(self) -> None:
        """Dates the files anew, so that Gradio does not delete them as old."""
        with self._lock:
            self._dated = self._clock()
            for path in self._files:
                with suppress(OSError):
                    os.utime(path)

    def touch_if_due(self) -> None:
        """Like `touch`, TOUCH_SECONDS after the last time."""
        if self._clock() - self._dated >= TOUCH_SECONDS:
            self.touch()

    def close(self) -> None:
        """Deletes everything; no file comes any more."""
        with self._lock:
            self._closed = True
            for path in list(self._files):
                self._delete(path, with_original=True)
            shutil.rmtree(self._folder, ignore_errors=True)

    def _add(self, name: str, bring: Callable[[Path], Path | None]) -> Path:
        """`bring` makes the file and returns the original that goes with it."""
        if self._closed:
            raise FileNotFoundError(name)
        self._names += 1
        path = self._folder / str(self._names) / name
        path.parent.mkdir(parents=True)
        try:
            original = bring(path)
            file = _File(path.stat().st_size, original, self._clock())
        except OSError:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
        self._files[path] = file
        self.bytes += file.size
        return path

    def _delete(self, path: Path, *, with_original: bool) -> None:
        file = self._files.pop(path)
        self.bytes -= file.size
        with suppress(OSError):
            # Two names are this one and the original. Another upload may have taken the original's place.
            if with_original and file.original and file.original.samefile(path) and path.stat().st_nlink == 2:
                file.original.unlink()
        shutil.rmtree(path.parent, ignore_errors=True)


__all__ = ["SessionFiles"]
