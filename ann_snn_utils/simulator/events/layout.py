"""The integer network as the compiled simulator reads it: flat arrays in the narrowest types that it can run in.

Weights lie as [kernel row, input channel, mirrored kernel column, output channel], so that a spike adds one
unbroken row of weights to one unbroken row of membranes; behind the last input channel lies one of zeros, that of a
spike that is not there. Bounds on what no number of the network exceeds choose the types, and say which networks
must run in dense tensors instead.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ...ann.network import LARGEST_PIXEL
from ...ann.notation import LayerSpec
from ...snn.network import SNN, SpikingLayer, memoized

# One number is kept free above every membrane: the threshold that is never reached.
_LARGEST = 2**31 - 1

_MOST_STEPS = 2**15 - 2


def obstacle(snn: SNN, time_steps: int, disturbed: bool) -> str | None:
    """Why the compiled simulator cannot take this network over `time_steps`; None where it is exact."""
    if any(weight.is_floating_point() for weight in (snn.classifier, *(layer.weight for layer in snn.layers))):
        return "it has real-valued weights"
    if len(snn.layers) < 2:
        return "it has no hidden layer"
    encoder, *hidden = snn.layers
    if time_steps > _MOST_STEPS:
        return f"{time_steps} steps are more than {_MOST_STEPS}"
    for layer in snn.layers:
        if not all(_ascend(table) for table in layer.compared):
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


def _ascend(thresholds: torch.Tensor) -> bool:
    return memoized(thresholds, ("ascend",), lambda: bool((thresholds[:, 1:] >= thresholds[:, :-1]).all()))


def membrane_bound(snn: SNN, index: int, time_steps: int, disturbed: bool) -> int:
    """What no membrane of a hidden layer exceeds.

    Input counts lie between 0 and their table's end, and move by one a step at most; faults may bring them below
    0 and beyond the table.
    """
    both, one_sign = _reach(snn.layers[index].weight)
    amplitude, most = (snn.amplitude, snn.levels) if index == 1 else (1, snn.layers[index - 1].thresholds.shape[1])
    return both * amplitude * time_steps if disturbed else one_sign * amplitude * min(most, time_steps)


def _reach(weight: torch.Tensor) -> tuple[int, int]:
    """The largest Σ|w| of a channel, and the largest Σ|w| over its weights of one sign."""

    def sums() -> tuple[int, int]:
        flat = weight.long().flatten(1)
        up, down = flat.clamp(min=0).sum(1), -flat.clamp(max=0).sum(1)
        return int((up + down).max()), int(torch.maximum(up, down).max())

    return memoized(weight, ("reach",), sums)


def largest_of(weight: torch.Tensor) -> int:
    """The largest |w|."""
    return memoized(weight, ("largest",), lambda: int(weight.long().abs().max()))


VECTOR_BYTES = 64

# A layer in the flat arrays: sizes, and where its parts begin.
_FIELDS = (
    "channels",
    "pitch",  # channels, rounded up to whole vectors
    "positions",  # of the map, height · width
    "line",  # weights of one input channel and kernel row: kernel columns · pitch
    "weights",  # the first weight; only hidden layers have what follows, except reach and stretches
    "states",  # the first neuron in all arrays of hidden neurons
    "rising",  # θ_0, of +1 spikes, in `Layout.table`
    "falling",  # θ_0, of −1 spikes: the same, but for the published neuron
    "rows",  # thresholds of a channel
    "compared",  # last step at which the membrane is compared with as many of them as the count can have reached
    "crowd",  # spikes of a place whose weights add up within a byte
    "fan",  # the first input place in `Layout.fan` and `Layout.kinds`
    "reach",  # the first input place in `Layout.reach`
    "stretches",  # the first stretch in `Layout.stretches`
)
GEOMETRY = np.dtype([(name, np.int64) for name in _FIELDS])

# Thresholds to compare a membrane with at every step, at most: with more, looking up two for each count is faster.
_COMPARED = 24

_LAYOUTS: WeakKeyDictionary = WeakKeyDictionary()


class Layout(NamedTuple):
    """An SNN in flat arrays. geometry: one record of GEOMETRY for each layer, encoder first.

    reach, stretches: int64, what `_stretches` makes for each layer. pixel_weights int8, pixel_thresholds int32
    [levels, pitch]: of the encoder, whose membranes are int32. weights: int8 or int16, of the hidden layers.
    table: int16 or int32, the type of their membranes, θ_n in row n of each layer's [J + 2, pitch]. fan: int32,
    the synapses that a spike from each input place reaches. effective_fan: int32, those of them other than 0, for
    each channel; kinds: int64, where the channels of each input place begin there, as many places are alike.
    scores: int8 or int32, a row of class weights for each neuron of the last layer.
    """

    geometry: np.ndarray
    reach: np.ndarray
    stretches: np.ndarray
    pixel_weights: np.ndarray
    pixel_thresholds: np.ndarray
    weights: np.ndarray
    table: np.ndarray
    fan: np.ndarray
    kinds: np.ndarray
    effective_fan: np.ndarray
    scores: np.ndarray


def lay_out(snn: SNN, time_steps: int, disturbed: bool = False) -> Layout:
    """The arrays of a network that meets no `obstacle`, with the narrowest membranes that are exact.

    Membranes are int16 where the worst case stays within: over all inputs, and over `time_steps` steps in
    which a neuron sends at most one spike each; with faults only the latter holds.
    """
    bounds = [membrane_bound(snn, index, time_steps, disturbed) for index in range(1, len(snn.layers))]
    membrane = np.int16 if max(bounds) < np.iinfo(np.int16).max else np.int32
    tensors = (snn.classifier, *(t for layer in snn.layers for t in (layer.weight, *layer.compared)))
    made, key = _LAYOUTS.setdefault(snn, {}), (membrane, *(tensor._version for tensor in tensors))
    if key not in made:
        made[key] = _flat(snn, membrane)
    return made[key]


def _flat(snn: SNN, membrane: type) -> Layout:
    largest = max(largest_of(layer.weight) for layer in snn.layers[1:])
    weight = np.int8 if max(largest, largest_of(snn.layers[1].weight) * snn.amplitude) < 128 else np.int16
    geometry = np.zeros(len(snn.layers), GEOMETRY)
    parts: dict[str, list[np.ndarray]] = {
        name: [] for name in ("weights", "table", "fan", "kinds", "effective_fan", "reach", "stretches")
    }
    parts["scores"] = [_scores(snn.classifier)]
    states = 0
    lanes = VECTOR_BYTES // np.dtype(membrane).itemsize
    for index, layer in enumerate(snn.layers):
        row = geometry[index]
        channels, height, width = layer.spec.out_shape
        pitch = -(-channels // lanes) * lanes
        row["channels"], row["pitch"], row["positions"] = channels, pitch, height * width
        row["line"] = layer.spec.kernel[1] * pitch
        row["reach"], row["stretches"] = (sum(map(len, parts[name])) for name in ("reach", "stretches"))
        reach, stretches = _stretches(layer.spec, pitch)
        parts["reach"].append(reach)
        parts["stretches"].append(stretches)
        if index == 0:
            parts["pixel_weights"] = [_rows(layer, pitch, 1, np.int8)]
            thresholds = _table(layer.thresholds, pitch, np.int32, snn.levels)
            parts["pixel_thresholds"] = [thresholds[1 : snn.levels + 1].ravel()]
            continue
        for name in ("weights", "fan"):
            row[name] = sum(map(len, parts[name]))
        row["states"], states = states, states + pitch * height * width
        row["rows"] = layer.thresholds.shape[1]
        row["compared"] = _COMPARED if row["rows"] > _COMPARED else np.iinfo(np.int64).max
        row["rising"] = row["falling"] = sum(map(len, parts["table"]))
        rising, falling = layer.compared
        parts["table"].append(_table(rising, pitch, membrane).ravel())
        if falling is not rising:
            # No one code says where a count moves that rises and falls at different membranes.
            row["compared"], row["falling"] = 0, sum(map(len, parts["table"]))
            parts["table"].append(_table(falling, pitch, membrane).ravel())
        amplitude = snn.amplitude if index == 1 else 1
        # So many rows of weights add up within a byte.
        row["crowd"] = 127 // max(1, largest_of(layer.weight) * amplitude) if weight is np.int8 else 0
        parts["weights"].append(_rows(layer, pitch, amplitude, weight))
        fan, kinds, effective = _fans(layer, int(geometry[index - 1]["pitch"]))
        parts["fan"].append(fan)
        parts["kinds"].append(kinds + sum(part.size for part in parts["effective_fan"]))
        parts["effective_fan"].append(effective)
    return Layout(geometry, **{name: _aligned(np.concatenate(part)) for name, part in parts.items()})


def class_pitch(classes: int) -> int:
    """Number of class scores, int32, rounded up to whole vectors."""
    lanes = VECTOR_BYTES // np.dtype(np.int32).itemsize
    return -(-classes // lanes) * lanes


def _scores(classifier: torch.Tensor) -> np.ndarray:
    """Class weights [classes, C, H, W] as rows of classes: one for each neuron, one of zeros for each place."""
    classes, channels, height, width = classifier.shape
    dtype = np.int8 if largest_of(classifier) < 128 else np.int32
    rows = np.zeros((height, width, channels + 1, class_pitch(classes)), dtype)
    rows[:, :, :channels, :classes] = classifier.permute(2, 3, 1, 0).numpy()
    return rows.ravel()


@lru_cache(maxsize=64)
def _stretches(spec: LayerSpec, pitch: int) -> tuple[np.ndarray, np.ndarray]:
    """For each input position, where its stretches begin [H · W + 1]; of each stretch three numbers.

    These are its first membrane, its length, and the weight that belongs to the first membrane.
    """
    (_, height, width), (_, out_height, out_width) = spec.in_shape, spec.out_shape
    kernel_height, kernel_width = spec.kernel
    found, reach = [], [0]
    for y, x in product(range(height), range(width)):
        for row in range(kernel_height):
            out_row, remainder = divmod(y + spec.padding - row, spec.stride)
            if remainder or not 0 <= out_row < out_height:
                continue
            first = row * (spec.in_shape[0] + 1) * kernel_width
            # Output column q meets kernel column x + padding − q · stride, which lies mirrored in memory.
            mirrored = kernel_width - 1 - x - spec.padding
            columns = range(
                max(0, -(mirrored // spec.stride)), min(out_width, (x + spec.padding) // spec.stride + 1)
            )
            together = max(1, len(columns)) if spec.stride == 1 else 1
            for q in columns[::together]:
                found.append((out_row * out_width + q, together, first + mirrored + q * spec.stride))
        reach.append(len(found))
    return 3 * np.array(reach), pitch * np.array(found, np.int64).ravel()


def _rows(layer: SpikingLayer, pitch: int, amplitude: int, dtype: type) -> np.ndarray:
    def rows() -> np.ndarray:
        ordered = (layer.weight.int() * amplitude).permute(2, 1, 3, 0).flip(2).numpy()
        height, inputs, width, outputs = ordered.shape
        padded = np.zeros((height, inputs + 1, width, pitch), dtype)
        padded[:, :inputs, :, :outputs] = ordered
        return padded.ravel()

    return memoized(layer.weight, ("rows", pitch, amplitude, dtype), rows)


def _fans(layer: SpikingLayer, pitch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The layer's part of `fan`, `kinds` and `effective_fan`."""

    def fans() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        channels, height, width = layer.effective_fan_out.shape
        rows = np.zeros((height * width, pitch), np.int32)
        rows[:, :channels] = layer.effective_fan_out.flatten(1).T.numpy()
        alike, kinds = np.unique(rows, axis=0, return_inverse=True)
        # All channels of a place reach equally many.
        return layer.fan_out[0].flatten().numpy().astype(np.int32), kinds.ravel() * pitch, alike.ravel()

    return memoized(layer.weight, ("fans", layer.spec, pitch), fans)


def _table(thresholds: torch.Tensor, pitch: int, dtype: type, least: int = 0) -> np.ndarray:
    # U is an integer: U ≥ θ ⇔ U ≥ ⌈θ⌉. Channels that only fill the last vector never reach a threshold.
    info, entries = np.iinfo(dtype), thresholds.shape[1]
    table: np.ndarray = np.full((max(entries, least) + 2, pitch), info.max, dtype)
    table[0] = info.min
    clipped = np.clip(thresholds.numpy(), info.min, info.max)
    table[1 : entries + 1, : len(thresholds)] = np.ceil(clipped).T.astype(dtype)
    return table


def _aligned(values: np.ndarray) -> np.ndarray:
    # Vectors of weights then begin where cache lines do.
    room = np.empty(values.nbytes + VECTOR_BYTES, np.uint8)
    skipped = -room.ctypes.data % VECTOR_BYTES
    copy = room[skipped : skipped + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy
