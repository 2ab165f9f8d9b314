"""The project's own Python files as syntax trees, for the tests that hold its structure."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent


@cache
def tree(file: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def package_files(name: str) -> list[Path]:
    """Every Python file of a package of this repository."""
    files = sorted((ROOT / name).rglob("*.py"))
    assert files, f"no such package: {name}"
    return files


def app_files() -> list[Path]:
    """The programs: app.py and its like."""
    files = sorted(ROOT.glob("app*.py"))
    assert files
    return files


def module_name(file: Path) -> str:
    """Its dotted name as seen from the repository's root."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> set[str]:
    """The dotted names of all modules that a file imports, anywhere in it, and of names imported from them."""
    found: set[str] = set()
    package = module_name(file).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found
