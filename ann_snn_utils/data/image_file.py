"""One image file, untrusted, to uint8 pixels as a person sees them."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

# Listed, because the image library also opens formats that start an interpreter (PostScript).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")

_MAX_PIXELS = 1 << 26

_GREY_MODES = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N"}

_PALETTE_MODES = {"P", "PA"}

_COLOUR_MODES = {"RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"}


def legible(name: str | os.PathLike[str]) -> str:
    """A file name as text in one form of Unicode (NFC); bytes that are not UTF-8 are read as Latin-1."""
    raw = os.fsencode(name)
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError:
        decoded = raw.decode("latin-1")
    return unicodedata.normalize("NFC", decoded)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            if width * height > _MAX_PIXELS:
                raise ValueError(f"{width}×{height} pixels are more than {_MAX_PIXELS}")
            if image.mode not in _GREY_MODES | _PALETTE_MODES | _COLOUR_MODES:
                raise ValueError(f"pixels of mode {image.mode!r} are not supported, save it with 8 bits")
            # The second picture of a camera's JPEG (MPO) is a preview or a depth map.
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":
                raise ValueError(f"it has {frames} frames, save each one as a file of its own")
            if _is_deep(image):
                if "transparency" in image.info:
                    raise ValueError("16 bits with one transparent value are not supported, save it with 8 bits")
                # Pillow inverts such files of 8 bits only.
                if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(262) == 0:
                    raise ValueError("16 bits where 0 is white are not supported, save it as PNG")
            yield image
    except UnidentifiedImageError as error:
        kinds = ", ".join(_FORMATS)
        raise ValueError(f"{legible(path)} is not an image ({kinds}): replace or delete it") from error
    except Exception as error:
        # A decoder fed with damaged bytes fails in many ways (struct, zlib, index, syntax errors, …).
        raise ValueError(f"image {legible(path)} cannot be read ({error}): replace or delete it") from error


def _is_deep(image: ImageFile.ImageFile) -> bool:
    return image.mode.startswith("I") or any(";16" in str(tile.args) for tile in image.tile)


def _flat(image: Image.Image) -> Image.Image:
    """The image upright, with 8 bits a channel and whatever is transparent on white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def _eight_bits(values: np.ndarray) -> np.ndarray:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError("it has more than 16 bits a pixel, save it with 8 bits")
    pixels = ((values.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)
    if low < high and pixels.min() == pixels.max():
        raise ValueError(
            f"its 16-bit values {low}…{high} all become {pixels.max()} in 8 bits, scale them to 0…65535 or save it "
            "with 8 bits"
        )
    return pixels


def in_colour(path: Path) -> bool:
    """Whether an image is stored in colour, or a pixel has one from its palette. ValueError if unreadable."""
    with _opened(path) as image:
        if image.mode in _PALETTE_MODES:
            pixels = np.asarray(_flat(image).convert("RGB"))
            return bool((pixels != pixels[..., :1]).any())
        # Pillow has no mode for grey with transparency in 16 bits.
        return image.mode in _COLOUR_MODES and not any("LA;16" in str(tile.args) for tile in image.tile)


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels, after the turn that a camera noted in the file. Raises as `in_colour`."""
    with _opened(path) as image:
        width, height = ImageOps.exif_transpose(image).size
        return height, width


def read_pixels(path: Path, channels: int, height: int, width: int) -> np.ndarray:
    """uint8 [channels, height, width] of an image, upright, resized (bilinear) where its size differs.

    channels 1 gives grey, 3 gives RGB. 16-bit grey v becomes round(v·255/65535); transparency lies on white, as
    viewers of images have it. Raises ValueError, with the path, for a file that is damaged, no image, of several
    frames or of more than 2^26 pixels, and for 16-bit values that 8 bits no longer tell apart.
    """
    with _opened(path) as image:
        picture = _flat(image).convert("RGB" if channels == 3 else "L")
        if picture.size != (width, height):
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(picture)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def has_16_bits(path: Path) -> bool:
    """Whether an image file holds 16 bits for a channel. Raises as `in_colour`."""
    with _opened(path) as image:
        return _is_deep(image)


def each_image(
    pool: ThreadPoolExecutor, function: Callable[[Path], Any], paths: Sequence[Path], wrong: list[str], doing: str
) -> Iterator[Any]:
    """What a function gives of each file, in order; None where it refuses one, with its words added to `wrong`."""
    from tqdm.auto import tqdm

    def tried(path: Path) -> Any:
        try:
            return function(path)
        except ValueError as error:
            return error

    for found in tqdm(pool.map(tried, paths), total=len(paths), desc=doing):
        if isinstance(found, ValueError):
            wrong.append(str(found))
            found = None
        yield found
