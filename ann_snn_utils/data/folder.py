"""Image folders with train/<class>/ and test/<class>/, decoded to uint8 tensors.

Files are untrusted: whatever a decoder does with damaged or hostile bytes becomes a ValueError that names the file.
An image is decoded as a person sees it, or refused by name where that is not the whole content. Decoded images are
cached under the digest of the bytes that they were made from.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from ..checks import RULES
from ..files import ROOT, load_tensors, save_tensors, sha256
from .image_file import each_image, has_16_bits, in_colour, legible, read_pixels, upright_size

# Of 255: the brightest value of 16-bit images that use less than an eighth of their range.
_DIM = 31

_MAX_BYTES = 4 << 30

_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}

# Of files that are refused together, how many are named.
_NAMED = 5

_THREADS = min(8, torch.get_num_threads())

# Part of the key of every cached decoding: raise it where decoding changes.
_CACHE_VERSION = 2


def cache_folder() -> Path:
    """Where decoded and unpacked images lie: $ANN_SNN_CACHE, else data/raw/cache in the repository."""
    return Path(os.path.abspath(os.path.expanduser(os.environ.get("ANN_SNN_CACHE") or ROOT / "data/raw/cache")))


def image_size(size: int | tuple[int, int] | None, name: str = "size") -> tuple[int, int] | None:
    """(height, width) from an int (square) or a pair; None stays None. Raises ValueError outside 1…4096."""
    if size is None:
        return None
    sides = (size, size) if isinstance(size, Integral) else size
    if not isinstance(sides, tuple | list) or len(sides) != 2 or not all(map(RULES[name].allows, sides)):
        raise ValueError(f"{name}={size!r:.80}: {RULES[name].remedy}, or (height, width)")
    height, width = map(int, sides)
    return height, width


def check_room(number: int, channels: int, size: tuple[int, int]) -> None:
    """Raise ValueError where so many images of this (height, width) would take more than 4 GiB."""
    needed = number * channels * size[0] * size[1]
    if needed > _MAX_BYTES:
        raise ValueError(
            f"size={size}: {number} images of {channels}×{size[0]}×{size[1]} take {needed / 2**30:.1f} GiB, more "
            f"than {_MAX_BYTES >> 30} GiB: give a smaller size, such as size=32"
        )


def read_image_folder(
    folder: str | os.PathLike[str], split: str, target: tuple[int, int] | None
) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Images uint8 [N,C,H,W], labels int64 [N] and class names of one split of an image folder.

    C is 3 if any image of either split is in colour, else 1. Every image is decoded as `read_pixels` says and
    resized once (bilinear) to `target`, (height, width), or without one to the size of the first training image.
    Classes are named as `legible` says and sorted by name, all-decimal names by value. Hidden files (the ._
    files of a Mac among them), and files beside the class folders, are ignored. The decoded images are kept in
    `cache_folder()`.

    Raises FileNotFoundError for a missing folder; ValueError, with the path, for classes that are missing,
    empty, fewer than two or differ between the splits, for a file that `read_pixels` refuses or that is empty, for
    a link that leads out of the folder, and where the images hold one value only, or all 16-bit images are so dim
    that 8 bits lose what they hold; where some of them are, a warning names one.
    """
    folder = Path(folder).resolve()
    try:
        os.fspath(folder).encode()
    except UnicodeEncodeError:
        # Results and manifests, which are UTF-8, name the folder.
        raise ValueError(f"image folder {legible(folder)}: its path is not UTF-8, rename it") from None
    classes, files = _list_folder(folder)
    labels = torch.tensor([label for _, label in files[split]], dtype=torch.int64)

    with ThreadPoolExecutor(_THREADS) as pool:
        contents = {part: list(pool.map(digest_of, [path for path, _ in listed])) for part, listed in files.items()}
    _warn_of_copies(folder, files, contents)
    key = json.dumps([_CACHE_VERSION, target, [*contents.values()]])
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    caches = {part: cache_folder() / f"{digest}-{part}.safetensors" for part in files}
    images = _cached(caches[split], len(labels))
    if images is None:
        decoded = _decode(folder, files, target)
        for part, cache in caches.items():
            _keep(cache, decoded[part], str(folder))
        images = decoded[split]
    return images, labels, classes


def _warn_of_copies(
    folder: Path, files: Mapping[str, Sequence[tuple[Path, int]]], contents: Mapping[str, Sequence[str]]
) -> None:
    """Warn of test images that are training images too, and of one image in two classes."""
    first: dict[str, tuple[Path, int]] = {}
    wrong = []
    for split, part in files.items():
        for (path, label), digest in zip(part, contents[split], strict=True):
            other, its_label = first.setdefault(digest, (path, label))
            if its_label != label:
                wrong.append(f"{legible(other)} and {legible(path)} are one image in two classes")
    seen = set(contents["train"])
    copies = [path for (path, _), digest in zip(files["test"], contents["test"], strict=True) if digest in seen]
    if copies:
        number = f"{len(copies)} of {len(files['test'])}"
        wrong.append(f"{number} test images are training images, such as {legible(copies[0])}")
    if wrong:
        more = f", and {len(wrong) - 2} more" if len(wrong) > 2 else ""
        warnings.warn(
            f"in {legible(folder)}, {'; '.join(wrong[-2:])}{more}: accuracy says little there", stacklevel=4
        )


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


def _list_folder(folder: Path) -> tuple[tuple[str, ...], dict[str, list[tuple[Path, int]]]]:
    """The class names, and for each split the files with their labels."""
    wrong: list[str] = []
    places = {split: _class_folders(folder, split, wrong) for split in ("train", "test")}
    train, test = (set(part) for part in places.values())
    if train != test or len(train) < 2:
        # The classes that are not there may be links that lead out.
        _refuse(wrong)
    if not train | test:
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
    decimal = {name for name in train if name.isascii() and name.isdecimal() and len(name) < 20}
    classes = tuple(sorted(train, key=lambda name: (int(name) if name in decimal else -1, name)))
    if len(classes) < 2:
        raise ValueError(f"{folder} has one class only, {classes[0]!r}: a study needs at least two")
    files = {
        split: [
            (path, label) for label, name in enumerate(classes) for path in _list_class(folder, part[name], wrong)
        ]
        for split, part in places.items()
    }
    if wrong:
        _refuse_with_damaged([path for part in files.values() for path, _ in part], wrong)
    return classes, files


def _class_folders(folder: Path, split: str, wrong: list[str]) -> dict[str, Path]:
    """The class folders of a split by name; links that lead out are added to `wrong`."""
    if not (folder / split).is_dir():
        raise FileNotFoundError(
            f"image folder {folder} has no {split}/ folder: it needs train/<class>/ and test/<class>/"
        )
    places: dict[str, Path] = {}
    if _leads_out(folder / split, folder, wrong):
        return places
    for entry in _entries(folder / split, folder, wrong):
        if entry.is_dir():
            name = legible(entry.name)
            if name in places:
                spellings = f"{ascii(places[name].name)} and {ascii(entry.name)}"
                raise ValueError(
                    f"{folder / split} has two folders for class {name!r}, in two encodings, {spellings}: move the "
                    "images of one to the other"
                )
            places[name] = Path(entry.path)
    return places


def _list_class(folder: Path, place: Path, wrong: list[str]) -> list[Path]:
    """The files of a class folder; what is wrong with the others is added to `wrong`."""
    good, before = [], len(wrong)
    for entry in _entries(place, folder, wrong):
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            wrong.append(f"{legible(entry.path)} is not a file: put images directly into their class folder")
        elif status.st_size == 0:
            wrong.append(f"{legible(entry.path)} is empty (0 bytes): copy it again or delete it")
        else:
            good.append(Path(entry.path))
    if not good and len(wrong) == before:
        wrong.append(f"class folder {legible(place)} is empty: add images or remove the class from both splits")
    return good


def _refuse(wrong: Sequence[str]) -> None:
    """Raise ValueError where anything is wrong: the first few in words, and how many more there are."""
    if wrong:
        more = f"; and {len(wrong) - _NAMED} more" if len(wrong) > _NAMED else ""
        raise ValueError("; ".join(wrong[:_NAMED]) + more)


def _refuse_with_damaged(paths: Sequence[Path], wrong: list[str]) -> None:
    """`_refuse` what is wrong and, beside it, the files among these that cannot be decoded."""
    small = functools.partial(read_pixels, channels=1, height=1, width=1)
    with ThreadPoolExecutor(_THREADS) as pool:
        list(each_image(pool, small, paths, wrong, "decoding images"))
    _refuse(wrong)


def stamp(path: Path) -> tuple[int, ...]:
    """What changes with a file, as the file system says: size, times and inode.

    The inode and its change time tell a swap of two files by mv, which leaves sizes and times as they were.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def digest_of(path: Path) -> str:
    """SHA-256 of a file, computed once for as long as its `stamp` stays."""
    return _known_digest(path, stamp(path))


@functools.lru_cache(maxsize=1_000_000)
def _known_digest(path: Path, stamp: tuple[int, ...]) -> str:
    return sha256(path)


def _entries(place: Path, folder: Path, wrong: list[str]) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without hidden files, and without links out of the image folder."""
    with os.scandir(place) as entries:
        seen = [one for one in entries if not one.name.startswith(".") and one.name.lower() not in _IGNORED]
    seen.sort(key=lambda entry: entry.name)
    return [one for one in seen if not (one.is_symlink() and _leads_out(Path(one.path), folder, wrong))]


def _leads_out(path: Path, folder: Path, wrong: list[str]) -> bool:
    """Whether a path leads out of the image folder, or nowhere; if so, that is added to `wrong`."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        wrong.append(f"{legible(path)} is a link that leads nowhere: remove it")
        return True
    if target.is_relative_to(folder):
        return False
    wrong.append(f"{legible(path)} is a link out of the image folder, to {legible(target)}: copy the files instead")
    return True


def _decode(
    folder: Path, files: dict[str, list[tuple[Path, int]]], target: tuple[int, int] | None
) -> dict[str, torch.Tensor]:
    wrong: list[str] = []
    paths = [path for part in files.values() for path, _ in part]
    with ThreadPoolExecutor(_THREADS) as pool:
        colour = list(each_image(pool, in_colour, paths, wrong, "checking images"))
        if wrong:
            # Some that can be opened are cut short.
            _refuse_with_damaged(paths, [])
        channels = 3 if any(colour) else 1
        height, width = target or upright_size(paths[0])
        check_room(len(paths), channels, (height, width))
        pixels = np.empty((len(paths), channels, height, width), dtype=np.uint8)
        read = functools.partial(read_pixels, channels=channels, height=height, width=width)
        for row, image in zip(pixels, each_image(pool, read, paths, wrong, "decoding images"), strict=True):
            if image is not None:
                row[:] = image
    _refuse(wrong)
    if pixels.min() == pixels.max():
        raise ValueError(
            f"all {len(paths)} images of {folder} decode to the one value {pixels.max()}: look at one, and save "
            "them with 8 bits, without transparency"
        )
    dim = pixels.max((1, 2, 3)) <= _DIM
    lost = next((path for path in np.array(paths)[dim] if has_16_bits(path)), None)
    if lost and any(has_16_bits(path) for path in np.array(paths)[~dim]):
        # Of others that are brighter it may be a dark picture, as its values are theirs.
        warnings.warn(
            f"{legible(lost)} uses less than an eighth of its 16 bits, of which 8 bits leave at most {_DIM + 1} "
            "levels, and other images use more: it is taken as dark; scale its values to 0…65535 if it is not",
            stacklevel=4,
        )
    elif lost:
        raise ValueError(
            f"the 16-bit images of {folder}, such as {legible(lost)}, use less than an eighth of their range, and "
            f"8 bits leave at most {_DIM + 1} levels of it: scale their values to 0…65535, or save them with 8 bits"
        )
    parts = torch.from_numpy(pixels).split([len(part) for part in files.values()])
    return dict(zip(files, parts, strict=True))
