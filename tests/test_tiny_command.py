"""The recipe's command lines: the training, from random weights to a checkpoint, and the examination."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omni_backend import ReasoningDelta, TextDelta
from omni_backend.scripted import ScriptedBackend
from tools.tiny import __main__ as training
from tools.tiny import evaluate, lexicon, voices
from tools.tiny.lessons import Lesson, Turn
from tools.tiny.sounds import RATE, Samples
from tools.tiny.students import load_student, processing_of

pytestmark = pytest.mark.engine

Train = Callable[..., None]
SHORT = ("--steps", "1", "--lessons", "2", "--device", "cpu")
AMOUNTS = {"encoders._PICTURES": 3, "encoders._FILMS": 1, "encoders._CLIPS": 2}
AMOUNTS |= {"code2wav._PHRASES": 1, "talker._ANSWERS": 2, "__main__.TAKES": 1}


def buzz(text: str, manner: voices.Manner, rate: int = RATE) -> Samples:
    """Stands in for the synthesizer: at one pitch, some texts longer than others."""
    times = np.arange(rate * (2 + len(text) % 5) // 20)
    return np.sign(np.sin(2 * np.pi * 150 * times / rate)).astype(np.float32)


def run(main: Callable[[], None], *arguments: str | Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["the program", *map(str, arguments)])
        main()


@pytest.fixture(scope="module")
def train() -> Iterator[Train]:
    """`python -m tools.tiny` with the arguments given, where little is learned in each step."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for name, amount in AMOUNTS.items():
            patch.setattr(f"tools.tiny.{name}", amount)
        for module in (voices, lexicon):
            patch.setattr(module, "speak", buzz)
        patch.setattr(lexicon, "build", partial(lexicon.build, rounds=1))
        patch.setattr(shutil, "which", lambda _: "a synthesizer")
        yield partial(run, training.main)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def trained(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a training from random weights; removed at the end, since it is large."""
    folder = tmp_path_factory.mktemp("training") / "run"
    train("prepare", folder)
    assert sorted(file.name for file in folder.iterdir()) == ["lexicon.pt", "words.npz"]
    train("all", folder, *SHORT)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def prepared(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder of a training that has not begun; removed at the end."""
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("words.npz", "lexicon.pt"):
        (folder / name).hardlink_to(trained / name)
    yield folder
    shutil.rmtree(folder)


def stored(file: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(file, weights_only=True)
    return state


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


# The training


def test_one_command_trains_every_stage_from_random_weights(trained: Path) -> None:
    state = stored(trained / "model.pt")
    assert state["done"] == list(training.STAGES)
    assert all(stored(trained / f"{name}.pt")["step"] == 1 for name in training.STAGES)
    checkpoint = trained / "checkpoint"
    assert processing_of(checkpoint).processor.tokenizer("hello")["input_ids"]
    weights = load_student(checkpoint).state_dict()
    assert weights.keys() == state["model"].keys()
    for name, weight in weights.items():
        assert torch.isfinite(weight).all(), name
        assert torch.equal(weight, state["model"][name].bfloat16().float()), name


def test_a_training_that_is_killed_while_it_writes_goes_on_to_the_same_weights(
    train: Train, trained: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def killed(state: dict[str, Any], file: Path) -> None:
        if state.get("done", [])[-1:] == ["joint"]:
            file.write_bytes(b"half")
            raise KeyboardInterrupt
        save(state, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train("all", prepared, *SHORT)
    assert stored(prepared / "model.pt")["done"] == ["vision", "sound"]
    train("all", prepared, *SHORT)
    for name in ("model.pt", "checkpoint/model.safetensors"):
        assert (prepared / name).read_bytes() == (trained / name).read_bytes(), name


def test_a_training_goes_on_only_from_what_it_began_with(
    train: Train, trained: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in (["--warm"], ["--seed", "1"]):
        with pytest.raises(SystemExit, match=r"/run began with random weights and seed 0, .* use another folder"):
            train("all", trained, *SHORT, *other)
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_vision", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train("all", prepared, *SHORT, "--warm")
    with pytest.raises(SystemExit, match="began with assets/tiny-qwen3-omni and seed 0, not with random weights"):
        train("all", prepared, *SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_sound", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train("all", prepared, *SHORT, "--warm")
    train("sound", prepared, *SHORT, "--warm")
    assert stored(prepared / "model.pt")["done"] == ["vision", "sound"]


def test_a_stage_that_is_complete_says_so_and_changes_nothing(
    train: Train, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (trained / "model.pt").stat().st_mtime_ns
    train("refine", trained, *SHORT)
    said = capsys.readouterr().out
    assert "refine is complete" in said
    assert "refine:" not in said
    assert (trained / "model.pt").stat().st_mtime_ns == before


def test_a_stage_is_complete_when_its_checkpoint_is_written_and_no_more_steps_are_asked_for(
    train: Train, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(training, "save_student", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train("vision", prepared, *SHORT)
    train("vision", prepared, *SHORT)
    assert (prepared / "checkpoint" / "model.safetensors").exists()
    capsys.readouterr()
    train("vision", prepared, *SHORT, "--steps", "2")
    assert "going on after step 1" in capsys.readouterr().out
    assert stored(prepared / "vision.pt")["step"] == 2


def test_a_shorter_training_has_that_share_of_the_steps(
    train: Train, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train("vision", prepared, "--scale", "0.0005", "--device", "cpu")
    assert stored(prepared / "vision.pt")["step"] == round(0.0005 * training.STAGES["vision"].steps) == 3
    with pytest.raises(SystemExit):
        train("vision", prepared, "--scale", "0.5", *SHORT)
    assert "not allowed with" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train("vision", prepared, "--scale", "0")
    assert "--scale: give a number above 0" in capsys.readouterr().err


def test_a_training_that_does_not_know_what_it_began_with_goes_on(
    train: Train, trained: Path, prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = stored(trained / "model.pt")
    torch.save({"model": state["model"], "done": state["done"]}, prepared / "model.pt")
    train("all", prepared, *SHORT, "--warm")
    said = capsys.readouterr().out
    assert all(f"{name} is complete" in said for name in training.STAGES)


# The examination


def test_an_examination_is_of_the_tasks_that_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "a synthesizer")
    monkeypatch.setattr(evaluate, "create_backend", lambda *_: ScriptedBackend())
    run(evaluate.main, "folder", "--n", "2", "--tasks", "memory with system prompt, sum")
    head, _, *rows = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert head.startswith("| task |")
    assert [row.split(" | ")[:3] for row in rows] == [["| sum", "0", "2"], ["| memory with system prompt", "0", "2"]]


def test_an_examination_names_the_tasks_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(evaluate.main, "folder", "--tasks", "sum,sums")
    said = capsys.readouterr().err.splitlines()[-1]
    assert "there is no task 'sums', only " in said
    assert all(exam.name in said for exam in evaluate.exams())


def test_a_thought_that_is_asked_for_must_be_right(monkeypatch: pytest.MonkeyPatch) -> None:
    turn = Turn((), "Think first: What is one plus two?", "<think>\none, two, three\n</think>\n\nThree.")
    monkeypatch.setattr(evaluate, "exam_lesson", lambda *_: Lesson("thought", "en", (turn,)))
    backend = ScriptedBackend(
        [ReasoningDelta("one, two, "), ReasoningDelta("three"), TextDelta("Three.")],
        [ReasoningDelta("one, two"), TextDelta("Three.")],
        [TextDelta("Three.")],
        [ReasoningDelta("one, two, three"), TextDelta("Two.")],
    )
    backend.wait_until_ready()
    score = evaluate.run_exam(backend, evaluate.Exam("thought"), 4, 0)
    assert (score.right.total(), score.asked.total()) == (1, 4)
    given = [answer for _, _, answer in score.wrong]
    assert given == [
        "<think>\none, two\n</think>\n\nThree.",
        "Three.",
        "<think>\none, two, three\n</think>\n\nTwo.",
    ]


# Without the synthesizer


def test_the_training_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SystemExit, match="apt-get install espeak-ng"):
        run(training.main, "all", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_examination_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(evaluate, "create_backend", None)
    with pytest.raises(SystemExit, match="apt-get install espeak-ng"):
        run(evaluate.main, "folder")
