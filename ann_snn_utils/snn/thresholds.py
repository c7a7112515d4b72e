"""Thresholds of the spiking neuron, from batch norm.

With n = 2^k counts per unit of activation and the membrane U = Σ w·m over integer inputs m, the quantized
activation has reached its j-th level exactly when (Zou et al. 2024; γ > 0, σ = √(var + ε))

    U ≥ θ_j,   θ_j = (j − 1/2 − n·β)·σ/γ + n·μ,   j = 1, 2, …

U is an integer, so U ≥ θ_j ⇔ U ≥ ⌈θ_j⌉: a table of integers decides every spike without loss. The published
neuron's thresholds, rounded and compared strictly, are the baseline; `scale_thresholds` shows what happens when
those of a converted network are off by a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import check
from .network import SNN, SpikingLayer


def scale_thresholds(snn: SNN, scale: float | Sequence[float]) -> SNN:
    """The network with every threshold multiplied by `scale`, or by its layer's one, encoder first.

    Integer thresholds are rounded up, as ⌈θ⌉ is. Entries that every or no membrane in reach passes stay as
    they are, and so does the number of entries, in which a neuron's count ends. Raises ValueError for a factor
    that is not above 0, or not one for each layer.
    """
    scales = [scale] * len(snn.layers) if isinstance(scale, int | float | np.number) else scale
    if len(scales) != len(snn.layers):
        raise ValueError(f"threshold_scale: {len(scales)} factors for {len(snn.layers)} layers; give one for each")
    scales = [check("threshold_scale", one) for one in scales]
    return replace(snn, layers=tuple(_scaled(*pair) for pair in zip(snn.layers, scales, strict=True)))


def _scaled(layer: SpikingLayer, scale: float) -> SpikingLayer:
    # What takes maxima compares counts with counts.
    if scale == 1 or layer.spec.kind == "maximum":
        return layer

    def where_reached(table: Tensor, other: Tensor) -> Tensor:
        reached = (table > layer.lowest[:, None]) & (table <= layer.highest[:, None])
        return torch.where(reached, other, table).cummax(1).values

    def scaled(table: Tensor) -> Tensor:
        other = table * scale if table.is_floating_point() else (table.double() * scale).ceil().long()
        return where_reached(table, other)

    layer = replace(layer, thresholds=scaled(layer.thresholds))
    if layer.rising is None or layer.falling is None:
        return layer
    # `rising` is the least U above a threshold: what is scaled lies just below.
    if layer.rising.is_floating_point():
        inf = layer.rising.new_tensor(torch.inf)
        rising = torch.nextafter(torch.nextafter(layer.rising, -inf) * scale, inf)
    else:
        rising = ((layer.rising - 1).double() * scale).floor().long() + 1
    return replace(layer, rising=where_reached(layer.rising, rising), falling=scaled(layer.falling))


Rational = int | Fraction

# The published membrane counts in units of 1/10 000, and takes a spike back only beyond a tolerance.
PUBLISHED_SCALE, PUBLISHED_TOLERANCE = 10_000, 1e-5


@dataclass(frozen=True)
class Normalization:
    """Batch norm per channel with γ ≥ 0, float64 [O]; `sign` is −1 where weights, μ and γ were negated."""

    sign: Tensor
    gamma: Tensor
    beta: Tensor
    mean: Tensor
    sigma: Tensor

    def exact(self, channel: int) -> tuple[Fraction, ...]:
        """γ, β, μ and σ of a channel."""
        return tuple(Fraction(float(of[channel])) for of in (self.gamma, self.beta, self.mean, self.sigma))


def normalization(norm: nn.BatchNorm2d, name: str) -> Normalization:
    """The layer's batch norm with γ ≥ 0: γ·(z − μ) = |γ|·((−z) − (−μ)) where γ < 0.

    Raises ValueError that names the layer, the parameter and the channel of a value that is not finite, or of a
    negative variance.
    """
    parts: dict[str, Any] = {"γ": norm.weight, "β": norm.bias, "μ": norm.running_mean, "var": norm.running_var}
    for symbol, part in parts.items():
        bad = (~torch.isfinite(part) | ((part < 0) & (symbol == "var"))).nonzero().flatten()
        if len(bad):
            channel = int(bad[0])
            raise ValueError(f"{name}: {symbol} of channel {channel} is {float(part[channel])}; train it again")
    gamma, beta, mean, variance = (values.detach().double() for values in parts.values())
    sign = torch.where(gamma < 0, -1.0, 1.0).double()
    return Normalization(sign, gamma * sign, beta, mean * sign, (variance + norm.eps).sqrt())


def real_thresholds(
    norm: Normalization, n: Rational, levels: int, scale: Rational = 1, lowest_count: int = 0
) -> Tensor:
    """scale · θ_j in float64, [O, levels], level j in column j − 1 − lowest_count.

    n: counts for one unit of activation, 2^k. scale: the size of one unit of input, 255 for uint8 pixels. A channel
    with γ = 0 is constant: its thresholds are −∞ up to its count floor(n·relu(β) + 1/2), and +∞ above.
    """
    level = torch.arange(1, levels + 1, dtype=torch.float64) + lowest_count
    above = level - 0.5 - float(n) * norm.beta[:, None]
    # 0 · (σ/γ) is 0 even where σ/γ overflows.
    climb = torch.where(above == 0, 0.0, above * (norm.sigma / norm.gamma)[:, None])
    theta = float(scale) * (climb + float(n) * norm.mean[:, None])
    constant = torch.where(above <= 0, -torch.inf, torch.inf)
    return torch.where(norm.gamma[:, None] == 0, constant, theta)


def exact_thresholds(
    norm: Normalization,
    n: Rational,
    levels: int,
    lowest: Tensor,
    highest: Tensor,
    scale: Rational = 1,
    lowest_count: int = 0,
) -> Tensor:
    """⌈scale · θ_j⌉ within the reach of the membrane, int64 [O, levels], level j in column j − 1 − lowest_count.

    Below `lowest` every membrane fires and above `highest` none does, so the table needs no value outside
    lowest … highest + 1. Where float64 cannot tell on which side of an integer θ_j lies, rationals do.
    """
    theta = real_thresholds(norm, n, levels, scale, lowest_count)
    table = torch.minimum(torch.maximum(theta, lowest[:, None]), highest[:, None] + 1.0).ceil().long()
    size = (theta.abs() + 2 * float(scale * n) * norm.mean.abs()[:, None] + 1) * 1e-12
    within = (theta > lowest[:, None] - 1) & (theta < highest[:, None] + 2)
    doubtful = within & ((theta - theta.round()).abs() <= size)
    for channel, column in doubtful.nonzero().tolist():
        value = ceil(_rational(norm, channel, n, lowest_count + column + 1, scale))
        table[channel, column] = min(max(value, int(lowest[channel])), int(highest[channel]) + 1)
    return table


def _rational(norm: Normalization, channel: int, n: Rational, level: int, scale: Rational) -> Fraction:
    gamma, beta, mean, sigma = norm.exact(channel)
    return scale * ((level - Fraction(1, 2) - n * beta) * sigma / gamma + n * mean)


def published_thresholds(
    real: Tensor, step: Tensor, rounded: bool, reach: tuple[Tensor, Tensor] | None = None
) -> list[Tensor]:
    """The thresholds of the published neuron (Zou et al. 2024), and where exactly it fires, each [O, levels].

    Its two thresholds start at θ⁻ = b and θ⁺ = b + d, and both move up by d with a +1 and down by d with a −1.
    With V = max(s·U, b), it fires +1 where V > θ⁺, else −1 where V < θ⁻ − 10⁻⁵. rounded: s = 10 000,
    d = round(s·σ/γ) and b = s·round(θ_1) − d; otherwise s = 1, d = σ/γ and b = θ_1 − d. So after n net spikes it
    compares with b + d·(n + 1) and b + d·n, and a table serves it as well as moving thresholds do.

    real, step: θ_j [O, levels] of `real_thresholds` and d = σ/γ [O], in the unit of the membrane.
    Three tables are returned: the thresholds (b + d·j) / s; `rising`, the least U that sends the j-th spike; and
    `falling`, the least U that does not take it back (−∞ where nothing does). reach: lowest and highest membrane,
    int64 [O] each, of integer membranes: tables are then int64 and kept within lowest … highest + 1. Channels
    with γ = 0, which the published code cannot hold, keep their own thresholds.
    """
    scale = PUBLISHED_SCALE if rounded else 1
    levels, step = real.shape[1], step * scale
    first, step = (scale * real[:, 0].round(), step.round()) if rounded else (real[:, 0], step)
    bound = first - step
    # Added up as the published code does, so that both round alike.
    scaled = torch.stack(list(accumulate([step] * levels, torch.add, initial=bound))[1:], 1)
    # V never falls below b: a step too small to lie above b by more than the tolerance is never taken back.
    lower = scaled - PUBLISHED_TOLERANCE
    lower = torch.where(bound[:, None] < lower, lower, -torch.inf)
    held = torch.isfinite(step)[:, None]
    upper = torch.where(held, torch.nextafter(scaled, scaled.new_tensor(torch.inf)), real * scale)
    middle, lower = torch.where(held, scaled, real * scale), torch.where(held, lower, real * scale)
    tables = [middle / scale, _least(upper, scale), _least(lower, scale)]
    if reach is None:
        return tables
    lowest, beyond = reach[0][:, None], reach[1][:, None] + 1
    return [torch.minimum(torch.maximum(table, lowest), beyond).ceil().long() for table in tables]


def _least(target: Tensor, scale: int) -> Tensor:
    """The least float64 U with scale · U ≥ target, as float64 multiplies."""
    if scale == 1:
        return target
    inf = target.new_tensor(torch.inf)
    least = target / scale
    # The quotient is off by its rounding at most: step down while that still does, then up until it does.
    for _ in range(2):
        below = torch.nextafter(least, -inf)
        least = torch.where(below * scale >= target, below, least)
    for _ in range(2):
        least = torch.where(least * scale < target, torch.nextafter(least, inf), least)
    return least
