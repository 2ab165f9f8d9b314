"""The page speaks the language that the reader has or chooses; test_browser_access.py looks at its every word."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from omni_backend import BadMedia, Capabilities, Language, ScriptedBackend, TextDelta, phrase
from omni_ui.layout import TITLE
from omni_ui.server import App
from tests import states
from tests.browser import Visit
from tests.states import STATES, say
from tests.words import strange

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return states.abilities()


def test_a_strange_word_is_found(app: App, visit: Open) -> None:
    page = visit(app.url)
    for change in ("append('Built with Gradio')", "setAttribute('aria-label', 'Clear')"):
        page.page.evaluate(f"document.querySelector('#omni-title').{change}")
    assert strange(page.page, "en") == ["Built with Gradio", "Clear"]
    assert len(strange(page.page, "zh")) > 5


def test_the_language_is_switched_and_the_conversation_stays(app: App, visit: Open, backend: ScriptedBackend) -> None:
    page = visit(app.url)
    backend.enqueue(TextDelta("An answer."))
    say(page, "A question?")
    page.finished()
    page.composer.fill("half a thought")
    link = page.page.locator("#omni-languages a:visible")
    expect(link).to_have_text("中文")
    link.click()
    page.page.locator(".omni-ready").wait_for()
    expect(page.page.locator("html")).to_have_attribute("lang", "zh")
    expect(page.history).to_contain_text("An answer.")
    expect(page.page.locator("#omni-composer textarea")).to_have_value("half a thought")
    expect(page.page).to_have_title(TITLE)
    expect(page.page.locator(".omni-metrics")).to_contain_text("首字")
    assert strange(page.page, "zh") == []
    backend.enqueue(BadMedia(phrase("request.empty"), detail="a cause"))
    say(page, "还有呢？")
    expect(page.alert).to_contain_text(phrase("request.empty").text("zh"))
    assert strange(page.page, "zh") == []
    expect(link).to_have_text("English")
    link.click()
    expect(page.page.locator("html")).to_have_attribute("lang", "en")
    expect(page.history).to_contain_text("An answer.")
    assert strange(page.page, "en") == []


def test_the_choice_is_remembered_and_the_way_back_leads_away(app: App, visit: Open) -> None:
    page = visit(app.url)
    page.page.locator("#omni-languages a:visible").click()
    expect(page.page.locator("html")).to_have_attribute("lang", "zh")
    page.page.locator(".omni-ready").wait_for()
    other = page.page.context.new_page()
    other.goto(app.url)
    expect(other.locator("#omni-restart")).to_have_text(phrase("ui.restart").text("zh"))
    page.page.go_back()
    assert page.page.url == "about:blank"


@pytest.mark.parametrize(("address", "language"), [("?lang=en", "en"), ("?lang=xx", "zh"), ("?lang=zh-TW", "zh")])
def test_the_address_beats_the_browser(app: App, visit: Open, address: str, language: Language) -> None:
    page = visit(app.url, locale="zh-CN").page.context.new_page()
    page.goto(app.url + address)
    expect(page.locator(".omni-ready")).to_be_visible()
    expect(page.locator("#omni-restart")).to_have_text(phrase("ui.restart").text(language))
    expect(page.locator("html")).to_have_attribute("lang", language)


@pytest.mark.parametrize(("browser_language", "language"), [("de-DE", "en"), ("zh-HK", "zh"), ("zh-TW", "zh")])
def test_languages_that_the_catalogue_has_under_another_name_or_not_at_all(
    app: App, visit: Open, backend: ScriptedBackend, browser_language: str, language: Language
) -> None:
    page = visit(app.url, locale=browser_language)
    STATES["settings"](page, backend)
    assert strange(page.page, language) == []
