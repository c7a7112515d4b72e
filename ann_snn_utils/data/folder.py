"""Image folders with train/<class>/ and test/<class>/, decoded once and kept as uint8 tensors.

One image file, untrusted, to uint8 pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import lzma
import os
import stat
import tarfile
import warnings
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..files import ROOT, atomic, load_tensors, save_tensors

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


_MAX_BYTES = 4 << 30

_MAX_FILES = 1_000_000

_MAX_HEADER_BYTES = 1 << 20

_MAX_SIDE = 4096

_IGNORED = {"thumbs.db", "desktop.ini"}

_CACHE_VERSION = 1


@dataclass(frozen=True)
class _File:
    path: Path
    label: int
    key: tuple[str, int, int]


def cache_folder() -> Path:
    """Where decoded and unpacked images lie: $ANN_SNN_CACHE, else data/raw/cache in the repository."""
    return Path(os.environ.get("ANN_SNN_CACHE") or ROOT / "data" / "raw" / "cache").expanduser().absolute()


def image_size(size: int | tuple[int, int] | None, name: str = "size") -> tuple[int, int] | None:
    """(height, width) from an int (square) or a pair; None stays None. Raises ValueError outside 1…4096."""
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else size
    valid = isinstance(sides, tuple | list) and len(sides) == 2
    if not valid or not all(type(side) is int and 1 <= side <= _MAX_SIDE for side in sides):
        raise ValueError(f"{name}={size!r:.80}: give one int or (height, width), each between 1 and {_MAX_SIDE}")
    return tuple(sides)


def read_image_folder(
    folder: str | os.PathLike[str], split: str, size: int | tuple[int, int] | None = None
) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Images uint8 [N,C,H,W], labels int64 [N] and class names of one split of an image folder.

    C is 3 if any image of either split is in colour, else 1. Every image is resized once (bilinear) to
    `size`, else to the size of the first training image. 16-bit grey is scaled to 8 bits, CMYK is converted
    to RGB, transparency is dropped. Classes are sorted by name, all-decimal names by value. Hidden files,
    and files beside the class folders, are ignored. The decoded images are kept in `cache_folder()`.

    Raises FileNotFoundError for a missing folder; ValueError, with the path, for classes that are missing,
    empty, fewer than two or differ between the splits, for a file that is empty, truncated, too large or
    no image, and for a link that leads out of the folder.
    """
    folder = Path(folder).resolve()
    target = image_size(size)
    classes, files = _list_folder(folder)
    labels = torch.tensor([file.label for file in files[split]], dtype=torch.int64)

    key = json.dumps([_CACHE_VERSION, str(folder), target, [f.key for part in files.values() for f in part]])
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    caches = {part: cache_folder() / f"{digest}-{part}.safetensors" for part in files}
    images = _cached(caches[split], len(labels))
    if images is None:
        decoded = _decode(files, target)
        for part, cache in caches.items():
            _keep(cache, decoded[part], str(folder))
        images = decoded[split]
    return images, labels, classes


def _cached(cache: Path, count: int) -> torch.Tensor | None:
    try:
        images = load_tensors(cache)[0]["images"]
    except (OSError, ValueError, KeyError):
        return None
    return images if images.dtype == torch.uint8 and images.dim() == 4 and len(images) == count else None


def _keep(cache: Path, images: torch.Tensor, source: str) -> None:
    try:
        save_tensors(cache, {"images": images}, {"source": source})
    except OSError as error:
        warnings.warn(
            f"decoded images are not kept, the next run decodes them again: {error}; "
            "set ANN_SNN_CACHE to a writable folder",
            stacklevel=4,
        )


def _list_folder(folder: Path) -> tuple[tuple[str, ...], dict[str, list[_File]]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"image folder {folder} does not exist: check the path")
    names, files = {}, {}
    for split in ("train", "test"):
        if not (folder / split).is_dir():
            raise FileNotFoundError(
                f"image folder {folder} has no {split}/ folder: it needs train/<class>/ and test/<class>/"
            )
        _refuse_escape(folder / split, folder)
        found = [entry.name for entry in _entries(folder / split, folder) if entry.is_dir()]
        names[split] = sorted(found, key=lambda name: (int(name) if _decimal(name) else -1, name))
    train, test = set(names["train"]), set(names["test"])
    if len(train | test) == 0:
        raise ValueError(f"{folder / 'train'} has no class folders: put the images in train/<class>/")
    if train != test:
        only = [
            f"only in {split}/: {', '.join(sorted(part))}"
            for split, part in (("train", train - test), ("test", test - train))
            if part
        ]
        raise ValueError(
            f"train/ and test/ of {folder} have different classes ({'; '.join(only)}): "
            "give both the same class folders"
        )
    if len(train) < 2:
        raise ValueError(f"{folder} has one class only, {names['train'][0]!r}: a study needs at least two")
    for split in names:
        files[split] = [
            file
            for label, name in enumerate(names["train"])
            for file in _list_class(folder, folder / split / name, label)
        ]
    return tuple(names["train"]), files


def _decimal(name: str) -> bool:
    return name.isascii() and name.isdecimal() and len(name) < 20


def _list_class(folder: Path, place: Path, label: int) -> list[_File]:
    files = []
    for entry in sorted(_entries(place, folder), key=lambda entry: entry.name):
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{entry.path} is not a file: put images directly into their class folder")
        if status.st_size == 0:
            raise ValueError(f"{entry.path} is empty (0 bytes): copy it again or delete it")
        relative = Path(entry.path).relative_to(folder).as_posix()
        files.append(_File(Path(entry.path), label, (relative, status.st_size, status.st_mtime_ns)))
    if not files:
        raise ValueError(f"class folder {place} is empty: add images or remove the class from both splits")
    return files


def _entries(place: Path, folder: Path) -> Iterable[os.DirEntry[str]]:
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in _IGNORED:
                continue
            if entry.is_symlink():
                _refuse_escape(Path(entry.path), folder)
            yield entry


def _refuse_escape(path: Path, folder: Path) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{path} is a link that leads nowhere: remove it") from error
    if not target.is_relative_to(folder):
        raise ValueError(f"{path} is a link out of the image folder, to {target}: copy the files instead")


def _decode(files: dict[str, list[_File]], target: tuple[int, int] | None) -> dict[str, torch.Tensor]:
    from tqdm.auto import tqdm

    paths = [file.path for part in files.values() for file in part]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        colour = list(tqdm(pool.map(in_colour, paths), total=len(paths), desc="checking images"))
        channels = 3 if any(colour) else 1
        height, width = target or upright_size(paths[0])
        needed = len(paths) * channels * height * width
        if needed > _MAX_BYTES:
            raise ValueError(
                f"{len(paths)} images of {channels}×{height}×{width} take {needed / 2**30:.1f} GiB, "
                f"more than {_MAX_BYTES >> 30} GiB: pass a smaller size, such as size=32"
            )
        pixels = np.empty((len(paths), channels, height, width), dtype=np.uint8)
        decoded = pool.map(partial(read_pixels, channels=channels, height=height, width=width), paths)
        for row, image in zip(pixels, tqdm(decoded, total=len(paths), desc="decoding images"), strict=True):
            row[:] = image
    parts = torch.from_numpy(pixels).split([len(part) for part in files.values()])
    return dict(zip(files, parts, strict=True))


def unpack(archive: str | os.PathLike[str]) -> Path:
    """Unpack a tar archive (any compression) once into `cache_folder()`; return its folder of images.

    Raises FileNotFoundError where it is missing, ValueError where it is damaged, holds anything but plain
    files and folders below its top, or would fill more than 4 GiB or a million files.
    """
    from tqdm.auto import tqdm

    archive = Path(archive).resolve()
    if not archive.is_file():
        raise FileNotFoundError(f"archive {archive} does not exist: check the path")
    if not hasattr(tarfile, "data_filter"):
        raise ValueError(f"cannot unpack {archive} safely with this Python: use 3.11.4 or later")
    status = archive.stat()
    key = json.dumps([str(archive), status.st_size, status.st_mtime_ns])
    target = cache_folder() / f"{archive.name.split('.')[0]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not target.is_dir():
        try:
            with atomic(target) as temporary, tarfile.open(archive, tarinfo=_Member) as tar:
                temporary.mkdir()
                _extract(tqdm(tar, desc=f"unpacking {archive.name}", unit=" files"), tar, temporary)
        except OSError as error:
            # Another process may have put the same folder there first, which serves as well.
            if not target.is_dir():
                if error.errno is not None:
                    raise
                raise _damaged(archive, error) from error
        except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
            raise _damaged(archive, error) from error
    inside = list(target.iterdir())
    return inside[0] if len(inside) == 1 and inside[0].is_dir() else target


class _Member(tarfile.TarInfo):
    # tarfile reads a member's extended header into memory whole, whatever size it announces.
    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
        header = super().frombuf(buf, encoding, errors)
        if header.type not in tarfile.REGULAR_TYPES and header.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size} bytes")
        return header


def _extract(members: Iterable[tarfile.TarInfo], tar: tarfile.TarFile, folder: Path) -> None:
    total = 0
    for count, member in enumerate(members):
        total += member.size
        if not (member.isfile() or member.isdir()):
            raise ValueError(f"its entry {member.name!r} is a link or a device")
        if total > _MAX_BYTES or count >= _MAX_FILES:
            raise ValueError(f"it unpacks to more than {_MAX_BYTES >> 30} GiB or {_MAX_FILES} files")
        tar.extract(member, folder, filter="data")


def _damaged(archive: Path, error: Exception) -> ValueError:
    return ValueError(f"archive {archive} cannot be unpacked safely ({error}): fetch it again")


_data_MAX_BYTES = 4 << 30


def _check_room(number: int, channels: int, size: tuple[int, int]) -> None:
    if number * channels * size[0] * size[1] > _data_MAX_BYTES:
        raise ValueError(
            f"size={size}: {number} images of {channels} × {size[0]} × {size[1]} take more than "
            f"{_MAX_BYTES >> 30} GiB; give a smaller size"
        )
