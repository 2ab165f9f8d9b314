"""Reuse of earlier prompts: the answers are those of prompts read whole, and what is old is not read again."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import DynamicCache

from omni_backend import (
    Backend,
    BackendOptions,
    ChatRequest,
    Done,
    MediaPart,
    Message,
    OutOfMemory,
    TextDelta,
    TextPart,
)
from omni_backend.transformers_answer import processor_kwargs
from omni_backend.transformers_backend import TransformersBackend
from omni_backend.transformers_loader import LoadedModel, load_model
from omni_backend.transformers_prefix import FileSpan, PrefixPool, Reading, read_prompt
from tests.media_files import BLUE, RED, film_file, sound_file, written
from tests.prefix_bench import EXAMPLES, GREEDY, SYSTEM, Bench, Told, film, picture, said, sound
from tests.tiny_checkpoints import Shape

pytestmark = pytest.mark.engine

QUESTIONS = {"image": "What do you see?", "audio": "What do you hear?", "video": "What do you see?"}


@pytest.fixture(scope="module")
def loaded(random_checkpoint: Callable[[Shape], Path]) -> LoadedModel:
    """Random weights, whose answers vary with all they read; greedy speech of 12 frames."""
    folder = random_checkpoint(Shape(layers=3))
    loaded = load_model(BackendOptions(str(folder), generate_audio=True), lambda step, fraction: None)
    talker = replace(loaded.checkpoint.talker, do_sample=False, max_new_tokens=13)
    return replace(loaded, checkpoint=replace(loaded.checkpoint, talker=talker))


@pytest.fixture
def bench(loaded: LoadedModel) -> Bench:
    return Bench(loaded)


@pytest.fixture(scope="module")
def loaded_trained(tiny_checkpoint: Path) -> LoadedModel:
    """The embedded checkpoint, which was taught to tell what it sees and hears; in float32, unlike its file."""
    loaded = load_model(BackendOptions(str(tiny_checkpoint)), lambda step, fraction: None)
    loaded.model.float()
    return loaded


@pytest.fixture
def trained(loaded_trained: LoadedModel) -> Bench:
    return Bench(loaded_trained)


def assert_prompts_are_reused(answers: Sequence[Told]) -> None:
    """Each prompt but the first begins with the one before, of which nothing was read again."""
    assert answers[0].reused == 0
    for before, after in pairwise(answers):
        assert after.ids[: len(before.ids)] == before.ids
        assert after.reused >= len(before.ids)


@pytest.mark.parametrize(
    "parts",
    [("Hello",), (picture(), sound()), (film(), "What?"), (film(), sound(), picture())],
    ids=["text", "picture and sound", "sounding film", "film beside a sound"],
)
def test_positions_are_those_of_stock(bench: Bench, parts: tuple[str | MediaPart, ...]) -> None:
    request = ChatRequest((SYSTEM, said(*parts)), GREEDY)
    prompt, text = bench.loaded.processing.prompt(request, bench.media)
    processor, thinker = bench.loaded.processor, bench.loaded.model.thinker
    inputs = processor(text=text, return_tensors="pt", **processor_kwargs(prompt, processor))
    seen: list[torch.Tensor] = []
    handle = thinker.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["position_ids"]), with_kwargs=True
    )
    thinker.generate(**inputs, use_audio_in_video=prompt.use_audio_in_video, max_new_tokens=1, do_sample=False)
    handle.remove()

    assert torch.equal(read_prompt(thinker, prompt, inputs).positions, seen[0])


def test_text_of_many_turns(bench: Bench) -> None:
    answers = bench.chat(*(said(f"Question number {number}: why?") for number in range(4)), start=[SYSTEM])

    assert_prompts_are_reused(answers)
    assert len({tuple(answer.tokens) for answer in answers}) == 4, "the answers should differ to show anything"


def test_picture_and_sound_in_four_turns(bench: Bench) -> None:
    with encoded(bench.loaded) as calls:
        first, *rest = bench.chat(
            said(picture(), sound(), "What do you see and hear?"),
            said("Tell me more."),
            said("And now?"),
            said("Why?"),
        )

    assert_prompts_are_reused([first, *rest])
    # With the pool the first turn alone encodes them, without it each of the four.
    assert calls == {"visual": 5, "audio_tower": 5}


@contextmanager
def encoded(loaded: LoadedModel) -> Iterator[dict[str, int]]:
    """How often each encoder works meanwhile."""
    calls = {"visual": 0, "audio_tower": 0}
    handles = []
    for path, module in loaded.model.thinker.named_modules():
        name = path.rpartition(".")[2]
        if name in calls:

            def count(*_: Any, name: str = name) -> None:
                calls[name] += 1

            handles.append(module.register_forward_pre_hook(count))
    yield calls
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("model", ["bench", "trained"])
def test_files_in_later_turns_are_all_that_is_encoded(model: str, request: pytest.FixtureRequest) -> None:
    """The features of the old files must not slip into the places of the new ones."""
    bench: Bench = request.getfixturevalue(model)
    answers = bench.chat(
        said(picture(), sound(), "What do you hear?"),
        said(sound("sweep.wav"), picture("star.png"), "What do you hear?"),
        said(picture(), "What do you see?"),
    )

    assert_prompts_are_reused(answers)


def test_sounding_film_then_words(bench: Bench) -> None:
    answers = bench.chat(said(film(), "What do you see and hear?"), said("Tell me more."), said("Why?"))
    ids = bench.loaded.model.thinker.config

    assert_prompts_are_reused(answers)
    marks = [token for token in answers[0].ids if token in (ids.audio_token_id, ids.video_token_id)]
    assert sorted(marks) != marks, "the sound should stand between the pictures"


def test_two_films_and_a_picture(bench: Bench, tmp_path: Path) -> None:
    answers = bench.chat(
        said(film(), picture(), "What?"),
        said(written(tmp_path, "video", film_file("mp4", seconds=1.0), "other.mp4"), "And this?"),
        said("Which is longer?"),
    )

    assert_prompts_are_reused(answers)


def test_a_film_whose_sound_moves_is_read_again(bench: Bench) -> None:
    """Beside another sound the film's own is no longer interleaved with its pictures."""
    before = [SYSTEM, said("Here is a film. " * 8, film(), "What do you see and hear?")]
    first = bench.check(before)
    answered = [*before, Message("assistant", (TextPart(first.text),))]
    second = bench.check([*answered, said(sound(), "And this?")])

    config = bench.loaded.model.thinker.config
    assert 0 < second.reused <= first.ids.index(config.vision_start_token_id) + 1


def test_a_longer_sound_beside_an_older_one(bench: Bench, tmp_path: Path) -> None:
    """Sounds are padded to the longest of a prompt, which must not cost the older ones their place."""
    longer = written(tmp_path, "audio", sound_file(seconds=4.0), "longer.wav")
    answers = bench.chat(said(sound(), "What is it?"), said(longer, "And this?"), said("Thanks."))

    assert_prompts_are_reused(answers)


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_another_file_at_the_same_place_is_not_taken_for_the_first(trained: Bench, tmp_path: Path, kind: str) -> None:
    """Their placeholders are the same; the contents are not."""
    files = {
        "image": [(EXAMPLES / name).read_bytes() for name in ("circle.png", "star.png")],
        "audio": [(EXAMPLES / name).read_bytes() for name in ("tone.wav", "sweep.wav")],
        "video": [film_file("mp4", pictures=[(0.0, colour)], hertz=None) for colour in (RED, BLUE)],
    }
    first, second = (
        trained.check([SYSTEM, said(written(tmp_path, cast(Any, kind), file, f"{number}.bin"), QUESTIONS[kind])])
        for number, file in enumerate(files[kind])
    )

    config = trained.loaded.model.thinker.config
    assert second.ids == first.ids
    assert second.tokens != first.tokens
    assert second.reused == first.ids.index(getattr(config, f"{kind}_token_id"))


def test_an_edit_is_read_from_where_it_was_made(bench: Bench) -> None:
    turns = [said(picture(), "What do you see in it?"), said("Name three more things.")]
    before = bench.chat(*turns, start=[SYSTEM])
    edited = [SYSTEM, turns[0], Message("assistant", (TextPart("A red square, I think."),)), turns[1]]
    after = bench.check(edited)

    assert after.ids[: after.reused] == before[1].ids[: after.reused]
    assert after.ids[after.reused] != (before[1].ids + before[1].tokens)[after.reused]
    assert after.reused >= len(before[0].ids)


def test_a_conversation_that_got_shorter(bench: Bench) -> None:
    first, *_ = bench.chat(said(picture(), sound(), "What?"), said("More."), said("Even more."))
    again = bench.check([said(picture(), sound(), "What?")])

    assert again.ids == first.ids
    assert again.reused == len(first.ids) - 1, "one token must be read to write the next"
    assert again.tokens == first.tokens


def test_conversations_that_take_turns(bench: Bench) -> None:
    """Each goes on from its own, though they begin alike."""
    chats: list[list[Message]] = [[SYSTEM], [SYSTEM]]
    told: list[list[Told]] = [[], []]
    files = (picture(), picture("star.png"))
    for turn in range(3):
        for number, chat in enumerate(chats):
            chat.append(said(*([files[number]] if not turn else []), f"Question {turn} of guest {number}?"))
            told[number].append(bench.check(chat))
            chat.append(Message("assistant", (TextPart(told[number][-1].text),)))

    for answers in told:
        for before, after in pairwise(answers):
            assert after.reused >= len(before.ids)
    assert len(bench.pool) == 2


def test_after_a_stopped_answer(bench: Bench) -> None:
    messages = [SYSTEM, said(picture(), sound(), "What do you see and hear?")]
    stopped = bench.tell(messages, pool=bench.pool, stop_after=4)
    told = bench.check([*messages, Message("assistant", (TextPart(stopped.text),)), said("Go on.")])

    assert 0 < len(stopped.tokens) < GREEDY.max_tokens
    assert told.reused >= len(stopped.ids)


def test_the_penalty_counts_the_whole_prompt(bench: Bench) -> None:
    penalty = replace(GREEDY, repetition_penalty=1.8)
    questions = [said("One two three?"), said("Four five six?"), said("Seven?")]
    answers = bench.chat(*questions, start=[SYSTEM], sampling=penalty)
    plain = bench.tell([SYSTEM, questions[0]], pool=None)

    assert_prompts_are_reused(answers)
    assert answers[0].tokens != plain.tokens, "the penalty should change something"


def test_a_chat_with_thoughts_goes_on_from_its_own(random_checkpoint: Callable[[Shape], Path]) -> None:
    """History leaves out the thoughts and the mark that opens them; nothing else is read again."""
    folder = random_checkpoint(Shape(kind="thinking"))
    bench = Bench(load_model(BackendOptions(str(folder)), lambda step, fraction: None))
    answers = bench.chat(said(picture(), sound(), "What?"), said("Why?"), said("And then?"))
    opening = len(bench.loaded.processor.tokenizer("<think>\n")["input_ids"])

    for before, after in pairwise(answers):
        assert len(before.ids) > after.reused >= len(before.ids) - opening
    assert len(bench.pool) == 1, "the turn before is of no more use"


@pytest.mark.parametrize("opening", ["picture and sound", "film"])
def test_spoken_turns(bench: Bench, opening: str) -> None:
    files = (picture(), sound()) if opening == "picture and sound" else (film(),)
    answers = bench.chat(
        said(*files, "What do you see and hear?"),
        said("Tell me more."),
        said(picture("star.png"), "And this?"),
        modalities=frozenset({"text", "audio"}),
    )

    assert_prompts_are_reused(answers)
    frames = [answer.frames for answer in answers]
    assert all(frame is not None and frame.shape[0] > 4 for frame in frames)


def test_speech_after_a_turn_that_was_only_written(bench: Bench) -> None:
    messages = [said(picture(), sound(), "What?")]
    written_first = bench.check(messages)
    messages += [Message("assistant", (TextPart(written_first.text),)), said("Say it aloud.")]
    spoken = bench.check(messages, modalities=frozenset({"text", "audio"}))

    assert spoken.frames is not None
    assert spoken.reused >= len(written_first.ids)


def test_the_pool_forgets_the_oldest_chat(bench: Bench) -> None:
    bench.pool = bench.new_pool(caches=2)
    questions = ["Apples?", "Bananas, perhaps?", "Cherries then?"]
    prompts = {question: bench.check([SYSTEM, said(question)]) for question in questions}
    assert len(bench.pool) == 2

    def reused(question: str) -> int:
        chat = [SYSTEM, said(question), Message("assistant", (TextPart(prompts[question].text),)), said("Why?")]
        return bench.check(chat).reused

    assert reused("Cherries then?") >= len(prompts["Cherries then?"].ids)
    assert reused("Bananas, perhaps?") >= len(prompts["Bananas, perhaps?"].ids)
    assert reused("Apples?") < len(prompts["Apples?"].ids)


def test_the_pool_holds_no_more_tokens_than_it_may(bench: Bench) -> None:
    first = bench.check([said("Apples?")])
    size = len(first.ids) + len(first.tokens)
    bench.pool = bench.new_pool(tokens=2 * size)
    for question in ("Apples?", "Pears?", "Grapes?"):
        bench.check([said(question)])

    assert 1 <= len(bench.pool) <= 2


def test_out_of_memory_lets_go_of_what_is_kept_and_tries_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    thinker = bench.loaded.model.thinker
    generate = thinker.generate
    first = bench.check([said("Apples?")])
    chat = [said("Apples?"), Message("assistant", (TextPart(first.text),)), said("Why?")]
    whole = bench.tell(chat, pool=None)
    seen: list[int] = []

    def fail_while_any_is_kept(**kwargs: Any) -> Any:
        seen.append(kwargs["past_key_values"].get_seq_length())
        if seen[-1]:
            raise torch.OutOfMemoryError("tried to allocate 20 GiB")
        return generate(**kwargs)

    monkeypatch.setattr(thinker, "generate", fail_while_any_is_kept)
    told = bench.tell(chat, pool=bench.pool)

    assert told.tokens == whole.tokens
    assert seen[0] > 0
    assert seen[1:] == [0]


def test_out_of_memory_in_mid_answer_is_not_answered_twice(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    thinker = bench.loaded.model.thinker
    generate = thinker.generate
    bench.check([said("Apples?")])
    calls = 0

    def fail_late(**kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        generate(**kwargs | {"max_new_tokens": 5})
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr(thinker, "generate", fail_late)
    with pytest.raises(OutOfMemory):
        bench.tell([said("Pears?")], pool=bench.pool)
    assert calls == 1
    assert len(bench.pool) == 0


def test_caches_that_forget_their_start_are_not_kept(loaded: LoadedModel) -> None:
    config = copy.deepcopy(loaded.model.thinker.config.text_config)
    reading = Reading(torch.arange(20), torch.arange(20).expand(4, 1, -1), ())
    kept = []
    for kind in ("full_attention", "sliding_attention"):
        config.layer_types = [kind] * config.num_hidden_layers
        config.sliding_window = 8
        pool, cache = PrefixPool(config), DynamicCache(config=config)
        for layer in range(config.num_hidden_layers):
            cache.update(torch.zeros(1, 1, 20, 4), torch.zeros(1, 1, 20, 4), layer)
        pool.keep(reading, [], cache, None)
        kept.append(len(pool))

    assert kept == [1, 0]


def test_readings_agree_as_far_as_ids_positions_and_files_do() -> None:
    def reading(ids: str, files: Sequence[FileSpan] = (), late: int | None = None) -> Reading:
        positions = torch.arange(len(ids)).repeat(4, 1, 1)
        if late is not None:
            positions[1, :, late:] += 1
        return Reading(torch.tensor([ord(letter) for letter in ids]), positions, tuple(files))

    red, blue = (FileSpan(2, 5, (("image", digest),)) for digest in (b"red", b"blue"))
    base = reading("abIIIcde", [red])

    assert base.common(base) == 8
    assert base.common(reading("abIIIcxe", [red])) == 6
    assert base.common(reading("abIIIc", [red])) == 6
    assert base.common(reading("abIIIcde", [blue])) == 2
    assert base.common(reading("abIIIcde")) == 2, "what was written by the model is no file"
    assert base.common(reading("abIIIcde", [red], late=6)) == 6
    longer = FileSpan(2, 6, (("image", b"red"),))
    assert base.common(reading("abIIIIde", [longer])) == 2, "never a part of a file"


def test_the_backend_reuses_and_counts_the_whole_prompt(random_checkpoint: Callable[[Shape], Path]) -> None:
    """Through the front door; usage tells of the whole prompt."""
    options = BackendOptions(str(random_checkpoint(Shape(layers=3))))
    backend = TransformersBackend(options)
    backend.wait_until_ready()
    try:
        (first, done), (second, later) = asyncio.run(two_turns(backend, lambda: None))
        reused = backend.prefixes.reused
        backend.prefixes.clear()
        whole = asyncio.run(two_turns(backend, backend.prefixes.clear))
        after_all = backend.prefixes.reused
    finally:
        backend.close()

    assert first
    assert [(text, end.usage) for text, end in whole] == [(first, done.usage), (second, later.usage)]
    assert done.usage.prompt_tokens <= reused < later.usage.prompt_tokens
    assert after_all == reused


async def two_turns(backend: Backend, before_turn: Callable[[], None]) -> list[tuple[str, Done]]:
    history: list[Message] = []
    told: list[tuple[str, Done]] = []
    for turn in (said(picture(), sound(), "What do you see and hear?"), said("And now?")):
        history.append(turn)
        before_turn()
        text, done = "", None
        async for event in backend.stream(ChatRequest(tuple(history), GREEDY)):
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, Done):
                done = event
        assert done is not None
        told.append((text, done))
        history.append(Message("assistant", (TextPart(text),)))
    return told
