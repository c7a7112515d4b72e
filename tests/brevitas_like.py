"""Stand-ins for Brevitas's layers, with as much of their interface as a conversion asks, for tests without it."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RoundedTo(nn.Module):
    """A quantizer of activations: as many counts as bits say, of one scale."""

    is_quant_enabled, is_narrow_range, rounding_mode = True, False, "ROUND"

    def __init__(self, bit_width: int, is_signed: bool = False) -> None:
        super().__init__()
        self.bits, self.is_signed, self.step = bit_width, is_signed, 0.3

    def scale(self) -> Tensor:
        return torch.tensor(self.step)

    def zero_point(self) -> Tensor:
        return torch.tensor(0.0)

    def bit_width(self) -> Tensor:
        return torch.tensor(float(self.bits))

    def forward(self, x: Tensor) -> Tensor:
        lowest = -(2 ** (self.bits - 1)) if self.is_signed else 0
        return (x / self.step).round().clamp(lowest, lowest + 2**self.bits - 1) * self.step


class _Weights:
    """4-bit weights, in a convolution with a scale for each channel."""

    weight_quant, bias_quant = SimpleNamespace(is_quant_enabled=True), SimpleNamespace(is_quant_enabled=False)

    def quant_weight(self) -> SimpleNamespace:
        scale = self.weight.abs().flatten(1).amax(1).view(-1, *[1] * (self.weight.ndim - 1)) / 7
        scale = scale if self.weight.ndim == 4 else scale.max()
        whole = (self.weight / scale).round()
        return SimpleNamespace(
            scale=scale, zero_point=torch.zeros(()), bit_width=4, value=whole * scale, int=lambda **_: whole
        )


class QuantConv2d(_Weights, nn.Conv2d):
    def __init__(self, *sizes: int, weight_bit_width: int, **settings) -> None:
        super().__init__(*sizes, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.quant_weight().value, self.bias)


class QuantLinear(_Weights, nn.Linear):
    def __init__(self, *sizes: int, weight_bit_width: int, **settings) -> None:
        super().__init__(*sizes, **settings)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.quant_weight().value, self.bias)


class QuantReLU(nn.Module):
    def __init__(self, bit_width: int) -> None:
        super().__init__()
        self.act_quant = RoundedTo(bit_width)

    def forward(self, x: Tensor) -> Tensor:
        return self.act_quant(x.relu())


class QuantIdentity(nn.Module):
    def __init__(self, bit_width: int) -> None:
        super().__init__()
        self.act_quant = RoundedTo(bit_width, is_signed=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act_quant(x)


for _kind in (QuantConv2d, QuantLinear, QuantReLU, QuantIdentity):
    # By which they are known.
    _kind.__module__ = "brevitas.stand_in"
