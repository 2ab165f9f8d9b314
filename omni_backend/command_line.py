"""What the command lines of all programs share: which engine and which checkpoint, from options and environment.

Knows nothing of torch or gradio, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import multiprocessing
import os
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from omni_backend.base import Backend
from omni_backend.catalogue import Language, phrase
from omni_backend.registry import BACKENDS, BackendOptions, create_backend

EMBEDDED_CHECKPOINT: Final = Path(__file__).resolve().parent.parent / "assets" / "tiny-qwen3-omni"
"""The tiny checkpoint that comes with the project: the default on machines without a GPU."""
AUTO: Final = "auto"
TRANSFORMERS: Final = "transformers"
SERVER: Final = "server"
VLLM_FLAGS: Final = {
    "tensor_parallel_size": "N",
    "gpu_memory_utilization": "SHARE",
    "max_model_len": "TOKENS",
    "max_num_seqs": "N",
    "quantization": "METHOD",
}
REMOTE_FLAGS: Final = {"server_url": "URL", "api_key": "KEY", "model": "NAME"}
VARIABLES: Final = (
    *("OMNI_CHECKPOINT_PATH", "OMNI_GENERATE_AUDIO", "OMNI_BACKEND", "OMNI_USE_TRANSFORMERS", "OMNI_FLASH_ATTN2"),
    *("OMNI_" + field.upper() for field in VLLM_FLAGS),
    "OMNI_ENGINE_ARGS",
    *("OMNI_" + field.upper() for field in REMOTE_FLAGS),
)
"""What the environment may say of the engine."""

CLOSE_SECONDS: Final = 1.0

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_HELP_COLUMNS: Final = 108

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a program wants of its engine."""

    gpu_checkpoint: str
    """The default on machines with a GPU."""
    speaks: bool
    """Whether answers may be spoken."""
    single_turn: bool
    """Whether each request stands alone, so that no media are kept for a next one."""


CONVERSATION: Final = Purpose("Qwen/Qwen3-Omni-30B-A3B-Instruct", speaks=True, single_turn=False)
CAPTIONS: Final = Purpose("Qwen/Qwen3-Omni-30B-A3B-Captioner", speaks=False, single_turn=True)


@dataclass(frozen=True, slots=True)
class Engine:
    """Which engine was asked for, everything decided."""

    options: BackendOptions
    backend: str = TRANSFORMERS
    """A name of `omni_backend.BACKENDS`."""
    embedded: bool = False
    """Whether the checkpoint is the tiny one that comes with the project."""

    def make_backend(self, upload_roots: tuple[Path, ...] = ()) -> Backend:
        """The engine, not yet started; it reads files in `upload_roots` only. Raises BackendUnavailable."""
        return create_backend(self.backend, replace(self.options, upload_roots=upload_roots))


class Reader:
    """Reads values and the environment; an empty variable counts as not set. Nonsense ends the program."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self.env = os.environ if env is None else env
        self.language = console_language(self.env)

    def fail(self, key: str, **values: str | int | float) -> NoReturn:
        """Ends the program with one sentence."""
        _exit(phrase(key, **values).text(self.language))

    def text(self, name: str) -> str | None:
        """The variable `name`."""
        return self.env.get(name, "").strip() or None

    def flag(self, name: str) -> bool | None:
        """The variable `name`, which says yes or no."""
        value = self.text(name)
        if value is None:
            return None
        if value.lower() not in _TRUE | _FALSE:
            self.fail("cli.bad_flag", name=name, value=value)
        return value.lower() in _TRUE

    def port(self, value: str) -> int:
        """A port's number."""
        if not (value.isdecimal() and 1 <= int(value) <= 65535):
            self.fail("cli.bad_port", value=value)
        return int(value)

    def word(self, name: str, value: str) -> str:
        """Any text."""
        return value

    def count(self, name: str, value: str) -> int:
        """A whole number above 0."""
        if not (value.isdecimal() and int(value) > 0):
            self.fail("cli.bad_count", name=name, value=value)
        return int(value)

    def share(self, name: str, value: str) -> float:
        """A number above 0 and up to 1."""
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number <= 1:
            self.fail("cli.bad_share", name=name, value=value)
        return number

    def number(self, name: str, value: str, low: float, high: float) -> float:
        """A number from `low` to `high`."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            self.fail("cli.bad_number", name=name, value=value, low=f"{low:g}", high=f"{high:g}")
        return number

    def whole(self, name: str, value: str, low: float, high: float) -> int:
        """A whole number from `low` to `high`."""
        if not (value.isdecimal() and low <= int(value) <= high):
            self.fail("cli.bad_whole", name=name, value=value, low=f"{low:.0f}", high=f"{high:.0f}")
        return int(value)

    def pair(self, value: str) -> tuple[str, str]:
        """A name of the engine's and its value."""
        key, equals, said = value.partition("=")
        key = key.lstrip("-").replace("-", "_")
        if not (equals and key.isidentifier()):
            self.fail("cli.bad_pair", value=value)
        return key, said


ENGINE_OPTIONS: Final[dict[str, Callable[[Reader, str, str], Any]]] = {
    "tensor_parallel_size": Reader.count,
    "gpu_memory_utilization": Reader.share,
    "max_model_len": Reader.count,
    "max_num_seqs": Reader.count,
    "quantization": Reader.word,
    "server_url": Reader.word,
    "api_key": Reader.word,
    "model": Reader.word,
}
"""How the values of these options are read: flags `--like-this`, variables `OMNI_LIKE_THIS`."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of printing the whole usage first."""

    def __init__(self, prog: str, language: Language, *, about: str, examples: str, variables: tuple[str, ...]) -> None:
        """`about` and `examples`: keys of the catalogue. `variables`: what may also come from the environment."""
        self.language = language
        names = textwrap.fill(", ".join(variables), _HELP_COLUMNS, initial_indent="  ", subsequent_indent="  ")
        super().__init__(
            prog=prog,
            description=phrase(about).text(language),
            epilog=f"{phrase(examples).text(language)}\n\n{phrase('cli.environment', names=names).text(language)}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def say(self, key: str, **values: str | int | float) -> str:
        """The sentence `key` in the terminal's language, ready for `help`."""
        return phrase(key, **values).text(self.language).replace("%", "%%")

    def error(self, message: str) -> NoReturn:
        """Ends the program with argparse's own complaint."""
        _exit(f"{message}. {self.prog} --help")


def add_engine_arguments(parser: Parser, purpose: Purpose) -> None:
    """The options that `read_engine` reads."""
    say = parser.say
    yes_no = argparse.BooleanOptionalAction
    model = parser.add_argument_group(say("cli.group_model"))
    checkpoint = say("cli.checkpoint", gpu=purpose.gpu_checkpoint)
    model.add_argument("-c", "--checkpoint-path", metavar="PATH", help=checkpoint)
    speech = say("cli.generate_audio") if purpose.speaks else say("cli.generate_no_audio")
    model.add_argument("--generate-audio", action=yes_no, default=None, help=speech)
    engine = parser.add_argument_group(say("cli.group_engine"))
    names = "\n".join(f"{name}: {spec.summary}" for name, spec in BACKENDS.items())
    engine.add_argument("--backend", metavar="NAME", help=say("cli.backend", names=names))
    engine.add_argument("--use-transformers", action="store_true", default=None, help=say("cli.use_transformers"))
    engine.add_argument("--flash-attn2", action=yes_no, default=None, help=say("cli.flash_attn2"))
    vllm = parser.add_argument_group("vLLM")
    for field, metavar in VLLM_FLAGS.items():
        vllm.add_argument("--" + field.replace("_", "-"), metavar=metavar, help=say(f"cli.{field}"))
    vllm.add_argument("--engine-arg", metavar="KEY=VALUE", action="append", help=say("cli.engine_arg"))
    remote = parser.add_argument_group(say("cli.group_remote"))
    for field, metavar in REMOTE_FLAGS.items():
        remote.add_argument("--" + field.replace("_", "-"), metavar=metavar, help=say(f"cli.{field}"))


def read_engine(
    args: argparse.Namespace, read: Reader, purpose: Purpose, has_gpu: Callable[[], bool] | None = None
) -> Engine:
    """The engine of the options, then of the environment, then of the machine. `has_gpu` is for tests."""
    gpu = cache(has_gpu or gpu_present)
    server_url = args.server_url or read.text("OMNI_SERVER_URL")
    backend = _backend(args, read, gpu, server_url)
    checkpoint = args.checkpoint_path or read.text("OMNI_CHECKPOINT_PATH")
    if checkpoint is None and backend != SERVER:
        checkpoint = purpose.gpu_checkpoint if gpu() else str(EMBEDDED_CHECKPOINT)
    embedded = checkpoint is not None and Path(checkpoint).expanduser().resolve() == EMBEDDED_CHECKPOINT
    speech = first(args.generate_audio, read.flag("OMNI_GENERATE_AUDIO"), default=embedded or backend == SERVER)
    options = BackendOptions(
        checkpoint=checkpoint or "",
        generate_audio=speech and purpose.speaks,
        single_turn=purpose.single_turn,
        **_engine_options(args, read, backend),
    )
    return Engine(options, backend, embedded)


def gpu_present() -> bool:
    """Whether an NVIDIA or AMD GPU can be used, found out without importing torch."""
    return _nvidia_gpus() > 0 or Path("/dev/kfd").exists()


def console_language(env: Mapping[str, str]) -> Language:
    """The language of the terminal, from the usual locale variables."""
    locale = env.get("LC_ALL") or env.get("LC_MESSAGES") or env.get("LANG") or ""
    return "zh" if locale.lower().startswith("zh") else "en"


def first(*values: T | None, default: T) -> T:
    """The first value that is not None."""
    return next((value for value in values if value is not None), default)


def close_engine(backend: Backend) -> None:
    """Frees the engine, but waits no longer than a second: one that is still loading cannot be interrupted."""
    closing = threading.Thread(target=backend.close, name="omni-close", daemon=True)
    closing.start()
    closing.join(CLOSE_SECONDS)
    for process in multiprocessing.active_children():
        process.kill()  # of an engine that was still loading; it would live on by itself


def leave(status: int) -> NoReturn:
    """Ends the process at once, when all is closed: taking torch apart would only cost a second or more."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


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


def _backend(args: argparse.Namespace, read: Reader, gpu: Callable[[], bool], server_url: str | None) -> str:
    """The engine asked for; `auto` takes the server whose address is given, or else the first that suits."""
    flag: str | None = args.backend
    named = flag or read.text("OMNI_BACKEND") or AUTO
    if named != AUTO and named not in BACKENDS:
        read.fail("cli.bad_backend", value=named, names=", ".join([AUTO, *BACKENDS]))
    # A flag beats the environment, so `--backend` also overrules OMNI_USE_TRANSFORMERS.
    if first(args.use_transformers, None if flag else read.flag("OMNI_USE_TRANSFORMERS"), default=False):
        if named not in (AUTO, TRANSFORMERS):
            read.fail("cli.two_backends", name=named)
        return TRANSFORMERS
    if named == AUTO:
        named = SERVER if server_url else _suitable(gpu)
    if named == SERVER and not server_url:
        read.fail("cli.no_server_url")
    return named


def _suitable(gpu: Callable[[], bool]) -> str:
    """The first engine of the registry that is installed and may be taken on this machine without being named."""
    for name, spec in BACKENDS.items():
        installed = all(find_spec(module) for module in spec.requires)
        if installed and (spec.chosen == "always" or (spec.chosen == "with a GPU" and gpu())):
            return name
    return TRANSFORMERS


def _engine_options(args: argparse.Namespace, read: Reader, backend: str) -> dict[str, Any]:
    """Those fields of BackendOptions that only some engines read. A flag that `backend` does not read is refused."""
    known = BACKENDS[backend].options
    values: dict[str, Any] = {}
    for field, kind in ENGINE_OPTIONS.items():
        name = "--" + field.replace("_", "-")
        said = getattr(args, field)
        if said is not None and field not in known:
            read.fail("cli.other_engine", name=name, engine=backend)
        if said is None and field in known:
            name = "OMNI_" + field.upper()
            said = read.text(name)
        if said is not None:
            values[field] = kind(read, name, said)
    if "flash_attn2" in known:
        values["flash_attn2"] = first(args.flash_attn2, read.flag("OMNI_FLASH_ATTN2"), default=False)
    elif args.flash_attn2:
        read.fail("cli.other_engine", name="--flash-attn2", engine=backend)
    if "engine_args" in known:
        values["engine_args"] = tuple(
            read.pair(line) for line in args.engine_arg or (read.text("OMNI_ENGINE_ARGS") or "").split()
        )
    elif args.engine_arg:
        read.fail("cli.other_engine", name="--engine-arg", engine=backend)
    return values


def _exit(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(2)
