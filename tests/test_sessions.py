"""One conversation: what is kept, what is given back, what goes when it grows too large."""

from __future__ import annotations

import os
import wave
from collections.abc import Sequence
from pathlib import Path

import pytest

from omni_backend import (
    BadMedia,
    Done,
    Message,
    ReasoningDelta,
    SamplingParams,
    ScriptedBackend,
    TextDelta,
    TextPart,
    UnsupportedRequest,
    phrase,
)
from omni_ui.limits import StoreLimits
from omni_ui.sessions import AnswerOptions, Session
from omni_ui.speech import TOKEN_SECONDS, SpeechStream
from tests.conversations import FOREVER, SOUND, Clock, ask, files_under, said, upload, user
from tests.waiting import until

pytestmark = pytest.mark.asyncio

SPEAK = AnswerOptions(speak=True)


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def session(uploads: Path) -> Session:
    return Session("id", uploads / "sessions" / "folder", clock=Clock(), uploads=uploads)


async def test_a_conversation_grows_and_the_model_gets_it_whole(session: Session) -> None:
    backend = ScriptedBackend([ReasoningDelta("Hm."), TextDelta("One.")], [TextDelta("Two.")])
    assert (await ask(session, backend, "first")).returned is None
    await ask(session, backend, "second", AnswerOptions(system_prompt="Be brief."))
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
    await ask(session, backend, options=AnswerOptions(speak=True, voice="chelsie"))
    request = backend.requests[0]
    assert request.modalities == {"text", "audio"}
    assert request.voice == "chelsie"
    sound = session.entries[-1].sound
    assert sound is not None
    with wave.open(str(sound)) as file:
        assert (file.getframerate(), file.getnframes()) == (24_000, 9600)


async def test_without_speech_no_voice_is_named(session: Session) -> None:
    backend = ScriptedBackend()
    await ask(session, backend, options=AnswerOptions(voice="chelsie"))
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
    turn = session.ask(backend, user("first"), SPEAK)
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


async def test_a_second_message_at_once_is_refused(session: Session) -> None:
    turn = session.ask(ScriptedBackend([FOREVER]), user("Hi"))
    with pytest.raises(UnsupportedRequest):
        session.ask(ScriptedBackend(), user("Hi again"))
    await turn.stop()


async def test_how_the_answer_is_wanted_reaches_the_engine(session: Session) -> None:
    backend = ScriptedBackend()
    sampling = SamplingParams(temperature=0.0, seed=7)
    await ask(session, backend, options=AnswerOptions(True, "chelsie", "Be brief.", sampling, False))
    request = backend.requests[0]
    assert (request.sampling, request.voice, request.use_audio_in_video) == (sampling, "chelsie", False)
    assert request.messages[0] == Message("system", (TextPart("Be brief."),))


async def test_figures_of_an_answer_stay_with_it(session: Session) -> None:
    backend = ScriptedBackend([TextDelta("Hello"), SOUND, SOUND], [TextDelta("half"), ValueError()])
    await ask(session, backend, options=SPEAK)
    done = session.entries[1].done
    assert done is not None
    assert done.usage.completion_tokens == 1
    assert session.entries[1].speech_seconds == pytest.approx(0.4)
    await ask(session, backend)
    assert (session.entries[3].done, session.entries[3].speech_seconds) == (None, 0.0)


# Retry, edit and undo


async def three_turns(session: Session) -> ScriptedBackend:
    backend = ScriptedBackend([TextDelta("One.")], [TextDelta("Two.")], [TextDelta("Three.")])
    for text in ("first", "second", "third"):
        await ask(session, backend, text)
    return backend


async def test_a_question_in_the_middle_is_answered_anew(session: Session) -> None:
    backend = await three_turns(session)
    backend.enqueue(TextDelta("Again."))
    turn = session.ask(backend, session.message(2), replacing=2)
    assert said(session) == [("user", "first"), ("assistant", "One."), ("user", "second")]
    await turn.wait()
    assert said(session)[2:] == [("user", "second"), ("assistant", "Again.")]
    assert [message.text for message in backend.requests[-1].messages] == ["first", "One.", "second"]


async def test_an_edited_question_takes_the_place_of_the_old_one(session: Session) -> None:
    backend = await three_turns(session)
    backend.enqueue(TextDelta("New."))
    outcome = await ask(session, backend, "zeroth", replacing=0)
    assert outcome.returned is None
    assert said(session) == [("user", "zeroth"), ("assistant", "New.")]


@pytest.mark.parametrize(("text", "given_back"), [("second", False), ("edited", True)])
async def test_without_an_answer_the_old_turns_are_there_again(session: Session, text: str, given_back: bool) -> None:
    backend = await three_turns(session)
    before = session.entries
    backend.enqueue(ReasoningDelta("Hm."), ValueError())
    outcome = await ask(session, backend, text, replacing=2)
    assert session.entries == before
    assert outcome.returned == (user(text) if given_back else None)
    assert outcome.answer.error is not None


async def test_a_retry_that_is_stopped_before_it_answers_leaves_the_old_answer(session: Session) -> None:
    backend = await three_turns(session)
    before = session.entries
    backend.enqueue(FOREVER)
    session.ask(backend, session.message(0), replacing=0)
    await session.stop()
    assert session.entries == before
    outcome = session.take_outcome()
    assert outcome is not None
    assert outcome.returned is None


async def test_a_partial_answer_takes_the_place_of_the_old_one(session: Session) -> None:
    backend = await three_turns(session)
    backend.enqueue(TextDelta("half"), ValueError())
    await ask(session, backend, session.message(0), replacing=0)
    assert said(session) == [("user", "first"), ("assistant", "half")]


async def test_undo_gives_the_message_back_and_forgets_what_came_after(session: Session) -> None:
    await three_turns(session)
    assert session.undo(2) == user("second")
    assert said(session) == [("user", "first"), ("assistant", "One.")]
    assert session.undo(0) == user("first")
    assert session.entries == ()


@pytest.mark.parametrize("index", [-1, -6, 1, 6, 10**30])
async def test_only_a_question_can_be_undone_edited_or_asked_again(session: Session, index: int) -> None:
    backend = await three_turns(session)
    before = session.entries
    for wish in (
        lambda: session.undo(index),
        lambda: session.message(index),
        lambda: session.ask(backend, user("Hi"), replacing=index),
    ):
        with pytest.raises(UnsupportedRequest) as refusal:
            wish()
        assert refusal.value.phrase == phrase("session.no_such_turn")
    assert session.entries == before
    assert not session.busy


async def test_nothing_is_undone_while_an_answer_is_being_written(session: Session) -> None:
    backend = await three_turns(session)
    backend.enqueue(FOREVER)
    turn = session.ask(backend, user("fourth"))
    for wish in (lambda: session.undo(0), lambda: session.ask(backend, user("Hi"), replacing=0)):
        with pytest.raises(UnsupportedRequest) as refusal:
            wish()
        assert refusal.value.phrase == phrase("ui.busy")
    await turn.stop()


# Files


async def test_files_of_what_was_undone_go_at_the_next_question(session: Session, uploads: Path) -> None:
    backend = ScriptedBackend([TextDelta("A film."), SOUND])
    original = upload(uploads)
    path = session.adopt(original)
    await ask(session, backend, user("What?", path), SPEAK)
    sound = session.entries[1].sound
    assert sound is not None
    draft = session.undo(0)
    await session.restart()
    assert not sound.exists(), "it cannot be in a composer"
    assert path.exists(), "the composer holds it"
    again = session.adopt(draft.content[0].path)  # type: ignore[union-attr]
    await ask(session, backend, user("What is it?", again))
    assert again.exists()
    session.undo(0)
    await ask(session, backend, "Never mind.")
    assert files_under(uploads) == set()


async def test_files_of_an_edited_question_stay_until_it_is_answered(session: Session, uploads: Path) -> None:
    backend = ScriptedBackend([TextDelta("One.")], [ValueError()], [TextDelta("Two.")])
    old, new = session.adopt(upload(uploads)), session.adopt(upload(uploads))
    await ask(session, backend, user("What?", old))
    outcome = await ask(session, backend, user("What?", new), replacing=0)
    assert outcome.returned == user("What?", new)
    assert old.exists()
    assert new.exists(), "the composer holds it again"
    await ask(session, backend, user("What?", session.adopt(new)), replacing=0)
    assert files_under(uploads / "sessions") == {new}


async def test_a_draft_that_waits_while_another_question_is_edited_is_not_lost(session: Session, uploads: Path) -> None:
    backend = ScriptedBackend()
    await ask(session, backend, "first")
    path = session.adopt(upload(uploads))
    await ask(session, backend, user("second", path))
    session.undo(2)
    await ask(session, backend, session.message(0), replacing=0)
    await ask(session, backend, "edited", replacing=0)
    assert path.exists()


async def test_restarting_deletes_the_files(session: Session, uploads: Path) -> None:
    path = session.adopt(upload(uploads))
    await ask(session, ScriptedBackend(fallback=[TextDelta("A film."), SOUND]), user("What?", path), SPEAK)
    await session.restart()
    assert files_under(uploads) == set()
    assert session.bytes == 0


async def test_files_are_dated_anew_with_each_question(session: Session, uploads: Path) -> None:
    path = session.adopt(upload(uploads))
    await ask(session, ScriptedBackend(), user("What?", path))
    os.utime(path, (1, 1))
    await ask(session, ScriptedBackend())
    assert path.stat().st_mtime > 1


# Limits


def limited(uploads: Path, limits: StoreLimits, clock: Clock | None = None) -> Session:
    return Session("id", uploads / "sessions" / "limited", limits=limits, clock=clock or Clock(), uploads=uploads)


async def test_the_oldest_turns_go_when_there_are_too_many_messages(uploads: Path) -> None:
    session, backend = limited(uploads, StoreLimits(messages=4)), ScriptedBackend()
    for text in ("first", "second"):
        await ask(session, backend, text)
    assert not session.notes
    await ask(session, backend, "third")
    assert [text for role, text in said(session) if role == "user"] == ["second", "third"]
    assert [message.text for message in backend.requests[-1].messages] == ["second", "ok", "third"]
    await ask(session, backend, "fourth")
    assert session.notes == (phrase("session.dropped_messages", count=4, limit="4"),)
    await session.restart()
    assert not session.notes


async def test_the_oldest_turns_go_with_their_files_when_these_are_too_large(uploads: Path) -> None:
    session, backend = limited(uploads, StoreLimits(conversation_bytes=10)), ScriptedBackend()
    first = session.adopt(upload(uploads, contents=b"123456"))
    await ask(session, backend, user("first", first))
    second = session.adopt(upload(uploads, contents=b"123456"))
    turn = session.ask(backend, user("second", second))
    assert first.exists(), "without an answer it is needed again"
    await turn.wait()
    assert said(session) == [("user", "second"), ("assistant", "ok")]
    assert session.notes == (phrase("session.dropped_files", count=2, limit="10 B"),)
    assert files_under(uploads / "sessions") == {second}


async def test_the_oldest_turns_go_when_there_are_too_many_words(uploads: Path) -> None:
    session = limited(uploads, StoreLimits(characters=1000))
    backend = ScriptedBackend([ReasoningDelta("x" * 600), TextDelta("One.")])
    await ask(session, backend, "first")
    await ask(session, backend, "x" * 500)
    assert session.notes == (phrase("session.dropped_words", count=2, limit="1,000"),)
    await ask(session, backend, "x" * 2000)
    assert [role for role, _ in said(session)] == ["user", "assistant"], "the question itself never goes"


async def test_what_was_dropped_is_there_again_when_there_is_no_answer(uploads: Path) -> None:
    session = limited(uploads, StoreLimits(messages=2))
    backend = ScriptedBackend([TextDelta("One.")], [ValueError()])
    path = session.adopt(upload(uploads))
    await ask(session, backend, user("first", path))
    before = session.entries
    outcome = await ask(session, backend, "second")
    assert outcome.returned == user("second")
    assert (session.entries, session.notes) == (before, ())
    assert path.exists()


async def test_a_message_larger_than_a_conversation_is_refused(uploads: Path) -> None:
    session = limited(uploads, StoreLimits(conversation_bytes=10))
    path = session.adopt(upload(uploads, contents=b"12345678901"))
    with pytest.raises(UnsupportedRequest) as refusal:
        session.ask(ScriptedBackend(), user("What?", path))
    assert refusal.value.phrase == phrase("session.too_large", size="11 B", limit="10 B")
    assert session.entries == ()


async def test_the_sound_is_let_go_when_its_token_is_dead(uploads: Path) -> None:
    clock = Clock()
    session = limited(uploads, StoreLimits(), clock)
    await ask(session, ScriptedBackend())
    turn = session.ask(ScriptedBackend([TextDelta("Hello"), SOUND, FOREVER]), user("Hi"), SPEAK)
    await until(lambda: turn.answer.speech_seconds)
    clock.pass_(TOKEN_SECONDS + 1)
    session.tidy()
    await session.stop()
    sound = session.entries[-1].sound
    assert sound is not None
    with wave.open(str(sound)) as file:
        assert file.getnframes() == 4800, "nothing was let go before it was saved"
    clock.pass_(TOKEN_SECONDS - 1)
    session.tidy()
    assert await turn.speech.started(0)
    clock.pass_(1)
    session.tidy()
    assert not await turn.speech.started(0)
    assert turn.answer.speech_seconds == pytest.approx(0.2)


async def test_who_listens_slowly_hears_a_sound_to_its_end() -> None:
    speech = SpeechStream()
    for _ in range(40):
        speech.write(SOUND)
    speech.end()
    pieces = speech.read()
    heard = len(await anext(pieces))
    speech.release()
    heard += sum([len(piece) async for piece in pieces])
    assert heard == 40 * 4800 * 2


async def test_a_closed_conversation_takes_no_question_and_no_file(session: Session, uploads: Path) -> None:
    session.close()
    with pytest.raises(UnsupportedRequest) as refusal:
        session.ask(ScriptedBackend(), user("Hi"))
    assert refusal.value.phrase == phrase("session.ended")
    with pytest.raises(OSError, match="photo"):
        session.adopt(upload(uploads))


async def test_a_conversation_that_is_closed_while_it_asks_ends_the_turn(uploads: Path) -> None:
    session = Session("id", uploads / "folder", make_room=Session.close)
    turn = session.ask(ScriptedBackend([TextDelta("half"), FOREVER]), user("Hi"))
    assert (await turn.wait()).stopped
