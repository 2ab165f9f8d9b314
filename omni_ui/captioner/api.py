"""The endpoints for programs: `/caption` for one clip, `/caption_batch` for many files. Both run as jobs do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeVar

import gradio as gr

from omni_backend import Backend, BackendError, UnsupportedRequest, phrase
from omni_backend.caption import CaptionSettings, Segment
from omni_backend.caption.exports import FORMATS, archive
from omni_backend.caption.store import Item
from omni_ui.captioner.desk import DeskJob, JobDesk
from omni_ui.captioner.form import read_settings
from omni_ui.captioner.limits import API_FILES
from omni_ui.language import language_of
from omni_ui.sampling import read_sampling, sampling_of

LOOK_SECONDS: Final = 0.15
"""Between two looks at a job."""
PULSE_SECONDS: Final = 5.0
"""The longest time in which a caller is told nothing."""

T = TypeVar("T")


class CaptionApi:
    """Makes a job for each call and deletes it at its end."""

    def __init__(self, backend: Backend, desk: JobDesk) -> None:
        self._backend = backend
        self._desk = desk

    async def caption(
        self,
        sound: str | None,
        language: str,
        instruction: str,
        window_seconds: float | None,
        overlap_seconds: float,
        samples: int,
        sampling: dict[str, Any] | None,
        request: gr.Request,
    ) -> AsyncGenerator[tuple[str, list[dict[str, Any]]], None]:
        """Captions one sound or the sound track of one video.

        Yields (text so far, []) while it is written and (whole text, segments) at the end; a segment has index,
        start, end (seconds), caption and captions, one for each sample. Closing the call ends the work.

        Parameters:
            sound: the file
            language: "en" or "zh"
            instruction: what to ask; only checkpoints that take words read it
            window_seconds: the longest stretch that is heard at once, 5 to 30; 0: what the checkpoint hears well
            overlap_seconds: how much of the stretch before is heard again, 0 to 4
            samples: captions of each stretch, 1 to 5
            sampling: temperature, top_p, top_k, repetition_penalty, max_tokens, seed; left out: the checkpoint's own
        """
        job = await self._start(
            [sound] if sound else [],
            request,
            language,
            instruction,
            sampling,
            (window_seconds or None, overlap_seconds, samples),
            only_one=True,
        )
        said = ""

        def look() -> str:
            nonlocal said
            said = max(said, _so_far(job), key=len)  # while another sample is made, or again, there is less
            return said

        try:
            async with aclosing(self._news(job, request, look)) as texts:
                async for text in texts:
                    yield text, []
            [item] = job.store.items()
            self._raise_what_failed(job, [item], request)
            segments = job.store.segments(item.id)
            yield "\n\n".join(segment.text for segment in segments), [_as_json(segment) for segment in segments]
        finally:
            await asyncio.to_thread(self._desk.delete, job)

    async def caption_batch(
        self,
        files: list[str] | None,
        language: str,
        instruction: str,
        window_seconds: float | None,
        overlap_seconds: float,
        samples: int,
        sampling: dict[str, Any] | None,
        formats: list[str] | None,
        request: gr.Request,
    ) -> AsyncGenerator[tuple[dict[str, Any], str | None], None]:
        """Captions many files: sounds, videos and zip archives.

        Yields (state, None) while it works and (state, zip file with the exports) at the end. The state has files,
        done, failed, errors: name → sentence, and skipped: what archives hold beside recordings. Closing the call ends
        the work. The parameters are those of `/caption`, and

        Parameters:
            formats: of "txt", "jsonl", "csv", "srt", "vtt"; empty: "jsonl"
        """
        wanted = [name for name in FORMATS if name in (formats or ["jsonl"])] or ["jsonl"]
        job = await self._start(
            files or [], request, language, instruction, sampling, (window_seconds or None, overlap_seconds, samples)
        )
        try:
            async with aclosing(self._news(job, request, lambda: _state(job, request))) as states:
                async for state in states:
                    yield state, None
            self._raise_what_failed(job, [], request)
            target = self._desk.new_place() / "captions.zip"
            await asyncio.to_thread(archive, job.store.captioned_files, wanted, target)
            yield _state(job, request), str(target)
        finally:
            await asyncio.to_thread(self._desk.delete, job)

    async def _start(
        self,
        files: list[str],
        request: gr.Request,
        language: str,
        instruction: str,
        sampling: dict[str, Any] | None,
        numbers: tuple[float | None, float, int],
        *,
        only_one: bool = False,
    ) -> DeskJob:
        """A job of the caller's, of one file if `only_one`. Raises gr.Error with one sentence."""
        reader = language_of(request)
        try:
            if len(files) > API_FILES:
                raise UnsupportedRequest(phrase("captioner.too_many", count=len(files), limit=API_FILES))
            can = await self._backend.ready()
            drawn = sampling_of(read_sampling(sampling, reader), can)
            settings: CaptionSettings = read_settings(language or "en", instruction, numbers, drawn, reader)
            given = [(Path(file).name, Path(file)) for file in files]
            work = asyncio.get_running_loop().run_in_executor(None, self._create, given, settings, only_one)
            try:
                return await asyncio.shield(work)
            except asyncio.CancelledError:
                work.add_done_callback(self._forget)
                raise
        except BackendError as problem:
            raise gr.Error(problem.text(reader), print_exception=False) from problem

    def _create(self, given: list[tuple[str, Path]], settings: CaptionSettings, only_one: bool) -> DeskJob:
        """Blocking. Raises BackendError."""
        job = self._desk.create(given, settings, keep=False)
        if only_one and job.store.counts.files != 1:  # an archive
            self._desk.delete(job)
            raise UnsupportedRequest(phrase("captioner.one_only"))
        return job

    def _forget(self, made: asyncio.Future[DeskJob]) -> None:
        """Deletes a job that nobody waits for any more."""
        if not made.cancelled() and made.exception() is None:
            made.get_loop().run_in_executor(None, self._desk.delete, made.result())

    async def _news(self, job: DeskJob, request: gr.Request, look: Callable[[], T]) -> AsyncGenerator[T, None]:
        """What `look` sees while the job runs, whenever that changes. Raises gr.Error when the server is ending.

        Now and then it is told again: only then does Gradio find out that the caller has gone.
        """
        shown, shown_at = None, 0.0
        while job.running and not self._desk.closed:
            await asyncio.sleep(LOOK_SECONDS)
            if (seen := look()) != shown or time.monotonic() - shown_at >= PULSE_SECONDS:
                shown, shown_at = seen, time.monotonic()
                yield seen
        if self._desk.closed:
            raise gr.Error(phrase("captioner.ending").text(language_of(request)), print_exception=False)

    def _raise_what_failed(self, job: DeskJob, items: list[Item], request: gr.Request) -> None:
        """Raises gr.Error when the engine gave up or one of `items` failed."""
        reasons = [item.error for item in items if item.error is not None]
        if job.work.problem is not None:
            reasons.insert(0, job.work.problem.phrase)
        if reasons:
            raise gr.Error(reasons[0].text(language_of(request)), print_exception=False)


def _as_json(segment: Segment) -> dict[str, Any]:
    return {
        "index": segment.index,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "caption": segment.text,
        "captions": list(segment.captions),
    }


def _so_far(job: DeskJob) -> str:
    """The captions of a job's only file up to the first that is not whole yet, as far as that is written."""
    [item] = job.store.items()
    done = [segment.text for place, segment in enumerate(job.store.segments(item.id)) if segment.index == place]
    return "\n\n".join([*done, job.work.live.get((item.id, len(done), 0), "")]).rstrip()


def _state(job: DeskJob, request: gr.Request) -> dict[str, Any]:
    counts, language = job.store.counts, language_of(request)
    failed = job.store.items(state="failed")
    return {
        "files": counts.files,
        "done": counts.done,
        "failed": counts.failed,
        "errors": {item.name: item.error.text(language) for item in failed if item.error is not None},
        "skipped": list(job.skipped),
    }


def add_api(backend: Backend, desk: JobDesk) -> None:
    """Publishes the endpoints in the Blocks that are being built."""
    api = CaptionApi(backend, desk)
    wanted = [
        gr.Textbox("en", label="language", visible=False),
        gr.Textbox("", label="instruction", visible=False),
        gr.Number(0, label="window_seconds", visible=False),  # without a value it could not be left out
        gr.Number(0, label="overlap_seconds", visible=False),
        gr.Number(1, label="samples", visible=False),
        gr.JSON({}, label="sampling", visible=False),
    ]
    public: dict[str, Any] = {"api_visibility": "public", "show_progress": "hidden", "concurrency_limit": 16}
    sound = gr.File(label="sound", visible=False)
    gr.Button(visible=False).click(
        api.caption,
        [sound, *wanted],
        [gr.Textbox(label="text", visible=False), gr.JSON(label="segments", visible=False)],
        api_name="caption",
        **public,
    )
    files = gr.File(label="files", file_count="multiple", visible=False)
    formats = gr.CheckboxGroup(list(FORMATS), label="formats", visible=False)
    gr.Button(visible=False).click(
        api.caption_batch,
        [files, *wanted, formats],
        [gr.JSON(label="state", visible=False), gr.File(label="exports", visible=False)],
        api_name="caption_batch",
        **public,
    )
