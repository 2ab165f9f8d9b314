"""What is said where packages are too old, and that the limits are those of the requirements files."""

from __future__ import annotations

from pathlib import Path

import pytest

from omni_backend import BackendUnavailable
from omni_backend.transformers_loader import check_version

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("version", ["5.19.0", "5.23.1", "6.0.0", "5.20.0.dev0"])
def test_supported_transformers(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["4.57.3", "5.14.1"])
def test_transformers_that_is_too_old_is_named(version: str) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        check_version(version)
    for language in ("en", "zh"):
        said = caught.value.text(language)
        assert version in said
        assert "5.19" in said
        assert "requirements.txt" in said


def test_the_limit_is_that_of_the_requirements() -> None:
    assert "transformers>=5.19," in (ROOT / "requirements.txt").read_text(encoding="utf-8")
