"""The command line and the environment → frozen `Settings`. The argparse Namespace dies here.

Knows nothing of gradio or torch, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NoReturn, TypeVar

from omni_backend import BACKENDS, Language, phrase

EMBEDDED_CHECKPOINT: Final = Path(__file__).resolve().parent.parent / "assets" / "tiny-qwen3-omni"
"""The tiny checkpoint that comes with the project: the default on machines without a GPU."""
GPU_CHECKPOINT: Final = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
AUTO: Final = "auto"
SERVER_NAME: Final = "127.0.0.1"
SERVER_PORT: Final = 8901
SPACES_PORT: Final = 7860
"""The port that Hugging Face Spaces shows to the world."""

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one start of the app was asked for, everything decided."""

    checkpoint: str
    backend: str = next(iter(BACKENDS))
    """A name of `omni_backend.BACKENDS`."""
    generate_audio: bool = False
    flash_attn2: bool = False
    embedded: bool = False
    """Whether `checkpoint` is the tiny one that comes with the project."""
    share: bool = False
    inbrowser: bool = False
    server_name: str = SERVER_NAME
    server_port: int = SERVER_PORT


def parse(
    argv: Sequence[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    has_gpu: Callable[[], bool] | None = None,
) -> Settings:
    """The settings of `argv` (default: the process's own), then of the environment, then the defaults.

    Exits with one sentence on standard error for a value that makes no sense. `env` and `has_gpu` are for tests.
    """
    read = _Reader(os.environ if env is None else env)
    args = _parser(read.language).parse_args(argv)
    checkpoint = args.checkpoint_path or read.text("OMNI_CHECKPOINT_PATH")
    if checkpoint is None:
        checkpoint = GPU_CHECKPOINT if (has_gpu or gpu_present)() else str(EMBEDDED_CHECKPOINT)
    embedded = Path(checkpoint).expanduser().resolve() == EMBEDDED_CHECKPOINT
    hosted = "SPACE_ID" in read.env
    name = args.server_name or read.text("OMNI_SERVER_NAME") or read.text("GRADIO_SERVER_NAME")
    port = args.server_port or read.text("OMNI_SERVER_PORT") or read.text("GRADIO_SERVER_PORT")
    return Settings(
        checkpoint=checkpoint,
        backend=_backend(args.backend, args.use_transformers, read),
        generate_audio=_first(args.generate_audio, read.flag("OMNI_GENERATE_AUDIO"), default=embedded),
        flash_attn2=_first(args.flash_attn2, read.flag("OMNI_FLASH_ATTN2"), default=False),
        embedded=embedded,
        share=_first(args.share, read.flag("OMNI_SHARE"), default=False),
        inbrowser=_first(args.inbrowser, read.flag("OMNI_INBROWSER"), default=False),
        server_name=name or ("0.0.0.0" if hosted else SERVER_NAME),
        server_port=read.port(port) if port else (SPACES_PORT if hosted else SERVER_PORT),
    )


def gpu_present() -> bool:
    """Whether an NVIDIA or AMD GPU can be used, found out without importing torch."""
    return _nvidia_gpus() > 0 or Path("/dev/kfd").exists()


def console_language(env: Mapping[str, str]) -> Language:
    """The language of the terminal, from the usual locale variables."""
    locale = env.get("LC_ALL") or env.get("LC_MESSAGES") or env.get("LANG") or ""
    return "zh" if locale.lower().startswith("zh") else "en"


def _nvidia_gpus() -> int:
    """How many GPUs the NVIDIA driver offers (it heeds CUDA_VISIBLE_DEVICES); 0 without a driver."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def _backend(flag: str | None, use_transformers: bool | None, read: _Reader) -> str:
    """The engine asked for; `auto` takes the first of the registry that is installed."""
    named = flag or read.text("OMNI_BACKEND") or AUTO
    if named != AUTO and named not in BACKENDS:
        read.fail("cli.bad_backend", value=named, names=", ".join([AUTO, *BACKENDS]))
    # A flag beats the environment, so `--backend` also overrules OMNI_USE_TRANSFORMERS.
    if _first(use_transformers, None if flag else read.flag("OMNI_USE_TRANSFORMERS"), default=False):
        if named not in (AUTO, "transformers"):
            read.fail("cli.two_backends", name=named)
        return "transformers"
    if named != AUTO:
        return named
    installed = (name for name, spec in BACKENDS.items() if all(find_spec(module) for module in spec.requires))
    return next(installed, next(iter(BACKENDS)))


def _first(*values: T | None, default: T) -> T:
    """The first value that is not None."""
    return next((value for value in values if value is not None), default)


class _Reader:
    """Reads the environment; an empty variable counts as not set."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.language = console_language(env)

    def fail(self, key: str, **values: str | int) -> NoReturn:
        """Ends the program with one sentence."""
        _exit(phrase(key, **values).text(self.language))

    def text(self, name: str) -> str | None:
        return self.env.get(name, "").strip() or None

    def flag(self, name: str) -> bool | None:
        value = self.text(name)
        if value is None:
            return None
        if value.lower() not in _TRUE | _FALSE:
            self.fail("cli.bad_flag", name=name, value=value)
        return value.lower() in _TRUE

    def port(self, value: str) -> int:
        if not (value.isdecimal() and 1 <= int(value) <= 65535):
            self.fail("cli.bad_port", value=value)
        return int(value)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of printing the whole usage first."""

    def error(self, message: str) -> NoReturn:
        _exit(f"{message}. {self.prog} --help")


def _exit(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(2)


def _parser(language: Language) -> _Parser:
    def say(key: str, **values: str | int) -> str:
        return phrase(key, **values).text(language)

    parser = _Parser(
        prog="app.py",
        description=say("cli.about"),
        epilog=say("cli.examples"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    yes_no = argparse.BooleanOptionalAction
    model = parser.add_argument_group(say("cli.group_model"))
    model.add_argument("-c", "--checkpoint-path", metavar="PATH", help=say("cli.checkpoint", gpu=GPU_CHECKPOINT))
    model.add_argument("--generate-audio", action=yes_no, default=None, help=say("cli.generate_audio"))
    engine = parser.add_argument_group(say("cli.group_engine"))
    names = "\n".join(f"{name}: {spec.summary}" for name, spec in BACKENDS.items())
    engine.add_argument("--backend", metavar="NAME", help=say("cli.backend", names=names).replace("%", "%%"))
    engine.add_argument("--use-transformers", action="store_true", default=None, help=say("cli.use_transformers"))
    engine.add_argument("--flash-attn2", action=yes_no, default=None, help=say("cli.flash_attn2"))
    server = parser.add_argument_group(say("cli.group_server"))
    server.add_argument("--server-port", metavar="PORT", help=say("cli.server_port", port=SERVER_PORT))
    server.add_argument("--server-name", metavar="NAME", help=say("cli.server_name", name=SERVER_NAME))
    server.add_argument("--share", action=yes_no, default=None, help=say("cli.share"))
    server.add_argument("--inbrowser", action=yes_no, default=None, help=say("cli.inbrowser"))
    return parser


__all__ = ["EMBEDDED_CHECKPOINT", "GPU_CHECKPOINT", "Settings", "console_language", "gpu_present", "parse"]
