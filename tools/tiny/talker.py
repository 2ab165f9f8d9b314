"""Talker and code predictor: answers → speech codes of the lexicon, in three voices, beside a thinker that stays.

What the talker reads is what the app gives it: the user's turns (files as the thinker's states), the head of the
answer with the voice, and with each frame one more token of the answer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import torch
from torch.nn.functional import cross_entropy, pad

from tools.tiny.ahead import ahead
from tools.tiny.inputs import Example, Tensors, collate, example
from tools.tiny.lessons import TASKS, Lesson, make_lesson
from tools.tiny.lexicon import VOICES, Lexicon
from tools.tiny.loop import Schedule, fit
from tools.tiny.run import Run

SPOKEN_TASKS: Final = {
    **{name: task.weight for name, task in TASKS.items() if name != "box"},
    "refusal": 4,
    "memory": 4,
    "sum": 4,
}
"""How often lessons of each kind are spoken: all that people may hear must have been taught. Boxes are no words."""
_ANSWERS: Final = 12  # in a step
_UNSEEN: Final = 0.7  # of the answers are spoken without files and earlier turns, which only cost time
_HEADER: Final = 3  # tokens of `<|im_start|>assistant\n`
_FRAMES_REFINED: Final = 256  # of a step that the code predictor learns from


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """An answer to be spoken. `codes`: shape (frames, code groups)."""

    example: Example
    voice: str
    codes: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Sequence:
    """What the talker reads of one answer: ids for the positions, embeddings (length, width)."""

    ids: torch.Tensor
    embeddings: torch.Tensor
    begin: int
    """Where the first frame is predicted."""


def train_talker(run: Run, lexicon: Lexicon, schedule: Schedule) -> None:
    """Trains talker and code predictor of the run's model; the thinker only reads."""
    model = run.model.to(run.device)
    # The talker's position ids need the sound encoder's window, which its own config lacks.
    model.talker.config.audio_config = model.thinker.config.audio_config
    model.thinker.eval()
    model.talker.train()

    made = ahead(partial(step_speeches, run, lexicon), schedule.steps, run.workers)

    def losses(step: int) -> Iterator[torch.Tensor]:
        rng = random.Random(f"frames/{run.seed}/{step}")
        speeches = made(step)
        for hears_films in (False, True):
            group = [speech for speech in speeches if speech.example.hears_films == hears_films]
            if group:
                yield talker_loss(run, group, rng) * (len(group) / len(speeches))

    fit({"talker": model.talker}, losses, schedule, run.folder / "talker.pt", run.report)
    model.talker.eval()


def step_speeches(run: Run, lexicon: Lexicon, step: int) -> list[Speech]:
    """What is learned at a step; a pure function of the run's seed and the step."""
    rng = random.Random(f"talker/{run.seed}/{step}")
    return [random_speech(run, lexicon, rng) for _ in range(_ANSWERS)]


def random_speech(run: Run, lexicon: Lexicon, rng: random.Random) -> Speech:
    """A lesson up to one of its answers that can be spoken, in any voice."""
    while True:
        task = rng.choices(list(SPOKEN_TASKS), list(SPOKEN_TASKS.values()))[0]
        lesson: Lesson = make_lesson(task, rng, run.say)
        lesson = replace(lesson, turns=lesson.turns[: rng.randint(1, len(lesson.turns))])
        if rng.random() < _UNSEEN:
            lesson = replace(lesson, turns=(replace(lesson.turns[-1], media=()),))
        voice = rng.choice(VOICES).name
        codes = spoken(lesson.turns[-1].answer, voice, lexicon, run.processing.processor.tokenizer)
        if codes is not None:
            return Speech(example(lesson, run.processing, rng), voice, codes)


def spoken(answer: str, voice: str, lexicon: Lexicon, tokenizer: Any) -> torch.Tensor | None:
    """The codes of an answer, shape (frames, code groups): silent while it thinks, a frame for each token it reads.

    None when something of it cannot be spoken.
    """
    thought, tag, said = answer.rpartition("</think>\n\n")
    codes = lexicon.spoken(said, voice)
    if codes is None or not thought:
        return codes
    silent = lexicon.codes[voice, ","][:1]
    return torch.cat([silent.expand(len(tokenizer(thought + tag)["input_ids"]), -1), codes])


def talker_loss(run: Run, speeches: Sequence[Speech], rng: random.Random) -> torch.Tensor:
    """Of the first codes (talker) and of the others (code predictor), teacher forced."""
    logits, hidden = talker_logits(run, speeches)
    codes = [speech.codes.to(run.device) for speech in speeches]
    end = codes[0].new_tensor([run.model.config.talker_config.codec_eos_token_id])
    wanted = torch.cat([torch.cat([own[:, 0], end]) for own in codes])
    return cross_entropy(logits, wanted) + _refinement_loss(run.model.talker, hidden, torch.cat(codes), rng)


def talker_logits(run: Run, speeches: Sequence[Speech]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the talker expects as first code of every frame and as the end, one speech after the other.

    Shapes (frames + speeches, vocabulary), and its states at the frames, (frames, width). All speeches have the same
    `hears_films`.
    """
    padding = run.processing.processor.tokenizer.pad_token_id
    inputs, _ = collate([speech.example for speech in speeches], padding)
    inputs = {key: value.to(run.device) for key, value in inputs.items()}
    hears_films = speeches[0].example.hears_films
    states = _thinker_states(run, inputs, hears_films)
    rows = [_sequence(run, speech, states[row]) for row, speech in enumerate(speeches)]
    longest = max(row.ids.shape[0] for row in rows)
    missing = [longest - row.ids.shape[0] for row in rows]
    paired = list(zip(rows, missing, strict=True))
    output = run.model.talker(
        inputs_embeds=torch.stack([pad(row.embeddings, (0, 0, 0, count)) for row, count in paired]),
        talker_input_ids=torch.stack([pad(row.ids, (0, count), value=padding) for row, count in paired]),
        attention_mask=torch.stack([pad(torch.ones_like(row.ids), (0, count)) for row, count in paired]),
        **_placement(inputs),
        use_audio_in_video=hears_films,
        use_cache=False,
        output_hidden_states=True,
    )
    hidden = output.hidden_states[0][-1]
    spoken = [slice(row.begin, row.begin + len(speech.codes)) for row, speech in zip(rows, speeches, strict=True)]
    logits = torch.cat([output.logits[row, each.start : each.stop + 1] for row, each in enumerate(spoken)])
    return logits, torch.cat([hidden[row, each] for row, each in enumerate(spoken)])


def _thinker_states(run: Run, inputs: Tensors, hears_films: bool) -> torch.Tensor:
    """The layer that the talker listens to, (batch, tokens, width)."""
    with torch.no_grad():
        output = run.model.thinker(**inputs, use_audio_in_video=hears_films, use_cache=False, output_hidden_states=True)
    states: torch.Tensor = output.hidden_states[run.model.config.talker_config.accept_hidden_layer]
    return states


def _placement(inputs: Tensors) -> Tensors:
    """What the talker needs of the files to place its tokens."""
    keys = ("image_grid_thw", "video_grid_thw", "video_second_per_grid")
    found = {key: inputs[key] for key in keys if key in inputs}
    if "feature_attention_mask" in inputs:
        found["audio_feature_lengths"] = inputs["feature_attention_mask"].sum(dim=1)
    return found


def _sequence(run: Run, speech: Speech, states: torch.Tensor) -> _Sequence:
    """User turns, head and frames of one answer. `states`: the thinker's, (tokens, width)."""
    model, talker = run.model, run.model.talker
    config = model.config
    ids = speech.example.inputs["input_ids"][0].to(run.device)
    starts = torch.nonzero(ids == config.im_start_token_id).flatten().tolist()
    user = [
        torch.arange(begin, end, device=run.device)
        for begin, end in zip(starts, [*starts[1:], ids.shape[0]], strict=True)
        if ids[begin + 1] == config.user_token_id
    ]
    asked = torch.cat(user)
    files = torch.isin(ids[asked], torch.tensor(_file_ids(config.thinker_config), device=run.device))
    prompt = torch.where(files[:, None], talker.hidden_projection(states[asked]), _project(run, ids[asked]))
    answer = ids[starts[-1] + _HEADER : -1]  # without the end of the turn, which is never spoken
    special = torch.tensor(
        [config.tts_pad_token_id, config.tts_bos_token_id, config.tts_eos_token_id], device=run.device
    )
    silent, begin, end = _project(run, special).split(1)
    header = _project(run, ids[starts[-1] : starts[-1] + _HEADER])
    text = torch.cat([header, silent.expand(4, -1), begin, _project(run, answer[:1])])
    head = text + pad(_head_marks(run, speech.voice), (0, 0, _HEADER, 0))
    codes = speech.codes.to(run.device)
    trailing = torch.cat([_project(run, answer[1:]), end])[: len(codes)]
    trailing = torch.cat([trailing, silent.expand(len(codes) - len(trailing), -1)])
    frames = _frame_embeddings(talker, codes) + trailing
    embeddings = torch.cat([prompt, head, frames])
    placed = torch.full((len(head) + len(frames),), config.tts_pad_token_id, device=run.device)
    return _Sequence(torch.cat([ids[asked], placed]), embeddings, len(prompt) + len(head) - 1)


def _head_marks(run: Run, voice: str) -> torch.Tensor:
    """What the codec says at the head of an answer, the voice among it; (marks, width)."""
    config = run.model.config.talker_config
    marks = [config.codec_nothink_id, config.codec_think_bos_id, config.codec_think_eos_id, config.speaker_id[voice]]
    marks += [config.codec_pad_id, config.codec_bos_id]
    embedded: torch.Tensor = run.model.talker.get_input_embeddings()(torch.tensor(marks, device=run.device))
    return embedded


def _project(run: Run, ids: torch.Tensor) -> torch.Tensor:
    """Token ids → the talker's text embeddings (tokens, width); the thinker's own embeddings stay."""
    embedded = run.model.thinker.get_input_embeddings()(ids).detach()
    projected: torch.Tensor = run.model.talker.text_projection(embedded)
    return projected


def _frame_embeddings(talker: Any, codes: torch.Tensor) -> torch.Tensor:
    """The sum over all code groups; (frames, width)."""
    total: torch.Tensor = talker.get_input_embeddings()(codes[:, 0])
    for group, embedding in enumerate(talker.code_predictor.get_input_embeddings(), start=1):
        total = total + embedding(codes[:, group])
    return total


def _refinement_loss(talker: Any, hidden: torch.Tensor, codes: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """The code predictor: from the talker's state and the codes so far to the next group."""
    chosen = rng.sample(range(len(codes)), min(len(codes), _FRAMES_REFINED))
    hidden, codes = hidden[chosen], codes[chosen]
    predictor = talker.code_predictor
    embeddings = predictor.get_input_embeddings()
    read = [hidden, talker.get_input_embeddings()(codes[:, 0])]
    read += [embeddings[group - 1](codes[:, group]) for group in range(1, codes.shape[1] - 1)]
    states = predictor.model(inputs_embeds=torch.stack(read, dim=1), use_cache=False).last_hidden_state
    groups = range(1, codes.shape[1])
    losses = [cross_entropy(predictor.lm_head[group - 1](states[:, group]), codes[:, group]) for group in groups]
    return torch.stack(losses).mean()


def _file_ids(config: Any) -> list[int]:
    return [config.audio_token_id, config.image_token_id, config.video_token_id]
