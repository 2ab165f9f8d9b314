"""A virtual environment with what a requirements file names and what that needs, and nothing else.

Made in seconds and without network: of links to the files of the environment that runs the tests.
"""

from __future__ import annotations

import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def make_environment(folder: Path, requirements: Path) -> Path:
    """Makes the environment in `folder`; its Python program.

    Raises PackageNotFoundError or AssertionError when the running environment does not have what is required.
    """
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    [packages] = (folder / "lib").glob("python*/site-packages")
    for package in closure(required(requirements)).values():
        _link(package, packages)
    return folder / "bin" / "python"


def required(file: Path) -> list[Requirement]:
    """The lines of a requirements file; it may hold requirements and comments only."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def closure(wanted: list[Requirement]) -> dict[str, Distribution]:
    """The installed packages that `wanted` names, and those that these need, by name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in wanted]
    while waiting:
        requirement, of_extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        name = canonicalize_name(requirement.name)
        package = found.setdefault(name, distribution(name))
        assert requirement.specifier.contains(package.version, prereleases=True), f"{requirement}: {package.version}"
        for extra in {"", *requirement.extras} - {extra for other, extra in seen if other == name}:
            seen.add((name, extra))
            waiting += [(Requirement(line), extra) for line in package.requires or ()]
    return found


def _link(package: Distribution, target: Path) -> None:
    for name, file in _files(package):
        link = target / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():  # a few packages share a file
            link.symlink_to(file)


def _files(package: Distribution) -> Iterator[tuple[Path, Path]]:
    """The package's files: each one's path in the environment and where it lies. Programs are left out."""
    assert package.files is not None, f"{package.name} does not say what its files are"
    for file in package.files:
        if ".." not in file.parts and (place := Path(str(file.locate()))).exists():
            yield Path(*file.parts), place
