"""The caption page: its components, wired to what they do. What stands in a job is `static/captions.js`'s to show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gradio as gr

from omni_backend import Backend, BackendError, Capabilities, Loading
from omni_backend.caption.file_names import in_order, is_hidden, is_media
from omni_backend.media_values import bytes_text
from omni_ui import render
from omni_ui.captioner.api import add_api
from omni_ui.captioner.desk import JobDesk
from omni_ui.captioner.form import Form, build_form, build_language
from omni_ui.captioner.views import skipped
from omni_ui.examples import Example, hand_over
from omni_ui.head import head
from omni_ui.language import label, language_of
from omni_ui.layout import STATUS_SECONDS, head_row, offer_buttons, settings_button, side_panel
from omni_ui.sampling import Updates

TITLE: Final = "Qwen3-Omni Captioner"
SCRIPTS: Final = (
    *("language.js", "tools.js", "panel.js", "turns.js", "names.js", "errors.js"),
    *("files.js", "uploads.js", "recorder.js", "captions.js"),
)
"""In the order in which they run, in one scope."""
STYLES: Final = ("style.css", "turns.css", "panel.css", "give.css", "captions.css")
UPLOAD_SECONDS: Final = 3600
"""How long an upload is kept that no job took."""

Given = Sequence[str] | str | None
"""What a gr.File or gr.UploadButton holds."""
Names = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Parts:
    """The components that the events read and write."""

    status: gr.HTML
    timer: gr.Timer
    ready: gr.Textbox
    """Says once that the engine is there."""
    files: gr.File
    folder: gr.UploadButton
    start: gr.Button
    error: gr.HTML
    said: gr.Textbox
    """The names of a folder's files as the browser has them, below the folder: JSON."""
    names: gr.State
    """Of files that came in folders: path → what to call them, one name for each time the same file came."""
    job: gr.Textbox
    """The id of a job that was just made."""
    form: Form


def build_demo(
    backend: Backend,
    desk: JobDesk,
    *,
    embedded: bool = False,
    examples: tuple[Example, ...] = (),
    files: Path,
) -> gr.Blocks:
    """The page over `backend`. `embedded`: say that this is the tiny checkpoint. `files`: see `hand_over`."""
    demo = gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, UPLOAD_SECONDS))
    with demo:
        parts, settings, offers = _lay_out(embedded=embedded, examples=examples)
        page = CaptionPage(backend, desk, parts)
        _wire(demo, page, parts, settings)
        for button, example in zip(offers, examples, strict=True):
            _wire_offer(button, example, page, parts, files)
        add_api(backend, desk)
    return demo


def page_head(file_bytes: int) -> str:
    """The page's own scripts. `file_bytes`: the most that a file may have."""
    return head(SCRIPTS, FILE_LIMIT={"bytes": file_bytes, "text": bytes_text(file_bytes)})


class CaptionPage:
    """The events of the page; all jobs share it."""

    def __init__(self, backend: Backend, desk: JobDesk, parts: Parts) -> None:
        self._backend = backend
        self._desk = desk
        self._parts = parts

    @property
    def _can(self) -> Capabilities | None:
        """What the checkpoint can do; None before it is loaded."""
        with suppress(BackendError):
            return self._backend.capabilities
        return None

    def look(self, request: gr.Request) -> Updates:
        """The engine's state; once it has settled, no more looking."""
        parts = self._parts
        updates: Updates = {parts.status: render.status(self._backend, language_of(request))}
        if not isinstance(self._backend.status, Loading):
            updates[parts.timer] = gr.update(active=False)
            if self._can is not None:
                updates[parts.ready] = "ready"
        return updates

    def fill_form(self, request: gr.Request) -> Updates:
        """The checkpoint's own settings; once, when it is ready."""
        can = self._can
        return {self._parts.error: gr.skip()} if can is None else self._parts.form.show(can, language_of(request))

    def reset_sampling(self, request: gr.Request) -> Updates:
        """The checkpoint's own settings of sampling again."""
        shown, sampling = self.fill_form(request), self._parts.form.sampling.values()
        return {part: shown[part] for part in sampling if part in shown} or shown

    def add_folder(self, request: gr.Request, folder: Given, files: Given, said: str, names: Names) -> Updates:
        """Puts the sounds of a folder beside the files that were chosen."""
        parts, paths = self._parts, _paths(folder)
        called = _called(said, paths)
        sounds = [(name, path) for name, path in zip(called, paths, strict=True) if _wanted(name)]
        sounds.sort(key=lambda sound: in_order(sound[0]))
        for name, path in sounds:
            names.setdefault(path, []).append(name)
        others = len(paths) - len(sounds)
        note = (skipped(tuple(name for name in called if not _wanted(name))),) if others else ()
        return {
            parts.files: [*_paths(files), *(path for _, path in sounds)] or None,
            parts.folder: None,
            parts.names: names,
            parts.error: render.notes(note, language_of(request)),
        }

    async def start(self, request: gr.Request, files: Given, names: Names, *settings: Any) -> Updates:
        """Makes a job of what was given, or says in one line why not and changes nothing."""
        return await self._begin(request, _paths(files), names, settings)

    async def offer(self, request: gr.Request, paths: list[str], *settings: Any) -> Updates:
        """Makes a job of an example; what was given stays."""
        updates = await self._begin(request, paths, {}, settings)
        return {part: updates[part] for part in (self._parts.job, self._parts.error) if part in updates}

    async def _begin(self, request: gr.Request, paths: list[str], names: Names, settings: tuple[Any, ...]) -> Updates:
        parts, language = self._parts, language_of(request)
        left = {path: iter(called) for path, called in names.items()}
        try:
            wanted = parts.form.read(settings, self._can, language)
            given = [(next(left.get(path, iter(())), Path(path).name), Path(path)) for path in paths]
            job = await asyncio.to_thread(self._desk.create, given, wanted)
        except BackendError as problem:
            return {parts.error: render.error(problem, language), parts.job: ""}
        return {parts.job: job.id, parts.error: "", parts.files: None, parts.names: {}}


def _lay_out(*, embedded: bool, examples: tuple[Example, ...]) -> tuple[Parts, gr.Button, tuple[gr.Button, ...]]:
    """Makes all components in the open Blocks: what the events use, the button for the panel, the examples'."""
    with gr.Column(elem_id="omni-page"):
        with head_row(TITLE):
            settings = settings_button()
        status = gr.HTML(elem_id="omni-status", elem_classes="omni-line")
        with gr.Column(elem_id="omni-welcome"):
            gr.Markdown(label("captioner.hello"), elem_id="omni-hello")
            if embedded:
                gr.Markdown(label("captioner.embedded"), elem_id="omni-embedded")
            offers = offer_buttons(examples)
        with gr.Column(elem_id="omni-give"):
            files = gr.File(
                file_count="multiple", label=label("captioner.files"), show_label=False, elem_id="omni-files"
            )
            with gr.Row(elem_id="omni-go"):
                gr.Button(label("jobs.more"), elem_id="omni-more")  # what it does is in captions.js
                folder = gr.UploadButton(
                    label("captioner.folder"),  # type: ignore[arg-type] # looked up in the browser all the same
                    file_count="directory",
                    elem_id="omni-folder",
                )
                gr.Button(label("composer.record"), elem_id="omni-record")  # in recorder.js
                language = build_language()
                start = gr.Button(label("captioner.start"), variant="primary", elem_id="omni-start")
            error = gr.HTML(elem_id="omni-error", elem_classes="omni-line")
        gr.HTML('<div id="omni-job"></div>', elem_classes="omni-line", padding=False)
        refused = '<div id="omni-refused" role="alert" class="omni-error" hidden></div>'
        gr.HTML(refused, elem_id="omni-told", elem_classes="omni-line")
    with side_panel():
        form = build_form(language)
    parts = Parts(
        status=status,
        timer=gr.Timer(STATUS_SECONDS),
        ready=gr.Textbox(visible="hidden"),
        files=files,
        folder=folder,
        start=start,
        error=error,
        said=gr.Textbox(visible="hidden"),
        names=gr.State({}),
        job=gr.Textbox(visible="hidden"),
        form=form,
    )
    return parts, settings, offers


def _wire(demo: gr.Blocks, page: CaptionPage, parts: Parts, settings: gr.Button) -> None:
    """Which event does what. All of them are the page's own; programs use the endpoints."""
    light = _light(parts)
    form = parts.form
    gr.on([demo.load, parts.timer.tick], page.look, None, [parts.status, parts.timer, parts.ready], **light)
    parts.ready.change(page.fill_form, None, [*form.inputs, parts.error], **light)
    form.reset.click(page.reset_sampling, None, [*form.sampling.values(), parts.error], **light)
    settings.click(None, js="() => omni.togglePanel()", **light)
    parts.folder.upload(
        page.add_folder,
        [parts.folder, parts.files, parts.said, parts.names],
        [parts.files, parts.folder, parts.names, parts.error],
        js="(folder, files, said, names) => [folder, files, omni.folderNames(), names]",
        **light,
    ).then(None, js="() => { omni.folderTaken() }", **light)
    made = [parts.job, parts.error, parts.files, parts.names]
    begun = parts.start.click(page.start, [parts.files, parts.names, *form.inputs], made, **light)
    begun.then(None, [parts.job], None, js="(id) => { omni.openJob(id) }", **light)


def _wire_offer(button: gr.Button, example: Example, page: CaptionPage, parts: Parts, files: Path) -> None:
    """A click on `button` captions the example."""

    async def begin(request: gr.Request, *settings: Any) -> Updates:
        return await page.offer(request, hand_over(example, files), *settings)

    begun = button.click(begin, parts.form.inputs, [parts.job, parts.error], **_light(parts))
    begun.then(None, [parts.job], None, js="(id) => { omni.openJob(id) }", **_light(parts))


def _light(parts: Parts) -> dict[str, Any]:
    """How all events run: at once, without a sign of it."""
    return {"queue": False, "show_progress": "hidden", "show_progress_on": [parts.job], "api_visibility": "private"}


def _wanted(name: str) -> bool:
    """Whether a file of a folder is a sound, a film or an archive of them."""
    return not is_hidden(name) and (is_media(name) or name.lower().endswith(".zip"))


def _called(said: str, paths: list[str]) -> list[str]:
    """What the files of a folder are called there; by themselves where the browser did not tell."""
    try:
        names = json.loads(said)
    except ValueError:
        names = None
    if isinstance(names, list) and len(names) == len(paths) and all(isinstance(name, str) for name in names):
        return names
    return [Path(path).name for path in paths]


def _paths(given: Given) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())
