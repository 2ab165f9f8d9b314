"""Speech while the text is still being written: stock talker and code2wav beside the stock thinker.

The talker needs the thinker's states of the prompt's files once and then, for each codec frame, the embedding of one
more token of the answer. Stock `generate` computes both after the thinker has ended. Here `TrailingText` stands in for
that tensor and blocks until the token exists, so that `talker.generate` runs at the same time.

Shapes follow `Qwen3OmniMoeForConditionalGeneration.generate`, batch 1. A test holds that under greedy decoding the
codec frames are those of stock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import StoppingCriteriaList

from omni_backend.checkpoint import TalkerParams
from omni_backend.transformers_text import StopOnEvent

SAMPLE_RATE: Final = 24_000
"""Hz, of code2wav; the checkpoints do not state it."""
LEFT_CONTEXT: Final = 25
"""Frames decoded again before the new ones; stock `chunked_decode`'s."""
SMALL_WINDOW: Final = 4
LARGE_WINDOW: Final = 25
"""New frames in one decode (a frame is 80 ms): small ones until the listener has `LEAD_SECONDS` in hand."""
LEAD_SECONDS: Final = 1.0

_ASSISTANT_HEADER: Final = 3  # <|im_start|>, assistant, newline


class SpeechCancelled(Exception):
    """The answer was cancelled while the talker waited for text."""


class FileStates:
    """The thinker's states of the prompt's files: the output of one layer at their tokens, (file tokens, hidden)."""

    def __init__(self) -> None:
        self.hidden: torch.Tensor | None = None


@contextmanager
def capture_file_states(
    thinker: Any, layer: int, states: FileStates, file_tokens: torch.Tensor, earlier: torch.Tensor | None
) -> Iterator[None]:
    """Fills `states` in the thinker's first pass, and keeps nothing of the later ones (stock: every layer and step).

    `layer`: index into `hidden_states`, where 0 is the input of the first layer; the talker's `accept_hidden_layer`.
    `file_tokens`: which tokens of that pass stand for files, bool (tokens,). `earlier`: the states of a prefix that
    is not read again.
    """
    states.hidden = None
    layers = getattr(thinker.model, "language_model", thinker.model).layers

    def take_output(_: Any, args: Any, output: Any) -> None:
        if states.hidden is None:
            hidden = output[0] if isinstance(output, tuple) else output
            new = hidden[0, file_tokens.to(hidden.device)]
            states.hidden = new if earlier is None else torch.cat([earlier, new])

    handle = layers[layer - 1].register_forward_hook(take_output)
    try:
        yield
    finally:
        handle.remove()


class TrailingText:
    """Stands in for `trailing_text_hidden`, (1, tokens, hidden): entry i blocks until the thinker wrote its token.

    The talker touches it only through `.shape[1]` and `[:, step]`.
    """

    def __init__(
        self,
        embed: Callable[[int], torch.Tensor],
        end: torch.Tensor,
        pad: torch.Tensor,
        cancelled: threading.Event,
    ) -> None:
        self._embed = embed
        self._end = end
        self._pad = pad
        self._cancelled = cancelled
        self._tokens: list[int] = []
        self._complete = False
        self._changed = threading.Condition()

    def push(self, token: int) -> None:
        """One more token of the answer, as far as it is fed back to the thinker."""
        with self._changed:
            self._tokens.append(token)
            self._changed.notify_all()

    def finish(self) -> None:
        """No further token comes; also wakes a talker whose answer was cancelled."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def first_token(self) -> int | None:
        """Blocks for the first token; None when the answer has none."""
        return self._tokens[0] if self._wait_for(0) else None

    @property
    def shape(self) -> tuple[int, int]:
        """(1, entries), as large as can be while it is unknown."""
        with self._changed:
            # The first token is part of the talker's prompt; the end marker takes its place here.
            return (1, len(self._tokens) if self._complete else 1 << 30)

    def __getitem__(self, key: tuple[slice, int]) -> torch.Tensor:
        index = key[1] + 1
        if self._wait_for(index):
            return self._embed(self._tokens[index])[:, 0]
        return (self._end if index == len(self._tokens) else self._pad)[:, 0]

    def _wait_for(self, index: int) -> bool:
        """Blocks until token `index` exists (True) or never will (False). Raises SpeechCancelled."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._tokens) > index or self._complete)
        if self._cancelled.is_set():
            raise SpeechCancelled
        return len(self._tokens) > index


class WaveDecoder:
    """Codec frames → waveform, a window at a time, without gaps or repeats between the windows.

    code2wav is causal, and its transposed convolutions keep back a fixed tail of each decode, so a window ends a
    little before its last frame does. The next window therefore starts at the sample where the last one stopped.
    """

    def __init__(self, code2wav: Any) -> None:
        self._code2wav = code2wav
        self._samples_per_frame = int(code2wav.total_upsample)
        self._frames: list[torch.Tensor] = []
        self._decoded = 0
        self._emitted = 0
        self._first_sound = 0.0

    @property
    def frames(self) -> int:
        """How many frames came in."""
        return len(self._frames)

    def feed(self, frame: torch.Tensor) -> NDArray[np.float32] | None:
        """One frame of shape (1, code groups) → the samples that are due, or None."""
        self._frames.append(frame)
        return self._decode() if self._due() else None

    def finish(self) -> NDArray[np.float32] | None:
        """The samples of the frames that did not fill a window."""
        return self._decode() if len(self._frames) > self._decoded else None

    def _due(self) -> bool:
        """Small windows reach the ear early, large ones repeat less context; what is left to play decides."""
        pending = len(self._frames) - self._decoded
        if not self._emitted or pending < SMALL_WINDOW:
            return pending >= SMALL_WINDOW
        lead = self._emitted / SAMPLE_RATE - (time.monotonic() - self._first_sound)
        return lead < LEAD_SECONDS or pending >= LARGE_WINDOW

    def _decode(self) -> NDArray[np.float32]:
        start = max(0, self._emitted // self._samples_per_frame - LEFT_CONTEXT)
        codes = torch.stack(self._frames[start:], dim=-1).to(self._code2wav.device)
        wave = self._code2wav(codes).reshape(-1)[self._emitted - start * self._samples_per_frame :]
        if not self._emitted:
            self._first_sound = time.monotonic()
        self._decoded = len(self._frames)
        self._emitted += wave.shape[0]
        return np.ascontiguousarray(wave.float().cpu().numpy())


class Talker:
    """Speaks one answer: blocks in `run` while the thinker writes, and emits waveforms as frames come."""

    def __init__(self, model: Any, *, speaker_id: int, params: TalkerParams, cancelled: threading.Event) -> None:
        self._model = model
        self._speaker_id = speaker_id
        self._params = params
        self._cancelled = cancelled
        self.decoder = WaveDecoder(model.code2wav)
        config = model.config
        special = torch.tensor([[config.tts_bos_token_id, config.tts_eos_token_id, config.tts_pad_token_id]])
        self._bos, end, self._pad = self._project_tokens(special).chunk(3, dim=1)
        self.text = TrailingText(lambda token: self._project_tokens(torch.tensor([[token]])), end, self._pad, cancelled)

    def run(
        self, inputs: dict[str, torch.Tensor], states: FileStates, emit: Callable[[NDArray[np.float32]], None]
    ) -> None:
        """Speaks until the talker ends its speech or the answer is cancelled. Blocking, in a thread of its own.

        `inputs`: the whole prompt; the features of its files are not needed. `emit` gets float32 samples at
        `SAMPLE_RATE`.
        """
        first = self.text.first_token()
        if first is None:
            return
        with self._frames_to(lambda frame: self._emit(self.decoder.feed(frame), emit)):
            self._model.talker.generate(**self._prompt(inputs, states, first), **self._settings())
        self._emit(self.decoder.finish(), emit)

    def _emit(self, wave: NDArray[np.float32] | None, emit: Callable[[NDArray[np.float32]], None]) -> None:
        if wave is not None and wave.size:
            emit(wave)

    def _project_tokens(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (1, n) → the talker's text embeddings (1, n, hidden), on the talker's device."""
        embed = self._model.thinker.get_input_embeddings()
        return self._project_text(embed(ids.to(embed.weight.device)))

    def _project_text(self, embeddings: torch.Tensor) -> torch.Tensor:
        device = self._model.talker.device
        projected: torch.Tensor = self._model.talker.text_projection(embeddings.to(device)).to(device)
        return projected

    def _prompt(self, inputs: dict[str, torch.Tensor], states: FileStates, first: int) -> dict[str, Any]:
        """All user turns, then the head of the answer with voice and first token (stock `generate`, step 2)."""
        talker, config = self._model.talker, self._model.config
        assert states.hidden is not None
        ids = inputs["input_ids"]
        user = _role_mask(ids, config.im_start_token_id, config.user_token_id)
        media = torch.isin(ids, torch.tensor(_media_ids(config.thinker_config), device=ids.device))
        embedded = self._project_tokens(ids)
        if media.any():
            seen_and_heard = talker.hidden_projection(states.hidden.to(talker.device))
            embedded = embedded.clone()
            embedded[media.to(embedded.device)] = seen_and_heard.to(embedded.device)
        head = self._answer_head(ids, first)
        head_ids = torch.full((1, head.shape[1]), config.tts_pad_token_id, dtype=torch.long, device=talker.device)
        embeds = torch.cat([embedded[user.to(embedded.device)][None], head], dim=1)
        placement: dict[str, torch.Tensor] = {
            key: inputs[key] for key in ("image_grid_thw", "video_grid_thw", "video_second_per_grid") if key in inputs
        }
        if "feature_attention_mask" in inputs:
            placement["audio_feature_lengths"] = inputs["feature_attention_mask"].sum(dim=1)
        return {
            "inputs_embeds": embeds,
            "talker_input_ids": torch.cat([ids[user][None].to(talker.device), head_ids], dim=1),
            "attention_mask": torch.ones(embeds.shape[:2], dtype=torch.long, device=talker.device),
            "trailing_text_hidden": self.text,
            "tts_pad_embed": self._pad,
            **placement,
        }

    def _answer_head(self, ids: torch.Tensor, first: int) -> torch.Tensor:
        """`<|im_start|>assistant\\n`, four pads, speech start and the first token, with the codec's marks added."""
        talker, config = self._model.talker, self._model.talker.config
        starts = (ids[0, :-1] == self._model.config.im_start_token_id) & (
            ids[0, 1:] == self._model.config.assistant_token_id
        )
        begin = int(torch.nonzero(starts)[-1])
        header = self._project_tokens(ids[:, begin : begin + _ASSISTANT_HEADER])
        first_embedded = self._project_tokens(torch.tensor([[first]]))
        text = torch.cat([header, self._pad.expand(-1, 4, -1), self._bos, first_embedded], dim=1)
        marks = [
            config.codec_nothink_id,
            config.codec_think_bos_id,
            config.codec_think_eos_id,
            self._speaker_id,
            config.codec_pad_id,
            config.codec_bos_id,
        ]
        codec = talker.get_input_embeddings()(torch.tensor([marks], device=talker.device)).to(text.device)
        return text + torch.cat([torch.zeros_like(text[:, :_ASSISTANT_HEADER]), codec], dim=1)

    def _settings(self) -> dict[str, Any]:
        config = self._model.config.talker_config
        vocabulary, end = config.text_config.vocab_size, config.codec_eos_token_id
        params = asdict(self._params)
        if not params.pop("do_sample"):
            params = {key: params[key] for key in ("repetition_penalty", "max_new_tokens")}
        return {
            **params,
            "do_sample": self._params.do_sample,
            "eos_token_id": end,
            # The last 1,024 entries are marks, not sounds; only the end may be drawn.
            "suppress_tokens": [token for token in range(vocabulary - 1024, vocabulary) if token != end],
            "stopping_criteria": StoppingCriteriaList([StopOnEvent(self._cancelled)]),
            "output_hidden_states": True,
            "return_dict_in_generate": True,
        }

    @contextmanager
    def _frames_to(self, take: Callable[[torch.Tensor], None]) -> Iterator[None]:
        """Hears each finished frame: the talker is called with the codes of the frame before as `residual_codes`."""

        def hook(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
            if kwargs.get("residual_codes") is not None:
                take(kwargs["residual_codes"])

        handle = self._model.talker.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


def _role_mask(ids: torch.Tensor, im_start: int, role: int) -> torch.Tensor:
    """Which of ids (1, n) belong to turns of `role`, their `<|im_start|>` included. bool (1, n)."""
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    starts = torch.where(ids == im_start, positions, -1).cummax(dim=-1).values.clamp_min(0)
    return ids.gather(1, (starts + 1).clamp_max(ids.shape[1] - 1)) == role


def _media_ids(config: Any) -> list[int]:
    return [config.audio_token_id, config.image_token_id, config.video_token_id]
