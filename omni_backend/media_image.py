"""Images through Pillow: what their headers say, and their pixels, upright and in RGB.

Animated GIFs are films (see `media_container`). Of an animated WebP or PNG the first picture is used.
"""

from __future__ import annotations

import threading
from typing import IO, TYPE_CHECKING

from omni_backend.media_source import Source
from omni_backend.media_values import MediaInfo, bad_media

if TYPE_CHECKING:
    from PIL import Image

# Only formats that Pillow decodes itself; others (EPS, say) start programs.
_FORMATS = ("PNG", "JPEG", "MPO", "GIF", "BMP", "WEBP", "TIFF", "AVIF")
_ORIENTATION = 0x0112  # EXIF tag
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_lock = threading.Lock()


def look_at_image(source: Source, max_pixels: int) -> MediaInfo | None:
    """What the header says; None when this is no image or an animated GIF.

    Raises BadMedia: broken, more than `max_pixels` pixels, a HEIC file without pillow-heif.
    """
    with source.open() as file:
        image = _open(file, source, max_pixels)
        if image is None:
            return None
        with image:
            try:
                if image.format == "GIF" and getattr(image, "is_animated", False):
                    return None
            except Exception as error:  # Pillow's readers raise whatever their parsers meet
                raise bad_media("broken", source.name, detail=repr(error)) from error
            width, height = image.size
            return MediaInfo("image", None, False, (height, width) if _orientation(image) >= 5 else (width, height))


def load_image(source: Source, max_pixels: int) -> Image.Image:
    """The picture, upright, RGB, transparent parts on white, full size; of a GIF the first picture.

    Raises BadMedia: no image, broken, truncated, more than `max_pixels` pixels.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    with source.open() as file:
        image = _open(file, source, max_pixels)
        if image is None:
            raise bad_media("unknown", source.name)
        with image:
            try:
                image.load()
                turn = turns.get(_orientation(image))
                return _rgb(image if turn is None else image.transpose(turn))
            except Exception as error:
                raise bad_media("broken", source.name, detail=repr(error)) from error


def _open(file: IO[bytes], source: Source, max_pixels: int) -> Image.Image | None:
    """The image with its header read; None when the content is none."""
    from PIL import Image, UnidentifiedImageError

    head = file.read(12)
    file.seek(0)
    heif = head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS
    with _lock:
        Image.init()
        formats = [name for name in _FORMATS if name in Image.OPEN]
        if heif and _register_heif():
            formats.append("HEIF")
    try:
        image = Image.open(file, formats=formats)
    except UnidentifiedImageError:
        if heif:
            raise bad_media("broken" if "HEIF" in formats else "heic", source.name) from None
        return None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise bad_media("too_many_pixels", source.name, limit=max_pixels) from error
    except Exception as error:
        raise bad_media("broken", source.name, detail=repr(error)) from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise bad_media("too_big_image", source.name, width=width, height=height, limit=max_pixels)
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (upright) when there is none. From 5 on width and height are swapped."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a photo with damaged notes is still a photo
        return 1


def _register_heif() -> bool:
    """Teaches Pillow HEIC if the optional package pillow-heif is there."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _rgb(image: Image.Image) -> Image.Image:
    """RGB on white. Pillow's own conversion drops transparency and clips 16-bit greys to white."""
    import numpy as np
    from PIL import Image

    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        grey = np.asarray(image, dtype=np.float32)
        image = Image.fromarray((grey / 256 if grey.max(initial=0) > 255 else grey).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white
