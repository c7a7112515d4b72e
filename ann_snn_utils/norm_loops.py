"""Loops over a map's rows of channels for batch norm and (quantized) ReLU, compiled by numba.

A map is [positions, channels], float32 or the bits of bfloat16 in uint16; all arithmetic is in float32. Sums
are made in parts of the rows that do not depend on the number of threads, so neither do their last bits.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

# More than any machine's cores, and few enough for each to be long.
_PARTS = 64
_REORDERED = {"reassoc", "contract", "nsz"}
_AS_WRITTEN = {"contract", "nsz"}


@intrinsic
def _read(context, stored):
    """Give a float32, or the bits of a bfloat16, as float32: the upper half of one."""

    def generate(context, builder, signature, arguments):
        (value,) = arguments
        if signature.args[0] == types.float32:
            return value
        return builder.bitcast(builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16)), ir.FloatType())

    return types.float32(stored), generate


@intrinsic
def _rounded(context, value, stored):
    """Give a float32 in the type of `stored`, rounded to the nearest bfloat16, ties to even, where that is bits."""

    def generate(context, builder, signature, arguments):
        value, word = arguments[0], ir.IntType(32)
        if signature.return_type == types.float32:
            return value
        bits = builder.bitcast(value, word)
        odd = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.add(builder.add(bits, word(0x7FFF)), odd)
        return builder.trunc(builder.lshr(rounded, word(16)), ir.IntType(16))

    return stored(types.float32, stored), generate


@njit(parallel=True, fastmath=_REORDERED, cache=True)
def moments(x: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Give Σ (x − centre) and Σ (x − centre)² over the positions, float32 [parts, 2, channels]."""
    rows, channels = x.shape
    sums = np.empty((_PARTS, 2, channels), np.float32)
    for part in prange(_PARTS):
        total, square = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
        for row in range(part * rows // _PARTS, (part + 1) * rows // _PARTS):
            for c in range(channels):
                value = _read(x[row, c]) - centre[c]
                total[c] += value
                square[c] += value * value
        sums[part, 0], sums[part, 1] = total, square
    return sums


@njit(parallel=True, fastmath=_AS_WRITTEN, cache=True)
def activate(x, scale, shift, n, largest, out) -> None:
    """Write a = relu(x · scale + shift) to `out`; for n > 0 as floor(n · a + 1/2) / n, at most largest / n.

    n: float32, a power of two, or 0 for no levels.
    """
    rows, channels = x.shape
    inverse = np.float32(1) / n if n > 0 else np.float32(0)
    for part in prange(_PARTS):
        for row in range(part * rows // _PARTS, (part + 1) * rows // _PARTS):
            if n > 0:
                for c in range(channels):
                    a = max(_read(x[row, c]) * scale[c] + shift[c], np.float32(0))
                    code = min(np.floor(a * n + np.float32(0.5)), largest) * inverse
                    out[row, c] = _rounded(code, x[row, c])
            else:
                for c in range(channels):
                    a = max(_read(x[row, c]) * scale[c] + shift[c], np.float32(0))
                    out[row, c] = _rounded(a, x[row, c])


@njit(fastmath=_AS_WRITTEN)
def _passed(a, clip, gradient):
    """Give the gradient where 0 < a < clip, else 0."""
    return gradient if (a > np.float32(0)) & (a < clip) else np.float32(0)


@njit(parallel=True, fastmath=_REORDERED, cache=True)
def gradient_sums(x, gradient, scale, shift, clip, mean) -> np.ndarray:
    """Give Σ g and Σ g · (x − mean), float32 [parts, 2, channels]; g: as `_passed` gives it."""
    rows, channels = x.shape
    sums = np.empty((_PARTS, 2, channels), np.float32)
    for part in prange(_PARTS):
        total, product = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
        for row in range(part * rows // _PARTS, (part + 1) * rows // _PARTS):
            for c in range(channels):
                value = _read(x[row, c])
                g = _passed(value * scale[c] + shift[c], clip, _read(gradient[row, c]))
                total[c] += g
                product[c] += g * (value - mean[c])
        sums[part, 0], sums[part, 1] = total, product
    return sums


@njit(parallel=True, fastmath=_AS_WRITTEN, cache=True)
def input_gradient(x, gradient, scale, shift, clip, slope, offset, out) -> None:
    """Write scale · g + slope · x + offset to `out`; g as in `gradient_sums`."""
    rows, channels = x.shape
    for part in prange(_PARTS):
        for row in range(part * rows // _PARTS, (part + 1) * rows // _PARTS):
            for c in range(channels):
                value = _read(x[row, c])
                g = _passed(value * scale[c] + shift[c], clip, _read(gradient[row, c]))
                out[row, c] = _rounded(scale[c] * g + (slope[c] * value + offset[c]), x[row, c])
