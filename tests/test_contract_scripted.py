"""The contract over the fake that ships with the package, with one slot and with two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omni_backend import Backend, Capabilities, ScriptedBackend, TextDelta, phrase
from omni_backend.scripted import Step
from tests.contract import BackendContract

NARROW = Capabilities(
    model="narrow",
    engine="a script",
    inputs=frozenset({"audio"}),
    missing_inputs={"image": phrase("request.only_audio")},
    missing_outputs={"audio": phrase("load.talker_missing")},
)


def scripted(capabilities: Capabilities) -> Iterator[ScriptedBackend]:
    backend = ScriptedBackend(capabilities=capabilities, fallback=(TextDelta("Hello"), TextDelta(".")))
    backend.wait_until_ready()
    yield backend
    backend.close()


class TestScriptedContract(BackendContract):
    @pytest.fixture(params=[1, 2], ids=["one slot", "two slots"])
    def backend(self, request: pytest.FixtureRequest) -> Iterator[Backend]:
        yield from scripted(
            Capabilities(
                model="scripted",
                engine="a script",
                outputs=frozenset({"text", "audio"}),
                voices=("ethan", "chelsie"),
                max_concurrency=request.param,
            )
        )

    @pytest.fixture
    def endless(self, backend: Backend) -> Backend:
        return backend

    @pytest.fixture
    def mortal(self, backend: Backend) -> Backend:
        return backend

    @pytest.fixture
    def narrow(self) -> Iterator[Backend]:
        yield from scripted(NARROW)

    def script(self, backend: Backend, *steps: Step) -> None:
        assert isinstance(backend, ScriptedBackend)
        backend.enqueue(*steps)
