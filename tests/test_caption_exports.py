"""Captions as files, read back by parsers that are not ours: pysubs2, webvtt-py, FFmpeg, csv, json, zipfile."""

from __future__ import annotations

import csv
import html
import io
import json
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import pysubs2
import pytest
import webvtt
from av.subtitles.subtitle import AssSubtitle

from omni_backend.caption import CaptionedFile, Segment
from omni_backend.caption.exports import FORMATS, Format, archive, render, write
from tests.test_layering import loaded_by

Cue = tuple[int, int, str]
"""Start and end in milliseconds, text."""
Parser = Callable[[str, Format], list[Cue]]

HOSTILE = {
    "Rain on a tin roof.": "Rain on a tin roof.",
    "one\n\n\ntwo\n \n\u3000\nthree\n": "one\ntwo\nthree",
    "  indented \r\nnext\rlast ": "indented\nnext\nlast",
    "1\n00:00:01,000 --> 00:00:02,000\nforged": "1\n00:00:01,000 --> 00:00:02,000\nforged",
    "forged\n\n7\n00:00:01.000 --> 00:00:02.000\ncue": "forged\n7\n00:00:01.000 --> 00:00:02.000\ncue",
    "a --> b ---> c --&gt; d": "a --> b ---> c --&gt; d",
    "heard from 00:01.20 until 00:02.30": "heard from 00:01.20 until 00:02.30",
    "from 00:00:01.500 to 00:00:02,500": "from 00:00:01.500 to 00:00:02,500",
    "1234": "1234",
    "It counts:\n42": "It counts:\n42",
    "٤٢\n４２": "٤٢\n４２",
    "<i>slanted</i> <b>bold</b> <font color=red>red</font>": "<i>slanted</i> <b>bold</b> <font color=red>red</font>",
    "<c.yellow.bg_blue>VTT</c> <v Roger>voice</v> <00:00:01.000>": (
        "<c.yellow.bg_blue>VTT</c> <v Roger>voice</v> <00:00:01.000>"
    ),
    "a < b > c <": "a < b > c <",
    "<<i>>": "<<i>>",
    r"{\an8}top {\pos(1,2)} {Y:i} {plain} {": r"{\an8}top {\pos(1,2)} {Y:i} {plain} {",
    r"C:\new \N \h {\i1} \\": r"C:\new \N \h {\i1} \\",
    "R&B &amp; &lt;i&gt; &nbsp; &#60; &": "R&B &amp; &lt;i&gt; &nbsp; &#60; &",
    "NOTE no comment": "NOTE no comment",
    "WEBVTT\n\nSTYLE\n::cue { color: red }": "WEBVTT\nSTYLE\n::cue { color: red }",
    "nul\0 bell\a escape\x1b[31m delete\x7f mark\ufeff": "nul bell escape[31m delete mark",
    "page\fbreak\vtab\x1cfile\x85next\u2028line\u2029paragraph": "page\nbreak\ntab\nfile\nnext\nline\nparagraph",
    "half \ud83d a character": "half \ufffd a character",
    '"quoted", comma; semicolon\ttab': '"quoted", comma; semicolon\ttab',
    "=1+1": "=1+1",
    "雨点打在铁皮屋顶上，远处有雷声。": "雨点打在铁皮屋顶上，远处有雷声。",
    "🎧 👩‍👩‍👧 🇨🇳 é e\u0301": "🎧 👩‍👩‍👧 🇨🇳 é e\u0301",
    "مطر على السطح \u202eedirrevo\u202c שלום": "مطر على السطح \u202eedirrevo\u202c שלום",
    "long " * 800 + "end": "long " * 800 + "end",
    "雨" * 1_365: "雨" * 1_365,
}
"""A caption → what a reader of subtitles sees."""


def captioned(name: str, *captions: str, seconds: float = 10.0) -> CaptionedFile:
    """A file with a segment of `seconds` for each caption."""
    segments = tuple(Segment(i, i * seconds, (i + 1) * seconds, (text,)) for i, text in enumerate(captions))
    return CaptionedFile(name, len(captions) * seconds, segments)


def timed(*spans: tuple[float, float]) -> CaptionedFile:
    segments = tuple(Segment(i, start, end, (f"no. {i}",)) for i, (start, end) in enumerate(spans))
    return CaptionedFile("a.wav", spans[-1][1], segments)


def rendered(files: Sequence[CaptionedFile], *formats: Format) -> dict[str, str]:
    return {name: "".join(pieces) for name, pieces in render(files, formats)}


def text_of(file: CaptionedFile, format_: Format) -> str:
    (text,) = rendered([file], format_).values()
    text.encode()
    return text


def seen(text: str) -> str:
    """`text` without what is only there to keep parsers from mistaking it."""
    return text.replace("\u200b", "").translate(str.maketrans("＜＞｛｝＼", "<>{}\\"))


# SRT and VTT, each as three parsers read it


def with_pysubs2(text: str, format_: Format) -> list[Cue]:
    events = pysubs2.SSAFile.from_string(text, format_=format_)
    if format_ == "srt":
        return [(event.start, event.end, seen(event.plaintext)) for event in events]
    # It reads VTT with the tags of SRT; the text is compared before it does.
    return [(event.start, event.end, seen(html.unescape(event.text.replace(r"\N", "\n")))) for event in events]


def with_webvtt(text: str, format_: Format) -> list[Cue]:
    cues = webvtt.from_buffer(io.StringIO(text), format=format_, strict=format_ == "vtt").captions
    return [
        (
            cue.start_time.in_milliseconds(),
            cue.end_time.in_milliseconds(),
            seen(cue.text if format_ == "srt" else html.unescape(cue.text)),
        )
        for cue in cues
    ]


def with_ffmpeg(text: str, format_: Format) -> list[Cue]:
    """As mpv and many other players do: FFmpeg makes a line of ASS of each subtitle."""
    cues = []
    with av.open(io.BytesIO(text.encode()), "r", format={"srt": "srt", "vtt": "webvtt"}[format_]) as container:
        for packet in container.demux(container.streams.subtitles[0]):
            for subtitle in packet.decode() if packet.size else []:
                assert isinstance(subtitle, AssSubtitle)
                assert packet.pts is not None
                assert packet.duration is not None
                line = subtitle.ass.decode().split(",", 8)[8].replace(r"\N", "\n")
                for escaped, plain in ((r"\{{}", "{"), ("\\\u2060", "\\")):
                    line = line.replace(escaped, plain)
                cues.append((packet.pts, packet.pts + packet.duration, seen(line)))
    return cues


def shown(caption: str, parser: Parser, format_: Format) -> str:
    """What `parser` should give for `caption`."""
    text = HOSTILE[caption]
    # pysubs2 marks the ends of lines by characters that a caption may hold, and VTT has no need to hide.
    return text.replace(r"\N", "\n") if parser is with_pysubs2 and format_ == "vtt" else text


PARSERS = [with_pysubs2, with_webvtt, with_ffmpeg]
subtitles = pytest.mark.parametrize("format_", ["srt", "vtt"])
by_all = pytest.mark.parametrize("parser", PARSERS)


@subtitles
@by_all
def test_no_caption_can_break_subtitles(parser: Parser, format_: Format) -> None:
    """All in one file, so that each has a neighbour to spoil."""
    read = parser(text_of(captioned("a.wav", *HOSTILE), format_), format_)
    assert read == [(i * 10_000, (i + 1) * 10_000, shown(text, parser, format_)) for i, text in enumerate(HOSTILE)]


@subtitles
@pytest.mark.parametrize("caption", HOSTILE, ids=range(len(HOSTILE)))
def test_each_caption_alone_and_last(caption: str, format_: Format) -> None:
    """Where the end of the file is what follows."""
    text = text_of(captioned("a.wav", caption), format_)
    for parser in PARSERS:
        assert parser(text, format_) == [(0, 10_000, shown(caption, parser, format_))]


@subtitles
def test_no_tag_of_a_caption_is_obeyed(format_: Format) -> None:
    """Neither hidden nor applied, also by web players that read SRT as VTT."""
    hostile = r"<i>a</i> {\an8}b {c} \N d < e"
    text = text_of(captioned("a.wav", hostile), format_)
    body = text.split("\n", 3)[3]
    assert not set("<>") & set(body)
    if format_ == "srt":
        assert not set("{}\\") & set(body)
        (event,) = pysubs2.SSAFile.from_string(text, format_="srt")
        assert seen(event.plaintext) == hostile
        as_vtt = webvtt.from_string("WEBVTT\n\n" + text.replace(",000", ".000"))
        assert [seen(cue.text) for cue in as_vtt.captions] == [hostile]


@subtitles
@by_all
@pytest.mark.parametrize("caption", ["long " * 20_000 + "end", "长🎧" * 20_000, "x" + "<12:34.56" * 5_000], ids=len)
def test_very_long_captions_come_whole(caption: str, parser: Parser, format_: Format) -> None:
    """In lines short enough for FFmpeg, which cuts them anywhere else, also inside of characters."""
    text = text_of(captioned("a.wav", caption, "next"), format_)
    (_, _, first), second = parser(text, format_)
    assert "".join(first.split()) == "".join(caption.split())
    assert second == (10_000, 20_000, "next")
    if format_ == "srt":
        assert max(len(line.encode()) for line in text.splitlines()) < 4096
    if " " in caption:
        assert set(first.split()) == {"long", "end"}


def test_ordinary_text_stays_as_it_is() -> None:
    """A time, a number, an ampersand in a sentence are no danger and get nothing invisible."""
    text = "Rock & roll at 0:05.2, 120 bpm: 1,5 dB"
    assert text in text_of(captioned("a.wav", text), "srt")
    assert text.replace("&", "&amp;") in text_of(captioned("a.wav", text), "vtt")


@subtitles
@by_all
def test_times_to_the_millisecond(parser: Parser, format_: Format) -> None:
    file = timed((0.0, 0.0004), (1.0006, 29.9996), (59.9996, 61.5), (3599.9994, 3600.0006), (43199.001, 43200.0))
    assert [cue[:2] for cue in parser(text_of(file, format_), format_)] == [
        (0, 1),
        (1001, 30_000),
        (60_000, 61_500),
        (3_599_999, 3_600_001),
        (43_199_001, 43_200_000),
    ]


@subtitles
def test_a_hundred_hours(format_: Format) -> None:
    text = text_of(timed((359_999.999, 360_000.0), (360_000.0, 1_800_000.5)), format_)
    expected = [(359_999_999, 360_000_000, "no. 0"), (360_000_000, 1_800_000_500, "no. 1")]
    assert with_webvtt(text, format_) == expected
    assert with_ffmpeg(text, format_) == expected
    if format_ == "vtt":  # pysubs2 reads two digits of the hours of SRT
        assert with_pysubs2(text, format_) == expected


@subtitles
@by_all
def test_no_subtitle_ends_before_it_begins(parser: Parser, format_: Format) -> None:
    read = parser(text_of(timed((-1.0, -0.5), (5.0, 5.0), (6.0, 5.5)), format_), format_)
    assert [cue[:2] for cue in read] == [(0, 1), (5000, 5001), (6000, 6001)]


@subtitles
@by_all
def test_segments_without_words_are_no_subtitles(parser: Parser, format_: Format) -> None:
    text = text_of(captioned("a.wav", "", "first", " \n\t\0", "second", ""), format_)
    assert parser(text, format_) == [(10_000, 20_000, "first"), (30_000, 40_000, "second")]
    if format_ == "srt":
        assert [line for line in text.splitlines() if line.isdecimal()] == ["1", "2"]


def test_subtitles_of_silence_are_empty_files() -> None:
    nothing = captioned("a.wav", "", "")
    assert text_of(nothing, "srt") == ""
    assert text_of(nothing, "vtt") == "WEBVTT\n"
    assert webvtt.from_string(text_of(nothing, "vtt")).captions == []


def test_the_exact_form_of_subtitles() -> None:
    file = captioned("a.wav", "Rain.", "Wind\nand rain.", seconds=1.5)
    assert text_of(file, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,500\nRain.\n\n2\n00:00:01,500 --> 00:00:03,000\nWind\nand rain.\n"
    )
    assert text_of(file, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.500\nRain.\n\n00:00:01.500 --> 00:00:03.000\nWind\nand rain.\n"
    )


# TXT, JSONL, CSV

CHOICE = Segment(3, 1.23449, 2.0, ("first", "second"), chosen=1, cut_short=True)


def test_one_segment_is_just_its_caption() -> None:
    assert text_of(captioned("a.wav", "Rain.\r\n\r\nThen\0 wind.\n"), "txt") == "Rain.\n\nThen wind.\n"
    assert text_of(captioned("a.wav", ""), "txt") == ""
    assert text_of(CaptionedFile("a.wav", 0.0, ()), "txt") == ""


def test_several_segments_are_paragraphs_with_times() -> None:
    assert text_of(captioned("a.wav", "Rain.", "", "雨。\n风。", seconds=1830.25), "txt") == (
        "[00:00:00.000 --> 00:30:30.250] Rain.\n\n"
        "[00:30:30.250 --> 01:01:00.500]\n\n"
        "[01:01:00.500 --> 01:31:30.750] 雨。\n风。\n"
    )


def test_json_lines_carry_everything() -> None:
    files = [
        CaptionedFile("雨/顶.wav", 2.0, (CHOICE, replace(CHOICE, index=4, edited=""))),
        captioned("b.wav", "Wind.", seconds=1 / 3),
    ]
    text = rendered(files, "jsonl")["captions.jsonl"]
    assert "雨/顶.wav" in text
    assert text.endswith("}\n")
    rows = [json.loads(line) for line in text.splitlines()]
    choice = {
        "file": "雨/顶.wav",
        "index": 3,
        "start": 1.234,
        "end": 2.0,
        "caption": "second",
        "edited": False,
        "captions": ["first", "second"],
        "cut_short": True,
    }
    assert rows[:2] == [choice, choice | {"index": 4, "caption": "", "edited": True}]
    assert rows[2]["end"] == 0.333
    assert rows[2]["cut_short"] is False


def test_json_lines_keep_every_text() -> None:
    text = text_of(captioned("a\u2028b.wav", *HOSTILE), "jsonl")
    # The most eager reader of lines sees one object in each.
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["caption"] for row in rows] == [caption.replace("\ud83d", "\ufffd") for caption in HOSTILE]
    assert {row["file"] for row in rows} == {"a\u2028b.wav"}


def test_csv() -> None:
    files = [CaptionedFile('rain/"a", b.wav', 2.0, (CHOICE, replace(CHOICE, index=4, edited="x\r\ny")))]
    text = rendered(files, "csv")["captions.csv"]
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [
        ["file", "index", "start", "end", "caption", "edited"],
        ['rain/"a", b.wav', "3", "1.234", "2.000", "second", "false"],
        ['rain/"a", b.wav', "4", "1.234", "2.000", "x\ny", "true"],
    ]
    assert text.startswith("file,index,start,end,caption,edited\r\n")
    assert text.endswith("true\r\n")


def test_csv_keeps_every_text() -> None:
    text = text_of(captioned("\udce9.wav", *HOSTILE), "csv")
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [row["caption"].split() for row in rows] == [shown.split() for shown in HOSTILE.values()]
    assert {row["file"] for row in rows} == {"\ufffd.wav"}
    assert not [char for char in text if unicodedata.category(char) == "Cc" and char not in "\r\n\t"]
    blank = text_of(captioned("a.wav", "one\n\n two"), "csv")
    assert "one\n\n two" in blank


# Folders and archives

FILES = [captioned("rain/roof.wav", "Rain.\r\nWind."), captioned("雨/顶.mp3", "雨。", "风。"), captioned("empty.wav")]
PLACES = {
    *(f"{stem}.{suffix}" for stem in ("rain/roof", "雨/顶", "empty") for suffix in ("txt", "srt", "vtt")),
    "captions.jsonl",
    "captions.csv",
}


def test_all_formats_into_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    written = write(FILES, (*FORMATS, "srt"), out)
    assert {path.relative_to(out).as_posix() for path in written} == PLACES
    assert len(written) == len(PLACES)
    assert {path for path in out.rglob("*") if path.is_file()} == set(written)
    for name, text in rendered(FILES, *FORMATS).items():
        assert (out / name).read_bytes() == text.encode()
    assert b"\r" not in b"".join(path.read_bytes() for path in written if path.suffix != ".csv")
    assert (out / "captions.csv").read_bytes().count(b"\r\n") == 4
    assert pysubs2.load(str(out / "rain/roof.srt"))[0].plaintext == "Rain.\nWind."
    assert webvtt.read(str(out / "雨/顶.vtt"))[1].text == "风。"


def test_an_archive_holds_the_same(tmp_path: Path) -> None:
    archive(FILES, FORMATS, tmp_path / "new" / "captions.zip")
    with zipfile.ZipFile(tmp_path / "new" / "captions.zip") as zipped:
        assert zipped.testzip() is None
        assert {info.compress_type for info in zipped.infolist()} == {zipfile.ZIP_DEFLATED}
        assert {info.date_time for info in zipped.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {name: zipped.read(name).decode() for name in zipped.namelist()} == rendered(FILES, *FORMATS)
        zipped.extractall(tmp_path / "out")
    assert (tmp_path / "out" / "雨" / "顶.txt").is_file()
    archive(lambda: iter(FILES), FORMATS, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == (tmp_path / "new" / "captions.zip").read_bytes()


class Broken(Exception):
    pass


def breaking() -> Iterator[CaptionedFile]:
    """A file whose captions cannot be read to their end."""

    class Segments(tuple[Segment, ...]):
        def __iter__(self) -> Iterator[Segment]:
            yield CHOICE
            raise Broken

    yield CaptionedFile("a.wav", 2.0, Segments((CHOICE, CHOICE)))


@pytest.mark.parametrize("format_", FORMATS)
def test_what_fails_leaves_what_was_there(format_: Format, tmp_path: Path) -> None:
    (old,) = write([captioned("a.wav", "old")], [format_], tmp_path)
    before = old.read_bytes()
    archive([captioned("a.wav", "old")], [format_], tmp_path / "all.zip")
    archived = (tmp_path / "all.zip").read_bytes()
    with pytest.raises(Broken):
        write(breaking, [format_], tmp_path)
    with pytest.raises(Broken):
        archive(breaking, [format_], tmp_path / "all.zip")
    assert old.read_bytes() == before
    assert (tmp_path / "all.zip").read_bytes() == archived
    assert set(tmp_path.iterdir()) == {old, tmp_path / "all.zip"}


def test_files_that_come_up_meanwhile_wait_for_the_next_export(tmp_path: Path) -> None:
    """A job goes on while it is exported."""
    done = [captioned("a.wav", "Rain.")]

    def grow() -> list[CaptionedFile]:
        done.append(captioned(f"{len(done)}.wav", "Wind."))
        return done[:-1]

    written = write(grow, FORMATS, tmp_path)
    assert {path.name for path in written} == {"a.txt", "captions.jsonl", "captions.csv", "a.srt", "a.vtt"}
    assert len((tmp_path / "captions.jsonl").read_text(encoding="utf-8").splitlines()) == 1


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    caption = "Rain on a tin roof. " * 2_500

    def many() -> Iterator[CaptionedFile]:
        for number in range(400):
            yield captioned(f"rain/{number}.wav", f"{number} {caption}")

    tracemalloc.start()
    try:
        archive(many, ["jsonl", "csv", "txt"], tmp_path / "all.zip")
        (table,) = write(many, ["jsonl"], tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    with zipfile.ZipFile(tmp_path / "all.zip") as zipped:
        assert sum(info.file_size for info in zipped.infolist()) > 60_000_000
    assert table.stat().st_size > 30_000_000
    assert peak < 5_000_000


def test_the_module_is_light() -> None:
    assert not loaded_by("omni_backend.caption.exports") & {
        "torch",
        "transformers",
        "openai",
        "av",
        "gradio",
        "pysubs2",
    }
