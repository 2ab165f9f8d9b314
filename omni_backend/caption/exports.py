"""Captions as files: a text beside each sound (TXT, SRT, VTT) or one table of all (JSONL, CSV), always UTF-8.

JSONL carries every text as it is. In the other formats each line break is "\\n" and control characters are left out;
what cannot be UTF-8 (half a character) is U+FFFD everywhere. SRT and VTT leave out segments and lines without words,
which players do not show and which would end a subtitle. SRT knows no escape: "<", ">", "{", "}" and "\\" are written
full-width ("＜"), since players hide what they take for a tag, whatever invisible character stands in it.

CSV is data: a text that begins with "=" stays so, although a spreadsheet may take it for a formula.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import textwrap
import unicodedata
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Final, Literal, get_args
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from omni_backend.caption.values import CaptionedFile, Segment

Format = Literal["txt", "jsonl", "csv", "srt", "vtt"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)
SHARED: Final[dict[Format, str]] = {"jsonl": "captions.jsonl", "csv": "captions.csv"}
"""The formats that are one file for all, and its name."""

Files = Sequence[CaptionedFile] | Callable[[], Iterable[CaptionedFile]]
"""What is exported: in memory, or a way to read it again, once for each format and once more for the names."""

_COLUMNS = ("file", "index", "start", "end", "caption", "edited")
_ZERO_WIDTH = "\u200b"
_MOST_NAME_BYTES = 255
"""Of one file name, on every common file system."""


def render(files: Files, formats: Iterable[Format]) -> Iterator[tuple[str, Iterator[str]]]:
    """The exports: relative name with "/" → its text in pieces, to be used before the next is asked for.

    "rain/roof.wav" gives "rain/roof.txt", or "rain/roof.wav.txt" where another file would give the same on any system.
    Only one file is held at a time. A file that comes up after the first reading is left out.
    Raises ValueError: a name that leads outside its folder, or twice the same.
    """
    names = [file.name for file in _read(files)]
    known = set(names)
    if len(known) != len(names):
        raise ValueError("two files have the same name")
    for format_ in dict.fromkeys(formats):
        current = (file for file in _read(files) if file.name in known)
        pieces = _PIECES[format_]
        if format_ in SHARED:
            head = [_csv_line(_COLUMNS)] if format_ == "csv" else []
            yield SHARED[format_], chain(head, chain.from_iterable(map(pieces, current)))
        else:
            places = _sidecars(names, f".{format_}")
            for file in current:
                yield places[file.name], pieces(file)


def write(files: Files, formats: Iterable[Format], out: Path) -> list[Path]:
    """Writes the exports below the folder `out`, each whole or not at all, and returns where they are.

    Raises ValueError (see `render`; also for a link that leads outside `out`) and OSError.
    """
    root = out.resolve()
    written = []
    for name, pieces in render(files, formats):
        path = out / name
        if not path.parent.resolve().is_relative_to(root):
            raise ValueError(f"outside the folder of exports: {name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            file.writelines(pieces)
        written.append(path)
    return written


def archive(files: Files, formats: Iterable[Format], target: Path) -> None:
    """Writes the exports into the zip `target`, whole or not at all. The same captions give the same bytes.

    Raises ValueError (see `render`) and OSError.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(target) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED) as zipped:
        for name, pieces in render(files, formats):
            info = ZipInfo(name)
            info.compress_type = ZIP_DEFLATED
            info.create_system = 3  # Unix, wherever it is made
            info.external_attr = 0o644 << 16
            # How long a table becomes is not known before; without zip64 it may not pass 2 GiB.
            with zipped.open(info, "w", force_zip64=name in SHARED.values()) as member:
                for piece in pieces:
                    member.write(piece.encode())


def _read(files: Files) -> Iterable[CaptionedFile]:
    return files() if callable(files) else files


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Where to write what shall be at `path` once the block ends without an exception."""
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# The text of one file in each format


def _txt(file: CaptionedFile) -> Iterator[str]:
    """The caption alone; of several segments a paragraph each, with its times."""
    if len(file.segments) == 1:
        text = _plain(file.segments[0].text)
        yield f"{text}\n" if text else ""
        return
    for number, segment in enumerate(file.segments):
        start, end = (_clock(_milliseconds(time), ".") for time in (segment.start, segment.end))
        text = _plain(segment.text)
        yield ("\n" if number else "") + f"[{start} --> {end}] {text}".rstrip(" ") + "\n"


def _jsonl(file: CaptionedFile) -> Iterator[str]:
    for segment in file.segments:
        record = {
            "file": file.name,
            "index": segment.index,
            "start": _milliseconds(segment.start) / 1000,
            "end": _milliseconds(segment.end) / 1000,
            "caption": segment.text,
            "edited": segment.edited is not None,
            "captions": segment.captions,
            "cut_short": segment.cut_short,
        }
        line = _whole(json.dumps(record, ensure_ascii=False))
        # JSON allows these as they are, but many readers of lines would end the line here.
        yield re.sub("[\x85\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", line) + "\n"


def _csv(file: CaptionedFile) -> Iterator[str]:
    for segment in file.segments:
        start, end = (f"{_milliseconds(time) / 1000:.3f}" for time in (segment.start, segment.end))
        edited = "false" if segment.edited is None else "true"
        yield _csv_line((_plain(file.name), segment.index, start, end, _plain(segment.text), edited))


def _csv_line(cells: Sequence[object]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(cells)
    return line.getvalue()


def _srt(file: CaptionedFile) -> Iterator[str]:
    for number, (start, end, lines) in enumerate(_cues(file.segments), start=1):
        blank = "\n" if number > 1 else ""
        times = f"{_clock(start, ',')} --> {_clock(end, ',')}"
        yield f"{blank}{number}\n{times}\n{''.join(lines).translate(_FULL_WIDTH)}"


_FULL_WIDTH = str.maketrans("<>{}\\", "＜＞｛｝＼")


def _vtt(file: CaptionedFile) -> Iterator[str]:
    yield "WEBVTT\n"
    for start, end, lines in _cues(file.segments):
        text = "".join(lines).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        yield f"\n{_clock(start, '.')} --> {_clock(end, '.')}\n{text}"


_PIECES: Final[dict[Format, Callable[[CaptionedFile], Iterator[str]]]] = {
    "txt": _txt,
    "jsonl": _jsonl,
    "csv": _csv,
    "srt": _srt,
    "vtt": _vtt,
}


# Times and text


def _cues(segments: Iterable[Segment]) -> Iterator[tuple[int, int, list[str]]]:
    """What is shown: start and end in milliseconds, at least one apart, and the lines, each with its end."""
    for segment in segments:
        parts = (part for line in _plain(segment.text).split("\n") for part in _parts(line.strip()))
        if lines := [f"{_unmistakable(part)}\n" for part in parts]:
            start = _milliseconds(segment.start)
            yield start, max(_milliseconds(segment.end), start + 1), lines


def _parts(line: str) -> list[str]:
    """`line` in lines that FFmpeg takes whole: it cuts those of SRT after 4,095 bytes, through characters. "": none."""
    if line and len(_unmistakable(line).translate(_FULL_WIDTH).encode()) < 4096:
        return [line]
    return textwrap.wrap(line, 1000, expand_tabs=False, replace_whitespace=False, break_on_hyphens=False)


def _unmistakable(line: str) -> str:
    """`line`, so that lax readers take it neither for a subtitle's number nor, with two times in it, for its times."""
    if line.isdecimal():
        return _ZERO_WIDTH + line
    if len(_TIME.findall(line)) > 1:
        return _TIME.sub(rf"\g<0>{_ZERO_WIDTH}", line)
    return line


_TIME = re.compile(r":\d{1,2}[.,](?=\d)")


def _plain(text: str) -> str:
    """`text` with "\\n" between its lines, without control characters, writable as UTF-8."""
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]", "", "\n".join(_whole(text).splitlines()))


def _whole(text: str) -> str:
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _clock(milliseconds: int, point: str) -> str:
    """HH:MM:SS and three digits after `point`; of the hours as many as there are."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"


# Names


def _sidecars(names: Sequence[str], suffix: str) -> dict[str, str]:
    """Name → relative path of its sidecar, all different, also where "A" and "a" or the two kinds of "é" are one."""
    folders = {_comparable(str(folder)) for name in names for folder in _harmless(name).parents}
    levels = dict.fromkeys(names, 0)
    while True:
        claims = defaultdict(list)
        for name, level in levels.items():
            claims[_comparable(_sidecar(name, level, suffix))].append(name)
        clashes = [group for place, group in claims.items() if len(group) > 1 or place in folders]
        if not clashes:
            return {name: _sidecar(name, level, suffix) for name, level in levels.items()}
        for group in clashes:
            shortest = min(levels[name] for name in group)
            levels |= {name: shortest + 1 for name in group if levels[name] == shortest}


def _sidecar(name: str, level: int, suffix: str) -> str:
    """The place by stem (level 0), by full name (1), and by full name and a digest that tells it from all others."""
    path = _harmless(name)
    stem = path.name if level else path.stem
    if level > 1:
        suffix = f"~{hashlib.sha256(f'{level} {name}'.encode(errors='surrogatepass')).hexdigest()[:8]}{suffix}"
    return str(path.with_name(_cut(stem, _MOST_NAME_BYTES - len(suffix)) + suffix))


def _harmless(name: str) -> PurePosixPath:
    """`name` as a path that every system can have. Raises ValueError where it leads outside its folder."""
    parts = name.split("/")
    if not name.strip("/.") or name.startswith("/") or ".." in parts:
        raise ValueError(f"not the name of a file in a folder: {name!r}")
    return PurePosixPath(*(_harmless_part(part) for part in parts if part not in ("", ".")))


def _harmless_part(part: str) -> str:
    part = _cut(_FORBIDDEN.sub("_", part), _MOST_NAME_BYTES - 1).rstrip(". ") or "_"
    return f"_{part}" if _RESERVED.fullmatch(part) or part.lower() in SHARED.values() else part


_FORBIDDEN = re.compile('[<>:"\\\\|?*\x00-\x1f\x7f-\x9f\ud800-\udfff]')
"""What Windows does not take in a name."""
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
"""What Windows takes for a device, whatever follows the first dot."""


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")


def _comparable(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
