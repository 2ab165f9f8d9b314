"""The page in a real Chromium over a scripted engine: what a person sees and hears."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from omni_backend import (
    AudioDelta,
    BadMedia,
    Capabilities,
    EngineDied,
    GenerationFailed,
    ReasoningDelta,
    ScriptedBackend,
    TextDelta,
    defaults,
    phrase,
)
from omni_backend.base import ReportProgress
from omni_backend.scripted import Step
from omni_ui.server import App
from tests.browser import EXAMPLES, Visit
from tests.ear import Ear
from tests.scripted_app import said
from tests.serving import serving
from tests.states import Stuck
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

FOREVER = 3600.0
Open = Callable[..., Visit]


def tone(seconds: float = 0.25) -> AudioDelta:
    """A piece of a tone whose pieces fit together: 440 Hz has whole periods in 0.25 s."""
    times = np.arange(int(24_000 * seconds)) / 24_000
    return AudioDelta((0.3 * np.sin(2 * np.pi * 440 * times)).astype(np.float32), 24_000)


def words(count: int, pause: float) -> list[Step]:
    return [step for n in range(count) for step in (TextDelta(f"word{n} "), pause)]


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return Capabilities(
        model="scripted",
        engine="a script",
        outputs=frozenset({"text", "audio"}),
        voices=("ethan", "chelsie"),
        max_concurrency=2,
    )


@pytest.fixture(scope="module")
def embedded() -> bool:
    return True


def test_an_answer_grows_in_the_live_bubble_and_is_kept_once(page: Visit, backend: ScriptedBackend) -> None:
    go = threading.Event()
    rest = [TextDelta(f"word{n} ") for n in range(10, 30)]
    backend.enqueue(*words(10, 0.15), go, *rest, TextDelta("**end**"))
    page.page.evaluate("""() => {
      window.seen = [];
      new MutationObserver(() => {
        const text = document.querySelector("#omni-live .bot-row")?.innerText.trim();
        if (text && text !== seen.at(-1)) seen.push(text);
      }).observe(document.querySelector("#omni-talk"), { childList: true, subtree: true, characterData: true });
    }""")
    page.say("Count")
    expect(page.history.locator(".user-row")).to_contain_text("Count")
    expect(page.composer).to_have_value("")
    expect(page.live).to_contain_text("word9")
    expect(page.history.locator(".bot-row")).to_have_count(0)
    expect(page.stop).to_be_visible()
    expect(page.send).to_have_count(0)
    go.set()
    page.finished()
    expect(page.live).to_have_count(0)
    expect(page.history.get_by_text("word29 end")).to_have_count(1)
    expect(page.history.locator("strong")).to_have_text("end")
    figures = page.history.locator(".omni-metrics")
    expect(figures).to_have_text(re.compile(r"first text \d+\.\d\d s · \d+\.\d tokens/s"))
    expect(figures).to_have_attribute("title", re.compile("31 written"))
    seen = page.page.evaluate("seen")
    assert len(seen) >= 4
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen)), seen


def test_the_enter_key_sends_and_a_second_message_goes_on(page: Visit, backend: ScriptedBackend) -> None:
    backend.enqueue(TextDelta("One."))
    page.composer.fill("first")
    page.composer.press("Enter")
    page.finished()
    page.composer.fill("second")
    page.composer.press("Enter")
    page.finished(answers=2)
    assert said(backend) == ["first", "One.", "second"]


def test_speech_is_heard_while_the_text_is_written_without_gaps(page: Visit, backend: ScriptedBackend) -> None:
    go = threading.Event()
    first = [step for n in range(19) for step in (TextDelta(f"word{n} "), tone(0.5), 0.1)]
    backend.enqueue(*first, go, TextDelta("word19 "), tone(0.5))
    spoken = np.trim_zeros(np.tile(tone(0.5).pcm, 20))
    ear = Ear(page.page)
    page.say("Speak")
    wait_until(lambda: ear.heard().size > 0, "the sound")
    expect(page.live).to_be_visible()  # it sounds before the answer is whole
    go.set()
    page.finished()
    wait_until(lambda: ear.heard().size >= spoken.size and page.player()[0] == "idle", "the end of the sound")
    sound = ear.heard()
    assert page.player() == ("idle", 0)
    assert sound.size == spoken.size
    assert np.abs(sound - spoken).max() < 1e-4


def test_the_finished_sound_can_be_played_again(page: Visit, backend: ScriptedBackend) -> None:
    backend.enqueue(TextDelta("Hello"), tone(), tone())
    page.say("Speak")
    page.finished()
    player = page.history.get_by_label("Spoken answer, 0.5 s")
    expect(player).to_be_visible()
    link = page.history.get_by_role("link", name="Download").get_attribute("href")
    seconds, level = page.page.evaluate(
        """async (link) => {
          const bytes = await (await fetch(link)).arrayBuffer();
          const sound = await new OfflineAudioContext(1, 1, 24000).decodeAudioData(bytes);
          const samples = sound.getChannelData(0);
          return [sound.duration, Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length)];
        }""",
        link,
    )
    assert seconds == pytest.approx(0.5, abs=0.01)
    assert level == pytest.approx(0.3 / 2**0.5, abs=0.01)
    player.evaluate("(player) => player.play()")
    wait_until(lambda: player.evaluate("(player) => player.ended"), "the end of the sound")
    assert player.evaluate("(player) => player.currentTime") == pytest.approx(0.5, abs=0.01)


def test_the_chosen_voice_speaks_or_nobody_does(page: Visit, backend: ScriptedBackend) -> None:
    page.page.get_by_role("button", name="Settings").click()
    page.page.get_by_role("combobox", name="Voice").click()
    page.page.get_by_role("option", name="chelsie").click()
    page.page.get_by_role("button", name="Close the settings").click()
    page.say("Hi")
    page.finished()
    assert backend.requests[-1].voice == "chelsie"
    assert backend.requests[-1].modalities == {"text", "audio"}
    page.page.get_by_role("checkbox", name="Speak the answer").uncheck()
    page.say("Hi")
    page.finished(answers=2)
    assert backend.requests[-1].voice is None
    assert backend.requests[-1].modalities == {"text"}


def test_stop_silences_at_once_frees_the_engine_and_keeps_the_rest(page: Visit, backend: ScriptedBackend) -> None:
    cancelled = backend.cancelled
    backend.enqueue(TextDelta("A beginning"), *[tone() for _ in range(40)], FOREVER, TextDelta("never"))
    ear = Ear(page.page)
    page.say("Speak")
    wait_until(lambda: ear.heard().size > 0, "the sound")
    page.stop.click()
    heard = ear.heard().size
    clicked = page.page.evaluate("omniPlayer.context.currentTime")
    page.finished()
    wait_until(lambda: backend.active_requests == 0, "the end of the work")
    assert backend.cancelled == cancelled + 1
    expect(page.history).to_contain_text("A beginning")
    expect(page.history).to_contain_text("Stopped.")
    expect(page.history).not_to_contain_text("never")
    expect(page.alert).to_have_count(0)
    wait_until(lambda: page.page.evaluate("omniPlayer.context.currentTime") > clicked + 2.0)
    assert ear.heard().size - heard < 24_000  # of the 10 s that had come
    page.say("Again")
    page.finished(answers=2)
    assert said(backend) == ["Speak", "A beginning", "Again"]


def test_the_sound_can_be_stopped_after_the_text(page: Visit, backend: ScriptedBackend) -> None:
    backend.enqueue(TextDelta("Long"), *[tone() for _ in range(40)])
    button = page.page.get_by_role("button", name="Stop the sound")
    expect(button).to_be_hidden()
    page.say("Speak")
    page.finished()
    edge = page.page.locator("#omni-composer").evaluate("(one) => one.getBoundingClientRect().bottom")
    assert button.evaluate("(one) => one.getBoundingClientRect().top") >= edge + 4, "it touches the composer"
    button.click()
    assert page.player()[0] == "idle"
    expect(button).to_be_hidden()


def test_stop_before_the_first_word_gives_the_message_back(page: Visit, backend: ScriptedBackend) -> None:
    backend.enqueue(FOREVER)
    page.attach(EXAMPLES / "star.png")
    page.say("Look")
    expect(page.page.locator(".omni-waiting")).to_be_visible()
    page.stop.click()
    page.send.wait_for()
    expect(page.composer).to_have_value("Look")
    expect(page.page.locator("#omni-composer .thumbnail-item")).to_have_count(1)
    expect(page.history.locator(".message-row")).to_have_count(0)
    page.send.click()
    page.finished()
    assert [part.label for part in backend.requests[-1].messages[-1].content[:1]] == ["star.png"]  # type: ignore[union-attr]


def test_a_broken_file_is_named_and_nothing_is_lost(page: Visit, backend: ScriptedBackend, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a film")
    page.say("Hi")
    page.finished()
    asked = len(backend.requests)
    page.attach(EXAMPLES / "tone.wav", broken)
    page.say("What is this?")
    expect(page.alert).to_contain_text("broken.mp4")
    expect(page.composer).to_have_value("What is this?")
    expect(page.page.locator("#omni-composer .thumbnail-item")).to_have_count(2)
    expect(page.history.locator(".message-row")).to_have_count(2)
    assert len(backend.requests) == asked
    page.page.get_by_role("button", name="Remove broken.mp4").click()
    page.send.click()
    page.finished(answers=2)
    expect(page.alert).to_have_count(0)


def test_an_error_of_the_engine_gives_the_message_back(page: Visit, backend: ScriptedBackend) -> None:
    go = threading.Event()
    backend.enqueue(go, BadMedia(phrase("media.empty", name="star.png"), detail="<b>cause</b>"))
    page.attach(EXAMPLES / "star.png")
    page.say("Look")
    expect(page.composer).to_have_value("")
    page.composer.fill("written meanwhile")
    go.set()
    expect(page.alert).to_contain_text("star.png")
    expect(page.alert.locator("code")).to_have_text("<b>cause</b>")
    expect(page.composer).to_have_value("Look\nwritten meanwhile")
    expect(page.page.locator("#omni-composer .thumbnail-item")).to_have_count(1)
    expect(page.history.locator(".message-row")).to_have_count(0)


def test_an_answer_that_breaks_off_is_kept_and_marked(page: Visit, backend: ScriptedBackend) -> None:
    backend.enqueue(TextDelta("A beginning"), GenerationFailed(phrase("backend.failed")))
    page.say("Hi")
    page.finished()
    expect(page.history).to_contain_text("A beginning")
    expect(page.history).to_contain_text(phrase("ui.mark_broken").text())
    expect(page.alert).to_contain_text(phrase("backend.failed").text())


def test_thoughts_are_folded_away(page: Visit, backend: ScriptedBackend) -> None:
    go = threading.Event()
    backend.enqueue(ReasoningDelta("Secretly pondering."), go, TextDelta("Answer."))
    page.say("Think")
    thinking = page.page.get_by_role("button", name="Thinking …")
    expect(thinking).to_have_attribute("aria-expanded", "false")
    thinking.click()
    expect(page.page.locator("#omni-thinking")).to_contain_text("Secretly pondering.")
    go.set()
    page.finished()
    expect(thinking).to_have_count(0)
    expect(page.history).to_contain_text("Answer.")
    thoughts = page.history.get_by_text("Secretly pondering.")
    expect(thoughts).to_be_visible()  # they stay unfolded
    page.history.get_by_text("Thoughts").click()
    expect(thoughts).to_be_hidden()
    page.reload()
    expect(page.history).to_contain_text("Answer.")
    expect(thoughts).to_be_hidden()


def test_two_visitors_see_nothing_of_each_other(app: App, visit: Open, backend: ScriptedBackend) -> None:
    one, two = visit(app.url), visit(app.url)
    backend.enqueue(TextDelta("for the first"), FOREVER)
    one.say("mine")
    expect(one.live).to_contain_text("for the first")
    backend.enqueue(TextDelta("for the second"))
    two.say("yours")
    two.finished()
    expect(two.page.locator("body")).not_to_contain_text("mine")
    expect(two.page.locator("body")).not_to_contain_text("for the first")
    assert said(backend) == ["yours"]
    expect(one.live).to_contain_text("for the first")
    one.stop.click()
    one.finished()
    expect(one.page.locator("body")).not_to_contain_text("for the second")


def test_closing_the_tab_frees_the_engine(page: Visit, backend: ScriptedBackend) -> None:
    cancelled = backend.cancelled
    backend.enqueue(TextDelta("half"), FOREVER)
    page.say("Hi")
    expect(page.live).to_contain_text("half")
    page.page.close()
    wait_until(lambda: backend.active_requests == 0, "the end of the work")
    assert backend.cancelled == cancelled + 1


def test_a_waiting_answer_says_that_others_come_first(app: App, visit: Open, backend: ScriptedBackend) -> None:
    busy = [visit(app.url), visit(app.url)]
    for one in busy:
        backend.enqueue(TextDelta("half"), FOREVER)
        one.say("Hi")
        expect(one.live).to_contain_text("half")
    late = visit(app.url)
    late.say("Me too")
    expect(late.page.locator(".omni-waiting")).to_have_text(phrase("ui.waits_for_others").text())
    for one in busy:
        one.stop.click()
    late.finished()


def test_the_conversation_can_be_begun_anew(page: Visit, backend: ScriptedBackend) -> None:
    page.say("first")
    page.finished()
    page.page.get_by_role("button", name="New chat").click()
    expect(page.history.locator(".message-row")).to_have_count(0)
    page.say("second")
    page.finished()
    assert said(backend) == ["second"]


def test_an_example_is_sent_by_one_click(page: Visit, backend: ScriptedBackend) -> None:
    backend.enqueue(TextDelta("A square."))
    expect(page.page.locator("#omni-embedded")).to_contain_text("tiny model")
    page.page.get_by_role("button", name="square.png").click()
    page.finished()
    expect(page.history).to_contain_text("A square.")
    expect(page.composer).to_have_value("")
    expect(page.page.locator("#omni-composer .thumbnail-item")).to_have_count(0)
    assert backend.requests[-1].messages[-1].text == "What do you see and hear?"
    labels = [part.label for part in backend.requests[-1].messages[-1].content[:2]]  # type: ignore[union-attr]
    assert labels == ["square.png", "tone.wav"]


def test_the_page_speaks_the_browsers_language(app: App, visit: Open, backend: ScriptedBackend) -> None:
    page = visit(app.url, locale="zh-CN").page
    expect(page.locator("#omni-embedded")).to_contain_text("微型模型")
    composer = page.get_by_role("textbox", name="消息")
    expect(composer).to_have_attribute("placeholder", "输入消息或添加文件")
    backend.enqueue(BadMedia(phrase("request.empty")))
    composer.fill("你好")
    composer.press("Enter")
    expect(page.get_by_role("alert")).to_have_text(phrase("request.empty").text("zh"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_everything_fits_and_can_be_touched(
    app: App, visit: Open, backend: ScriptedBackend, scheme: str
) -> None:
    phone = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True, "color_scheme": scheme}
    page = visit(app.url, **phone)
    wide = f"{'A' * 200} and `{'x' * 100}`\n\n```python\n{'y' * 100}\n```\n\n| a | b |\n|---|---|\n| 1 | {'w' * 60} |"
    backend.enqueue(TextDelta(wide), tone())
    page.attach(EXAMPLES / "film.mp4")
    page.say("Look")
    page.finished()
    width = page.page.evaluate("document.documentElement.scrollWidth")
    assert width == 390
    for place in ("0", "1e6"):
        page.page.evaluate(f"scrollTo(0, {place})")
        expect(page.send).to_be_in_viewport(ratio=1)
        expect(page.page.get_by_role("checkbox", name="Speak the answer")).to_be_in_viewport(ratio=1)
    ground = page.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground[:3]) < 80) == (scheme == "dark")


def test_a_message_sent_while_the_model_loads_is_answered(visit: Open) -> None:
    loading = Stuck([TextDelta("At last.")])
    loading.loaded = threading.Event()
    with serving(loading) as app:
        page = visit(app.url, wait=False)
        expect(page.page.get_by_role("progressbar")).to_be_visible()
        page.say("Hi")
        expect(page.page.locator(".omni-waiting")).to_have_text(phrase("ui.waits_for_model").text())
        loading.loaded.set()
        page.finished()
        expect(page.history).to_contain_text("At last.")
        assert loading.requests[-1].modalities == {"text", "audio"}  # as the command line asked
        expect(page.page.locator(".omni-ready")).to_contain_text("scripted")
        expect(page.page.get_by_role("checkbox", name="Speak the answer")).to_be_enabled()
        page.page.close()
    loading.close()


def test_an_engine_that_died_is_said_and_the_next_message_is_answered(visit: Open) -> None:
    restarted = threading.Event()

    class Mortal(ScriptedBackend):
        def _load(self, report: ReportProgress) -> Capabilities:
            if self.requests:
                assert restarted.wait(60)
            return super()._load(report)

    backend = Mortal((TextDelta("Half an "), EngineDied(phrase("backend.died"))), fallback=(TextDelta("Back again."),))
    with serving(backend) as app:
        page = visit(app.url)
        expect(page.page.locator("#omni-status")).to_contain_text("scripted")
        page.say("Hello!")
        expect(page.alert.first).to_contain_text("started again")
        expect(page.history).to_contain_text("Half an")
        expect(page.page.locator("#omni-status")).to_contain_text("being started again")
        restarted.set()
        expect(page.page.locator("#omni-status")).to_contain_text("a script")
        page.say("Hello?")
        expect(page.history).to_contain_text("Back again.")
    backend.close()


def test_an_engine_that_does_not_load_says_why_and_text_alone_says_so(visit: Open) -> None:
    can = Capabilities("quiet", "a script", missing_outputs={"audio": phrase("ui.no_speech")})
    with serving(ScriptedBackend(capabilities=can)) as app:
        page = visit(app.url)
        expect(page.page.get_by_role("checkbox", name="Speak the answer")).to_be_disabled()
        expect(page.page.locator("#omni-voice")).to_contain_text(phrase("ui.no_speech").text())
        expect(page.page.locator("#omni-embedded")).to_have_count(0)
        page.page.close()
    with serving(ScriptedBackend(load=[GenerationFailed(phrase("backend.load_failed"))])) as app:
        page = visit(app.url, wait=False)
        expect(page.alert).to_contain_text(phrase("backend.load_failed").text())
        page.say("Hi")
        expect(page.alert).to_have_count(2)
        expect(page.composer).to_have_value("Hi")
        page.page.close()


def test_a_long_reason_for_silence_fits_on_a_phone(visit: Open) -> None:
    reason = phrase("omni.not_installed", install="pip install -r requirements-vllm.txt")
    backend = ScriptedBackend(capabilities=Capabilities("quiet", "a script", missing_outputs={"audio": reason}))
    with serving(backend) as app:
        page = visit(app.url, viewport={"width": 390, "height": 780})
        said = page.page.locator("#omni-voice").get_by_text(reason.text())
        expect(said).to_be_visible()
        box = said.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= 390
        page.page.close()


def test_a_second_message_waits_for_the_end_of_the_first(page: Visit, backend: ScriptedBackend) -> None:
    asked = len(backend.requests)
    go = threading.Event()
    backend.enqueue(TextDelta("half"), go, TextDelta(" and whole"))
    page.say("first")
    expect(page.live).to_contain_text("half")
    page.composer.fill("second")
    page.composer.press("Enter")
    expect(page.alert).to_have_text(phrase("ui.busy").text())
    go.set()
    page.finished()
    expect(page.history.locator(".bot-row")).to_contain_text("half and whole")
    expect(page.composer).to_have_value("second")
    assert len(backend.requests) == asked + 1
    page.send.click()
    page.finished(answers=2)


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(defaults, "FILE_BYTES", 10_000)


@pytest.mark.usefixtures("small_limit")
def test_a_file_that_is_too_large_is_named_before_it_is_sent(visit: Open) -> None:
    with serving(ScriptedBackend()) as app:
        page = visit(app.url)
        page.attach(EXAMPLES / "square.png")
        page.composer.fill("Look")
        page.page.locator("#omni-composer input[type=file]").set_input_files([EXAMPLES / "tone.wav"])
        expect(page.alert).to_have_text("tone.wav is larger than 9.766 kB, the most that is taken.")
        expect(page.composer).to_have_value("Look")
        expect(page.page.locator("#omni-composer .thumbnail-item")).to_have_count(1)
        page.send.click()
        page.finished()
        expect(page.alert).to_have_count(0)
        page.page.close()
