"""The embedded checkpoint as an oracle: it answers rightly through every engine and the page, and wrongly as soon as
something between the user and the model breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, expect

from omni_backend import AudioDelta, Backend, ChatRequest, MediaPart, ReasoningDelta, TextDelta, transformers_answer
from omni_backend import prompt as layout
from omni_backend.media import FrameBudget, MediaLoader, Video
from omni_backend.prompt import Prompt
from omni_ui.server import App
from tests.browser import Visit, visits
from tests.contract import SPOKEN, answer, request
from tests.serving import serving
from tests.tiny_checkpoints import TINY_CHECKPOINT
from tests.truths import (
    EXAMPLES,
    TRUTHS,
    Asked,
    answers,
    examples,
    golden_files,
    golden_media,
    media_of,
    requests,
    right,
    with_media,
)
from tests.vllm_server import vllm_serve
from tools.tiny.drawings import Picture, thousandths
from tools.tiny.evaluate import is_right
from tools.tiny.language import box_answer, where_question
from tools.tiny.lessons import Turn
from tools.tiny.lexicon import VOICES, Voice, answer_words, pitch_of
from tools.tiny.listen import Hearing, hearing
from tools.tiny.sounds import Samples
from tools.tiny.sphinx import Sphinx

pytestmark = pytest.mark.engine

NAMES = list(TRUTHS)
TURNING = ("a film that turns, its sound at the beginning", "a film that turns, its sound at the end")
ON_THE_PAGE = [name for name, turns in TRUTHS.items() if all(turn.question for turn in turns)]
HERTZ = 3.0
"""How far a voice may be from its pitch."""
SPOKEN_QUESTIONS = ["Hello!", "What can you do?", "What is two plus three?", "Who are you?", "My name is Emma."]
LOADED = """[...document.querySelectorAll("#omni-history :is(img, audio, video)")].every((one) =>
  one.complete || one.preload === "none" || one.readyState > 0 || one.error)"""
"""Whether the files of the conversation have come, as far as the page wants them."""
UNDERSTOOD = 0.5
"""Share of words. Of the synthesizer's own it understands two thirds."""

Break = Callable[[ChatRequest], ChatRequest]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    golden_files(folder)
    return folder


@pytest.fixture(scope="module")
def app(engine: Backend) -> Iterator[App]:
    with serving(engine, embedded=True) as app:
        yield app


@pytest.mark.parametrize("name", NAMES)
def test_transformers_answers_rightly(engine: Backend, files: Path, name: str) -> None:
    assert answers(engine, requests(TRUTHS[name], files)) == right(TRUTHS[name])


@pytest.mark.parametrize("example", examples(), ids=lambda example: " ".join([example.question, *example.files]))
def test_examples_are_answered_rightly(engine: Backend, example: Asked) -> None:
    assert answers(engine, requests((example,), EXAMPLES)) == [example.answer]


@pytest.mark.vllm
@pytest.mark.parametrize("name", NAMES)
def test_vllm_answers_rightly(vllm_engine: Backend, files: Path, name: str) -> None:
    assert answers(vllm_engine, requests(TRUTHS[name], files)) == right(TRUTHS[name])


@pytest.fixture(scope="module")
def vllm_server(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The server backend over a real `vllm serve`."""
    folder = tmp_path_factory.mktemp("serve")
    with vllm_serve(TINY_CHECKPOINT, folder, "--enforce-eager", "--trust-request-mm-kwargs") as server:
        backend = server.backend(server.folder, files)
        yield backend
        backend.close()


@pytest.mark.vllm
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_vllm_server_answers_rightly(vllm_server: Backend, files: Path, name: str) -> None:
    assert answers(vllm_server, requests(TRUTHS[name], files)) == right(TRUTHS[name])


@pytest.fixture(scope="module")
def page(app: App, browser: Browser) -> Iterator[Visit]:
    """One page for all questions; each begins a new chat."""
    with visits(browser) as visit:
        yield visit(app.url)


@pytest.mark.browser
@pytest.mark.parametrize("name", ON_THE_PAGE)
def test_the_page_answers_rightly(page: Visit, files: Path, name: str) -> None:
    page.page.get_by_role("button", name="New chat").click()
    for shown in (".message-row", "#omni-composer .thumbnail-item"):
        expect(page.page.locator(shown)).to_have_count(0)
    for number, turn in enumerate(TRUTHS[name], start=1):
        if turn.files:
            page.attach(*(files / file for file in turn.files))
        page.say(turn.question)
        page.finished(answers=number)
        expect(page.history.locator(".bot-row").nth(number - 1).locator(".message-content")).to_have_text(turn.answer)
    page.page.wait_for_function(LOADED)  # a new chat takes the files away
    assert page.problems == []


def media_swapped(asked: ChatRequest) -> ChatRequest:
    return with_media(asked, [*reversed(media_of(asked))])


def last_file_dropped(asked: ChatRequest) -> ChatRequest:
    return with_media(asked, [*media_of(asked)[:-1], None])


def history_lost(asked: ChatRequest) -> ChatRequest:
    return replace(asked, messages=asked.messages[-1:])


def films_unheard(asked: ChatRequest) -> ChatRequest:
    return replace(asked, use_audio_in_video=False)


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        (media_swapped, "two pictures"),
        (media_swapped, "the first of two pictures"),
        (media_swapped, "both of two pictures"),
        (media_swapped, "a sound, then a picture"),
        (last_file_dropped, "two pictures"),
        (last_file_dropped, "the second of two pictures"),
        (last_file_dropped, "a picture and a sound"),
        (history_lost, "a name"),
        (films_unheard, "a sounding film"),
    ],
)
def test_a_broken_conversation_shows(engine: Backend, files: Path, broken: Break, name: str) -> None:
    """In the last answer: the earlier ones have nothing in them yet to be broken."""
    last = requests(TRUTHS[name], files)[-1]
    assert answers(engine, [broken(last)]) != right(TRUTHS[name])[-1:]


def wrong(engine: Backend, files: Path, *names: str) -> list[str]:
    """Those whose answer is not right."""
    return [name for name in names if answers(engine, requests(TRUTHS[name], files)) != right(TRUTHS[name])]


def test_a_wrong_frame_rate_shows(engine: Backend, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = layout.frame_rate
    monkeypatch.setattr(layout, "frame_rate", lambda longest, budget: rate(longest, budget) / 2)
    assert wrong(engine, files, "the length of a film")


def test_a_frame_rate_that_the_model_is_not_told_shows(
    engine: Backend, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = transformers_answer.processor_kwargs

    def told(prompt: Prompt, processor: object) -> dict[str, Any]:
        kwargs = given(prompt, processor)
        return kwargs | {"videos_kwargs": kwargs["videos_kwargs"] | {"fps": prompt.fps / 2}}

    monkeypatch.setattr(transformers_answer, "processor_kwargs", told)
    assert wrong(engine, files, "the length of a film", *TURNING)


def test_a_late_sound_track_shows(engine: Backend, files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = MediaLoader.video

    def late(loader: MediaLoader, part: MediaPart, *, fps: float, budget: FrameBudget) -> Video:
        video = read(loader, part, fps=fps, budget=budget)
        assert video.audio is not None
        return replace(video, audio=np.roll(video.audio, video.audio.size // 2))

    monkeypatch.setattr(MediaLoader, "video", late)
    assert wrong(engine, files, *TURNING) == list(TURNING)


def test_the_thought_before_a_sum_is_right(engine: Backend) -> None:
    events = asyncio.run(answer(engine, request("Think first: What is two plus three?")))
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == "two, three, four, five"


def test_a_box_lies_around_the_thing(engine: Backend, files: Path) -> None:
    picture = golden_media()["circle.jpg"]
    assert isinstance(picture, Picture)
    question = where_question(picture.scene.things[0], "en")
    box = box_answer(picture.scene.things[0], thousandths(picture.boxes[0], picture.image.size, 1))
    [found] = answers(engine, requests((Asked(("circle.jpg",), question, box),), files))
    assert is_right(Turn((), question, box), found), found


def speech(engine: Backend, question: str, voice: str | None) -> tuple[str, Samples]:
    """What is written and what is heard."""
    events = asyncio.run(answer(engine, request(question, modalities=SPOKEN, voice=voice)))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    return text, np.concatenate([event.pcm for event in events if isinstance(event, AudioDelta)])


def pitch(engine: Backend, voice: str | None) -> float:
    """Hz."""
    return pitch_of(speech(engine, "Hello!", voice)[1])


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.name)
def test_every_voice_has_its_pitch(engine: Backend, voice: Voice) -> None:
    assert pitch(engine, voice.name) == pytest.approx(voice.pitch, abs=HERTZ)


def test_an_ignored_voice_shows(engine: Backend) -> None:
    unchosen = pitch(engine, None)
    assert len([voice for voice in VOICES if abs(unchosen - voice.pitch) <= HERTZ]) == 1


@pytest.fixture(scope="module")
def sphinx() -> Sphinx:
    """A recogniser that was trained on people and knows the words that are spoken."""
    return Sphinx(answer_words())


@pytest.mark.parametrize("voice", VOICES, ids=lambda voice: voice.name)
def test_every_voice_is_understood_by_a_recogniser_of_people(engine: Backend, sphinx: Sphinx, voice: Voice) -> None:
    heard = sum((hearing(sphinx, *speech(engine, question, voice.name)) for question in SPOKEN_QUESTIONS), Hearing())
    assert heard.understood / heard.words >= UNDERSTOOD, heard


def test_a_recogniser_of_people_hears_nothing_in_noise(sphinx: Sphinx) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.02, 48_000).astype(np.float32)
    assert len(sphinx.hear(noise)) <= 1


def test_a_word_that_cannot_be_pronounced_is_named() -> None:
    with pytest.raises(ValueError, match="not in the dictionary: glorpf"):
        Sphinx(["hello", "glorpf"])
