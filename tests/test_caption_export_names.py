"""The names of exports: one place for each file, on every system, and never outside their folder."""

from __future__ import annotations

import ntpath
import unicodedata
from pathlib import Path, PureWindowsPath

import pytest

from omni_backend.caption.exports import FORMATS, Format, archive, write
from tests.test_caption_exports import captioned, rendered


def sidecars(*names: str) -> list[str]:
    return list(rendered([captioned(name, "Rain.") for name in names], "txt"))


def test_a_sidecar_has_the_name_of_its_sound() -> None:
    assert sidecars("roof.wav", "rain/roof.wav", "rain/b.c.flac", "none", ".hidden") == [
        "roof.txt",
        "rain/roof.txt",
        "rain/b.c.txt",
        "none.txt",
        ".hidden.txt",
    ]


@pytest.mark.parametrize(
    "names",
    [
        ("rain/roof.wav", "rain/roof.mp3"),
        ("rain/roof.wav", "Rain/ROOF.mp3"),
        ("é.wav", "e\u0301.mp3"),
        ("roof", "roof.wav"),
    ],
)
def test_two_of_one_stem_go_by_their_full_names(names: tuple[str, str]) -> None:
    assert sidecars(*names) == [f"{name}.txt" for name in names]


def test_who_comes_third_takes_no_place_of_others() -> None:
    assert sidecars("roof.wav", "roof.mp3", "roof.wav.flac", "other.wav") == [
        "roof.wav.txt",
        "roof.mp3.txt",
        "roof.wav.flac.txt",
        "other.txt",
    ]


def test_a_place_found_at_last_is_kept() -> None:
    """Whoever has the very name that was made up for another."""
    hard = ("a?.wav", "a*.wav")
    places = sidecars(*hard)
    made_up = places[0].removesuffix(".txt")
    assert sidecars(*hard, f"{made_up}.wav") == [*places, f"{made_up}.wav.txt"]


@pytest.mark.parametrize(
    "names",
    [
        ("a?.wav", "a*.wav", "a_.wav"),
        ("rain.wav", "rain.txt/roof.wav", "Rain.TXT/b.wav"),
        ("x" * 251 + ".wav", "x" * 251 + ".mp3", "x" * 252 + ".au"),
        ("雨" * 83 + ".wav", "雨" * 83 + ".mp3"),
        ("straße.wav", "STRASSE.wav"),
        ("con.wav", "_con.wav", "CON"),
        ("a.wav", "a.wav.", "a.wav "),
        ("captions.jsonl/a.wav", "captions.csv/b.wav"),
        ("x" * 300 + "/a.wav", "x" * 301 + "/a.wav"),
    ],
)
def test_each_file_has_a_place_of_its_own(names: tuple[str, ...], tmp_path: Path) -> None:
    written = write([captioned(name, name) for name in names], FORMATS, tmp_path)
    places = [path.relative_to(tmp_path).as_posix() for path in written]
    assert len({unicodedata.normalize("NFC", place).casefold() for place in places}) == len(places)
    texts = {path.read_text(encoding="utf-8") for path in written if path.suffix == ".txt"}
    assert texts == {f"{name}\n" for name in names}
    again = write([captioned(name, name) for name in names], FORMATS, tmp_path)
    assert again == written


def is_reserved(place: str) -> bool:
    check = getattr(ntpath, "isreserved", None)
    return bool(check(place) if check else PureWindowsPath(place).is_reserved())


@pytest.mark.parametrize(
    "name",
    [
        "CON.wav",
        "aux/nul.tar.wav",
        "com1",
        "Lpt¹.mp3",
        "conout$.wav",
        "prn .wav",
        'a<b>c:d"e|f?g*h.wav',
        "back\\slash.wav",
        "..\\..\\up.wav",
        "C:\\windows.wav",
        "C:/windows.wav",
        "\\\\server\\share.wav",
        "dots./space /....",
        "new\nline\t\x01.wav",
        "half\udcff.wav",
    ],
)
def test_names_are_harmless_on_every_system(name: str, tmp_path: Path) -> None:
    (place,) = sidecars(name)
    assert not set('<>:"\\|?*') & set(place)
    assert place.isprintable()
    assert not is_reserved(place)
    assert not PureWindowsPath(place).is_absolute()
    for part in place.split("/"):
        assert part not in ("", ".", "..")
        assert part[-1] not in ". "
    assert write([captioned(name, "Rain.")], ["txt"], tmp_path) == [tmp_path / place]


@pytest.mark.parametrize("name", ["../a.wav", "rain/../../a.wav", "/etc/a.wav", "//a.wav", "..", ".", "", "rain/.."])
@pytest.mark.parametrize("format_", ["txt", "srt", "vtt"])
def test_names_that_lead_outside_are_refused(name: str, format_: Format, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name"):
        write([captioned(name, "Rain.")], [format_], tmp_path / "out")
    with pytest.raises(ValueError, match="name"):
        archive([captioned(name, "Rain.")], [format_], tmp_path / "out.zip")
    assert list(tmp_path.rglob("*")) == []


def test_a_link_leads_nowhere(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "rain").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="outside"):
        write([captioned("rain/deep/roof.wav", "Rain.")], ["txt"], out)
    assert list(elsewhere.iterdir()) == []
    (elsewhere / "own.txt").write_text("mine", encoding="utf-8")
    (out / "a.txt").symlink_to(elsewhere / "own.txt")
    write([captioned("a.wav", "Rain.")], ["txt"], out)
    assert (elsewhere / "own.txt").read_text(encoding="utf-8") == "mine"
    assert (out / "a.txt").read_text(encoding="utf-8") == "Rain.\n"


def test_the_same_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        rendered([captioned("a.wav", "one"), captioned("a.wav", "two")], "jsonl")


def test_thousands_of_names_of_one_stem_are_placed_at_once() -> None:
    names = [f"rain/roof.{number}" for number in range(5_000)]
    assert sidecars(*names) == [f"{name}.txt" for name in names]
