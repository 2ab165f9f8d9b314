"""Finds the API behind an address and the model to use; waits for a server that is still starting."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from omni_backend.base import ReportProgress
from omni_backend.catalogue import phrase
from omni_backend.errors import BackendUnavailable
from omni_backend.server_client import Address, connect, is_connection_error, safe_detail
from omni_backend.server_facts import Listing

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

START_SECONDS: Final = 900.0
"""How long a server may take to start: 70 GB of weights from a slow disk take ten minutes."""
LIST_SECONDS: Final = 20.0
LOOK_EVERY: Final = 1.0
MODELS_NAMED: Final = 20

_STARTING: Final = (502, 503, 504)


class _NotYet(Exception):
    """The server may answer later."""


async def find_api(
    address: Address, api_key: str | None, model: str | None, report: ReportProgress, patience: float = START_SECONDS
) -> tuple[AsyncOpenAI, Listing]:
    """A client whose base URL is right, and the chosen model. Raises BackendUnavailable."""
    end = time.monotonic() + patience
    report(phrase("server.connecting", url=address.text), None)
    while True:
        try:
            return await _look(address, api_key, model)
        except _NotYet as error:
            if time.monotonic() >= end:
                raise BackendUnavailable(phrase("server.unreachable", url=address.text), detail=str(error)) from error
        report(phrase("server.waiting", url=address.text), None)
        await asyncio.sleep(min(LOOK_EVERY, max(0.0, end - time.monotonic())))


async def _look(address: Address, api_key: str | None, model: str | None) -> tuple[AsyncOpenAI, Listing]:
    """One attempt. Raises _NotYet or BackendUnavailable."""
    for url in address.candidates:
        client = connect(url, api_key, local=address.is_local)
        try:
            async with asyncio.timeout(LIST_SECONDS):
                answer = await client.get("/models", cast_to=object, options={"max_retries": 0})
            listing = _choose(answer, url, model, address)
            if listing is not None:
                return client, listing
        except Exception as error:
            await client.close()
            _judge(error, address, api_key)
            continue
        await client.close()
    if model is not None:  # some hosted APIs list nothing
        return connect(address.url, api_key, local=address.is_local), Listing(address.url, model)
    raise BackendUnavailable(phrase("server.no_api", url=address.text))


def _judge(error: Exception, address: Address, api_key: str | None) -> None:
    """Returns when another address is worth a try; else raises _NotYet or BackendUnavailable.

    Without their causes: those say what the server said, and servers like to repeat the key.
    """
    from openai import APIStatusError

    detail = safe_detail(error, api_key)
    if isinstance(error, BackendUnavailable):
        raise error
    if isinstance(error, TimeoutError):
        raise _NotYet(detail) from None
    if is_connection_error(error):
        causes = list(_causes(error))
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            raise BackendUnavailable(phrase("server.no_host", host=address.host), detail=detail) from None
        if any(isinstance(cause, ssl.SSLError) for cause in causes):
            raise BackendUnavailable(phrase("server.not_secure", url=address.text), detail=detail) from None
        raise _NotYet(detail) from None
    if not isinstance(error, APIStatusError):
        logger.info("%s: %s", address.text, detail)
        return
    if error.status_code in (401, 403):
        raise BackendUnavailable(phrase("server.no_entry", url=address.text), detail=detail) from None
    if error.status_code in _STARTING:
        raise _NotYet(detail) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _choose(answer: Any, url: str, model: str | None, address: Address) -> Listing | None:
    """The model to use among those listed; None when `answer` is no list of models."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list):
        return None
    entries = [entry for entry in data if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    if model is not None:
        return _listing(next((entry for entry in entries if entry["id"] == model), {"id": model}), url, address)
    whole = [entry for entry in entries if not entry.get("parent")]  # vLLM lists LoRA adapters as children
    if not whole:
        raise BackendUnavailable(phrase("server.no_models", url=address.text))
    roots = {entry.get("root") or entry["id"] for entry in whole}
    if len(roots) > 1:
        names = ", ".join(entry["id"] for entry in whole[:MODELS_NAMED]) + (" …" if len(whole) > MODELS_NAMED else "")
        raise BackendUnavailable(phrase("server.which_model", models=names))
    return _listing(whole[0], url, address)


def _listing(entry: dict[str, Any], url: str, address: Address) -> Listing:
    root, length, owner = entry.get("root"), entry.get("max_model_len"), entry.get("owned_by")
    meta = entry.get("meta")  # llama.cpp puts its numbers here
    if length is None and isinstance(meta, dict):
        length = meta.get("n_ctx")
    folder = Path(root) if isinstance(root, str) and root.startswith("/") and address.is_local else None
    return Listing(
        url=url,
        model=entry["id"],
        owner=owner if isinstance(owner, str) else "",
        root=folder if folder is not None and folder.is_dir() else None,
        context_tokens=length if isinstance(length, int) and length > 0 else None,
    )
