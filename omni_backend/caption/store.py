"""A job on disk: its files, its settings and every caption that was made. One SQLite file in a folder of its own.

Whatever is done is there at once, so a job goes on where it was after the program ended in any way. Any thread may
call it. Knows nothing of engines.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, cast

from omni_backend.caption.collect import Found, Refused
from omni_backend.caption.values import CaptionedFile, CaptionSettings, Segment
from omni_backend.caption.windows import Window
from omni_backend.catalogue import Phrase
from omni_backend.types import SamplingParams

State = Literal["waiting", "running", "done", "failed"]

DATABASE: Final = "job.sqlite"
FILES: Final = "files"
"""The folder for the job's own copies of files, inside the job's folder."""

_SCHEMA: Final = """
CREATE TABLE settings (value TEXT NOT NULL, wanted INTEGER NOT NULL DEFAULT 1);
CREATE TABLE items (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, path BLOB NOT NULL, state TEXT NOT NULL DEFAULT 'waiting',
    seconds REAL, captioned REAL NOT NULL DEFAULT 0, starts INTEGER NOT NULL DEFAULT 0, error TEXT
);
CREATE UNIQUE INDEX names ON items (name) WHERE path != '';
CREATE INDEX states ON items (state, id);
CREATE TABLE segments (
    item INTEGER NOT NULL REFERENCES items (id), number INTEGER NOT NULL, start REAL NOT NULL, end REAL NOT NULL,
    peaks BLOB NOT NULL, chosen INTEGER NOT NULL DEFAULT 0, edited TEXT, PRIMARY KEY (item, number)
) WITHOUT ROWID;
CREATE TABLE captions (
    item INTEGER NOT NULL, number INTEGER NOT NULL, sample INTEGER NOT NULL, text TEXT NOT NULL,
    cut_short INTEGER NOT NULL, PRIMARY KEY (item, number, sample)
) WITHOUT ROWID;
"""
_ITEM: Final = "id, name, path, state, seconds, captioned, starts, error"


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a job."""

    id: int
    name: str
    path: Path
    """Empty where it never was a file."""
    state: State
    seconds: float | None
    """How long it is; None: not known yet."""
    captioned: float
    """How much of it has all its captions."""
    starts: int
    """How often it was begun and neither ended nor was stopped: more than once, the program died of it."""
    error: Phrase | None
    """Why it failed."""


@dataclass(frozen=True, slots=True)
class Counts:
    """How far a job is."""

    waiting: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    """Of sound, as far as it is known and its file did not fail; never less than `captioned`."""
    captioned: float = 0.0

    @property
    def files(self) -> int:
        """All of them."""
        return self.waiting + self.running + self.done + self.failed

    @property
    def open(self) -> int:
        """Those that are neither done nor failed."""
        return self.waiting + self.running


class JobStore:
    """Make one with `create` or `open`; close it at the end."""

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        self.folder = folder
        self.version = 0
        """Grows with every change that this object makes, so that a page can tell whether there is news."""
        self._database = database
        self._lock = threading.RLock()
        [[value]] = database.execute("SELECT value FROM settings")
        self.settings = _settings(json.loads(value))

    @classmethod
    def create(cls, folder: Path, settings: CaptionSettings) -> JobStore:
        """A new job in `folder`, which is made where it is not there. Raises FileExistsError when it holds a job."""
        folder.mkdir(parents=True, exist_ok=True)
        if holds_job(folder):
            raise FileExistsError(str(folder / DATABASE))
        unfinished = folder / f"{DATABASE}.new"  # a job is there as a whole or not at all
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(unfinished)) as database, database:
            database.executescript(_SCHEMA)
            database.execute("INSERT INTO settings (value) VALUES (?)", (json.dumps(asdict(settings)),))
        unfinished.rename(folder / DATABASE)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> JobStore:
        """The job in `folder`. Files that were being captioned when its program ended wait again.

        Raises FileNotFoundError when there is none, and sqlite3.DatabaseError when it is damaged.
        """
        if not holds_job(folder):
            raise FileNotFoundError(str(folder / DATABASE))
        database = sqlite3.connect(folder / DATABASE, check_same_thread=False, isolation_level=None, timeout=10)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")  # safe against the end of the program, not of the power
            store = cls(folder, database)
            store._write("UPDATE items SET state = 'waiting' WHERE state = 'running'")
        except BaseException:
            database.close()
            raise
        return store

    def close(self) -> None:
        """Further calls fail."""
        with self._lock:
            self._database.close()

    # The job

    @property
    def wanted(self) -> bool:
        """Whether it is to run: not stopped by a person, and not refused by the engine."""
        return bool(self._one("SELECT wanted FROM settings")[0])

    @wanted.setter
    def wanted(self, value: bool) -> None:
        self._write("UPDATE settings SET wanted = ?", value)

    @property
    def counts(self) -> Counts:
        """How far it is."""
        with self._lock:
            rows = self._database.execute(
                "SELECT state, COUNT(*), TOTAL(COALESCE(seconds, captioned)),"
                " TOTAL(MIN(captioned, COALESCE(seconds, captioned)))"
                " FROM items GROUP BY state"
            ).fetchall()
        numbers = {state: count for state, count, _, _ in rows}
        good = [row for row in rows if row[0] != "failed"]
        return Counts(**numbers, seconds=sum(row[2] for row in good), captioned=sum(row[3] for row in good))

    # Files

    def add(self, found: Iterable[Found], refused: Iterable[Refused] = ()) -> None:
        """Adds files to caption, and things that failed before they were files. Raises ValueError for a file's name
        that is there already, and adds nothing then."""
        with self._change() as database:
            try:
                database.executemany(
                    "INSERT INTO items (name, path) VALUES (?, ?)", [(one.name, os.fsencode(one.path)) for one in found]
                )
                database.executemany(
                    "INSERT INTO items (name, path, state, error) VALUES (?, '', 'failed', ?)",
                    [(one.name, _error(one.reason)) for one in refused],
                )
            except sqlite3.IntegrityError as error:
                raise ValueError(repr(error)) from error

    def items(self, *, state: State | None = None, limit: int = -1, offset: int = 0) -> list[Item]:
        """The files in the order in which they were added; those of one `state` only, if given."""
        where, values = ("WHERE state = ?", (state,)) if state else ("", ())
        rows = self._all(f"SELECT {_ITEM} FROM items {where} ORDER BY id LIMIT ? OFFSET ?", *values, limit, offset)
        return [_item(row) for row in rows]

    def item(self, id: int) -> Item | None:
        """One file; None when there is no such."""
        rows = self._all(f"SELECT {_ITEM} FROM items WHERE id = ?", id)
        return _item(rows[0]) if rows else None

    def neighbours(self, item: int) -> tuple[int | None, int | None]:
        """The files before and after it; None at the ends."""
        [(before, after)] = self._all(
            "SELECT (SELECT MAX(id) FROM items WHERE id < ?1), (SELECT MIN(id) FROM items WHERE id > ?1)", item
        )
        return before, after

    def start(self, item: int) -> None:
        """Notes that it is being captioned."""
        self._write("UPDATE items SET state = 'running', starts = starts + 1 WHERE id = ?", item)

    def measured(self, item: int, seconds: float) -> None:
        """Notes how long it seems to be, while it has not ended."""
        self._write("UPDATE items SET seconds = ? WHERE id = ? AND state IN ('waiting', 'running')", seconds, item)

    def finish(self, item: int, seconds: float) -> None:
        """Notes that all its captions are there. Those of a longer file that was in its place go."""
        with self._change() as database:
            database.execute(
                "UPDATE items SET state = 'done', seconds = ?1, captioned = ?1, starts = 0, error = NULL WHERE id = ?2",
                (seconds, item),
            )
            database.execute("DELETE FROM segments WHERE item = ? AND start >= ?", (item, seconds))

    def fail(self, item: int, reason: Phrase) -> None:
        """Notes why it cannot be captioned. What there is of its captions stays."""
        self._write("UPDATE items SET state = 'failed', starts = 0, error = ? WHERE id = ?", _error(reason), item)

    def put_back(self, item: int | None = None) -> None:
        """Notes that a file, or all that were being captioned, was stopped and waits again."""
        self._write(
            "UPDATE items SET state = 'waiting', starts = 0 WHERE state = 'running' AND (id = ?1 OR ?1 IS NULL)", item
        )

    def retry(self, item: int | None = None) -> None:
        """Lets a file that failed, or all that did, be tried again. What was no file stays failed."""
        self._write(
            "UPDATE items SET state = 'waiting', error = NULL"
            " WHERE state = 'failed' AND path != '' AND (id = ?1 OR ?1 IS NULL)",
            item,
        )

    # Captions

    def begin_window(self, item: int, window: Window) -> list[int]:
        """Notes the cuts of a window; the samples that are not there yet.

        Captions of a window with other cuts, of a file that changed since, go.
        """
        with self._change() as database:
            row = database.execute(
                "SELECT start, end FROM segments WHERE item = ? AND number = ?", (item, window.index)
            ).fetchone()
            if row != (window.start, window.end):
                for table in ("segments", "captions"):
                    database.execute(f"DELETE FROM {table} WHERE item = ? AND number >= ?", (item, window.index))
                database.execute(
                    "INSERT INTO segments (item, number, start, end, peaks) VALUES (?, ?, ?, ?, ?)",
                    (item, window.index, window.start, window.end, window.peaks),
                )
                self._count(database, item)
            there = database.execute(
                "SELECT sample FROM captions WHERE item = ? AND number = ?", (item, window.index)
            ).fetchall()
        return [sample for sample in range(self.settings.samples) if (sample,) not in there]

    def put(self, item: int, number: int, sample: int, text: str, *, cut_short: bool = False) -> None:
        """Keeps one caption of a window."""
        with self._change() as database:
            database.execute(
                "INSERT OR REPLACE INTO captions VALUES (?, ?, ?, ?, ?)",
                (item, number, sample, _whole(text), cut_short),
            )
            self._count(database, item)

    def edit(self, item: int, number: int, text: str | None) -> None:
        """What a person wrote instead of a caption; None: the caption again. Raises KeyError: no such segment."""
        self._review("edited = ?", None if text is None else _whole(text), item, number)

    def choose(self, item: int, number: int, sample: int) -> None:
        """Which sample is used; what was edited goes. Raises KeyError: no such segment or sample."""
        if not 0 <= sample < self.settings.samples:
            raise KeyError(sample)
        self._review("edited = NULL, chosen = ?", sample, item, number)

    def segments(self, item: int) -> list[Segment]:
        """Its segments that have all their captions, in the order of time."""
        with self._lock:  # both of the same moment
            written = self._all(
                "SELECT number, text, cut_short FROM captions WHERE item = ? ORDER BY number, sample", item
            )
            cuts = self._all(
                "SELECT number, start, end, chosen, edited FROM segments WHERE item = ? ORDER BY number", item
            )
        captions: dict[int, list[tuple[str, bool]]] = {}
        for number, text, cut_short in written:
            captions.setdefault(number, []).append((text, bool(cut_short)))
        segments = []
        for number, start, end, chosen, edited in cuts:
            made = captions.get(number, ())
            if len(made) >= self.settings.samples:
                texts = tuple(text for text, _ in made)
                segments.append(Segment(number, start, end, texts, chosen, edited, made[chosen][1]))
        return segments

    def cuts(self, item: int) -> list[tuple[int, float, float, bytes]]:
        """Of each window that was begun: number, start, end, and the peaks of its sound."""
        return self._all("SELECT number, start, end, peaks FROM segments WHERE item = ? ORDER BY number", item)

    def excerpts(self, items: Sequence[int], characters: int) -> dict[int, str]:
        """How the captions of these files begin, as far as they are there."""
        rows = self._all(
            "SELECT s.item, SUBSTR(COALESCE(s.edited, c.text), 1, ?) FROM segments AS s JOIN captions AS c"
            " ON c.item = s.item AND c.number = s.number AND c.sample = s.chosen"
            f" WHERE s.number = 0 AND s.item IN ({', '.join('?' * len(items))})",
            *(characters, *items),
        )
        return dict(rows)

    def captioned_files(self) -> Iterator[CaptionedFile]:
        """Every file that has captions, failed ones included, one after the other."""
        for item in self.items():
            segments = self.segments(item.id)
            if segments or item.state == "done":
                seconds = segments[-1].end if item.seconds is None else item.seconds
                yield CaptionedFile(item.name, seconds, tuple(segments))

    # What they share

    def _count(self, database: sqlite3.Connection, item: int) -> None:
        """Notes how much of it has all its captions."""
        database.execute(
            "UPDATE items SET captioned = (SELECT TOTAL(end - start) FROM segments AS s WHERE item = ?1 AND"
            " (SELECT COUNT(*) FROM captions AS c WHERE c.item = ?1 AND c.number = s.number) >= ?2) WHERE id = ?1",
            (item, self.settings.samples),
        )

    def _review(self, change: str, value: object, item: int, number: int) -> None:
        with self._change() as database:
            changed = database.execute(
                f"UPDATE segments SET {change} WHERE item = ? AND number = ? AND (SELECT COUNT(*) FROM captions AS c"
                " WHERE c.item = segments.item AND c.number = segments.number) >= ?",
                (value, item, number, self.settings.samples),
            )
            if changed.rowcount == 0:
                raise KeyError((item, number))

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # a full disk may have ended it
                    self._database.execute("ROLLBACK")
                raise
            self.version += 1

    def _write(self, statement: str, *values: object) -> None:
        with self._lock:
            self._database.execute(statement, values)
            self.version += 1

    def _all(self, statement: str, *values: object) -> list[Any]:
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    def _one(self, statement: str) -> Sequence[Any]:
        return cast(Sequence[Any], self._all(statement)[0])


def holds_job(folder: Path) -> bool:
    """Whether a job lies in `folder`."""
    return (folder / DATABASE).is_file()


def _item(row: Sequence[Any]) -> Item:
    id, name, path, state, seconds, captioned, starts, error = row
    return Item(id, name, Path(os.fsdecode(path)), state, seconds, captioned, starts, _phrase(error) if error else None)


def _whole(text: str) -> str:
    """`text` with halves of letters joined or replaced: UTF-8 cannot write them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _error(reason: Phrase) -> str:
    return json.dumps([reason.key, dict(reason.values)])


def _phrase(said: str) -> Phrase:
    key, values = json.loads(said)
    return Phrase(key, tuple(values.items()))


def _settings(said: dict[str, Any]) -> CaptionSettings:
    settings = CaptionSettings(**said)
    return replace(settings, sampling=SamplingParams(**said["sampling"]) if said["sampling"] else None)


__all__ = ["Counts", "Item", "JobStore", "State", "holds_job"]
