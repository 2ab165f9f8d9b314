"""What people give to be captioned: files, folders and archives in them, and the names they are known by."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from omni_backend.caption.collect import collect
from tests.given import Given, names, reasons, write, zipped


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


# Files and names


def test_files_given_by_name_are_found_whatever_they_are(given: Given) -> None:
    for name in ("b.wav", "notes.txt", "empty.mp3", ".hidden.wav"):
        write(given.folder / name, "" if "empty" in name else "words")
    collected = given.collect("b.wav", "notes.txt", "empty.mp3", ".hidden.wav")
    assert names(collected) == ["b.wav", "notes.txt", "empty.mp3", ".hidden.wav"]
    assert [found.path for found in collected.found] == [given.folder / name for name in names(collected)]
    assert (collected.refused, collected.skipped) == ((), ())
    assert not given.unpacked.exists()


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("rain/roof.wav", "rain/roof.wav"),
        ("./rain//roof.wav", "rain/roof.wav"),
        ("/home/someone/roof.wav", "roof.wav"),
        ("C:\\Users\\someone\\roof.wav", "roof.wav"),
        ("C:roof.wav", "C_roof.wav"),
        ("../../roof.wav", "roof.wav"),
        ("rain/../../roof.wav", "roof.wav"),
        ("..\\roof.wav", "roof.wav"),
        ("rain\\roof.wav", "rain/roof.wav"),
        ("roof\r\n\x00\x1b[31m\u2028.wav", "roof____[31m_.wav"),
        ("\u202evaw.exe", "_vaw.exe"),
        ("roof\udcff.wav", "roof_.wav"),
        ("e\u0301toile \u4e2d\u6587 \U0001f327.wav", "\u00e9toile \u4e2d\u6587 \U0001f327.wav"),
        ("", "_"),
        ("..", "_"),
        ("x" * 300 + ".wav", "x" * 196 + ".wav"),
        ("\u96e8" * 100 + ".wav", "\u96e8" * 65 + ".wav"),
        ("a" * 150 + "/" + "b/" * 600 + "roof.wav", "b/" * 496 + "roof.wav"),
    ],
)
def test_names_are_safe_to_show_and_to_use(given: Given, called: str, name: str) -> None:
    path = write(given.folder / "some.wav")
    (found,) = collect([(called, path)], given.unpacked).found
    assert found.name == name


def test_names_are_unique(given: Given) -> None:
    path = write(given.folder / "a.wav")
    called = ["a.wav", "a.wav", "A.WAV", "a (2).wav", "b/a.wav", "b/a.wav", "a", "a"]
    found = collect([(name, path) for name in called], given.unpacked).found
    assert [file.name for file in found] == [
        *("a.wav", "a (2).wav", "A (3).WAV", "a (2) (2).wav", "b/a.wav", "b/a (2).wav", "a", "a (2)")
    ]


def test_thousands_of_equal_names_are_told_apart(given: Given) -> None:
    path = write(given.folder / "a.wav")
    found = collect([("a.wav", path)] * 5000, given.unpacked).found
    assert len({file.name for file in found}) == 5000
    assert found[-1].name == "a (5000).wav"


def test_what_is_not_there_is_refused_and_the_rest_is_used(given: Given) -> None:
    write(given.folder / "a.wav")
    os.mkfifo(given.folder / "pipe.wav")
    (given.folder / "gone.wav").symlink_to("nowhere")
    (given.folder / "loop").symlink_to("loop")
    collected = given.collect("pipe.wav", "nothing.wav", "gone.wav", "loop", "a.wav", "a\0b")
    assert names(collected) == ["a.wav"]
    assert reasons(collected) == [
        ("pipe.wav", "not_a_file"),
        *((name, "not_there") for name in ("nothing.wav", "gone.wav", "loop", "a_b")),
    ]


# Folders


def test_a_folder_is_walked_in_the_order_people_expect(given: Given) -> None:
    for name in ("10.wav", "2.wav", "B.mp3", "a.flac", "rain/roof 10.opus", "rain/roof 9.opus", "rain/window.MP4"):
        write(given.folder / "dir" / name)
    write(given.folder / "dir" / ("1" * 200 + ".wav"))
    collected = given.collect("dir")
    order = ["2.wav", "10.wav", "a.flac", "B.mp3", "rain/roof 9.opus", "rain/roof 10.opus", "rain/window.MP4"]
    assert names(collected) == [*order[:2], "1" * 196 + ".wav", *order[2:]]
    assert all(found.path.is_file() for found in collected.found)
    assert (collected.refused, collected.skipped) == ((), ())


def test_a_folder_gives_only_sounds_and_films(given: Given) -> None:
    for name in ("a.wav", "cover.jpg", "notes.txt", ".DS_Store", ".git/b.wav", "__MACOSX/c.wav", "a.docx", "wav"):
        write(given.folder / "dir" / name)
    collected = given.collect("dir")
    assert names(collected) == ["a.wav"]
    assert sorted(collected.skipped) == [".DS_Store", ".git", "__MACOSX", "a.docx", "cover.jpg", "notes.txt", "wav"]


def test_pipes_and_links_to_folders_are_not_followed(given: Given) -> None:
    folder = write(given.folder / "dir" / "a.wav").parent
    elsewhere = write(given.folder / "elsewhere" / "b.wav").parent
    os.mkfifo(folder / "pipe.wav")
    (folder / "again").symlink_to(folder)
    (folder / "elsewhere").symlink_to(elsewhere)
    (folder / "gone.wav").symlink_to("nowhere")
    (folder / "linked.wav").symlink_to(elsewhere / "b.wav")
    collected = given.collect("dir")
    assert names(collected) == ["a.wav", "linked.wav"]
    assert sorted(collected.skipped) == ["again", "elsewhere", "gone.wav", "pipe.wav"]
    assert collected.refused == ()


def test_a_link_to_a_folder_may_be_given(given: Given) -> None:
    write(given.folder / "dir" / "a.wav")
    (given.folder / "link").symlink_to("dir")
    assert names(given.collect("link")) == ["a.wav"]


def test_a_folder_that_cannot_be_read_is_refused_and_the_rest_is_used(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.wav", "locked/b.wav", "open/c.wav"):
        write(given.folder / "dir" / name)
    real = Path.iterdir

    def iterdir(path: Path) -> Iterable[Path]:
        if path.name == "locked":
            raise PermissionError
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    collected = given.collect("dir")
    assert names(collected) == ["a.wav", "open/c.wav"]
    assert reasons(collected) == [("locked", "folder")]


def test_a_folder_without_sound_says_so(given: Given) -> None:
    write(given.folder / "dir" / "notes.txt")
    collected = given.collect("dir")
    assert reasons(collected) == [("dir", "nothing")]
    assert collected.skipped == ("notes.txt",)


def test_archives_in_a_folder_are_unpacked_but_not_twice(given: Given) -> None:
    write(given.folder / "dir" / "sub" / "h.zip", bytes(zipped(("a/b.wav", b"b"))))
    write(given.folder / "dir" / "fake.zip", b"words")
    write(given.folder / "dir" / "slides.pptx", bytes(zipped(("media1.wav", b"b"))))
    write(given.folder / "dir" / "z.wav")
    given.unpacked = given.folder / "dir" / "the unpacked"
    collected = given.collect("dir")
    assert names(collected) == ["sub/h/a/b.wav", "z.wav"]
    assert reasons(collected) == [("fake.zip", "zip_broken")]
    assert collected.skipped == ("slides.pptx",)
    assert names(given.collect("dir")) == ["sub/h/a/b.wav", "z.wav"]


def test_too_many_files_leave_the_last_ones_out(given: Given) -> None:
    for number in range(1, 6):
        write(given.folder / "dir" / f"{number}.wav")
    write(given.folder / "last.wav")
    collected = given.collect("dir", "last.wav", max_files=3)
    assert names(collected) == ["1.wav", "2.wav", "3.wav"]
    assert reasons(collected) == [("4.wav", "too_many")]
    assert "3" in collected.refused[0].reason.text()
    assert len(given.collect("dir", max_files=5).refused) == 0


def test_unpacked_files_lie_where_the_caller_said(given: Given) -> None:
    (given.folder / "real").mkdir()
    (given.folder / "link").symlink_to("real")
    given.unpacked = given.folder / "link" / "unpacked"
    write(given.folder / "a.zip", bytes(zipped(("b.wav", b"b"))))
    (found,) = given.collect("a.zip").found
    assert found.path.is_relative_to(given.unpacked)
