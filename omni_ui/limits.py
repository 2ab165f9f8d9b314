"""What the server keeps of conversations, how much of it and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

IDLE_SECONDS: Final = 3600
"""How long a conversation is kept that nobody continues; its files are kept as long."""
GRACE_SECONDS: Final = 600
"""How long after its page was closed: a reload takes seconds, but a phone puts a page to sleep for minutes."""
SWEEP_SECONDS: Final = 30.0
"""Between two looks for what is due: a quarter of the shortest time above."""
TOUCH_SECONDS: Final = 600.0
"""Between two datings of a conversation's files. Gradio deletes those that are older than IDLE_SECONDS."""
UNSENT_SECONDS: Final = 60.0
"""How long a file is spared that came for a message which is not sent yet: in between it is only looked at."""
GONE_IDS: Final = 4096
"""Of how many forgotten conversations the reason is remembered: 16 times all that there can be."""


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """How much is kept. Beyond it the oldest goes first, and its visitor is told."""

    sessions: int = 256
    """Conversations: sixteen times as many as one process serves well at the same time."""
    idle_seconds: float = IDLE_SECONDS
    grace_seconds: float = GRACE_SECONDS
    conversation_bytes: int = 1024**3
    """Files of one conversation: the most films that one message may have, each of the largest size."""
    total_bytes: int = 20 * 1024**3
    """Files of all conversations, but at most half of what the disk has free at the start."""
    unsent_bytes: int = 5 * 1024**3
    """Uploads that no conversation holds, but at most a quarter of what the disk has free at the start."""
    messages: int = 1000
    """Messages of one conversation: more than twice the longest that the page was measured with."""
    characters: int = 1_000_000
    """Words and thoughts of one conversation: eight times what the model's context holds.
    256 MB of memory for all of them in English, twice as much in Chinese."""


__all__ = [
    "GONE_IDS",
    "GRACE_SECONDS",
    "IDLE_SECONDS",
    "SWEEP_SECONDS",
    "TOUCH_SECONDS",
    "UNSENT_SECONDS",
    "StoreLimits",
]
