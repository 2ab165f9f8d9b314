"""`python -m omni_backend.caption`: files in, exports out, stopped and gone on with, without a browser."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from omni_backend import (
    BACKENDS,
    BackendError,
    BackendOptions,
    BackendSpec,
    BackendUnavailable,
    Capabilities,
    Done,
    TextDelta,
    phrase,
)
from omni_backend.caption.__main__ import main, parse
from omni_backend.caption.claim import claim
from omni_backend.caption.console import Plan
from omni_backend.caption.progress import display
from omni_backend.caption.times import clock, moment
from omni_backend.scripted import ScriptedBackend
from omni_backend.types import ChatRequest, SamplingName, SamplingParams, StreamEvent
from tests.media_files import sound_file
from tests.waiting import wait_until

ROOT: Final = Path(__file__).resolve().parent.parent
CAPTIONER: Final = "Qwen/Qwen3-Omni-30B-A3B-Captioner"
PROGRESS: Final = re.compile(r"\d+ of \d+ files, |Waiting to start")
OWN_SAMPLING: Final = SamplingParams(temperature=0.6, top_p=0.95, top_k=20, max_tokens=99)

# The command line


def plan(*argv: str, **env: str) -> Plan:
    return parse(argv, env=env, has_gpu=lambda: False)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        plan(*argv)
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_answers_without_an_engine(language: str) -> None:
    script = (
        "import runpy, sys\nsys.argv = ['caption', '--help']\n"
        "try:\n runpy.run_module('omni_backend.caption', run_name='__main__')\n"
        "except SystemExit as end:\n assert not end.code\n"
        "assert not {'torch', 'transformers', 'gradio', 'av', 'openai'} & set(sys.modules), 'too much was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"LC_ALL": {"en": "en_GB.UTF-8", "zh": "zh_CN.UTF-8"}[language], "PYTHONIOENCODING": "utf-8", "PATH": ""},
        check=True,
    )
    assert phrase("caption_cli.about").text("zh" if language == "zh" else "en") in done.stdout
    for said in ("python -m omni_backend.caption recordings/", "--resume", "--checkpoint-path", "OMNI_SERVER_URL"):
        assert said in done.stdout


def test_without_options() -> None:
    chosen = plan("rain.wav")
    assert chosen.engine.embedded
    assert (chosen.engine.options.generate_audio, chosen.engine.options.single_turn) == (False, True)
    assert (chosen.paths, chosen.formats, chosen.settings, chosen.sampling) == (("rain.wav",), ("txt",), {}, {})
    assert chosen.out == Path.cwd() / "captions"
    assert parse(["rain.wav"], env={}, has_gpu=lambda: True).engine.options.checkpoint == CAPTIONER


def test_every_option_arrives() -> None:
    chosen = plan(
        *("rain.wav", "more/", "--out", "/there", "--format", "SRT, jsonl,srt", "--language", "zh", "--window", "12.5"),
        *("--overlap", "2", "--samples", "3", "--instruction", "Only birds.", "--temperature", "0", "--top-p", "0.5"),
        *("--top-k", "0", "--seed", "7", "--max-tokens", "64", "--backend", "transformers", "--flash-attn2"),
        OMNI_CHECKPOINT_PATH=CAPTIONER,
    )
    assert (chosen.paths, chosen.out, chosen.formats) == (("rain.wav", "more/"), Path("/there"), ("srt", "jsonl"))
    assert chosen.settings == {
        "language": "zh",
        "window_seconds": 12.5,
        "overlap_seconds": 2.0,
        "samples": 3,
        "instruction": "Only birds.",
    }
    assert chosen.sampling == {"temperature": 0.0, "top_p": 0.5, "top_k": 0, "max_tokens": 64, "seed": 7}
    assert (chosen.engine.backend, chosen.engine.options.checkpoint) == ("transformers", CAPTIONER)
    assert chosen.engine.options.flash_attn2


@pytest.mark.parametrize(
    "flag",
    [
        *("--window=4", "--window=31", "--window=long", "--overlap=-1", "--overlap=5", "--samples=0", "--samples=1.5"),
        *("--temperature=nan", "--top-p=0", "--top-k=-1", "--seed=x", "--max-tokens=0"),
        *("--format=mp3", "--format=srt,", "--language=fr", "--server-url"),
    ],
)
def test_nonsense_is_one_sentence(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    name, _, value = flag.partition("=")
    message = refusal(capsys, "rain.wav", flag)
    assert name in message
    assert value.strip("srt,") in message


def test_without_paths_there_must_be_a_job(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert phrase("caption_cli.no_paths").text() in refusal(capsys, "--out", str(tmp_path))
    assert phrase("caption_cli.no_paths").text() in refusal(capsys, "--out", str(tmp_path), "--resume")


# Runs over a scripted engine


class Engine(ScriptedBackend):
    """Answers with the number of the request; answer number `break_at` is a signal to the process, or an error."""

    def __init__(self, options: BackendOptions, break_at: int | None, how: signal.Signals | BackendError) -> None:
        super().__init__(capabilities=self.can)
        self.options = options
        self._break_at = break_at
        self._how = how

    can = Capabilities(model="scripted", engine="a script", default_sampling=OWN_SAMPLING)

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        self.requests.append(request)
        number = len(self.requests)
        if number == self._break_at:
            if isinstance(self._how, BackendError):
                raise self._how
            signal.raise_signal(self._how)
        yield TextDelta(f"caption {number}")
        yield Done("stop")


class Terminal:
    """Runs the program in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self.engine: Engine
        self.break_at: int | None = None
        self.how: signal.Signals | BackendError = signal.SIGINT
        self.out = folder / "out"
        self._capsys = capsys
        spec = BackendSpec(f"{__name__}:make", (), "", "a script")
        monkeypatch.setitem(BACKENDS, "scripted", spec)
        monkeypatch.setattr(f"{__name__}.make", self._make)
        for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(folder)

    def _make(self, options: BackendOptions) -> Engine:
        self.engine = Engine(options, self.break_at, self.how)
        return self.engine

    def run(self, *argv: str) -> tuple[int, list[str]]:
        """The exit status and what stood on standard error, without progress."""
        try:
            status = main([*argv, "--backend", "scripted", "--out", str(self.out)])
        except SystemExit as end:
            status = int(str(end.code))
        printed = self._capsys.readouterr()
        assert not printed.out
        return status, [line for line in printed.err.splitlines() if not PROGRESS.match(line)]

    @property
    def asked(self) -> int:
        """How many captions the engine of the last run was asked for."""
        return len(self.engine.requests)


make: Any = None
"""The factory of the scripted engine; `Terminal` puts itself here."""


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Terminal]:
    logger = logging.getLogger("omni_backend.caption")
    level = logger.level
    yield Terminal(monkeypatch, capsys, tmp_path)
    logger.setLevel(level)


def sounds(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(sound_file(seconds=0.3))


def captions(out: Path) -> dict[str, str]:
    """Name → caption of the JSONL."""
    lines = (out / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["file"]: record["caption"] for record in map(json.loads, lines)}


def ended(done: int, files: int, out: Path) -> str:
    return phrase("caption_cli.ended", done=done, files=files, out=str(out)).text()


def test_a_folder_becomes_exports_beside_each_other(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "in/2.wav", "in/10.wav", "in/rain/roof.wav")
    (tmp_path / "in" / "notes.txt").write_text("no sound")
    assert terminal.run("in", "--format", "jsonl,txt") == (
        0,
        [phrase("caption_cli.skipped", count=1).text(), ended(3, 3, terminal.out)],
    )
    made = captions(terminal.out)
    assert list(made) == ["2.wav", "10.wav", "rain/roof.wav"]
    assert sorted(made.values()) == ["caption 1", "caption 2", "caption 3"]
    assert (terminal.out / "rain" / "roof.txt").read_text() == f"{made['rain/roof.wav']}\n"
    assert {path.name for path in terminal.out.iterdir()} == {".job", "captions.jsonl", "2.txt", "10.txt", "rain"}
    assert terminal.engine.options.upload_roots == (terminal.out / ".job",)


def test_given_settings_and_the_checkpoints_own_reach_the_engine(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "rain.wav")
    status, _ = terminal.run("rain.wav", "--seed", "5", "--top-k", "7", "--samples", "2", "--instruction", "Birds?")
    assert status == 0
    sampling = [request.sampling for request in terminal.engine.requests]
    assert sampling == [SamplingParams(temperature=0.6, top_p=0.95, top_k=7, max_tokens=99, seed=s) for s in (5, 6)]
    assert terminal.engine.requests[0].messages[0].text == "Birds?"


def test_without_settings_the_checkpoints_own_are_taken(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "rain.wav")
    terminal.run("rain.wav")
    assert terminal.engine.requests[0].sampling == OWN_SAMPLING


def test_a_captioner_is_given_no_instruction_and_says_so(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Engine, "can", Capabilities(model="ears", engine="a script", text_prompts=False))
    sounds(tmp_path, "rain.wav")
    status, lines = terminal.run("rain.wav", "--instruction", "Birds?", "--language", "zh", "--format", "jsonl")
    assert (status, lines[0]) == (0, phrase("caption_cli.no_instruction", model="ears").text())
    assert captions(terminal.out) == {"rain.wav": "这个音频剪辑caption 1"}


def test_what_an_engine_cannot_be_told_is_refused(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing: dict[SamplingName, Any] = {"top_k": phrase("backend.loading")}
    monkeypatch.setattr(Engine, "can", Capabilities(model="deaf", engine="a script", missing_sampling=missing))
    sounds(tmp_path, "rain.wav")
    assert terminal.run("rain.wav", "--top-k", "5") == (2, [phrase("backend.loading").text()])
    assert not list(terminal.out.iterdir())


def test_failed_files_are_named_stop_nothing_and_are_tried_again(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav", "c.wav")
    (tmp_path / "b.wav").write_text("only text")
    status, lines = terminal.run("a.wav", "b.wav", "c.wav", "gone.wav", "--format", "jsonl")
    assert status == 1
    assert [line.split()[0] for line in lines] == ["gone.wav", "b.wav", "2", "The"]
    assert lines[-2:] == [ended(2, 4, terminal.out), phrase("caption_cli.again").text()]
    assert captions(terminal.out).keys() == {"a.wav", "c.wav"}

    sounds(tmp_path, "b.wav", "gone.wav")
    again = terminal.run("a.wav", "b.wav", "c.wav", "gone.wav", "--format", "jsonl", "--resume")
    assert again == (0, [ended(4, 4, terminal.out)])
    assert terminal.asked == 2
    made = captions(terminal.out)
    assert {frozenset(made[name] for name in pair) for pair in (("a.wav", "c.wav"), ("b.wav", "gone.wav"))} == {
        frozenset({"caption 1", "caption 2"})
    }


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_and_exports_what_is_done_and_resume_does_the_rest(
    terminal: Terminal, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    names = [f"{number}.wav" for number in range(6)]
    sounds(tmp_path / "in", *names)
    terminal.break_at, terminal.how = 4, number
    before = signal.getsignal(signal.SIGINT)
    assert terminal.run("in", "--format", "jsonl") == (status, [phrase("caption_cli.stopped").text()])
    first = captions(terminal.out)
    assert len(first) >= 2  # the fourth stopped the run while one other may have been on its way

    terminal.break_at = None
    assert terminal.run("in", "--format", "jsonl,srt", "--resume") == (0, [ended(6, 6, terminal.out)])
    assert terminal.asked == 6 - len(first)
    assert captions(terminal.out).keys() == set(names)
    assert captions(terminal.out).items() >= first.items()
    assert len(list(terminal.out.glob("*.srt"))) == 6
    assert signal.getsignal(signal.SIGINT) is before


def test_an_engine_that_gives_up_ends_the_run_and_resume_goes_on(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "a.wav", "b.wav", "c.wav")
    terminal.break_at, terminal.how = 2, BackendUnavailable(phrase("backend.busy"))
    status, lines = terminal.run("a.wav", "b.wav", "c.wav", "--format", "jsonl")
    assert status == 1
    assert lines == [
        phrase("backend.busy").text(),
        ended(1, 3, terminal.out),
        phrase("caption_cli.again").text(),
    ]
    terminal.break_at = None
    assert terminal.run("--resume", "--format", "jsonl") == (0, [ended(3, 3, terminal.out)])
    assert terminal.asked == 2


def test_exports_that_cannot_be_written_are_a_failure(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "rain.wav")
    (terminal.out / "captions.jsonl").mkdir(parents=True)
    status, lines = terminal.run("rain.wav", "--format", "jsonl")
    assert status == 1
    assert "captions.jsonl" in lines[0]
    (terminal.out / "captions.jsonl").rmdir()
    assert terminal.run("--resume", "--format", "jsonl")[0] == 0
    assert terminal.asked == 0


def test_a_job_that_is_there_is_not_overwritten(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "rain.wav")
    terminal.run("rain.wav")
    refused = phrase("caption_cli.there_is_job", out=str(terminal.out)).text()
    assert terminal.run("rain.wav") == (2, [refused])


def test_resume_starts_a_job_where_there_is_none_and_takes_files_that_are_new(
    terminal: Terminal, tmp_path: Path
) -> None:
    sounds(tmp_path, "monday/rain.wav")
    command = ("monday", "more.zip", "--format", "jsonl", "--resume")
    shutil.make_archive(str(tmp_path / "more"), "zip", tmp_path / "monday")
    assert terminal.run(*command)[0] == 0
    assert captions(terminal.out).keys() == {"rain.wav", "more/rain.wav"}

    sounds(tmp_path, "monday/snow.wav", "tuesday/rain.wav")
    assert terminal.run("tuesday", *command)[0] == 0
    assert terminal.asked == 2
    assert captions(terminal.out).keys() == {"rain.wav", "more/rain.wav", "snow.wav", "rain (2).wav"}
    assert len(list((terminal.out / ".job" / "files").rglob("*.wav"))) == 1


def test_a_second_archive_with_the_same_names_is_captioned_too(terminal: Terminal, tmp_path: Path) -> None:
    for day, seconds in (("monday", 0.3), ("tuesday", 0.4)):
        with zipfile.ZipFile(tmp_path / f"{day}.zip", "w") as archive:
            archive.writestr("rain.wav", sound_file(seconds=seconds))
        (tmp_path / day).mkdir()
        (tmp_path / f"{day}.zip").rename(tmp_path / day / "clips.zip")
    archives = [str(tmp_path / day / "clips.zip") for day in ("monday", "tuesday")]
    assert terminal.run(archives[0], "--format", "jsonl")[0] == 0
    assert terminal.run(archives[1], "--format", "jsonl", "--resume")[0] == 0
    assert terminal.asked == 1
    assert captions(terminal.out).keys() == {"clips/rain.wav", "clips/rain (2).wav"}
    assert terminal.run(*archives, "--format", "jsonl", "--resume")[0] == 0
    assert terminal.asked == 0
    assert len(captions(terminal.out)) == 2


def test_resume_knows_its_files_through_a_link(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    terminal.out = tmp_path / "link" / "out"
    sounds(tmp_path, "clips/rain.wav")
    shutil.make_archive(str(tmp_path / "clips"), "zip", tmp_path / "clips")
    for asked in (1, 0):
        assert terminal.run("clips.zip", "--format", "jsonl", "--resume")[0] == 0
        assert terminal.asked == asked
    assert captions(terminal.out).keys() == {"clips/rain.wav"}


def test_two_runs_do_not_work_on_the_same_job(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "rain.wav")
    assert terminal.run("rain.wav")[0] == 0
    taken = phrase("caption_cli.taken", out=str(terminal.out))
    with closing(claim(terminal.out / ".job", taken)):
        assert terminal.run("--resume") == (1, [taken.text()])
        assert terminal.asked == 0
    assert terminal.run("--resume")[0] == 0


def test_resume_without_paths_and_with_nothing_to_do_only_exports(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "rain.wav")
    terminal.run("rain.wav")
    assert terminal.run("--resume", "--format", "vtt") == (0, [ended(1, 1, terminal.out)])
    assert terminal.asked == 0
    assert (terminal.out / "rain.vtt").exists()


@pytest.mark.parametrize("others", ["--language=zh", "--window=20", "--top-p=0.5", "--seed=9"])
def test_resume_keeps_the_settings_of_the_job(terminal: Terminal, tmp_path: Path, others: str) -> None:
    sounds(tmp_path, "rain.wav")
    same = ("--samples", "2", "--seed", "5")
    terminal.run("rain.wav", *same)
    assert terminal.run("--resume", *same)[0] == 0
    name = others.split("=")[0]
    refused = phrase("caption_cli.other_settings", name=name, out=str(terminal.out)).text()
    assert terminal.run("--resume", others) == (2, [refused])


def test_an_engine_that_is_not_there(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sounds(tmp_path, "rain.wav")
    monkeypatch.setitem(BACKENDS, "absent", BackendSpec("no:where", ("no_such_module",), "pip install it", ""))
    assert main(["rain.wav", "--backend", "absent", "--out", str(terminal.out)]) == 1
    assert "pip install it" in capsys.readouterr().err


def test_a_folder_that_cannot_be_used_is_told_before_the_engine_loads(terminal: Terminal, tmp_path: Path) -> None:
    sounds(tmp_path, "rain.wav")
    terminal.out.write_text("a file")
    status, [line] = terminal.run("rain.wav")
    assert status == 1
    assert str(terminal.out) in line
    assert terminal.engine._loader is None


# Progress


class FakeTerminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := FakeTerminal())
    monkeypatch.setenv("COLUMNS", "80")
    shown = display()
    shown.show(0.5, "half of it")
    shown.tell("a line")
    shown.close()
    written = screen.getvalue()
    assert " 50% ████████████ " in written
    assert "half of it" in written
    assert "a line\n" in written


def test_lines_elsewhere_come_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown, times = display(), iter((1.0, 2.0, 12.0, 30.0))
    monkeypatch.setattr("omni_backend.caption.progress.time", SimpleNamespace(monotonic=lambda: next(times)))
    for sentence in ("one", "two", "three", "three"):
        shown.show(0.1, sentence)
        shown.tell("told")
    assert capsys.readouterr().err.split() == ["one", "told", "told", "three", "told", "told"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (0.4, "0:00.4"), (9.98, "0:10"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00.0"), (4.57, "0:04.6"), (59.96, "1:00.0"), (3725.34, "1:02:05.3")]
)
def test_moment(seconds: float, text: str) -> None:
    assert moment(seconds) == text


# The real engine in a process of its own


def command(*argv: str | Path) -> list[str]:
    return [sys.executable, "-m", "omni_backend.caption", *map(str, argv), "--backend", "transformers"]


def environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C.UTF-8", "HF_HUB_OFFLINE": "1"}


@pytest.mark.engine
def test_the_real_engine_with_a_bad_file(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("tone.wav", "word.wav"):
        shutil.copy(ROOT / "assets" / "examples" / name, folder)
    (folder / "bad.wav").write_text("only text")
    line = command(folder, "--out", out, "--format", "srt,jsonl")
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert sum("bad.wav" in line for line in done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert captions(out) == {"tone.wav": "A high tone.", "word.wav": "Someone says music."}
    assert (out / "tone.srt").read_text() == "1\n00:00:00,000 --> 00:00:01,500\nA high tone.\n"


@pytest.mark.engine
def test_the_real_engine_is_stopped_and_goes_on(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(20):
        shutil.copy(ROOT / "assets" / "examples" / "tone.wav", folder / f"{number}.wav")
    line = command(folder, "--out", out, "--format", "jsonl", "--resume")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(line, cwd=ROOT, env=environment(), **pipes) as process:
        wait_until(lambda: len(kept(out)) >= 3 or process.poll() is not None, "three captions", seconds=120)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    assert phrase("caption_cli.stopped").text() in complaints
    first = captions(out)
    assert 3 <= len(first) < 20

    with closing(sqlite3.connect(out / ".job" / "job.sqlite")) as job, job:
        job.execute("UPDATE captions SET text = 'from the first run'")
    again = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    texts = captions(out)
    assert len(texts) == 20
    assert {name for name, text in texts.items() if text == "from the first run"} == first.keys()
    assert {text for name, text in texts.items() if name not in first} == {"A high tone."}


def kept(out: Path) -> Sequence[Any]:
    """The captions that the job has."""
    database = out / ".job" / "job.sqlite"
    if not database.exists():
        return ()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as job:
        return job.execute("SELECT item FROM captions").fetchall()
