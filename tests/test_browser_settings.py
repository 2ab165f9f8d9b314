"""The side panel in a real Chromium: what it says reaches the engine, and what the model cannot serve says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from playwright.sync_api import Locator, expect

from omni_backend import Capabilities, EngineDied, SamplingParams, ScriptedBackend, phrase
from omni_ui.server import App
from tests.browser import Visit, settle
from tests.serving import serving

pytestmark = pytest.mark.browser

Open = Callable[..., Visit]
OWN = SamplingParams(temperature=0.6, top_p=0.95, top_k=20, max_tokens=1234, repetition_penalty=1.05)


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return Capabilities(
        model="scripted",
        engine="a script",
        outputs=frozenset({"text", "audio"}),
        voices=("ethan", "chelsie", "aiden"),
        default_sampling=OWN,
    )


@pytest.fixture(params=[1280, 390], ids=["wide", "phone"])
def page(app: App, visit: Open, request: pytest.FixtureRequest) -> Visit:
    return visit(app.url, viewport={"width": request.param, "height": 780})


def open_panel(page: Visit, *, sampling: bool = False) -> Locator:
    page.page.get_by_role("button", name="Settings").click()
    panel = page.page.get_by_role("region", name="Settings")
    expect(panel.get_by_role("textbox", name="System prompt")).to_be_visible()
    if sampling:
        panel.get_by_role("button", name="How words are chosen").click()
        # Gradio makes what is folded away only now, and gives it its values a moment later.
        for name in ("Top-k", "Longest answer"):
            expect(panel.get_by_role("spinbutton", name=name)).not_to_have_value("")
        settle(page.page)
    return panel


def close_panel(page: Visit) -> None:
    page.page.get_by_role("button", name="Close the settings").click()


def ask(page: Visit, answers: int = 1) -> None:
    page.say("Hi")
    page.finished(answers)


def system_prompt(backend: ScriptedBackend) -> str:
    first = backend.requests[-1].messages[0]
    return first.text if first.role == "system" else ""


def test_untouched_settings_are_the_checkpoints_own(page: Visit, backend: ScriptedBackend) -> None:
    ask(page)
    request = backend.requests[-1]
    assert request.sampling == OWN
    assert request.modalities == {"text", "audio"}
    assert request.voice == "ethan"
    assert request.use_audio_in_video
    persona, rules = phrase("panel.persona").text(), phrase("panel.spoken_rules").text()
    assert system_prompt(backend) == f"{persona}\n\n{rules}"


def test_every_setting_reaches_the_engine(page: Visit, backend: ScriptedBackend) -> None:
    panel = open_panel(page, sampling=True)
    for name, value in (("Temperature", "0.25"), ("Top-p", "0.5"), ("Repetition penalty", "1.2")):
        panel.get_by_role("spinbutton", name=name).fill(value)
        panel.get_by_role("spinbutton", name=name).press("Tab")
    for name, value in (("Top-k", "7"), ("Longest answer", "99"), ("Seed", "42")):
        panel.get_by_role("spinbutton", name=name).fill(value)
    panel.get_by_role("textbox", name="System prompt").fill("You are a pirate.")
    panel.get_by_role("checkbox", name="Hear the sound of films").uncheck()
    close_panel(page)
    page.page.get_by_role("checkbox", name="Speak the answer").uncheck()
    ask(page)
    request = backend.requests[-1]
    assert request.sampling == SamplingParams(0.25, 0.5, 7, 99, 1.2, 42)
    assert request.modalities == {"text"}
    assert not request.use_audio_in_video
    assert system_prompt(backend) == "You are a pirate."
    page.page.get_by_role("checkbox", name="Speak the answer").check()
    ask(page, answers=2)
    assert system_prompt(backend) == f"You are a pirate.\n\n{phrase('panel.spoken_rules').text()}"
    panel = open_panel(page)
    panel.get_by_role("button", name="The model's own settings").click()
    expect(panel.get_by_role("spinbutton", name="Top-k")).to_have_value("20")
    close_panel(page)
    ask(page, answers=3)
    assert backend.requests[-1].sampling == OWN
    page.reload()
    page.page.locator(".omni-ready").wait_for()
    panel = open_panel(page)
    expect(panel.get_by_role("textbox", name="System prompt")).to_have_value("You are a pirate.")
    expect(panel.get_by_role("checkbox", name="Hear the sound of films")).not_to_be_checked()
    close_panel(page)
    assert system_prompt(backend).startswith("You are a pirate.")


def test_settings_stay_when_the_engine_is_started_again(page: Visit, backend: ScriptedBackend) -> None:
    panel = open_panel(page, sampling=True)
    panel.get_by_role("spinbutton", name="Top-k").fill("7")
    close_panel(page)
    backend.enqueue(EngineDied(phrase("backend.failed")))
    page.say("Hi")
    expect(page.alert).to_contain_text(phrase("backend.failed").text())
    page.page.locator(".omni-ready").wait_for()
    page.send.click()
    page.finished()
    assert backend.requests[-1].sampling == replace(OWN, top_k=7)


def test_the_rules_for_speech_can_be_read(page: Visit) -> None:
    panel = open_panel(page)
    rules = panel.get_by_text(phrase("panel.spoken_rules").text())
    expect(rules).to_be_hidden()
    panel.get_by_text("Added for spoken answers").click()
    expect(rules).to_be_visible()


def test_a_setting_that_makes_no_sense_is_named(page: Visit, backend: ScriptedBackend) -> None:
    asked = len(backend.requests)
    panel = open_panel(page, sampling=True)
    panel.get_by_role("spinbutton", name="Longest answer").fill("0")
    close_panel(page)
    page.say("Hi")
    expect(page.alert).to_have_text("Longest answer: give a number from 1 to 65536.")
    expect(page.composer).to_have_value("Hi")
    assert len(backend.requests) == asked
    panel = open_panel(page)
    panel.get_by_role("spinbutton", name="Longest answer").fill("")  # empty: the checkpoint's own
    close_panel(page)
    page.send.click()
    page.finished()
    expect(page.alert).to_have_count(0)
    assert backend.requests[-1].sampling == OWN


def test_what_the_model_cannot_serve_is_disabled_and_says_why(visit: Open) -> None:
    untold, silent, deaf = phrase("server.no_more_sampling"), phrase("load.talker_missing"), phrase("server.no_video")
    can = Capabilities(
        model="scripted",
        engine="a script",
        inputs=frozenset({"image"}),
        missing_inputs={"video": deaf, "audio": phrase("server.no_audio")},
        missing_outputs={"audio": silent},
        missing_sampling={"top_k": untold, "repetition_penalty": untold},
    )
    backend = ScriptedBackend(capabilities=can)
    backend.wait_until_ready()
    with serving(backend) as app:
        page = visit(app.url)
        speak = page.page.get_by_role("checkbox", name="Speak the answer")
        expect(speak).to_be_disabled()
        expect(page.page.locator("#omni-voice")).to_contain_text(silent.text())
        panel = open_panel(page, sampling=True)
        disabled = {
            "combobox": [("Voice", silent)],
            "spinbutton": [("Top-k", untold), ("Repetition penalty", untold)],
            "checkbox": [("Hear the sound of films", deaf)],
        }
        for role, controls in disabled.items():
            for name, reason in controls:
                control = page.page.get_by_role(role, name=name)  # type: ignore[arg-type]
                expect(control).to_be_disabled()
                block = panel.locator(".block").filter(has=control).last
                expect(block).to_contain_text(reason.text())
        expect(panel.get_by_role("spinbutton", name="Temperature")).to_be_enabled()
        ask(page)
        assert system_prompt(backend) == phrase("panel.persona").text()
        page.page.close()
    backend.close()


def test_a_captioner_takes_no_system_prompt(visit: Open) -> None:
    can = Capabilities(model="captioner", engine="a script", inputs=frozenset({"audio"}), text_prompts=False)
    backend = ScriptedBackend(capabilities=can)
    backend.wait_until_ready()
    with serving(backend) as app:
        page = visit(app.url)
        panel = open_panel(page)
        expect(panel.get_by_role("textbox", name="System prompt")).to_be_disabled()
        expect(panel).to_contain_text(phrase("request.one_recording").text())
        page.page.close()
    backend.close()


def test_the_tiny_checkpoint_is_given_no_system_prompt(visit: Open) -> None:
    can = Capabilities(model="tiny", engine="a script", outputs=frozenset({"text", "audio"}), voices=("ethan",))
    backend = ScriptedBackend(capabilities=can)
    backend.wait_until_ready()
    with serving(backend, embedded=True) as app:
        page = visit(app.url)
        panel = open_panel(page)
        expect(panel.get_by_role("textbox", name="System prompt")).to_have_value("")
        expect(panel).to_contain_text(phrase("panel.untaught").text())
        close_panel(page)
        ask(page)
        assert system_prompt(backend) == ""
        assert backend.requests[-1].modalities == {"text", "audio"}
        page.page.close()
    backend.close()


def test_the_panel_speaks_chinese(app: App, visit: Open, backend: ScriptedBackend) -> None:
    page = visit(app.url, locale="zh-CN")
    page.page.get_by_role("button", name="设置").click()
    prompt = page.page.get_by_role("textbox", name="系统提示词")
    expect(prompt).to_have_value(phrase("panel.persona").text("zh"))
    page.page.get_by_role("button", name="关闭设置").click()
    page.page.get_by_role("textbox", name="消息").fill("你好")
    page.page.get_by_role("textbox", name="消息").press("Enter")
    page.finished()
    rules = phrase("panel.spoken_rules").text("zh")
    assert system_prompt(backend) == f"{phrase('panel.persona').text('zh')}\n\n{rules}"
