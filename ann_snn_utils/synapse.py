"""Exact synaptic sums: Σ w·m over integer weights and inputs, whatever arithmetic the machine is fast at."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .snn import SpikingLayer, smallest_integer

EXACT_IN_FLOAT32 = 2**24


def membrane_dtype(layer: SpikingLayer, slack: int = 0) -> torch.dtype:
    """Give the dtype of a layer's membrane: int32, or int64 where the worst case plus `slack` needs it.

    A layer with full-precision weights has a float64 membrane.
    """
    if layer.weight.is_floating_point() or layer.thresholds.is_floating_point():
        return torch.float64
    small = smallest_integer(int(layer.lowest.min()) - slack, int(layer.highest.max()) + slack)
    return torch.int64 if small == torch.int64 else torch.int32


def synaptic_input(layer: SpikingLayer, inputs: Tensor, largest: int) -> Tensor:
    """Give Σ w·m of every neuron, [N, O, H, W], for integer inputs [N, I, H, W] with |m| ≤ `largest`.

    A float32 convolution is exact while every partial sum stays below 2^24, which the worst case over the
    layer's weights decides beforehand; otherwise float64 computes it. Integer values, in floating point.
    """
    weight, dtype = layer.weight, torch.float64
    if not weight.is_floating_point():
        worst = int(weight.long().abs().sum((1, 2, 3)).max()) * largest
        if worst >= 2**53:
            raise ValueError(f"{layer.name}: membranes up to {worst} do not fit an exact sum; use smaller inputs")
        dtype = torch.float32 if worst < EXACT_IN_FLOAT32 else torch.float64
    return F.conv2d(
        inputs.to(dtype), weight.to(dtype), stride=layer.spec.stride, padding=layer.spec.padding
    )
