"""What the tests of the captioner's server share: uploads, desks, and engines that can be asked how they fared."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Final

from omni_backend import Backend, ChatRequest, MediaPart, ScriptedBackend, StreamEvent
from omni_backend.caption import CaptionSettings
from omni_backend.scripted import Step
from omni_ui.captioner.desk import DeskJob, JobDesk
from omni_ui.captioner.limits import DeskLimits
from tests import conversations
from tests.media_files import sound_file
from tests.waiting import wait_until

SOUND: Final = sound_file("wav", seconds=0.2)
SETTINGS: Final = CaptionSettings()


class Place:
    """A folder for jobs and one for uploads, over which one desk after the other is opened."""

    def __init__(self, root: Path) -> None:
        self.jobs = root / "jobs"
        self.uploads = root / "uploads"
        self.uploads.mkdir()

    def upload(self, name: str = "rain.wav", contents: bytes = SOUND) -> tuple[str, Path]:
        """A new upload, as `create` takes it."""
        return name, conversations.upload(self.uploads, Path(name).name, contents)

    @contextmanager
    def desk(self, backend: Backend, limits: DeskLimits | None = None, *, start: bool = True) -> Iterator[JobDesk]:
        """A server's desk from its start to its end."""
        desk = JobDesk(backend, self.jobs, self.uploads, limits or DeskLimits())
        try:
            if start:
                desk.start()
            yield desk
        finally:
            desk.close()

    def leave(self, *names: str) -> str:
        """The id of a job of sounds with these names that a server left waiting, since its engine never loaded."""
        never = ScriptedBackend(load=[conversations.FOREVER])
        with self.desk(never) as desk:
            job = desk.create([self.upload(name) for name in names], SETTINGS)
        never.close()
        return job.id

    def kept(self) -> set[str]:
        """The jobs that lie on disk."""
        return {path.name for path in self.jobs.iterdir() if path.is_dir()}


class Named(ScriptedBackend):
    """Plays the scripts of the file that it is asked about, in whatever order the files come; else its fallback."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._named: dict[str, list[Sequence[Step]]] = {}

    def says(self, name: str, *steps: Step) -> None:
        """The script of one more request about the file `name`."""
        self._named.setdefault(name, []).append(steps)

    def forget(self) -> None:
        """Plays the fallback from now on."""
        self._named.clear()

    async def _stream(self, request: ChatRequest) -> AsyncGenerator[StreamEvent, None]:
        [name] = names_in(request)
        if scripts := self._named.get(name):
            self.enqueue(*scripts.pop(0))
        async with aclosing(super()._stream(request)) as events:
            async for event in events:
                yield event


class Maker:
    """Makes jobs on a desk, and deletes them when it is closed."""

    def __init__(self, desk: JobDesk) -> None:
        self._desk = desk
        self._jobs: list[DeskJob] = []

    def __call__(
        self, *names: str, said: Sequence[str] = (), contents: bytes | Sequence[bytes] = SOUND, **settings: Any
    ) -> DeskJob:
        """A job of sounds with these names. `contents`: of all, or of each. `said`: its captions; then it has ended."""
        each = [contents] * len(names) if isinstance(contents, bytes) else contents
        given = [
            (name, conversations.upload(self._desk.uploads, Path(name).name, one))
            for name, one in zip(names, each, strict=True)
        ]
        job = self._desk.create(given, CaptionSettings(**settings))
        self._jobs.append(job)
        if said:
            store, texts = ended(job).store, iter(said)
            places = [(item.id, cut.index) for item in store.items() for cut in store.segments(item.id)]
            for place in places:
                for sample in range(store.settings.samples):
                    store.put(*place, sample, next(texts))
            assert next(texts, None) is None
        return job

    def close(self) -> None:
        for job in self._jobs:
            self._desk.delete(job)


def ended(job: DeskJob) -> DeskJob:
    """Waits until nothing of it runs."""
    wait_until(lambda: not job.running, "the end of the job")
    return job


def asked(backend: ScriptedBackend) -> list[str]:
    """What the files were called that the engine was asked about."""
    return [name for request in backend.requests for name in names_in(request)]


def names_in(request: ChatRequest) -> list[str]:
    return [part.name for part in request.messages[-1].content if isinstance(part, MediaPart)]


def states(job: DeskJob) -> dict[str, str]:
    return {item.name: item.state for item in job.store.items()}


def captions(job: DeskJob) -> dict[str, list[str]]:
    return {file.name: [segment.text for segment in file.segments] for file in job.store.captioned_files()}
