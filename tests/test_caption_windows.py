"""Long sounds are cut where they are quiet, into windows that fit, and nothing of them is lost or heard twice."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from omni_backend.caption.windows import PEAKS_PER_SECOND, RATE, Window, cut


def noise(seconds: float, pauses: tuple[float, ...] = (), pause_seconds: float = 0.4) -> NDArray[np.float32]:
    """Noise, with pauses that begin at these seconds."""
    sound = (0.2 * np.random.default_rng(7).standard_normal(round(seconds * RATE))).astype(np.float32)
    for start in pauses:
        sound[round(start * RATE) : round((start + pause_seconds) * RATE)] *= 0.001
    return sound


def windows(sound: NDArray[np.float32], window: float = 30.0, overlap: float = 0.0, piece: int = 4_321) -> list[Window]:
    pieces = (sound[at : at + piece] for at in range(0, sound.size, piece))
    return list(cut(pieces, window_seconds=window, overlap_seconds=overlap))


def assert_whole(found: list[Window], sound: NDArray[np.float32], window: float, overlap: float) -> None:
    """The windows hold all of the sound in its order, each no more than it may."""
    assert found[0].start == 0
    assert found[-1].end == sound.size / RATE
    assert [one.index for one in found] == list(range(len(found)))
    assert all(before.end == after.start for before, after in pairwise(found))
    for one in found:
        heard = 0.0 if one.index == 0 else overlap
        first = round((one.start - heard) * RATE)
        assert np.array_equal(one.pcm, sound[first : round(one.end * RATE)])
        assert one.pcm.size <= window * RATE


@pytest.mark.parametrize("overlap", [0.0, 2.0, 4.0])
@pytest.mark.parametrize("window", [5.0, 12.5, 30.0])
@pytest.mark.parametrize("seconds", [0.01, 4.0, 30.0, 30.4, 31.2, 95.3])
def test_all_of_the_sound_is_in_the_windows(seconds: float, window: float, overlap: float) -> None:
    sound = noise(seconds)
    assert_whole(windows(sound, window, overlap), sound, window, overlap)


@pytest.mark.parametrize("seconds", [0.01, 10.0, 30.0])
def test_a_sound_that_fits_is_not_cut(seconds: float) -> None:
    [only] = windows(noise(seconds))
    assert (only.start, only.end) == (0.0, seconds)


def test_cuts_lie_in_pauses() -> None:
    pauses = (9.0, 21.0, 26.0, 41.0, 52.0, 63.0, 70.0, 88.0)
    found = windows(noise(100, pauses))
    cuts = [one.end for one in found[:-1]]
    assert len(cuts) == 3
    for at in cuts:
        assert any(start < at < start + 0.4 for start in pauses), at
    # The last of several pauses, so that there are few windows.
    assert 26.0 < cuts[0] < 26.4


def test_a_steady_sound_fills_its_windows() -> None:
    for sound in (noise(100), np.zeros(100 * RATE, np.float32)):
        assert [one.end for one in windows(sound)] == [30.0, 60.0, 90.0, 100.0]


def test_no_window_at_the_end_is_too_short_to_say_anything() -> None:
    for seconds in (30.01, 30.5, 30.99, 60.3):
        assert all(one.end - one.start >= 1.0 for one in windows(noise(seconds)))
    for seconds in (20.01, 20.5, 20.99):
        found = cut([noise(seconds)], window_seconds=5.0, overlap_seconds=4.0)
        assert all(one.end - one.start >= 0.5 for one in found)


def test_cuts_do_not_depend_on_how_the_sound_arrives() -> None:
    sound = noise(70, (17.0, 25.0, 44.0))
    spans = [[(one.start, one.end) for one in windows(sound, piece=piece)] for piece in (160, 16_000, 10**7)]
    assert spans[0] == spans[1] == spans[2]


def test_windows_come_while_the_sound_is_still_being_read() -> None:
    read = 0

    def endless() -> Iterator[NDArray[np.float32]]:
        nonlocal read
        while True:
            read += 1
            yield np.zeros(RATE, np.float32)

    coming = cut(endless(), window_seconds=30.0)
    next(coming)
    assert read == 31
    next(coming)
    assert read == 61


def test_nothing_has_no_windows() -> None:
    assert windows(np.zeros(0, np.float32)) == []


def test_peaks_show_the_sound() -> None:
    sound = np.zeros(3 * RATE, np.float32)
    sound[RATE : 2 * RATE] = np.sin(np.arange(RATE)) * 0.5
    sound[-1] = 7.0  # louder than full scale
    [only] = windows(sound)
    assert len(only.peaks) == 3 * PEAKS_PER_SECOND
    assert set(only.peaks[:50]) == {0}
    assert all(120 <= peak <= 128 for peak in only.peaks[50:100])
    assert only.peaks[-1] == 255
