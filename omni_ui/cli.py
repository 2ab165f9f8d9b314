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
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from omni_backend import BACKENDS, BackendOptions, Language, phrase

EMBEDDED_CHECKPOINT: Final = Path(__file__).resolve().parent.parent / "assets" / "tiny-qwen3-omni"
"""The tiny checkpoint that comes with the project: the default on machines without a GPU."""
GPU_CHECKPOINT: Final = "Qwen/Qwen3-Omni-30B-A3B-Instruct"
AUTO: Final = "auto"
SERVER_NAME: Final = "127.0.0.1"
SERVER_PORT: Final = 8901
SPACES_PORT: Final = 7860
"""The port that Hugging Face Spaces shows to the world."""

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

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one start of the app was asked for, everything decided."""

    options: BackendOptions
    backend: str = "transformers"
    """A name of `omni_backend.BACKENDS`."""
    embedded: bool = False
    """Whether the checkpoint is the tiny one that comes with the project."""
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
    gpu = cache(has_gpu or gpu_present)
    server_url = args.server_url or read.text("OMNI_SERVER_URL")
    backend = _backend(args, read, gpu, server_url)
    checkpoint = args.checkpoint_path or read.text("OMNI_CHECKPOINT_PATH")
    if checkpoint is None and backend != SERVER:
        checkpoint = GPU_CHECKPOINT if gpu() else str(EMBEDDED_CHECKPOINT)
    embedded = checkpoint is not None and Path(checkpoint).expanduser().resolve() == EMBEDDED_CHECKPOINT
    hosted = "SPACE_ID" in read.env
    name = args.server_name or read.text("OMNI_SERVER_NAME") or read.text("GRADIO_SERVER_NAME")
    port = args.server_port or read.text("OMNI_SERVER_PORT") or read.text("GRADIO_SERVER_PORT")
    return Settings(
        options=BackendOptions(
            checkpoint=checkpoint or "",
            generate_audio=_first(
                args.generate_audio, read.flag("OMNI_GENERATE_AUDIO"), default=embedded or backend == SERVER
            ),
            **_engine_options(args, read, backend),
        ),
        backend=backend,
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


def _backend(args: argparse.Namespace, read: _Reader, gpu: Callable[[], bool], server_url: str | None) -> str:
    """The engine asked for; `auto` takes the server whose address is given, or else the first that suits."""
    flag: str | None = args.backend
    named = flag or read.text("OMNI_BACKEND") or AUTO
    if named != AUTO and named not in BACKENDS:
        read.fail("cli.bad_backend", value=named, names=", ".join([AUTO, *BACKENDS]))
    # A flag beats the environment, so `--backend` also overrules OMNI_USE_TRANSFORMERS.
    if _first(args.use_transformers, None if flag else read.flag("OMNI_USE_TRANSFORMERS"), default=False):
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


def _engine_options(args: argparse.Namespace, read: _Reader, backend: str) -> dict[str, Any]:
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
        values["flash_attn2"] = _first(args.flash_attn2, read.flag("OMNI_FLASH_ATTN2"), default=False)
    elif args.flash_attn2:
        read.fail("cli.other_engine", name="--flash-attn2", engine=backend)
    if "engine_args" in known:
        values["engine_args"] = tuple(
            read.pair(line) for line in args.engine_arg or (read.text("OMNI_ENGINE_ARGS") or "").split()
        )
    elif args.engine_arg:
        read.fail("cli.other_engine", name="--engine-arg", engine=backend)
    return values


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

    def word(self, name: str, value: str) -> str:
        return value

    def count(self, name: str, value: str) -> int:
        if not (value.isdecimal() and int(value) > 0):
            self.fail("cli.bad_count", name=name, value=value)
        return int(value)

    def share(self, name: str, value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if not 0 < number <= 1:
            self.fail("cli.bad_share", name=name, value=value)
        return number

    def pair(self, value: str) -> tuple[str, str]:
        key, equals, said = value.partition("=")
        key = key.lstrip("-").replace("-", "_")
        if not (equals and key.isidentifier()):
            self.fail("cli.bad_pair", value=value)
        return key, said


ENGINE_OPTIONS: Final[dict[str, Callable[[_Reader, str, str], Any]]] = {
    "tensor_parallel_size": _Reader.count,
    "gpu_memory_utilization": _Reader.share,
    "max_model_len": _Reader.count,
    "max_num_seqs": _Reader.count,
    "quantization": _Reader.word,
    "server_url": _Reader.word,
    "api_key": _Reader.word,
    "model": _Reader.word,
}
"""How the values of these options are read: flags `--like-this`, variables `OMNI_LIKE_THIS`."""


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
    vllm = parser.add_argument_group("vLLM")
    for field, metavar in VLLM_FLAGS.items():
        vllm.add_argument("--" + field.replace("_", "-"), metavar=metavar, help=say(f"cli.{field}"))
    vllm.add_argument("--engine-arg", metavar="KEY=VALUE", action="append", help=say("cli.engine_arg"))
    remote = parser.add_argument_group(say("cli.group_remote"))
    for field, metavar in REMOTE_FLAGS.items():
        remote.add_argument("--" + field.replace("_", "-"), metavar=metavar, help=say(f"cli.{field}"))
    server = parser.add_argument_group(say("cli.group_server"))
    server.add_argument("--server-port", metavar="PORT", help=say("cli.server_port", port=SERVER_PORT))
    server.add_argument("--server-name", metavar="NAME", help=say("cli.server_name", name=SERVER_NAME))
    server.add_argument("--share", action=yes_no, default=None, help=say("cli.share"))
    server.add_argument("--inbrowser", action=yes_no, default=None, help=say("cli.inbrowser"))
    return parser


__all__ = ["EMBEDDED_CHECKPOINT", "GPU_CHECKPOINT", "Settings", "console_language", "gpu_present", "parse"]
