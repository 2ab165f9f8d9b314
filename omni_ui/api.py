"""The one endpoint for programs: `/chat`. A message with files in; streamed text, then the sound file out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr

from omni_backend import Backend, BackendError
from omni_ui.composer import read_message
from omni_ui.language import language_of
from omni_ui.sampling import read_sampling, sampling_of
from omni_ui.sessions import AnswerOptions
from omni_ui.store import SessionStore

Reply = tuple[str, str | None, str]
"""The text so far, the sound file once it is whole, and the id of the conversation (kept by the server)."""


class ChatApi:
    """Keeps a conversation for each client; shares nothing with the pages but the engine."""

    def __init__(self, backend: Backend, sessions: SessionStore) -> None:
        self._backend = backend
        self._sessions = sessions

    async def chat(
        self,
        message: dict[str, Any] | None,
        speak: bool,
        voice: str | None,
        system_prompt: str | None,
        new_conversation: bool,
        sampling: dict[str, Any] | None,
        id: str | None,
        request: gr.Request,
    ) -> AsyncGenerator[Reply, None]:
        """Answers one message of a conversation.

        Yields (text so far, None) while the answer grows and (text, sound file) at its end; the sound file is
        None unless `speak` is set. Closing the job ends the answer.

        Parameters:
            message: {"text": ..., "files": [...]}
            speak: whether to answer aloud, too
            voice: one of the checkpoint's voices; empty: its first
            system_prompt: what the model should be; empty: nothing
            new_conversation: forget what was said before
            sampling: temperature, top_p, top_k, repetition_penalty, max_tokens, seed; left out: the checkpoint's own
        """
        language = language_of(request)
        session = self._sessions.open(id, page=request.session_hash or "")
        if new_conversation:
            await session.restart()
        try:
            can = await self._backend.ready()
            drawn = read_sampling(sampling, language)
            sent = await asyncio.to_thread(read_message, message or {}, session)
            await session.stop()  # one answer at a time
            options = AnswerOptions(bool(speak), voice or None, system_prompt or "", sampling_of(drawn, can))
            turn = session.ask(self._backend, sent, options)
        except BackendError as problem:
            if not session.entries:
                self._sessions.discard(session.id)  # nothing was said in it, and its caller never learns its id
            raise gr.Error(problem.text(language), print_exception=False) from problem
        async with aclosing(turn.look()) as answers:
            async for answer in answers:
                if answer.text and not answer.ended:
                    yield answer.text, None, session.id
        if answer.error is not None:
            raise gr.Error(answer.error.text(language), print_exception=False)
        sound = session.entries[-1].sound if session.entries and not answer.stopped else None
        yield answer.text, str(sound) if sound else None, session.id


def add_api(backend: Backend, sessions: SessionStore, concurrency: dict[str, Any]) -> None:
    """Publishes `/chat` in the Blocks that are being built."""
    message = gr.MultimodalTextbox(label="message", file_count="multiple", visible=False)
    speak = gr.Checkbox(label="speak", visible=False)
    voice = gr.Textbox("", label="voice", visible=False)
    system_prompt = gr.Textbox("", label="system_prompt", visible=False)
    new_conversation = gr.Checkbox(label="new_conversation", visible=False)
    text = gr.Textbox(label="text", visible=False)
    sound = gr.Audio(label="sound", type="filepath", visible=False)
    session = gr.State(None)
    sampling = gr.JSON({}, label="sampling", visible=False)
    gr.Button(visible=False).click(
        ChatApi(backend, sessions).chat,
        [message, speak, voice, system_prompt, new_conversation, sampling, session],
        [text, sound, session],
        api_name="chat",
        api_visibility="public",
        **concurrency,
    )
