"""Hears every sample that the page's player puts out, to compare it with what should sound."""

from __future__ import annotations

import base64
from typing import Final

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Frame, Page

# A worklet of its own, so that nothing of the player is trusted.
_EAR: Final = """
async () => {
  const source = `registerProcessor("ear", class extends AudioWorkletProcessor {
    process([[samples]]) { if (samples) this.port.postMessage(samples.slice()); return true; }
  })`;
  const player = window.omniPlayer;
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  await player.context.audioWorklet.addModule(url);
  const ear = new AudioWorkletNode(player.context, "ear");
  window.heard = [];
  ear.port.onmessage = ({ data }) => window.heard.push(data);
  player.output.connect(ear);
  ear.connect(player.context.destination);
}
"""
_HEARD: Final = """
() => {
  const whole = new Float32Array(window.heard.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of window.heard) { whole.set(piece, at); at += piece.length; }
  const bytes = new Uint8Array(whole.buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  return btoa(text);
}
"""


class Ear:
    """Listens from now on. Clicks on the page first, since a page may sound only after a gesture."""

    def __init__(self, page: Page | Frame) -> None:
        self._page = page
        page.locator("#omni-title").click()
        page.wait_for_function("window.omniPlayer.output !== null")
        page.evaluate(_EAR)

    def heard(self) -> NDArray[np.float32]:
        """The samples so far, 24 kHz, the silence before and after cut off."""
        samples = np.frombuffer(base64.b64decode(self._page.evaluate(_HEARD)), "<f4")
        return np.trim_zeros(samples)
