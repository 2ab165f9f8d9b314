"""The chat page. `python app.py --help` lists the options."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omni_backend import Backend, create_backend
from omni_ui.cli import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, makes the engine, serves the page until it is told to end; the exit status."""
    settings = parse(argv)

    def make_backend(upload_roots: tuple[Path, ...]) -> Backend:
        return create_backend(settings.backend, replace(settings.options, upload_roots=upload_roots))

    from omni_ui.server import serve  # gradio takes seconds to import: a wrong option is told before

    return serve(make_backend, settings)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # all is closed; taking torch apart would only cost a second or more
