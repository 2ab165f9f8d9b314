"""What was said, changed in a real Chromium: answered again, edited, taken back, begun anew, reloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from omni_backend import AudioDelta, Capabilities, GenerationFailed, MediaPart, ScriptedBackend, TextDelta, phrase
from omni_ui.server import App
from tests.browser import EXAMPLES, Visit
from tests.scripted_app import said
from tests.serving import serving
from tests.waiting import wait_until

pytestmark = pytest.mark.browser

FOREVER = 3600.0
Open = Callable[..., Visit]


@pytest.fixture(scope="module")
def abilities() -> Capabilities:
    return Capabilities(model="scripted", engine="a script", max_concurrency=4)


@pytest.fixture
def wide(app: App, visit: Open) -> Visit:
    return visit(app.url)


@pytest.fixture(params=[1280, 390], ids=["wide", "phone"])
def page(app: App, visit: Open, request: pytest.FixtureRequest) -> Visit:
    return visit(app.url, viewport={"width": request.param, "height": 780})


def talked(page: Visit, backend: ScriptedBackend, turns: int) -> None:
    """A conversation of so many turns: question n is answered with "answer n"."""
    for number in range(1, turns + 1):
        backend.enqueue(TextDelta(f"answer {number}"))
        page.say(f"question {number}")
        page.finished(answers=number)


def shown(page: Visit) -> list[str]:
    """The words of the conversation on the page."""
    texts: list[str] = page.page.evaluate(
        "[...document.querySelectorAll('#omni-history .omni-said, #omni-history .message-content')]"
        ".map((words) => words.innerText.trim())"
    )
    return texts


def button(page: Visit, name: str, row: int) -> Locator:
    """The button `name` under the question or the answer `row`, counted from 0."""
    return page.history.get_by_role("button", name=name).nth(row)


def test_an_answer_in_the_middle_is_given_again(page: Visit, backend: ScriptedBackend) -> None:
    talked(page, backend, 3)
    backend.enqueue(TextDelta("another answer"))
    button(page, "Answer again", 1).click()
    expect(page.history).to_contain_text("another answer")
    assert said(backend) == ["question 1", "answer 1", "question 2"]
    assert shown(page) == ["question 1", "answer 1", "question 2", "another answer"]


def test_a_question_in_the_middle_is_edited(page: Visit, backend: ScriptedBackend) -> None:
    talked(page, backend, 3)
    page.composer.fill("half a thought")
    button(page, "Edit and send again", 1).click()
    expect(page.composer).to_have_value("question 2")
    expect(page.page.locator("#omni-editing")).to_be_visible()
    backend.enqueue(TextDelta("edited answer"))
    page.say("question 2, better")
    expect(page.history).to_contain_text("edited answer")
    assert said(backend) == ["question 1", "answer 1", "question 2, better"]
    assert shown(page) == ["question 1", "answer 1", "question 2, better", "edited answer"]
    expect(page.composer).to_have_value("half a thought")
    expect(page.page.locator("#omni-editing")).to_be_hidden()


def test_editing_can_be_given_up(page: Visit, backend: ScriptedBackend) -> None:
    talked(page, backend, 2)
    page.attach(EXAMPLES / "tone.wav")
    page.composer.fill("half a thought")
    button(page, "Edit and send again", 0).click()
    expect(page.composer).to_have_value("question 1")
    page.page.get_by_role("button", name="Cancel").click()
    expect(page.composer).to_have_value("half a thought")
    expect(page.page.locator("#omni-composer .thumbnail-item")).to_have_count(1)
    page.send.click()
    page.finished(answers=3)
    assert said(backend)[:4] == ["question 1", "answer 1", "question 2", "answer 2"]


def test_another_message_can_be_edited_instead(wide: Visit, backend: ScriptedBackend) -> None:
    talked(wide, backend, 2)
    wide.composer.fill("half a thought")
    button(wide, "Edit and send again", 0).click()
    expect(wide.composer).to_have_value("question 1")
    button(wide, "Edit and send again", 1).click()
    expect(wide.composer).to_have_value("question 2")
    wide.page.get_by_role("button", name="Cancel").click()
    expect(wide.composer).to_have_value("half a thought")


@pytest.mark.parametrize("name", ["Take back", "Answer again"])
def test_changing_another_turn_ends_the_editing(wide: Visit, backend: ScriptedBackend, name: str) -> None:
    talked(wide, backend, 2)
    button(wide, "Edit and send again", 1).click()
    expect(wide.composer).to_have_value("question 2")
    button(wide, name, 0).click()
    expect(wide.page.locator("#omni-editing")).to_be_hidden()
    expect(wide.composer).to_have_value("question 1\nquestion 2" if name == "Take back" else "question 2")
    wide.send.wait_for()
    answers = wide.history.locator(".bot-row").count()
    wide.send.click()
    wide.finished(answers + 1)
    expect(wide.alert).to_have_count(0)


def test_an_edited_question_keeps_its_files(wide: Visit, backend: ScriptedBackend) -> None:
    wide.attach(EXAMPLES / "star.png", EXAMPLES / "tone.wav")
    wide.say("What is this?")
    wide.finished()
    button(wide, "Edit and send again", 0).click()
    expect(wide.page.locator("#omni-composer .thumbnail-item")).to_have_count(2)
    wide.say("What are these?")
    wait_until(lambda: said(backend) == ["What are these?"], "the edited question")
    files = [part for part in backend.requests[-1].messages[-1].content if isinstance(part, MediaPart)]
    assert [part.label for part in files] == ["star.png", "tone.wav"]
    assert [Path(part.path).read_bytes() for part in files] == [
        (EXAMPLES / name).read_bytes() for name in ("star.png", "tone.wav")
    ]


def test_a_turn_in_the_middle_is_taken_back(page: Visit, backend: ScriptedBackend) -> None:
    talked(page, backend, 3)
    page.composer.fill("and more")
    button(page, "Take back", 1).click()
    expect(page.composer).to_have_value("question 2\nand more")
    assert shown(page) == ["question 1", "answer 1"]
    page.say("something else")
    page.finished(answers=2)
    assert said(backend) == ["question 1", "answer 1", "something else"]


def test_a_second_answer_that_fails_leaves_the_first(wide: Visit, backend: ScriptedBackend) -> None:
    talked(wide, backend, 2)
    backend.enqueue(GenerationFailed(phrase("backend.failed")))
    button(wide, "Answer again", 0).click()
    expect(wide.alert).to_contain_text(phrase("backend.failed").text())
    assert shown(wide) == ["question 1", "answer 1", "question 2", "answer 2"]
    expect(wide.composer).to_have_value("")


def test_nothing_is_changed_while_an_answer_is_written(page: Visit, backend: ScriptedBackend) -> None:
    talked(page, backend, 1)
    backend.enqueue(TextDelta("half"), FOREVER)
    page.say("question 2")
    expect(page.live).to_contain_text("half")
    for name in ("Answer again", "Edit and send again", "Take back"):
        with page.page.expect_response("**/gradio_api/run/**"):
            button(page, name, 0).click()
        expect(page.alert).to_have_text(phrase("ui.busy").text())
    page.stop.click()
    page.finished(answers=2)
    assert shown(page) == ["question 1", "answer 1", "question 2", "half"]


def test_words_are_copied_as_they_were_written(wide: Visit, backend: ScriptedBackend) -> None:
    wide.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    written = 'Some **bold** words\n\n```python\nprint("<b>")\n```'
    backend.enqueue(TextDelta(written))
    wide.say("  Write & copy <i>this</i>")
    wide.finished()
    for row, text in enumerate(["  Write & copy <i>this</i>", written]):
        wide.history.locator(".omni-foot").get_by_role("button", name="Copy").nth(row).click()
        expect(wide.page.locator("#omni-heard")).to_have_text("Copied.")
        assert wide.page.evaluate("navigator.clipboard.readText()") == text


def test_a_model_cannot_press_the_pages_buttons(wide: Visit, backend: ScriptedBackend) -> None:
    talked(wide, backend, 1)
    backend.enqueue(TextDelta('<button data-omni="undo" data-index="0" class="omni-act">Click me</button>'))
    wide.say("question 2")
    wide.finished(answers=2)
    forged = wide.history.locator(".message-content button", has_text="Click me")
    if forged.count():  # Gradio may also have taken it out
        forged.click()
    wide.say("question 3")
    wide.finished(answers=3)
    assert said(backend)[0] == "question 1"


def test_people_are_shown_what_they_wrote(wide: Visit, backend: ScriptedBackend) -> None:
    wide.say("2 * 3 * 4 = **24**\n  <img src=x onerror=alert(1)> # no title")
    wide.finished()
    assert shown(wide)[0] == "2 * 3 * 4 = **24**\n  <img src=x onerror=alert(1)> # no title"


def test_a_reload_brings_the_conversation_back(page: Visit, backend: ScriptedBackend) -> None:
    page.attach(EXAMPLES / "star.png")
    backend.enqueue(TextDelta("A star."))
    page.say("What is this?")
    page.finished()
    page.reload()
    expect(page.history).to_contain_text("A star.")
    picture = page.history.get_by_role("img", name="star.png")
    expect(picture).to_be_visible()
    wait_until(lambda: picture.evaluate("(image) => image.naturalWidth") > 0, "the picture")
    page.say("And now?")
    page.finished(answers=2)
    assert said(backend) == ["What is this?", "A star.", "And now?"]


def test_a_reload_in_mid_answer_keeps_what_there_was(page: Visit, backend: ScriptedBackend) -> None:
    cancelled = backend.cancelled
    backend.enqueue(TextDelta("half an answer"), FOREVER)
    page.say("Hi")
    expect(page.live).to_contain_text("half an answer")
    page.reload()
    expect(page.history).to_contain_text("half an answer")
    expect(page.history).to_contain_text("Stopped.")
    wait_until(lambda: backend.cancelled == cancelled + 1, "the end of the work")
    page.say("Again")
    page.finished(answers=2)


def test_a_reload_before_the_first_word_gives_the_message_back(wide: Visit, backend: ScriptedBackend) -> None:
    backend.enqueue(FOREVER)
    wide.attach(EXAMPLES / "star.png")
    wide.say("Look")
    expect(wide.page.locator(".omni-waiting")).to_be_visible()
    wide.reload()
    expect(wide.composer).to_have_value("Look")
    expect(wide.page.locator("#omni-composer .thumbnail-item")).to_have_count(1)
    expect(wide.history.locator(".message-row")).to_have_count(0)
    wide.send.click()
    wide.finished()


def test_another_tab_begins_another_conversation(app: App, visit: Open, backend: ScriptedBackend) -> None:
    page = visit(app.url)
    talked(page, backend, 1)
    other = page.page.context.new_page()
    other.goto(app.url)
    other.locator(".omni-ready").wait_for()
    expect(other.locator("#omni-history .message-row")).to_have_count(0)


def test_a_conversation_that_is_gone_says_why(app: App, visit: Open, backend: ScriptedBackend) -> None:
    page = visit(app.url)
    talked(page, backend, 1)
    app.sessions.discard(page.page.evaluate("omni.session"))
    page.reload()
    notes = page.page.locator("#omni-notes")
    expect(notes).to_contain_text(phrase("session.gone_idle", minutes="60").text())
    expect(page.history.locator(".message-row")).to_have_count(0)
    talked(page, backend, 1)
    app.sessions.discard(page.page.evaluate("omni.session"))
    page.say("And now?")
    page.finished()
    expect(notes).to_contain_text(phrase("session.gone_idle", minutes="60").text())
    assert said(backend) == ["And now?"]
    page.page.get_by_role("button", name="New chat").click()
    page.say("And now?")
    page.finished()
    expect(notes).to_be_empty()


def test_a_copied_tab_watches_the_same_answer(app: App, visit: Open, backend: ScriptedBackend) -> None:
    page = visit(app.url)
    backend.enqueue(TextDelta("half"), FOREVER)
    page.say("Hi")
    expect(page.live).to_contain_text("half")
    copy = page.page.context.new_page()
    copy.add_init_script(f"sessionStorage.setItem('omni-session', '{page.page.evaluate('omni.session')}')")
    copy.goto(app.url)
    expect(copy.locator("#omni-live")).to_contain_text("half")
    page.stop.click()
    page.finished()
    expect(copy.locator("#omni-history")).to_contain_text("Stopped.")


def test_words_written_while_sending_are_neither_lost_nor_doubled(wide: Visit, backend: ScriptedBackend) -> None:
    wide.composer.fill("first")
    wide.composer.press("Enter")
    wide.composer.press_sequentially("andsecond")
    wide.finished()
    sent = said(backend)[0]  # Gradio reads the composer a moment after the key
    assert sent.startswith("first")
    expect(wide.composer).to_have_value("firstandsecond".removeprefix(sent))


def test_the_spoken_answer_stays_with_its_turn(app: App, visit: Open) -> None:
    can = Capabilities(model="scripted", engine="a script", outputs=frozenset({"text", "audio"}), voices=("ethan",))
    sound = AudioDelta(np.zeros(12_000, np.float32), 24_000)
    backend = ScriptedBackend((TextDelta("one"), sound), (TextDelta("two"), sound, sound), capabilities=can)
    backend.wait_until_ready()
    with serving(backend) as app:
        page = visit(app.url)
        for number, seconds in ((1, "0.5"), (2, "1.0")):
            page.say("Speak")
            page.finished(answers=number)
            expect(page.history.get_by_label(f"Spoken answer, {seconds} s")).to_be_visible()
        page.reload()
        expect(page.history.locator("audio")).to_have_count(2)
        page.page.close()
    backend.close()


def test_the_first_words_are_not_wiped_as_the_page_comes_up(page: Visit) -> None:
    page.composer.fill("Hi")
    page.page.evaluate("sessionStorage.removeItem('omni-draft')")
    # What the page does at its start with a composer that was empty a moment ago: nothing.
    assert page.page.evaluate("omni.kept({ text: '', files: [] })") == {"__type__": "update"}
    expect(page.composer).to_have_value("Hi")


def test_what_was_not_sent_survives_a_reload(page: Visit, backend: ScriptedBackend) -> None:
    talked(page, backend, 1)
    page.attach(EXAMPLES / "star.png", EXAMPLES / "tone.wav")
    page.composer.fill("half a thought")
    page.reload()
    expect(page.composer).to_have_value("half a thought")
    expect(page.page.locator("#omni-composer .thumbnail-item")).to_have_count(2)
    expect(page.history).to_contain_text("answer 1")
    page.send.click()
    page.finished(answers=2)
    assert said(backend) == ["question 1", "answer 1", "half a thought"]
    page.reload()
    expect(page.history.locator(".bot-row")).to_have_count(2)
    expect(page.composer).to_have_value("")


def test_a_server_that_goes_away_loses_nothing(wide: Visit, backend: ScriptedBackend) -> None:
    talked(wide, backend, 1)
    wide.composer.fill("half a thought")
    wide.page.context.set_offline(True)
    wide.composer.press("Enter")
    expect(wide.alert).to_contain_text("The server cannot be reached.")
    expect(wide.page.locator(".toast-body")).to_be_hidden()
    expect(wide.composer).to_have_value("half a thought")
    with wide.page.expect_navigation():
        wide.page.context.set_offline(False)
    expect(wide.composer).to_have_value("half a thought", timeout=30_000)
    expect(wide.history).to_contain_text("answer 1")
    wide.problems.clear()  # the browser itself notes requests that failed
