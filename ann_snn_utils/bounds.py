"""What no number of the integer network exceeds, and so the narrowest types that it can run in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .models import LARGEST_PIXEL
from .snn import SNN

# One number is kept free above every membrane: the threshold that is never reached.
_LARGEST = 2**31 - 1
_MOST_STEPS = 2**15 - 2

_MADE: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def obstacle(snn: SNN, time_steps: int, disturbed: bool) -> str | None:
    """Give why the compiled simulator cannot take this network over `time_steps`, or None where it is exact."""
    if not all(_whole(layer.weight) for layer in snn.layers) or not _whole(snn.classifier):
        return "it has real-valued weights"
    if len(snn.layers) < 2:
        return "it has no hidden layer"
    encoder, *hidden = snn.layers
    if time_steps > _MOST_STEPS:
        return f"{time_steps} steps are more than {_MOST_STEPS}"
    for layer in snn.layers:
        if not _ascend(layer.thresholds):
            return f"thresholds of {layer.name} do not ascend"
    if LARGEST_PIXEL * _reach(encoder.weight)[1] >= _LARGEST:
        return f"membranes of {encoder.name} may need more than 32 bits"
    for index, layer in enumerate(hidden, 1):
        if membrane_bound(snn, index, time_steps, disturbed) >= _LARGEST:
            return f"membranes of layer {index} ({layer.name}) may need more than 32 bits"
        if layer.thresholds.shape[1] > _MOST_STEPS:
            return f"counts of layer {index} ({layer.name}) may need more than 16 bits"
        if largest_of(layer.weight) * (snn.amplitude if index == 1 else 1) >= 2**15:
            return f"weights of layer {index} ({layer.name}) need more than 16 bits"
    if time_steps * _reach(snn.classifier)[0] >= _LARGEST:
        return "class scores may need more than 32 bits"
    return None


def _whole(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point()


def _ascend(thresholds: torch.Tensor) -> bool:
    return kept(thresholds, ("ascend",), lambda: bool((thresholds.diff(dim=1) >= 0).all()))


def membrane_bound(snn: SNN, index: int, time_steps: int, disturbed: bool) -> int:
    """Give what no membrane of a hidden layer exceeds: input counts lie between 0 and their table's end, and
    move by one a step at most; faults may bring them below 0 and beyond the table."""
    both, one_sign = _reach(snn.layers[index].weight)
    amplitude, most = (snn.amplitude, snn.levels) if index == 1 else (1, snn.layers[index - 1].thresholds.shape[1])
    return both * amplitude * time_steps if disturbed else one_sign * amplitude * min(most, time_steps)


def _reach(weight: torch.Tensor) -> tuple[int, int]:
    """Give the largest Σ|w| of a channel, and the largest Σw over its weights of one sign."""

    def sums() -> tuple[int, int]:
        flat = weight.long().flatten(1)
        up, down = flat.clamp(min=0).sum(1), -flat.clamp(max=0).sum(1)
        return int((up + down).max()), int(torch.maximum(up, down).max())

    return kept(weight, ("reach",), sums)


def largest_of(weight: torch.Tensor) -> int:
    """Give the largest |w|."""
    return kept(weight, ("largest",), lambda: int(weight.long().abs().max()))


def kept(tensor: torch.Tensor, key: tuple, make: Callable[[], Any]) -> Any:
    """Give what `make` makes of a tensor, made once for a key and as long as the tensor stays as it is."""
    # Networks that differ in thresholds only, as under a slider, share what depends on the weights. A tensor
    # that was changed in place has another version.
    made = _MADE.setdefault(tensor, {})
    key = (tensor._version, *key)
    if key not in made:
        made[key] = make()
    return made[key]
