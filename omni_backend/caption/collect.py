"""What people give (files, folders, zip archives) as the files to caption, each with a name of its own."""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from omni_backend.caption import limits
from omni_backend.caption.file_names import ending, in_order, is_hidden, is_media, printable, safe_name
from omni_backend.caption.unzip import ArchiveRefused, is_zip, unpack
from omni_backend.catalogue import Phrase, phrase


@dataclass(frozen=True, slots=True)
class Found:
    """One file to caption."""

    name: str
    """As people know it: relative, "/"-separated, without "..", printable. No other one differs only in capitals."""
    path: Path


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that cannot be used at all."""

    name: str
    reason: Phrase


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of everything that was given."""

    found: tuple[Found, ...]
    refused: tuple[Refused, ...]
    skipped: tuple[str, ...]
    """Hidden files, pictures, texts, links and pipes in the folders and archives."""


def collect(
    given: Iterable[tuple[str, Path]],
    unpack_to: Path,
    *,
    max_files: int = limits.FILES,
    max_zip_bytes: int = limits.ZIP_BYTES,
) -> Collected:
    """The files to caption in `given`: what the user calls each thing, and where it is. Blocks; raises nothing.

    A file given by name is always found, whatever it is; in folders and archives the ending decides. Folders come
    in the order people expect ("2.wav" before "10.wav") and are named below themselves, the members of an archive
    below its name. Archives are unpacked into `unpack_to`, made when needed; the caller deletes it.
    Of more than `max_files` the first ones are found. One archive may unpack to `max_zip_bytes`.
    """
    basket = _Basket(unpack_to, max_files, max_zip_bytes)
    try:
        for name, path in given:
            basket.take(name, path)
    except _Full:
        pass
    return Collected(tuple(basket.found), tuple(basket.refused), tuple(basket.skipped))


class _Full(Exception):
    """No more files are taken."""


class _Basket:
    """What has been collected so far. Its methods raise _Full after the last file that is taken."""

    def __init__(self, unpack_to: Path, max_files: int, max_zip_bytes: int) -> None:
        self.found: list[Found] = []
        self.refused: list[Refused] = []
        self.skipped: list[str] = []
        self._unpack_to = unpack_to
        self._max_files = max_files
        self._max_zip_bytes = max_zip_bytes
        self._taken: set[str] = set()
        self._counts: dict[str, int] = {}

    def take(self, name: str, path: Path) -> None:
        """Adds the file, or all that is in the folder or archive, at `path`."""
        shown, before = safe_name(name) or printable(name) or "_", len(self.found) + len(self.refused)
        mode = _mode(path)
        if stat.S_ISDIR(mode):
            self._folder(shown, path)
        elif stat.S_ISREG(mode):
            self._file(safe_name(name) or "_", path)
        else:
            self._refuse(shown, "not_a_file" if mode else "not_there")
        if len(self.found) + len(self.refused) == before:
            self._refuse(shown, "nothing")

    def _file(self, name: str, path: Path) -> None:
        if is_zip(path):
            self._archive(name, path)
        else:
            self._add(name, path)

    def _folder(self, name: str, root: Path) -> None:
        """Adds what is in the folder `root`; only the sentence about an unreadable one needs its `name`."""
        waiting = self._inside(name, "", root)
        real, unpacked = root.resolve(), self._unpack_to.resolve()
        own = root / unpacked.relative_to(real) if unpacked.is_relative_to(real) else None
        while waiting:
            inside, path = waiting.pop()
            mode = _mode(path)
            if path == own:
                continue
            if is_hidden(inside) or (stat.S_ISDIR(mode) and path.is_symlink()):
                self.skipped.append(printable(inside))
            elif stat.S_ISDIR(mode):
                waiting.extend(self._inside(inside, f"{inside}/", path))
            elif stat.S_ISREG(mode) and ending(inside) == "zip":
                self._archive(safe_name(inside), path)
            elif stat.S_ISREG(mode) and is_media(inside):
                self._add(safe_name(inside), path)
            else:
                self.skipped.append(printable(inside))

    def _inside(self, name: str, prefix: str, folder: Path) -> list[tuple[str, Path]]:
        """What is directly in `folder`, the last one first."""
        try:
            paths = sorted(folder.iterdir(), key=lambda path: in_order(path.name), reverse=True)
        except OSError:
            self._refuse(printable(name), "folder")
            return []
        return [(prefix + path.name, path) for path in paths]

    def _archive(self, name: str, path: Path) -> None:
        most = self._max_files - len(self.found)
        try:
            unpacked = unpack(path, name, self._unpack_to, most=most, max_bytes=self._max_zip_bytes)
        except ArchiveRefused as error:
            self.refused.append(Refused(name, error.phrase))
            return
        self.refused.extend(Refused(*refused) for refused in unpacked.refused)
        self.skipped.extend(unpacked.skipped)
        for file in unpacked.files:
            self._add(*file)
        if unpacked.left_out is not None:
            self._full(unpacked.left_out)

    def _add(self, name: str, path: Path) -> None:
        if len(self.found) >= self._max_files:
            self._full(name)
        self.found.append(Found(self._unique(name), path))

    def _full(self, left_out: str) -> NoReturn:
        self._refuse(left_out, "too_many", limit=self._max_files)
        raise _Full

    def _refuse(self, name: str, key: str, **values: int) -> None:
        self.refused.append(Refused(name, phrase(f"collect.{key}", name=name, **values)))

    def _unique(self, name: str) -> str:
        """`name`, or "name (2)" where there is one like it; capitals make no difference, as on many disks."""
        suffix = PurePosixPath(name).suffix
        stem, base = name.removesuffix(suffix), name.casefold()
        count, unique = self._counts.get(base, 1), name
        while unique.casefold() in self._taken:
            count += 1
            unique = f"{stem} ({count}){suffix}"
        self._counts[base] = count
        self._taken.add(unique.casefold())
        return unique


def _mode(path: Path) -> int:
    """What kind of thing is at `path`, links followed; 0 where nothing can be reached."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return 0
