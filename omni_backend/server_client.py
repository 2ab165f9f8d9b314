"""The connection to a server: its address, the `openai` client, and what its errors mean to people."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from omni_backend.catalogue import phrase
from omni_backend.errors import (
    BackendError,
    BackendUnavailable,
    BadMedia,
    ContextTooLong,
    GenerationFailed,
    UnsupportedRequest,
)

if TYPE_CHECKING:
    from openai import AsyncOpenAI

CONNECT_SECONDS: Final = 10.0
RETRIES: Final = 2
"""Of a request whose answer has not begun; a kept connection may have been closed meanwhile."""
DETAIL_CHARACTERS: Final = 2000  # of what a server says, kept for the log

_TOO_LONG: Final = ("context length", "maximum context", "context window", "context size", "context_length", "too long")
_MEDIA_WORDS: Final = r"\b(image|audio|video|media|multimodal|multi-modal)s?\b"


class Address:
    """Where the API is, as the user wrote it. `text` is safe to show: no user name, password or query."""

    def __init__(self, written: str) -> None:
        url = written.strip()
        if "://" not in url:
            url = f"http://{url}"
        self.url = url.rstrip("/").removesuffix("/chat/completions").rstrip("/")
        try:
            parts = urlsplit(url)
            self.host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise BackendUnavailable(phrase("server.bad_url", url=written), detail=repr(error)) from error
        if parts.scheme not in ("http", "https") or not self.host:
            raise BackendUnavailable(phrase("server.bad_url", url=written))
        self.text = f"{parts.scheme}://{self.host}{f':{port}' if port else ''}{urlsplit(self.url).path}"
        self.site = f"{parts.scheme}://{parts.netloc}"

    @property
    def candidates(self) -> tuple[str, ...]:
        """Where the API may begin: there, or one step below, as people leave `/v1` out."""
        return (self.url,) if re.search(r"/v\d+$", self.url) else (self.url, f"{self.url}/v1")

    @property
    def is_local(self) -> bool:
        """Whether it is this machine."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def connect(url: str, api_key: str | None, *, local: bool) -> AsyncOpenAI:
    """A client for the running event loop.

    Nothing of OpenAI's own environment variables reaches it: they belong to another server. Proxies are for other
    machines. Answers may take long, so that only connecting has a time limit here.
    """
    from openai import AsyncOpenAI, DefaultAsyncHttpxClient, Omit, Timeout

    return AsyncOpenAI(
        base_url=url,
        api_key=api_key or "none",
        max_retries=RETRIES,
        timeout=Timeout(None, connect=CONNECT_SECONDS),
        default_headers={"OpenAI-Organization": Omit(), "OpenAI-Project": Omit()},  # type: ignore[dict-item]
        http_client=DefaultAsyncHttpxClient(trust_env=not local),
    )


async def chunks(client: AsyncOpenAI, arguments: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of a streamed completion as dicts. Closing the generator closes the HTTP response."""
    from openai import BaseModel

    stream = await client.chat.completions.create(**arguments)
    try:
        async for chunk in stream:
            if isinstance(chunk, BaseModel):
                yield chunk.to_dict(mode="python", warnings=False)
    finally:
        await stream.close()


def is_connection_error(error: Exception) -> bool:
    """Whether the connection failed or broke. Older clients let errors of their HTTP library through in mid-answer."""
    from openai import APIConnectionError

    return isinstance(error, APIConnectionError) or type(error).__module__.split(".")[0] in (
        "httpx",
        "httpx2",
        "httpcore",
    )


def translate(error: Exception, address: Address, api_key: str | None, model: str, *, begun: bool) -> BackendError:
    """What `error` of a completion means. `begun`: whether a part of the answer had come."""
    if isinstance(error, BackendError):
        return error
    from openai import APIStatusError

    detail = safe_detail(error, api_key)
    if isinstance(error, TimeoutError):
        return GenerationFailed(phrase("server.silent"), detail=detail)
    if is_connection_error(error):
        if begun:
            return GenerationFailed(phrase("server.gone"), detail=detail)
        return BackendUnavailable(phrase("server.unreachable", url=address.text), detail=detail)
    if isinstance(error, APIStatusError):
        return _of_status(error.status_code, said(error), detail, address, model)
    return GenerationFailed(phrase("server.failed"), detail=detail)


def _of_status(status: int, message: str, detail: str, address: Address, model: str) -> BackendError:
    if status in (401, 403):
        return BackendUnavailable(phrase("server.no_entry", url=address.text), detail=detail)
    if status == 404:
        return BackendUnavailable(phrase("server.no_model", model=model, url=address.text), detail=detail)
    if status == 429:
        return BackendUnavailable(phrase("server.too_busy"), detail=detail)
    if status in (502, 503, 504):
        return BackendUnavailable(phrase("server.overloaded", url=address.text), detail=detail)
    if status == 413:
        return BadMedia(phrase("server.too_large"), detail=detail)
    if status in (400, 422):
        return too_long(message, detail) or _refusal(message, detail)
    return GenerationFailed(phrase("server.status", status=status), detail=detail)


def _refusal(message: str, detail: str) -> BackendError:
    most = re.search(r"at most (\d+) (image|audio|video)", message, re.IGNORECASE)
    if most:
        return UnsupportedRequest(phrase(f"server.at_most_{most[2].lower()}", limit=int(most[1])), detail=detail)
    if re.search(_MEDIA_WORDS, message, re.IGNORECASE):
        return BadMedia(phrase("server.bad_media"), detail=detail)
    return UnsupportedRequest(phrase("server.refused"), detail=detail)


def too_long(message: str, detail: str = "") -> ContextTooLong | None:
    """The error of a conversation that does not fit, if `message` of a server says so."""
    if not any(words in message.lower() for words in _TOO_LONG):
        return None
    limit, tokens = context_numbers(message)
    if limit and tokens:
        return ContextTooLong(phrase("engine.context_too_long", tokens=tokens, limit=limit), detail=detail)
    if limit:
        return ContextTooLong(phrase("server.context_limit", limit=limit), detail=detail)
    return ContextTooLong(phrase("server.context"), detail=detail)


def context_numbers(message: str) -> tuple[int | None, int | None]:
    """The limit, and the tokens of the prompt, as the usual servers word them.

    vLLM: "maximum context length is 8192 tokens. However, your prompt contains at least 8193 input tokens";
    OpenAI: "maximum context length is 4097 tokens. However, you requested 5000 tokens (1000 in the messages, …)";
    llama.cpp: "the request exceeds the available context size (8192 tokens)".
    """
    limit = re.search(r"(?:context (?:length|size|window)|max_model_len)\D{0,20}(\d+)", message, re.IGNORECASE)
    tokens = re.search(r"(\d+) in the messages", message) or re.search(
        r"(?:prompt (?:contains|has)(?: at least)?|requested|you passed|resulted in) (\d+)", message, re.IGNORECASE
    )
    return (int(limit[1]) if limit else None), (int(tokens[1]) if tokens else None)


def said(error: Exception) -> str:
    """The server's own words."""
    body: Any = getattr(error, "body", None)
    if isinstance(body, dict):
        for key in ("message", "detail", "error"):
            if isinstance(body.get(key), str):
                return str(body[key])
    return str(error)


def safe_detail(error: Exception, api_key: str | None) -> str:
    """`error` for the log: bounded, and without the key that servers like to repeat."""
    causes = [repr(error)]
    cause = error.__cause__ or error.__context__
    if cause is not None:
        causes.append(repr(cause))
    text = "; ".join(causes)
    if api_key:
        text = text.replace(api_key, "***")
    return text[:DETAIL_CHARACTERS]
