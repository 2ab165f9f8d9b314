"""Chunks of every shape that servers send."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from omni_backend import (
    AudioDelta,
    Done,
    GenerationFailed,
    Notice,
    ReasoningDelta,
    StreamEvent,
    TextDelta,
    Usage,
)
from omni_backend.server_stream import ChunkReader
from omni_backend.wav import wav
from tests.media_files import tone

SOUND = tone(440, 0.16, 24_000)
WAV = base64.b64encode(wav(SOUND, 24_000, exact=False)).decode()
RAW = base64.b64encode(wav(SOUND, 24_000, exact=False)[44:]).decode()
STOP: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def delta(**content: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": None}]}


def read(*chunks: dict[str, Any], spoken: bool = True, starts_inside: bool = False) -> list[StreamEvent]:
    reader = ChunkReader(spoken=spoken, starts_inside=starts_inside)
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.finish()


def text(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def thoughts(events: list[StreamEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ReasoningDelta))


def samples(events: list[StreamEvent]) -> int:
    return sum(event.pcm.size for event in events if isinstance(event, AudioDelta))


def done(events: list[StreamEvent]) -> Done:
    assert [isinstance(event, Done) for event in events] == [False] * (len(events) - 1) + [True]
    last = events[-1]
    assert isinstance(last, Done)
    return last


def test_text_and_usage() -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}}
    events = read(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo."), STOP, usage)
    assert events[:2] == [TextDelta("Hel"), TextDelta("lo.")]
    assert done(events) == Done("stop", Usage(7, 2, 0))


def test_without_usage_the_pieces_are_counted() -> None:
    assert done(read(delta(content="a"), delta(content="b"), STOP)).usage == Usage(0, 2, 0)


SHAPES: dict[str, list[dict[str, Any]]] = {
    "content, said by the chunk, WAV": [{**delta(content=WAV), "modality": "audio"}],
    "content, said by the choice, pcm16": [
        {"choices": [{"index": 0, "delta": {"content": RAW}, "audio_metadata": {"sample_rate": 24_000}}]}
    ],
    "delta.audio.data": [delta(audio={"data": RAW})],
    "delta.audio.data, WAV": [delta(audio={"id": "x", "data": WAV, "expires_at": 1})],
    "delta.audio as text": [delta(audio=WAV)],
    "delta.audio in two pieces": [delta(audio={"data": RAW[:400]}), delta(audio={"data": RAW[400:]})],
    "a second choice": [{"choices": [{"index": 1, "delta": {"audio": {"data": RAW}}}]}],
    "a second choice with a message": [
        {"choices": [{"index": 1, "message": {"content": None, "audio": {"data": WAV}}}]}
    ],
    "a whole message": [{"choices": [{"index": 0, "message": {"role": "assistant", "audio": {"data": WAV}}}]}],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_sound_wherever_it_stands(shape: str) -> None:
    events = read(delta(content="Hi"), *SHAPES[shape], STOP)
    assert text(events) == "Hi"
    assert samples(events) == SOUND.size
    assert np.abs(np.concatenate([e.pcm for e in events if isinstance(e, AudioDelta)]) - SOUND).max() < 1e-4
    assert done(events).usage.audio_frames == 2  # of 80 ms


@pytest.mark.parametrize("shape", SHAPES)
def test_sound_that_nobody_asked_for_is_dropped(shape: str) -> None:
    events = read(delta(content="Hi"), *SHAPES[shape], STOP, spoken=False)
    assert text(events) == "Hi"
    assert samples(events) == 0
    assert done(events).usage.audio_frames == 0


def test_a_whole_answer_at_once() -> None:
    """Not streamed at all."""
    message = {"role": "assistant", "content": "Hello.", "audio": {"data": WAV, "transcript": "Hello."}}
    events = read({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    assert text(events) == "Hello."
    assert samples(events) == SOUND.size


def test_words_that_come_only_as_the_transcript() -> None:
    """As OpenAI's models send them."""
    pieces = [delta(content=None, audio={"transcript": "Hel"}), delta(audio={"data": RAW, "transcript": "lo."})]
    assert text(read(*pieces, STOP)) == "Hello."


def test_a_transcript_beside_the_words_is_not_repeated() -> None:
    assert text(read(delta(content="Hello."), delta(audio={"data": RAW, "transcript": "Hello."}), STOP)) == "Hello."


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_thoughts_with_a_name_of_their_own(name: str) -> None:
    events = read(delta(**{name: "Hm"}), delta(**{name: "."}), delta(content="Yes <b>"), STOP)
    assert thoughts(events) == "Hm."
    assert text(events) == "Yes <b>"


def test_both_names_at_once_are_one_thought() -> None:
    assert thoughts(read(delta(reasoning="Hm", reasoning_content="Hm"), delta(content="Yes"), STOP)) == "Hm"


def test_thoughts_among_the_words_cut_anywhere() -> None:
    whole = "<think>\nHm.\n</think>\n\nYes."
    for cut in range(1, len(whole)):
        events = read(delta(content=whole[:cut]), delta(content=whole[cut:]), STOP)
        assert (thoughts(events), text(events)) == ("Hm.", "Yes."), cut


def test_an_answer_that_begins_in_mid_thought() -> None:
    events = read(delta(content="Hm.</thi"), delta(content="nk>Yes."), STOP, starts_inside=True)
    assert (thoughts(events), text(events)) == ("Hm.", "Yes.")


def test_a_server_that_takes_thoughts_apart_is_believed() -> None:
    """Even where the prompt ends with `<think>`."""
    events = read(delta(reasoning="Hm."), delta(content="Yes."), STOP, starts_inside=True)
    assert (thoughts(events), text(events)) == ("Hm.", "Yes.")


@pytest.mark.parametrize(
    ("reason", "meant"), [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("eos", "stop")]
)
def test_ends(reason: str, meant: str) -> None:
    assert done(read(delta(content="a"), {"choices": [{"delta": {}, "finish_reason": reason}]})).finish_reason == meant


def test_text_that_was_cut_stays_cut_when_the_sound_ends_well() -> None:
    cut = {"choices": [{"delta": {"content": "a"}, "finish_reason": "length"}], "modality": "text"}
    assert done(read(cut, {**STOP, "modality": "audio"})).finish_reason == "length"


def test_words_held_back_are_a_notice() -> None:
    events = read(delta(content="a"), {"choices": [{"delta": {}, "finish_reason": "content_filter"}]})
    assert isinstance(events[-2], Notice)


@pytest.mark.parametrize("end", [{}, {"choices": [{"delta": {}, "finish_reason": "abort"}]}], ids=["none", "abort"])
def test_an_answer_without_an_end(end: dict[str, Any]) -> None:
    with pytest.raises(GenerationFailed, match="broke the answer off"):
        read(delta(content="a"), end)


@pytest.mark.parametrize(
    "chunk",
    [{"error": {"message": "boom", "code": 500}}, {"error": "boom"}, {"object": "error", "message": "boom"}],
)
def test_an_error_in_mid_answer(chunk: dict[str, Any]) -> None:
    with pytest.raises(GenerationFailed) as caught:
        read(delta(content="a"), chunk)
    assert "boom" in caught.value.detail
    assert "boom" not in str(caught.value)


@pytest.mark.parametrize(
    "chunk",
    [
        {},
        {"choices": None},
        {"choices": [None, 3, "x"]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": 5, "audio": 7, "reasoning": {}}}]},
        {"choices": [{"delta": {"audio": {"data": None, "transcript": 3}}}], "usage": "many"},
        {"choices": [{"delta": {"tool_calls": [{"function": {"name": "f"}}]}}]},
        {"choices": [{"delta": {"content": [{"type": "image"}, 4]}}], "modality": "image"},
        {"usage": {"prompt_tokens": None}},
    ],
)
def test_unknown_shapes_are_left_alone(chunk: dict[str, Any]) -> None:
    events = read(delta(content="a"), chunk, delta(content="b"), STOP)
    assert text(events) == "ab"


def test_words_as_a_list_of_parts() -> None:
    assert text(read(delta(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), STOP)) == "ab"


def test_sound_that_is_no_sound_is_said() -> None:
    with pytest.raises(GenerationFailed, match="cannot be played"):
        read(delta(audio={"data": "%%%"}), STOP)
