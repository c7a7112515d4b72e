"""Convolutions of a training step on the CPU, as matrix products where kernels do not overlap."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .notation import LayerSpec


def convolve(x: Tensor, weight: Tensor, spec: LayerSpec) -> Tensor:
    """Give the convolution of x [N, C, H, W] with weight [O, C, *kernel] as the layer's spec says.

    Where each input meets one kernel position only (P2, fully connected layers) it is a single matrix product,
    which takes a third to a tenth of the time of a strided convolution's gradients.
    """
    apart = spec.kernel == (spec.stride, spec.stride) or spec.out_shape[1:] == (1, 1)
    if spec.padding or not apart:
        return F.conv2d(x, weight, None, spec.stride, spec.padding)
    rows, columns = spec.kernel
    channels, height, width = spec.out_shape
    pixels = x.permute(0, 2, 3, 1).reshape(len(x), height, rows, width, columns, -1)
    blocks = pixels.transpose(2, 3).flatten(0, 2).flatten(1)
    product = F.linear(blocks, weight.permute(0, 2, 3, 1).flatten(1))
    return product.view(len(x), height, width, channels).permute(0, 3, 1, 2)
