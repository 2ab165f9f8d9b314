"""The contract over the server backend and a scripted server that speaks as vLLM-Omni does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omni_backend import Backend, BackendOptions
from omni_backend.scripted import Step
from omni_backend.server_backend import ServerBackend
from tests.contract import BackendContract
from tests.fake_server import FakeServer, Nature, fake_server
from tests.waiting import wait_until


def connected(server: FakeServer) -> Iterator[Backend]:
    backend = ServerBackend(BackendOptions("", generate_audio=True, server_url=server.url))
    backend.wait_until_ready()
    yield backend
    backend.close()


class TestServerContract(BackendContract):
    @pytest.fixture
    def server(self) -> Iterator[FakeServer]:
        with fake_server(Nature(voices=("aiden", "ethan"))) as server:
            self.plays = server
            yield server
            wait_until(lambda: server.active == 0, "the end of every answer")

    @pytest.fixture
    def backend(self, server: FakeServer) -> Iterator[Backend]:
        yield from connected(server)

    @pytest.fixture
    def endless(self, backend: Backend) -> Backend:
        return backend

    @pytest.fixture
    def mortal(self, backend: Backend) -> Backend:
        return backend

    @pytest.fixture
    def narrow(self) -> Iterator[Backend]:
        """A captioner by its name, on a server that does not speak."""
        with fake_server(Nature(models=("Qwen3-Omni-30B-A3B-Captioner",), speaks=None)) as server:
            yield from connected(server)

    def script(self, backend: Backend, *steps: Step) -> None:
        if not isinstance(steps[0], Exception):  # broken files never reach the server
            self.plays.enqueue(*steps)  # type: ignore[arg-type]
