"""From a media part to its bytes: local paths, `file://`, `data:` and http(s) URLs. Nothing is written to disk."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import os
import stat
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

from omni_backend.media_fetch import Fetcher
from omni_backend.media_values import bad_media, bytes_text
from omni_backend.types import MediaPart

_DIGESTS_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Source:
    """The content of one file, checked against the limit of bytes."""

    name: str
    """What to call it in sentences."""
    content: bytes | Path
    size: int
    """Bytes."""
    digest: str
    """SHA-256 of the bytes."""

    def open(self) -> io.BufferedReader | io.BytesIO:
        """The bytes, to be closed by the caller. Raises BadMedia when the file has gone."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        return open_file(self.content, self.name)


class Sources:
    """Finds the bytes of media parts. Safe to use from several threads.

    `roots`: folders in which local files must lie, links followed; empty: anywhere.
    """

    def __init__(self, max_bytes: int, roots: tuple[Path, ...], fetcher: Fetcher) -> None:
        self._max_bytes = max_bytes
        self._roots = tuple(root.resolve() for root in roots)
        self._fetcher = fetcher
        self._digests: dict[tuple[Path, int, int], str] = {}
        self._lock = threading.Lock()

    def find(self, part: MediaPart) -> Source:
        """The content of `part`. Raises BadMedia: not allowed, not found, empty, too large, not reachable."""
        part = _labelled(part)
        scheme = part.path.split(":", 1)[0].lower() if ":" in part.path else ""
        if scheme == "data":
            return self._from_bytes(part.label, self._data_url(part))
        if scheme in ("http", "https"):
            return self._from_bytes(part.label, self._fetcher.fetch(part.path, part.label, self._max_bytes))
        if scheme == "file":
            return self._local(part.label, _path_of_url(part))
        if "://" in part.path:
            raise bad_media("bad_address", part.label)
        return self._local(part.label, part.path)

    def _from_bytes(self, name: str, data: bytes) -> Source:
        if not data:
            raise bad_media("empty", name)
        return Source(name, data, len(data), hashlib.sha256(data).hexdigest())

    def _data_url(self, part: MediaPart) -> bytes:
        head, comma, payload = part.path.partition(",")
        is_base64 = head.lower().endswith(";base64")
        if not comma:
            raise bad_media("bad_data_url", part.label)
        if not is_base64:
            data = unquote_to_bytes(payload)
        else:
            try:
                data = base64.b64decode("".join(unquote(payload).split()), validate=True)
            except (binascii.Error, ValueError) as error:
                raise bad_media("bad_data_url", part.label, detail=repr(error)) from error
        self._check_size(part.label, len(data))
        return data

    def _local(self, name: str, raw: str) -> Source:
        path = self._allowed(name, raw)
        with open_file(path, name) as file:
            status = os.fstat(file.fileno())
            if status.st_size == 0:
                raise bad_media("empty", name)
            self._check_size(name, status.st_size)
            key = (path, status.st_size, status.st_mtime_ns)
            digest = self._digests.get(key)
            if digest is None:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                with self._lock:
                    if len(self._digests) >= _DIGESTS_KEPT:
                        self._digests.clear()
                    self._digests[key] = digest
        return Source(name, path, status.st_size, digest)

    def _allowed(self, name: str, raw: str) -> Path:
        try:
            path = Path(raw).resolve()
        except (OSError, RuntimeError, ValueError) as error:
            raise bad_media("not_allowed" if self._roots else "not_found", name, detail=repr(error)) from error
        if self._roots and not any(path.is_relative_to(root) for root in self._roots):
            raise bad_media("not_allowed", name)
        return path

    def _check_size(self, name: str, size: int) -> None:
        if size > self._max_bytes:
            raise bad_media("too_large", name, found=bytes_text(size), limit=bytes_text(self._max_bytes))


def open_file(path: Path, name: str) -> io.BufferedReader:
    """The ordinary file at `path`, open for reading. Raises BadMedia: absent, a folder, a device, unreadable.

    The open file does not know its name, so that no decoder can guess by it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise bad_media("not_found", name)
        return os.fdopen(os.open(path, os.O_RDONLY), "rb")
    except (OSError, ValueError) as error:
        raise bad_media("not_found", name, detail=repr(error)) from error


def _labelled(part: MediaPart) -> MediaPart:
    """`part` with a name that can be shown, even if its path is no address that can be taken apart."""
    try:
        return replace(part, name=part.label)
    except ValueError:
        return replace(part, name=part.path)


def _path_of_url(part: MediaPart) -> str:
    try:
        url = urlsplit(part.path)
    except ValueError as error:
        raise bad_media("bad_address", part.label, detail=repr(error)) from error
    if url.netloc not in ("", "localhost"):
        raise bad_media("bad_address", part.label)
    return unquote(url.path)
