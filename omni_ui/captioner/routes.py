"""A job's own addresses: what the page shows of it, what it may do, its sounds and its exports.

Whoever knows a job's id may use it; nobody can guess one. Requests from other sites are refused.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, cast

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from omni_backend import Backend, BackendError, Phrase, UnsupportedRequest, phrase
from omni_backend.caption.exports import FORMATS, SHARED, Format, archive, write
from omni_backend.caption.file_names import ending
from omni_ui.captioner import views
from omni_ui.captioner.desk import DeskJob, JobDesk
from omni_ui.captioner.limits import EDIT_CHARS
from omni_ui.captioner.preview import make_preview
from omni_ui.language import language_of
from omni_ui.origin import same_origin

logger = logging.getLogger(__name__)

BODY_BYTES: Final = 4 * EDIT_CHARS + 10_000
"""Of one request: the longest caption in UTF-8, and what it is about."""
_MOST_JOBS: Final = 20
"""Jobs of one browser that are listed."""
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox",  # an upload opened as a page may do nothing
}
_PLAYED: Final = {
    **dict.fromkeys(("wav", "wave", "bwf"), "audio/wav"),
    **dict.fromkeys(("ogg", "oga", "opus"), "audio/ogg"),
    **dict.fromkeys(("mp4", "m4v"), "video/mp4"),
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "mov": "video/quicktime",
    "mkv": "video/x-matroska",
    "webm": "video/webm",
    "weba": "audio/webm",
}
"""What a browser may play, by its ending; everything else is bytes. Not every system knows all of these."""

Action = Callable[[DeskJob, dict[str, Any]], None]
Endpoint = Callable[[Request], Awaitable[Response]]


class CaptionRoutes:
    """Everything under `captions/`."""

    def __init__(self, desk: JobDesk, backend: Backend) -> None:
        self._desk = desk
        self._backend = backend
        self._preview_turn = asyncio.Lock()
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
        every browser plays. `GET captions/{id}/export?formats=…`. 403: from another site, 404: there is no such,
        503: the server is ending.
        """
        return (
            Route("/captions/", self._guarded(self._list), methods=["GET"]),
            Route("/captions/{id}", self._guarded(self._board), methods=["GET"]),
            Route("/captions/{id}/export", self._guarded(self._export), methods=["GET"]),
            Route("/captions/{id}/sound/{item}", self._guarded(self._sound), methods=["GET", "HEAD"]),
            Route("/captions/{id}/{action}", self._guarded(self._act), methods=["POST"]),
        )

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """`endpoint` for the page alone, with a sentence where it cannot answer."""

        async def answer(request: Request) -> Response:
            if not same_origin(request):
                return Response(status_code=403)
            if self._desk.closed:  # 404 would make pages forget their jobs
                return _sorry(503, phrase("captioner.ending"), request)
            try:
                return await endpoint(request)
            except _Gone:
                return _sorry(404, phrase("captioner.gone"), request)
            except ClientDisconnect:
                return Response(status_code=400)
            except (sqlite3.Error, OSError) as error:
                return await run_in_threadpool(self._broken, request, error)

        return answer

    def _broken(self, request: Request, error: Exception) -> Response:
        """For a job that cannot be read or written: as a rule it was deleted at this moment."""
        if self._desk.closed:
            return _sorry(503, phrase("captioner.ending"), request)
        try:
            self._find(request)
        except _Gone:
            return _sorry(404, phrase("captioner.gone"), request)
        except sqlite3.Error:
            pass
        logger.error("a job cannot be read or written", exc_info=error)
        return _sorry(500, phrase("caption.disk"), request)

    def _find(self, request: Request) -> DeskJob:
        """The job of the address. Raises _Gone and sqlite3.Error."""
        job = self._desk.get(request.path_params.get("id"))
        if job is None:
            raise _Gone
        return job

    async def _list(self, request: Request) -> Response:
        return await run_in_threadpool(self._listed, request)

    def _listed(self, request: Request) -> Response:
        ids = request.query_params.get("ids", "").split(",")[:_MOST_JOBS]
        jobs = [(job, self._desk.used_at(job)) for id in ids if (job := self._desk.get(id)) is not None]
        html = views.job_links(jobs, language_of(request))
        return JSONResponse({"html": html, "ids": [job.id for job, _ in jobs]}, headers=_HEADERS)

    async def _board(self, request: Request) -> Response:
        return await run_in_threadpool(self._boarded, request)

    def _boarded(self, request: Request) -> Response:
        job = self._find(request)
        page, item = (_digits(request.query_params.get(name)) for name in ("page", "item"))
        self._desk.used(job)
        shown = views.board(job, self._backend, language_of(request), page=page or 0, item=item)
        content = json.dumps(shown, ensure_ascii=False).encode()
        mark = hashlib.sha256(content).hexdigest()[:16]
        if request.query_params.get("seen") == mark:
            return Response(status_code=204, headers=_HEADERS)
        return Response(content, media_type="application/json", headers=_HEADERS | {"X-Seen": mark})

    async def _act(self, request: Request) -> Response:
        job = await run_in_threadpool(self._find, request)
        act = self._actions.get(request.path_params["action"])
        if act is None:
            return Response(status_code=404)
        try:
            await run_in_threadpool(act, job, await _body(request))
        except BackendError as problem:
            return _sorry(400, problem.phrase, request)
        except (KeyError, ValueError, TypeError, RecursionError):
            return _sorry(400, phrase("captioner.no_such_caption"), request)
        self._desk.used(job)
        return JSONResponse({}, headers=_HEADERS)

    async def _sound(self, request: Request) -> Response:
        job = await run_in_threadpool(self._find, request)
        number = _digits(request.path_params["item"])
        item = None if number is None else job.store.item(number)
        if item is None or not item.path.is_file():
            return Response(status_code=404)
        path = item.path
        if request.query_params.get("as") == "preview":
            try:
                async with self._preview_turn:  # those who wait hold no thread
                    path = await run_in_threadpool(make_preview, item, job.store.folder)
            except (BackendError, OSError):
                return Response(status_code=404)
        return FileResponse(
            path, media_type=_PLAYED.get(ending(path.name), "application/octet-stream"), headers=_HEADERS
        )

    async def _export(self, request: Request) -> Response:
        job = await run_in_threadpool(self._find, request)
        formats = [name for name in FORMATS if name in request.query_params.getlist("formats")]
        if not formats:
            return Response(status_code=400)
        return await run_in_threadpool(self._exported, job, formats, request)

    def _exported(self, job: DeskJob, formats: list[Format], request: Request) -> Response:
        """The captions, as they are where one file is all, else in a zip."""
        place = self._desk.new_place()
        try:
            if len(formats) == 1 and (formats[0] in SHARED or job.store.counts.files == 1):
                written = write(job.store.captioned_files, formats, place)
            else:
                written = [place / "captions.zip"]
                archive(job.store.captioned_files, formats, written[0])
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        if not written:
            shutil.rmtree(place, ignore_errors=True)
            return _sorry(404, phrase("captioner.nothing_to_export"), request)
        return _Handed(written[0], place)


class _Gone(Exception):
    """There is no such job."""


class _Handed(FileResponse):
    """A download whose folder goes with it, however it ends."""

    def __init__(self, path: Path, place: Path) -> None:
        super().__init__(path, filename=path.name, headers=_HEADERS)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            shutil.rmtree(self._place, ignore_errors=True)


def _sorry(status: int, said: Phrase, request: Request) -> Response:
    return JSONResponse({"error": said.text(language_of(request))}, status_code=status, headers=_HEADERS)


def _edit(job: DeskJob, said: dict[str, Any]) -> None:
    text = said["text"]
    if text is not None and not isinstance(text, str):
        raise ValueError(text)
    if text is not None and len(text) > EDIT_CHARS:
        raise UnsupportedRequest(phrase("captioner.caption_too_long", limit=EDIT_CHARS))
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
