"""Registers a CPU platform with vLLM-Omni, which has none of its own. Enough for tests of a tiny checkpoint, no more.

vLLM-Omni finds it through `entry_points.txt` beside it when this folder is on `sys.path`, which in the engine's child
processes means PYTHONPATH. It builds on classes that vLLM-Omni and vLLM keep to themselves: both versions are pinned
in `requirements-vllm-omni-cpu.txt`.
"""

from __future__ import annotations


def platform() -> str:
    """The name of the platform's class, as vLLM-Omni wants it."""
    return "vllm_omni_on_cpu_platform.CpuOmniPlatform"
