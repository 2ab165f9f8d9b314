"""The command line of the recipe: all stages or one, into a folder that also keeps what is needed to go on."""

from __future__ import annotations

import argparse
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from tools.tiny.code2wav import initialise, train_code2wav
from tools.tiny.encoders import train_sound, train_vision
from tools.tiny.joint import BATCH_TOKENS, LESSONS, NAMES_FIRST, TIME_FIRST, Beginning, JointPlan, train_joint
from tools.tiny.lexicon import Lexicon
from tools.tiny.loop import Schedule
from tools.tiny.run import Run
from tools.tiny.students import EMBEDDED, fresh_student, load_student, processing_of, save_student
from tools.tiny.talker import train_talker
from tools.tiny.voices import NoSynthesizer, WordBank
from tools.tiny.world import WORDS

_GPU_BATCH_TOKENS: Final = 32_768
_PREPARE: Final = "prepare"
_WORDS: Final = "words.npz"
_LEXICON: Final = "lexicon.pt"
TAKES: Final = 48
"""Of each word, in as many manners."""


class OtherBeginning(SystemExit):
    """The folder holds a training that began in another way; the program ends with this sentence."""

    def __init__(self, folder: Path, began: dict[str, Any], asked: dict[str, Any]) -> None:
        then, now = (f"{way['warm'] or 'random weights'} and seed {way['seed']}" for way in (began, asked))
        super().__init__(f"{folder} began with {then}, not with {now}: go on with those, or use another folder")


@dataclass(frozen=True, slots=True)
class Stage:
    """How long a stage takes. `share`: of the minutes, where those are given for all stages."""

    train: Callable[[Run, Schedule, argparse.Namespace], None]
    steps: int
    rate: float
    share: float


def _vision(run: Run, schedule: Schedule, _: argparse.Namespace) -> None:
    train_vision(run, schedule)


def _sound(run: Run, schedule: Schedule, _: argparse.Namespace) -> None:
    train_sound(run, schedule)


def _joint(run: Run, schedule: Schedule, options: argparse.Namespace) -> None:
    train_joint(run, _plan(run, schedule, options, NAMES_FIRST))


def _refine(run: Run, schedule: Schedule, options: argparse.Namespace) -> None:
    train_joint(run, _plan(run, schedule, options, TIME_FIRST, encoders=True))


def _plan(
    run: Run, schedule: Schedule, options: argparse.Namespace, first: Beginning, *, encoders: bool = False
) -> JointPlan:
    return JointPlan(
        schedule,
        lessons=options.lessons,
        first=None if options.warm else first,
        keep_words=options.keep_words,
        encoders=encoders,
        batch_tokens=BATCH_TOKENS if run.device.type == "cpu" else _GPU_BATCH_TOKENS,
    )


def _code2wav(run: Run, schedule: Schedule, _: argparse.Namespace) -> None:
    train_code2wav(run, _lexicon(run), schedule)


def _talker(run: Run, schedule: Schedule, options: argparse.Namespace) -> None:
    train_talker(run, _lexicon(run), schedule)


STAGES: Final[dict[str, Stage]] = {
    "vision": Stage(_vision, steps=6000, rate=1.5e-3, share=0.12),
    "sound": Stage(_sound, steps=4000, rate=1.5e-3, share=0.12),
    "joint": Stage(_joint, steps=6000, rate=1e-3, share=0.2),
    "refine": Stage(_refine, steps=9000, rate=8e-4, share=0.3),
    "code2wav": Stage(_code2wav, steps=6000, rate=2e-3, share=0.11),
    "talker": Stage(_talker, steps=6000, rate=2e-3, share=0.15),
}
"""In their order."""


def _lexicon(run: Run) -> Lexicon:
    return Lexicon.load(run.folder / _LEXICON)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.tiny", description="Trains the tiny checkpoint.")
    parser.add_argument("stage", choices=["all", *STAGES, _PREPARE], help="prepare: only speak the words")
    parser.add_argument("folder", type=Path, help="for the results, and for what is needed to go on")
    parser.add_argument("--warm", nargs="?", type=Path, const=EMBEDDED, help="begin with the weights of a checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="of the stage, or of each")
    length.add_argument("--scale", type=float, default=1.0, help="this share of the steps of each stage")
    parser.add_argument("--minutes", type=float, help="at most, in all; a result of that cannot be made again exactly")
    parser.add_argument("--rate", type=float, help="the highest learning rate")
    parser.add_argument("--lessons", type=int, default=LESSONS, help="in each step of joint and refine")
    parser.add_argument("--keep-words", action="store_true", help="joint, refine: a talker trained before stays right")
    parser.add_argument("--workers", type=int, default=0, help="processes that make lessons")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on the CPU; more only on idle cores")
    options = parser.parse_args()
    for name in ("steps", "scale", "minutes"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            parser.error(f"--{name}: give a number above 0")
    return options


class Kept:
    """The model of a run and what it has learned so far, kept in the run's folder.

    Raises OtherBeginning when the folder began with other weights or another seed than `options` say.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._folder: Path = options.folder
        self._file = self._folder / "model.pt"
        asked = {"warm": _place(options.warm) if options.warm else None, "seed": options.seed}
        state: dict[str, Any] = {"began": asked, "done": []}
        if self._file.exists():
            state = torch.load(self._file, map_location="cpu", weights_only=True)
        self._began: dict[str, Any] | None = state.get("began")
        """None in files from before it was kept."""
        if self._began not in (None, asked):
            raise OtherBeginning(self._folder, self._began, asked)
        self.done: list[str] = state["done"]
        """Stages."""
        self.model = _beginner(options)
        if "model" in state:
            self.model.load_state_dict(state["model"])
        else:
            self._save()

    def finish(self, stage: str) -> None:
        """Keeps what `stage` has learned, and writes it as a checkpoint."""
        self.model.to("cpu")
        save_student(self.model, EMBEDDED, self._folder / "checkpoint")
        if stage not in self.done:
            self.done.append(stage)
        self._save()

    def _save(self) -> None:
        """A crash leaves the file before it."""
        unfinished = self._file.with_suffix(".tmp")
        torch.save({"model": self.model.state_dict(), "done": self.done, "began": self._began}, unfinished)
        unfinished.replace(self._file)


def _place(checkpoint: Path) -> str:
    """A path that stays the same when the repository is moved with what is in it."""
    folder, repository = checkpoint.resolve(), EMBEDDED.parent.parent.resolve()
    return str(folder.relative_to(repository) if folder.is_relative_to(repository) else folder)


def _beginner(options: argparse.Namespace) -> Any:
    """A model that has learned nothing here yet."""
    if options.warm:
        return load_student(options.warm)
    model = fresh_student(EMBEDDED, options.seed)
    initialise(model.code2wav)
    return model


def _schedule(name: str, options: argparse.Namespace) -> Schedule:
    """How long a stage learns."""
    stage, minutes = STAGES[name], math.inf
    if options.minutes:
        minutes = options.minutes * (stage.share if options.stage == "all" else 1.0)
    steps = options.steps or max(1, round(options.scale * stage.steps))
    return Schedule(steps, options.rate or stage.rate, minutes=minutes)


def _complete(progress: Path, schedule: Schedule) -> bool:
    """Whether a stage has learned as long as `schedule` says. `progress`: its file."""
    if not progress.exists():
        return False
    saved: dict[str, Any] = torch.load(progress, map_location="cpu", weights_only=True)
    return schedule.share(saved["step"], saved["seconds"]) >= 1


def main() -> None:
    """Trains what the command line says. Raises NoSynthesizer and OtherBeginning."""
    options = _parse()
    words, lexicon = options.folder / _WORDS, options.folder / _LEXICON
    if not (words.exists() and lexicon.exists()) and shutil.which("espeak-ng") is None:
        raise NoSynthesizer
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    options.folder.mkdir(parents=True, exist_ok=True)
    bank = WordBank.load(words, WORDS, TAKES, options.seed)
    Lexicon.load(lexicon)
    if options.stage == _PREPARE:
        return
    kept = Kept(options)
    began = time.monotonic()
    run = Run(
        model=kept.model,
        processing=processing_of(EMBEDDED),
        say=bank.say,
        folder=options.folder,
        device=torch.device(options.device),
        report=lambda line: print(f"{(time.monotonic() - began) / 60:6.1f} min  {line}", flush=True),
        seed=options.seed,
        workers=options.workers,
    )
    for name in STAGES if options.stage == "all" else [options.stage]:
        schedule = _schedule(name, options)
        if name in kept.done and (options.stage == "all" or _complete(options.folder / f"{name}.pt", schedule)):
            run.report(f"{name} is complete; use another folder to train it anew")
            continue
        run.report(f"{name}:")
        STAGES[name].train(run, schedule, options)
        kept.finish(name)
    run.report(f"{options.folder / 'checkpoint'} is ready")


if __name__ == "__main__":
    main()
