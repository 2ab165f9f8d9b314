"""The side panel: how answers are wanted. Its components, what the loaded checkpoint allows, and reading it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from omni_backend import (
    LANGUAGES,
    Capabilities,
    Language,
    SamplingName,
    SamplingParams,
    UnsupportedRequest,
    phrase,
)
from omni_backend.defaults import SAMPLING_BOUNDS, WHOLE_SAMPLING
from omni_ui.language import label
from omni_ui.sessions import AnswerOptions

Updates = dict[Block, Any]

SLIDERS: Final[dict[SamplingName, float]] = {"temperature": 0.05, "top_p": 0.01, "repetition_penalty": 0.01}
"""The settings with a slider, and its step."""
PROMPT_CHARS: Final = 20_000
"""The longest system prompt: some 5,000 tokens."""


@dataclass(frozen=True, slots=True)
class Panel:
    """The components of the panel and the switch for speech, which stands beside the composer."""

    speak: gr.Checkbox
    voice: gr.Dropdown
    hear_films: gr.Checkbox
    system: gr.Textbox
    rules: gr.HTML
    sampling: dict[SamplingName, Component]
    reset: gr.Button
    instructed: bool
    """Whether the checkpoint was taught to follow a system prompt."""

    @property
    def inputs(self) -> list[Component]:
        """What `read` takes, in its order."""
        return [self.speak, self.voice, self.hear_films, self.system, *self.sampling.values()]

    @property
    def outputs(self) -> list[Component]:
        """What `show` changes."""
        return [*self.inputs, self.rules]

    def read(self, values: tuple[Any, ...], can: Capabilities | None, language: Language) -> AnswerOptions:
        """What the panel says. `values`: those of `inputs`, from the browser, so nothing about them is certain.

        `can`: None while the checkpoint is loading for the first time: the panel is still empty, and the
        checkpoint's own settings hold. Raises UnsupportedRequest for a value that makes no sense.
        """
        speak, voice, hear_films, system, *numbers = values
        if can is None:
            return AnswerOptions(bool(speak), system_prompt=self._whole(self._persona(language), bool(speak), language))
        system = system if isinstance(system, str) else ""
        drawn = read_sampling(dict(zip(self.sampling, numbers, strict=True)), language)
        return AnswerOptions(
            speak=bool(speak),
            voice=voice if speak and isinstance(voice, str) and voice else None,
            system_prompt=self._whole(system, bool(speak), language) if can.text_prompts else "",
            sampling=sampling_of(drawn, can),
            use_audio_in_video=bool(hear_films),
        )

    def show(self, can: Capabilities, language: Language, before: tuple[Any, ...] = ()) -> Updates:
        """The checkpoint's own settings; what it cannot serve is disabled and says why.

        `before`: what `read` took last from this visitor, to be shown again.
        """
        silent = no_speech(can, language)
        voices = [] if silent else list(can.voices)
        wordless = None if can.text_prompts else phrase("request.one_recording").text(language)
        deaf = can.missing_inputs.get("video") or can.missing_inputs.get("audio")
        updates: Updates = {
            self.speak: gr.update(value=silent is None, interactive=silent is None, info=silent),
            self.voice: gr.update(
                choices=voices, value=next(iter(voices), None), interactive=bool(voices), info=silent or ""
            ),
            self.hear_films: gr.update(
                interactive=deaf is None,
                info=deaf.text(language) if deaf else phrase("panel.hear_films_info").text(language),
            ),
            self.system: gr.update(
                value="" if wordless else self._persona(language),
                interactive=wordless is None,
                info=wordless or phrase("panel.system_info" if self.instructed else "panel.untaught").text(language),
            ),
            self.rules: gr.update(value=_rules(language), visible=silent is None and self.instructed),
        }
        for name, component in self.sampling.items():
            reason = can.missing_sampling.get(name)
            updates[component] = gr.update(
                value=getattr(can.default_sampling, name),
                interactive=reason is None,
                info=(reason or phrase(f"hint.{name}")).text(language),
            )
        for component, value in zip(self.inputs, before, strict=False):
            default = component is self.system and value in (phrase("panel.persona").text(each) for each in LANGUAGES)
            if updates[component]["interactive"] and not default:
                updates[component]["value"] = value
        return updates

    def _persona(self, language: Language) -> str:
        return phrase("panel.persona").text(language) if self.instructed else ""

    def _whole(self, persona: str, speak: bool, language: Language) -> str:
        """The persona and, for spoken answers, the rules that make them good to hear. Raises UnsupportedRequest."""
        persona = persona.strip()
        if len(persona) > PROMPT_CHARS:
            raise UnsupportedRequest(phrase("panel.prompt_too_long", limit=PROMPT_CHARS, length=len(persona)))
        rules = phrase("panel.spoken_rules").text(language) if speak and self.instructed else ""
        return "\n\n".join(part for part in (persona, rules) if part)


def build_panel(speak: gr.Checkbox, *, instructed: bool) -> Panel:
    """Makes the panel's components in the open layout. All wait until the checkpoint is known."""
    voice = gr.Dropdown([], label=label("panel.voice"), interactive=False)
    system = gr.Textbox(
        label=label("panel.system"),
        lines=4,
        max_lines=12,
        interactive=False,
        elem_id="omni-system",
        max_length=PROMPT_CHARS,
    )
    rules = gr.HTML(elem_id="omni-rules", elem_classes="omni-line", visible=False)
    hear_films = gr.Checkbox(True, label=label("panel.hear_films"), interactive=False)
    sampling: dict[SamplingName, Component] = {}
    with gr.Accordion(label("panel.sampling"), open=False, elem_id="omni-sampling"):
        for name, (low, high) in SAMPLING_BOUNDS.items():
            sampling[name] = (
                gr.Slider(low, high, step=SLIDERS[name], label=label(f"panel.{name}"), interactive=False)
                if name in SLIDERS
                else gr.Number(label=label(f"panel.{name}"), precision=0, interactive=False)
            )
        reset = gr.Button(label("panel.reset"), size="sm")
    return Panel(speak, voice, hear_films, system, rules, sampling, reset, instructed)


def sampling_of(values: dict[SamplingName, float | int | None], can: Capabilities) -> SamplingParams:
    """The checkpoint's own settings with those of `values` that are given and that the engine can be told."""
    own = can.default_sampling
    given = {name: value for name, value in values.items() if name not in can.missing_sampling}
    return SamplingParams(**{name: _or(given.get(name), getattr(own, name)) for name in SAMPLING_BOUNDS})


def no_speech(can: Capabilities, language: Language) -> str | None:
    """Why answers cannot be spoken; None when they can."""
    if "audio" in can.outputs:
        return None
    return (can.missing_outputs.get("audio") or phrase("ui.no_speech")).text(language)


def read_sampling(values: Mapping[Any, Any], language: Language) -> dict[SamplingName, float | int | None]:
    """Settings that came from outside, None for what is left out. Raises UnsupportedRequest."""
    unknown = [str(name) for name in values if name not in SAMPLING_BOUNDS]
    if unknown:
        raise UnsupportedRequest(phrase("panel.unknown", name=unknown[0], names=", ".join(SAMPLING_BOUNDS)))
    return {name: _number(name, values.get(name), language) for name in SAMPLING_BOUNDS}


def _number(name: SamplingName, value: Any, language: Language) -> float | int | None:
    """A setting within its bounds; None when it is left empty."""
    if value is None or value == "":
        return None
    low, high = SAMPLING_BOUNDS[name]
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        called = phrase(f"panel.{name}").text(language)
        raise UnsupportedRequest(phrase("panel.out_of_range", name=called, low=f"{low:g}", high=f"{high:g}"))
    return int(value) if name in WHOLE_SAMPLING else float(value)


def _rules(language: Language) -> str:
    """What is added to the system prompt for spoken answers, to unfold."""
    title, rules = (escape(phrase(key).text(language)) for key in ("panel.rules", "panel.spoken_rules"))
    return f"<details><summary>{title}</summary><p>{rules}</p></details>"


def _or(value: float | int | None, default: Any) -> Any:
    return default if value is None else value
