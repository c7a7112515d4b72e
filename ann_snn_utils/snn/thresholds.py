"""Thresholds of the spiking neuron, from batch norm.

With n = 2^k counts per unit of activation and the membrane U = Σ w·m over integer inputs m, the quantized
activation has reached its j-th level exactly when (Zou et al. 2024; γ > 0, σ = √(var + ε))

    U ≥ θ_j,   θ_j = (j − 1/2 − n·β)·σ/γ + n·μ,   j = 1, 2, …

U is an integer, so U ≥ θ_j ⇔ U ≥ ⌈θ_j⌉: a table of integers decides every spike without loss.

Scaled thresholds: what happens when the thresholds of a converted network are off by a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil

import torch
from torch import Tensor, nn

from .network import SNN, SpikingLayer


def scale_thresholds(snn: SNN, scale: float | Sequence[float]) -> SNN:
    """Give the network with every threshold multiplied by `scale`, or by its layer's one, encoder first.

    Integer thresholds are rounded up, as ⌈θ⌉ is. Entries that every or no membrane in reach passes stay as
    they are. Raises ValueError for a factor that is not above 0, or not one for each layer.
    """
    scales = [float(scale)] * len(snn.layers) if isinstance(scale, int | float) else [float(s) for s in scale]
    if len(scales) != len(snn.layers):
        raise ValueError(f"threshold scale: {len(scales)} factors for {len(snn.layers)} layers; give one for each")
    if not all(0 < s < float("inf") for s in scales):
        raise ValueError(f"threshold scale {scale!r}: give a factor above 0")
    return replace(snn, layers=tuple(_scaled(*pair) for pair in zip(snn.layers, scales, strict=True)))


def _scaled(layer: SpikingLayer, scale: float) -> SpikingLayer:
    if scale == 1:
        return layer
    table, lowest, highest = layer.thresholds, layer.lowest[:, None], layer.highest[:, None]
    scaled = table * scale if table.is_floating_point() else (table.double() * scale).ceil().long()
    scaled = torch.where((table > lowest) & (table <= highest), scaled, table)
    return replace(layer, thresholds=scaled.cummax(1).values)


PUBLISHED_SCALE = 10_000


@dataclass(frozen=True)
class Normalization:
    """Batch norm per channel with γ ≥ 0, float64 [O]; `sign` is −1 where weights, μ and γ were negated."""

    sign: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    sigma: Tensor


def normalization(norm: nn.BatchNorm2d, name: str) -> Normalization:
    """Give the layer's batch norm with γ ≥ 0: γ·(z − μ) = |γ|·((−z) − (−μ)) where γ < 0.

    Raises ValueError that names the layer, the parameter and the channel of a value that is not finite.
    """
    parts = {"γ": norm.weight, "β": norm.bias, "μ": norm.running_mean, "var": norm.running_var}
    for symbol, values in parts.items():
        bad = (~torch.isfinite(values)).nonzero().flatten()
        if len(bad):
            channel = int(bad[0])
            raise ValueError(f"{name}: {symbol} of channel {channel} is {float(values[channel])}; train it again")
    gamma, beta, mean, variance = (v.detach().double() for v in parts.values())
    if (variance < 0).any():
        raise ValueError(f"{name}: the variance of channel {int((variance < 0).nonzero()[0])} is negative")
    sign = torch.where(gamma < 0, -1.0, 1.0).double()
    return Normalization(sign, gamma * sign, beta, mean * sign, (variance + norm.eps).sqrt())


def real_thresholds(norm: Normalization, n: int, levels: int, scale: int = 1) -> Tensor:
    """Give scale · θ_j in float64, [O, levels], level j in column j − 1.

    `scale` is the size of one unit of input: 255 for uint8 pixels. A channel with γ = 0 is constant: its
    thresholds are −∞ up to its count floor(n·relu(β) + 1/2), and +∞ above.
    """
    level = torch.arange(1, levels + 1, dtype=torch.float64)
    above = level - 0.5 - n * norm.beta[:, None]
    # 0 · (σ/γ) is 0 even where σ/γ overflows.
    climb = torch.where(above == 0, 0.0, above * (norm.sigma / norm.gamma)[:, None])
    theta = scale * (climb + n * norm.mean[:, None])
    constant = torch.where(above <= 0, -torch.inf, torch.inf)
    return torch.where(norm.gamma[:, None] == 0, constant, theta)


def exact_thresholds(
    norm: Normalization, n: int, levels: int, lowest: Tensor, highest: Tensor, scale: int = 1
) -> Tensor:
    """Give ⌈scale · θ_j⌉ within the reach of the membrane, int64 [O, levels].

    Below `lowest` every membrane fires and above `highest` none does, so the table needs no value outside
    lowest … highest + 1. Where float64 cannot tell on which side of an integer θ_j lies, rationals do.
    """
    theta = real_thresholds(norm, n, levels, scale)
    table = torch.minimum(torch.maximum(theta, lowest[:, None]), highest[:, None] + 1.0).ceil().long()
    size = (theta.abs() + 2 * scale * n * norm.mean.abs()[:, None] + 1) * 1e-12
    within = (theta > lowest[:, None] - 1) & (theta < highest[:, None] + 2)
    doubtful = within & ((theta - theta.round()).abs() <= size)
    for channel, column in doubtful.nonzero().tolist():
        value = ceil(_rational(norm, channel, n, column + 1, scale))
        table[channel, column] = min(max(value, int(lowest[channel])), int(highest[channel]) + 1)
    return table


def _rational(norm: Normalization, channel: int, n: int, level: int, scale: int) -> Fraction:
    gamma, beta, mean, sigma = (Fraction(float(v[channel])) for v in (norm.gamma, norm.beta, norm.mean, norm.sigma))
    return scale * ((level - Fraction(1, 2) - n * beta) * sigma / gamma + n * mean)


def published_thresholds(norm: Normalization, n: int, levels: int, integer: bool) -> Tensor:
    """Give the thresholds as the published code rounds them: θ_1 to an integer, the step to 1/10 000.

    int64 ⌈·⌉ where the membrane is an `integer`, else float64; [O, levels]. Channels with γ = 0, which the
    published code cannot hold, keep their own thresholds.
    """
    theta = real_thresholds(norm, n, levels)
    first = theta[:, :1].round().clamp(-(2.0**40), 2.0**40)
    step = (norm.sigma / norm.gamma * PUBLISHED_SCALE).round().clamp(max=2.0**40)[:, None]
    rounded = first * PUBLISHED_SCALE + torch.arange(levels) * step
    rounded = torch.where(norm.gamma[:, None] == 0, theta * PUBLISHED_SCALE, rounded).clamp(-(2.0**60), 2.0**60)
    if not integer:
        return rounded / PUBLISHED_SCALE
    return -(-rounded.long()).div(PUBLISHED_SCALE, rounding_mode="floor")
