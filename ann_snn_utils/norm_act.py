"""Batch norm and (quantized) ReLU of a training step as one function, in five passes over the map.

Layer after layer they read and write each map about fifteen times, and take longer than the convolutions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from .compiled import compiled_loops
from .norm_loops import activate, gradient_sums, input_gradient, moments


def norm_act(x: Tensor, norm: nn.BatchNorm2d, n: int, clip: float | None) -> Tensor:
    """Give activation(norm(x)) in training mode, and move the running statistics of `norm`.

    x: float32 or bfloat16 [N, C, H, W] on the CPU; the result has its type and lies channels last. n: levels in
    one unit of activation, 0 for a plain ReLU. clip: largest activation, None for no limit. The gradient is 1
    where 0 < norm(x) < clip, else 0. Raises ValueError where a channel has a single value.
    """
    return _NormAct.apply(x, norm.weight, norm.bias, norm, n, math.inf if clip is None else clip)


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, norm: nn.BatchNorm2d, n: int, clip: float) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        rows = _rows(x)
        if len(rows) == 1:
            raise ValueError(f"batch norm of one value in each channel, images {list(x.shape)}: give two images")
        out = torch.empty_like(x)
        centre = norm.running_mean.numpy().copy()
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
        norm.num_batches_tracked += 1
        # Without a momentum all batches count alike.
        share = 1 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(torch.from_numpy(mean).to(norm.running_mean), share)
        norm.running_var.lerp_(unbiased.to(norm.running_var), share)
        ctx.save_for_backward(x)
        ctx.around = mean, deviation, scale, shift, np.float32(clip)
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,), (mean, deviation, scale, shift, clip) = ctx.saved_tensors, ctx.around
        gradient = gradient.to(x.dtype).contiguous(memory_format=torch.channels_last)
        rows, out = _rows(x), torch.empty_like(x) if ctx.needs_input_grad[0] else None
        with compiled_loops():
            sums = gradient_sums(rows, _rows(gradient), scale, shift, clip, mean.astype(np.float32))
        total, product = sums.sum(0, dtype=np.float64)
        if ctx.needs_input_grad[0]:
            slope = -scale * product / deviation**2 / len(rows)
            offset = -scale * total / len(rows) - slope * mean
            slope, offset = slope.astype(np.float32), offset.astype(np.float32)
            with compiled_loops():
                input_gradient(rows, _rows(gradient), scale, shift, clip, slope, offset, _rows(out))
        of_weight = torch.from_numpy((product / deviation).astype(np.float32))
        return out, of_weight, torch.from_numpy(total.astype(np.float32)), None, None, None


def _rows(x: Tensor) -> np.ndarray:
    # A view: numpy knows no bfloat16, and gets its bits.
    flat = x.detach().permute(0, 2, 3, 1).view(-1, x.shape[1])
    return (flat.view(torch.uint16) if x.dtype == torch.bfloat16 else flat).numpy()
