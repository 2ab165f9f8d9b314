"""A request → the arguments of `chat.completions.create`, in the words that this server understands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from omni_backend.prompt import Prompt
from omni_backend.server_facts import PrefixForm, ServerFacts, SoundForm
from omni_backend.server_media import Attachments, MediaEncoder
from omni_backend.types import ChatRequest, SamplingParams
from omni_backend.vllm_inputs import mm_processor_kwargs


@dataclass(frozen=True, slots=True)
class Hand:
    """What media are encoded with and where they are put."""

    encoder: MediaEncoder
    attachments: Attachments


def completion_arguments(request: ChatRequest, prompt: Prompt, facts: ServerFacts, hand: Hand) -> dict[str, Any]:
    """All arguments of the call. Blocking: encodes the media."""
    if prompt.use_audio_in_video and not facts.media_arguments:
        separate_tracks(prompt)
    sampling = request.sampling or SamplingParams()
    arguments: dict[str, Any] = {
        "model": facts.listing.model,
        "messages": messages(prompt, facts, hand),
        **sampling_arguments(sampling, facts),
    }
    extra: dict[str, Any] = arguments.setdefault("extra_body", {})
    if prompt.videos and facts.media_arguments:
        extra |= media_arguments(prompt.use_audio_in_video, prompt.fps)
    if prompt.answer_prefix and facts.prefix_form is not None:
        begin_answer(arguments, prompt.answer_prefix, facts.prefix_form)
    if facts.speech is not None:
        arguments |= speech_arguments(request, facts, extra)
    return arguments


def begin_answer(arguments: dict[str, Any], prefix: str, form: PrefixForm) -> None:
    """Adds the beginning of the answer to the arguments' messages, to be continued."""
    message: dict[str, Any] = {"role": "assistant", "content": prefix}
    if form == "partial":
        message["partial"] = True
    else:
        arguments.setdefault("extra_body", {}).update(continue_final_message=True, add_generation_prompt=False)
    arguments["messages"].append(message)


def media_arguments(use_audio_in_video: bool, fps: float) -> dict[str, Any]:
    """vLLM's arguments that make it take films as they come: no other frames, no other size, the true rate.

    `fps` of `videos_kwargs` is the true rate; that of `media_io_kwargs` is the rate of the file. vLLM-Omni puts the
    latter into `videos_kwargs` itself where it finds none, and then fails on another `fps` beside them.
    """
    return {
        "mm_processor_kwargs": mm_processor_kwargs(use_audio_in_video, fps),
        "media_io_kwargs": {"video": {"num_frames": -1, "fps": 2}},
    }


def sampling_arguments(sampling: SamplingParams, facts: ServerFacts) -> dict[str, Any]:
    """How tokens are drawn, as far as the server can be told."""
    # The whole context for the answer would leave no room for the question; vLLM refuses that.
    limit = max(1, min(sampling.max_tokens, facts.context_tokens - 1))
    arguments: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        facts.limit_name: limit,
        "stream": True,
    }
    if sampling.seed is not None:
        arguments["seed"] = sampling.seed
    if facts.streams_usage:
        arguments["stream_options"] = {"include_usage": True}
    if facts.more_sampling:
        arguments["extra_body"] = {
            "top_k": sampling.top_k or -1,  # 0 considers every token; servers agree only on -1 for that
            "repetition_penalty": sampling.repetition_penalty,
        }
    return arguments


def speech_arguments(request: ChatRequest, facts: ServerFacts, extra: dict[str, Any]) -> dict[str, Any]:
    """Whether to speak and in which voice. A server that speaks is told so for text, too, or it would speak."""
    speech = facts.speech
    assert speech is not None
    if "audio" not in request.modalities:
        return {"modalities": ["text"]}
    voice = request.voice or speech.voices[0]
    if speech.top_level_voice:
        extra["voice"] = voice
    return {"modalities": ["text", "audio"], "audio": {"voice": voice, "format": speech.format}}


def separate_tracks(prompt: Prompt) -> None:
    """Turns interleaved sound tracks into recordings that follow their films, for servers that cannot interleave."""
    for message in prompt.chat:
        if isinstance(message["content"], list):
            parts: list[dict[str, Any]] = []
            for part in message["content"]:
                parts += [part, {"type": "audio"}] if part["type"] == "video" else [part]
            message["content"] = parts
    prompt.audio_from_video = [None] * len(prompt.audios)
    prompt.use_audio_in_video = False


def messages(prompt: Prompt, facts: ServerFacts, hand: Hand) -> list[dict[str, Any]]:
    """The conversation with its media, in OpenAI's form."""
    images, videos, audios = iter(prompt.images), iter(prompt.videos), _own_sounds(prompt)
    exact = facts.media_arguments

    def part(kind: str, text: str) -> dict[str, Any]:
        if kind == "text":
            return {"type": "text", "text": text}
        if kind == "image":
            return _at("image_url", hand.attachments.url("image/png", hand.encoder.image(next(images))))
        if kind == "audio":
            sound = hand.encoder.sound(next(audios), exact=facts.exact_sound)
            return sound_part(sound, facts.sound_form, hand.attachments)
        film = hand.encoder.film(next(videos), exact=exact, with_sound=prompt.use_audio_in_video)
        if not exact:
            return _at("video_url", hand.attachments.url("video/mp4", film))
        # vLLM keeps pictures and sound under keys of their own and fails on a film whose sound alone it knows (of
        # two silent recordings, say). A name for the whole film makes it keep both together.
        return {**_at("video_url", hand.attachments.url("video/quicktime", film)), "uuid": sha256(film).hexdigest()}

    return [
        {
            "role": message["role"],
            "content": message["content"]
            if isinstance(message["content"], str)
            else [part(piece["type"], piece.get("text", "")) for piece in message["content"]],
        }
        for message in prompt.chat
    ]


def sound_part(sound: bytes, form: SoundForm, attachments: Attachments) -> dict[str, Any]:
    """A recording as this server takes it."""
    url = attachments.url("audio/wav", sound)
    if form == "audio_url" or not url.startswith("data:"):
        return _at("audio_url", url)
    return {
        "type": "input_audio",
        "input_audio": {"data": url if form == "input_audio url" else url.partition(",")[2], "format": "wav"},
    }


def _own_sounds(prompt: Prompt) -> Iterator[Any]:
    """The recordings that stand for themselves; interleaved tracks travel inside their films."""
    return (sound for sound, film in zip(prompt.audios, prompt.audio_from_video, strict=True) if film is None)


def _at(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}
