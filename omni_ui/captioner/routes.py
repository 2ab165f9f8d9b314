"""A job's own addresses: what the page shows of it, what it may do, its sounds and its exports.

Whoever knows a job's id may use it; nobody can guess one. Requests from other sites are refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import mimetypes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast
from uuid import uuid4

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route

from omni_backend import Backend, BackendError, phrase
from omni_backend.caption.exports import FORMATS, SHARED, Format, archive, write
from omni_ui.captioner import views
from omni_ui.captioner.desk import DeskJob, JobDesk
from omni_ui.captioner.limits import EDIT_CHARS
from omni_ui.captioner.preview import make_preview
from omni_ui.language import language_of
from omni_ui.origin import same_origin

BODY_BYTES: Final = 4 * EDIT_CHARS + 10_000
"""Of one request: the longest caption in UTF-8, and what it is about."""
_MOST_JOBS: Final = 20
"""Jobs of one browser that are listed."""
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox",  # an upload opened as a page may do nothing
}

Action = Callable[[DeskJob, dict[str, Any]], None]


class CaptionRoutes:
    """Everything under `captions/`."""

    def __init__(self, desk: JobDesk, backend: Backend) -> None:
        self._desk = desk
        self._backend = backend
        self._actions: dict[str, Action] = {
            "stop": lambda job, _: desk.stop(job),
            "resume": lambda job, _: desk.resume(job),
            "retry": lambda job, said: desk.resume(job, failed=True, item=_number(said, "item", optional=True)),
            "delete": lambda job, _: desk.delete(job),
            "edit": _edit,
            "choose": lambda job, said: job.store.choose(
                cast(int, _number(said, "item")), cast(int, _number(said, "number")), cast(int, _number(said, "sample"))
            ),
        }

    def routes(self) -> tuple[BaseRoute, ...]:
        """To be added to the app.

        `GET captions/?ids=…`: links to jobs. `GET captions/{id}`: what the page shows (204: nothing new since
        `seen`). `POST captions/{id}/{action}`. `GET captions/{id}/sound/{item}`, with `as=preview` in a form that
        every browser plays. `GET captions/{id}/export?formats=…`. 403: from another site, 404: there is no such.
        """
        return (
            Route("/captions/", self._list, methods=["GET"]),
            Route("/captions/{id}", self._board, methods=["GET"]),
            Route("/captions/{id}/export", self._export, methods=["GET"]),
            Route("/captions/{id}/sound/{item:int}", self._sound, methods=["GET", "HEAD"]),
            Route("/captions/{id}/{action}", self._act, methods=["POST"]),
        )

    def _list(self, request: Request) -> Response:
        ids = request.query_params.get("ids", "").split(",")[:_MOST_JOBS]
        jobs = [(job, job.store.folder.stat().st_mtime) for id in ids if (job := self._desk.get(id)) is not None]
        html = views.job_links(jobs, language_of(request))
        return JSONResponse({"html": html, "ids": [job.id for job, _ in jobs]}, headers=_HEADERS)

    def _board(self, request: Request) -> Response:
        job = self._find(request)
        if isinstance(job, Response):
            return job
        page, item = (_digits(request.query_params.get(name)) for name in ("page", "item"))
        self._desk.used(job)
        shown = views.board(job, self._backend, language_of(request), page=page or 0, item=item)
        content = json.dumps(shown, ensure_ascii=False).encode()
        mark = hashlib.sha256(content).hexdigest()[:16]
        if request.query_params.get("seen") == mark:
            return Response(status_code=204, headers=_HEADERS)
        return Response(content, media_type="application/json", headers=_HEADERS | {"X-Seen": mark})

    async def _act(self, request: Request) -> Response:
        job = self._find(request)
        if isinstance(job, Response):
            return job
        language = language_of(request)
        act = self._actions.get(request.path_params["action"])
        if act is None:
            return Response(status_code=404)
        try:
            await asyncio.to_thread(act, job, await _body(request))
        except BackendError as problem:
            return JSONResponse({"error": problem.text(language)}, status_code=400, headers=_HEADERS)
        except (KeyError, ValueError, TypeError):
            sentence = phrase("captioner.no_such_caption").text(language)
            return JSONResponse({"error": sentence}, status_code=400, headers=_HEADERS)
        self._desk.used(job)
        return JSONResponse({}, headers=_HEADERS)

    def _sound(self, request: Request) -> Response:
        job = self._find(request)
        if isinstance(job, Response):
            return job
        item = job.store.item(request.path_params["item"])
        if item is None or not item.path.is_file():
            return Response(status_code=404)
        path = item.path
        if request.query_params.get("as") == "preview":
            try:
                path = make_preview(item, job.store.folder)
            except (BackendError, OSError):
                return Response(status_code=404)
        kind = mimetypes.guess_type(path.name)[0] or ""
        known = kind.startswith(("audio/", "video/"))
        return FileResponse(path, media_type=kind if known else "application/octet-stream", headers=_HEADERS)

    def _export(self, request: Request) -> Response:
        job = self._find(request)
        if isinstance(job, Response):
            return job
        formats = [name for name in FORMATS if name in request.query_params.getlist("formats")]
        if not formats:
            return Response(status_code=400)
        path, name = _exported(job, formats)
        return FileResponse(
            path, filename=name, headers=_HEADERS, background=BackgroundTask(path.unlink, missing_ok=True)
        )

    def _find(self, request: Request) -> DeskJob | Response:
        """The job of the address, or why it is not given."""
        if not same_origin(request):
            return Response(status_code=403)
        job = self._desk.get(request.path_params["id"])
        if job is None:
            sentence = phrase("captioner.gone").text(language_of(request))
            return JSONResponse({"error": sentence}, status_code=404, headers=_HEADERS)
        return job


def _exported(job: DeskJob, formats: list[Format]) -> tuple[Path, str]:
    """A file with the captions, for one reader, and what to call it: as it is where one file is all, else a zip."""
    folder = job.store.folder / f"export-{uuid4().hex}"
    one_file = len(formats) == 1 and (formats[0] in SHARED or job.store.counts.files == 1)
    target = folder.with_suffix(".zip")
    if not one_file:
        archive(job.store.captioned_files, formats, target)
        return target, "captions.zip"
    [written] = write(job.store.captioned_files, formats, folder)
    target = folder.with_suffix(written.suffix)
    written.rename(target)
    _remove_folders(folder, written.parent)
    return target, written.name


def _remove_folders(root: Path, deepest: Path) -> None:
    """Removes empty folders, from the inside out."""
    while deepest != root.parent:
        deepest.rmdir()
        deepest = deepest.parent


def _edit(job: DeskJob, said: dict[str, Any]) -> None:
    text = said["text"]
    if text is not None and (not isinstance(text, str) or len(text) > EDIT_CHARS):
        raise ValueError(text)
    job.store.edit(cast(int, _number(said, "item")), cast(int, _number(said, "number")), text)


def _number(said: dict[str, Any], name: str, *, optional: bool = False) -> int | None:
    """A whole number out of a request. Raises ValueError, KeyError."""
    value = said.get(name) if optional else said[name]
    if value is None and optional:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 2**53:
        raise ValueError(value)
    return value


def _digits(said: str | None) -> int | None:
    return int(said) if said is not None and said.isascii() and said.isdecimal() and len(said) < 16 else None


async def _body(request: Request) -> dict[str, Any]:
    """The request's JSON object. Raises ValueError."""
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > BODY_BYTES:
            raise ValueError("too large")
    said = json.loads(content or b"{}")
    if not isinstance(said, dict):
        raise ValueError(said)
    return said
