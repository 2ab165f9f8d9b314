"""The chat page as a server."""

from __future__ import annotations

from pathlib import Path

from omni_backend import defaults
from omni_ui.cli import Settings
from omni_ui.examples import load_examples
from omni_ui.head import styles
from omni_ui.host import Host, MakeBackend, Page, run
from omni_ui.language import translations
from omni_ui.layout import example_texts
from omni_ui.page import STYLES, build_demo, page_head
from omni_ui.speech import SpeechDesk
from omni_ui.store import SessionStore


class App(Host):
    """The running chat page."""

    sessions: SessionStore

    def _build(self, settings: Settings, root: Path) -> Page:
        self.sessions = SessionStore(root / "sessions", uploads=root)
        desk = SpeechDesk()
        examples = load_examples() if settings.embedded else ()
        demo = build_demo(
            self.backend,
            self.sessions,
            desk,
            embedded=settings.embedded,
            speak=settings.options.generate_audio,
            examples=examples,
            files=root / "examples",
        )
        return Page(
            demo=demo,
            routes=(desk.route(),),
            texts=translations(example_texts(examples)),
            styles=styles(STYLES),
            head=page_head(defaults.FILE_BYTES),
            file_bytes=defaults.FILE_BYTES,
        )

    def _begin(self) -> None:
        self.sessions.start()

    def end(self) -> None:
        """Ends all answers and forgets the conversations."""
        self.sessions.close()


def serve(make_backend: MakeBackend, settings: Settings) -> int:
    """Runs the page until Ctrl+C or SIGTERM; the process's exit status."""
    return run(App, make_backend, settings)


__all__ = ["App", "MakeBackend", "serve"]
