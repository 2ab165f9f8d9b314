"""A job on disk: what was written is there again, whatever happened to the program."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from omni_backend import LANGUAGES, SamplingParams, phrase
from omni_backend.caption import CaptionedFile, CaptionSettings, Segment
from omni_backend.caption.collect import Found, Refused
from omni_backend.caption.store import DATABASE, Counts, Item, JobStore, holds_job
from omni_backend.catalogue import Language
from tests.caption_jobs import caption, found, item, reopened, texts, window

ALL: Final = CaptionSettings(
    language="zh",
    instruction="Which birds?",
    sampling=SamplingParams(temperature=0.6, top_p=0.95, top_k=7, max_tokens=99, repetition_penalty=1.1, seed=5),
    window_seconds=12.5,
    overlap_seconds=2.0,
    samples=3,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    """Of one caption for each window, without files."""
    with closing(JobStore.create(tmp_path / "job", CaptionSettings())) as made:
        yield made


@pytest.fixture
def samples(tmp_path: Path) -> Iterator[JobStore]:
    """Of three captions for each window, with the file 1."""
    with closing(JobStore.create(tmp_path / "samples", CaptionSettings(samples=3))) as made:
        made.add([found("a.wav")])
        yield made


# The job as a whole


def test_a_job_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "job"
    assert not holds_job(folder)
    with pytest.raises(FileNotFoundError):
        JobStore.open(folder)
    JobStore.create(folder, CaptionSettings()).close()
    assert holds_job(folder)
    with pytest.raises(FileExistsError):
        JobStore.create(folder, CaptionSettings())


def test_a_job_that_was_half_made_is_none(tmp_path: Path) -> None:
    (tmp_path / f"{DATABASE}.new").write_bytes(b"half of a job")
    assert not holds_job(tmp_path)
    JobStore.create(tmp_path, CaptionSettings()).close()
    JobStore.open(tmp_path).close()


def test_a_damaged_job_says_so(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        JobStore.open(tmp_path)


@pytest.mark.parametrize("settings", [CaptionSettings(), ALL], ids=["defaults", "all"])
def test_settings_stay(tmp_path: Path, settings: CaptionSettings) -> None:
    with reopened(JobStore.create(tmp_path, settings)) as again:
        assert again.settings == settings


def test_whether_it_is_to_run_stays(store: JobStore) -> None:
    assert store.wanted
    store.wanted = False
    with reopened(store) as again:
        assert not again.wanted


def test_every_change_is_news(store: JobStore) -> None:
    versions = [store.version]

    def grown() -> None:
        versions.append(store.version)
        assert versions[-1] > versions[-2]

    store.add([found("a.wav")])
    grown()
    store.start(1)
    grown()
    store.measured(1, 10.0)
    grown()
    store.begin_window(1, window(0, 0.0, 10.0))
    grown()
    store.put(1, 0, 0, "Rain.")
    grown()
    store.edit(1, 0, "Snow.")
    grown()
    store.choose(1, 0, 0)
    grown()
    store.finish(1, 10.0)
    grown()
    store.wanted = False
    grown()
    store.fail(1, phrase("media.empty", name="a.wav"))
    grown()
    store.retry()
    grown()
    assert (texts(store), store.counts.files, store.version) == (["Rain."], 1, versions[-1])


def test_a_closed_job_refuses_work(store: JobStore) -> None:
    store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        store.add([found("a.wav")])


# Files


def test_files_come_in_the_order_in_which_they_were_added(store: JobStore) -> None:
    names = ["2.wav", "10.wav", "rain/1.wav"]
    store.add(map(found, names))
    store.add([found("0.wav")])
    assert [one.name for one in store.items()] == [*names, "0.wav"]
    assert item(store) == Item(1, "2.wav", Path("/there/2.wav"), "waiting", None, 0.0, 0, None)
    assert [one.id for one in store.items(limit=2, offset=1)] == [2, 3]
    store.start(2)
    assert [one.id for one in store.items(state="waiting", limit=2)] == [1, 3]
    assert [one.id for one in store.items(state="running")] == [2]
    assert store.item(99) is None
    assert [store.neighbours(id) for id in (1, 2, 4)] == [(None, 2), (1, 3), (3, None)]


def test_a_name_is_there_once_and_all_is_added_or_nothing(store: JobStore) -> None:
    store.add([found("a.wav")])
    for names in (("b.wav", "a.wav"), ("c.wav", "c.wav")):
        version = store.version
        with pytest.raises(ValueError, match=r"name"):
            store.add(map(found, names))
        assert store.version == version
    assert [one.name for one in store.items()] == ["a.wav"]


def test_what_was_refused_may_have_any_name(store: JobStore) -> None:
    """Two broken archives of one name, or one that is named as a file of another folder is."""
    reason = phrase("media.empty", name="a.wav")
    store.add([found("a.wav")], [Refused("a.wav", reason), Refused("a.wav", reason)])
    assert [(one.name, one.state, one.path) for one in store.items()] == [
        ("a.wav", "waiting", Path("/there/a.wav")),
        ("a.wav", "failed", Path()),
        ("a.wav", "failed", Path()),
    ]


def test_paths_that_are_no_text_stay(store: JobStore, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))  # as old archives unpack
    store.add([Found("caf_.wav", path)])
    with reopened(store) as again:
        assert item(again).path == path


def test_how_far_it_is(store: JobStore) -> None:
    assert store.counts == Counts()
    store.add(map(found, ("done", "running", "waiting", "failed")), [Refused("never", phrase("collect.empty"))])
    store.measured(1, 19.9)
    caption(store, 1, 0, "Rain.")
    caption(store, 1, 1, "Snow.")
    store.finish(1, 20.0)
    store.start(2)
    store.measured(2, 25.0)
    caption(store, 2, 0, "Hail.")
    store.begin_window(2, window(1, 10.0, 20.0))
    store.measured(3, 5.0)
    store.measured(4, 100.0)
    caption(store, 4, 0, "Half of it.")
    store.fail(4, phrase("media.broken", name="failed"))
    counts = store.counts
    assert counts == Counts(waiting=1, running=1, done=1, failed=2, seconds=50.0, captioned=30.0)
    assert (counts.files, counts.open) == (5, 2)
    assert item(store, 2).captioned == 10.0


def test_no_more_is_captioned_than_there_is(store: JobStore) -> None:
    store.add([found("unmeasured"), found("longer than its header says")])
    caption(store, 1, 0, "Rain.")
    store.measured(2, 9.5)
    caption(store, 2, 0, "Snow.")
    assert (store.counts.seconds, store.counts.captioned) == (19.5, 19.5)


def test_a_late_look_does_not_change_what_is_done(store: JobStore) -> None:
    store.add([found("a.wav")])
    store.finish(1, 10.0)
    store.measured(1, 11.0)
    assert item(store).seconds == 10.0


def test_a_window_counts_when_all_its_samples_are_there(samples: JobStore) -> None:
    samples.begin_window(1, window(0, 0.0, 10.0))
    for sample, captioned in ((2, 0.0), (0, 0.0), (1, 10.0)):
        samples.put(1, 0, sample, "Rain.")
        assert samples.counts.captioned == captioned
        assert len(samples.segments(1)) == (captioned > 0)


def test_stopped_and_running_files_wait_again(store: JobStore) -> None:
    store.add(map(found, "abcd"))
    for id in (1, 2, 3):
        store.start(id)
    store.finish(3, 1.0)
    store.put_back(1)
    store.put_back(3)
    assert [(one.state, one.starts) for one in store.items()] == [
        ("waiting", 0),
        ("running", 1),
        ("done", 0),
        ("waiting", 0),
    ]
    store.start(1)
    store.put_back()
    assert [(one.state, one.starts) for one in store.items()] == [
        ("waiting", 0),
        ("waiting", 0),
        ("done", 0),
        ("waiting", 0),
    ]


def test_reopening_remembers_how_often_a_file_was_begun(store: JobStore) -> None:
    store.add([found("a.wav"), found("b.wav")])
    store.start(1)
    with reopened(store) as again:
        assert [(one.state, one.starts) for one in again.items()] == [("waiting", 1), ("waiting", 0)]
        again.start(1)
        with reopened(again) as third:
            assert item(third).starts == 2
            third.start(1)
            third.finish(1, 1.0)
            assert item(third).starts == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_why_a_file_failed_is_said_in_the_readers_language(store: JobStore, language: Language) -> None:
    reasons = [
        phrase("media.too_long", name="雨.wav", found="13 h", limit="12 h"),
        phrase("collect.too_many", name="x.zip", limit=3),
    ]
    store.add([found("雨.wav")], [Refused("x.zip", reasons[1])])
    store.fail(1, reasons[0])
    with reopened(store) as again:
        assert [one.state for one in again.items()] == ["failed", "failed"]
        assert [one.error and one.error.text(language) for one in again.items()] == [
            reason.text(language) for reason in reasons
        ]


def test_what_failed_is_tried_again_and_what_was_no_file_is_not(store: JobStore) -> None:
    reason = phrase("media.empty", name="it")
    store.add(map(found, "abcd"), [Refused("e", reason)])
    for id in (1, 2, 3):
        store.start(id)
        store.fail(id, reason)
    assert item(store).starts == 0
    store.retry(2)
    assert [one.state for one in store.items()] == ["failed", "waiting", "failed", "waiting", "failed"]
    assert item(store, 2).error is None
    store.retry(4)
    store.retry(5)
    assert [one.id for one in store.items(state="failed")] == [1, 3, 5]
    store.finish(4, 1.0)
    store.retry()
    assert [one.state for one in store.items()] == ["waiting", "waiting", "waiting", "done", "failed"]
    assert item(store, 5).error == reason


# Captions


def test_what_is_missing_is_told(samples: JobStore) -> None:
    first = window(0, 0.0, 10.0)
    assert samples.begin_window(1, first) == [0, 1, 2]
    samples.put(1, 0, 1, "Rain.")
    assert samples.begin_window(1, first) == [0, 2]
    samples.put(1, 0, 0, "Snow.")
    samples.put(1, 0, 2, "Hail.")
    with reopened(samples) as again:
        assert again.begin_window(1, first) == []
        assert again.segments(1) == [Segment(0, 0.0, 10.0, ("Snow.", "Rain.", "Hail."))]
        assert again.cuts(1) == [(0, 0.0, 10.0, b"\0\7")]


def test_other_cuts_drop_what_was_written_from_there_on(store: JobStore) -> None:
    store.add([found("a.wav"), found("b.wav")])
    for index, text in enumerate(("one", "two", "three")):
        caption(store, 1, index, text)
    caption(store, 2, 0, "another file")
    store.edit(1, 0, "ONE")
    store.edit(1, 1, "TWO")
    assert store.begin_window(1, window(0, 0.0, 10.0)) == []
    assert store.begin_window(1, window(1, 10.0, 18.5)) == [0]
    assert (texts(store), texts(store, 2)) == (["ONE"], ["another file"])
    assert (item(store).captioned, store.counts.captioned) == (10.0, 20.0)
    store.put(1, 1, 0, "new")
    assert store.segments(1)[1] == Segment(1, 10.0, 18.5, ("new",))
    assert [number for number, *_ in store.cuts(1)] == [0, 1]


def test_nothing_stays_of_a_longer_file_that_was_in_its_place(store: JobStore) -> None:
    store.add([found("a.wav"), found("b.wav")])
    for index, text in enumerate(("one", "two", "three")):
        caption(store, 1, index, text)
        caption(store, 2, index, text)
    store.finish(1, 20.0)
    store.finish(2, 30.0)
    assert (texts(store), len(store.cuts(1))) == (["one", "two"], 2)
    assert texts(store, 2) == ["one", "two", "three"]
    assert store.begin_window(1, window(2, 20.0, 30.0)) == [0]


def test_samples_to_choose_from(samples: JobStore) -> None:
    caption(samples, 1, 0, "Rain.")
    assert samples.segments(1)[0].captions == ("Rain.", "Rain. 1", "Rain. 2")
    samples.choose(1, 0, 2)
    assert (texts(samples), samples.excerpts([1], 99)) == (["Rain. 2"], {1: "Rain. 2"})
    samples.edit(1, 0, "Hail.")
    assert texts(samples) == ["Hail."]
    samples.edit(1, 0, None)
    assert texts(samples) == ["Rain. 2"]
    samples.edit(1, 0, "Hail.")
    samples.choose(1, 0, 1)
    with reopened(samples) as again:
        [segment] = again.segments(1)
        assert (segment.text, segment.chosen, segment.edited) == ("Rain. 1", 1, None)


def test_a_caption_may_be_edited_to_nothing(store: JobStore) -> None:
    store.add([found("a.wav")])
    caption(store, 1, 0, "Rain.")
    store.edit(1, 0, "")
    assert (texts(store), store.excerpts([1], 9)) == ([""], {1: ""})


def test_there_is_nothing_to_review_where_nothing_is_written(samples: JobStore) -> None:
    caption(samples, 1, 0, "Rain.")
    samples.begin_window(1, window(1, 10.0, 20.0))
    samples.put(1, 1, 0, "Half of it.")
    for id, number in ((1, 1), (1, 2), (2, 0)):
        with pytest.raises(KeyError):
            samples.edit(id, number, "Hail.")
        with pytest.raises(KeyError):
            samples.choose(id, number, 0)
    for sample in (-1, 3):
        with pytest.raises(KeyError):
            samples.choose(1, 0, sample)
    assert texts(samples) == ["Rain."]


def test_whether_the_used_caption_is_cut_short(samples: JobStore) -> None:
    samples.begin_window(1, window(0, 0.0, 10.0))
    for sample in range(3):
        samples.put(1, 0, sample, "Rain", cut_short=sample == 1)
    for sample in range(3):
        samples.choose(1, 0, sample)
        assert samples.segments(1)[0].cut_short is (sample == 1)


def test_half_letters_break_nothing(store: JobStore) -> None:
    """As servers and browsers may send them."""
    store.add([found("a.wav")])
    store.begin_window(1, window(0, 0.0, 10.0))
    store.put(1, 0, 0, "Rain \ud83c" + "\udf27, \udf27.")
    assert texts(store) == ["Rain \U0001f327, \ufffd."]
    store.edit(1, 0, "\ud83cSnow")
    assert texts(store) == ["\ufffdSnow"]


def test_how_captions_begin(store: JobStore) -> None:
    store.add(map(found, "abcd"))
    caption(store, 1, 0, "雨水打在屋顶上")
    caption(store, 1, 1, "Never seen.")
    caption(store, 2, 0, "Rain.")
    store.edit(2, 0, "Snow and hail.")
    store.begin_window(3, window(0, 0.0, 10.0))
    assert store.excerpts([1, 2, 3, 4], 4) == {1: "雨水打在", 2: "Snow"}
    assert store.excerpts([2], 99) == {2: "Snow and hail."}
    assert store.excerpts([], 9) == {}


def test_files_to_export(store: JobStore) -> None:
    reason = phrase("media.broken", name="it")
    store.add(map(found, ("z.wav", "half.wav", "none.wav", "a.wav", "empty.wav")), [Refused("x.zip", reason)])
    caption(store, 4, 0, "Snow.")
    store.finish(4, 9.5)
    caption(store, 2, 0, "Hail.")
    store.begin_window(2, window(1, 10.0, 20.0))
    store.fail(2, reason)
    store.fail(3, reason)
    caption(store, 1, 0, "Rain.")
    store.finish(5, 0.0)
    assert list(store.captioned_files()) == [
        CaptionedFile("z.wav", 10.0, (Segment(0, 0.0, 10.0, ("Rain.",)),)),
        CaptionedFile("half.wav", 10.0, (Segment(0, 0.0, 10.0, ("Hail.",)),)),
        CaptionedFile("a.wav", 9.5, (Segment(0, 0.0, 10.0, ("Snow.",)),)),
        CaptionedFile("empty.wav", 0.0, ()),
    ]
