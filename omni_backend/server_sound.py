"""Sound as servers send it: streamed base64 of WAV or raw PCM to waveforms. Pure."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omni_backend.catalogue import phrase
from omni_backend.errors import GenerationFailed
from omni_backend.types import AudioDelta
from omni_backend.wav import FLOAT, PCM

SAMPLE_RATE: Final = 24_000  # Hz of sound that comes without a header: code2wav's, and OpenAI's pcm16

_EXTENSIBLE: Final = 0xFFFE  # the real format stands in the first two bytes of a longer header's sub-format
_ENDLESS: Final = (0, 0xFFFFFFFF, 0x7FFFFFFF)  # lengths of a header that was written before the sound was known
_OTHERS: Final = (b"OggS", b"fLaC", b"ID3")  # compressed sound, which nobody asked for


class _Kind(NamedTuple):
    """How the samples of a stream are written."""

    code: int = PCM
    channels: int = 1
    rate: int = SAMPLE_RATE
    bits: int = 16

    @property
    def frame(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * self.bits // 8


class SoundStream:
    """Base64 pieces → waveforms. Each piece may be a whole WAV, a part of one, or raw little-endian PCM.

    Samples that are cut in two by the end of a piece are held back until the rest comes.
    """

    def __init__(self) -> None:
        self._kind = _Kind()
        self._held = b""
        self._begun = False
        self._left: int | None = None  # bytes of sound that the last header still promises; None: no end known

    def feed(self, piece: str, rate: int | None = None) -> list[AudioDelta]:
        """The sound that `piece` completes. `rate`: of raw PCM where the server says it, in Hz.

        Raises GenerationFailed for what is neither base64 nor sound of these kinds.
        """
        if rate and rate != self._kind.rate and not self._held and self._left is None:
            self._kind = self._kind._replace(rate=rate)
        data = self._held + _decoded(piece)
        self._held = b""
        if not self._begun and data.startswith(_OTHERS):
            raise GenerationFailed(phrase("server.bad_sound"), detail=f"sound begins with {data[:4]!r}")
        self._begun = self._begun or bool(data)
        deltas: list[AudioDelta] = []
        while data:
            if data.startswith(b"RIFF") or (len(data) < 4 and b"RIFF".startswith(data)):
                start = self._header(data)
                if start is None:
                    self._held = data
                    break
                data = data[start:]
                continue
            sound, data = self._split(data)
            pcm = _samples(sound, self._kind)
            if pcm.size:
                deltas.append(AudioDelta(pcm, self._kind.rate))
            if not sound:
                self._held = data
                break
        return deltas

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """Whole samples at the beginning of `data`, and the rest."""
        size = len(data) if self._left is None else min(len(data), self._left)
        size -= size % self._kind.frame
        if self._left is None:
            return data[:size], data[size:]
        self._left -= size
        if self._left >= self._kind.frame:
            return data[:size], data[size:]
        # The WAV is over. What follows in the same piece is its notes, unless it is the next WAV.
        self._left = None
        after = data.find(b"RIFF", size)
        return data[:size], data[after:] if after >= 0 else b""

    def _header(self, data: bytes) -> int | None:
        """Reads a WAV header; where the sound begins, or None when the header is not complete."""
        position = 12
        kind: _Kind | None = None
        while position + 8 <= len(data):
            name, size = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
            position += 8
            if name == b"data":
                if kind is None:
                    raise GenerationFailed(phrase("server.bad_sound"), detail="a WAV without a format")
                self._kind, self._left = kind, None if size in _ENDLESS else size
                return position
            if position + size > len(data):
                return None
            if name == b"fmt ":
                kind = _format(data[position : position + size])
            position += size + size % 2
        return None


def _format(head: bytes) -> _Kind:
    if len(head) < 16:
        raise GenerationFailed(phrase("server.bad_sound"), detail=f"a WAV format of {len(head)} bytes")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", head)
    if code == _EXTENSIBLE and len(head) >= 26:
        code = int.from_bytes(head[24:26], "little")
    known = (code == PCM and bits in (8, 16, 24, 32)) or (code == FLOAT and bits in (32, 64))
    if not known or not channels or not rate:
        raise GenerationFailed(
            phrase("server.bad_sound"), detail=f"WAV format {code}, {bits} bits, {channels} channels, {rate} Hz"
        )
    return _Kind(code, channels, rate, bits)


def _decoded(piece: str) -> bytes:
    """The bytes of base64, with or without the head of a data URL."""
    if piece.startswith("data:"):
        piece = piece.partition(",")[2]
    try:
        return base64.b64decode(piece, validate=True)
    except (binascii.Error, ValueError) as error:
        raise GenerationFailed(phrase("server.bad_sound"), detail=repr(error)) from error


def _samples(data: bytes, kind: _Kind) -> NDArray[np.float32]:
    """Mono float32 within [-1, 1]."""
    flat: NDArray[Any]
    if kind.code == FLOAT:
        flat = np.frombuffer(data, f"<f{kind.bits // 8}")
    elif kind.bits == 8:
        flat = (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    elif kind.bits == 24:
        padded = np.zeros((len(data) // 3, 4), np.uint8)
        padded[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        flat = padded.view("<i4")[:, 0] / 2.0**31
    else:
        flat = np.frombuffer(data, f"<i{kind.bits // 8}") / 2.0 ** (kind.bits - 1)
    mono: NDArray[np.float32] = flat.reshape(-1, kind.channels).mean(axis=1).astype(np.float32)
    return np.nan_to_num(mono).clip(-1, 1)
