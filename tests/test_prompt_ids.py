"""Where sound and pictures of a film stand in the prompt, in token ids of the real processor."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any, cast

import pytest

from omni_backend import Backend, MediaPart
from tests.media_files import film_file
from tests.parity import ask, read_by_transformers, turn

SECOND = 13  # audio tokens in a second


@pytest.mark.engine
def test_a_film_is_read_at_its_true_speed(engine: Backend, tmp_path: Path) -> None:
    """Processors take films for one frame a second unless told; sound and pictures would then drift apart."""
    file = tmp_path / "film.mp4"
    file.write_bytes(film_file("mp4", seconds=4.0))
    config = cast(Any, engine).loaded.model.config.thinker_config
    kinds = {config.video_token_id: "picture", config.audio_token_id: "sound"}

    prompt = read_by_transformers(engine, ask(turn(MediaPart("video", str(file)), "?"))).prompt
    runs = [(kind, len(list(run))) for kind, run in groupby(kinds[token] for token in prompt if token in kinds)]

    pictures = [length for kind, length in runs if kind == "picture"]
    sounds = [length for kind, length in runs if kind == "sound"]
    assert len(pictures) == 4, "two frames a second, two frames a step"
    assert len(set(pictures)) == 1
    assert sounds[:3] == [SECOND] * 3
    assert sounds[3] == pytest.approx(SECOND, abs=1)
