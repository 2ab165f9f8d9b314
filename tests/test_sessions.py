"""Conversations on the server: what is kept, what is given back, and that they are apart and bounded."""

from __future__ import annotations

import asyncio
import os
import wave
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from omni_backend import (
    AudioDelta,
    BadMedia,
    Capabilities,
    Done,
    MediaPart,
    Message,
    ReasoningDelta,
    ScriptedBackend,
    TextDelta,
    TextPart,
    UnsupportedRequest,
    phrase,
)
from omni_ui.sessions import Outcome, Session, SessionStore
from tests.waiting import until

pytestmark = pytest.mark.asyncio

FOREVER = 3600.0
SOUND = AudioDelta(np.full(4800, 0.25, np.float32), 24_000)
TWO_AT_ONCE = Capabilities("scripted", "a script", max_concurrency=2)


def user(text: str, *files: Path) -> Message:
    return Message("user", (*(MediaPart("image", str(file)) for file in files), TextPart(text)))


def said(session: Session) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in session.messages]


async def ask(session: Session, backend: ScriptedBackend, text: str = "Hi", **options: bool | str) -> Outcome:
    await session.ask(backend, user(text), **options).wait()  # type: ignore[arg-type]
    outcome = session.take_outcome()
    assert outcome is not None
    return outcome


@pytest.fixture
def store(tmp_path: Path) -> SessionStore:
    return SessionStore(tmp_path / "files")


@pytest.fixture
def session(store: SessionStore) -> Session:
    return store.open(None)


async def test_a_conversation_grows_and_the_model_gets_it_whole(session: Session) -> None:
    backend = ScriptedBackend([ReasoningDelta("Hm."), TextDelta("One.")], [TextDelta("Two.")])
    assert (await ask(session, backend, "first")).returned is None
    await ask(session, backend, "second", system="Be brief.")
    assert said(session) == [("user", "first"), ("assistant", "One."), ("user", "second"), ("assistant", "Two.")]
    assert session.entries[1].reasoning == "Hm."
    last = backend.requests[-1]
    assert [(m.role, m.text) for m in last.messages] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "One."),  # without the thoughts
        ("user", "second"),
    ]
    assert last.modalities == {"text"}


async def test_speech_is_asked_for_and_kept_as_a_file(session: Session) -> None:
    backend = ScriptedBackend([TextDelta("Hello"), SOUND, SOUND])
    await ask(session, backend, speak=True, voice="chelsie")
    request = backend.requests[0]
    assert request.modalities == {"text", "audio"}
    assert request.voice == "chelsie"
    sound = session.entries[-1].sound
    assert sound is not None
    with wave.open(str(sound)) as file:
        assert (file.getframerate(), file.getnframes()) == (24_000, 9600)


async def test_without_speech_no_voice_is_named(session: Session) -> None:
    backend = ScriptedBackend()
    await ask(session, backend, voice="chelsie")
    assert backend.requests[0].voice is None
    assert session.entries[-1].sound is None


@pytest.mark.parametrize("script", [[BadMedia(phrase("request.empty"))], [ReasoningDelta("Hm."), ValueError()]])
async def test_a_turn_that_fails_before_it_answers_leaves_no_trace(
    session: Session, script: Sequence[ReasoningDelta | Exception]
) -> None:
    backend = ScriptedBackend([TextDelta("One.")], script)
    await ask(session, backend, "first")
    before = session.entries
    outcome = await ask(session, backend, "second")
    assert session.entries == before
    assert outcome.returned == user("second")
    assert outcome.answer.error is not None


async def test_a_turn_that_is_stopped_before_it_answers_leaves_no_trace(session: Session) -> None:
    backend = ScriptedBackend([FOREVER])
    session.ask(backend, user("first"))
    assert session.busy
    await session.stop()
    assert not session.busy
    assert session.entries == ()
    outcome = session.take_outcome()
    assert outcome is not None
    assert (outcome.returned, outcome.answer.stopped, outcome.answer.error) == (user("first"), True, None)


@pytest.mark.parametrize(
    ("script", "mark"),
    [
        ([TextDelta("half"), ValueError()], "ui.mark_broken"),
        ([TextDelta("half"), Done("length")], "ui.mark_length"),
        ([Done("stop")], "ui.mark_empty"),
        ([TextDelta("whole")], None),
    ],
)
async def test_an_answer_that_is_not_whole_is_marked(
    session: Session, script: Sequence[TextDelta | Done | Exception], mark: str | None
) -> None:
    outcome = await ask(session, ScriptedBackend(script))
    assert outcome.returned is None
    assert session.entries[-1].mark == (mark and phrase(mark))


async def test_a_stopped_answer_is_kept_with_its_sound(session: Session) -> None:
    backend = ScriptedBackend([SOUND, TextDelta("half"), FOREVER])
    turn = session.ask(backend, user("first"), speak=True)
    await until(lambda: turn.answer.text)
    await session.stop()
    assert said(session)[-1] == ("assistant", "half")
    assert session.entries[-1].mark == phrase("ui.mark_stopped")
    assert session.entries[-1].sound is not None
    assert backend.cancelled == 1


async def test_the_outcome_is_told_once(session: Session) -> None:
    await ask(session, ScriptedBackend())
    assert session.take_outcome() is None


async def test_restarting_forgets_everything(session: Session) -> None:
    backend = ScriptedBackend([TextDelta("One.")], [TextDelta("half"), FOREVER])
    await ask(session, backend, "first")
    turn = session.ask(backend, user("second"))
    await session.restart()
    assert turn.ended
    assert (session.entries, session.take_outcome()) == ((), None)


async def test_an_upload_outlives_its_original(session: Session, tmp_path: Path) -> None:
    original = tmp_path / "a photo.png"
    original.write_bytes(b"picture")
    first, second = session.adopt(original), session.adopt(original)
    original.unlink()
    assert first != second
    assert first.name == second.name == "a photo.png"
    assert first.read_bytes() == b"picture"
    with pytest.raises(OSError, match="photo"):
        session.adopt(original)


async def test_an_upload_from_another_disk_is_copied(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    original = tmp_path / "a.png"
    original.write_bytes(b"picture")
    assert session.adopt(original).read_bytes() == b"picture"


async def test_files_are_kept_young_and_end_with_the_session(
    store: SessionStore, session: Session, tmp_path: Path
) -> None:
    original = tmp_path / "a.png"
    original.write_bytes(b"picture")
    kept = session.adopt(original)
    os.utime(kept, (1, 1))
    await ask(session, ScriptedBackend())
    assert kept.stat().st_mtime > 1
    store.discard(session.id)
    assert not kept.exists()
    assert len(store) == 0
    assert store.get(session.id) is None


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


async def test_the_session_left_alone_longest_makes_room(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, limit=2)
    one, two = store.open(None), store.open(None)
    store.get(one.id)
    three = store.open(None)
    assert len(store) == 2
    assert [store.get(session.id) for session in (one, two, three)] == [one, None, three]


async def test_empty_conversations_make_room_first_and_running_ones_last(tmp_path: Path) -> None:
    store = SessionStore(tmp_path, limit=2)
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


async def test_a_page_has_one_conversation_before_it_knows_its_id(store: SessionStore) -> None:
    assert store.open(None, "page") is store.open(None, "page")
    assert store.open(None, "page") is not store.open(None, "other")
    assert store.open(None) is not store.open(None)


async def test_a_second_message_at_once_is_refused(session: Session) -> None:
    turn = session.ask(ScriptedBackend([FOREVER]), user("Hi"))
    with pytest.raises(UnsupportedRequest):
        session.ask(ScriptedBackend(), user("Hi again"))
    await turn.stop()


async def test_a_closed_page_ends_only_its_own_turn(store: SessionStore) -> None:
    backend = ScriptedBackend(fallback=[TextDelta("half"), FOREVER], capabilities=TWO_AT_ONCE)
    mine, other = store.open(None, page="mine"), store.open(None, page="other")
    turns = [session.ask(backend, user("Hi")) for session in (mine, other)]
    await until(lambda: all(turn.answer.text for turn in turns))
    await store.stop_page("mine")
    assert [turn.ended for turn in turns] == [True, False]
    await other.stop()


async def test_closing_the_store_ends_everything_from_any_thread(store: SessionStore, tmp_path: Path) -> None:
    backend = ScriptedBackend(fallback=[TextDelta("half"), FOREVER], capabilities=TWO_AT_ONCE)
    turns = [store.open(None).ask(backend, user("Hi")) for _ in range(2)]
    await until(lambda: all(turn.answer.text for turn in turns))
    await asyncio.to_thread(store.close)
    assert all([(await turn.wait()).stopped for turn in turns])
    assert backend.active_requests == 0
    assert list((tmp_path / "files").iterdir()) == []
