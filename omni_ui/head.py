"""What a page brings along besides its components: scripts, style sheets, an icon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from omni_ui.language import texts_for_scripts

_ICON: Final = (
    "<link rel=\"icon\" href=\"data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E"
    "%3Ccircle cx='16' cy='16' r='11' fill='none' stroke='%234f46e5' stroke-width='6'/%3E%3C/svg%3E\">"
)
"""A ring. Without one browsers ask the root of the site, which may be another's."""
_STATIC: Final = Path(__file__).parent / "static"


def head(scripts: tuple[str, ...], **constants: object) -> str:
    """For `launch(head=...)`: files of `static/` that run in this order, in one scope.

    They read `constants` by their names, and `TEXTS`: language → key → sentence.
    """
    values = {"TEXTS": texts_for_scripts()} | constants
    lines = "".join(f"const {name} = {_for_script(value)};\n" for name, value in values.items())
    return f"{_ICON}<script>{{\n{lines}{''.join(map(static, scripts))}}}</script>"


def styles(names: tuple[str, ...]) -> list[Path]:
    """For `launch(css_paths=...)`: files of `static/`."""
    return [_STATIC / name for name in names]


def static(name: str) -> str:
    """What stands in a file of `static/`."""
    return (_STATIC / name).read_text(encoding="utf-8")


def _for_script(value: object) -> str:
    """JSON that cannot end the script element that it stands in."""
    return json.dumps(value).replace("</", "<\\/")
