"""One image file, untrusted, to uint8 pixels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

# Listed, because the image library also opens formats that start an interpreter (PostScript).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MAX_PIXELS = 1 << 26
_GREY_MODES = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"}
_COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > _MAX_PIXELS:
                raise ValueError(f"{width}×{height} pixels are more than {_MAX_PIXELS}")
            if image.mode not in _GREY_MODES | _COLOUR_MODES:
                raise ValueError(f"pixels of mode {image.mode!r} are not supported, save it with 8 bits")
            yield image
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} is not an image ({', '.join(_FORMATS)}): replace or delete it") from error
    except Exception as error:
        # A decoder fed with damaged bytes fails in many ways (struct, zlib, index, syntax errors, …).
        raise ValueError(f"image {path} cannot be read ({error}): replace or delete it") from error


def in_colour(path: Path) -> bool:
    """Whether the file's header announces colour. Raises ValueError, with the path, if it is unreadable."""
    with _opened(path) as image:
        return image.mode in _COLOUR_MODES


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels, after the turn that a camera noted in the file. Raises as `in_colour`."""
    from PIL import ImageOps

    with _opened(path) as image:
        width, height = ImageOps.exif_transpose(image).size
        return height, width


def read_pixels(path: Path, channels: int, height: int, width: int) -> np.ndarray:
    """uint8 [channels, height, width] of an image, upright, resized (bilinear) where its size differs.

    channels 1 gives grey, 3 gives RGB; 16-bit grey v becomes round(v·255/65535); transparency is dropped.
    Raises ValueError, with the path, for a file that is damaged, no image, or of more than 2^26 pixels.
    """
    from PIL import Image, ImageOps

    with _opened(path) as image:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):
            image = Image.fromarray(_eight_bits(np.asarray(image)))
        image = image.convert("RGB" if channels == 3 else "L")
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("it has more than 16 bits a pixel, save it with 8 bits")
    return ((values.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
