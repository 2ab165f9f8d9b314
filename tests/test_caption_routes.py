"""A job's addresses over HTTP: what the page is shown, what it may do, and what others may not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from omni_backend import LANGUAGES, BackendUnavailable, Language, OutOfMemory, TextDelta, phrase
from omni_backend.caption import CaptionSettings
from omni_ui.captioner import views
from omni_ui.captioner.desk import DeskJob
from omni_ui.captioner.limits import EDIT_CHARS, ROWS
from omni_ui.captioner.routes import BODY_BYTES
from omni_ui.captioner.server import CaptionApp
from tests import conversations
from tests.caption_desks import SOUND, Maker, Named, captions, ended, states
from tests.caption_jobs import full_disk
from tests.conversations import FOREVER
from tests.media_files import sound_file
from tests.serving import captioning
from tests.waiting import wait_until

LONG = sound_file("wav", seconds=12.0)
NOBODY = "x" * 32
GONE = phrase("captioner.gone")
HOSTILE = """<img src=x onerror="alert('1')"> & 'so'"""


@pytest.fixture(scope="module")
def backend() -> Iterator[Named]:
    backend = Named(capabilities=conversations.TWO_AT_ONCE)
    backend.wait_until_ready()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def app(backend: Named, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaptionApp]:
    with captioning(backend, tmp_path_factory.mktemp("jobs")) as app:
        yield app


@pytest.fixture(scope="module")
def site(app: CaptionApp) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{app.url}captions/") as client:
        yield client


@pytest.fixture
def make(app: CaptionApp, backend: Named) -> Iterator[Maker]:
    """Makes jobs, which are gone after the test."""
    with closing(Maker(app.desk)) as make:
        yield make
    assert backend.active_requests == 0


@pytest.fixture
def stuck(make: Maker, backend: Named) -> DeskJob:
    """A job of two files, one captioned, while the other never ends."""
    backend.says("1.wav", TextDelta("Rain."))
    backend.says("2.wav", TextDelta("half"), FOREVER)
    job = make("1.wav", "2.wav")
    wait_until(lambda: "half" in job.work.live.values() and states(job)["1.wav"] == "done", "the captions")
    return job


def state(app: CaptionApp, job: DeskJob) -> object:
    """All that a request might change."""
    there = app.desk.get(job.id)
    return there and (there.running, there.store.wanted, there.store.items(), list(there.store.captioned_files()))


def error(reply: httpx.Response) -> str:
    assert reply.headers["cache-control"] == "no-store"
    return str(reply.json()["error"])


def act(site: httpx.Client, job: DeskJob, action: str, **about: Any) -> httpx.Response:
    return site.post(f"{job.id}/{action}", json=about)


# What is shown


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_board_speaks_the_readers_language(site: httpx.Client, make: Maker, language: Language) -> None:
    job = make("1.wav", "2.wav", said=("Rain.", "Wind."))
    reply = site.get(job.id, headers={"Accept-Language": language})
    board = reply.json()
    assert board == site.get(job.id, params={"lang": language}, headers={"Accept-Language": "fr"}).json()
    assert phrase("captioner.files_done", done=2).text(language) in board["summary"]
    for key in ("column_file", "column_state"):
        assert phrase(f"captioner.{key}").text(language) in board["heads"]
    for key in ("delete", "export", "format_vtt"):
        assert phrase(f"captioner.{key}").text(language) in board["controls"]
    assert [id for id, _ in board["rows"]] == [1, 2]
    assert "Rain." in board["rows"][0][1]
    assert (board["active"], board["open"]) == (False, None)
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["content-type"] == "application/json"


def test_nothing_new_is_not_sent_again(site: httpx.Client, make: Maker) -> None:
    job = ended(make("1.wav"))
    seen = site.get(job.id).headers["x-seen"]
    again = site.get(job.id, params={"seen": seen})
    assert (again.status_code, again.content) == (204, b"")
    assert site.get(job.id, params={"seen": seen, "lang": "zh"}).status_code == 200
    job.store.edit(1, 0, "Snow.")
    news = site.get(job.id, params={"seen": seen})
    assert news.status_code == 200
    assert "Snow." in news.text


def test_what_is_being_written_is_shown(site: httpx.Client, stuck: DeskJob) -> None:
    board = site.get(stuck.id, params={"item": 2}).json()
    assert board["active"]
    assert phrase("captioner.stop").text() in board["controls"]
    assert "half" in dict(board["open"]["rows"])[0]
    assert phrase("captioner.files_of", done=1, files=2).text() in board["summary"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_stopped_a_job_is_said(site: httpx.Client, make: Maker, backend: Named, language: Language) -> None:
    problem = BackendUnavailable(phrase("backend.load_failed"), detail="no such file")
    backend.says("1.wav", problem)
    job = ended(make("1.wav"))
    board = site.get(job.id, params={"lang": language}).json()
    assert problem.text(language) in board["summary"]
    assert "no such file" in board["summary"]
    assert phrase("captioner.stopped").text(language) in board["summary"]
    assert phrase("captioner.resume").text(language) in board["controls"]


def test_who_looks_at_a_job_keeps_it(site: httpx.Client, app: CaptionApp, make: Maker) -> None:
    job = ended(make("1.wav"))
    for method, path in (("GET", job.id), ("POST", f"{job.id}/resume")):
        for file in (job.store.folder, *job.store.folder.iterdir()):
            os.utime(file, (0, 0))
        assert site.request(method, path).status_code == 200
        assert app.desk.used_at(job) > 0


@pytest.mark.parametrize(
    "about", [{"item": "7"}, {"item": "-1"}, {"item": "x"}, {"item": "9" * 30}, {"page": "-1"}, {"page": "9" * 5000}]
)
def test_a_file_or_page_that_there_is_not_shows_the_table(
    site: httpx.Client, make: Maker, about: dict[str, str]
) -> None:
    job = ended(make("1.wav", "2.wav"))
    assert site.get(job.id, params=about).json() == site.get(job.id).json()


def test_many_files_come_in_pages(site: httpx.Client, app: CaptionApp, make: Maker, stuck: DeskJob) -> None:
    job = make(*(f"{number}.wav" for number in range(200)))
    app.desk.stop(job)
    board = site.get(job.id).json()
    assert [id for id, _ in board["rows"]] == list(range(1, ROWS + 1))
    assert phrase("captioner.page", page=1, pages=4).text() in board["pager"]
    last = site.get(job.id, params={"page": "3"}).json()
    assert [id for id, _ in last["rows"]] == list(range(151, 201))
    assert "199.wav" in last["rows"][-1][1]
    assert site.get(job.id, params={"page": "99"}).json() == last


def test_jobs_are_listed_for_those_who_know_them(site: httpx.Client, make: Maker) -> None:
    one, two = ended(make("one.wav", "more.wav")), ended(make("two.wav"))
    listed = site.get("", params={"ids": f"{two.id},{NOBODY},../..,{one.id}"}).json()
    assert listed["ids"] == [two.id, one.id]
    assert listed["html"].index("two.wav") < listed["html"].index("one.wav")
    assert site.get("", params={"ids": NOBODY}).json() == {"html": "", "ids": []}
    assert site.get("").json() == {"html": "", "ids": []}
    many = site.get("", params={"ids": ",".join([*[NOBODY] * 20, one.id])}).json()
    assert many["ids"] == []


def test_hostile_names_and_captions_are_text_everywhere(site: httpx.Client, make: Maker, backend: Named) -> None:
    problem = OutOfMemory(phrase("ui.file_gone", name=HOSTILE), detail=HOSTILE)
    backend.says(f"{HOSTILE}.wav", TextDelta(HOSTILE))
    backend.says(f"{HOSTILE}2.wav", problem)
    job = make(f"{HOSTILE}.wav", f"{HOSTILE}2.wav")
    ended(job).skipped = (HOSTILE,)
    job.work.problem = problem
    job.store.edit(1, 0, f"</textarea>{HOSTILE}")
    shown = [site.get(job.id, params={"item": item}).json() for item in (1, 2)]
    alone = make(f"{HOSTILE}.wav", said=(HOSTILE, HOSTILE), samples=2)
    shown += [site.get(alone.id).json(), *(site.get("", params={"ids": one.id}).json() for one in (job, alone))]
    pieces = [piece for board in shown for piece in strings(board) if "onerror" in piece]
    assert len(pieces) > 10
    for piece in pieces:
        assert "<img" not in piece
        assert "alert('" not in piece
        assert 'onerror="' not in piece
        assert "</textarea>&lt;img" not in piece


def strings(value: Any) -> Iterator[str]:
    """All texts in a piece of JSON."""
    match value:
        case str():
            yield value
        case list() | dict():
            for one in value.values() if isinstance(value, dict) else value:
                yield from strings(one)


# Who may not


@pytest.mark.parametrize("language", LANGUAGES)
def test_who_knows_no_job_gets_a_sentence(site: httpx.Client, language: Language) -> None:
    for id in (NOBODY, "x", "y" * 5000, "é" * 32, "%00", "%2e%2e"):
        for path in ("", "/export?formats=srt", "/sound/1"):
            reply = site.get(id + path, headers={"Accept-Language": language})
            assert (reply.status_code, error(reply)) == (404, GONE.text(language))
        for action in ("stop", "delete", "edit", "what"):
            reply = site.post(f"{id}/{action}", headers={"Accept-Language": language})
            assert (reply.status_code, error(reply)) == (404, GONE.text(language))


@pytest.mark.parametrize("path", ["%2e%2e%2f%2e%2e", "..%2fjobs", "%2fetc%2fpasswd", "x/sound/..%2f..%2fetc"])
def test_paths_lead_nowhere(site: httpx.Client, path: str) -> None:
    for reply in (site.get(path), site.post(f"{path}/stop"), site.get(f"{path}/sound/1")):
        assert reply.status_code in (404, 405)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1"},
    ],
)
def test_other_sites_are_refused(site: httpx.Client, app: CaptionApp, stuck: DeskJob, headers: dict[str, str]) -> None:
    before = state(app, stuck)
    for path in (stuck.id, f"{stuck.id}/export?formats=srt", f"{stuck.id}/sound/1", f"?ids={stuck.id}"):
        reply = site.get(path, headers=headers)
        assert (reply.status_code, reply.content) == (403, b"")
    for action in ("stop", "resume", "retry", "delete", "edit", "choose"):
        reply = site.post(f"{stuck.id}/{action}", json={"item": 1, "number": 0, "text": "mine"}, headers=headers)
        assert reply.status_code == 403
    assert state(app, stuck) == before


def test_the_page_itself_is_let_in(site: httpx.Client, app: CaptionApp, make: Maker) -> None:
    job = ended(make("1.wav"))
    own = app.url.rstrip("/")
    for headers in ({"Origin": own}, {"Sec-Fetch-Site": "same-origin", "Origin": own}):
        assert site.get(job.id, headers=headers).status_code == 200
        assert (
            site.post(f"{job.id}/edit", json={"item": 1, "number": 0, "text": "a"}, headers=headers).status_code == 200
        )


def test_a_server_that_ends_makes_no_page_forget_its_job(backend: Named, tmp_path: Path) -> None:
    with captioning(backend, tmp_path) as app:
        job = ended(
            app.desk.create([("1.wav", conversations.upload(app.desk.uploads, "1.wav", SOUND))], CaptionSettings())
        )
        app.end()
        for reply in (
            httpx.get(f"{app.url}captions/{job.id}"),
            httpx.get(f"{app.url}captions/?ids={job.id}"),
            httpx.post(f"{app.url}captions/{job.id}/stop"),
        ):
            assert (reply.status_code, error(reply)) == (503, phrase("captioner.ending").text())


def test_a_job_that_is_deleted_while_it_is_read_is_gone(
    site: httpx.Client, app: CaptionApp, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, board = ended(make("1.wav")), views.board

    def too_late(job: DeskJob, *args: Any, **kwargs: Any) -> dict[str, Any]:
        app.desk.delete(job)
        return board(job, *args, **kwargs)

    monkeypatch.setattr(views, "board", too_late)
    reply = site.get(job.id)
    assert (reply.status_code, error(reply)) == (404, GONE.text())


# What a person does


def test_stop_resume_and_delete(site: httpx.Client, app: CaptionApp, stuck: DeskJob, backend: Named) -> None:
    assert act(site, stuck, "stop").json() == {}
    assert (backend.active_requests, stuck.running) == (0, False)
    assert not site.get(stuck.id).json()["active"]
    assert act(site, stuck, "resume").status_code == 200
    assert captions(ended(stuck)) == {"1.wav": ["Rain."], "2.wav": ["ok"]}
    assert act(site, stuck, "delete").status_code == 200
    assert site.get(stuck.id).status_code == 404
    assert not stuck.store.folder.exists()


def test_what_failed_is_tried_again(site: httpx.Client, make: Maker, backend: Named) -> None:
    for name in ("1.wav", "2.wav", "3.wav"):
        backend.says(name, OutOfMemory(phrase("backend.failed")))
    job = ended(make("1.wav", "2.wav", "3.wav"))
    act(site, job, "retry", item=2)
    assert states(ended(job)) == {"1.wav": "failed", "2.wav": "done", "3.wav": "failed"}
    act(site, job, "retry")
    assert set(states(ended(job)).values()) == {"done"}


def test_captions_are_edited_chosen_and_restored(site: httpx.Client, make: Maker) -> None:
    job = make("1.wav", said=("Rain.", "Snow."), samples=2)
    assert act(site, job, "edit", item=1, number=0, text="Hail.\n<b>").status_code == 200
    assert captions(job) == {"1.wav": ["Hail.\n<b>"]}
    assert act(site, job, "choose", item=1, number=0, sample=1).status_code == 200
    assert captions(job) == {"1.wav": ["Snow."]}
    act(site, job, "edit", item=1, number=0, text="x" * EDIT_CHARS)
    act(site, job, "edit", item=1, number=0, text=None)
    assert captions(job) == {"1.wav": ["Snow."]}
    site.post(f"{job.id}/edit", content=rb'{"item": 1, "number": 0, "text": "half of a letter: \ud83d"}')
    assert captions(job) == {"1.wav": ["half of a letter: \ufffd"]}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_that_is_too_long_is_refused(site: httpx.Client, make: Maker, language: Language) -> None:
    job = ended(make("1.wav"))
    about = {"item": 1, "number": 0, "text": "长" * (EDIT_CHARS + 1)}
    reply = site.post(f"{job.id}/edit", params={"lang": language}, json=about)
    said = phrase("captioner.caption_too_long", limit=EDIT_CHARS).text(language)
    assert (reply.status_code, error(reply)) == (400, said)
    assert captions(job) == {"1.wav": ["ok"]}


BROKEN_BODIES = {
    "no JSON": b"{",
    "no UTF-8": b'{"item": "\xff"}',
    "a list": b"[1, 2]",
    "a text": b'"item"',
    "null": b"null",
    "a number": b"7",
    "deep": b"[" * 50_000,
    "deep object": b'{"item":' * 10_000,
    "too large": b'{"text": "' + b"x" * BODY_BYTES + b'"}',
    "long number": b'{"item": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("body", BROKEN_BODIES.values(), ids=BROKEN_BODIES)
def test_bodies_that_make_no_sense_change_nothing(
    site: httpx.Client, app: CaptionApp, stuck: DeskJob, body: bytes
) -> None:
    before = state(app, stuck)
    for action in ("stop", "resume", "retry", "delete", "edit", "choose"):
        reply = site.post(f"{stuck.id}/{action}", content=body)
        assert (reply.status_code, error(reply)) == (400, phrase("captioner.no_such_caption").text())
    assert state(app, stuck) == before


NO_NUMBERS: list[Any] = [-1, 7, 2**53, 2**60, 2**70, 0.5, 1.0, True, "1", "", None, [], {}, [1]]
NO_TEXTS: list[Any] = [0, 0.5, True, [], {}, ["text"]]


def test_values_that_make_no_sense_change_nothing(site: httpx.Client, app: CaptionApp, stuck: DeskJob) -> None:
    before = state(app, stuck)
    edit, choose = {"item": 1, "number": 0, "text": "mine"}, {"item": 1, "number": 0, "sample": 0}
    wrong: list[tuple[str, dict[str, Any]]] = [("edit", edit | {"text": text}) for text in NO_TEXTS]
    for number in NO_NUMBERS:
        wrong += [("edit", edit | {name: number}) for name in ("item", "number")]
        wrong += [("choose", choose | {name: number}) for name in choose]
        wrong += [("retry", {"item": number})] * (number is not None)
    wrong += [(action, {}) for action in ("edit", "choose")]
    wrong += [("edit", {"item": 2, "number": 0, "text": "too early"})]
    for action, body in wrong:
        reply = act(site, stuck, action, **body)
        assert (reply.status_code, error(reply)) == (400, phrase("captioner.no_such_caption").text()), (action, body)
    assert state(app, stuck) == before


def test_an_action_that_there_is_not(site: httpx.Client, app: CaptionApp, stuck: DeskJob) -> None:
    before = state(app, stuck)
    for action in ("export", "what", "__init__", "%2e%2e", "stop2"):
        assert site.post(f"{stuck.id}/{action}").status_code == 404
    assert site.get(f"{stuck.id}/stop").status_code == 405
    assert site.put(stuck.id).status_code == 405
    assert state(app, stuck) == before


def test_a_full_disk_is_said_and_the_caption_stays(site: httpx.Client, make: Maker) -> None:
    job = ended(make("1.wav"))
    with full_disk():
        reply = act(site, job, "edit", item=1, number=0, text="Hail.")
    assert (reply.status_code, error(reply)) == (500, phrase("caption.disk").text())
    assert captions(job) == {"1.wav": ["ok"]}
    assert json.loads(site.get(job.id).content)["active"] is False
