"""Integer weights and integer activations, trained through by straight-through gradients.

Weights become integers (−1, 0, +1, or −127 … 127) and stay integers in the forward pass: the batch norm
behind every layer absorbs whatever scale they had. Activations become multiples of 2^-k.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

TERNARY_RATIO = 0.7
INT8_LARGEST = 127


def ternary(weight: Tensor) -> Tensor:
    """sign(w) where |w| > 0.7 · mean|w| over the whole layer, else 0; same shape and dtype.

    Source: ternary weight networks as used by Zou et al. 2024.

    >>> ternary(torch.tensor([-0.9, -0.2, 0.1, 0.6]))
    tensor([-1., -0.,  0.,  1.])
    """
    magnitude = weight.abs()
    return weight.sign() * (magnitude > TERNARY_RATIO * magnitude.mean())


def int8_scale(weight: Tensor, per_channel: bool = True) -> Tensor:
    """The step s with w ≈ s · int8(w): max|w| / 127, per output channel [O, 1, …] or one for all.

    A channel of zeros has no scale of its own; 1 keeps its weights zero.
    """
    dims = tuple(range(1, weight.ndim)) if per_channel else tuple(range(weight.ndim))
    scale = weight.detach().abs().amax(dims, keepdim=True) / INT8_LARGEST
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def int8(weight: Tensor, per_channel: bool = True) -> Tensor:
    """The integers round(w / s) in −127 … 127, in the dtype of `weight`; s as `int8_scale` says."""
    return (weight.detach() / int8_scale(weight, per_channel)).round()


class _StraightThrough(torch.autograd.Function):
    """The integers; their gradient goes to the values that they were made of."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, integer: Tensor) -> Tensor:
        return integer

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def straight_through(value: Tensor, integer: Tensor) -> Tensor:
    """`integer`, whose gradient goes to `value`."""
    return _StraightThrough.apply(value, integer)


class Ternary(nn.Module):
    """Parametrization: the layer computes with ternary weights; the gradient reaches w unchanged."""

    def forward(self, weight: Tensor) -> Tensor:
        return straight_through(weight, ternary(weight.detach()))


class Int8(nn.Module):
    """Parametrization: the layer computes with int8 weights; the gradient reaches w through w / s."""

    def __init__(self, per_channel: bool = True) -> None:
        super().__init__()
        self.per_channel = per_channel

    def forward(self, weight: Tensor) -> Tensor:
        scaled = weight / int8_scale(weight, self.per_channel)
        return straight_through(scaled, scaled.detach().round())


class Whole(nn.Module):
    """Parametrization: the layer computes with round(w / unit), clamped to −1 … 1 or, for int8, −127 … 127.

    Unlike the scale of `Int8`, `unit` is a buffer that stays as it is while the weights are trained: one for each
    of `outputs` channels, or one for all where that is None. It is 1 until `quantize` sets it. `lowest` is −128 in
    networks that were saved when it was, which keep their weights.
    """

    def __init__(self, outputs: int | None = None, largest: int = INT8_LARGEST) -> None:
        super().__init__()
        self.largest = largest
        self.unit: Tensor
        self.lowest: Tensor
        self.register_buffer("unit", torch.ones(() if outputs is None else (outputs, 1, 1, 1)))
        self.register_buffer("lowest", torch.tensor(float(-largest)))

    def forward(self, weight: Tensor) -> Tensor:
        scaled = weight / self.unit
        return straight_through(scaled, scaled.detach().round().clamp(max=self.largest).maximum(self.lowest))

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Of a state without it, −128 was the lowest.
        state.setdefault(f"{prefix}lowest", torch.tensor(-128.0 if self.largest > 1 else -1.0))
        super()._load_from_state_dict(state, prefix, *rest)


class _Levels(torch.autograd.Function):
    """floor(n · relu(x) + 1/2) / n, at most `largest` / n. Saves its input, which batch norm made anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, n: int, largest: int | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.clip = None if largest is None else largest / n
        code = (x * n).add_(0.5).floor_() if n > 1 else (x + 0.5).floor_()
        code = code.clamp_(min=0, max=largest)
        return code.div_(n) if n > 1 else code

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        # One fused pass each: gradient · (0 < x), or gradient · (0 < x < clip).
        if ctx.clip is None:
            return torch.ops.aten.threshold_backward(gradient, x, 0), None, None
        return torch.ops.aten.hardtanh_backward(gradient, x, 0, ctx.clip), None, None


class QuantReLU(nn.Module):
    """Level-k quantized ReLU: a = floor(2^k · relu(x) + 1/2) / 2^k, with a ≤ `clip` where it is given.

    The gradient is 1 inside the range (x > 0, and x < clip) and 0 outside.
    """

    def __init__(self, k: int = 0, clip: int | None = None) -> None:
        super().__init__()
        self.k, self.clip = k, clip

    def forward(self, x: Tensor) -> Tensor:
        n = 2**self.k
        return _Levels.apply(x, n, None if self.clip is None else self.clip * n)

    def extra_repr(self) -> str:
        return f"k={self.k}, clip={self.clip}"


class Counts(nn.Module):
    """Whole multiples of any step: floor(x / step + 1/2) · step, the count held in lowest … highest (None: no end).

    halves: where they go: "up", as in a spiking neuron; to the "even" count, as torch rounds; or "away" from 0.
    The gradient is 1 where the count needs no holding, else 0.
    """

    def __init__(self, step: float, lowest: int = 0, highest: int | None = None, halves: str = "up") -> None:
        super().__init__()
        self.step, self.lowest, self.highest, self.halves = step, lowest, highest, halves

    def forward(self, x: Tensor) -> Tensor:
        held = (x / self.step).clamp(self.lowest, self.highest)
        value = held.detach()
        if self.halves == "even":
            whole = value.round()
        elif self.halves == "away":
            whole = value.sign() * (value.abs() + 0.5).floor()
        else:
            whole = (value + 0.5).floor()
        return straight_through(held, whole) * self.step

    def extra_repr(self) -> str:
        return f"step={self.step}, lowest={self.lowest}, highest={self.highest}"
