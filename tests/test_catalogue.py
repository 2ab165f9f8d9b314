"""The catalogue is whole: both languages, every gap, every key in use, every used key there."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from string import Formatter

import pytest

from omni_backend import LANGUAGES, Language, phrase, sentences
from tests.source import ROOT, app_files, package_files, tree

LOCALE = ROOT / "omni_backend" / "locale"
KEYS = sorted(sentences("en"))
AREAS = {key.split(".")[0] for key in KEYS}
LIKE_A_KEY = re.compile(rf"({'|'.join(sorted(AREAS))})\.[a-z0-9_]*[a-z0-9]")
LIKE_A_FILE = re.compile(r".*\.(css|html|js|json|py|sqlite)")
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def files() -> list[Path]:
    return package_files("omni_backend") + package_files("omni_ui") + app_files()


def gaps(sentence: str) -> set[str]:
    """The names in curly brackets."""
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


def words(sentence: str) -> str:
    """What is left without the gaps."""
    return "".join(literal for literal, *_ in Formatter().parse(sentence))


def constants() -> set[str]:
    """Every string constant of the code, that of the page's scripts included."""
    nodes = (node for file in files() for node in ast.walk(tree(file)))
    found = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    for script in (ROOT / "omni_ui" / "static").glob("*.js"):
        code = re.sub(r"//.*", "", script.read_text(encoding="utf-8"))
        found |= set(re.findall(r"""["'`]([^"'`\n]*)["'`]""", code))
    return found


def prefixes() -> set[str]:
    """The fixed beginnings of keys that are put together: "media." of f"media.{key}"."""
    found = set()
    for file in files():
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.JoinedStr) and isinstance(first := node.values[0], ast.Constant):
                start = str(first.value)
                if start.split(".")[0] in AREAS and "." in start:
                    found.add(start)
    return found


def used(key: str, known: set[str], starts: set[str]) -> bool:
    """Whether the code names `key`, whole or as a known beginning and a known end."""
    return key in known or any(key.startswith(start) and key.removeprefix(start) in known for start in starts)


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call whose first argument is a key: the key and the call."""
    builders = key_builders()
    for file in files():
        for node in ast.walk(tree(file)):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            first, name = node.args[0], called(node)
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                if LIKE_A_KEY.fullmatch(first.value):
                    yield first.value, node
                elif name in builders:
                    yield builders[name] + first.value, node


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


@cache
def key_builders() -> dict[str, str]:
    """Functions that put a key together from their first argument, and its fixed beginning."""
    found = {}
    for file in files():
        for function in ast.walk(tree(file)):
            if isinstance(function, ast.FunctionDef) and function.args.args:
                for node in ast.walk(function):
                    if isinstance(node, ast.JoinedStr) and (start := composed(node, function.args.args[0].arg)):
                        found[function.name] = start
    return found


def composed(node: ast.JoinedStr, parameter: str) -> str | None:
    """The beginning of f"<area>.{parameter}", None for any other f-string."""
    match node.values:
        case [ast.Constant(value=str(start)), ast.FormattedValue(value=ast.Name(id=name))]:
            return start if name == parameter and start.removesuffix(".") in AREAS else None
    return None


def test_both_languages_have_the_same_files_and_keys() -> None:
    areas = {language: {file.name for file in (LOCALE / language).iterdir()} for language in LANGUAGES}
    assert areas["en"] == areas["zh"]
    for name in areas["en"]:
        keys = [set(json.loads((LOCALE / language / name).read_text(encoding="utf-8"))) for language in LANGUAGES]
        assert keys[0] == keys[1], name


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_key_stands_twice(language: Language) -> None:
    pairs = [
        key
        for file in (LOCALE / language).iterdir()
        for key, _ in json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=list)
    ]
    assert len(pairs) == len(set(pairs)), sorted({key for key in pairs if pairs.count(key) > 1})


@pytest.mark.parametrize("key", KEYS)
def test_sentence_is_complete_in_both_languages(key: str) -> None:
    english, chinese = sentences("en")[key], sentences("zh")[key]
    assert english.strip() == english
    assert english
    assert gaps(english) == gaps(chinese)
    assert "" not in gaps(english), "gaps are named"
    assert not CHINESE.search(english)
    if re.search(r"[A-Za-z]", words(english)):
        assert CHINESE.search(chinese)
    values = {name: f"<{name}>" for name in gaps(english)}
    for language in LANGUAGES:
        text = phrase(key, **values).text(language)
        assert all(value in text for value in values.values())
        assert not re.search(r"[{}]", text)


def test_every_key_is_used() -> None:
    known, starts = constants(), prefixes()
    unused = [key for key in KEYS if not used(key, known, starts)]
    assert not unused, unused


def test_every_used_key_is_there() -> None:
    named = {text for text in constants() if LIKE_A_KEY.fullmatch(text) and not LIKE_A_FILE.fullmatch(text)}
    missing = sorted((named | {key for key, _ in calls()}) - set(KEYS))
    assert not missing, missing


def test_every_gap_is_filled_where_a_key_is_used() -> None:
    checked = set()
    for key, call in calls():
        given = {keyword.arg for keyword in call.keywords}
        # Functions like `bad_media` take the file's name by position and hand it on.
        given |= {"name"} if called(call) in key_builders() else set()
        if None not in given:  # no **values
            checked.add(key)
            assert gaps(sentences("en").get(key, "")) <= given, f"{key}, line {call.lineno}"
    assert len(checked) > len(KEYS) / 2


def test_missing_key_is_an_error() -> None:
    with pytest.raises(KeyError):
        phrase("no.such_key").text()
