"""The tool that looks for barriers: it is there, it sees them, and it is the package that it should be."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.axe import violations
from tools import axe

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
GOOD = (
    '<!doctype html><html lang="en"><title>Good</title><main><h1>Good</h1><img alt="a dot" src="{pixel}">{more}</main>'
)


def show(browser: Browser, more: str, pixel: str = PIXEL) -> Page:
    page = browser.new_page()
    page.set_content(GOOD.format(pixel=pixel, more=more))
    return page


@pytest.mark.browser
def test_a_good_page_has_no_violation(browser: Browser) -> None:
    page = show(browser, "")
    assert violations(page) == []
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("rule", "barrier"),
    [
        ("image-alt", f'<img class="bare" src="{PIXEL}">'),
        ("color-contrast", '<p class="bare" style="color: #999; background: #fff">Pale</p>'),
        ("label", '<input class="bare">'),
        ("heading-order", '<h4 class="bare">Four after one</h4>'),
        (
            "target-size",
            '<button class="bare" style="width: 9px; height: 9px; padding: 0">x</button><button>next to it</button>',
        ),
    ],
)
def test_barriers_are_found_and_named(browser: Browser, rule: str, barrier: str) -> None:
    page = show(browser, barrier)
    found = [line for line in violations(page) if line.startswith(rule)]
    assert len(found) == 1
    assert 'class="bare"' in found[0]
    assert "Fix" in found[0]
    page.close()


def test_another_package_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    script = tmp_path / "axe.min.js"
    script.write_text("alert()", encoding="utf-8")
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        archive.add(script, "package/axe.min.js")
    target = tmp_path / "share" / "axe.min.js"
    with pytest.raises(ValueError, match="not the package"):
        axe.fetch(package.as_uri(), target)
    assert not target.exists()


def test_a_registry_that_is_away_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(axe, "SCRIPT", tmp_path / "axe.min.js")
    monkeypatch.setattr(axe, "urlopen", away)
    assert axe.main() == 1
    assert capsys.readouterr().err.splitlines() == [
        "axe-core, which the browser tests need, could not be fetched: no route to host"
    ]
