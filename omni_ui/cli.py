"""The command lines of the pages and their environment → frozen `Settings`. The argparse Namespace dies here.

Knows nothing of gradio or torch, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from omni_backend.command_line import (
    CAPTIONS,
    CONVERSATION,
    VARIABLES,
    Engine,
    Parser,
    Purpose,
    Reader,
    add_engine_arguments,
    first,
    read_engine,
)

SERVER_NAME: Final = "127.0.0.1"
SERVER_PORT: Final = 8901
CAPTIONER_PORT: Final = 8902
SPACES_PORT: Final = 7860
"""The port that Hugging Face Spaces shows to the world."""
SPACES_DATA: Final = Path("/data")
"""What a Space keeps over a restart, when it has storage."""
JOBS: Final = "qwen3-omni-captions"


@dataclass(frozen=True, slots=True)
class Program:
    """One of the pages."""

    name: str
    about: str
    """The catalogue's key."""
    examples: str
    """The catalogue's key."""
    purpose: Purpose
    port: int
    keeps_jobs: bool = False
    """Whether there is something to keep over a restart."""


CHAT: Final = Program("app.py", "cli.about", "cli.examples", CONVERSATION, SERVER_PORT)
CAPTIONER: Final = Program(
    "app_captioner.py", "cli.captioner_about", "cli.captioner_examples", CAPTIONS, CAPTIONER_PORT, keeps_jobs=True
)


@dataclass(frozen=True, slots=True)
class Settings(Engine):
    """How one start of a page was asked for, everything decided: its engine and where it is served."""

    share: bool = False
    inbrowser: bool = False
    server_name: str = SERVER_NAME
    server_port: int = SERVER_PORT
    jobs_dir: Path | None = None
    """Where jobs are kept over a restart; None: the page has none."""


def parse(
    argv: Sequence[str] | None = None,
    program: Program = CHAT,
    *,
    env: Mapping[str, str] | None = None,
    has_gpu: Callable[[], bool] | None = None,
) -> Settings:
    """The settings of `argv` (default: the process's own), then of the environment, then the defaults.

    Exits with one sentence on standard error for a value that makes no sense. `env` and `has_gpu` are for tests.
    """
    read = Reader(env)
    args = _parser(program, read).parse_args(argv)
    engine = read_engine(args, read, program.purpose, has_gpu)
    hosted = "SPACE_ID" in read.env
    name = args.server_name or read.text("OMNI_SERVER_NAME") or read.text("GRADIO_SERVER_NAME")
    port = args.server_port or read.text("OMNI_SERVER_PORT") or read.text("GRADIO_SERVER_PORT")
    return Settings(
        options=engine.options,
        backend=engine.backend,
        embedded=engine.embedded,
        share=first(args.share, read.flag("OMNI_SHARE"), default=False),
        inbrowser=first(args.inbrowser, read.flag("OMNI_INBROWSER"), default=False),
        server_name=name or ("0.0.0.0" if hosted else SERVER_NAME),
        server_port=read.port(port) if port else (SPACES_PORT if hosted else program.port),
        jobs_dir=_jobs_dir(args.jobs_dir, read, hosted) if program.keeps_jobs else None,
    )


def _jobs_dir(said: str | None, read: Reader, hosted: bool) -> Path:
    said = said or read.text("OMNI_JOBS_DIR")
    if said:
        return Path(said).expanduser().absolute()
    if hosted and SPACES_DATA.is_dir():
        return SPACES_DATA / JOBS
    return Path(read.text("XDG_DATA_HOME") or "~/.local/share").expanduser() / JOBS


def _parser(program: Program, read: Reader) -> Parser:
    variables = (
        *VARIABLES,
        *("OMNI_SERVER_PORT", "OMNI_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_SERVER_NAME"),
        *("OMNI_SHARE", "OMNI_INBROWSER"),
        *(["OMNI_JOBS_DIR"] if program.keeps_jobs else []),
    )
    parser = Parser(program.name, read.language, about=program.about, examples=program.examples, variables=variables)
    add_engine_arguments(parser, program.purpose)
    say = parser.say
    yes_no = argparse.BooleanOptionalAction
    server = parser.add_argument_group(say("cli.group_server"))
    server.add_argument("--server-port", metavar="PORT", help=say("cli.server_port", port=program.port))
    server.add_argument("--server-name", metavar="NAME", help=say("cli.server_name", name=SERVER_NAME))
    server.add_argument("--share", action=yes_no, default=None, help=say("cli.share"))
    server.add_argument("--inbrowser", action=yes_no, default=None, help=say("cli.inbrowser"))
    if program.keeps_jobs:
        server.add_argument("--jobs-dir", metavar="DIR", help=say("cli.jobs_dir"))
    return parser


__all__ = ["CAPTIONER", "CHAT", "Program", "Settings", "parse"]
