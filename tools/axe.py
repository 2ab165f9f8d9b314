"""Fetches axe-core, which looks for barriers on a web page, for the browser tests: python -m tools.axe

From npm's registry, without npm, into the virtual environment. Does nothing when it is there already.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sys
import tarfile
from pathlib import Path
from typing import Final
from urllib.request import urlopen

VERSION: Final = "4.14.1"
INTEGRITY: Final = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
"""The package's SHA-512 as the registry states it."""

URL: Final = f"https://registry.npmjs.org/axe-core/-/axe-core-{VERSION}.tgz"
SCRIPT: Final = Path(sys.prefix) / "share" / f"axe-core-{VERSION}" / "axe.min.js"
"""Where the script lies once it was fetched."""

WAIT_SECONDS: Final = 60.0


def fetch(url: str = URL, target: Path = SCRIPT) -> None:
    """Writes the script of the package at `url` to `target`, whole or not at all.

    Raises OSError when the registry cannot be reached and ValueError when it gives another package.
    """
    with urlopen(url, timeout=WAIT_SECONDS) as reply:
        package: bytes = reply.read()
    if base64.b64encode(hashlib.sha512(package).digest()).decode() != INTEGRITY:
        raise ValueError(f"{url} is not the package that tools/axe.py knows")
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None, "a package of that digest has the script"
        script = member.read()
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(f".{os.getpid()}")
    part.write_bytes(script)
    part.replace(target)


def main() -> int:
    """Makes sure that the script is there; the process's exit status."""
    if SCRIPT.exists():
        return 0
    try:
        fetch()
    except (OSError, ValueError) as problem:
        print(f"axe-core, which the browser tests need, could not be fetched: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
