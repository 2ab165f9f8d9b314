"""A real `vllm serve` on a free port of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import pytest

from omni_backend import BackendOptions, Loading
from omni_backend.server_backend import ServerBackend
from tools.running_app import free_port

START_SECONDS: Final = 540.0
END_SECONDS: Final = 30.0
CONTEXT: Final = 8192
IMAGES: Final = 4
"""The most that one conversation may hold."""
OPTIONS: Final[dict[str, Any]] = {
    "dtype": "float32",
    "max-model-len": CONTEXT,
    "max-num-seqs": 8,
    "limit-mm-per-prompt": f'{{"image": {IMAGES}, "audio": 8, "video": 4}}',
}


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A server process, perhaps still starting. `folder`: the one that it may read files from."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def running(self) -> int:
        """How many requests its engine works on, by its own counters."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        counters = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")
        return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(counters)))

    def backend(self, *roots: Path) -> ServerBackend:
        """A backend of its own, ready as soon as the server is."""
        backend = ServerBackend(
            BackendOptions("", generate_audio=True, server_url=self.url, upload_roots=roots), patience=START_SECONDS
        )
        backend.start()
        while isinstance(backend.status, Loading):
            if self.process.poll() is not None:
                backend.close()
                pytest.fail(f"vllm serve ended: {self.log.read_text()[-8000:]}")
            time.sleep(0.1)
        backend.wait_until_ready()
        return backend


@contextmanager
def vllm_serve(
    checkpoint: Path,
    folder: Path,
    *arguments: str,
    options: Mapping[str, Any] = OPTIONS,
) -> Iterator[VllmServer]:
    """Starts a server on `checkpoint`; at the end it and its children are ended."""
    port, log, shared = free_port(), folder / "vllm.log", folder / "shared"
    shared.mkdir()
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(checkpoint)]
    options = {
        "host": "127.0.0.1",
        "port": port,
        "served-model-name": "tiny",
        "allowed-local-media-path": shared,
        **options,
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *flags, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,  # to be ended as one; in a session of its own it could starve this one, see `give_way`
        )
    try:
        yield VllmServer(process, port, shared, log)
    finally:
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and its children, which are one group."""
    for stop in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, stop)
            process.wait(END_SECONDS)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
