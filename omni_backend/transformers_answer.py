"""One request on its way through the Transformers engine: prepare the inputs, think, and speak meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import torch
from transformers import BatchFeature, StoppingCriteriaList

from omni_backend.catalogue import phrase
from omni_backend.errors import ContextTooLong, OutOfMemory
from omni_backend.media import MediaLoader
from omni_backend.prompt import Prompt
from omni_backend.text_stream import TextStream
from omni_backend.transformers_loader import LoadedModel
from omni_backend.transformers_prefix import Prefix, PrefixPool, Reading, read_prompt, without_prefix
from omni_backend.transformers_speech import SAMPLE_RATE, FileStates, SpeechCancelled, Talker, capture_file_states
from omni_backend.transformers_text import StopOnEvent, TokenStreamer, sampling_kwargs
from omni_backend.types import AudioDelta, ChatRequest, Done, StreamEvent, Usage

_FEATURES: Final = frozenset({"pixel_values", "pixel_values_videos", "input_features"})
"""What of the inputs only the thinker's encoders need; by far the largest part."""


class Answer:
    """Its methods block and run in threads; `emit` is called from them with every event, Done last.

    `prefixes`: what is kept of earlier prompts; None reads every prompt whole.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        request: ChatRequest,
        emit: Callable[[StreamEvent], None],
        cancelled: threading.Event,
        prefixes: PrefixPool | None = None,
    ) -> None:
        self._loaded = loaded
        self._request = request
        self._sampling = request.sampling or loaded.checkpoint.sampling
        self._emit = emit
        self._cancelled = cancelled
        self._prefixes = PrefixPool(loaded.model.thinker.config.text_config, caches=0) if prefixes is None else prefixes
        self._inputs: Any = None
        self._reading: Reading | None = None
        self._prompt_tokens = 0
        self._max_tokens = 0
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
        self._text = TextStream(loaded.processor.tokenizer, text, self._request.answer_prefix)
        self._prompt_tokens = self._inputs["input_ids"].shape[1]
        limit = loaded.checkpoint.context_tokens
        if self._prompt_tokens >= limit:
            raise ContextTooLong(phrase("engine.context_too_long", tokens=self._prompt_tokens, limit=limit))
        self._max_tokens = max(1, min(self._sampling.max_tokens, limit - self._prompt_tokens))
        self._reading = read_prompt(loaded.model.thinker, prompt, self._inputs)

    def run(self) -> None:
        """Thinks and, if asked, speaks. Raises OutOfMemory."""
        if self._cancelled.is_set():
            return
        out_of_memory = ""
        try:
            with torch.inference_mode():
                if "audio" in self._request.modalities:
                    self._think_and_speak()
                else:
                    self._think(FileStates())
        except torch.OutOfMemoryError as error:
            out_of_memory = repr(error)
        if out_of_memory:
            # Only here, and without its cause: the caught error's frames hold on to the failed answer's memory.
            self._free_memory()
            raise OutOfMemory(phrase("engine.out_of_memory"), detail=out_of_memory)
        if not self._cancelled.is_set():
            self._emit(self._done())

    def _think(self, states: FileStates) -> None:
        """The thinker's answer, token by token."""
        if not self._generate(states):
            self._free_memory()
            self._generate(states)
        assert self._text is not None
        for delta in self._text.finish():
            self._emit(delta)

    def _generate(self, states: FileStates) -> bool:
        """Reads what is new in the prompt and answers.

        False: out of memory before the first token, while prefixes were kept whose memory may be enough.
        """
        assert self._reading is not None
        loaded, reading = self._loaded, self._reading
        kept = len(self._prefixes)
        prefix = self._prefixes.take(reading)
        try:
            with self._capture(prefix, states):
                loaded.model.thinker.generate(
                    **self._on_device(without_prefix(reading, self._inputs, prefix.length)),
                    position_ids=reading.positions.to(loaded.device),
                    past_key_values=prefix.cache,
                    max_new_tokens=self._max_tokens,
                    eos_token_id=sorted(loaded.eos_token_ids),
                    streamer=TokenStreamer(self._take_token),
                    stopping_criteria=StoppingCriteriaList([StopOnEvent(self._cancelled)]),
                    **sampling_kwargs(self._sampling, loaded.device),
                )
        except torch.OutOfMemoryError:
            if self._tokens or not kept:
                raise
            return False
        self._prefixes.keep(reading, self._tokens, prefix.cache, states.hidden)
        return True

    def _capture(self, prefix: Prefix, states: FileStates) -> AbstractContextManager[None]:
        """What a talker needs of the prompt; also where nobody speaks now, since a later turn may be spoken."""
        assert self._reading is not None
        if not self._loaded.can_speak:
            return nullcontext()
        model = self._loaded.model
        layer = model.config.talker_config.accept_hidden_layer
        return capture_file_states(
            model.thinker, layer, states, self._reading.file_tokens(prefix.length), prefix.file_states
        )

    def _on_device(self, inputs: BatchFeature) -> BatchFeature:
        return inputs.to(self._loaded.device, self._loaded.model.thinker.dtype)

    def _free_memory(self) -> None:
        self._prefixes.clear()
        torch.cuda.empty_cache()

    def _take_token(self, token: int) -> None:
        assert self._text is not None
        self._tokens.append(token)
        for delta in self._text.feed(token):
            self._emit(delta)
        # The last token is never fed back to the thinker, so stock does not speak it either.
        last = token in self._loaded.eos_token_ids or len(self._tokens) == self._max_tokens
        if self._talker is not None and not last:
            self._talker.text.push(token)

    def _think_and_speak(self) -> None:
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
        states = FileStates()
        prompt = BatchFeature({key: value for key, value in self._inputs.items() if key not in _FEATURES})
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="omni-talker") as pool:
            speech = pool.submit(self._speak, talker, self._on_device(prompt), states)
            try:
                self._think(states)
            except BaseException:
                self._cancelled.set()
                raise
            finally:
                talker.text.finish()
            speech.result()

    def _speak(self, talker: Talker, inputs: Any, states: FileStates) -> None:
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
