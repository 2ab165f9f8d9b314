"""How tokens are drawn, on every page: the components, what the checkpoint allows of them, reading them."""

from __future__ import annotations

import json
from typing import Any, Final

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from omni_backend import Capabilities, Language, SamplingName, SamplingParams, UnsupportedRequest, phrase
from omni_backend.defaults import SAMPLING_BOUNDS, WHOLE_SAMPLING
from omni_ui.language import label

Updates = dict[Block, Any]
Sampling = dict[SamplingName, Component]

SLIDERS: Final[dict[SamplingName, float]] = {"temperature": 0.05, "top_p": 0.01, "repetition_penalty": 0.01}
"""The settings with a slider, and its step."""
_SHOWN: Final = 80  # letters of what is no setting


def build_sampling() -> tuple[Sampling, gr.Button]:
    """Makes the components in the open layout, folded away, and the button that gives the checkpoint's own settings."""
    sampling: Sampling = {}
    with gr.Accordion(label("panel.sampling"), open=False, elem_id="omni-sampling"):
        for name, (low, high) in SAMPLING_BOUNDS.items():
            sampling[name] = (
                gr.Slider(low, high, step=SLIDERS[name], label=label(f"panel.{name}"), interactive=False)
                if name in SLIDERS
                else gr.Number(label=label(f"panel.{name}"), precision=0, interactive=False)
            )
        reset = gr.Button(label("panel.reset"), size="sm")
    return sampling, reset


def show_sampling(sampling: Sampling, can: Capabilities, language: Language) -> Updates:
    """The checkpoint's own settings; what the engine cannot be told is disabled and says why."""
    updates: Updates = {}
    for name, component in sampling.items():
        reason = can.missing_sampling.get(name)
        updates[component] = gr.update(
            value=getattr(can.default_sampling, name),
            interactive=reason is None,
            info=(reason or phrase(f"hint.{name}")).text(language),
        )
    return updates


def sampling_of(values: dict[SamplingName, float | int | None], can: Capabilities) -> SamplingParams:
    """The checkpoint's own settings with those of `values` that are given and that the engine can be told."""
    own = can.default_sampling
    given = {name: value for name, value in values.items() if name not in can.missing_sampling}
    return SamplingParams(**{name: _or(given.get(name), getattr(own, name)) for name in SAMPLING_BOUNDS})


def read_sampling(said: object, language: Language) -> dict[SamplingName, float | int | None]:
    """Settings by their names that came from outside, None for what is left out. Raises UnsupportedRequest."""
    values = {} if said is None else said
    if not isinstance(values, dict):
        called = json.dumps(values, ensure_ascii=False)[:_SHOWN]
        raise UnsupportedRequest(phrase("panel.unknown", name=called, names=", ".join(SAMPLING_BOUNDS)))
    unknown = [str(name) for name in values if name not in SAMPLING_BOUNDS]
    if unknown:
        raise UnsupportedRequest(phrase("panel.unknown", name=unknown[0], names=", ".join(SAMPLING_BOUNDS)))
    return {name: _number(name, values.get(name), language) for name in SAMPLING_BOUNDS}


def _number(name: SamplingName, value: Any, language: Language) -> float | int | None:
    """A setting within its bounds; None when it is left empty."""
    if value is None or value == "":
        return None
    low, high = SAMPLING_BOUNDS[name]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        called = phrase(f"panel.{name}").text(language)
        raise UnsupportedRequest(phrase("panel.out_of_range", name=called, low=f"{low:g}", high=f"{high:g}"))
    return int(value) if name in WHOLE_SAMPLING else float(value)


def _or(value: float | int | None, default: Any) -> Any:
    return default if value is None else value
