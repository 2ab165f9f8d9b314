"""What can go wrong, said so that a person knows what happened and what to do.

BackendError
├── BackendUnavailable   the engine is not installed, did not load, or was closed
├── UnsupportedRequest   this checkpoint cannot do what was asked (a voice, speech, a kind of media)
├── BadMedia             a file that cannot be used: empty, broken, unknown, too large, too long
├── ContextTooLong       the conversation does not fit into the model's context
├── OutOfMemory          the device ran out of memory while answering
└── GenerationFailed     anything else that stopped the engine in mid-answer
    └── EngineDied       the engine itself ended; it is started again by itself
"""

from __future__ import annotations

from omni_backend.catalogue import DEFAULT_LANGUAGE, Language, Phrase


class BackendError(Exception):
    """The base of the tree. `phrase` is the sentence for people, `detail` the technical cause ("" when none)."""

    def __init__(self, phrase: Phrase, *, detail: str = "") -> None:
        super().__init__(phrase, detail)
        self.phrase = phrase
        self.detail = detail

    def text(self, language: Language = DEFAULT_LANGUAGE) -> str:
        """The sentence in the reader's language."""
        return self.phrase.text(language)

    def __str__(self) -> str:
        return self.text()


class BackendUnavailable(BackendError):
    """The engine is not installed, did not load, or was closed."""


class UnsupportedRequest(BackendError):
    """The loaded checkpoint cannot do what the request asks for."""


class BadMedia(BackendError):
    """A file of the request cannot be used."""


class ContextTooLong(BackendError):
    """The conversation does not fit into the model's context."""


class OutOfMemory(BackendError):
    """The device ran out of memory while answering."""


class GenerationFailed(BackendError):
    """The engine stopped in mid-answer for a reason of its own."""


class EngineDied(GenerationFailed):
    """The engine itself ended, with all that it was answering. The backend starts it again by itself."""
