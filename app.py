"""The chat page. `python app.py --help` lists the options."""

from __future__ import annotations

from collections.abc import Sequence

from omni_backend.command_line import leave
from omni_ui.cli import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, makes the engine, serves the page until it is told to end; the exit status."""
    settings = parse(argv)
    from omni_ui.server import serve  # gradio takes seconds to import: a wrong option is told before

    return serve(settings.make_backend, settings)


if __name__ == "__main__":
    leave(main())
