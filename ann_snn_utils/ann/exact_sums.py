"""Convolutions of whole numbers, without loss, in the smallest type that can hold every sum.

`reference`, by which codes are told, takes its sums from here: products of int8 matrices need a fifth of the time
of float32, and those of float64 three times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Bytes of windows that one product of int8 matrices reads: they should lie in the cache.
_WINDOWS = 2**23

Sums = Callable[[Tensor], Tensor]


def exact_sums(conv: nn.Conv2d) -> Sums:
    """The function that convolves whole numbers, float64 [N, I, H, W] → [N, O, H', W'], as `conv` does in float64.

    Weights that are not whole, and sums of 2^24 and more, stay in float64.

    >>> conv = nn.Conv2d(1, 1, 2, bias=False).double()
    >>> conv.weight.data = torch.tensor([[[[1.0, -1.0], [0.0, 1.0]]]]).double()
    >>> exact_sums(conv)(torch.arange(9.0).view(1, 1, 3, 3).double()).flatten().tolist()
    [3.0, 4.0, 6.0, 7.0]
    """
    weight: Tensor = conv.weight.detach()
    if not torch.equal(weight, weight.round()):
        return conv
    geometry: Any = conv.stride, conv.padding, conv.dilation, conv.groups
    largest_sum, largest_weight = float(weight.abs().sum((1, 2, 3)).max()), float(weight.abs().max())
    in_int8 = None
    if largest_weight <= 127 and conv.groups == 1 and _multiplies_int8():
        in_int8 = _int8_sums(conv)

    def sums(counts: Tensor) -> Tensor:
        largest = float(max(counts.amax(), -counts.amin()))
        # float32 holds all integers below 2^24.
        if largest_sum * largest >= 2**24:
            return F.conv2d(counts, weight, None, *geometry)
        if in_int8 is not None and largest <= 127:
            return in_int8(counts)
        return F.conv2d(counts.float(), weight.float(), None, *geometry).double()

    return sums


@cache
def _multiplies_int8() -> bool:
    """Whether torch multiplies int8 matrices in the processor's own instructions here, without saturating."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch, "_int_mm"):
        return False
    largest = torch.tensor([[127] * 64, [-128] * 64] * 32, dtype=torch.int8)
    return torch.equal(torch._int_mm(largest, largest.T).long(), largest.long() @ largest.T.long())


def _int8_sums(conv: nn.Conv2d) -> Sums:
    """As `exact_sums`, without groups and of integers that fit int8: products of matrices with 32-bit sums."""
    matrix = conv.weight.detach().to(torch.int8).permute(2, 3, 1, 0).flatten(0, 2).contiguous()  # [kh · kw · I, O]
    geometry = list(zip(conv.kernel_size, conv.stride, conv.dilation, strict=True))
    assert not isinstance(conv.padding, str)
    rows, columns = conv.padding

    def sums(counts: Tensor) -> Tensor:
        # Channels last: a row of a window lies in one piece.
        windows = F.pad(counts.to(torch.int8), (columns, columns, rows, rows)).permute(0, 2, 3, 1).contiguous()
        for axis, (kernel, stride, dilation) in enumerate(geometry, 1):
            windows = windows.unfold(axis, (kernel - 1) * dilation + 1, stride)[..., ::dilation]
        windows = windows.permute(0, 1, 2, 4, 5, 3)  # [N, H', W', kh, kw, I]
        products = [
            torch._int_mm(some.reshape(-1, len(matrix)), matrix)
            for some in windows.split(max(1, _WINDOWS // windows[0].numel()))
        ]
        # Channels stay last in memory, as they are in the next layer's windows and in a simulator's counts.
        return torch.cat(products).view(*windows.shape[:3], -1).permute(0, 3, 1, 2).double()

    return sums
