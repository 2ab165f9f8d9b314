"""The one home of the limits and defaults of captioning."""

from __future__ import annotations

from typing import Final

from omni_backend import defaults

WINDOW_SECONDS: Final = defaults.AUDIO_WINDOW_SECONDS
"""No longer windows than the published captioner hears well."""
LEAST_WINDOW_SECONDS: Final = 5.0
MOST_OVERLAP_SECONDS: Final = 4.0
"""Less than the shortest window, so that each window brings something new."""
MOST_SAMPLES: Final = 5

FILE_SECONDS: Final = 12 * 3600.0
"""Of one file. Its waveform and captions are held in memory while it is looked at."""
FILE_BYTES: Final = 8 * 1024**3
"""Of one file: twelve hours of CD sound."""
FILES: Final = 5_000
"""Of one job."""

ZIP_BYTES: Final = 8 * 1024**3
"""What one archive may unpack to."""
ZIP_RATIO: Final = 100
"""How much larger than its packed form a member may be, once it is large: recordings shrink to a half, and even
silence seldom below a hundredth."""
ZIP_RATIO_FREE_BYTES: Final = 64 * 1024**2
"""What a member may unpack to whatever its ratio: half an hour of silence."""
ZIP_MEMBERS: Final = 4 * FILES
"""What one archive may list, folders, pictures and a Mac's shadow of each file among them."""
ZIP_DIRECTORY_BYTES: Final = 8 * 1024**2
"""Of an archive's list of members, which is read at once: 400 for each of them."""
ZIP_WINDOW_BYTES: Final = 128 * 1024**2
"""What unpacking an LZMA member may hold in memory; 7-Zip's strongest setting takes half."""
