"""How the embedded checkpoint is made: a tiny Qwen3-Omni, trained on a small world that is drawn and computed.

    python -m tools.tiny all RUN            # every stage, from random weights, into the folder RUN
    python -m tools.tiny joint RUN --warm   # one stage, from the embedded checkpoint's weights
    python -m tools.tiny.evaluate RUN/checkpoint

README.md beside this file says what the stages are and how to run them on a GPU. Nothing is downloaded; spoken words
come from the synthesizer espeak-ng (Debian: apt-get install espeak-ng), which must be installed.
"""
