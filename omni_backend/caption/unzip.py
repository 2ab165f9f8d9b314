"""Zip archives from strangers: their sounds and films, unpacked under names of our own.

Nothing that an archive says about itself is believed: its list is read only up to a size, its members may not share
data, and what they unpack to is counted byte by byte, in blocks that fit into memory.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from omni_backend.caption import limits
from omni_backend.caption.file_names import ending, in_order, is_hidden, is_media, safe_name
from omni_backend.catalogue import Phrase, phrase
from omni_backend.media_values import bytes_text

_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")  # the first file, or the end of an empty archive
_ENTRY: Final = b"PK\x01\x02"
_LOCAL: Final = struct.Struct("<4s22xHH")  # mark, length of the name, length of the extra field
_BLOCK: Final = 256 * 1024
_LZMA_HEAD: Final = 9  # bytes

_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
_PATCH: Final = 0x20
_UTF8: Final = 0x800
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class ArchiveRefused(Exception):
    """The whole archive is of no use; `phrase` says why. Nothing of it is left on disk."""

    def __init__(self, phrase: Phrase) -> None:
        super().__init__(phrase)
        self.phrase = phrase


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What one archive gave. Names are safe and begin with the archive's own, without its ending."""

    files: tuple[tuple[str, Path], ...]
    refused: tuple[tuple[str, Phrase], ...]
    """Members that cannot be used, and why."""
    skipped: tuple[str, ...]
    """Members that are neither sounds nor films."""
    left_out: str | None
    """The first one that was not unpacked because there were enough."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    info: zipfile.ZipInfo
    start: int
    """Where its packed bytes begin in the archive."""


class _Damaged(Exception):
    """The packed bytes of a member make no sense."""


def is_zip(path: Path) -> bool:
    """Whether the ordinary file at `path` begins like a zip archive; one that only ends like one may be a sound."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _MAGIC
    except OSError:
        return False


def unpack(archive: Path, name: str, into: Path, *, most: int, max_bytes: int) -> Unpacked:
    """Unpacks at most `most` sounds and films of `archive`, called `name`, into a new folder in `into`.

    Raises ArchiveRefused: broken, encrypted, with names that lead elsewhere, too many members, more than
    `max_bytes` or half of the free disk, or one of the ways to make much out of little.
    """
    try:
        file = archive.open("rb")
    except OSError as error:
        raise ArchiveRefused(phrase("collect.not_there", name=name)) from error
    with file:
        members, refused, skipped = _sorted_out(_listed(file, archive, name), name)
        left_out = members[most].name if len(members) > most else None
        members = members[:most]
        files, damaged = _write(file, members, into, name, max_bytes) if members else ((), ())
    return Unpacked(files, (*refused, *damaged), skipped, left_out)


class _ListReader(io.BufferedReader):
    """What `zipfile` reads a list of members through: the list comes in one read, which is held within the limits."""

    name_for_people = ""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > limits.ZIP_DIRECTORY_BYTES:
            limit = bytes_text(limits.ZIP_DIRECTORY_BYTES)
            raise ArchiveRefused(phrase("collect.zip_list", name=self.name_for_people, limit=limit))
        data = super().read(size)
        if size is not None and size >= 0 and data.count(_ENTRY) > limits.ZIP_MEMBERS:
            raise ArchiveRefused(phrase("collect.zip_members", name=self.name_for_people, limit=limits.ZIP_MEMBERS))
        return data


def _listed(file: BinaryIO, archive: Path, name: str) -> list[_Member]:
    """All members with the places of their bytes. Raises ArchiveRefused: broken, too many, overlapping."""
    with _ListReader(io.FileIO(archive)) as reader:
        reader.name_for_people = name
        try:
            with zipfile.ZipFile(reader) as listing:
                infos, end = listing.infolist(), listing.start_dir
        except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError, OverflowError, OSError) as error:
            raise _broken(name) from error
    members = []
    for info in sorted(infos, key=lambda info: info.header_offset):
        if not 0 <= info.header_offset <= end - _LOCAL.size:
            raise _broken(name)
        file.seek(info.header_offset)
        mark, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
        if mark != b"PK\x03\x04":
            raise _broken(name)
        start = info.header_offset + _LOCAL.size + name_length + extra_length
        members.append(_Member(_decoded(info), info, start))
    nexts = [member.info.header_offset for member in members[1:]] + [end]
    for member, after in zip(members, nexts, strict=False):
        if member.start + member.info.compress_size > after:
            raise ArchiveRefused(phrase("collect.zip_overlap", name=name))
    return members


def _broken(name: str) -> ArchiveRefused:
    return ArchiveRefused(phrase("collect.zip_broken", name=name))


def _decoded(info: zipfile.ZipInfo) -> str:
    """The member's name. Without the UTF-8 flag it may be UTF-8 all the same, or Chinese Windows' GBK."""
    if info.flag_bits & _UTF8:
        return info.orig_filename
    raw = info.orig_filename.encode("cp437")  # as zipfile read it
    # Letters with accents of cp437 stand alone; Chinese is pairs of high bytes, or of one and what is no backslash.
    for encoding in ("utf-8", "gb18030") if re.search(rb"[\x80-\xff][\x80-\xff\\]", raw) else ():
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            continue
    return info.orig_filename


def _sorted_out(
    members: list[_Member], name: str
) -> tuple[list[_Member], tuple[tuple[str, Phrase], ...], tuple[str, ...]]:
    """The members to unpack, in the order people expect; those refused, and why; those that are no media.

    Raises ArchiveRefused: encrypted, or a name that leads elsewhere.
    """
    if any(_leads_elsewhere(member.name) for member in members):
        raise ArchiveRefused(phrase("collect.zip_paths", name=name))
    if any(member.info.flag_bits & _ENCRYPTED for member in members):
        raise ArchiveRefused(phrase("collect.zip_encrypted", name=name))
    wanted: list[_Member] = []
    refused: list[tuple[str, Phrase]] = []
    skipped: list[str] = []
    prefix = re.sub("(?i)[.]zip$", "", name) or name
    for member in sorted(members, key=lambda member: in_order(member.name)):
        inside, info = member.name, member.info
        if inside.endswith("/"):
            continue
        shown = safe_name(f"{prefix}/{inside}")
        is_zip = ending(inside) == "zip"
        if is_hidden(inside) or not (is_zip or is_media(inside)):
            skipped.append(shown)
        elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            refused.append((shown, phrase("collect.member_link", name=shown)))
        elif is_zip:
            refused.append((shown, phrase("collect.member_zip", name=shown)))
        elif info.compress_type not in _METHODS or info.flag_bits & _PATCH:
            refused.append((shown, phrase("collect.member_method", name=shown)))
        else:
            wanted.append(_Member(shown, info, member.start))
    return wanted, tuple(refused), tuple(skipped)


def _leads_elsewhere(inside: str) -> bool:
    return bool(re.match("/|[A-Za-z]:", inside)) or "\\" in inside or "\0" in inside or ".." in inside.split("/")


class _Room:
    """How much an archive may still unpack to."""

    def __init__(self, into: Path, name: str, max_bytes: int) -> None:
        half = shutil.disk_usage(into).free // 2
        self._left = min(half, max_bytes)
        key = "collect.zip_disk" if half < max_bytes else "collect.zip_bytes"
        self._refusal = phrase(key, name=name, limit=bytes_text(self._left))

    def expect(self, count: int) -> None:
        """Raises ArchiveRefused when `count` more bytes are too many."""
        if count > self._left:
            raise ArchiveRefused(self._refusal)

    def take(self, count: int) -> None:
        """Counts `count` bytes. Raises ArchiveRefused when they are too many."""
        self.expect(count)
        self._left -= count


def _write(
    file: BinaryIO, members: list[_Member], into: Path, name: str, max_bytes: int
) -> tuple[tuple[tuple[str, Path], ...], tuple[tuple[str, Phrase], ...]]:
    """Unpacks `members`: the names and places of their files, and the damaged ones. Raises ArchiveRefused."""
    files: list[tuple[str, Path]] = []
    damaged: list[tuple[str, Phrase]] = []
    folder: Path | None = None
    try:
        into.mkdir(parents=True, exist_ok=True)
        room = _Room(into, name, max_bytes)
        room.expect(sum(member.info.file_size for member in members))  # spares an honest archive the work
        folder = Path(tempfile.mkdtemp(prefix="zip-", dir=into))
        for number, member in enumerate(members, 1):
            target = folder / f"{number}.{ending(member.name)}"
            try:
                _write_member(file, member, target, name, room)
            except _Damaged:
                target.unlink(missing_ok=True)
                damaged.append((member.name, phrase("collect.member_damaged", name=member.name)))
            else:
                files.append((member.name, target))
    except BaseException as error:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise ArchiveRefused(phrase("collect.zip_not_written", name=name)) from error
        raise
    return tuple(files), tuple(damaged)


def _write_member(file: BinaryIO, member: _Member, target: Path, name: str, room: _Room) -> None:
    """Unpacks one member. Raises _Damaged, ArchiveRefused (a bomb), OSError (the disk)."""
    written = checksum = 0
    by_ratio = max(limits.ZIP_RATIO_FREE_BYTES, limits.ZIP_RATIO * member.info.compress_size)
    with target.open("xb") as out:
        for block in _blocks(file, member):
            room.take(len(block))
            written += len(block)
            if written > by_ratio:
                raise ArchiveRefused(phrase("collect.zip_ratio", name=name, member=member.name, limit=limits.ZIP_RATIO))
            checksum = zlib.crc32(block, checksum)
            out.write(block)
    if checksum != member.info.CRC:
        raise _Damaged


class _Decoder(Protocol):
    """Like the decompressors of `bz2` and `lzma`: hands out at most so much at once, and keeps the rest."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Inflater:
    """A `_Decoder` of deflated data."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max(0, max_length))


class _Copier:
    """A `_Decoder` of data that is not packed."""

    eof = False
    needs_input = True

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return data


def _blocks(file: BinaryIO, member: _Member) -> Iterator[bytes]:
    """The member's bytes in small blocks, to their real end. Raises _Damaged."""
    left = member.info.compress_size
    try:
        file.seek(member.start)
        decoder = _decoder(member.info.compress_type)
        if decoder is None:
            head = file.read(min(left, _LZMA_HEAD))
            left -= len(head)
            decoder = _lzma_decoder(head)
        while not decoder.eof:
            data = file.read(min(left, _BLOCK)) if decoder.needs_input else b""
            left -= len(data)
            block = decoder.decompress(data, _BLOCK)
            if block:
                yield block
            elif not data and decoder.needs_input:
                return  # its end is not marked
    except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise _Damaged from error


def _decoder(method: int) -> _Decoder | None:
    """For one of `_METHODS`; None for LZMA, whose settings stand before the data."""
    match method:
        case zipfile.ZIP_STORED:
            return _Copier()
        case zipfile.ZIP_DEFLATED:
            return _Inflater()
        case zipfile.ZIP_BZIP2:
            return bz2.BZ2Decompressor()
    return None


def _lzma_decoder(head: bytes) -> _Decoder:
    """By what stands before the data: a version, the length of the settings, the settings. Raises ValueError."""
    if len(head) < _LZMA_HEAD or head[2:4] != b"\x05\0":
        raise ValueError("not the settings of LZMA")
    settings, window = head[4], int.from_bytes(head[5:], "little")
    if window > limits.ZIP_WINDOW_BYTES:
        raise ValueError("unpacking takes too much memory")
    lc, lp, pb = settings % 9, settings // 9 % 5, settings // 45
    lzma1 = {"id": lzma.FILTER_LZMA1, "dict_size": window, "lc": lc, "lp": lp, "pb": pb}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[lzma1])
