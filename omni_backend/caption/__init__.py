"""Captions for any number of sounds, of any length, over one backend: from files to exports.

Sound is cut on silence into windows that the model can hear, each window is one request, and what is done is on disk.
`python -m omni_backend.caption --help` is its command line; `app_captioner.py` its page. Importing it loads no engine.
"""

from omni_backend.caption.values import CaptionedFile, CaptionSettings, Segment

__all__ = ["CaptionSettings", "CaptionedFile", "Segment"]
