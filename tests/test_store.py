"""All conversations: whose they are, when they are forgotten, that they are apart and bounded."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from omni_backend import MediaPart, Message, OutOfMemory, ScriptedBackend, TextDelta, phrase
from omni_backend.scripted import Step
from omni_ui import store as store_module
from omni_ui.limits import GONE_IDS, TOUCH_SECONDS
from omni_ui.sessions import AnswerOptions, Session
from omni_ui.speech import TOKEN_SECONDS
from omni_ui.store import GRACE_SECONDS, IDLE_SECONDS, SessionStore, StoreLimits
from tests.conversations import FOREVER, SOUND, TWO_AT_ONCE, Clock, ask, files_under, said, upload, user
from tests.waiting import until, wait_until

pytestmark = pytest.mark.asyncio

GONE_IDLE = phrase("session.gone_idle", minutes="60")
GONE_LEFT = phrase("session.gone_left", minutes="10")
GONE_ROOM = phrase("session.gone_room")
GONE_RESTART = phrase("session.gone_restart")
NO_MEMORY = OutOfMemory(phrase("backend.failed"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def store(uploads: Path, clock: Clock) -> SessionStore:
    return SessionStore(uploads / "sessions", clock=clock, uploads=uploads)


def small(uploads: Path, limits: StoreLimits) -> SessionStore:
    return SessionStore(uploads / "sessions", limits, Clock(), uploads=uploads)


async def with_file(session: Session, uploads: Path, contents: bytes = b"picture") -> Path:
    path = session.adopt(upload(uploads, contents=contents))
    await ask(session, ScriptedBackend(), user("What?", path))
    return path


# Which conversation is whose


async def test_sessions_are_apart_and_their_ids_cannot_be_guessed(store: SessionStore) -> None:
    one, two = store.open(None), store.open(None)
    assert len(one.id) >= 32
    assert one.id != two.id
    await ask(one, ScriptedBackend(), "mine")
    assert two.entries == ()
    assert store.open(one.id) is one
    assert store.get("guess") is None
    assert store.get(None) is None


async def test_an_unknown_id_gets_a_new_session_of_its_own(store: SessionStore) -> None:
    assert store.open("chosen by a stranger").id != "chosen by a stranger"


async def test_a_page_has_one_conversation_before_it_knows_its_id(store: SessionStore) -> None:
    assert store.open(None, "page") is store.open(None, "page")
    assert store.open(None, "page") is not store.open(None, "other")
    assert store.open(None) is not store.open(None)


async def test_a_discarded_session_is_gone_with_its_files(store: SessionStore, uploads: Path) -> None:
    session = store.open(None)
    await with_file(session, uploads)
    store.discard(session.id)
    store.discard(session.id)
    assert files_under(uploads) == set()
    assert len(store) == 0
    assert store.get(session.id) is None


# Reloads, closed pages, copied tabs


async def test_a_reload_brings_the_conversation_back(store: SessionStore, uploads: Path, clock: Clock) -> None:
    session = store.open(None, "before")
    path = await with_file(session, uploads)
    await store.leave("before")
    clock.pass_(GRACE_SECONDS - 1)
    store.sweep()
    assert store.resume(session.id, "after") is session
    clock.pass_(IDLE_SECONDS - 1)
    store.sweep()
    assert store.get(session.id) is session
    assert path.exists()
    assert store.gone(session.id) is None


async def test_a_closed_page_takes_its_conversation_along_after_the_grace_period(
    store: SessionStore, uploads: Path, clock: Clock
) -> None:
    session, other = store.open(None, "page"), store.open(None, "other")
    await with_file(session, uploads)
    await store.leave("page")
    clock.pass_(GRACE_SECONDS)
    store.sweep()
    assert store.resume(session.id, "page") is None
    assert store.gone(session.id) == GONE_LEFT
    assert files_under(uploads) == set()
    assert store.get(other.id) is other


async def test_the_old_pages_farewell_may_come_after_the_new_page(store: SessionStore, clock: Clock) -> None:
    session = store.open(None, "before")
    store.resume(session.id, "after")
    turn = session.ask(ScriptedBackend([TextDelta("half"), FOREVER]), user("Hi"))
    await until(lambda: turn.answer.text)
    await store.leave("before")
    assert not turn.ended
    clock.pass_(GRACE_SECONDS + 1)
    store.sweep()
    assert store.get(session.id) is session
    await turn.stop()


async def test_a_reload_in_mid_answer_keeps_what_there_was_of_it(store: SessionStore) -> None:
    backend = ScriptedBackend([TextDelta("half"), FOREVER])
    session = store.open(None, "before")
    turn = session.ask(backend, user("Hi"))
    await until(lambda: turn.answer.text)
    await store.leave("before")
    assert (turn.ended, backend.active_requests) == (True, 0)
    resumed = store.resume(session.id, "after")
    assert resumed is session
    assert said(resumed) == [("user", "Hi"), ("assistant", "half")]
    assert resumed.entries[-1].mark == phrase("ui.mark_stopped")


async def test_a_question_without_an_answer_yet_comes_back_after_a_reload(store: SessionStore, uploads: Path) -> None:
    session = store.open(None, "before")
    path = session.adopt(upload(uploads))
    session.ask(ScriptedBackend([FOREVER]), user("What?", path))
    await store.leave("before")
    resumed = store.resume(session.id, "after")
    assert resumed is not None
    outcome = resumed.take_outcome()
    assert outcome is not None
    assert outcome.returned == user("What?", path)
    assert path.exists()


@pytest.mark.parametrize("closed", ["first", "copy"])
async def test_a_copied_tab_keeps_the_conversation_when_the_other_is_closed(
    store: SessionStore, clock: Clock, closed: str
) -> None:
    session = store.open(None, "first")
    store.resume(session.id, "copy")
    await store.leave(closed)
    clock.pass_(GRACE_SECONDS + 1)
    store.sweep()
    assert store.get(session.id) is session
    await store.leave("first" if closed == "copy" else "copy")
    clock.pass_(GRACE_SECONDS)
    store.sweep()
    assert store.get(session.id) is None


async def test_a_conversation_that_is_used_after_its_page_seemed_closed_stays(
    store: SessionStore, clock: Clock
) -> None:
    session = store.open(None, "page")
    await store.leave("page")
    clock.pass_(GRACE_SECONDS - 1)
    store.get(session.id)
    clock.pass_(GRACE_SECONDS)
    store.sweep()
    assert store.get(session.id) is session


async def test_a_closed_page_ends_only_its_own_turn(store: SessionStore) -> None:
    backend = ScriptedBackend(fallback=[TextDelta("half"), FOREVER], capabilities=TWO_AT_ONCE)
    mine, other = store.open(None, page="mine"), store.open(None, page="other")
    turns = [session.ask(backend, user("Hi")) for session in (mine, other)]
    await until(lambda: all(turn.answer.text for turn in turns))
    await store.leave("mine")
    await store.leave("never seen")
    await store.leave("")
    assert [turn.ended for turn in turns] == [True, False]
    await other.stop()


# Time


async def test_a_conversation_that_nobody_continues_is_forgotten(
    store: SessionStore, uploads: Path, clock: Clock
) -> None:
    session = store.open(None, "page")
    await with_file(session, uploads)
    clock.pass_(IDLE_SECONDS - 1)
    store.sweep()
    assert len(store) == 1
    clock.pass_(1)
    store.sweep()
    assert store.gone(session.id) == GONE_IDLE
    assert files_under(uploads) == set()


async def test_a_long_answer_is_no_idle_time(store: SessionStore, clock: Clock) -> None:
    session = store.open(None, "page")
    turn = session.ask(ScriptedBackend([TextDelta("half"), FOREVER]), user("Hi"))
    await until(lambda: turn.answer.text)
    clock.pass_(IDLE_SECONDS)
    store.sweep()
    assert store.gone(session.id) is None
    await turn.stop()
    clock.pass_(IDLE_SECONDS - 1)
    store.sweep()
    assert store.get(session.id) is session


async def test_a_closed_page_is_forgotten_even_if_its_engine_does_not_let_go(store: SessionStore, clock: Clock) -> None:
    session = store.open(None, "page")
    turn = session.ask(ScriptedBackend([TextDelta("half"), FOREVER]), user("Hi"))
    await until(lambda: turn.answer.text)
    session.left_at = clock()  # as when `stop` hangs
    clock.pass_(GRACE_SECONDS)
    store.sweep()
    assert store.gone(session.id) == GONE_LEFT
    assert (await turn.wait()).stopped


async def test_sweeping_keeps_files_young_and_lets_sound_go(store: SessionStore, uploads: Path, clock: Clock) -> None:
    session = store.open(None)
    path = session.adopt(upload(uploads))
    turn = session.ask(ScriptedBackend([TextDelta("Hi"), SOUND]), user("Hi", path), AnswerOptions(speak=True))
    await turn.wait()
    before = path.stat().st_ctime_ns
    clock.pass_(max(TOUCH_SECONDS, TOKEN_SECONDS))
    store.sweep()
    assert path.stat().st_ctime_ns > before, "Gradio deletes by this date"
    assert not await turn.speech.started(0)


async def test_sweeping_goes_on_by_itself_until_the_store_is_closed(
    store: SessionStore, uploads: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sweeps = 0

    def sweep() -> None:
        nonlocal sweeps
        sweeps += 1
        if sweeps == 1:
            raise ValueError("the first one fails")
        SessionStore.sweep(store)

    monkeypatch.setattr(store_module, "SWEEP_SECONDS", 0.001)
    monkeypatch.setattr(store, "sweep", sweep)
    session = store.open(None)
    await with_file(session, uploads)
    clock.pass_(IDLE_SECONDS)
    store.start()
    wait_until(lambda: not files_under(uploads))
    assert len(store) == 0
    assert "the first one fails" in caplog.text
    store.close()
    store._sweeper.join(20)
    assert not store._sweeper.is_alive()


# Room


async def test_the_session_left_alone_longest_makes_room(uploads: Path) -> None:
    store = small(uploads, StoreLimits(sessions=2))
    one, two = store.open(None), store.open(None)
    store.get(one.id)
    three = store.open(None)
    assert len(store) == 2
    assert [store.get(session.id) for session in (one, two, three)] == [one, None, three]
    assert [store.gone(session.id) for session in (one, two, three)] == [None, GONE_ROOM, None]


async def test_empty_conversations_make_room_first_and_running_ones_last(uploads: Path) -> None:
    store = small(uploads, StoreLimits(sessions=2))
    backend = ScriptedBackend(fallback=[FOREVER], capabilities=TWO_AT_ONCE)
    one = store.open(None)
    first = one.ask(backend, user("Hi"))
    for _ in range(5):
        two = store.open(None)
    assert store.get(one.id) is one
    second = two.ask(backend, user("Hi"))
    store.get(two.id)
    store.open(None)
    assert len(store) == 2
    assert (store.get(one.id), store.get(two.id)) == (None, two)
    await first.wait()
    assert not second.ended
    await second.stop()
    assert backend.active_requests == 0


async def test_files_of_the_least_missed_make_room_for_new_ones(uploads: Path) -> None:
    store = small(uploads, StoreLimits(total_bytes=20))
    words = store.open(None)
    await ask(words, ScriptedBackend())
    sessions = [store.open(None) for _ in range(3)]
    paths = [await with_file(session, uploads) for session in sessions[:2]]
    store.get(sessions[0].id)
    paths.append(await with_file(sessions[2], uploads))
    assert [store.gone(session.id) for session in sessions] == [None, GONE_ROOM, None]
    assert store.gone(words.id) is None, "it has no files"
    assert [path.exists() for path in paths] == [True, False, True]


async def test_who_asks_is_never_the_one_that_makes_room(uploads: Path) -> None:
    store = small(uploads, StoreLimits(total_bytes=10))
    one, two = store.open(None), store.open(None)
    await with_file(two, uploads)
    await with_file(one, uploads)
    assert (store.gone(one.id), store.gone(two.id)) == (None, GONE_ROOM)
    await with_file(one, uploads)
    assert one.bytes == len(b"picture")
    assert [note.key for note in one.notes] == ["session.dropped_files"]


async def test_at_most_half_of_the_free_disk_is_used(uploads: Path) -> None:
    free = shutil.disk_usage(uploads).free
    limits = small(uploads, StoreLimits(conversation_bytes=2**62, total_bytes=2**62)).limits
    assert limits.total_bytes == limits.conversation_bytes
    assert limits.total_bytes == pytest.approx(free / 2, rel=0.1)
    assert limits.unsent_bytes <= free / 4
    assert small(uploads, StoreLimits(total_bytes=30)).limits.total_bytes == 30


async def test_the_oldest_uploads_that_nobody_sends_go_when_they_are_too_many(uploads: Path) -> None:
    own = upload(uploads)
    os.utime(own, (1, 1))
    store = small(uploads, StoreLimits(unsent_bytes=20))
    loose = [upload(uploads) for _ in range(4)]
    for seconds, path in enumerate(loose):
        os.utime(path, (time.time() + 1 + seconds,) * 2)
    sent = await with_file(store.open(None), uploads)
    empty = uploads / ("0" * 64)
    empty.mkdir()
    store.sweep()
    assert [path.exists() for path in loose] == [False, False, True, True]
    assert sent.stat().st_nlink == 2, "the original is a conversation's"
    assert empty.exists(), "an upload may be on its way"
    os.utime(empty, (1, 1))
    store.sweep()
    assert not empty.exists()
    assert own.exists(), "from before the visitors"
    assert [path.exists() for path in loose] == [False, False, True, True]


async def test_why_a_conversation_is_gone_is_said_for_ids_only(store: SessionStore) -> None:
    session = store.open(None)
    assert [store.gone(id) for id in (None, "", session.id)] == [None, None, None]
    assert store.gone("of the app before it was restarted") == GONE_RESTART


async def test_reasons_are_not_kept_for_ever(uploads: Path) -> None:
    store = small(uploads, StoreLimits(sessions=1))
    ids = [store.open(None).id for _ in range(GONE_IDS + 2)]
    assert store.gone(ids[0]) == GONE_RESTART
    assert store.gone(ids[1]) == GONE_ROOM


# The end


async def test_closing_the_store_ends_everything_from_any_thread(store: SessionStore, uploads: Path) -> None:
    backend = ScriptedBackend(fallback=[TextDelta("half"), FOREVER], capabilities=TWO_AT_ONCE)
    sessions = [store.open(None) for _ in range(2)]
    turns = [session.ask(backend, user("Hi", session.adopt(upload(uploads)))) for session in sessions]
    await until(lambda: all(turn.answer.text for turn in turns))
    await asyncio.to_thread(store.close)
    assert all([(await turn.wait()).stopped for turn in turns])
    assert backend.active_requests == 0
    assert files_under(uploads) == set()


async def test_a_closed_store_keeps_nothing_new(store: SessionStore, uploads: Path) -> None:
    store.close()
    session = store.open(None)
    with pytest.raises(OSError, match="photo"):
        session.adopt(upload(uploads))
    assert len(store) == 0


# All together


class Visitor:
    """Does what somebody may do on the page, and knows what must not get lost: the composer's files."""

    def __init__(self, store: SessionStore, uploads: Path, dice: random.Random) -> None:
        self.store, self.uploads, self.dice = store, uploads, dice
        self.backend = ScriptedBackend()
        self.pages = 0
        self.id = ""
        self.composer: list[Path] = []
        self.unsent: set[Path] = set()
        """Uploads that were attached at most: Gradio's to delete."""
        self.come()

    @property
    def page(self) -> str:
        return f"{id(self)} {self.pages}"

    def session(self) -> Session:
        session = self.store.get(self.id) or self.store.open(self.id, self.page)
        if session.id != self.id:  # the files of the old one are gone: the page says so
            self.composer = [path for path in self.composer if path.exists()]
        self.id = session.id
        return session

    def come(self) -> None:
        self.pages += 1
        self.composer = []
        self.store.resume(self.id, self.page)

    def attach(self) -> None:
        path = upload(self.uploads, contents=self.dice.randbytes(self.dice.randint(1, 400)))
        self.composer.append(path)
        self.unsent.add(path)

    def question(self) -> int | None:
        entries = self.session().entries
        indices = [index for index, entry in enumerate(entries) if entry.message.role == "user"]
        return self.dice.choice(indices) if indices else None

    async def send(self) -> None:
        session = self.session()
        paths = [session.adopt(path) for path in self.composer]
        self.unsent -= set(self.composer)
        await self._ask(session, user("Hi", *paths), self.dice.choice([None, self.question()]))

    async def retry(self) -> None:
        index = self.question()
        if index is not None:
            kept = self.composer
            await self._ask(self.session(), self.session().message(index), index)
            self.composer = kept

    async def _ask(self, session: Session, message: Message, replacing: int | None) -> None:
        scripts: list[list[Step]] = [[TextDelta("whole"), SOUND], [TextDelta("half"), NO_MEMORY], [NO_MEMORY]]
        self.backend.enqueue(*self.dice.choice(scripts))
        outcome = await ask(session, self.backend, message, AnswerOptions(speak=True), replacing=replacing)
        self.composer = files_of(outcome.returned) if outcome.returned else []

    async def undo(self) -> None:
        index = self.question()
        if index is not None:
            self.composer += files_of(self.session().undo(index))

    async def restart(self) -> None:
        await self.session().restart()

    async def reload(self) -> None:
        page = self.page
        if self.dice.random() < 0.5:
            await self.store.leave(page)
            self.come()
        else:
            self.come()
            await self.store.leave(page)

    async def go(self) -> None:
        await self.store.leave(self.page)
        self.composer = []


def files_of(message: Message) -> list[Path]:
    return [Path(part.path) for part in message.content if isinstance(part, MediaPart)]


def named(session: Session) -> set[Path]:
    """All files that a conversation names."""
    paths = {path for entry in session.entries for path in files_of(entry.message)}
    return paths | {entry.sound for entry in session.entries if entry.sound}


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_visitors_do_no_file_is_lost_and_none_is_left_behind(
    uploads: Path, clock: Clock, seed: int
) -> None:
    dice = random.Random(seed)
    limits = StoreLimits(sessions=3, conversation_bytes=60_000, total_bytes=150_000, messages=8, characters=60)
    folder = uploads / "sessions"
    store = SessionStore(folder, limits, clock, uploads=uploads)
    visitors = [Visitor(store, uploads, dice) for _ in range(4)]
    for _ in range(120):
        visitor = dice.choice(visitors)
        if dice.random() < 0.2:
            clock.pass_(dice.choice([1.0, 30.0, GRACE_SECONDS, IDLE_SECONDS]))
            store.sweep()
        elif dice.random() < 0.3:
            visitor.attach()
        else:
            await dice.choice(
                [visitor.send, visitor.send, visitor.retry, visitor.undo, visitor.restart, visitor.reload, visitor.go]
            )()
        live = list(store._sessions.values())
        for session in live:
            assert all(path.exists() for path in named(session))
            assert len(session.entries) <= limits.messages + 1
        for visitor in visitors:
            if store._sessions.get(visitor.id):
                assert all(path.exists() for path in visitor.composer)
        on_disk = files_under(folder)
        assert sum(path.stat().st_size for path in on_disk) == sum(session.bytes for session in live)
        assert len(live) <= limits.sessions
    store.close()
    assert files_under(uploads) == set().union(*(visitor.unsent for visitor in visitors))
