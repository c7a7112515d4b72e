"""Channels of a layer side by side in one picture, and where each neuron is in it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np


def mosaic(values) -> np.ndarray:
    """Give the channels of [C, H, W] side by side in one picture of whole numbers, None between channels.

    None, not NaN, because a page reads it as JSON.
    """
    values = np.asarray(values)
    channels, height, width = values.shape
    columns = _columns(channels, height, width)
    rows = -(-channels // columns)
    gap = 0 if height == width == 1 else 1
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), None, dtype=object)
    for channel in range(channels):
        top, left = channel // columns * (height + gap), channel % columns * (width + gap)
        sheet[top : top + height, left : left + width] = values[channel]
    return sheet


def mosaic_position(row: int, column: int, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """Give (channel, y, x) of a cell of the mosaic of a map of `shape` (C, H, W); None between channels."""
    channels, height, width = shape
    gap = 0 if height == width == 1 else 1
    down, y = divmod(row, height + gap)
    across, x = divmod(column, width + gap)
    channel = down * _columns(*shape) + across
    inside = y < height and x < width and 0 <= channel < channels and across < _columns(*shape)
    return (channel, y, x) if inside else None


def mosaic_cell(neuron: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[int, int]:
    """Give (row, column) in the mosaic of the neuron (channel, y, x): the inverse of `mosaic_position`."""
    gap = 0 if shape[1] == shape[2] == 1 else 1
    down, across = divmod(neuron[0], _columns(*shape))
    return down * (shape[1] + gap) + neuron[1], across * (shape[2] + gap) + neuron[2]


def _columns(channels: int, height: int, width: int) -> int:
    return max(1, round((1.8 * channels * height / width) ** 0.5))


@lru_cache(64)
def mosaic_places(shape: tuple[int, int, int]) -> np.ndarray:
    """Give channel, y and x of every cell of the mosaic, int16 [rows, columns, 3]; −1 between channels.

    The array is shared: it cannot be written to.
    """
    index = np.stack(np.indices(shape, dtype=np.int16))
    sheets = [mosaic(part) for part in index]
    places = np.stack([np.where(np.equal(sheet, None), -1, sheet).astype(np.int16) for sheet in sheets], -1)
    places.flags.writeable = False
    return places
