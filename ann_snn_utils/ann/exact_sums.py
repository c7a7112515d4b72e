"""Convolutions of whole numbers, without loss, in the smallest type that can hold every sum.

`reference`, by which codes are told, takes its sums from here: those of bytes need a third of the time of float32,
and those of float64 three times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Sums = Callable[[Tensor], Tensor]

# Processors without instructions for quantized networks add two products of bytes in 16 bits, or hold them there.
_LARGEST_PAIR = 2**15 - 1


def exact_sums(conv: nn.Conv2d) -> Sums:
    """The function that convolves whole numbers, [N, I, H, W] → [N, O, H', W'], as `conv` does in float64.

    Of any type; their sums come in float32 or float64, which hold them. Weights that are not whole, and sums of
    2^24 and more, stay in float64; so does what does not fit bytes where float32 is not exact, see `adds_only`.

    >>> conv = nn.Conv2d(1, 1, 2, bias=False).double()
    >>> conv.weight.data = torch.tensor([[[[1.0, -1.0], [0.0, 1.0]]]]).double()
    >>> exact_sums(conv)(torch.arange(9.0).view(1, 1, 3, 3).double()).flatten().tolist()
    [3.0, 4.0, 6.0, 7.0]
    """
    weight: Tensor = conv.weight.detach()
    if not torch.equal(weight, weight.round()):
        return lambda counts: conv(counts.double())
    geometry: Any = conv.stride, conv.padding, conv.dilation, conv.groups
    largest_sum, largest_weight = float(weight.abs().sum((1, 2, 3)).max()), float(weight.abs().max())
    in_bytes = _sums_of_bytes(conv) if largest_weight <= 127 and _convolves_bytes() else None

    def sums(counts: Tensor) -> Tensor:
        least, largest = float(counts.amin()), float(counts.amax())
        # float32 holds all integers below 2^24.
        fits = largest_sum * max(largest, -least) < 2**24
        if fits and in_bytes and least >= 0 and largest <= 255 and 2 * largest * largest_weight <= _LARGEST_PAIR:
            return in_bytes(counts)
        if not fits or not adds_only():
            return F.conv2d(counts.double(), weight, None, *geometry)
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(counts.float(), weight.float(), None, *geometry)

    return sums


def adds_only() -> bool:
    """Whether convolutions of float32 on the CPU are exact of integers, as they multiply and add and nothing else.

    Without oneDNN, torch may take NNPACK's, which go by Winograd or FFT; and oneDNN may be allowed to round.
    """
    onednn: Any = torch.backends.mkldnn
    rounds = getattr(getattr(onednn, "conv", None), "fp32_precision", "none") not in ("none", "ieee")
    return onednn.is_available() and torch._C._get_mkldnn_enabled() and not rounds and _onednn_adds_only()


@cache
def _onednn_adds_only() -> bool:
    weight = torch.arange(16 * 16 * 9, device="cpu").remainder(255).sub(127).view(16, 16, 3, 3).double()
    counts = torch.arange(16 * 16 * 64, device="cpu").remainder(251).view(16, 16, 8, 8).double()
    with torch.autocast("cpu", enabled=False):
        sums = F.conv2d(counts.float(), weight.float(), padding=1)
    return torch.equal(sums.double(), F.conv2d(counts, weight, padding=1))


def _sums_of_bytes(conv: nn.Conv2d) -> Sums:
    """As `exact_sums`, of counts that fit uint8 and weights that fit int8; sums are formed in 32 bits."""
    geometry: Any = list(conv.stride), list(conv.padding), list(conv.dilation), conv.groups
    ones = torch.ones(conv.out_channels, dtype=torch.float32, device="cpu")
    zeros = ones.long() * 0
    onednn: Any = torch.ops.onednn
    matrix = onednn.qconv_prepack(conv.weight.detach().to(torch.int8), ones, 1.0, 0, *geometry, None)
    # Scales of 1, zero points of 0, no bias, nothing behind the sum: integers, which float32 holds.
    plain: Any = (1.0, 0, torch.float32, "none", [], "")

    def sums(counts: Tensor) -> Tensor:
        counts = counts.to(torch.uint8)
        return onednn.qconv2d_pointwise(counts, 1.0, 0, matrix, ones, zeros, None, *geometry, *plain)

    return sums


@cache
def _convolves_bytes() -> bool:
    """Whether torch has oneDNN's convolution of bytes here, and it is exact up to the largest pairs of products."""
    conv = nn.Conv2d(64, 64, 3, padding=1, bias=False, device="cpu", dtype=torch.float64)
    pairs = torch.tensor([127, 127, -127, -127], device="cpu")
    with torch.no_grad():
        conv.weight.copy_(pairs.repeat(64 * 16 * 9).view_as(conv.weight))
        counts = torch.full((1, 64, 4, 4), 127.0, dtype=torch.float64, device="cpu")
        try:
            return torch.equal(_sums_of_bytes(conv)(counts).double(), conv(counts))
        except (AttributeError, NotImplementedError, RuntimeError):
            return False
