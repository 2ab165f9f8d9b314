"""A scripted OpenAI-compatible server on a real socket of this machine, in the shapes that real ones have.

It plays one script for each chat completion, in the order in which they were enqueued, then `HELLO`.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from omni_backend import AudioDelta, Done, ReasoningDelta, TextDelta, Usage
from omni_backend.wav import wav
from tests.waiting import wait_until

SoundShape = Literal["content", "delta.audio", "second choice", "message"]
"""Where sound stands: vLLM-Omni's place, OpenAI's, older vLLM-Omni's, or all of it in a last message."""

TURN_TOKENS: Final = 5  # that end a turn and open the next
PICTURE_TOKENS: Final = 7
SOUND_TOKENS: Final = 13


@dataclass(frozen=True, slots=True)
class Refusal:
    """Answers the request with an HTTP error."""

    status: int
    message: str = "no"


@dataclass(frozen=True, slots=True)
class Drop:
    """Breaks the connection off."""


Step = TextDelta | ReasoningDelta | AudioDelta | Done | float | dict[str, Any] | bytes | Refusal | Drop
"""What to play: an event in this server's shape, seconds to wait, a chunk or a line as it is, or a fault."""


HELLO: Final[tuple[Step, ...]] = (
    TextDelta("Hel"),
    TextDelta("lo."),
    AudioDelta(np.full(1920, 0.1, np.float32), 24_000),
)


@dataclass
class Nature:
    """What kind of server it is."""

    owner: str = "vllm"
    models: tuple[str, ...] = ("tiny",)
    root: str | None = None
    max_model_len: int | None = 8192
    prefix: str = "/v1"
    key: str | None = None
    takes: frozenset[str] = frozenset({"image_url", "video_url", "input_audio", "audio_url"})
    float_sound: bool = True
    media_arguments: Literal["trusted", "refused", "ignored"] = "trusted"
    files: bool = False
    """Whether it reads `file://` addresses."""
    speaks: SoundShape | None = "content"
    voices: tuple[str, ...] | None = None
    """The voices that it lists; None: it lists none. Others are refused if it lists some."""
    knows: frozenset[str] | None = None
    """The arguments that it knows; others are refused. None: it reads over those it does not know."""
    continues: Literal["always", "continue_final_message", "partial", None] = "continue_final_message"
    """When it goes on with a last message of the assistant's; else it opens another turn."""
    reasoning: Literal["reasoning", "reasoning_content", "<think>", None] = None
    unready: int = 0
    """How often it says that it is still starting."""
    only: dict[str, Any] = field(default_factory=dict)
    """Paths and what to answer there instead: a Response."""


class FakeServer:
    """`requests`: the bodies that came in. `active`: answers under way. `cancelled`: those that were left."""

    def __init__(self, nature: Nature | None = None) -> None:
        self.nature = nature or Nature()
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.active = 0
        self.cancelled = 0
        self._scripts: deque[tuple[Step, ...]] = deque()
        self._socket = _bound(0)
        self.port = int(self._socket.getsockname()[1])
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.nature.prefix}"

    def enqueue(self, *steps: Step) -> None:
        """The script of one more answer. Without a Done it ends with one of its own."""
        self._scripts.append(steps)

    def start(self) -> None:
        """Listens; also again, on the same port, after it was stopped."""
        if self._socket.fileno() == -1:
            self._socket = _bound(self.port)
        config = uvicorn.Config(self._app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = server = uvicorn.Server(config)
        self._thread = threading.Thread(target=server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        wait_until(lambda: server.started, "the fake server")

    def stop(self) -> None:
        """Ends at once, answers under way included."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join()
            self._server = None
        self._socket.close()

    def _app(self) -> Starlette:
        prefix = self.nature.prefix
        return Starlette(
            routes=[
                Route(f"{prefix}/models", self._models),
                Route(f"{prefix}/audio/voices", self._voices),
                Route(f"{prefix}/chat/completions", self._chat, methods=["POST"]),
                Route("/version", self._version),
            ]
        )

    def _entry(self, request: Request) -> Response | None:
        """What keeps a request out."""
        self.headers.append(dict(request.headers))
        key = self.nature.key
        if key is not None and request.headers.get("authorization") != f"Bearer {key}":
            return _error(401, f"Incorrect API key provided: {request.headers.get('authorization')}")
        return self.nature.only.get(request.url.path)

    async def _models(self, request: Request) -> Response:
        if (refused := self._entry(request)) is not None:
            return refused
        if self.nature.unready:
            self.nature.unready -= 1
            return _error(503, "Loading model")
        root = self.nature.root
        models = [
            {
                "id": name,
                "object": "model",
                "owned_by": self.nature.owner,
                "root": root or name,
                "max_model_len": self.nature.max_model_len,
                "parent": None,
            }
            for name in self.nature.models
        ]
        return JSONResponse({"object": "list", "data": models})

    async def _voices(self, request: Request) -> Response:
        if (refused := self._entry(request)) is not None:
            return refused
        if self.nature.voices is None:
            return _error(404, "Not Found")
        return JSONResponse({"voices": list(self.nature.voices)})

    async def _version(self, request: Request) -> Response:
        return JSONResponse({"version": "1.2.3"}) if self.nature.owner == "vllm" else _error(404, "Not Found")

    async def _chat(self, request: Request) -> Response:
        if (refused := self._entry(request)) is not None:
            return refused
        body = await request.json()
        self.requests.append(body)
        if body["model"] not in self.nature.models:
            return _error(404, f"The model `{body['model']}` does not exist.")
        complaint = self._complaint(body)
        if complaint is not None:
            return _error(400, complaint)
        script = self._scripts.popleft() if self._scripts else HELLO
        if script and isinstance(script[0], Refusal):
            return _error(script[0].status, script[0].message)
        self.active += 1
        return StreamingResponse(self._answer(script, body), media_type="text/event-stream")

    def _complaint(self, body: dict[str, Any]) -> str | None:
        """Why a request is refused."""
        nature = self.nature
        if nature.knows is not None and (unknown := set(body) - nature.knows):
            return f"Unrecognized request arguments: {sorted(unknown)}"
        if nature.media_arguments == "refused" and ("mm_processor_kwargs" in body or "media_io_kwargs" in body):
            return "Per-request mm_processor_kwargs are disabled by default"
        if nature.knows is not None and nature.continues != "partial" and "partial" in body["messages"][-1]:
            return "Unrecognized key in a message: partial"
        voice = (body.get("audio") or {}).get("voice")
        if voice is not None and nature.voices is not None and voice not in nature.voices:
            return f"Invalid voice {voice}"
        for part in _parts(body):
            kind = part["type"]
            if kind == "text":
                continue
            if kind not in nature.takes:
                return f"this model takes no {kind}"
            if not nature.files and str(part[kind].get("url")).startswith("file:"):
                return "Cannot load local files"
            if kind == "input_audio" and not nature.float_sound:
                sound = base64.b64decode(part[kind]["data"].rpartition(",")[2])
                if sound[20] == 3:
                    return "unsupported audio format"
        return None

    def _prompt_tokens(self, body: dict[str, Any]) -> int:
        kinds = [part["type"] for part in _parts(body)]
        films, sounds = kinds.count("video_url"), kinds.count("input_audio") + kinds.count("audio_url")
        inside = (body.get("mm_processor_kwargs") or {}).get("use_audio_in_video")
        heard = films if inside and self.nature.media_arguments == "trusted" else 0
        begun = 0
        if body["messages"][-1]["role"] == "assistant":
            begun = 1 if self._continues(body) else 1 + TURN_TOKENS
        return 5 + begun + PICTURE_TOKENS * (films + kinds.count("image_url")) + SOUND_TOKENS * (sounds + heard)

    def _continues(self, body: dict[str, Any]) -> bool:
        """Whether it goes on with the last message."""
        how = self.nature.continues
        if how == "continue_final_message":
            return bool(body.get(how)) and body.get("add_generation_prompt") is False
        return how == "always" or (how == "partial" and body["messages"][-1].get(how) is True)

    async def _answer(self, script: tuple[Step, ...], body: dict[str, Any]) -> AsyncIterator[bytes]:
        ended = False
        writer = _Writer(self.nature, body, self._prompt_tokens(body))
        try:
            yield writer.line({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
            for step in script:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, Drop):
                    ended = True
                    raise ConnectionAbortedError
                else:
                    for line in writer.write(step):
                        yield line
            for line in writer.end():
                yield line
            ended = True
        finally:
            self.cancelled += not ended
            self.active -= 1


class _Writer:
    """Events → lines in the shape of this server."""

    def __init__(self, nature: Nature, body: dict[str, Any], prompt_tokens: int) -> None:
        self._nature = nature
        self._format = (body.get("audio") or {}).get("format", "wav")
        self._spoken = nature.speaks is not None and "audio" in (body.get("modalities") or [])
        self._with_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        self._usage = Usage(prompt_tokens, 0)
        self._reason = "stop"
        self._later = b""
        self._thinking = False
        self._done = False

    def line(self, chunk: dict[str, Any]) -> bytes:
        return f"data: {json.dumps({'object': 'chat.completion.chunk', 'model': 'x', **chunk})}\n\n".encode()

    def write(self, step: object) -> Iterator[bytes]:
        match step:
            case bytes():
                yield step
            case dict():
                yield self.line(step)
            case ReasoningDelta(text):
                yield from self._think(text)
            case TextDelta(text):
                self._usage = Usage(self._usage.prompt_tokens, self._usage.completion_tokens + 1)
                yield from self._text(text)
            case AudioDelta() if self._spoken:
                yield from self._sound(step)
            case Done(reason, usage):
                self._reason, self._usage = reason, usage
            case _:
                assert isinstance(step, AudioDelta), step

    def _think(self, text: str) -> Iterator[bytes]:
        name = self._nature.reasoning or "reasoning"
        if name == "<think>":
            yield self._delta(content=text if self._thinking else f"<think>{text}")
            self._thinking = True
        else:
            yield self._delta(**{name: text})

    def _text(self, text: str) -> Iterator[bytes]:
        if self._thinking:
            text, self._thinking = f"</think>{text}", False
        yield self._delta(content=text, modality="text" if self._nature.speaks == "content" else None)

    def _delta(self, modality: str | None = None, **delta: Any) -> bytes:
        extra = {"modality": modality} if modality else {}
        return self.line({"choices": [{"index": 0, "delta": delta, "finish_reason": None}], **extra})

    def _sound(self, sound: AudioDelta) -> Iterator[bytes]:
        whole = wav(sound.pcm, sound.sample_rate, exact=False)
        raw = whole[44:]
        data = base64.b64encode(raw if self._format == "pcm16" else whole).decode()
        if self._nature.speaks == "content":
            choice = {"index": 0, "delta": {"content": data}, "audio_metadata": {"sample_rate": sound.sample_rate}}
            yield self.line({"choices": [choice], "modality": "audio"})
        elif self._nature.speaks == "delta.audio":
            yield self._delta(audio={"data": data})
        else:
            self._later += raw

    def end(self) -> Iterator[bytes]:
        if self._later:
            audio = {"data": base64.b64encode(self._later).decode()}
            place = "message" if self._nature.speaks == "message" else "delta"
            index = 1 if self._nature.speaks == "second choice" else 0
            yield self.line({"choices": [{"index": index, place: {"audio": audio}, "finish_reason": "stop"}]})
        yield self.line({"choices": [{"index": 0, "delta": {}, "finish_reason": self._reason}]})
        if self._with_usage:
            read, written = self._usage.prompt_tokens, self._usage.completion_tokens
            yield self.line({"choices": [], "usage": {"prompt_tokens": read, "completion_tokens": written}})
        yield b"data: [DONE]\n\n"


def _bound(port: int) -> socket.socket:
    """A socket on this machine that may take over from one that was just closed."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _parts(body: dict[str, Any]) -> list[dict[str, Any]]:
    contents = [message["content"] for message in body["messages"]]
    return [part for content in contents if isinstance(content, list) for part in content]


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "x", "code": status}}, status)


@contextmanager
def fake_server(nature: Nature | None = None) -> Iterator[FakeServer]:
    """A running server."""
    server = FakeServer(nature)
    server.start()
    try:
        yield server
    finally:
        server.stop()
