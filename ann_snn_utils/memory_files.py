"""Integer arrays as files that hardware loads: raw little-endian bytes, and the same as a $readmemh image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

DTYPES = {"uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8}


@dataclass(frozen=True)
class MemoryFile:
    """How an array lies in `<name>.bin` and `<name>.hex`.

    bits: of one value, 2 (four values −1, 0, +1 to a byte, two's complement, the first in the lowest bits)
    or those of `dtype`. shape, axes: of the values, the last axis fastest. frame_axes: how many leading axes
    count frames; each frame begins at a whole byte.
    """

    name: str
    dtype: str
    bits: int
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    frame_axes: int = 0

    def to_dict(self) -> dict:
        """Give what a reader needs to know about the file, as JSON values."""
        described = {"dtype": self.dtype, "bits": self.bits, "shape": list(self.shape), "axes": list(self.axes)}
        return described | ({"frame_axes": self.frame_axes} if self.frame_axes else {})


def pack_pairs(values: np.ndarray) -> np.ndarray:
    """Give values −1, 0, +1 of the last axis in two bits each: uint8 [..., ⌈n / 4⌉], the last byte filled with 0.

    A pair is two's complement, 11 for −1, 00 and 01; the first value is in the lowest bits. Raises ValueError
    for another value.
    """
    if values.size and (values.min() < -1 or values.max() > 1):
        raise ValueError(f"two bits hold −1, 0 and +1 only, not {values.min()} … {values.max()}")
    pairs = (values.astype(np.int8) & 3).astype(np.uint8)
    pairs = np.pad(pairs, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % 4)])
    pairs = pairs.reshape(*values.shape[:-1], -1, 4)
    return pairs[..., 0] | pairs[..., 1] << 2 | pairs[..., 2] << 4 | pairs[..., 3] << 6


def write_memory(folder: Path, file: MemoryFile, values: np.ndarray, append: bool = False) -> None:
    """Write (or continue) `<name>.bin` and `<name>.hex` in a folder.

    values: integers of the file's shape, or of some of its frames where they are appended. The .hex file holds
    one word a line, most significant digit first, and a comment above; the word of packed pairs is a byte.
    Raises ValueError for a value that the file's type does not hold.
    """
    if file.bits == 2:
        frames = values.shape[: file.frame_axes]
        words = pack_pairs(values.reshape(*frames, -1)).reshape(-1)
    else:
        ends = np.iinfo(file.dtype)
        if values.size and not (ends.min <= values.min() and values.max() <= ends.max):
            raise ValueError(f"{file.name}: {file.dtype} does not hold {values.min()} … {values.max()}")
        words = values.reshape(-1).astype(np.dtype(file.dtype).newbyteorder("<"))
    data = words.tobytes()
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{path}.bin").open("ab" if append else "wb") as raw:
        raw.write(data)
    size = words.dtype.itemsize
    big = words.astype(words.dtype.newbyteorder(">")).tobytes().hex()
    lines = "\n".join(big[start : start + 2 * size] for start in range(0, len(big), 2 * size))
    with Path(f"{path}.hex").open("a" if append else "w", encoding="ascii") as text:
        if not append:
            packed = ", four 2-bit values a byte, the first in bits 1:0" if file.bits == 2 else ""
            text.write(f"// {file.name}: {file.dtype} {list(file.shape)} ({', '.join(file.axes)}){packed}\n")
        text.write(lines + "\n")
