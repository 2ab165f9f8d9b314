"""Arrows run app → omni_ui → omni_backend → engine, never back, and engines are imported only when they load."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from omni_backend import BACKENDS
from tests.source import ROOT, app_files, imports, module_name, package_files, tree

ENGINES = {"torch", "transformers", "vllm", "openai"}
HEAVY = {"torchvision", "qwen_omni_utils", "librosa", "av"}
APPS = [module_name(file) for file in app_files()]


def loaded_by(module: str) -> set[str]:
    """The top-level modules that a fresh process has after importing `module`."""
    script = f"import json, sys, {module}; print(json.dumps([name.split('.')[0] for name in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module", ["omni_backend", "omni_backend.caption", "omni_backend.caption.__main__", "omni_ui.cli", *APPS]
)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    assert not loaded_by(module) & (ENGINES | HEAVY | {"gradio"})


def test_the_whole_page_loads_no_engine() -> None:
    modules = [module_name(file) for file in package_files("omni_ui") + app_files()]
    assert not loaded_by(", ".join(modules)) & ENGINES


@pytest.mark.parametrize("file", package_files("omni_backend"), ids=module_name)
def test_backend_knows_no_page(file: Path) -> None:
    assert not {name for name in imports(file) if name.split(".")[0] in ("gradio", "omni_ui", "app")}


@pytest.mark.parametrize("file", package_files("omni_ui") + app_files(), ids=module_name)
def test_page_knows_no_engine(file: Path) -> None:
    names = imports(file)
    assert not {name for name in names if name.split(".")[0] in ENGINES | {"torchvision", "qwen_omni_utils"}}
    engine_modules = ("omni_backend.transformers_", "omni_backend.vllm_", "omni_backend.server_")
    assert not {name for name in names if name.startswith(engine_modules)}


@pytest.mark.parametrize("file", package_files("omni_ui"), ids=module_name)
def test_page_knows_no_program(file: Path) -> None:
    assert not {name for name in imports(file) if name.split(".")[0] in {module_name(app) for app in app_files()}}


@pytest.mark.parametrize("file", package_files("omni_ui"), ids=module_name)
def test_page_names_no_engine(file: Path) -> None:
    """What a checkpoint can do stands in its capabilities."""
    assert not {node.value for node in ast.walk(tree(file)) if isinstance(node, ast.Constant)} & set(BACKENDS)


def test_the_reading_of_imports_sees_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.source.ROOT", tmp_path)
    file = tmp_path / "package" / "module.py"
    file.parent.mkdir()
    file.write_text("import a.b as c\nfrom d import e\nfrom . import f\nfrom .g import h\ndef i():\n    import torch\n")
    assert imports(file) >= {"a.b", "d", "d.e", "package.f", "package.g", "package.g.h", "torch"}
