"""The captioner's endpoints over the real tiny checkpoint: it says of the examples what it was taught."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from gradio_client import Client, handle_file

from omni_backend import Backend, phrase
from omni_ui.captioner.server import CaptionApp
from tests.caption_client import batch, caption, client_of, nothing_left, written
from tests.given import zipped
from tests.serving import captioning

pytestmark = pytest.mark.engine

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "assets" / "examples"
TAUGHT: Final = {
    tuple(example["files"]): example["answer"] for example in json.loads((EXAMPLES / "captions.json").read_text())
}
"""Files → language → captions."""


@pytest.fixture(scope="module")
def app(engine: Backend, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaptionApp]:
    with captioning(engine, tmp_path_factory.mktemp("jobs"), embedded=True) as app:
        yield app


@pytest.fixture(scope="module")
def client(app: CaptionApp, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with client_of(app, tmp_path_factory.mktemp("exports")) as client:
        yield client
    nothing_left(app)


def test_a_clip_is_captioned_while_one_waits(client: Client) -> None:
    job = client.submit(sound=handle_file(str(EXAMPLES / "sounds.mp3")), window_seconds=5, api_name="/caption")
    outputs = list(job)
    taught = TAUGHT[("sounds.mp3",)]["en"]
    text, segments = outputs[-1]
    assert text == "\n\n".join(taught)
    assert [segment["caption"] for segment in segments] == taught
    assert [segment["index"] for segment in segments] == list(range(len(taught)))
    assert [segment["captions"] for segment in segments] == [[said] for said in taught]
    ends = [segment["end"] for segment in segments]
    assert [segment["start"] for segment in segments] == [0, *ends[:-1]]
    assert ends[-1] == pytest.approx(27.6, abs=0.1)
    growing = [said for said, none in outputs[:-1] if not none]
    assert growing[0] != text, "the text did not grow"
    assert [len(said) for said in growing] == sorted(len(said) for said in growing)
    assert all(text.startswith(said) for said in growing)


def test_chinese_captions_and_samples_to_choose_from(client: Client) -> None:
    text, segments = caption(client, EXAMPLES / "tone.wav", language="zh", samples=2, sampling={"temperature": 0})
    [said] = TAUGHT[("tone.wav",)]["zh"]
    assert text == said
    assert [segment["captions"] for segment in segments] == [[said, said]]


def test_many_files_are_captioned_and_exported(client: Client, tmp_path: Path) -> None:
    names = ("sweep.wav", "tone.wav", "word.wav", "film.mp4")
    archive = bytes(zipped(("a/tone.wav", (EXAMPLES / "tone.wav").read_bytes()), ("a/bad.wav", b"no sound")))
    files = [*(EXAMPLES / name for name in names), written(tmp_path, "more.zip", archive)]
    state, exports = batch(client, *files, formats=["jsonl", "srt"])
    assert {name: state[name] for name in ("files", "done", "failed")} == {"files": 6, "done": 5, "failed": 1}
    [(bad, sentence)] = state["errors"].items()
    assert bad == "more/a/bad.wav"
    assert sentence == phrase("media.unknown", name=bad).text()
    with zipfile.ZipFile(exports) as zipped_exports:
        assert zipped_exports.testzip() is None
        lines = [json.loads(line) for line in zipped_exports.read("captions.jsonl").decode().splitlines()]
        assert "Someone says music." in zipped_exports.read("word.srt").decode()
    taught = dict(zip(names, TAUGHT[names]["en"], strict=True)) | {"more/a/tone.wav": "A high tone."}
    assert {line["file"]: line["caption"] for line in lines} == taught
