"""Times of sounds for people."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """A length of time: 0:07, 12:34, 1:02:03; tenths below ten seconds, where they matter."""
    if 0 < seconds < 10 and round(seconds, 1) % 1:
        return moment(seconds)
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def moment(seconds: float) -> str:
    """A point of time in a sound: 0:07.0, 1:02:03.4."""
    tenths = round(seconds * 10)
    hours, minutes, rest = tenths // 36_000, tenths // 600 % 60, tenths % 600 / 10
    return f"{hours}:{minutes:02}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"
