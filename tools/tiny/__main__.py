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
from tools.tiny.joint import BATCH_TOKENS, FIRST_STEPS, LESSONS, JointPlan, train_joint
from tools.tiny.lexicon import Lexicon
from tools.tiny.loop import Schedule
from tools.tiny.run import Run
from tools.tiny.students import EMBEDDED, fresh_student, load_student, processing_of, save_student
from tools.tiny.talker import train_talker
from tools.tiny.voices import NoSynthesizer, WordBank
from tools.tiny.world import MORE_WORDS, WORDS

_GPU_BATCH_TOKENS: Final = 32_768
_PREPARE: Final = "prepare"
_WORDS: Final = "words.npz"
_LEXICON: Final = "lexicon.pt"
TAKES: Final = 48
"""Of each word, in as many manners."""


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
    train_joint(run, _plan(run, schedule, options, first=0 if options.warm else FIRST_STEPS))


def _refine(run: Run, schedule: Schedule, options: argparse.Namespace) -> None:
    train_joint(run, _plan(run, schedule, options, first=0, encoders=True))


def _plan(
    run: Run, schedule: Schedule, options: argparse.Namespace, *, first: int, encoders: bool = False
) -> JointPlan:
    return JointPlan(
        schedule,
        lessons=options.lessons,
        first=first,
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
    parser.add_argument("--steps", type=int, help="of the stage, or of each")
    parser.add_argument("--minutes", type=float, help="at most, in all; a result of that cannot be made again exactly")
    parser.add_argument("--rate", type=float, help="the highest learning rate")
    parser.add_argument("--lessons", type=int, default=LESSONS, help="in each step of joint and refine")
    parser.add_argument("--keep-words", action="store_true", help="joint, refine: a talker trained before stays right")
    parser.add_argument("--workers", type=int, default=0, help="processes that make lessons")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch on the CPU; more only on idle cores")
    return parser.parse_args()


def _model(options: argparse.Namespace, kept: Path) -> tuple[Any, list[str]]:
    """The model as the last stage left it, and the stages that are done."""
    if options.warm:
        model = load_student(options.warm)
    else:
        model = fresh_student(EMBEDDED, options.seed)
        initialise(model.code2wav)
    if not kept.exists():
        return model, []
    state: dict[str, Any] = torch.load(kept, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    return model, state["done"]


def main() -> None:
    """Trains what the command line says. Raises NoSynthesizer."""
    options = _parse()
    words, lexicon = options.folder / _WORDS, options.folder / _LEXICON
    if not (words.exists() and lexicon.exists()) and shutil.which("espeak-ng") is None:
        raise NoSynthesizer
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    options.folder.mkdir(parents=True, exist_ok=True)
    bank = WordBank.load(words, (*WORDS, *MORE_WORDS), TAKES, options.seed)
    Lexicon.load(lexicon)
    if options.stage == _PREPARE:
        return
    kept = options.folder / "model.pt"
    model, done = _model(options, kept)
    began = time.monotonic()
    run = Run(
        model=model,
        processing=processing_of(EMBEDDED),
        say=bank.say,
        folder=options.folder,
        device=torch.device(options.device),
        report=lambda line: print(f"{(time.monotonic() - began) / 60:6.1f} min  {line}", flush=True),
        seed=options.seed,
        workers=options.workers,
    )
    for name in STAGES if options.stage == "all" else [options.stage]:
        if options.stage == "all" and name in done:
            continue
        stage = STAGES[name]
        minutes = math.inf
        if options.minutes:
            minutes = options.minutes * (stage.share if options.stage == "all" else 1.0)
        run.report(f"{name}:")
        stage.train(run, Schedule(options.steps or stage.steps, options.rate or stage.rate, minutes=minutes), options)
        done = [*done, name]
        torch.save({"model": model.to("cpu").state_dict(), "done": done}, kept)
        save_student(model, EMBEDDED, options.folder / "checkpoint")
    run.report(f"{options.folder / 'checkpoint'} is ready")


if __name__ == "__main__":
    main()
