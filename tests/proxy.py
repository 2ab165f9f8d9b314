"""A reverse proxy like those that applications stand behind: it strips a prefix and names the host it was asked for."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.serving import free_port
from tests.waiting import wait_until

HOP: Final = ("host", "connection", "transfer-encoding")
"""Headers that belong to one connection."""


@contextmanager
def proxied(target: str, prefix: str) -> Iterator[str]:
    """The address below which `target` (without a slash at its end) can be reached, ending with `prefix` and "/"."""
    port = free_port()
    server = uvicorn.Server(
        uvicorn.Config(_app(target, prefix), port=port, log_level="error", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, name="proxy")
    thread.start()
    wait_until(lambda: server.started, "the proxy")
    yield f"http://127.0.0.1:{port}{prefix}/"
    server.should_exit = True
    thread.join()


def _app(target: str, prefix: str) -> Starlette:
    client = httpx.AsyncClient(timeout=None, trust_env=False)

    async def forward(request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name not in HOP}
        headers |= {"x-forwarded-host": request.headers["host"], "x-forwarded-proto": "http"}
        url = f"{target}/{request.path_params['path']}"
        body = await request.body()
        asked = client.build_request(request.method, url, params=request.query_params, headers=headers, content=body)
        reply = await client.send(asked, stream=True)
        kept = {name: value for name, value in reply.headers.items() if name not in HOP}
        return StreamingResponse(_pieces(reply), reply.status_code, kept)

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncGenerator[None, None]:
        async with client:
            yield

    async def icon(_: Request) -> Response:
        return Response(status_code=204)

    routes = [
        Route(prefix + "/{path:path}", forward, methods=["GET", "POST"]),
        Route("/favicon.ico", icon),  # browsers ask the site for it, whose own it is
    ]
    return Starlette(routes=routes, lifespan=life)


async def _pieces(reply: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The body as it comes; when nobody listens any more the target is told."""
    try:
        async for piece in reply.aiter_raw():
            yield piece
    finally:
        await reply.aclose()
