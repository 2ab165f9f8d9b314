"""Zip archives that people give to be captioned: good ones, damaged ones, and hostile ones forged byte by byte."""

from __future__ import annotations

import io
import random
import shutil
import stat
import struct
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from omni_backend.caption import limits
from tests.given import ENTRY, Bytes, Given, forge, names, reasons, write, zipped
from tests.media_files import sound_file

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LOCAL, END = b"PK\x03\x04", b"PK\x05\x06"
# Where fields stand in an entry of the list, and in the header before a member's bytes.
FLAGS, METHOD, PACKED, SIZE, OFFSET = 8, 10, 20, 24, 42
LOCAL_SIZE = 22


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


def assert_refused_whole(given: Given, archive: Bytes, key: str, **options: int) -> str:
    """Asserts that `archive` is refused for `key` and leaves nothing behind; returns the sentence."""
    collected = given.zip(archive, **options)
    assert collected.found == ()
    assert reasons(collected) == [("a.zip", key)]
    assert given.left() == []
    return collected.refused[0].reason.text()


# Archives that mean well


@pytest.mark.parametrize("method", METHODS)
def test_an_archive_gives_its_sounds_unchanged(given: Given, method: int) -> None:
    sound = sound_file() + random.Random(1).randbytes(700_000)
    members = [("a/10.wav", sound), ("a/2.WAV", b""), ("a/x.txt", b"words"), ("a/", b""), ("a.mp3", b"short")]
    collected = given.zip(zipped(*members, method=method))
    assert names(collected) == ["a/a/2.WAV", "a/a/10.wav", "a/a.mp3"]
    assert [found.path.read_bytes() for found in collected.found] == [b"", sound, b"short"]
    assert [found.path.name for found in collected.found] == ["1.wav", "2.wav", "3.mp3"]
    assert all(given.unpacked in found.path.parents for found in collected.found)
    assert (collected.refused, collected.skipped) == ((), ("a/a/x.txt",))


def test_archives_are_known_by_their_content(given: Given) -> None:
    archive = bytes(zipped(("b.wav", b"b")))
    write(given.folder / "Holiday.ZIP", archive)
    write(given.folder / "holiday.wav", archive)
    write(given.folder / "sound.zip", b"RIFF" + archive)
    write(given.folder / "sound.wav", b"RIFF" + archive)
    collected = given.collect("Holiday.ZIP", "holiday.wav", "sound.zip", "sound.wav")
    assert names(collected) == ["Holiday/b.wav", "holiday.wav/b.wav", "sound.zip", "sound.wav"]
    assert [found.path.read_bytes() for found in collected.found[:2]] == [b"b", b"b"]


def test_what_is_no_sound_in_an_archive_is_skipped(given: Given) -> None:
    skipped = ["__MACOSX/._b.wav", ".DS_Store", "x/.hidden.wav", "cover.jpg", "wav"]
    collected = given.zip(zipped(("./b.wav", b"b"), *((name, b"") for name in skipped)))
    assert names(collected) == ["a/b.wav"]
    assert sorted(collected.skipped) == sorted(f"a/{name}" for name in skipped)


@pytest.mark.parametrize("archive", [zipped(), zipped(("a.txt", b"words"))], ids=["empty", "text"])
def test_an_archive_without_sound_says_so(given: Given, archive: bytearray) -> None:
    assert_refused_whole(given, archive, "nothing")
    assert not given.unpacked.exists()


def test_an_archive_inside_an_archive_is_not_opened(given: Given) -> None:
    collected = given.zip(zipped(("in/inner.zip", bytes(zipped(("b.wav", b"b")))), ("c.wav", b"c")))
    assert names(collected) == ["a/c.wav"]
    assert reasons(collected) == [("a/in/inner.zip", "member_zip")]


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("雨声/屋顶.wav".encode("gbk"), "雨声/屋顶.wav"),
        ("雨聲\u3400.wav".encode("gb18030"), "雨聲\u3400.wav"),
        ("雨/é.wav".encode(), "雨/é.wav"),
        ("Träume.wav".encode("cp437"), "Träume.wav"),
        (b"plain.wav", "plain.wav"),
    ],
)
def test_names_without_a_named_encoding_are_read(given: Given, raw: bytes, name: str) -> None:
    stand_in = "x" * (len(raw) - 4) + ".wav"
    archive = zipped((stand_in, b"sound")).replace(stand_in.encode(), raw)
    assert names(given.zip(archive)) == [unicodedata.normalize("NFC", f"a/{name}")]


@pytest.mark.parametrize("name", ["雨声/屋顶.wav", "Träume \U0001f327.wav"])
def test_names_in_utf8_are_read(given: Given, name: str) -> None:
    assert names(given.zip(zipped((name, b"sound")))) == [f"a/{name}"]


def test_a_name_of_thousands_of_digits_is_cut(given: Given) -> None:
    assert names(given.zip(zipped(("1" * 5000 + ".wav", b"sound")))) == ["a/" + "1" * 196 + ".wav"]


def test_equal_names_in_archives_are_told_apart(given: Given) -> None:
    archive = zipped(("b.wav", b"1"), ("c.wav", b"2")).replace(b"c.wav", b"b.wav")
    write(given.folder / "a.zip", bytes(archive))
    collected = given.collect("a.zip", "a.zip")
    assert names(collected) == ["a/b.wav", "a/b (2).wav", "a/b (3).wav", "a/b (4).wav"]
    assert [found.path.read_bytes() for found in collected.found] == [b"1", b"2", b"1", b"2"]


def test_only_as_many_members_as_may_be_used_are_unpacked(given: Given) -> None:
    write(given.folder / "first.wav")
    write(given.folder / "a.zip", bytes(zipped(*((f"{number}.wav", b"x") for number in range(5)))))
    collected = given.collect("first.wav", "a.zip", max_files=3)
    assert names(collected) == ["first.wav", "a/0.wav", "a/1.wav"]
    assert reasons(collected) == [("a/2.wav", "too_many")]
    assert len([path for path in given.left() if path.is_file()]) == 2


def test_long_archives_with_64_bit_sizes_are_read(given: Given) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("b.wav", "w", force_zip64=True) as member:
        member.write(b"sound")
    (found,) = given.zip(buffer.getvalue()).found
    assert found.path.read_bytes() == b"sound"


# Members that cannot be used


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_links_and_devices_in_an_archive_are_refused(given: Given, kind: int) -> None:
    special, plain = zipfile.ZipInfo("link.wav"), zipfile.ZipInfo("plain.wav")
    special.external_attr = (kind | 0o777) << 16
    plain.external_attr = (stat.S_IFREG | 0o644) << 16
    collected = given.zip(zipped((special, b"/etc/passwd"), (plain, b"sound")))
    assert names(collected) == ["a/plain.wav"]
    assert reasons(collected) == [("a/link.wav", "member_link")]


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_member_is_refused_alone(given: Given, method: int) -> None:
    sound = random.Random(2).randbytes(2000)
    archive = zipped(("b.wav", sound), ("c.wav", sound), method=method)
    archive[300:310] = bytes(10)
    collected = given.zip(archive)
    assert names(collected) == ["a/c.wav"]
    assert reasons(collected) == [("a/b.wav", "member_damaged")]
    assert [path.name for path in given.left() if path.is_file()] == ["2.wav"]


@pytest.mark.parametrize("method", METHODS)
def test_a_member_that_ends_early_is_damaged(given: Given, method: int) -> None:
    archive = zipped(("b.wav", random.Random(2).randbytes(2000)), method=method)
    forge(archive, PACKED, 1000)
    assert reasons(given.zip(archive)) == [("a/b.wav", "member_damaged")]


def test_an_unknown_way_of_packing_is_named(given: Given) -> None:
    archive = zipped(("b.wav", b"sound"), ("c.wav", b"sound"))
    forge(archive, METHOD, 93, size=2)
    collected = given.zip(archive)
    assert names(collected) == ["a/c.wav"]
    assert reasons(collected) == [("a/b.wav", "member_method")]


@pytest.mark.parametrize("settings", [b"\xff" * 9, b"\x09\x04\x05\x00\xff", b""])
def test_lzma_settings_without_sense_are_damage(given: Given, settings: bytes) -> None:
    archive = zipped(("b.wav", settings))
    forge(archive, METHOD, zipfile.ZIP_LZMA, size=2)
    assert reasons(given.zip(archive)) == [("a/b.wav", "member_damaged")]


def test_unpacking_that_takes_much_memory_is_refused(given: Given) -> None:
    archive = zipped(("b.wav", b"sound"), method=zipfile.ZIP_LZMA)
    window = 30 + len("b.wav") + 5
    archive[window : window + 4] = struct.pack("<I", limits.ZIP_WINDOW_BYTES)
    assert names(given.zip(archive)) == ["a/b.wav"]
    archive[window : window + 4] = struct.pack("<I", limits.ZIP_WINDOW_BYTES + 1)
    assert reasons(given.zip(archive)) == [("a/b.wav", "member_damaged")]


# Archives that are refused whole


@pytest.mark.parametrize(
    "name",
    [
        *("../b.wav", "x/../../b.wav", "/etc/b.wav", "C:b.wav", "c:/b.wav", "x\\b.wav", "..\\b.wav", "b\0.wav", "../"),
        *("//server/share/b.wav", "../notes.txt", "x/.."),
    ],
)
def test_names_that_lead_elsewhere_are_refused(given: Given, name: str) -> None:
    stand_in = "y" * len(name)
    archive = zipped(("good.wav", b"sound"), (stand_in, b"sound")).replace(stand_in.encode(), name.encode())
    assert_refused_whole(given, archive, "zip_paths")


def test_gbk_names_with_a_backslash_as_second_byte_are_no_paths(given: Given) -> None:
    raw = "誠誠.wav".encode("gbk")
    assert b"\\" in raw
    archive = zipped(("xxxx.wav", b"sound")).replace(b"xxxx.wav", raw)
    assert names(given.zip(archive)) == ["a/誠誠.wav"]


@pytest.mark.parametrize("flag", [0x1, 0x41, 0x2000])
def test_an_encrypted_archive_is_refused(given: Given, flag: int) -> None:
    archive = zipped(("b.wav", b"sound"), ("c.wav", b"sound"))
    forge(archive, FLAGS, flag, entry=1, size=2)
    assert_refused_whole(given, archive, "zip_encrypted")


@pytest.mark.parametrize("method", METHODS[1:])
def test_much_out_of_little_is_refused(given: Given, monkeypatch: pytest.MonkeyPatch, method: int) -> None:
    monkeypatch.setattr(limits, "ZIP_RATIO_FREE_BYTES", 1_000_000)
    monkeypatch.setattr(limits, "ZIP_RATIO", 50)
    archive = zipped(("a.wav", b"good"), ("b.wav", bytes(1_000_001)), method=method)
    sentence = assert_refused_whole(given, archive, "zip_ratio")
    assert "a/b.wav" in sentence
    assert "50" in sentence
    few = zipped(("b.wav", bytes(1_000_000)), method=method)
    assert names(given.zip(few)) == ["a/b.wav"]


@pytest.mark.parametrize("method", METHODS[1:])
def test_what_an_archive_says_about_its_sizes_is_not_believed(
    given: Given, monkeypatch: pytest.MonkeyPatch, method: int
) -> None:
    monkeypatch.setattr(limits, "ZIP_RATIO_FREE_BYTES", 1_000_000)
    archive = zipped(("a.wav", bytes(3_000_000)), method=method)
    forge(archive, SIZE, 10)
    archive[LOCAL_SIZE : LOCAL_SIZE + 4] = struct.pack("<I", 10)
    assert_refused_whole(given, archive, "zip_ratio")
    monkeypatch.setattr(limits, "ZIP_RATIO_FREE_BYTES", 10_000_000)
    sentence = assert_refused_whole(given, archive, "zip_bytes", max_zip_bytes=2 * 1024**2)
    assert "2 MB" in sentence
    assert given.zip(archive).found[0].path.read_bytes() == bytes(3_000_000)


def test_an_honest_archive_that_is_too_large_is_refused_before_work(
    given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(("b.wav", bytes(600)), ("c.wav", bytes(600)))
    monkeypatch.setattr("zlib.crc32", lambda *_: pytest.fail("it was unpacked"))
    assert_refused_whole(given, archive, "zip_bytes", max_zip_bytes=1000)


def test_all_members_together_are_counted(given: Given) -> None:
    archive = zipped(("b.wav", bytes(600)), ("c.wav", bytes(600)), method=zipfile.ZIP_DEFLATED)
    forge(archive, SIZE, 1, entry=0)
    forge(archive, SIZE, 1, entry=1)
    assert_refused_whole(given, archive, "zip_bytes", max_zip_bytes=1000)
    assert len(given.zip(archive, max_zip_bytes=1200).found) == 2


def test_half_of_the_free_disk_stays_free(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"bytes": 1999}
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, free["bytes"]))
    archive = zipped(("b.wav", bytes(1000)))
    assert "999 B" in assert_refused_whole(given, archive, "zip_disk")
    free["bytes"] = 2000
    assert names(given.zip(archive)) == ["a/b.wav"]


def test_a_place_that_cannot_be_written_is_said(given: Given) -> None:
    given.unpacked = write(given.folder / "a file") / "below"
    assert reasons(given.zip(zipped(("b.wav", b"sound")))) == [("a.zip", "zip_not_written")]


def twice_listed() -> bytearray:
    """Two entries of the list that stand for the same bytes."""
    archive = zipped(("b.wav", bytes(100)), ("c.wav", bytes(100)))
    forge(archive, OFFSET, 0, entry=1)
    return archive


def nested_headers() -> bytearray:
    """A member whose bytes hold the header and bytes of the next."""
    inner = zipped(("c.wav", b"sound" * 10))
    archive = zipped(("b.wav", bytes(inner)), ("c.wav", b"sound" * 10))
    forge(archive, OFFSET, archive.index(LOCAL, 1), entry=archive.count(ENTRY) - 1)
    return archive


def into_the_list() -> bytearray:
    """A member whose bytes reach into the list of members."""
    archive = zipped(("b.wav", b"sound"))
    forge(archive, PACKED, 6)
    return archive


@pytest.mark.parametrize("make", [twice_listed, nested_headers, into_the_list])
def test_members_that_share_bytes_are_refused(given: Given, make: Callable[[], bytearray]) -> None:
    assert_refused_whole(given, make(), "zip_overlap")


def test_too_many_members_are_refused(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ZIP_MEMBERS", 3)
    members = [(f"{number}.txt", b"") for number in range(4)]
    assert "3" in assert_refused_whole(given, zipped(("b.wav", b"sound"), *members[:3]), "zip_members")
    assert names(given.zip(zipped(("b.wav", b"sound"), *members[:2]))) == ["a/b.wav"]


@pytest.mark.parametrize("count", [0, 0xFFFF])
def test_a_million_members_take_no_memory(given: Given, count: int) -> None:
    """Whatever number the archive gives."""
    entry = ENTRY + struct.pack("<6H3I5H2I", *(20, 20, 0, 0, 0, 33), 0, 0, 0, *(1, 0, 0, 0, 0), 0, 0) + b"x"
    entries = entry * 1_000_000
    head = LOCAL + struct.pack("<5H3I2H", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"x"
    end = END + struct.pack("<4H2IH", 0, 0, count, count, len(entries), len(head), 0)
    write(given.folder / "a.zip", head + entries + end)
    del entries
    tracemalloc.start()
    collected = given.collect("a.zip")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons(collected) == [("a.zip", "zip_list")]
    assert peak < 1024**2


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_unpacking_takes_little_memory(given: Given, method: int) -> None:
    size = 64 * 1024**2
    archive = zipped(("b.wav", bytes(size)), method=method)
    tracemalloc.start()
    collected = given.zip(archive)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert collected.found[0].path.stat().st_size == size
    assert peak < 4 * 1024**2


@pytest.mark.parametrize(
    "damage",
    [
        lambda archive: archive[:-30],
        lambda archive: archive[:40],
        lambda archive: LOCAL,
        lambda archive: END,
        lambda archive: archive[:2] + b"xx" + archive[4:],
        lambda archive: archive.replace(ENTRY, b"PKxx"),
        lambda archive: LOCAL + archive[4:].replace(LOCAL, b"PKxx"),
    ],
)
def test_broken_archives_are_refused(given: Given, damage: Callable[[bytearray], Bytes]) -> None:
    archive = damage(zipped(("b.wav", b"sound"), ("c.wav", b"sound")))
    if archive[:4] in (LOCAL, END):
        assert_refused_whole(given, archive, "zip_broken")
    else:
        assert names(given.zip(archive)) == ["a.zip"]


def test_no_damage_at_all_goes_unsaid(given: Given) -> None:
    """Hundreds of archives with changed bytes: each gives files or sentences, nothing else, and stays inside."""
    chance = random.Random(3)
    good = zipped(("b.wav", b"sound" * 9), ("rain/c.wav", b"s"), ("d.zip", b""), method=zipfile.ZIP_DEFLATED)
    for _ in range(400):
        archive = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            archive[chance.randrange(4, len(archive))] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
        collected = given.zip(archive)
        assert collected.found or collected.refused
        assert all(found.path.resolve().is_relative_to(given.unpacked.resolve()) for found in collected.found)
        reasons(collected)
