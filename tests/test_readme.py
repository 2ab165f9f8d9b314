"""What the README promises: its snippets run as written, its options and files exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni_backend import BACKENDS, Backend
from omni_ui import cli
from tests.serving import serving

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
GUIDE = (
    "-c Qwen/Qwen3-Omni-30B-A3B-Instruct",
    "-c Qwen/Qwen3-Omni-30B-A3B-Instruct --use-transformers --generate-audio",
    "-c Qwen/Qwen3-Omni-30B-A3B-Instruct --use-transformers --generate-audio --flash-attn2",
    "-c Qwen/Qwen3-Omni-30B-A3B-Thinking",
    "-c Qwen/Qwen3-Omni-30B-A3B-Thinking --use-transformers",
    "-c Qwen/Qwen3-Omni-30B-A3B-Thinking --use-transformers --flash-attn2",
)


def blocks(language: str) -> list[str]:
    """The README's code blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(snippet: str) -> str:
    """What a snippet prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet, "README.md", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


@pytest.fixture
def in_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def address(engine: Backend) -> Iterator[str]:
    with serving(engine) as app:
        yield app.url


@pytest.mark.engine
@pytest.mark.usefixtures("in_root")
def test_client_snippet_streams_text_and_brings_the_sound(address: str) -> None:
    [snippet] = [block for block in blocks("python") if "gradio_client" in block]
    lines = run(snippet.replace("http://127.0.0.1:8901", address)).splitlines()

    assert lines[-2] == "I see a blue shape on a white background. I hear a high tone."
    assert lines[0] != lines[-2], "the text did not grow"
    assert Path(lines[-1]).stat().st_size > 24_000


@pytest.mark.engine
@pytest.mark.usefixtures("in_root")
def test_backend_snippet_prints_the_answer() -> None:
    [snippet] = [block for block in blocks("python") if "create_backend" in block]

    assert run(snippet) == "A yellow shape on a black background."


@pytest.mark.parametrize("line", GUIDE)
def test_command_lines_of_the_guide(line: str) -> None:
    settings = cli.parse(shlex.split(line), env={}, has_gpu=lambda: True)

    assert settings.options.checkpoint == line.split()[1]
    assert settings.options.generate_audio == ("--generate-audio" in line)
    assert settings.options.flash_attn2 == ("--flash-attn2" in line)
    assert settings.backend in BACKENDS


def test_command_lines_of_the_readme() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("python app.py")]

    assert len(lines) == 8
    for line in lines:
        options = cli.parse(shlex.split(line)[2:], env={}, has_gpu=lambda: True).options
        assert options.server_url or options.checkpoint.startswith("Qwen/")


def pinned(name: str) -> Iterator[tuple[str, str]]:
    """The packages of a requirements file, each with its range."""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            package = re.match(r"[\w-]+", line)
            assert package, line
            yield package[0], line[package.end() :]


def test_the_two_ways_to_install_agree() -> None:
    """requirements.txt must stand alone for Spaces, so the other file repeats what both need."""
    pins = [dict(pinned(name)) for name in ("requirements.txt", "requirements-vllm.txt")]
    shared = pins[0].keys() & pins[1].keys()
    assert len(shared) > 6
    for name in shared - {"transformers"}:
        assert pins[0][name] == pins[1][name]


def test_files_that_are_linked_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]

    assert links
    assert all((ROOT / link).exists() for link in links)
