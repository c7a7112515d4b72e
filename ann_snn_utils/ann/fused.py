"""Batch norm and (quantized) ReLU of a training step as one function, in five passes over the map.

Layer after layer they read and write each map about fifteen times, and take longer than the convolutions. The
loops, compiled by numba, see a map as [positions, channels], float32 or the bits of bfloat16 in uint16; all
arithmetic is in float32. Sums are made in parts of the rows that do not depend on the number of threads, so
neither do their last bits.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import njit, prange, set_num_threads, types
from numba.core import config
from numba.extending import intrinsic
from torch import Tensor, nn

# More than any machine's cores, and few enough for each to be long.
_PARTS = 64

_REORDERED = {"reassoc", "contract", "nsz"}
_AS_WRITTEN = {"contract", "nsz"}
# Its callers leave out the first argument, which numba adds.
_intrinsic: Any = intrinsic


_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def compiled_loops() -> Iterator[None]:
    """Context in which to call a parallel loop, on as many threads as torch may use.

    Loops run one at a time: one of numba's thread pools ends the program when two start.
    """
    with _ONE_AT_A_TIME:
        allowed = torch.get_num_threads()
        set_num_threads(min(allowed, config.NUMBA_NUM_THREADS))
        # Where numba's pool is OpenMP's, as torch's is, its start gave torch as many threads as there are cores.
        if torch.get_num_threads() != allowed:
            torch.set_num_threads(allowed)
        yield


def compiled(**options: Any) -> Callable[[Callable], Any]:
    """Decorate a function with numba's `njit`, kept on the disk where there is a place for it.

    There is none in a read-only installation without a home, as in a container: it is compiled in each process.
    """

    def decorate(function: Callable) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)

    return decorate


@_intrinsic
def _read(context, stored):
    """A float32, or the bits of a bfloat16, as float32: the upper half of one."""

    def generate(context, builder, signature, arguments):
        (value,) = arguments
        if signature.args[0] == types.float32:
            return value
        return builder.bitcast(builder.shl(builder.zext(value, ir.IntType(32)), ir.IntType(32)(16)), ir.FloatType())

    return types.float32(stored), generate


@_intrinsic
def _rounded(context, value, stored):
    """A float32 in the type of `stored`, rounded to the nearest bfloat16, ties to even, where that is bits."""

    def generate(context, builder, signature, arguments):
        value, word = arguments[0], ir.IntType(32)
        if signature.return_type == types.float32:
            return value
        bits = builder.bitcast(value, word)
        odd = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.add(builder.add(bits, word(0x7FFF)), odd)
        return builder.trunc(builder.lshr(rounded, word(16)), ir.IntType(16))

    return stored(types.float32, stored), generate


@compiled(parallel=True, fastmath=_REORDERED)
def moments(x: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Σ (x − centre) and Σ (x − centre)² over the positions, float32 [parts, 2, channels]."""
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


@compiled(parallel=True, fastmath=_AS_WRITTEN)
def activate(x, scale, shift, n, largest, out) -> None:
    """Write a = relu(x · scale + shift) to `out`; for n > 0 as floor(n · a + 1/2) / n, at most largest / n.

    n: float32, a power of two, or 0 for no levels.
    """
    rows, channels = x.shape
    inverse = np.float32(1) / n if n > 0 else np.float32(0)
    for part in prange(_PARTS):
        for row in range(part * rows // _PARTS, (part + 1) * rows // _PARTS):
            for c in range(channels):
                a = max(_read(x[row, c]) * scale[c] + shift[c], np.float32(0))
                if n > 0:
                    a = min(np.floor(a * n + np.float32(0.5)), largest) * inverse
                out[row, c] = _rounded(a, x[row, c])


@njit(fastmath=_AS_WRITTEN)
def _passed(a, clip, gradient):
    """The gradient where 0 < a < clip, else 0."""
    return gradient if (a > np.float32(0)) & (a < clip) else np.float32(0)


@compiled(parallel=True, fastmath=_REORDERED)
def gradient_sums(x, gradient, scale, shift, clip, mean) -> np.ndarray:
    """Σ g and Σ g · (x − mean), float32 [parts, 2, channels]; g: as `_passed` gives it."""
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


@compiled(parallel=True, fastmath=_AS_WRITTEN)
def input_gradient(x, gradient, scale, shift, clip, slope, offset, out) -> None:
    """Write scale · g + slope · x + offset to `out`; g as in `gradient_sums`."""
    rows, channels = x.shape
    for part in prange(_PARTS):
        for row in range(part * rows // _PARTS, (part + 1) * rows // _PARTS):
            for c in range(channels):
                value = _read(x[row, c])
                g = _passed(value * scale[c] + shift[c], clip, _read(gradient[row, c]))
                out[row, c] = _rounded(scale[c] * g + (slope[c] * value + offset[c]), x[row, c])


def norm_act(x: Tensor, norm: nn.BatchNorm2d, n: int, clip: float | None) -> Tensor:
    """activation(norm(x)) in training mode, which moves the running statistics of `norm`.

    x: float32 or bfloat16 [N, C, H, W] on the CPU; the result has its type and lies channels last. n: levels in
    one unit of activation, 0 for a plain ReLU. clip: largest activation, None for no limit. The gradient is 1
    where 0 < norm(x) < clip, else 0. Raises ValueError where a channel has a single value.
    """
    return _NormAct.apply(x, norm.weight, norm.bias, norm, n, math.inf if clip is None else clip)


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, n: int, clip: float
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        rows = _rows(x)
        if len(rows) == 1:
            raise ValueError(f"batch norm of one value in each channel, images {list(x.shape)}: give two images")
        out = torch.empty_like(x)
        running: Any = norm
        centre = running.running_mean.numpy().copy()
        with compiled_loops():
            total, square = moments(rows, centre).sum(0, dtype=np.float64)
        offset = total / len(rows)
        variance = np.maximum(square / len(rows) - offset**2, 0.0)
        mean = centre + offset
        deviation = np.sqrt(variance + norm.eps)
        scale = (weight.detach().numpy() / deviation).astype(np.float32)
        shift = (bias.detach().numpy() - mean * scale).astype(np.float32)
        with compiled_loops():
            activate(rows, scale, shift, np.float32(n), np.float32(clip * n if n else clip), _rows(out))
        unbiased = torch.from_numpy(variance * (len(rows) / (len(rows) - 1)))
        running.num_batches_tracked += 1
        # Without a momentum all batches count alike.
        share = 1 / int(running.num_batches_tracked) if norm.momentum is None else norm.momentum
        for moved, value in ((running.running_mean, torch.from_numpy(mean)), (running.running_var, unbiased)):
            moved.lerp_(value.to(moved), share)
        ctx.save_for_backward(x)
        ctx.around = mean, deviation, scale, shift, np.float32(clip)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (mean, deviation, scale, shift, clip) = ctx.saved_tensors, ctx.around
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        rows, out = _rows(x), None
        with compiled_loops():
            sums = gradient_sums(rows, _rows(gradient), scale, shift, clip, mean.astype(np.float32))
        total, product = sums.sum(0, dtype=np.float64)
        if ctx.needs_input_grad[0]:
            out = torch.empty_like(x)
            slope = -scale * product / deviation**2 / len(rows)
            offset = -scale * total / len(rows) - slope * mean
            ends = slope.astype(np.float32), offset.astype(np.float32), _rows(out)
            with compiled_loops():
                input_gradient(rows, _rows(gradient), scale, shift, clip, *ends)
        of_weight = torch.from_numpy((product / deviation).astype(np.float32))
        return out, of_weight, torch.from_numpy(total.astype(np.float32)), None, None, None


def _rows(x: Tensor) -> np.ndarray:
    # A view: numpy knows no bfloat16, and gets its bits.
    flat = x.detach().permute(0, 2, 3, 1).view(-1, x.shape[1])
    return (flat.view(torch.uint16) if x.dtype == torch.bfloat16 else flat).numpy()
