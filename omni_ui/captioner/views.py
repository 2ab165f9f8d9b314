"""A job → HTML for its reader. Pure: nothing is changed. `static/captions.js` puts the pieces into the page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, Final

from omni_backend import Backend, Language, Phrase, Ready, phrase
from omni_backend.caption.exports import FORMATS
from omni_backend.caption.store import Counts, Item
from omni_backend.caption.times import clock, moment
from omni_backend.caption.values import Segment
from omni_ui import render
from omni_ui.captioner.desk import DeskJob
from omni_ui.captioner.limits import EDIT_CHARS, ROWS

Piece = tuple[int, str]
"""A row that has an id of its own, and its HTML."""

WAVE_WIDTH: Final = 1000
WAVE_HEIGHT: Final = 64
_BARS: Final = 600
_EXCERPT_CHARS: Final = 240
_LINE_CHARS: Final = 70  # of a caption's box, to guess its height where the browser cannot
_FILMS: Final = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".ts", ".mpg", ".mpeg")


def board(job: DeskJob, backend: Backend, language: Language, *, page: int, item: int | None) -> dict[str, Any]:
    """Everything that a page shows of a job. `page`: of the table, from 0. `item`: the file that is open."""
    counts = job.store.counts
    pages = max(1, -(-counts.files // ROWS))
    page = min(max(page, 0), pages - 1)
    only = job.store.items(limit=1)[0] if counts.files == 1 else None
    opened = only or (job.store.item(item) if item is not None else None)
    return {
        "active": job.running,
        "summary": summary(job, counts, backend, language),
        "controls": controls(job, counts, language),
        "heads": "" if only else heads(language),
        "rows": [] if only else rows(job, job.store.items(limit=ROWS, offset=page * ROWS), language),
        "pager": pager(page, pages, language),
        "open": detail(job, opened, language, alone=only is not None) if opened is not None else None,
    }


def summary(job: DeskJob, counts: Counts, backend: Backend, language: Language) -> str:
    """How far the job is, in one sentence with a bar, and what went wrong."""
    far = " · ".join(_say(part, language) for part in _far(job, counts, backend))
    lines = [f'<p class="omni-far">{far}</p>']
    if job.running and counts.open:
        share = (counts.captioned / counts.seconds) if counts.seconds else 0.0
        name = _say(phrase("captioner.progress"), language)
        lines.append(f'<progress aria-label="{name}" value="{min(share, 1.0):.4f}"></progress>')
    if job.skipped:
        lines.append(f'<p class="omni-mark">{_say(skipped(job.skipped), language)}</p>')
    if (problem := job.work.problem) is not None:
        lines.append(render.error(problem, language))
    return "".join(lines)


def _far(job: DeskJob, counts: Counts, backend: Backend) -> list[Phrase]:
    """How far it is, in a few words each."""
    if counts.files == 1:
        return [_far_alone(job, counts, backend), *(_left(job, counts) if counts.captioned else ())]
    ended = counts.done + counts.failed
    files = phrase("captioner.files_of", done=ended, files=counts.files)
    failed = [phrase("captioner.files_failed", failed=counts.failed)] if counts.failed else []
    if not counts.open:
        one = counts.done == 1
        return [phrase("captioner.one_file_done" if one else "captioner.files_done", done=counts.done), *failed]
    if not job.running:
        return [phrase("captioner.stopped"), files, *failed]
    if not isinstance(backend.status, Ready):
        return [phrase("captioner.waits_for_model"), files, *failed]
    return [files, *failed, *_left(job, counts)]


def _left(job: DeskJob, counts: Counts) -> list[Phrase]:
    """How long a running job still takes, as far as that can be told."""
    left = job.work.remaining(counts) if job.running and counts.open else None
    return [] if left is None else [phrase("captioner.left", left=clock(max(1, round(left))))]


def _far_alone(job: DeskJob, counts: Counts, backend: Backend) -> Phrase:
    """The same of the only file."""
    if counts.open and not job.running:
        return phrase("captioner.stopped")
    if counts.open:
        return phrase("captioner.listening" if isinstance(backend.status, Ready) else "captioner.waits_for_model")
    return phrase("captioner.one_failed" if counts.failed else "captioner.one_done")


def controls(job: DeskJob, counts: Counts, language: Language) -> str:
    """The buttons for the whole job."""
    buttons = []
    if job.running:
        buttons.append(_press("stop", "captioner.stop", language))
    elif counts.open:
        buttons.append(_press("resume", "captioner.resume", language))
    if counts.failed:
        buttons.append(_press("retry", "captioner.retry_all" if counts.files > 1 else "captioner.retry", language))
    if counts.done or counts.captioned:
        buttons.append(_exports(language))
    buttons.append(_press("delete", "captioner.delete", language))
    return "".join(buttons)


def _exports(language: Language) -> str:
    """The formats to choose from, unfolded by a button."""
    boxes = "".join(
        f'<label><input type="checkbox" name="formats" value="{format}"{" checked" if format == "srt" else ""}>'
        f"<span>{_say(phrase(f'captioner.format_{format}'), language)}</span></label>"
        for format in FORMATS
    )
    title, take = (_say(phrase(f"captioner.{key}"), language) for key in ("export", "download"))
    return (
        f'<details class="omni-exports"><summary>{title}</summary><form data-do="export">{boxes}'
        f'<button type="submit" class="omni-press omni-chief">{take}</button></form></details>'
    )


def heads(language: Language) -> str:
    """What the columns of the table are."""
    names = (phrase(f"captioner.column_{name}").text(language) for name in ("file", "length", "state", "caption"))
    return f"<tr>{''.join(f'<th scope=col>{escape(name)}</th>' for name in names)}<td></td></tr>"


def rows(job: DeskJob, items: Sequence[Item], language: Language) -> list[Piece]:
    """The lines of the table."""
    excerpts = job.store.excerpts([item.id for item in items], _EXCERPT_CHARS)
    return [(item.id, _row(item, excerpts.get(item.id, ""), language)) for item in items]


def _row(item: Item, excerpt: str, language: Language) -> str:
    if item.error is not None:
        said, again = f'<span class="omni-wrong">{_say(item.error, language)}</span>', item.path.name != ""
    else:
        said, again = escape(excerpt), False
    called = phrase("captioner.retry_of", name=item.name)
    retry = _press("retry", "captioner.retry", language, item=item.id, called=called) if again else ""
    length = "" if item.seconds is None else clock(item.seconds)
    return (
        f'<td class="omni-file"><button type="button" class="omni-link" data-do="open" data-item="{item.id}">'
        f'{escape(item.name)}</button></td><td class="omni-length">{length}</td>'
        f'<td class="omni-state omni-is-{item.state}">{_state(item, language)}</td>'
        f'<td class="omni-excerpt">{said}</td><td class="omni-again">{retry}</td>'
    )


def _state(item: Item, language: Language) -> str:
    if item.state == "running" and item.seconds:
        return f"{min(99, int(100 * item.captioned / item.seconds))} %"
    return _say(phrase(f"captioner.state_{item.state}"), language)


def pager(page: int, pages: int, language: Language) -> str:
    """Steps through a long table; empty for a short one."""
    if pages == 1:
        return ""
    where = _say(phrase("captioner.page", page=page + 1, pages=pages), language)
    back = _press("page", "captioner.page_back", language, item=page - 1, off=page == 0)
    on = _press("page", "captioner.page_on", language, item=page + 1, off=page == pages - 1)
    return f"{back}<span>{where}</span>{on}"


def detail(job: DeskJob, item: Item, language: Language, *, alone: bool) -> dict[str, Any]:
    """One open file: what it sounds like, and its captions with their times. `alone`: there is no table."""
    cuts = job.store.cuts(item.id)
    segments = {segment.index: segment for segment in job.store.segments(item.id)}
    seconds = item.seconds or (cuts[-1][2] if cuts else 0.0)
    writing = {number: text for (of, number, _), text in list(job.work.live.items()) if of == item.id}
    pieces: list[Piece] = []
    for number, start, end, _ in cuts:
        if number in segments:
            pieces.append((number, _segment(segments[number], job.store.settings.samples, language)))
        elif number in writing:
            pieces.append((number, _writing(start, end, writing[number], language)))
    wrong = "" if item.error is None else render.error(item.error, language)
    steps = "" if alone else _steps(job, item, language)
    return {
        "item": item.id,
        "head": f'<h2 tabindex="-1">{escape(item.name)}</h2>{steps}{wrong}',
        "player": _player(job, item) if cuts or item.seconds else "",
        "wave": _wave(cuts, seconds) if cuts else "",
        "rows": pieces,
    }


def _steps(job: DeskJob, item: Item, language: Language) -> str:
    """To the files beside it, and back to the table."""
    before, after = job.store.neighbours(item.id)
    buttons = [
        _press("open", "captioner.file_before", language, item=before, off=before is None),
        _press("open", "captioner.file_after", language, item=after, off=after is None),
        _press("table", "captioner.to_table", language),
    ]
    return f'<div class="omni-steps">{"".join(buttons)}</div>'


def _player(job: DeskJob, item: Item) -> str:
    kind = "video" if item.path.suffix.lower() in _FILMS else "audio"
    name = escape(item.name)
    return (
        f'<{kind} src="captions/{job.id}/sound/{item.id}" aria-label="{name}" controls preload="metadata" playsinline>'
        f"</{kind}>"
    )


def _segment(segment: Segment, samples: int, language: Language) -> str:
    """A caption to read, to change and to choose."""
    span = f"{moment(segment.start)} – {moment(segment.end)}"
    name = _say(phrase("captioner.caption_of", span=span), language)
    lines = max(2, sum(1 + len(line) // _LINE_CHARS for line in segment.text.split("\n")))
    box = (
        f'<textarea data-number="{segment.index}" aria-label="{name}" rows="{min(lines, 20)}"'
        f' maxlength="{EDIT_CHARS}">{_in_box(segment.text)}</textarea>'
    )
    marks = [phrase("ui.mark_length")] if segment.cut_short and segment.edited is None else []
    marks += [phrase("captioner.edited")] if segment.edited is not None else []
    lines_below = "".join(f'<span class="omni-mark">{_say(mark, language)}</span>' for mark in marks)
    acts = _act("copy", phrase("turn.copy"), language, f'data-text="{escape(segment.text)}"')
    if segment.edited is not None:
        acts = _press("restore", "captioner.restore", language, number=segment.index) + acts
    choice = _choice(segment, language) if samples > 1 else ""
    time = _time(segment.start, segment.end, language)
    return f'{time}<span class="omni-acts">{acts}</span>{choice}{box}{lines_below}'


def _choice(segment: Segment, language: Language) -> str:
    """The samples, one of which is used."""
    options = "".join(
        f'<label><input type="radio" name="sample-{segment.index}" value="{number}" data-number="{segment.index}"'
        f"{' checked' if number == segment.chosen and segment.edited is None else ''}>"
        f"<span>{escape(text) or '—'}</span></label>"
        for number, text in enumerate(segment.captions)
    )
    title = _say(phrase("captioner.samples_of", count=len(segment.captions)), language)
    return f'<fieldset class="omni-samples"><legend>{title}</legend>{options}</fieldset>'


def _writing(start: float, end: float, text: str, language: Language) -> str:
    """A caption that is being written."""
    said = escape(text) or f'<span class="omni-waiting">{_say(phrase("captioner.listening"), language)}</span>'
    return f'{_time(start, end, language)}<p class="omni-writing">{said}</p>'


def _time(start: float, end: float, language: Language) -> str:
    span = f"{moment(start)} – {moment(end)}"
    title = _say(phrase("captioner.play_from", time=moment(start)), language)
    return (
        f'<button type="button" class="omni-time" data-do="seek" data-start="{start:.3f}" data-end="{end:.3f}"'
        f' title="{title}">{span}</button>'
    )


def _wave(cuts: Sequence[tuple[int, float, float, bytes]], seconds: float) -> str:
    """The sound as a shape, as far as it was read, with its cuts. A click on it plays from there; so do the times."""
    scale = WAVE_WIDTH / max(seconds, cuts[-1][2])
    peaks = b"".join(cut[3] for cut in cuts)
    bars = min(_BARS, len(peaks))
    width = cuts[-1][2] * scale / bars
    middle = WAVE_HEIGHT / 2
    heights = [
        max(0.5, max(peaks[k * len(peaks) // bars : (k + 1) * len(peaks) // bars]) / 255 * middle) for k in range(bars)
    ]
    steps = list(enumerate([*heights, heights[-1]]))
    above = [f"{k * width:.1f} {middle - height:.1f}" for k, height in steps]
    below = [f"{k * width:.1f} {middle + height:.1f}" for k, height in reversed(steps)]
    lines = "".join(
        f'<line x1="{start * scale:.1f}" x2="{start * scale:.1f}" y1="0" y2="{WAVE_HEIGHT}"/>'
        for number, start, _, _ in cuts
        if number
    )
    return (
        f'<svg viewBox="0 0 {WAVE_WIDTH} {WAVE_HEIGHT}" preserveAspectRatio="none" aria-hidden="true"'
        f' data-seconds="{WAVE_WIDTH / scale:.3f}"><path d="M{" ".join(above + below)}Z"/>{lines}'
        f'<line class="omni-playhead" x1="0" x2="0" y1="0" y2="{WAVE_HEIGHT}"/></svg>'
    )


def job_links(jobs: Sequence[tuple[DeskJob, float]], language: Language) -> str:
    """Earlier jobs of this browser, to come back to. With each: when it was used last, Unix time."""
    if not jobs:
        return ""
    title = _say(phrase("captioner.earlier"), language)
    links = "".join(
        f'<button type="button" class="omni-link" data-do="job" data-job="{job.id}">{_title(job, language)}'
        f' <time data-at="{at:.0f}"></time></button>'
        for job, at in jobs
    )
    return f"<h2>{title}</h2>{links}"


def _title(job: DeskJob, language: Language) -> str:
    name = "".join(f"<bdi>{escape(item.name)}</bdi>" for item in job.store.items(limit=1)) or "—"
    counts = job.store.counts
    if counts.files <= 1:
        return name
    return f"{name} {_say(phrase('captioner.and_more', count=counts.files - 1), language)}"


def skipped(names: Sequence[str]) -> Phrase:
    """Says which files that came along are no sounds."""
    if len(names) == 1:
        return phrase("captioner.skipped_one", name=names[0])
    return phrase("captioner.skipped", count=len(names), names=_few(names))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _in_box(text: str) -> str:
    """HTML drops a line break at the beginning of a box."""
    return ("\n" if text.startswith("\n") else "") + escape(text)


def _press(
    what: str,
    key: str,
    language: Language,
    *,
    item: int | None = None,
    number: int | None = None,
    called: Phrase | None = None,
    off: bool = False,
) -> str:
    name = _say(phrase(key), language)
    about = "".join(
        f' data-{which}="{value}"' for which, value in (("item", item), ("number", number)) if value is not None
    )
    label = "" if called is None else f' aria-label="{_say(called, language)}"'
    disabled = " disabled" if off else ""
    return f'<button type="button" class="omni-press" data-do="{what}"{about}{label}{disabled}>{name}</button>'


def _act(what: str, name: Phrase, language: Language, more: str) -> str:
    said = _say(name, language)
    return (
        f'<button type="button" class="omni-act" data-omni="{what}" {more} aria-label="{said}" title="{said}"></button>'
    )


def _say(text: Phrase, language: Language) -> str:
    return escape(text.text(language))
