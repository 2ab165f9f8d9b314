"""The sounds and the exports of a caption job over HTTP."""

from __future__ import annotations

import csv
import html
import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import httpx
import numpy as np
import pysubs2
import pytest
import webvtt

from omni_backend import LANGUAGES, Language, MediaPart, OutOfMemory, ScriptedBackend, phrase
from omni_backend.caption import CaptionSettings
from omni_backend.caption.exports import FORMATS
from omni_backend.media import MediaLoader
from omni_ui.captioner.desk import DeskJob
from omni_ui.captioner.server import CaptionApp
from tests import conversations
from tests.caption_desks import SOUND, Maker, ended
from tests.caption_jobs import full_disk
from tests.media_files import film_file, pitch, sound_file
from tests.serving import captioning
from tests.waiting import wait_until

LONG = sound_file("wav", seconds=12.0)
SAID = ("Rain.", "Wind & <i>hail</i>.", "雨。")


@pytest.fixture(scope="module")
def backend() -> Iterator[ScriptedBackend]:
    backend = ScriptedBackend()
    backend.wait_until_ready()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def app(backend: ScriptedBackend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaptionApp]:
    with captioning(backend, tmp_path_factory.mktemp("jobs")) as app:
        yield app


@pytest.fixture(scope="module")
def site(app: CaptionApp) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{app.url}captions/") as client:
        yield client


@pytest.fixture
def make(app: CaptionApp) -> Iterator[Maker]:
    """Makes jobs, which are gone after the test."""
    with closing(Maker(app.desk)) as make:
        yield make


@pytest.fixture
def same_uploads(app: CaptionApp) -> Iterator[None]:
    """What was made to be handed out is gone soon after the test."""
    before = set(app.desk.uploads.iterdir())
    yield
    wait_until(lambda: set(app.desk.uploads.iterdir()) == before, "the end of what was handed out")


# Sounds


def test_a_sound_comes_as_it_was_given_and_in_parts(site: httpx.Client, make: Maker) -> None:
    path = f"{ended(make('1.wav')).id}/sound/1"
    whole = site.get(path)
    assert (whole.status_code, whole.content) == (200, SOUND)
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-type"] == "audio/wav"
    part = site.get(path, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, SOUND[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(SOUND)}"
    assert site.get(path, headers={"Range": "bytes=-10"}).content == SOUND[-10:]
    assert site.get(path, headers={"Range": f"bytes={len(SOUND)}-"}).status_code == 416
    head = site.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(SOUND)), b"")


@pytest.mark.parametrize("name", ["page.html", "page.svg", "page.xhtml", "page.js", "page.txt", "page", "page.wav"])
def test_no_upload_is_a_page(site: httpx.Client, make: Maker, name: str) -> None:
    job = ended(make(name, contents=b"<script>alert(1)</script>"))
    reply = site.get(f"{job.id}/sound/1")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == ("audio/wav" if name == "page.wav" else "application/octet-stream")
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["content-security-policy"] == "sandbox"
    assert reply.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("item", ["0", "2", "-1", "x", "1x", "9" * 15, "9" * 30, "9" * 5000, "²"])
def test_a_sound_that_there_is_not(site: httpx.Client, make: Maker, item: str) -> None:
    job = ended(make("1.wav"))
    for query in ("", "?as=preview"):
        assert site.get(f"{job.id}/sound/{item}{query}").status_code == 404


def test_what_never_was_a_file_has_no_sound(site: httpx.Client, make: Maker) -> None:
    job = ended(make("broken.zip", "1.wav", contents=(b"PK\x03\x04 broken", SOUND)))
    [refused] = job.store.items(state="failed")
    assert site.get(f"{job.id}/sound/{refused.id}").status_code == 404


HARD = {
    "film.mp4": film_file("mp4", seconds=2.0),
    "film.avi": film_file("avi", seconds=2.0),
    "six.wav": sound_file("wav-6ch", seconds=2.0),
    "old.aiff": sound_file("aiff", seconds=2.0),
    "wrong ending.mp3": sound_file("flac", seconds=2.0),
}


@pytest.mark.parametrize("name", HARD)
def test_what_browsers_cannot_play_comes_as_aac(site: httpx.Client, make: Maker, tmp_path: Path, name: str) -> None:
    job = ended(make(name, contents=HARD[name]))
    reply = site.get(f"{job.id}/sound/1", params={"as": "preview"})
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "audio/mp4"
    with av.open(io.BytesIO(reply.content)) as container:
        [stream] = container.streams
        assert isinstance(stream, av.AudioStream)
        assert (stream.codec_context.name, stream.rate, stream.channels) == ("aac", 16_000, 1)
    (tmp_path / "sound.m4a").write_bytes(reply.content)
    waveform = MediaLoader().audio(MediaPart("audio", str(tmp_path / "sound.m4a")))
    assert waveform.size / 16_000 == pytest.approx(2.0, abs=0.2)
    assert pitch(waveform) == pytest.approx(440, abs=5)
    assert np.abs(waveform).max() > 0.1
    part = site.get(f"{job.id}/sound/1", params={"as": "preview"}, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, reply.content[10:20])


def test_a_preview_is_made_once(site: httpx.Client, make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ended(make("old.aiff", contents=HARD["old.aiff"]))
    first = site.get(f"{job.id}/sound/1", params={"as": "preview"}).content
    monkeypatch.setattr("omni_ui.captioner.preview.sound_loader", None)
    assert site.get(f"{job.id}/sound/1", params={"as": "preview"}).content == first


@pytest.mark.parametrize("contents", [b"", b"no sound at all", HARD["old.aiff"][:30]])
def test_a_broken_file_has_no_preview_and_leaves_nothing(site: httpx.Client, make: Maker, contents: bytes) -> None:
    job = ended(make("broken.aiff", contents=contents))
    assert site.get(f"{job.id}/sound/1", params={"as": "preview"}).status_code == 404
    assert not [path for path in job.store.folder.iterdir() if path.name.startswith("preview")]


def test_a_full_disk_leaves_no_half_preview(site: httpx.Client, make: Maker) -> None:
    job = ended(make("old.aiff", contents=HARD["old.aiff"]))
    with full_disk():
        assert site.get(f"{job.id}/sound/1", params={"as": "preview"}).status_code == 404
    assert not [path for path in job.store.folder.iterdir() if path.name.startswith("preview")]
    assert site.get(f"{job.id}/sound/1", params={"as": "preview"}).status_code == 200


# Exports


@pytest.fixture
def job(make: Maker) -> DeskJob:
    """One file with three captions."""
    return make("rain/roof.wav", said=SAID, contents=LONG, window_seconds=5.0)


def export(site: httpx.Client, job: DeskJob, *formats: str) -> tuple[str, bytes]:
    """What the download is called, and what is in it."""
    files = set(job.store.folder.iterdir())
    reply = site.get(f"{job.id}/export", params={"formats": formats})
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert set(job.store.folder.iterdir()) == files
    return reply.headers["content-disposition"], reply.content


def unzipped(content: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_one_file_in_one_format_comes_as_it_is(site: httpx.Client, job: DeskJob, same_uploads: None) -> None:
    name, content = export(site, job, "srt")
    assert name == 'attachment; filename="roof.srt"'
    cues = pysubs2.SSAFile.from_string(content.decode(), "srt")
    assert [cue.plaintext for cue in cues] == ["Rain.", "Wind & ＜i＞hail＜/i＞.", "雨。"]
    assert cues[0].start == 0
    name, content = export(site, job, "vtt")
    assert name == 'attachment; filename="roof.vtt"'
    texts = [html.unescape(cue.text) for cue in webvtt.from_string(content.decode()).captions]
    assert texts == ["Rain.", "Wind & <i>hail</i>.", "雨。"]
    name, content = export(site, job, "txt")
    assert name == 'attachment; filename="roof.txt"'
    assert "Wind & <i>hail</i>." in content.decode()


def test_tables_of_many_files_come_as_they_are(site: httpx.Client, make: Maker) -> None:
    job = make("a.wav", "b/c.wav", said=("=Rain.", 'Wi"nd,\nhail'))
    name, content = export(site, job, "csv")
    assert name == 'attachment; filename="captions.csv"'
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    assert [(row["file"], row["caption"]) for row in rows] == [("a.wav", "=Rain."), ("b/c.wav", 'Wi"nd,\nhail')]
    name, content = export(site, job, "jsonl")
    assert name == 'attachment; filename="captions.jsonl"'
    assert [json.loads(line)["caption"] for line in content.decode().splitlines()] == ["=Rain.", 'Wi"nd,\nhail']


def test_what_was_edited_is_exported(site: httpx.Client, job: DeskJob) -> None:
    job.store.edit(1, 1, "Hail.")
    assert "Hail." in export(site, job, "txt")[1].decode()


def test_everything_else_comes_in_an_archive(site: httpx.Client, make: Maker, job: DeskJob) -> None:
    name, content = export(site, job, *FORMATS, "what")
    assert name == 'attachment; filename="captions.zip"'
    texts = unzipped(content)
    assert set(texts) == {"rain/roof.txt", "captions.jsonl", "captions.csv", "rain/roof.srt", "rain/roof.vtt"}
    two = make("a.wav", "b/c.wav", said=("Rain.", "Wind."))
    name, content = export(site, two, "txt")
    assert name == 'attachment; filename="captions.zip"'
    assert unzipped(content) == {"a.txt": "Rain.\n", "b/c.txt": "Wind.\n"}


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("雨 声.wav", "filename*=utf-8''%E9%9B%A8%20%E5%A3%B0.txt"),
        ('a"b\r\nX-Evil: 1.wav', "filename*=utf-8''a_b__X-Evil_%201.txt"),
        ("con.wav", 'filename="_con.txt"'),
    ],
)
def test_downloads_have_names_that_every_system_takes(
    site: httpx.Client, app: CaptionApp, name: str, called: str
) -> None:
    given = (name, conversations.upload(app.desk.uploads, "1.wav", SOUND))
    job = ended(app.desk.create([given], CaptionSettings()))
    assert export(site, job, "txt") == (f"attachment; {called}", b"ok\n")
    app.desk.delete(job)


def test_no_format_and_unknown_ones(site: httpx.Client, job: DeskJob) -> None:
    for query in ("", "?formats=", "?formats=exe", "?formats=../srt", "?format=srt"):
        assert site.get(f"{job.id}/export{query}").status_code == 400


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_file_without_captions_has_nothing_to_export(
    site: httpx.Client, make: Maker, backend: ScriptedBackend, language: Language
) -> None:
    backend.enqueue(OutOfMemory(phrase("backend.failed")))
    job = ended(make("1.wav"))
    reply = site.get(f"{job.id}/export", params={"formats": "srt", "lang": language})
    assert (reply.status_code, reply.json()) == (404, {"error": phrase("captioner.nothing_to_export").text(language)})
    assert export(site, job, "jsonl")[1] == b""
    assert unzipped(export(site, job, "srt", "vtt")[1]) == {}


@pytest.mark.parametrize("asked", ["bytes=0-3", "bytes=99999999-", "bytes=x", "lines=1-2"])
def test_parts_of_exports_leave_nothing_behind(
    site: httpx.Client, job: DeskJob, same_uploads: None, asked: str
) -> None:
    reply = site.get(f"{job.id}/export", params={"formats": "srt"}, headers={"Range": asked})
    assert reply.status_code in (206, 400, 416)
    assert site.head(f"{job.id}/export", params={"formats": "srt"}).status_code == 200


def test_a_full_disk_leaves_no_half_export(site: httpx.Client, job: DeskJob, same_uploads: None) -> None:
    with full_disk():
        reply = site.get(f"{job.id}/export", params={"formats": "srt"})
    assert (reply.status_code, reply.json()["error"]) == (500, phrase("caption.disk").text())
