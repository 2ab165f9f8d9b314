"""One request on its way through the Transformers engine: prepare the inputs, think, and speak meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from transformers import StoppingCriteriaList

from omni_backend.catalogue import phrase
from omni_backend.errors import ContextTooLong, OutOfMemory
from omni_backend.media import MediaLoader
from omni_backend.prompt import Prompt
from omni_backend.text_stream import TextStream
from omni_backend.transformers_loader import LoadedModel
from omni_backend.transformers_speech import (
    SAMPLE_RATE,
    PromptStates,
    SpeechCancelled,
    Talker,
    capture_prompt_states,
)
from omni_backend.transformers_text import StopOnEvent, TokenStreamer, sampling_kwargs
from omni_backend.types import AudioDelta, ChatRequest, Done, StreamEvent, Usage


class Answer:
    """Its methods block and run in threads; `emit` is called from them with every event, Done last."""

    def __init__(
        self,
        loaded: LoadedModel,
        request: ChatRequest,
        emit: Callable[[StreamEvent], None],
        cancelled: threading.Event,
    ) -> None:
        self._loaded = loaded
        self._request = request
        self._sampling = request.sampling or loaded.checkpoint.sampling
        self._emit = emit
        self._cancelled = cancelled
        self._inputs: Any = None
        self._prompt_tokens = 0
        self._max_tokens = 0
        self._use_audio_in_video = False
        self._text: TextStream | None = None
        self._tokens: list[int] = []
        self._talker: Talker | None = None

    @property
    def inputs(self) -> Any:
        """What the processor made of the conversation: a BatchFeature, batch 1."""
        return self._inputs

    @property
    def tokens(self) -> list[int]:
        """The ids that the thinker wrote so far."""
        return self._tokens

    def prepare(self, media: MediaLoader) -> None:
        """Decodes the media and builds the model's inputs; needs no turn of the engine.

        Raises BadMedia or ContextTooLong.
        """
        loaded = self._loaded
        prompt, text = loaded.processing.prompt(self._request, media)
        for notice in prompt.notices:
            self._emit(notice)
        self._inputs = loaded.processor(text=text, return_tensors="pt", **processor_kwargs(prompt, loaded.processor))
        self._text = TextStream(loaded.processor.tokenizer, text)
        self._use_audio_in_video = prompt.use_audio_in_video
        self._prompt_tokens = self._inputs["input_ids"].shape[1]
        limit = loaded.checkpoint.context_tokens
        if self._prompt_tokens >= limit:
            raise ContextTooLong(phrase("engine.context_too_long", tokens=self._prompt_tokens, limit=limit))
        self._max_tokens = max(1, min(self._sampling.max_tokens, limit - self._prompt_tokens))

    def run(self) -> None:
        """Thinks and, if asked, speaks. Raises OutOfMemory."""
        if self._cancelled.is_set():
            return
        out_of_memory = ""
        try:
            with torch.inference_mode():
                inputs = self._inputs.to(self._loaded.device, self._loaded.model.thinker.dtype)
                if "audio" in self._request.modalities:
                    self._think_and_speak(inputs)
                else:
                    self._think(inputs)
        except torch.OutOfMemoryError as error:
            out_of_memory = repr(error)
        if out_of_memory:
            # Only here, and without its cause: the caught error's frames hold on to the failed answer's memory.
            torch.cuda.empty_cache()
            raise OutOfMemory(phrase("engine.out_of_memory"), detail=out_of_memory)
        if not self._cancelled.is_set():
            self._emit(self._done())

    def _think(self, inputs: Any) -> None:
        """The thinker's answer, token by token."""
        thinker = self._loaded.model.thinker
        thinker.generate(
            **inputs,
            use_audio_in_video=self._use_audio_in_video,
            max_new_tokens=self._max_tokens,
            eos_token_id=sorted(self._loaded.eos_token_ids),
            streamer=TokenStreamer(self._take_token),
            stopping_criteria=StoppingCriteriaList([StopOnEvent(self._cancelled)]),
            **sampling_kwargs(self._sampling, self._loaded.device),
        )
        assert self._text is not None
        for delta in self._text.finish():
            self._emit(delta)

    def _take_token(self, token: int) -> None:
        assert self._text is not None
        self._tokens.append(token)
        for delta in self._text.feed(token):
            self._emit(delta)
        # The last token is never fed back to the thinker, so stock does not speak it either.
        last = token in self._loaded.eos_token_ids or len(self._tokens) == self._max_tokens
        if self._talker is not None and not last:
            self._talker.text.push(token)

    def _think_and_speak(self, inputs: Any) -> None:
        """The thinker in this thread, the talker in another; an error in either ends both."""
        model = self._loaded.model
        config = model.config.talker_config
        if self._sampling.seed is not None:
            torch.manual_seed(self._sampling.seed)  # the talker draws from the process-wide generator
        self._talker = talker = Talker(
            model,
            speaker_id=config.speaker_id[self._request.voice or self._loaded.checkpoint.voices[0]],
            params=self._loaded.checkpoint.talker,
            cancelled=self._cancelled,
        )
        with (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="omni-talker") as pool,
            capture_prompt_states(model.thinker, config.accept_hidden_layer) as states,
        ):
            speech = pool.submit(self._speak, talker, inputs, states)
            try:
                self._think(inputs)
            except BaseException:
                self._cancelled.set()
                raise
            finally:
                talker.text.finish()
            speech.result()

    def _speak(self, talker: Talker, inputs: Any, states: PromptStates) -> None:
        try:
            with torch.inference_mode():
                talker.run(inputs, states, lambda pcm: self._emit(AudioDelta(pcm, SAMPLE_RATE)))
        except SpeechCancelled:
            pass
        except BaseException:
            self._cancelled.set()
            raise

    def _done(self) -> Done:
        ended = bool(self._tokens) and self._tokens[-1] in self._loaded.eos_token_ids
        return Done(
            "stop" if ended else "length",
            Usage(
                prompt_tokens=self._prompt_tokens,
                completion_tokens=len(self._tokens),
                audio_frames=self._talker.decoder.frames if self._talker else 0,
            ),
        )


def processor_kwargs(prompt: Prompt, processor: Any) -> dict[str, Any]:
    """The media of a prompt as arguments of `Qwen3OmniMoeProcessor`."""
    kwargs: dict[str, Any] = {}
    if prompt.images:
        kwargs["images"] = prompt.images
    if prompt.audios:
        kwargs["audio"] = prompt.audios
    if prompt.videos:
        kwargs["videos"] = [torch.tensor(video.frames) for video in prompt.videos]
        kwargs["videos_kwargs"] = {"do_resize": False, "do_sample_frames": False, "fps": prompt.fps}
    if prompt.use_audio_in_video:
        if hasattr(type(processor), "load_audio_from_video"):
            kwargs |= {"load_audio_from_video": True, "audio_from_video_indices": prompt.audio_from_video}
        else:  # Transformers before 5.2x: the tracks stand among the sounds, in the order of their placeholders
            kwargs["videos_kwargs"]["use_audio_in_video"] = True
    return kwargs
