"""Lets the registry's torchvision be imported beside a CPU build of torch.

That torchvision wheel is a CUDA build: its compiled operators do not load, and its Python part then stops at
registering shapes for operators that do not exist. Declaring the two operators cures the import; nothing here
ever calls them (they filter detection boxes).
"""

from __future__ import annotations

import threading
from typing import Any

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_lock = threading.Lock()
_library: Any = None


def define_missing_ops() -> None:
    """Declares `torchvision::nms` and `torchvision::qnms` where torchvision itself could not. Idempotent.

    Call before the first import of torchvision (transformers and qwen-omni-utils import it).
    """
    global _library
    with _lock:
        if _library is not None:
            return
        import torch

        _library = torch.library.Library("torchvision", "FRAGMENT")
        try:
            torch.ops.load_library(_extension())
        except (OSError, ImportError, RuntimeError):
            for name in ("nms", "qnms"):
                if not hasattr(torch.ops.torchvision, name):  # an environment may have declared them itself
                    _library.define(name + _SIGNATURE)


def _extension() -> str:
    """The path of torchvision's compiled operators. Raises ImportError when torchvision is not installed."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise ImportError("torchvision is not installed")
    found = sorted(Path(spec.origin).parent.glob("_C*.so")) + sorted(Path(spec.origin).parent.glob("_C*.pyd"))
    if not found:
        raise ImportError("torchvision has no compiled operators")
    return str(found[0])
