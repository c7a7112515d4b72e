"""The images that come with scikit-learn: handwritten digits, and two photographs.

Its files are read as they lie there: to import it takes seconds, in the kernel of every notebook. Raises
ModuleNotFoundError where it is not installed.
"""

from __future__ import annotations

import functools
from base64 import b64decode
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .folder import check_room

# Which of scikit-learn's digits are the test set, a bit for each: 360 that its `train_test_split` drew,
# stratified, with the seed 20240830.
_DIGITS_TEST = (
    "oKOEAGHIAAygAAUgkhgEAAsIAWg4QRCoBQiiESIEBIAQjACQQUAECgkAARgwDoAVMCAgDUIAQQQSTAmCISgQEQAEICEEiAIQKCSS"
    "wAIAhwEQASgAUABGICiAQAJiAIGCAQGAAIEgBsVAEiQCBAABUACIgwADAwGwAgChgEABQAgGgHKMRKQAhQUAAACBhAAIJIgAABgD"
    "kIEAICEiMREISmCA4oWQCAAoRqMgoQAAAAAEQAAANgghwggQQRIAMBMEEhIIbEREVUk2AYASADGhABSqIoIhFABgQBAwAgACAEEA"
)


def _folder() -> Path:
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("scikit-learn, which holds the images, is not installed", name="sklearn")
    return Path(package.origin).parent / "datasets"


def read_photographs() -> list[np.ndarray]:
    """The photographs, uint8 [H, W, 3]."""
    photographs = []
    for path in sorted((_folder() / "images").glob("*.jpg")):
        with Image.open(path) as opened:
            photographs.append(np.asarray(opened.convert("RGB")))
    return photographs


def read_digits(split: str, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """The digits of a split in this size: images uint8 [N, 1, H, W], labels int64 [N], and names of the classes."""
    scans = _scans()
    tested = np.unpackbits(np.frombuffer(b64decode(_DIGITS_TEST), np.uint8))[: len(scans)]
    chosen = scans[tested == (split == "test")]
    check_room(len(chosen), 1, size)
    # In parts, for the exact sums take eight times the memory of the images.
    parts = np.array_split(chosen[:, :-1].reshape(-1, 8, 8), -(-len(chosen) // 64))
    images = np.concatenate([_resize_digits(part, size) for part in parts])
    return torch.from_numpy(images[:, None]), torch.from_numpy(chosen[:, -1].copy()), tuple("0123456789")


@functools.cache
def _scans() -> np.ndarray:
    """The pixels of all digits, row after row, and their labels, int64 [1797, 65]."""
    return np.loadtxt(_folder() / "data" / "digits.csv.gz", np.int64, delimiter=",")


def _resize_digits(scans: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # Bilinear in exact integers, so that the embedded set is the same, bit for bit, on every machine: float64 holds
    # these, and sums them many times as fast as NumPy does its integers.
    rows, columns = (_bilinear(scans.shape[axis + 1], side).astype(float) for axis, side in enumerate(size))
    numerator = (rows @ scans @ columns.T * 255).astype(np.int64)
    denominator = 16 * (2 * size[0]) * (2 * size[1])
    return ((2 * numerator + denominator) // (2 * denominator)).astype(np.uint8)


def _bilinear(source: int, side: int) -> np.ndarray:
    # Weights in units of 1/(2·side): pixel centres lie at (i + 1/2)·source/side − 1/2, kept inside the scan.
    unit = 2 * side
    positions = np.clip((2 * np.arange(side) + 1) * source - side, 0, (source - 1) * unit)
    lower, fraction = positions // unit, positions % unit
    weights = np.zeros((side, source), dtype=np.int64)
    weights[np.arange(side), lower] += unit - fraction
    weights[np.arange(side), np.minimum(lower + 1, source - 1)] += fraction
    return weights
