"""The files of one conversation: how long they live, and that nothing else is deleted with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from omni_ui.limits import TOUCH_SECONDS, UNSENT_SECONDS
from omni_ui.session_files import SessionFiles
from tests.conversations import Clock, files_under, upload


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def folder(uploads: Path) -> Path:
    return uploads / "sessions" / "mine"


@pytest.fixture
def files(folder: Path, uploads: Path, clock: Clock) -> SessionFiles:
    return SessionFiles(folder, uploads, clock)


def sent(files: SessionFiles, source: Path) -> Path:
    path = files.adopt(source)
    files.mark_sent([path])
    return path


def refuse(*_: object) -> None:
    raise OSError("cross-device link")


def test_an_upload_outlives_its_original(files: SessionFiles, uploads: Path) -> None:
    original = upload(uploads)
    first, second = files.adopt(original), files.adopt(original)
    original.unlink()
    assert first != second
    assert first.name == second.name == "a photo.png"
    assert first.read_bytes() == b"picture"
    with pytest.raises(OSError, match="photo"):
        files.adopt(original)


def test_no_folder_is_left_of_an_upload_that_is_gone(files: SessionFiles, folder: Path, uploads: Path) -> None:
    with pytest.raises(OSError, match="gone"):
        files.adopt(uploads / "gone.png")
    assert list(folder.iterdir()) == []


def test_an_upload_from_another_disk_is_copied_and_its_original_left_alone(
    files: SessionFiles, uploads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", refuse)
    original = upload(uploads)
    copy = sent(files, original)
    assert copy.read_bytes() == b"picture"
    files.close()
    assert not copy.exists()
    assert original.exists()


def test_a_file_that_was_given_back_keeps_its_name(files: SessionFiles, uploads: Path) -> None:
    path = files.adopt(upload(uploads))
    assert files.adopt(str(path)) == path
    assert files.bytes == len(b"picture")


def test_a_file_lives_as_long_as_it_is_named_and_takes_its_original_along(files: SessionFiles, uploads: Path) -> None:
    original = upload(uploads)
    path = sent(files, original)
    files.purge({path})
    assert path.exists()
    assert original.exists()
    files.purge(())
    assert not path.parent.exists()
    assert not original.exists()
    assert files.bytes == 0


def test_what_was_not_sent_yet_is_spared_for_a_while_and_its_original_for_longer(
    files: SessionFiles, uploads: Path, clock: Clock
) -> None:
    original = upload(uploads)
    path = files.adopt(original)
    clock.pass_(UNSENT_SECONDS - 1)
    files.purge(())
    assert path.exists()
    clock.pass_(1)
    files.purge(())
    assert not path.exists()
    assert original.exists(), "the composer may still hold it"


def test_what_was_given_back_is_spared_again_while_it_is_on_its_way(files: SessionFiles, uploads: Path) -> None:
    path = sent(files, upload(uploads))
    files.adopt(path)
    files.purge(())
    assert path.exists()


def test_the_original_goes_with_its_last_link(files: SessionFiles, uploads: Path) -> None:
    original = upload(uploads)
    first, second = sent(files, original), sent(files, original)
    files.purge({second})
    assert original.exists()
    assert not first.exists()
    files.close()
    assert not original.exists()


def test_the_original_stays_while_another_conversation_links_to_it(
    files: SessionFiles, uploads: Path, clock: Clock
) -> None:
    other = SessionFiles(uploads / "sessions" / "other", uploads, clock)
    original = upload(uploads)
    files.adopt(original)
    theirs = other.adopt(original)
    files.close()
    assert original.exists()
    assert theirs.exists()
    other.close()
    assert not original.exists()


def test_a_later_upload_in_the_originals_place_stays(files: SessionFiles, uploads: Path) -> None:
    original = upload(uploads)
    files.adopt(original)
    files.adopt(original)
    again = original.with_suffix(".new")
    again.write_bytes(b"picture")
    again.rename(original)  # as Gradio does when another visitor uploads the same
    files.close()
    assert original.exists()


@pytest.mark.parametrize("place", ["examples/photo.png", f"sessions/{'a' * 43}/1/photo.png", "photo.png"])
def test_what_is_no_upload_is_not_deleted(files: SessionFiles, uploads: Path, place: str) -> None:
    source = uploads / place
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(b"example")
    sent(files, source)
    files.close()
    assert source.read_bytes() == b"example"


def test_no_original_is_deleted_when_nobody_said_where_uploads_lie(folder: Path, uploads: Path) -> None:
    files = SessionFiles(folder)
    original = upload(uploads)
    sent(files, original)
    files.close()
    assert original.exists()


def test_closing_deletes_everything_and_nothing_comes_after(files: SessionFiles, folder: Path, uploads: Path) -> None:
    files.adopt(upload(uploads))
    files.save("answer.wav", lambda path: path.touch())
    files.close()
    assert not folder.exists()
    with pytest.raises(OSError, match="photo"):
        files.adopt(upload(uploads))
    with pytest.raises(OSError, match="answer"):
        files.save("answer.wav", lambda path: path.touch())
    assert not folder.exists()


def test_a_disk_that_is_full_leaves_no_half_a_file(files: SessionFiles, folder: Path) -> None:
    def fill(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        files.save("answer.wav", fill)
    assert files_under(folder) == set()
    assert files.bytes == 0


def test_sizes_are_known(files: SessionFiles, uploads: Path) -> None:
    one, two = files.adopt(upload(uploads)), files.adopt(upload(uploads, contents=b"1234"))
    assert files.size({one, two, uploads / "not mine"}) == 11
    assert files.bytes == 11
    assert files.size({two}) == 4


def test_files_are_dated_anew_when_it_is_time(files: SessionFiles, uploads: Path, clock: Clock) -> None:
    path = files.adopt(upload(uploads))
    os.utime(path, (1, 1))
    clock.pass_(TOUCH_SECONDS - 1)
    files.touch_if_due()
    assert path.stat().st_mtime == 1
    clock.pass_(1)
    files.touch_if_due()
    assert path.stat().st_mtime > 1
    os.utime(path, (1, 1))
    files.touch_if_due()
    assert path.stat().st_mtime == 1
    files.touch()
    assert path.stat().st_mtime > 1
