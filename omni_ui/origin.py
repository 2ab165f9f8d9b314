"""Who asks for an address of the app that is not Gradio's."""

from __future__ import annotations

from starlette.requests import Request


def same_origin(request: Request) -> bool:
    """Whether the browser says that the app's own page asks. Callers that say nothing need the token only."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or origin.split("://", 1)[-1] == request.headers.get("host")
