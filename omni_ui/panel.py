"""The side panel: how answers are wanted. Its components, what the loaded checkpoint allows, and reading it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, Final

import gradio as gr
from gradio.components import Component

from omni_backend import (
    LANGUAGES,
    Capabilities,
    Language,
    UnsupportedRequest,
    phrase,
)
from omni_ui.language import label
from omni_ui.sampling import Sampling, Updates, build_sampling, read_sampling, sampling_of, show_sampling
from omni_ui.sessions import AnswerOptions

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
    sampling: Sampling
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
        updates |= show_sampling(self.sampling, can, language)
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
    sampling, reset = build_sampling()
    return Panel(speak, voice, hear_films, system, rules, sampling, reset, instructed)


def no_speech(can: Capabilities, language: Language) -> str | None:
    """Why answers cannot be spoken; None when they can."""
    if "audio" in can.outputs:
        return None
    return (can.missing_outputs.get("audio") or phrase("ui.no_speech")).text(language)


def _rules(language: Language) -> str:
    """What is added to the system prompt for spoken answers, to unfold."""
    title, rules = (escape(phrase(key).text(language)) for key in ("panel.rules", "panel.spoken_rules"))
    return f"<details><summary>{title}</summary><p>{rules}</p></details>"
