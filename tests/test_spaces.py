"""The app as Hugging Face Spaces starts it: `python app.py`, settings from the environment, only what is listed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from huggingface_hub import SpaceHardware, metadata_load

from omni_backend import phrase
from tests.fresh_environment import make_environment, required
from tests.serving import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "assets" / "examples"
REQUIREMENTS = ROOT / "requirements.txt"
APP = ("app.py", "omni_ui", "omni_backend", "assets", "README.md", "requirements.txt", "packages.txt")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Python of an environment that has what requirements.txt names and no more."""
    folder = tmp_path_factory.mktemp("environment")
    yield make_environment(folder, REQUIREMENTS)
    shutil.rmtree(folder)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home with the app in it, as on a Space; read-only but for its cache."""
    home = tmp_path / "home" / "user"
    (home / ".cache").mkdir(parents=True)
    (home / "app").mkdir()
    for name in APP:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, home / "app" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, home / "app")
    folders = [home, *(path for path in home.rglob("*") if path.is_dir() and path.name != ".cache")]
    for folder in folders:
        folder.chmod(0o555)
    yield home
    for folder in folders:
        folder.chmod(0o755)


def listing(home: Path) -> set[tuple[Path, int]]:
    """All that is in `home` beside its cache, with the times of the last change: root may write in spite of bits."""
    paths = (path for path in home.rglob("*") if home / ".cache" not in path.parents)
    return {(path, path.stat().st_mtime_ns) for path in paths if path != home / ".cache"}


@contextmanager
def space(python: Path, home: Path, port: int, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """The app as a process that knows nothing of this one."""
    temporary = home.parent.parent / "tmp"
    temporary.mkdir()
    environment = {
        "SPACE_ID": "someone/omni",
        "GRADIO_SERVER_PORT": str(port),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "PATH": str(python.parent),  # no FFmpeg, no compiler: packages.txt asks for nothing
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [python, "app.py"],
        cwd=home / "app",
        env=environment | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> None:
    """Ends it as Spaces do. It must end well."""
    process.send_signal(signal.SIGTERM)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert "Traceback" not in complaints, complaints


def page_answers(process: subprocess.Popen[str], url: str) -> bool:
    assert process.poll() is None, process.communicate()[1]
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


def test_the_environment_has_what_is_listed_and_nothing_else(python: Path) -> None:
    listed = {requirement.name.replace("-", "_") for requirement in required(REQUIREMENTS)} - {"pillow"} | {"PIL"}
    others = {"pytest", "playwright", "mypy", "pip"}
    look = "import sys; from importlib.util import find_spec; print(*filter(find_spec, sys.argv[1:]))"
    found = subprocess.run([python, "-c", look, *listed, *others], capture_output=True, text=True, cwd="/", timeout=60)
    assert set(found.stdout.split()) == listed, found.stderr


@pytest.mark.engine
def test_a_space_answers_sees_hears_speaks_and_leaves_nothing_behind(python: Path, home: Path, tmp_path: Path) -> None:
    before, port = listing(home), free_port()
    url = f"http://127.0.0.1:{port}/"
    with space(python, home, port) as process:
        wait_until(lambda: page_answers(process, url), "the page", seconds=120)
        client = Client(url, verbose=False, httpx_kwargs={"timeout": 120}, download_files=tmp_path / "downloads")
        message = {
            "text": "What do you see and hear?",
            "files": [handle_file(str(EXAMPLES / name)) for name in ("square.png", "tone.wav")],
        }
        text, sound = client.predict(message=message, speak=True, api_name="/chat")
        client.close()
        assert text == "I see a blue square on a white background. I hear a high tone."
        with wave.open(sound) as file:
            assert file.getnframes() > 0.5 * file.getframerate()
        listening = [at for at in psutil.Process(process.pid).net_connections() if at.status == psutil.CONN_LISTEN]
        assert [at.laddr for at in listening] == [("0.0.0.0", port)]  # a Space is looked at from outside
        end(process)
    assert listing(home) == before
    # Gradio and torch make folders there as they are imported.
    assert [path for path in (tmp_path / "tmp").rglob("*") if not path.is_dir()] == []


@pytest.mark.engine
def test_a_space_takes_its_model_from_the_environment(python: Path, home: Path) -> None:
    port, model = free_port(), str(ROOT / "assets" / "tiny-qwen3-omni")
    url = f"http://127.0.0.1:{port}/"
    with space(python, home, port, OMNI_CHECKPOINT_PATH=model, OMNI_GENERATE_AUDIO="0") as process:
        wait_until(lambda: page_answers(process, url), "the page", seconds=120)
        client = Client(url, verbose=False, httpx_kwargs={"timeout": 120})
        message = {"text": "What do you see?", "files": [handle_file(str(EXAMPLES / "star.png"))]}
        assert client.predict(message=message, api_name="/chat") == ("A yellow star on a black background.", None)
        with pytest.raises(AppError, match=re.escape(phrase("load.talker_off").text())):
            client.predict(message=message, speak=True, api_name="/chat")
        client.close()
        end(process)


def test_the_front_matter_and_the_requirements_agree() -> None:
    card = metadata_load(ROOT / "README.md")
    assert card is not None
    [gradio] = [requirement for requirement in required(REQUIREMENTS) if requirement.name == "gradio"]
    assert gradio.specifier.contains(card["sdk_version"])
    assert card["sdk"] == "gradio"
    assert (ROOT / card["app_file"]).name == "app.py"
    assert card["python_version"] == "3.11"
    assert card["suggested_hardware"] in {hardware.value for hardware in SpaceHardware}
    assert len(card["short_description"]) <= 60  # longer ones are refused
    assert {card["colorFrom"], card["colorTo"]} <= {
        "red",
        "yellow",
        "green",
        "blue",
        "indigo",
        "purple",
        "pink",
        "gray",
    }
