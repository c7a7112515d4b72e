"""Models that quantize themselves, by this project's quantizers or by Brevitas's: they are taken to the last code.

Brevitas's layers are known by where their classes come from, and asked for their integers and scales: it need not
be installed. Plain modules take their place, which torch.fx can follow.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from .euclid import nearest_whole
from .network import ANN, Layer
from .notation import LARGEST_PIXEL
from .quantize import INT8_LARGEST, Counts, Int8, QuantReLU, Ternary, Whole
from .traced import Term, Trace, TracedLayer

_ELSEWHERE = "or export it (brevitas.export.export_qonnx) and take the file with import_qonnx"

# What float64 may have rounded off a sum, of its size.
_ROUNDING = Fraction(1, 10**12)

# Counts that are looked at in a layer without a largest one.
_OPEN = 255


class Scaled(nn.Module):
    """A layer of whole weights, times what 1 of them is worth, one number or one an output [O], plus a bias [O]."""

    def __init__(self, layer: nn.Conv2d | nn.Linear, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.layer = layer
        self.scale: Tensor
        self.bias: Tensor | None
        around = (-1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
        self.register_buffer("scale", scale.detach().reshape(around))
        self.register_buffer("bias", None if bias is None else bias.detach().reshape(around))

    def forward(self, x: Tensor) -> Tensor:
        """Real sums of x."""
        x = self.layer(x) * self.scale
        return x if self.bias is None else x + self.bias


def without_brevitas(model: nn.Module, name: str = "") -> nn.Module:
    """The model, in which plain modules have taken the place of Brevitas's; name: its own place.

    Raises ValueError that names the module and the remedy for those that no plain module says exactly.
    """
    if not any(kind.__module__.startswith("brevitas.") for kind in type(model).__mro__):
        for part, module in model.named_children():
            setattr(model, part, without_brevitas(module, f"{name}.{part}".lstrip(".")))
        return model
    kind, around = type(model).__name__, []
    if isinstance(model, nn.Conv2d | nn.Linear):
        made: nn.Module = _layer(model, name)
        around = [getattr(model, end, None) for end in ("input_quant", "output_quant")]
    elif kind in ("QuantReLU", "QuantIdentity"):
        made = nn.ReLU() if kind == "QuantReLU" else nn.Identity()
        around = [getattr(model, "input_quant", None), model.act_quant]
    else:
        raise ValueError(
            f"{name} of the model: Brevitas's {kind} cannot be converted; add, concatenate and pool as torch does, "
            f"with QuantReLU or QuantIdentity behind it, {_ELSEWHERE}"
        )
    first, last = (_counts(one, name) for one in around)
    if kind == "QuantReLU" and last is not None:
        # A ReLU and what rounds it are one activation.
        last.lowest, made = 0, nn.Identity()
    return nn.Sequential(*(module for module in (first, made, last) if module is not None))


def _layer(layer: Any, name: str) -> Scaled:
    if layer.bias is not None and layer.bias_quant.is_quant_enabled:
        raise ValueError(f"{name} of the model: its bias is rounded; leave out bias_quant, {_ELSEWHERE}")
    if not layer.weight_quant.is_quant_enabled:
        raise ValueError(f"{name} of the model: Brevitas leaves its weights as they are; give it a weight_quant")
    weight = layer.quant_weight()
    if bool(weight.zero_point.any()) or float(weight.bit_width) > 8:
        raise ValueError(f"{name} of the model: weights of at most 8 bits around 0 are taken, {_ELSEWHERE}")
    plain: nn.Conv2d | nn.Linear
    if isinstance(layer, nn.Conv2d):
        settings = ("stride", "padding", "dilation", "groups", "padding_mode")
        same: dict[str, Any] = {one: getattr(layer, one) for one in settings}
        sizes: Any = layer.kernel_size
        plain = nn.Conv2d(layer.in_channels, layer.out_channels, sizes, bias=False, **same)
    else:
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False)
    plain.weight = nn.Parameter(weight.int(float_datatype=True).detach())
    return Scaled(plain, weight.scale, layer.bias)


def _counts(quantizer: Any, name: str) -> Counts | None:
    """What an activation's quantizer makes of values; None where it does nothing."""
    if quantizer is None or not quantizer.is_quant_enabled:
        return None
    scale, bits, narrow = quantizer.scale(), round(float(quantizer.bit_width())), bool(quantizer.is_narrow_range)
    if scale.numel() != 1 or bool(quantizer.zero_point().any()) or quantizer.rounding_mode != "ROUND":
        raise ValueError(
            f"{name} of the model: round an activation to the nearest count, with one scale and a zero point of 0, "
            f"{_ELSEWHERE}"
        )
    if quantizer.is_signed:
        return Counts(float(scale), narrow - 2 ** (bits - 1), 2 ** (bits - 1) - 1, halves="even")
    return Counts(float(scale), 0, 2**bits - 1 - narrow, halves="even")


def is_whole(weight: Tensor | None, largest: int) -> bool:
    """Whether weights, if any, are whole numbers within ±largest."""
    return weight is None or bool((weight == weight.round()).all() and (weight.abs() <= largest).all())


def unquantized(traced: Trace) -> list[str]:
    """The layers of a model that do not round their activations, or whose weights are not whole, by name."""
    layers = [layer for layer in traced.layers if layer.pool is None]
    return [
        layer.name
        for number, layer in enumerate(layers)
        if layer.step is None
        or (number == 0 and math.isinf(layer.high))
        or not all(is_whole(term.weight, INT8_LARGEST) for term in layer.terms)
    ]


def whole_unit(classifier: Term) -> Tensor | None:
    """What 1 of a classifier's whole weights is worth for all classes, []; None where int8 does not hold them."""
    assert classifier.weight is not None
    unit = classifier.scale.abs().min()
    weight = classifier.weight * (classifier.scale / unit)[:, None, None, None]
    return unit if is_whole(weight, INT8_LARGEST) else None


def check_quantized(model: nn.Module, traced: Trace) -> None:
    """Raise ValueError where a model rounds only some layers, or scores of classes that no whole numbers compare.

    They would be quantized anew with the others.
    """
    classifier = [] if is_whole(traced.classifier.weight, INT8_LARGEST) else ["the classifier"]
    real = unquantized(traced) + classifier
    whole = any(
        isinstance(module, Scaled | QuantReLU | Counts | Ternary | Int8 | Whole) for module in model.modules()
    )
    terms = [(layer.name, term) for layer in traced.layers if layer.pool is None for term in layer.terms]
    for name, term in [*terms, ("the classifier", traced.classifier)] if whole else []:
        if not is_whole(term.weight, INT8_LARGEST) and is_whole(term.weight, 2**31):
            raise ValueError(
                f"{name} of the model has a whole weight beyond ±{INT8_LARGEST}: quantize its weights to 8 bits of "
                "a narrow range, which leaves out −128"
            )
    if real and whole:
        raise ValueError(f"{real[0]} of the model is not quantized, and others are: quantize all layers, or none")
    if whole and whole_unit(traced.classifier) is None:
        raise ValueError(
            "the classifier of the model has a scale for each class, and whole scores are compared: give its "
            "weights one scale, and put no batch norm behind it"
        )


def check_ties(ann: ANN, traced: Trace) -> None:
    """Raise ValueError where a half, as a model rounds it, does not go up, as it does with thresholds."""
    halves = {module.halves for module in traced.model.modules() if isinstance(module, Counts)} - {"up"}
    if not halves:
        return
    for number, (layer, source) in enumerate(zip(ann.layers, traced.layers, strict=True)):
        if isinstance(layer, Layer) and (ties := _half_way(ann, number, source, halves)):
            raise ValueError(
                f"{ties} levels of {layer.spec.token} begin half way between two counts, of which a threshold "
                "takes the upper one and the model another: quantize to counts from 0 with rounding_mode HALF_UP, "
                "or with another step"
            )


def _half_way(ann: ANN, number: int, layer: TracedLayer, halves: Collection[str]) -> int:
    """How many levels of a layer begin at sums that it can have and that rounding leaves below them.

    Half to even leaves them below odd levels, half away from 0 below those up to 0.
    """
    (lowest, highest), step, ties = ann.spec.counts(number), Fraction(ann.spec.step(number)), 0
    for channel, shift in enumerate(layer.shift.tolist()):
        sums = [one for term in layer.terms for one in _sums(ann, term, channel)]
        for level in range(lowest + 1, (highest or _OPEN) + 1):
            begin = (level - Fraction(1, 2)) * step - Fraction(shift)
            below = ("even" in halves and level % 2 == 1) or ("away" in halves and level <= 0)
            ties += below and _can_be(begin, sums)
    return ties


def _sums(ann: ANN, term: Term, channel: int) -> Iterator[tuple[Fraction, int, int]]:
    """What a term adds up in a channel, one for each step of its sources: the worth of a sum of 1, and its ends."""
    spec, weight = ann.spec, torch.ones(1) if term.weight is None else term.weight[channel]
    up, down = (int(part.sum()) * term.average**2 for part in (weight.clamp(min=0), -weight.clamp(max=0)))
    steps: dict[Fraction, list[int]] = {}
    for source in term.sources:
        # A pixel is worth the float32 next to 1/255, as models keep their scales.
        worth = spec.step(source) if source >= 0 else float(torch.tensor(1 / LARGEST_PIXEL))
        lowest, highest = spec.counts(source)
        steps.setdefault(Fraction(worth), []).extend((lowest, highest or _OPEN))
    for unit, ends in steps.items():
        least, most = min(ends), max(ends)
        slope = Fraction(float(term.scale[channel])) * unit / term.average**2
        yield slope, up * least - down * most, up * most - down * least


def _can_be(value: Fraction, sums: Sequence[tuple[Fraction, int, int]]) -> bool:
    """Whether whole sums of these worths, within their ends, add up to a value, but for the rounding of float64."""
    # Of three worths no thresholds can be made.
    matter = [one for one in sums if one[0]] + 2 * [(Fraction(0), 0, 0)]
    (p, least, most), (r, low, high) = matter[:2]
    if not p:
        return value == 0
    if r:
        # The second sums for which the first one is within its ends.
        ends = (value - p * least) / r, (value - p * most) / r
        low, high = max(low, math.ceil(min(ends) - _ROUNDING)), min(high, math.floor(max(ends) + _ROUNDING))
    start = (value - r * low) / p
    if low > high or not (r or least - _ROUNDING <= start <= most + _ROUNDING):
        return False
    size = max(Fraction(1), abs(start), abs(value / p))
    return nearest_whole(high - low + 1, -r / p, start) <= _ROUNDING * size
