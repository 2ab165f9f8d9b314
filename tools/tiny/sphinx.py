"""A recogniser that is not ours and was trained on people: PocketSphinx with its American English model.

    pip install -r requirements-dev.txt

It knows which words there are, all equally likely in any order, and nothing else of what is said.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from tools.tiny.lexicon import RATE
from tools.tiny.sounds import Samples
from tools.tiny.voices import resampled

_RATE: Final = 16_000  # what its model hears
_SILENCE: Final = 0.3  # seconds before and after; it needs some to find where speech begins
_NOISE: Final = 1e-3  # of full scale; it was trained in rooms, and silence without any noise puzzles it
_WORD_COST: Final = 0.01  # PocketSphinx's `wip`: of beginning a word
_WORD_WEIGHT: Final = 1.0  # its `lw`


class Sphinx:
    """Hears `words`, in small letters. Raises ModuleNotFoundError without PocketSphinx, ValueError for other words
    than those it can pronounce."""

    def __init__(self, words: Iterable[str]) -> None:
        from pocketsphinx import Decoder, get_model_path

        known = set(words)
        model = Path(get_model_path(), "en-us")
        lines = (model / "cmudict-en-us.dict").read_text().splitlines()
        entries = [line for line in lines if _word(line.split()[0]) in known]
        if unknown := known - {_word(entry.split()[0]) for entry in entries}:
            raise ValueError(f"not in the dictionary: {', '.join(sorted(unknown))}")
        with tempfile.TemporaryDirectory() as folder:
            grammar, dictionary = Path(folder, "words.arpa"), Path(folder, "words.dict")
            grammar.write_text(_equally_likely(sorted(known)))
            dictionary.write_text("".join(f"{entry}\n" for entry in entries))
            self._decoder = Decoder(
                hmm=str(model / "en-us"),
                dict=str(dictionary),
                lm=str(grammar),
                cmn="batch",
                lw=_WORD_WEIGHT,
                wip=_WORD_COST,
                loglevel="FATAL",
            )

    def hear(self, sound: Samples) -> list[str]:
        """The words of a sound at 24 kHz."""
        samples = np.pad(resampled(sound, RATE, _RATE), round(_SILENCE * _RATE))
        noise = np.random.default_rng(0).normal(0.0, _NOISE, samples.size)
        whole = (np.clip(samples + noise, -1.0, 1.0) * 32_767).astype(np.int16)
        self._decoder.start_utt()
        self._decoder.process_raw(whole.tobytes(), full_utt=True)
        self._decoder.end_utt()
        best = self._decoder.hyp()
        # "<sil>" and such are no words.
        return [_word(entry) for entry in best.hypstr.split() if entry[0] not in "<["] if best else []


def _word(entry: str) -> str:
    """What is said: `a(2)` is the second way to say `a`."""
    return entry.partition("(")[0]


def _equally_likely(words: list[str]) -> str:
    """A language model in ARPA's format: any word may follow any other."""
    share = math.log10(1 / (len(words) + 1))
    known = "".join(f"{share:.4f} {word} 0\n" for word in ["</s>", *words])
    return f"\\data\\\nngram 1={len(words) + 2}\n\n\\1-grams:\n{known}-99 <s> 0\n\n\\end\\\n"
