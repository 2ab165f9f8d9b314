"""Asks a server what it can do: a few requests of one token each, all bounded in time, none of them decisive.

What a server refuses (400 and the like) it cannot do. What it leaves unanswered it is believed to do, except for
what must be known to be used: speech, arguments for media, files of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from omni_backend import defaults
from omni_backend.catalogue import phrase
from omni_backend.errors import BackendError, BackendUnavailable
from omni_backend.media_values import Video
from omni_backend.server_client import Address, chunks, safe_detail, translate
from omni_backend.server_facts import PrefixForm, ServerFacts, SoundForm, SpeechForm
from omni_backend.server_media import Attachments, MediaEncoder
from omni_backend.server_request import begin_answer, media_arguments, sampling_arguments, sound_part
from omni_backend.server_stream import ChunkReader
from omni_backend.types import AudioDelta, Done, MediaType, ReasoningDelta, SamplingParams, StreamEvent

if TYPE_CHECKING:
    from openai import AsyncOpenAI

logger = logging.getLogger(__name__)

PROBE_SECONDS: Final = 60.0
"""Of one probe; the first request to a fresh engine may compile things."""

QWEN_VOICES: Final = ("ethan", "chelsie", "aiden")
SPEECH_FORMS: Final = (
    SpeechForm(QWEN_VOICES),
    SpeechForm(("Ethan", "Chelsie", "Aiden"), format="wav", top_level_voice=False),  # DashScope
    SpeechForm(("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse"), top_level_voice=False),
)
"""The ways to ask for speech, with the voices that the published checkpoint or OpenAI's have."""

SOUND_FORMS: Final[tuple[tuple[SoundForm, bool], ...]] = (
    ("input_audio", True),
    ("input_audio", False),
    ("audio_url", False),
    ("input_audio url", False),
)
"""The ways to hand over a recording, and whether as floats; servers but vLLM may take floats for noise."""

PREFIX_FORMS: Final[tuple[PrefixForm, ...]] = ("continue_final_message", "partial")

_TURN_TOKENS: Final = 6
"""By which a prompt grows, at least, where a letter of the assistant's is read as a turn: the letter, the turn's end,
the next one's head. Where it is continued: by the letter, and by the marks of an empty thought (four) at most."""

_REFUSED: Final = (400, 404, 413, 415, 422, 500, 501)
_NAMES: Final = {"vllm": "vLLM", "sglang": "SGLang", "llamacpp": "llama.cpp"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `taken`: True when it was answered, False when it was refused, None when that is unknown."""

    taken: bool | None
    events: tuple[StreamEvent, ...] = ()
    prompt_tokens: int = 0


class Probe:
    """The questions to one server. `key` is needed only to keep it out of the log."""

    def __init__(self, client: AsyncOpenAI, address: Address, key: str | None, facts: ServerFacts) -> None:
        self._client = client.with_options(max_retries=0)
        self._address = address
        self._key = key
        self.facts = facts
        self._encoder = MediaEncoder()
        self._greeting_tokens = 0

    async def ask_all(self, *, speech: bool, folder: Path | None) -> ServerFacts:
        """Asks everything. `speech`: whether it is wanted. `folder`: where the server might read files.

        Raises BackendUnavailable when the server lets nobody in or does not have the model.
        """
        await self._ask_words()
        if speech and self.facts.kind == "instruct":
            await self._ask_speech()
        listens_only = self.facts.kind == "captioner"
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ask_engine())
            group.create_task(self._ask_sound())
            group.create_task(self._ask_prefix())
            if not listens_only:
                group.create_task(self._ask_image(folder))
                group.create_task(self._ask_film())
        if listens_only:
            only = phrase("request.only_audio")
            self._learn(inputs=self.facts.inputs - {"image", "video"})
            self._learn(missing_inputs=self.facts.missing_inputs | {"image": only, "video": only})
        return self.facts

    def _learn(self, **known: Any) -> None:
        self.facts = replace(self.facts, **known)

    async def _ask_words(self) -> None:
        """Whether it answers at all, which arguments it knows, and whether it thinks."""
        silent: dict[str, Any] = {"modalities": ["text"]}  # a server that speaks would otherwise do so now
        plain = replace(self.facts, more_sampling=False)
        plainest = replace(plain, streams_usage=False)
        for facts, more in (
            (self.facts, silent),
            (plain, silent),
            (plain, {}),
            (plainest, {}),
            (replace(plainest, limit_name="max_completion_tokens"), {}),
        ):
            reply = await self._send("Hi", facts, tokens=4, more=more, fatal=(401, 403, 404))
            if reply.taken is not False:
                self.facts = facts
                self._greeting_tokens = reply.prompt_tokens
                break
        thought = any(isinstance(event, ReasoningDelta) for event in reply.events)
        self._learn(reasons=thought, starts_inside=bool(reply.taken) and self.facts.kind == "thinking" and not thought)

    async def _ask_engine(self) -> None:
        """Its name and version, for people."""
        owner = self.facts.listing.owner
        name = "vLLM-Omni" if owner == "vllm" and self.facts.speech else _NAMES.get(owner, owner)
        version = ""
        if owner in _NAMES:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(PROBE_SECONDS):
                    answer: Any = await self._client.get(f"{self._address.site}/version", cast_to=object)
                version = str(answer["version"])
        place = self._address.text.partition("://")[2].partition("/")[0]
        self._learn(engine=", ".join(part for part in (f"{name} {version}".strip(), place) if part))

    async def _ask_prefix(self) -> None:
        """Whether it goes on with an answer that was begun; what it reads over makes another turn of the beginning.

        Servers of models that think are not asked: some put the beginning into the thought, some take the answer for
        one.
        """
        if not self._greeting_tokens or self.facts.reasons or self.facts.kind == "thinking":
            return
        for form in PREFIX_FORMS:
            reply = await self._send("Hi", self.facts, begun=form)
            if 0 < reply.prompt_tokens - self._greeting_tokens < _TURN_TOKENS:
                self._learn(prefix_form=form)
                return

    async def _ask_image(self, folder: Path | None) -> None:
        png = self._encoder.image(_picture())
        if await self._takes("image", [_at("image_url", Attachments(None).url("image/png", png))]) and folder:
            written = Attachments(folder)
            try:
                reply = await self._send([_at("image_url", written.url("image/png", png)), _question()], self.facts)
                self._learn(file_urls=reply.taken is True)
            except OSError as error:
                logger.info("no files for the server: %r", error)
            finally:
                written.close()

    async def _ask_sound(self) -> None:
        exact_too = self.facts.listing.owner.startswith("vllm")
        question = [] if self.facts.kind == "captioner" else [_question()]
        for form, exact in SOUND_FORMS:
            if exact and not exact_too:
                continue
            sound = self._encoder.sound(_tone(), exact=exact)
            reply = await self._send([sound_part(sound, form, Attachments(None)), *question], self.facts)
            if reply.taken is not False:
                self._learn(sound_form=form, exact_sound=exact)
                return
        self._lacks("audio")

    async def _ask_film(self) -> None:
        """Whether it takes films, and its arguments: sound among the frames must show in the prompt's length."""
        film = Video(np.full((4, 3, 64, 64), 90, np.uint8), defaults.VIDEO_FPS, _tone(2.0), 2.0)
        inside = Attachments(None)
        plain = inside.url("video/mp4", self._encoder.film(film, exact=False))
        if not await self._takes("video", [_at("video_url", plain)]):
            return
        heard = inside.url("video/quicktime", self._encoder.film(film, exact=True, with_sound=True))
        lengths = []
        for hear in (False, True):
            extra = media_arguments(hear, defaults.VIDEO_FPS)
            reply = await self._send([_at("video_url", heard), _question()], self.facts, extra=extra)
            if not reply.taken:
                return
            lengths.append(reply.prompt_tokens)
        self._learn(media_arguments=lengths[1] > lengths[0])

    async def _ask_speech(self) -> None:
        """Asks for speech in each known way until sound comes back."""
        for form in SPEECH_FORMS:
            extra = {"voice": form.voices[0]} if form.top_level_voice else {}
            more = {"modalities": ["text", "audio"], "audio": {"voice": form.voices[0], "format": form.format}}
            reply = await self._send("Hi", self.facts, tokens=4, extra=extra, more=more, spoken=True)
            if any(isinstance(event, AudioDelta) for event in reply.events):
                voices = await self._ask_voices()
                self._learn(speech=replace(form, voices=voices or form.voices))
                return
            if reply.taken is not False:
                break  # it understood, or it reads over what it does not know; either way it is silent
        self._learn(no_speech=phrase("server.no_speech"))

    async def _ask_voices(self) -> tuple[str, ...]:
        """The voices that the server lists; empty when it lists none."""
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                answer: Any = await self._client.get("/audio/voices", cast_to=object)
            names = [voice if isinstance(voice, str) else voice["name"] for voice in answer["voices"]]
        except Exception as error:
            logger.info("no list of voices: %s", safe_detail(error, self._key))
            return ()
        # vLLM-Omni names what it does not know "default", and then refuses it.
        return tuple(sorted({*map(str, names)} - {"default"}, key=lambda name: (name.lower() != defaults.VOICE, name)))

    async def _takes(self, kind: MediaType, parts: list[dict[str, Any]]) -> bool:
        """Whether it takes media of this kind; notes it if not."""
        reply = await self._send([*parts, _question()], self.facts)
        if reply.taken is False:
            self._lacks(kind)
        return reply.taken is True

    def _lacks(self, kind: MediaType) -> None:
        self._learn(
            inputs=self.facts.inputs - {kind},
            missing_inputs=self.facts.missing_inputs | {kind: phrase(f"server.no_{kind}")},
        )

    async def _send(
        self,
        content: str | list[dict[str, Any]],
        facts: ServerFacts,
        *,
        tokens: int = 1,
        extra: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
        spoken: bool = False,
        begun: PrefixForm | None = None,
        fatal: tuple[int | None, ...] = (),
    ) -> Reply:
        """One small request; a spoken one ends with the first sound. Raises BackendUnavailable for a status in `fatal`.

        `extra`: arguments that are not OpenAI's; `more`: those that are. `begun`: how to begin the answer, if at all.
        """
        from openai import APIStatusError

        arguments = {
            "model": facts.listing.model,
            "messages": [{"role": "user", "content": content}],
            **sampling_arguments(SamplingParams(temperature=0, max_tokens=tokens), facts),
            **({"modalities": ["text"]} if facts.speech else {}),
            **(more or {}),
        }
        arguments["extra_body"] = arguments.get("extra_body", {}) | (extra or {})
        if begun is not None:
            begin_answer(arguments, "A", begun)
        reader = ChunkReader(spoken=spoken)
        events: list[StreamEvent] = []
        try:
            async with asyncio.timeout(PROBE_SECONDS), aclosing(chunks(self._client, arguments)) as pieces:
                async for piece in pieces:
                    events += reader.feed(piece)
                    if spoken and any(isinstance(event, AudioDelta) for event in events):
                        return Reply(True, tuple(events))
            events += reader.finish()
        except BackendError as error:
            logger.info("probe: %s (%s)", error, error.detail)
            return Reply(False, tuple(events))
        except Exception as error:
            logger.info("probe: %s", safe_detail(error, self._key))
            status = error.status_code if isinstance(error, APIStatusError) else None
            if status in fatal:
                raise self._fatal(error) from None  # the cause may repeat the key
            return Reply(False if status in _REFUSED else None, tuple(events))
        last = events[-1]
        assert isinstance(last, Done)
        return Reply(True, tuple(events), last.usage.prompt_tokens)

    def _fatal(self, error: Exception) -> BackendError:
        found = translate(error, self._address, self._key, self.facts.listing.model, begun=False)
        return found if isinstance(found, BackendUnavailable) else BackendUnavailable(found.phrase, detail=found.detail)


def _question() -> dict[str, Any]:
    return {"type": "text", "text": "What is this?"}


def _at(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}


def _picture() -> Any:
    from PIL import Image

    return Image.fromarray(np.full((96, 96, 3), 120, np.uint8))


def _tone(seconds: float = 1.0) -> np.ndarray[Any, np.dtype[np.float32]]:
    times = np.arange(round(seconds * defaults.SAMPLE_RATE_IN)) / defaults.SAMPLE_RATE_IN
    return (0.1 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)
