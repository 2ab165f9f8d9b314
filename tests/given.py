"""Files, folders and zip archives as people give them to be captioned, archives forged where need be."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from omni_backend import LANGUAGES
from omni_backend.caption.collect import Collected, collect

Bytes = bytes | bytearray
ENTRY = b"PK\x01\x02"


def write(path: Path, content: bytes | str = b"sound") -> Path:
    """A file at `path`, with the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def zipped(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED) -> bytearray:
    """A zip archive of `members`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content, compress_type=method)
    return bytearray(buffer.getvalue())


def forge(archive: bytearray, field: int, value: int, *, entry: int = 0, size: int = 4) -> None:
    """Writes `value` into a field of the list's entry number `entry`."""
    start = -1
    for _ in range(entry + 1):
        start = archive.index(ENTRY, start + 1)
    archive[start + field : start + field + size] = value.to_bytes(size, "little")


class Given:
    """A place for what is given, and for what is unpacked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "given"
        self.folder.mkdir()
        self.unpacked = folder / "unpacked"

    def collect(self, *names: str, max_files: int = 100, max_zip_bytes: int = 1 << 30) -> Collected:
        """What comes of the things with these names."""
        things = [(name, self.folder / name) for name in names]
        return collect(things, self.unpacked, max_files=max_files, max_zip_bytes=max_zip_bytes)

    def zip(self, archive: Bytes, *, max_files: int = 100, max_zip_bytes: int = 1 << 30) -> Collected:
        """What comes of an archive called a.zip."""
        write(self.folder / "a.zip", bytes(archive))
        return self.collect("a.zip", max_files=max_files, max_zip_bytes=max_zip_bytes)

    def left(self) -> list[Path]:
        """All that lies unpacked."""
        return sorted(self.unpacked.rglob("*"))


def names(collected: Collected) -> list[str]:
    return [found.name for found in collected.found]


def reasons(collected: Collected) -> list[tuple[str, str]]:
    """The names of what was refused, and the keys of the sentences, each of which can be read."""
    for refused in collected.refused:
        for language in LANGUAGES:
            assert refused.name in refused.reason.text(language)
    return [(refused.name, refused.reason.key.removeprefix("collect.")) for refused in collected.refused]
