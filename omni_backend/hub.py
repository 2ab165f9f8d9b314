"""Finds a checkpoint: a local folder, a Hugging Face id, or a ModelScope id, downloaded with progress if need be."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from omni_backend.base import ReportProgress
from omni_backend.catalogue import phrase
from omni_backend.errors import BackendUnavailable

MODELSCOPE: Final = "modelscope:"


def find_checkpoint(checkpoint: str, report: ReportProgress) -> Path:
    """The folder of a local checkpoint, a Hugging Face id or `modelscope:` and a ModelScope id.

    Blocking, for hours when 70 GB have to come first. Raises BackendUnavailable when it cannot be found or fetched.
    """
    local = Path(checkpoint).expanduser()
    if local.is_dir():
        return local
    step = phrase("load.downloading", name=checkpoint)
    report(step, None)
    if checkpoint.startswith(MODELSCOPE) and find_spec("modelscope") is None:
        raise BackendUnavailable(phrase("load.no_modelscope", install="pip install modelscope"))
    try:
        if checkpoint.startswith(MODELSCOPE):
            import modelscope

            return Path(modelscope.snapshot_download(checkpoint.removeprefix(MODELSCOPE)))
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(checkpoint, tqdm_class=reporting_tqdm(lambda fraction: report(step, fraction), unit="B"))
        )
    except Exception as error:
        raise BackendUnavailable(phrase("load.not_found", name=checkpoint), detail=repr(error)) from error


def short_name(checkpoint: str) -> str:
    """What to call a checkpoint on a page: the last part of its path or id."""
    return Path(checkpoint.removeprefix(MODELSCOPE)).name or checkpoint


def reporting_tqdm(tell: Callable[[float], None], *, unit: str) -> Any:
    """A tqdm class that also tells how far (0 to 1) those of its bars are that count in `unit`."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class ReportingTqdm(tqdm):  # type: ignore[misc]
        def update(self, n: float | None = 1) -> Any:
            drawn = super().update(n)
            self._tell()
            return drawn

        def close(self) -> None:
            self._tell()  # a fast loop over the bar never calls update
            super().close()

        def _tell(self) -> None:
            if self.unit == unit and self.total:
                tell(min(1.0, self.n / self.total))

    return ReportingTqdm
