"""The app over a scripted engine, for browser tests: one for each test file.

A file overrides `abilities` or `embedded` where it needs another engine or page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from omni_backend import Capabilities, ScriptedBackend
from omni_ui.server import App
from tests.browser import Visit
from tests.serving import serving


@pytest.fixture(scope="module")
def abilities() -> Capabilities | None:
    """What the engine can do; None: what a ScriptedBackend can by itself."""
    return None


@pytest.fixture(scope="module")
def embedded() -> bool:
    """Whether the page is that of the tiny checkpoint, with its examples."""
    return False


@pytest.fixture(scope="module")
def backend(abilities: Capabilities | None) -> Iterator[ScriptedBackend]:
    """The engine, ready."""
    backend = ScriptedBackend(capabilities=abilities)
    backend.wait_until_ready()
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def app(backend: ScriptedBackend, embedded: bool) -> Iterator[App]:
    """The app over `backend`."""
    with serving(backend, embedded=embedded) as app:
        yield app


@pytest.fixture
def page(app: App, visit: Callable[..., Visit]) -> Visit:
    """A page of the app in a wide window."""
    return visit(app.url)


def said(backend: ScriptedBackend) -> list[str]:
    """The conversation of the last request, without the system prompt."""
    return [message.text for message in backend.requests[-1].messages if message.role != "system"]
