"""Examines a checkpoint: fresh samples of every task, greedy, through the app's own backend and from real files.

    python -m tools.tiny.evaluate assets/tiny-qwen3-omni --n 200

Prints a table, a line for each task: how many of its conversations were answered rightly from first to last turn,
every answer and every thought asked for to the letter (boxes: overlapping by half). The same seed asks the same
questions of every checkpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from omni_backend import (
    Backend,
    BackendOptions,
    ChatRequest,
    MediaPart,
    Message,
    SamplingParams,
    TextPart,
    create_backend,
)
from omni_backend.types import ReasoningDelta, TextDelta
from tools.tiny.files import ending, write
from tools.tiny.inputs import media_type
from tools.tiny.lessons import TASKS, Lesson, Movie, Turn, app_system, make_lesson
from tools.tiny.sounds import Clip
from tools.tiny.voices import NoSynthesizer, speak_afresh

PROMPTED: Final = ("memory", "sound", "see and hear")
"""Tasks that are asked again with the app's system prompt."""
_ENOUGH: Final = 0.5  # of the union of two boxes
_SHOWN: Final = 3  # wrong answers of each task
MAX_TOKENS: Final = 96
"""The longest right answer has about 60."""


@dataclass(frozen=True, slots=True)
class Exam:
    """A task and whether the app's system prompt stands before it."""

    task: str
    prompted: bool = False

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.task} with system prompt" if self.prompted else self.task


@dataclass(slots=True)
class Score:
    """How an exam went."""

    right: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    """Both by what the sample was about."""
    wrong: list[tuple[str, str, str]] = field(default_factory=list)
    """Question, right answer, answer: of the first wrong turns."""

    @property
    def share(self) -> float:
        """Of the samples answered rightly."""
        return self.right.total() / max(1, self.asked.total())


def exams() -> list[Exam]:
    """All of them."""
    return [*(Exam(task) for task in TASKS), *(Exam(task, prompted=True) for task in PROMPTED)]


def exam_lesson(exam: Exam, seed: int, index: int) -> Lesson:
    """The `index`-th sample of an exam."""
    rng = random.Random(f"exam/{seed}/{exam.name}/{index}")
    system = app_system(rng) if exam.prompted else ""
    return make_lesson(exam.task, rng, speak_afresh, exam=True, system=system)


def subject(lesson: Lesson) -> str:
    """What a sample is about, to tell the scores of a task apart."""
    media = [medium for turn in lesson.turns for medium in turn.media]
    if len(media) == 1 and isinstance(media[0], Clip):
        return media[0].sound.kind
    if len(media) == 1 and isinstance(media[0], Movie):
        return media[0].film.motion.directions[0]
    return lesson.language


def is_right(turn: Turn, answer: str, thought: str = "") -> bool:
    """To the letter, but boxes need only overlap by half. Where no thought was asked for, it may be any."""
    wanted_thought, _, wanted = turn.answer.rpartition("</think>\n\n")
    if wanted_thought and thought != wanted_thought.removeprefix("<think>").strip():
        return False
    if "bbox_2d" not in wanted:
        return answer == wanted
    try:
        (found,), (right,) = json.loads(answer), json.loads(wanted)
        return found["label"] == right["label"] and overlap(found["bbox_2d"], right["bbox_2d"]) >= _ENOUGH
    except (ValueError, TypeError, KeyError):
        return False


def overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """The common area of two boxes as a share of what they cover together."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    common = max(0.0, across) * max(0.0, down)
    areas = [max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common) if common else 0.0


async def answer_of(backend: Backend, request: ChatRequest) -> tuple[str, str]:
    """The whole text of an answer and the thought before it, both without tags."""
    text = thought = ""
    async with aclosing(backend.stream(request)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                text += event.text
            elif isinstance(event, ReasoningDelta):
                thought += event.text
    return text, thought


async def examine(backend: Backend, lesson: Lesson, folder: Path, rng: random.Random) -> list[tuple[str, str]]:
    """Answers and thoughts of all turns; each turn hears the model's own earlier answers, as in the app."""
    said = [Message("system", (TextPart(lesson.system),))] if lesson.system else []
    answers = []
    for index, turn in enumerate(lesson.turns):
        parts = tuple(
            MediaPart(media_type(medium), str(write(medium, folder / f"{index}-{place}.{ending(medium, rng)}")))
            for place, medium in enumerate(turn.media)
        )
        said.append(Message("user", (*parts, TextPart(turn.question)) if turn.question else parts))
        request = ChatRequest(
            tuple(said), SamplingParams(temperature=0, max_tokens=MAX_TOKENS), answer_prefix=turn.opening
        )
        answer, thought = await answer_of(backend, request)
        answers.append((answer, thought))
        said.append(Message("assistant", (TextPart(turn.opening + answer),)))
    return answers


def run_exam(backend: Backend, exam: Exam, count: int, seed: int) -> Score:
    """`count` samples of one exam."""
    score = Score()
    for index in range(count):
        lesson = exam_lesson(exam, seed, index)
        with tempfile.TemporaryDirectory() as folder:
            rng = random.Random(f"files/{seed}/{exam.name}/{index}")
            answers = asyncio.run(examine(backend, lesson, Path(folder), rng))
        about = subject(lesson)
        score.asked[about] += 1
        wrong = list(_wrong(lesson, answers))
        score.right[about] += not wrong
        score.wrong += wrong[:1]
    return score


def table(scores: dict[Exam, Score]) -> str:
    """Markdown."""
    lines = ["| task | right | of | share | by subject |", "|---|---|---|---|---|"]
    for exam, score in scores.items():
        parts = ", ".join(f"{about} {score.right[about]}/{count}" for about, count in sorted(score.asked.items()))
        lines.append(f"| {exam.name} | {score.right.total()} | {score.asked.total()} | {score.share:.1%} | {parts} |")
    return "\n".join(lines)


def _wrong(lesson: Lesson, answers: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    for turn, (answer, thought) in zip(lesson.turns, answers, strict=True):
        if not is_right(turn, answer, thought):
            yield turn.question, turn.answer, f"<think>\n{thought}\n</think>\n\n{answer}" if thought else answer


def _chosen(names: str) -> list[Exam]:
    """The exams of these names, separated by commas. Raises ArgumentTypeError for names that there are not."""
    wanted, known = [name.strip() for name in names.split(",")], [exam.name for exam in exams()]
    if unknown := [name for name in wanted if name not in known]:
        raise argparse.ArgumentTypeError(f"there is no task {', '.join(map(repr, unknown))}, only {', '.join(known)}")
    return [exam for exam in exams() if exam.name in wanted]


def main() -> None:
    """The command line. Raises NoSynthesizer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("checkpoint", help="a folder")
    parser.add_argument("--n", type=int, default=200, help="samples of each task (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: %(default)s)")
    parser.add_argument("--tasks", type=_chosen, default=exams(), help="only these, by name, separated by commas")
    parser.add_argument("--wrong", action="store_true", help="show some wrong answers")
    arguments = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        raise NoSynthesizer
    backend = create_backend("transformers", BackendOptions(arguments.checkpoint, single_turn=True))
    backend.wait_until_ready()
    scores = {}
    for exam in arguments.tasks:
        scores[exam] = run_exam(backend, exam, arguments.n, arguments.seed)
        print(table({exam: scores[exam]}).splitlines()[-1], flush=True)
        for question, right, answer in scores[exam].wrong[:_SHOWN] if arguments.wrong else ():
            print(f"    {question!r}: {right!r}, not {answer!r}")
    print(f"\n{table(scores)}")
    backend.close()


if __name__ == "__main__":
    main()
