"""The caption page as a server."""

from __future__ import annotations

from pathlib import Path

from omni_backend.caption import limits
from omni_ui.captioner.desk import JobDesk
from omni_ui.captioner.page import STYLES, build_demo, page_head
from omni_ui.captioner.routes import CaptionRoutes
from omni_ui.cli import Settings
from omni_ui.examples import EXAMPLES_FILE, load_examples
from omni_ui.head import styles
from omni_ui.host import Host, MakeBackend, Page, run
from omni_ui.language import translations
from omni_ui.layout import example_texts


class CaptionApp(Host):
    """The running caption page."""

    desk: JobDesk

    def _more_roots(self, settings: Settings) -> tuple[Path, ...]:
        return (_jobs_dir(settings),)

    def _build(self, settings: Settings, root: Path) -> Page:
        self.desk = JobDesk(self.backend, _jobs_dir(settings), uploads=root)
        examples = load_examples(EXAMPLES_FILE.with_name("captions.json")) if settings.embedded else ()
        demo = build_demo(
            self.backend, self.desk, embedded=settings.embedded, examples=examples, files=root / "examples"
        )
        return Page(
            demo=demo,
            routes=CaptionRoutes(self.desk, self.backend).routes(),
            texts=translations(example_texts(examples)),
            styles=styles(STYLES),
            head=page_head(limits.FILE_BYTES),
            file_bytes=limits.FILE_BYTES,
        )

    def _begin(self) -> None:
        self.desk.start()

    def end(self) -> None:
        """Ends what runs; jobs go on at the next start."""
        self.desk.close()


def serve(make_backend: MakeBackend, settings: Settings) -> int:
    """Runs the page until Ctrl+C or SIGTERM; the process's exit status."""
    return run(CaptionApp, make_backend, settings)


def _jobs_dir(settings: Settings) -> Path:
    assert settings.jobs_dir is not None, "the captioner's command line always gives one"
    return settings.jobs_dir


__all__ = ["CaptionApp", "serve"]
