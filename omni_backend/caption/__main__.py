"""Captions without a browser. `python -m omni_backend.caption --help` lists the options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from omni_backend.caption import limits
from omni_backend.caption.console import SAMPLING, SETTINGS, Plan, option, run
from omni_backend.caption.exports import FORMATS, Format
from omni_backend.caption.store import holds_job
from omni_backend.caption.values import CaptionSettings
from omni_backend.catalogue import LANGUAGES, Language
from omni_backend.command_line import (
    CAPTIONS,
    VARIABLES,
    Parser,
    Reader,
    add_engine_arguments,
    leave,
    read_engine,
)
from omni_backend.defaults import SAMPLING_BOUNDS, WHOLE_SAMPLING

OUT: Final = "captions"
FORMAT: Final[Format] = "txt"
BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "window_seconds": (limits.LEAST_WINDOW_SECONDS, limits.WINDOW_SECONDS),
    "overlap_seconds": (0.0, limits.MOST_OVERLAP_SECONDS),
    "samples": (1, limits.MOST_SAMPLES),
    **{name: SAMPLING_BOUNDS[name] for name in SAMPLING},
}
METAVARS: Final = {
    "language": "NAME",
    "window_seconds": "SECONDS",
    "overlap_seconds": "SECONDS",
    "instruction": "TEXT",
}
WHOLE: Final[set[str]] = {"samples", *WHOLE_SAMPLING}


def parse(
    argv: Sequence[str] | None = None,
    *,
    env: Mapping[str, str] | None = None,
    has_gpu: Callable[[], bool] | None = None,
) -> Plan:
    """What `argv` (default: the process's own) asks for; the engine also from the environment.

    Exits with one sentence on standard error for what makes no sense. `env` and `has_gpu` are for tests.
    """
    read = Reader(env)
    args = _parser(read.language).parse_args(argv)
    plan = Plan(
        engine=read_engine(args, read, CAPTIONS, has_gpu),
        language=read.language,
        paths=tuple(args.paths),
        out=Path(args.out).expanduser().absolute(),
        formats=_formats(args.format, read),
        settings=_given(args, read, SETTINGS),
        sampling=_given(args, read, SAMPLING),
    )
    there = holds_job(plan.folder)
    if there and not args.resume:
        read.fail("caption_cli.there_is_job", out=args.out)
    if not there and not plan.paths:
        read.fail("caption_cli.no_paths")
    return plan


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, makes the engine, captions until all is done or it is told to end; the exit status."""
    return run(parse(argv))


def _parser(language: Language) -> Parser:
    parser = Parser(
        "python -m omni_backend.caption",
        language,
        about="caption_cli.about",
        examples="caption_cli.examples",
        variables=VARIABLES,
    )
    say = parser.say
    parser.add_argument("paths", metavar="PATH", nargs="*", help=say("caption_cli.paths"))
    parser.add_argument("--out", metavar="DIR", default=OUT, help=say("caption_cli.out", default=OUT))
    formats = say("caption_cli.format", names=", ".join(FORMATS), default=FORMAT)
    parser.add_argument("--format", metavar="NAMES", default=FORMAT, help=formats)
    parser.add_argument("--resume", action="store_true", help=say("caption_cli.resume"))
    captions = parser.add_argument_group(say("caption_cli.group_captions"))
    own = CaptionSettings()
    for field in SETTINGS:
        (low, high), default = BOUNDS.get(field, (0, 0)), getattr(own, field)
        shown = f"{default:g}" if isinstance(default, float) else default
        text = say(f"caption_cli.{field}", low=f"{low:g}", high=f"{high:g}", default=shown)
        captions.add_argument(option(field), dest=field, metavar=METAVARS.get(field, "NUMBER"), help=text)
    for name in SAMPLING:
        low, high = BOUNDS[name]
        text = say("caption_cli.sampling", low=f"{low:.10g}", high=f"{high:.10g}")
        captions.add_argument(option(name), metavar="NUMBER", help=text)
    add_engine_arguments(parser, CAPTIONS)
    return parser


def _formats(said: str, read: Reader) -> tuple[Format, ...]:
    names = [name.strip().lower() for name in said.split(",")]
    for name in names:
        if name not in FORMATS:
            read.fail("caption_cli.bad_format", value=name, names=", ".join(FORMATS))
    return cast(tuple[Format, ...], tuple(dict.fromkeys(names)))


def _given(args: argparse.Namespace, read: Reader, names: Iterable[str]) -> dict[str, Any]:
    """The values of those options that were given, by their fields."""
    if args.language not in (None, *LANGUAGES):
        read.fail("caption_cli.bad_language", value=args.language, names=", ".join(LANGUAGES))
    values: dict[str, Any] = {}
    for field in names:
        said = getattr(args, field)
        if said is not None and field in BOUNDS:
            said = (read.whole if field in WHOLE else read.number)(option(field), said, *BOUNDS[field])
        if said is not None:
            values[field] = said
    return values


if __name__ == "__main__":
    leave(main())
