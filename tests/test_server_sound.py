"""Sound to and from servers."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from omni_backend import AudioDelta, GenerationFailed
from omni_backend.server_sound import SoundStream
from omni_backend.wav import wav
from tests.media_files import SOUNDS, sound_file, tone

RATE = 24_000
SOUND = tone(440, 0.1, RATE)


def heard(pieces: Iterable[bytes], rate: int | None = None) -> tuple[NDArray[np.float32], int]:
    """The whole waveform and its one rate."""
    stream = SoundStream()
    deltas = [delta for piece in pieces for delta in stream.feed(base64.b64encode(piece).decode(), rate)]
    return joined(deltas)


def joined(deltas: Sequence[AudioDelta]) -> tuple[NDArray[np.float32], int]:
    assert all(delta.pcm.dtype == np.float32 and delta.pcm.ndim == 1 and delta.pcm.size for delta in deltas)
    [rate] = {delta.sample_rate for delta in deltas}
    return np.concatenate([delta.pcm for delta in deltas]), rate


def pcm16(samples: NDArray[np.float32]) -> bytes:
    return (samples * 32767).round().astype("<i2").tobytes()


def decoded(data: bytes) -> NDArray[np.float32]:
    """What FFmpeg hears."""
    with av.open(io.BytesIO(data), "r") as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        frames = [piece for frame in container.decode(audio=0) for piece in resampler.resample(frame)]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)


def test_an_exact_wav_loses_nothing() -> None:
    loud = SOUND * 5  # beyond what integers hold
    assert np.array_equal(decoded(wav(loud, RATE, exact=True)), loud)


def test_a_plain_wav_is_sixteen_bits_and_never_wraps() -> None:
    back = decoded(wav(SOUND * 5, RATE, exact=False))
    assert np.abs(back - np.clip(SOUND * 5, -1, 1)).max() < 1 / 16_000


@pytest.mark.parametrize("exact", [True, False])
def test_wav_cut_anywhere(exact: bool) -> None:
    whole = wav(SOUND, RATE, exact=exact)
    for cut in range(1, 80):
        samples, rate = heard([whole[:cut], whole[cut:]])
        assert rate == RATE
        assert np.abs(samples - SOUND).max() < 1 / 16_000, cut


def test_wav_byte_by_byte() -> None:
    whole = wav(SOUND[:50], RATE, exact=False)
    samples, _ = heard(whole[k : k + 1] for k in range(len(whole)))
    assert samples.size == 50


def test_each_piece_a_whole_wav() -> None:
    pieces = [wav(part, 16_000, exact=False) for part in np.split(SOUND, 4)]
    samples, rate = heard(pieces)
    assert rate == 16_000
    assert np.abs(samples - SOUND).max() < 1 / 16_000


def test_two_wavs_in_one_piece() -> None:
    samples, _ = heard([wav(SOUND, RATE, exact=False) * 2])
    assert samples.size == 2 * SOUND.size


def test_a_header_that_does_not_know_the_length_then_raw_pieces() -> None:
    whole = bytearray(wav(SOUND, 22_050, exact=False))
    whole[40:44] = b"\xff\xff\xff\xff"
    samples, rate = heard([bytes(whole[:44]), *(bytes(whole[k : k + 333]) for k in range(44, len(whole), 333))])
    assert rate == 22_050
    assert samples.size == SOUND.size


def test_notes_after_the_sound_are_not_played() -> None:
    whole = wav(SOUND, RATE, exact=False) + b"LIST" + (26).to_bytes(4, "little") + b"INFOISFT" + b"x" * 18
    samples, _ = heard([whole])
    assert samples.size == SOUND.size


@pytest.mark.parametrize("size", [1, 2, 3, 1001])
def test_raw_samples_cut_in_two(size: int) -> None:
    data = pcm16(SOUND)
    samples, rate = heard(data[k : k + size] for k in range(0, len(data), size))
    assert rate == RATE
    assert np.abs(samples - SOUND).max() < 1 / 16_000


def test_raw_at_the_rate_that_the_server_says() -> None:
    assert heard([pcm16(SOUND)] * 2, rate=48_000)[1] == 48_000


@pytest.mark.parametrize("kind", [name for name in SOUNDS if name.startswith("wav")])
def test_every_kind_of_wav(kind: str) -> None:
    channels = [1.0] * 6 if kind == "wav-6ch" else None
    samples, rate = heard([sound_file(kind, seconds=0.5, channels=channels)])
    assert rate == SOUNDS[kind].rate
    assert samples.size == rate // 2
    assert np.abs(samples).max() == pytest.approx(0.4, abs=0.01)


def test_eight_bits() -> None:
    whole = bytearray(wav(SOUND, RATE, exact=False))
    whole[34:36] = (8).to_bytes(2, "little")
    whole[44:] = bytes(128 + round(100 * value) for value in SOUND)
    whole[40:44] = SOUND.size.to_bytes(4, "little")
    assert np.abs(heard([bytes(whole)])[0] - SOUND * 100 / 128).max() < 0.01


def test_a_data_url_is_sound_too() -> None:
    piece = "data:audio/wav;base64," + base64.b64encode(wav(SOUND, RATE, exact=False)).decode()
    assert joined(SoundStream().feed(piece))[0].size == SOUND.size


def test_what_is_no_number_is_silence_and_nothing_is_too_loud() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 3.0], np.float32)
    samples, _ = heard([wav(odd, RATE, exact=True)])
    assert np.array_equal(samples, np.array([0, 1, -1, 1], np.float32))


@pytest.mark.parametrize(
    "piece",
    [
        "not base64!",
        base64.b64encode(b"OggS and so on").decode(),
        base64.b64encode(b"RIFF\0\0\0\0WAVEdata\0\0\0\0").decode(),
        base64.b64encode(wav(SOUND, RATE, exact=False)[:20] + b"\x55\0" + b"\0" * 30).decode(),
    ],
    ids=["no base64", "compressed", "no format", "a format that nobody asked for"],
)
def test_what_cannot_be_played_is_said(piece: str) -> None:
    with pytest.raises(GenerationFailed, match="cannot be played") as caught:
        SoundStream().feed(piece)
    assert caught.value.detail
