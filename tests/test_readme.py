"""What the README promises: its snippets run as written, its options and files exist."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from omni_backend import BACKENDS, Backend
from omni_backend.caption import __main__ as caption
from omni_ui import cli
from tests.serving import captioning, serving

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
CAPTIONER_GUIDE = (
    "-c Qwen/Qwen3-Omni-30B-A3B-Captioner",
    "-c Qwen/Qwen3-Omni-30B-A3B-Captioner --use-transformers",
    "-c Qwen/Qwen3-Omni-30B-A3B-Captioner --use-transformers --flash-attn2",
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
    [snippet] = [block for block in blocks("python") if "gradio_client" in block and "8901" in block]
    lines = run(snippet.replace("http://127.0.0.1:8901", address)).splitlines()

    assert lines[-2] == "I see a blue square on a white background. I hear a high tone."
    assert lines[0] != lines[-2], "the text did not grow"
    assert Path(lines[-1]).stat().st_size > 24_000


@pytest.mark.engine
@pytest.mark.usefixtures("in_root")
def test_caption_snippet_prints_captions(engine: Backend, tmp_path: Path) -> None:
    [snippet] = [block for block in blocks("python") if "8902" in block]
    with captioning(engine, tmp_path) as app:
        lines = run(snippet.replace("http://127.0.0.1:8902", app.url)).splitlines()

    listed = json.loads((ROOT / "assets" / "examples" / "captions.json").read_text(encoding="utf-8"))
    [captions] = [entry["answer"]["en"] for entry in listed if entry["files"] == ["sounds.mp3"]]
    said = [line.split(" ", 2) for line in lines[-1 - len(captions) : -1]]
    assert [caption for _, _, caption in said] == captions
    assert [float(end) for _, end, _ in said[:-1]] == [float(start) for start, _, _ in said[1:]]
    assert sum(line != "" and captions[0].startswith(line) for line in lines) > 2, "the text did not grow"
    done, exports = lines[-1].split(" ", 1)
    assert done == "2"
    with zipfile.ZipFile(exports) as archive:
        assert sorted(archive.namelist()) == ["captions.csv", "film.srt", "tone.srt"]


@pytest.mark.engine
@pytest.mark.usefixtures("in_root")
def test_backend_snippet_prints_the_answer() -> None:
    [snippet] = [block for block in blocks("python") if "create_backend" in block]

    assert run(snippet) == "A yellow star on a black background."


@pytest.mark.parametrize("line", GUIDE)
def test_command_lines_of_the_guide(line: str) -> None:
    settings = cli.parse(shlex.split(line), env={}, has_gpu=lambda: True)

    assert settings.options.checkpoint == line.split()[1]
    assert settings.options.generate_audio == ("--generate-audio" in line)
    assert settings.options.flash_attn2 == ("--flash-attn2" in line)
    assert settings.backend in BACKENDS


@pytest.mark.parametrize("line", CAPTIONER_GUIDE)
def test_command_lines_of_the_captioner(line: str) -> None:
    assert f"python app_captioner.py {line}" in README
    settings = cli.parse(shlex.split(line), cli.CAPTIONER, env={}, has_gpu=lambda: True)

    assert settings.options.checkpoint == line.split()[1]
    assert settings.options.flash_attn2 == ("--flash-attn2" in line)
    assert settings.options.single_turn


def test_command_lines_of_the_readme() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("python ")]
    programs = Counter(line.split(" -", 1)[0] for line in lines)

    assert programs == {"python app.py": 8, "python app_captioner.py": 3, "python": 1}
    for line in lines:
        program, *said = shlex.split(line)[1:]
        if program == "-m":
            caption.parse(said[1:], env={}, has_gpu=lambda: True)
            continue
        page = cli.CAPTIONER if program == "app_captioner.py" else cli.CHAT
        options = cli.parse(said, page, env={}, has_gpu=lambda: True).options
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
    headings = {"#" + title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}

    assert links
    assert all(link in headings if link.startswith("#") else (ROOT / link).exists() for link in links)
