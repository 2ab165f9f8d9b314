"""The spoken answer while it is being written: from the turn to one listening browser.

The sound is kept once, as it grows. The listener reads it from the start at its own pace, so a slow browser
costs no memory beyond the answer itself, which is kept until nobody can ask for it. Knows nothing of gradio.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import wave
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from omni_backend import AudioDelta
from omni_ui.origin import same_origin

MAX_SPEECH_SECONDS: Final = 600.0
"""What is kept of one answer: twice what the talker can say, 29 MB at 24 kHz."""
FIRST_SOUND_SECONDS: Final = 20.0
"""How long one request waits for the first sound; proxies give up after 60 s without a header."""
TOKEN_SECONDS: Final = 60.0
"""How long a token is good for after its answer has ended."""
PIECE_BYTES: Final = 48_000
"""What is sent at once: a second at 24 kHz, so that a lost listener is noticed soon."""


class SpeechStream:
    """One answer's sound: mono, 16 bit. Written and read on one event loop."""

    def __init__(self) -> None:
        self.sample_rate: int | None = None
        """Hz; None until the first sound."""
        self.ended = False
        self.ended_at = 0.0
        self._pcm = bytearray()
        self._bytes = 0
        self._news = asyncio.Event()

    @property
    def seconds(self) -> float:
        """How much has been said."""
        return self._bytes / 2 / self.sample_rate if self.sample_rate else 0.0

    def write(self, delta: AudioDelta) -> None:
        """Adds more sound; what is beyond MAX_SPEECH_SECONDS is dropped."""
        if self.sample_rate is None:
            self.sample_rate = delta.sample_rate
        if not self.ended and self.seconds < MAX_SPEECH_SECONDS:
            self._pcm += _int16(delta.pcm).tobytes()
            self._bytes = len(self._pcm)
            self._wake()

    def end(self) -> None:
        """No more sound will come. Further calls do nothing."""
        if not self.ended:
            self.ended, self.ended_at = True, time.monotonic()
            self._wake()

    def release(self) -> None:
        """Lets go of an ended sound's memory, from any thread. Whoever is listening hears it to its end."""
        self._pcm = bytearray()

    async def started(self, within: float) -> bool:
        """Waits for the first sound or the end, `within` seconds at most; whether there is sound."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not self._pcm and not self.ended:
                    await self._news.wait()
        return bool(self._pcm)

    async def read(self) -> AsyncGenerator[bytes, None]:
        """All the sound from its beginning, as it comes: little-endian int16."""
        position, pcm = 0, self._pcm
        while True:
            while position < len(pcm):
                piece = bytes(pcm[position : position + PIECE_BYTES])
                position += len(piece)
                yield piece
            if self.ended:
                return
            await self._news.wait()

    def save(self, path: Path) -> None:
        """Writes the sound as a WAV file. Raises ValueError when nothing was said or it was released."""
        if self.sample_rate is None or not self._pcm:
            raise ValueError("nothing was said, or nothing is left of it")
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(self.sample_rate)
            file.writeframes(bytes(self._pcm))

    def _wake(self) -> None:
        waiting, self._news = self._news, asyncio.Event()
        waiting.set()


class SpeechDesk:
    """Hands out tokens for sounds and serves `GET /speech/{token}`. A token plays its sound once."""

    def __init__(self) -> None:
        self._waiting: dict[str, SpeechStream] = {}

    def mint(self, stream: SpeechStream) -> str:
        """A new unguessable token for `stream`."""
        self._forget_old()
        token = secrets.token_urlsafe(24)
        self._waiting[token] = stream
        return token

    def route(self) -> Route:
        """The route to add to the app.

        200: the sound as it comes, its rate in `X-Sample-Rate`. 202: no sound yet, ask again. 204: there was none.
        403: asked from another site. 404: the token is unknown, used or too old.
        """
        return Route("/speech/{token}", self._serve, methods=["GET"])

    async def _serve(self, request: Request) -> Response:
        if not same_origin(request):
            return Response(status_code=403)
        self._forget_old()
        token = request.path_params["token"]
        stream = self._waiting.pop(token, None)
        if stream is None:
            return Response(status_code=404)
        headers = {"Cache-Control": "no-store"}
        if not await stream.started(FIRST_SOUND_SECONDS):
            if stream.ended:
                return Response(status_code=204, headers=headers)
            self._waiting[token] = stream
            return Response(status_code=202, headers=headers)
        headers |= {"X-Accel-Buffering": "no", "X-Sample-Rate": str(stream.sample_rate)}
        return StreamingResponse(stream.read(), media_type="application/octet-stream", headers=headers)

    def _forget_old(self) -> None:
        oldest = time.monotonic() - TOKEN_SECONDS
        for token in [token for token, stream in self._waiting.items() if stream.ended and stream.ended_at < oldest]:
            del self._waiting[token]


def _int16(pcm: NDArray[np.float32]) -> NDArray[np.int16]:
    return (np.clip(pcm, -1.0, 1.0) * 32767.0).round().astype("<i2")
