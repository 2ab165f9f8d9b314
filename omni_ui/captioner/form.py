"""How captions are wanted: the settings of the caption page. Their components, what the checkpoint allows, reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import gradio as gr
from gradio.components import Component

from omni_backend import LANGUAGES, Capabilities, Language, UnsupportedRequest, phrase
from omni_backend.caption import CaptionSettings, limits
from omni_ui.language import LANGUAGE_NAMES, label
from omni_ui.sampling import Sampling, Updates, build_sampling, read_sampling, sampling_of, show_sampling

INSTRUCTION_CHARS: Final = 4_000


@dataclass(frozen=True, slots=True)
class Form:
    """The components, of which the language stands beside the files and the others in the side panel."""

    language: gr.Radio
    instruction: gr.Textbox
    window: gr.Slider
    overlap: gr.Slider
    samples: gr.Slider
    sampling: Sampling
    reset: gr.Button

    @property
    def inputs(self) -> list[Component]:
        """What `read` takes, in its order."""
        return [self.language, self.instruction, self.window, self.overlap, self.samples, *self.sampling.values()]

    def show(self, can: Capabilities, language: Language) -> Updates:
        """The checkpoint's own settings; what it cannot serve is disabled and says why."""
        if can.text_prompts:
            instruction = phrase("caption.instruction").text(language)
            asked = gr.update(value=instruction, interactive=True, info=_info("captioner.instruction_info", language))
        else:
            asked = gr.update(value="", interactive=False, info=_info("captioner.no_instruction", language))
        no_prefix = None if can.text_prompts else can.no_answer_prefix
        language_update = (
            gr.update(value=language, interactive=True)
            if no_prefix is None
            else gr.update(value="en", interactive=False, info=no_prefix.text(language))
        )
        return {
            self.language: language_update,
            self.instruction: asked,
            self.window: gr.update(
                value=can.audio_window_seconds, interactive=True, info=_info("captioner.window_info", language)
            ),
            self.overlap: gr.update(info=_info("captioner.overlap_info", language)),
            self.samples: gr.update(info=_info("captioner.samples_info", language)),
        } | show_sampling(self.sampling, can, language)

    def read(self, values: tuple[Any, ...], can: Capabilities | None, reader: Language) -> CaptionSettings:
        """What it says. `values`: those of `inputs`, from the browser, so nothing about them is certain.

        `can`: None while the checkpoint is loading for the first time: its own settings hold.
        Raises UnsupportedRequest for a value that makes no sense.
        """
        language, instruction, window, overlap, samples, *drawn = values
        numbers = dict(zip(self.sampling, drawn, strict=True))
        return read_settings(
            language if can is not None else reader,
            _asked(instruction, language, reader),
            (window if can is not None else None, overlap, samples),
            sampling_of(read_sampling(numbers, reader), can) if can is not None else None,
            reader,
        )


def read_settings(
    language: object,
    instruction: object,
    numbers: tuple[object, object, object],
    sampling: Any,
    reader: Language,
) -> CaptionSettings:
    """Settings that came from outside. `numbers`: window (None: what the checkpoint hears well), overlap, samples.

    Raises UnsupportedRequest."""
    window, overlap, samples = numbers
    if language not in LANGUAGES:
        raise UnsupportedRequest(phrase("captioner.no_such_language", languages=", ".join(LANGUAGES)))
    said = instruction.strip() if isinstance(instruction, str) else ""
    if len(said) > INSTRUCTION_CHARS:
        raise UnsupportedRequest(phrase("captioner.instruction_too_long", length=len(said), limit=INSTRUCTION_CHARS))
    return CaptionSettings(
        language=language,
        instruction=said,
        sampling=sampling,
        window_seconds=None
        if window is None
        else _within("window", window, limits.LEAST_WINDOW_SECONDS, limits.WINDOW_SECONDS, reader),
        overlap_seconds=_within("overlap", overlap, 0, limits.MOST_OVERLAP_SECONDS, reader),
        samples=int(_within("samples", samples, 1, limits.MOST_SAMPLES, reader)),
    )


def build_language() -> gr.Radio:
    """The language of the captions, in the open layout."""
    choices = [(name, code) for code, name in LANGUAGE_NAMES.items()]
    return gr.Radio(
        choices,
        value="en",
        label=label("captioner.caption_language"),
        elem_id="omni-caption-language",
        container=False,
        interactive=False,
    )


def build_form(language: gr.Radio) -> Form:
    """Makes the other components in the open layout of the side panel."""
    instruction = gr.Textbox(
        label=label("captioner.instruction"), lines=2, interactive=False, max_length=INSTRUCTION_CHARS
    )
    window = gr.Slider(
        *(limits.LEAST_WINDOW_SECONDS, limits.WINDOW_SECONDS),
        value=limits.WINDOW_SECONDS,
        step=0.5,
        label=label("captioner.window"),
        interactive=False,
    )
    overlap = gr.Slider(0, limits.MOST_OVERLAP_SECONDS, value=0, step=0.5, label=label("captioner.overlap"))
    samples = gr.Slider(1, limits.MOST_SAMPLES, value=1, step=1, label=label("captioner.samples"))
    sampling, reset = build_sampling()
    return Form(language, instruction, window, overlap, samples, sampling, reset)


def _asked(instruction: object, language: object, reader: Language) -> object:
    """Nothing where the question is the page's own: then it is asked in the language of the captions."""
    own = {phrase("caption.instruction").text(each) for each in LANGUAGES}
    return "" if instruction in own else instruction


def _within(name: str, value: object, low: float, high: float, reader: Language) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        called = phrase(f"captioner.{name}").text(reader)
        raise UnsupportedRequest(phrase("panel.out_of_range", name=called, low=f"{low:g}", high=f"{high:g}"))
    return float(value)


def _info(key: str, language: Language) -> str:
    return phrase(key).text(language)
