"""The sound of an answer on its way to the browser: its bytes, its tokens, its patience."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import pytest_asyncio
from starlette.applications import Starlette

from omni_backend import AudioDelta
from omni_ui import speech
from omni_ui.speech import SpeechDesk, SpeechStream

pytestmark = pytest.mark.asyncio

RATE = 24_000


def sound(samples: int, value: float = 0.5, rate: int = RATE) -> AudioDelta:
    return AudioDelta(np.full(samples, value, np.float32), rate)


async def heard(stream: SpeechStream) -> bytes:
    return b"".join([piece async for piece in stream.read()])


@pytest.fixture
def desk() -> SpeechDesk:
    return SpeechDesk()


@pytest_asyncio.fixture
async def client(desk: SpeechDesk) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Starlette(routes=[desk.route()]))
    async with httpx.AsyncClient(transport=transport, base_url="http://demo.test") as client:
        yield client


async def test_a_listener_hears_everything_whenever_it_comes() -> None:
    stream = SpeechStream()
    stream.write(sound(10, 0.25))
    early = asyncio.create_task(heard(stream))
    await asyncio.sleep(0)
    stream.write(sound(5, -1.0))
    stream.end()
    expected = np.array([8192] * 10 + [-32767] * 5, "<i2").tobytes()
    assert await early == expected
    assert await heard(stream) == expected


async def test_what_is_too_loud_is_clipped() -> None:
    stream = SpeechStream()
    stream.write(sound(2, 3.0))
    stream.end()
    assert np.frombuffer(await heard(stream), "<i2").tolist() == [32767, 32767]


async def test_nothing_is_added_after_the_end_and_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "MAX_SPEECH_SECONDS", 1.0)
    stream = SpeechStream()
    for _ in range(50):
        stream.write(sound(RATE // 10))
    assert stream.seconds == pytest.approx(1.0)
    stream.end()
    stream.write(sound(RATE // 10))
    assert len(await heard(stream)) == RATE * 2


async def test_it_is_kept_as_a_wav_file(tmp_path: Path) -> None:
    stream = SpeechStream()
    with pytest.raises(ValueError, match="nothing"):
        stream.save(tmp_path / "none.wav")
    assert not (tmp_path / "none.wav").exists()
    stream.write(sound(RATE, 0.5, rate=16_000))
    stream.save(tmp_path / "some.wav")
    with wave.open(str(tmp_path / "some.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        assert file.getnframes() == RATE


async def test_the_route_streams_the_sound(desk: SpeechDesk, client: httpx.AsyncClient) -> None:
    stream = SpeechStream()
    token = desk.mint(stream)
    listening = asyncio.create_task(client.get(f"/speech/{token}"))
    await asyncio.sleep(0)
    stream.write(sound(1000))
    stream.end()
    response = await listening
    assert response.status_code == 200
    assert response.headers["x-sample-rate"] == "24000"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["cache-control"] == "no-store"
    assert len(response.content) == 2000


async def test_a_token_is_good_once_and_cannot_be_guessed(desk: SpeechDesk, client: httpx.AsyncClient) -> None:
    stream = SpeechStream()
    token, other = desk.mint(stream), desk.mint(stream)
    assert token != other
    assert len(token) >= 32
    stream.write(sound(10))
    stream.end()
    assert (await client.get(f"/speech/{token}")).status_code == 200
    assert (await client.get(f"/speech/{token}")).status_code == 404
    assert (await client.get("/speech/guess")).status_code == 404


async def test_silence_so_far_means_ask_again(
    desk: SpeechDesk, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech, "FIRST_SOUND_SECONDS", 0.01)
    stream = SpeechStream()
    token = desk.mint(stream)
    assert (await client.get(f"/speech/{token}")).status_code == 202
    assert (await client.get(f"/speech/{token}")).status_code == 202
    stream.write(sound(10))
    stream.end()
    assert (await client.get(f"/speech/{token}")).status_code == 200


async def test_an_answer_without_sound_has_no_content(desk: SpeechDesk, client: httpx.AsyncClient) -> None:
    stream = SpeechStream()
    token = desk.mint(stream)
    stream.end()
    assert (await client.get(f"/speech/{token}")).status_code == 204


async def test_a_token_expires(desk: SpeechDesk, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = SpeechStream()
    token = desk.mint(stream)
    stream.write(sound(10))
    stream.end()
    monkeypatch.setattr(speech, "TOKEN_SECONDS", -1.0)
    assert (await client.get(f"/speech/{token}")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "http://demo.test"}, 200),
        ({"Origin": "http://evil.test"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_only_the_apps_own_page_may_listen(
    desk: SpeechDesk, client: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    stream = SpeechStream()
    token = desk.mint(stream)
    stream.write(sound(10))
    stream.end()
    assert (await client.get(f"/speech/{token}", headers=headers)).status_code == status
