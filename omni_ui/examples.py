"""Example messages that the embedded checkpoint answers rightly, one click away from the composer."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from omni_backend import Language
from omni_backend.command_line import EMBEDDED_CHECKPOINT

EXAMPLES_FILE = EMBEDDED_CHECKPOINT.parent / "examples" / "examples.json"


@dataclass(frozen=True, slots=True)
class Example:
    """One message: its words in each language and its files."""

    text: dict[Language, str]
    files: tuple[Path, ...]

    @property
    def titles(self) -> dict[Language, str]:
        """What its button says: the words and the names of the files."""
        names = "".join(f" · {file.name}" for file in self.files)
        return {language: text + names for language, text in self.text.items()}


def load_examples(file: Path = EXAMPLES_FILE) -> tuple[Example, ...]:
    """The examples of `file`; its paths are relative to its folder. None when there is no such file."""
    if not file.exists():
        return ()
    entries = json.loads(file.read_text(encoding="utf-8"))
    return tuple(
        Example(entry["text"], tuple((file.parent / path).resolve() for path in entry["files"])) for entry in entries
    )


def hand_over(example: Example, folder: Path) -> list[str]:
    """Puts the example's files into `folder`, from which the server may hand them out; their paths there."""
    paths = []
    for file in example.files:
        target = folder / file.name
        if target.exists():
            os.utime(target)  # else it would be swept away as old
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        paths.append(str(target))
    return paths
