"""The integer network as the compiled simulator reads it: flat arrays, channels last, whole vectors of channels.

A spike of channel i at (y, x) reaches, for each kernel row, a stretch of neighbouring positions with all their
output channels. Weights lie in that order, [kernel row, input channel, mirrored kernel column, output channel],
so that a spike adds one unbroken row of weights to one unbroken row of membranes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .models import LARGEST_PIXEL
from .notation import LayerSpec
from .snn import SNN, SpikingLayer

VECTOR_BYTES = 64
# One number is kept free above every membrane: the threshold that is never reached.
_LARGEST = 2**31 - 1
_MOST_STEPS = 2**15 - 2
# Where a layer's parts begin in the flat arrays; `pitch` is the number of channels rounded up to whole vectors;
# `crowd` the number of events that add up within a byte.
GEOMETRY = np.dtype([(name, np.int64) for name in (
    "channels", "pitch", "positions", "line", "weights", "table", "states", "fan", "reach", "stretches",
    "crowd",
)])  # fmt: skip

_SYNAPSES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_LAYOUTS: WeakKeyDictionary = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Layout:
    """An SNN in flat arrays. geometry: one record of GEOMETRY for each layer, encoder first. reach, stretches:
    int64, what `_stretches` gives for each layer.

    pixel_weights int8, pixel_thresholds int32 [levels, pitch]: of the encoder, whose membranes are int32.
    weights: int8 or int16, of the hidden layers; table: int16 or int32, the type of their membranes, θ_n in
    row n of each layer's [J + 2, pitch]. upper, lower: θ_1 and θ_0 of every hidden neuron. fan, effective_fan:
    int32, the synapses that a spike of each input neuron reaches. scores: int32 [neurons, classes].
    """

    geometry: np.ndarray
    reach: np.ndarray
    stretches: np.ndarray
    pixel_weights: np.ndarray
    pixel_thresholds: np.ndarray
    weights: np.ndarray
    table: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    fan: np.ndarray
    effective_fan: np.ndarray
    scores: np.ndarray


def obstacle(snn: SNN, time_steps: int, disturbed: bool) -> str | None:
    """Give why the compiled simulator cannot take this network over `time_steps`, or None where it is exact."""
    if not all(_whole(layer.weight) for layer in snn.layers) or not _whole(snn.classifier):
        return "it has real-valued weights"
    if len(snn.layers) < 2:
        return "it has no hidden layer"
    encoder, *hidden = snn.layers
    if time_steps > _MOST_STEPS:
        return f"{time_steps} steps are more than {_MOST_STEPS}"
    if (encoder.thresholds.diff(dim=1) < 0).any():
        return f"thresholds of {encoder.name} do not ascend"
    if LARGEST_PIXEL * _reach(encoder.weight)[1] >= _LARGEST:
        return f"membranes of {encoder.name} may need more than 32 bits"
    for index, layer in enumerate(hidden, 1):
        if _bound(snn, index, time_steps, disturbed) >= _LARGEST:
            return f"membranes of layer {index} ({layer.name}) may need more than 32 bits"
        if layer.thresholds.shape[1] > _MOST_STEPS:
            return f"counts of layer {index} ({layer.name}) may need more than 16 bits"
        if _largest(layer.weight) * (snn.amplitude if index == 1 else 1) >= 2**15:
            return f"weights of layer {index} ({layer.name}) need more than 16 bits"
    if time_steps * _reach(snn.classifier)[0] >= _LARGEST:
        return "class scores may need more than 32 bits"
    return None


def lay_out(snn: SNN, time_steps: int, disturbed: bool = False) -> Layout:
    """Give the arrays of a network that meets no `obstacle`, with the narrowest membranes that are exact.

    Membranes are int16 where the worst case stays within: over all inputs, and over `time_steps` steps in
    which a neuron sends at most one spike each; with faults only the latter holds.
    """
    bounds = [_bound(snn, index, time_steps, disturbed) for index in range(1, len(snn.layers))]
    membrane = np.int16 if max(bounds) < np.iinfo(np.int16).max else np.int32
    tensors = (snn.classifier, *(t for layer in snn.layers for t in (layer.weight, layer.thresholds)))
    made, key = _LAYOUTS.setdefault(snn, {}), (membrane, *(tensor._version for tensor in tensors))
    if key not in made:
        made[key] = _flat(snn, membrane)
    return made[key]


def _flat(snn: SNN, membrane: type) -> Layout:
    largest = max(_largest(layer.weight) for layer in snn.layers[1:])
    weight = np.int8 if max(largest, _largest(snn.layers[1].weight) * snn.amplitude) < 128 else np.int16
    geometry = np.zeros(len(snn.layers), GEOMETRY)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (
        "weights", "table", "states", "lower", "fan", "effective", "reach", "stretches"
    )}  # fmt: skip
    for index, layer in enumerate(snn.layers):
        row, lanes = geometry[index], VECTOR_BYTES // np.dtype(membrane if index else np.int32).itemsize
        channels, height, width = layer.spec.out_shape
        pitch = -(-channels // lanes) * lanes
        row["channels"], row["pitch"], row["positions"] = channels, pitch, height * width
        row["line"] = layer.spec.kernel[1] * pitch
        row["reach"], row["stretches"] = (sum(map(len, parts[name])) for name in ("reach", "stretches"))
        reach, stretches = _stretches(layer.spec, pitch)
        parts["reach"].append(reach)
        parts["stretches"].append(stretches)
        if index == 0:
            pixel_weights = _rows(layer, pitch, 1, np.int8)
            thresholds = _table(layer, pitch, np.int32, snn.levels)[1 : snn.levels + 1].ravel()
            continue
        for name in ("weights", "table", "states", "fan"):
            row[name] = sum(part.size for part in parts[name])
        table = _table(layer, pitch, membrane)
        amplitude = snn.amplitude if index == 1 else 1
        # So many rows of weights add up within a byte.
        row["crowd"] = 127 // max(1, _largest(layer.weight) * amplitude) if weight is np.int8 else 0
        parts["weights"].append(_rows(layer, pitch, amplitude, weight))
        parts["table"].append(table.ravel())
        parts["states"].append(np.tile(table[1], height * width))
        parts["lower"].append(np.tile(table[0], height * width))
        feeding = int(geometry[index - 1]["pitch"])
        fan, effective = _fans(layer, feeding)
        parts["fan"].append(fan)
        parts["effective"].append(effective)
    flat = {name: _aligned(np.concatenate(part)) for name, part in parts.items()}
    by_class = [_padded(weights, pitch) for weights in snn.classifier]
    return Layout(
        geometry, flat["reach"], flat["stretches"], _aligned(pixel_weights), _aligned(thresholds),
        flat["weights"], flat["table"],
        flat["states"], flat["lower"], flat["fan"], flat["effective"],
        np.stack(by_class, 1),
    )  # fmt: skip


def _whole(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point()


def _kept(weight: torch.Tensor, key: tuple, make: Callable[[], Any]) -> Any:
    # Networks that differ in thresholds only, as under a slider, share what depends on the weights. A tensor
    # that was changed in place has another version.
    made = _SYNAPSES.setdefault(weight, {})
    key = (weight._version, *key)
    if key not in made:
        made[key] = make()
    return made[key]


def _reach(weight: torch.Tensor) -> tuple[int, int]:
    """Give the largest Σ|w| of a channel, and the largest Σw over its weights of one sign."""

    def sums() -> tuple[int, int]:
        flat = weight.long().flatten(1)
        up, down = flat.clamp(min=0).sum(1), -flat.clamp(max=0).sum(1)
        return int((up + down).max()), int(torch.maximum(up, down).max())

    return _kept(weight, ("reach",), sums)


def _largest(weight: torch.Tensor) -> int:
    return _kept(weight, ("largest",), lambda: int(weight.long().abs().max()))


def _bound(snn: SNN, index: int, time_steps: int, disturbed: bool) -> int:
    """Give what no membrane of a hidden layer exceeds: input counts lie between 0 and their table's end, and
    move by one a step at most; faults may bring them below 0 and beyond the table."""
    both, one_sign = _reach(snn.layers[index].weight)
    amplitude, most = (snn.amplitude, snn.levels) if index == 1 else (1, snn.layers[index - 1].thresholds.shape[1])
    return both * amplitude * time_steps if disturbed else one_sign * amplitude * min(most, time_steps)


@lru_cache(maxsize=64)
def _stretches(spec: LayerSpec, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    """Give, for each input position, where its stretches begin [H · W + 1], and each stretch's first membrane,
    its length, and the weight that belongs to the first membrane [K, 3]."""
    (_, height, width), (_, out_height, out_width) = spec.in_shape, spec.out_shape
    kernel_height, kernel_width = spec.kernel
    found, reach = [], [0]
    for y, x in product(range(height), range(width)):
        for row in range(kernel_height):
            out_row, remainder = divmod(y + spec.padding - row, spec.stride)
            if remainder or not 0 <= out_row < out_height:
                continue
            first = row * spec.in_shape[0] * kernel_width
            # Output column q meets kernel column x − q · stride, which lies mirrored in memory.
            columns = [(x + spec.padding - column) // spec.stride for column in range(kernel_width)
                       if (x + spec.padding - column) % spec.stride == 0]  # fmt: skip
            columns = sorted(column for column in columns if 0 <= column < out_width)
            lengths = [len(columns)] if spec.stride == 1 and columns else [1] * len(columns)
            for column, length in zip(columns, lengths, strict=False):
                mirrored = kernel_width - 1 - (x + spec.padding - column * spec.stride)
                found.append((out_row * out_width + column, length, first + mirrored))
        reach.append(len(found))
    return np.array(reach), np.array(found).reshape(-1, 3) * pitch


def _rows(layer: SpikingLayer, pitch: int, amplitude: int, dtype: type) -> np.ndarray:
    def rows() -> np.ndarray:
        ordered = (layer.weight.int() * amplitude).permute(2, 1, 3, 0).flip(2).numpy()
        padded = np.zeros((*ordered.shape[:3], pitch), dtype)
        padded[..., : ordered.shape[3]] = ordered
        return padded.ravel()

    return _kept(layer.weight, ("rows", pitch, amplitude, dtype), rows)


def _fans(layer: SpikingLayer, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    def fans() -> tuple[np.ndarray, np.ndarray]:
        return _padded(layer.fan_out, pitch), _padded(layer.effective_fan_out, pitch)

    return _kept(layer.weight, ("fans", layer.spec, pitch), fans)


def _table(layer: SpikingLayer, pitch: int, dtype: type, least: int = 0) -> np.ndarray:
    # U is whole: U ≥ θ ⇔ U ≥ ⌈θ⌉. Channels that only fill the last vector never reach a threshold.
    info, thresholds = np.iinfo(dtype), layer.thresholds.numpy()
    entries = thresholds.shape[1]
    table = np.full((max(entries, least) + 2, pitch), info.max, dtype)
    table[0] = info.min
    table[1 : entries + 1, : len(thresholds)] = np.ceil(np.clip(thresholds, info.min, info.max)).T.astype(dtype)
    return table


def _aligned(values: np.ndarray) -> np.ndarray:
    # Vectors of weights then begin where cache lines do.
    room = np.empty(values.nbytes + VECTOR_BYTES, np.uint8)
    skipped = -room.ctypes.data % VECTOR_BYTES
    copy = room[skipped : skipped + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy


def _padded(per_neuron: torch.Tensor, pitch: int) -> np.ndarray:
    """Give int32 [H · W · pitch], channels last, for [C, H, W]."""
    channels, height, width = per_neuron.shape
    padded = np.zeros((height, width, pitch), np.int32)
    padded[..., :channels] = per_neuron.permute(1, 2, 0).numpy()
    return padded.ravel()
