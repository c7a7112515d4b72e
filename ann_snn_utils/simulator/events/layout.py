"""The integer network as the compiled simulator reads it: flat arrays in the narrowest types that it can run in.

Weights lie as [kernel row, kernel column, input channel, output channel], so that a spike adds one unbroken row of
them: bytes, or, of ternary weights of many channels, bits. Bounds on what no number of the network exceeds choose
the type of membranes, and say which networks must run in dense tensors instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ...ann.network import LARGEST_PIXEL
from ...snn.network import SNN, SpikingLayer, memoized

# One number is kept free above every membrane: the threshold that is never reached.
_LARGEST = 2**31 - 1

_MOST_STEPS = 2**15 - 2


_MADE: WeakKeyDictionary = WeakKeyDictionary()


def _made_once(snn: SNN, key: tuple, make: Callable[[], Any]) -> Any:
    """What `make` makes of a network, made once for a key and as long as its tensors stay as they are."""
    made = _MADE.get(snn)
    if made is None:
        tensors = [snn.classifier, *(t for layer in snn.layers for t in (layer.weight, *layer.compared))]
        made = _MADE[snn] = {"tensors": tensors}
    # Each change of a tensor adds 1 to its version.
    key = (*key, sum([tensor._version for tensor in made["tensors"]]))
    if key not in made:
        made[key] = make()
    return made[key]


def obstacle(snn: SNN, time_steps: int, disturbed: bool) -> str | None:
    """Why the compiled simulator cannot take this network over `time_steps`; None where it is exact."""
    return _made_once(snn, ("obstacle", time_steps, disturbed), lambda: _obstacle(snn, time_steps, disturbed))


def _obstacle(snn: SNN, time_steps: int, disturbed: bool) -> str | None:
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
        if largest_of(layer.weight) >= 2**7:
            return f"weights of layer {index} ({layer.name}) need more than 8 bits"
        inputs, _, width = layer.spec.in_shape
        # Where a row lies is a number of 32 bits, among weights that are kept twice; so are sums of fan-outs.
        if (2 * layer.weight[0, 0].numel() + width) * inputs * _pitch(layer) >= _LARGEST:
            return f"weights of layer {index} ({layer.name}) are too many for 32 bits"
        if -(-inputs // CLASS_LANES) * int(layer.fan_out[0].sum()) >= _LARGEST:
            return f"synapses of layer {index} ({layer.name}) are too many for 32 bits"
    if 2 * snn.classifier[0].numel() * class_pitch(snn.spec.classes) >= _LARGEST:
        return "weights of the classifier are too many for 32 bits"
    if _image_room(encoder) >= _LARGEST:
        return f"the image with the padding of {encoder.name} is too large for 32 bits"
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


# Channels of a layer are padded to whole vectors, class scores to theirs; a count of bits has PLANES: see spikes.h.
LANES, CLASS_LANES, PLANES = 32, 16, 16

# Channels of a layer of ternary weights from which on these are bits.
SLICED = 256

# `Layer` of spikes.h: sizes, and where its arrays lie.
_SIZES = (
    "channels pitch width places in_channels in_height in_width kernel_height kernel_width stride padding "
    "gain crowd levels compared first row flip nothing sliced event_width event_row event_flip"
).split()
_ARRAYS = "weights rising falling fan kinds effective".split()
LAYER = np.dtype([(name, np.int64) for name in (*_SIZES, *_ARRAYS)])

# Thresholds to compare a membrane with at every step, at most: with more, looking up two for each count is faster.
_COMPARED = 24


@dataclass(frozen=True, eq=False)
class Layout:
    """An SNN in flat arrays.

    layers          a record of LAYER for each, encoder first
    arrays          what these point to
    membrane        np.int16 or np.int32, the type of membranes and of the hidden layers' thresholds
    class_weights   int32, a row of classes for each neuron of the last layer
    neurons         of all layers, with those that only fill vectors
    counts          for each layer the shape, strides and first entry of its counts [C, H, W] among these
    room            what a thread needs room for: the most spikes of a layer, its places and one more, inputs of a
                    neuron, pixels of an image with its padding, and channels
    idle            memory for threads to work in that none does now, by its size
    """

    layers: np.ndarray
    arrays: list[np.ndarray]
    membrane: type
    class_weights: np.ndarray
    neurons: int
    counts: list[tuple[tuple[int, ...], tuple[int, ...], int]]
    room: dict[str, int]
    idle: dict[int, list[np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Rows:
    """Weights as rows, one for each neuron that sends spikes, and how far it is to others.

    row, flip, nothing: in numbers, from a row to the next one, from it to the one for a spike of −1, and from the
    first one to one of zeros.
    """

    values: np.ndarray
    row: int = 0
    flip: int = 0
    nothing: int = 0
    sliced: bool = False


def lay_out(snn: SNN, time_steps: int, disturbed: bool = False) -> Layout:
    """The arrays of a network that meets no `obstacle`, with the narrowest membranes that are exact.

    Membranes are int16 where the worst case stays within: over all inputs, and over `time_steps` steps in
    which a neuron sends at most one spike each; with faults only the latter holds.
    """

    def chosen() -> Layout:
        bounds = [membrane_bound(snn, index, time_steps, disturbed) for index in range(1, len(snn.layers))]
        membrane: type = np.int16 if max(bounds) < np.iinfo(np.int16).max else np.int32
        return _made_once(snn, ("layout", membrane, _COMPARED), lambda: _flat(snn, membrane))

    return _made_once(snn, ("chosen", time_steps, disturbed, _COMPARED), chosen)


def _flat(snn: SNN, membrane: type) -> Layout:
    layers, classes, first = np.zeros(len(snn.layers), LAYER), _class_rows(snn.classifier), 0
    arrays: list[np.ndarray] = []
    counts: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
    for index, layer in enumerate(snn.layers):
        row, spec, pitch = layers[index], layer.spec, _pitch(layer)
        channels, height, width = spec.out_shape
        row["channels"], row["pitch"], row["width"], row["places"] = channels, pitch, width, height * width
        row["in_channels"], row["in_height"], row["in_width"] = spec.in_shape
        row["kernel_height"], row["kernel_width"] = spec.kernel
        row["stride"], row["padding"] = spec.stride, spec.padding
        row["gain"] = snn.amplitude if index == 1 else 1
        row["crowd"] = 127 // max(1, largest_of(layer.weight))
        row["levels"] = layer.thresholds.shape[1]
        row["compared"] = _COMPARED if row["levels"] > _COMPARED else _MOST_STEPS
        counts.append(((channels, height, width), (1, width * pitch, pitch), first))
        row["first"], first = first, first + pitch * height * width
        rising, falling = layer.compared
        if falling is not rising:
            # No one code says where a count moves that rises and falls at different membranes.
            row["compared"] = 0
        kind, least = (membrane, 0) if index else (np.int32, snn.levels)
        weights = _rows(layer, pitch) if index else _fours(layer, pitch)
        for name in ("row", "flip", "nothing", "sliced"):
            row[name] = getattr(weights, name)
        if index + 1 < len(snn.layers):
            after = snn.layers[index + 1]
            row["event_width"], reached, fans = width, _rows(after, _pitch(after)), _fans(after, pitch)
        else:
            row["event_width"], reached, fans = height * width, classes, _no_fans(height * width, pitch)
        row["event_row"], row["event_flip"] = reached.row, reached.flip
        tables = _table(rising, pitch, kind, least), _table(falling, pitch, kind, least)
        for name, array in zip(_ARRAYS, (weights.values, *tables, *fans), strict=True):
            row[name] = array.ctypes.data
            arrays.append(array)
    return Layout(
        layers,
        arrays,
        membrane,
        classes.values,
        neurons=first,
        counts=counts,
        room={
            "event_room": int((layers["channels"] * layers["places"]).max()),
            "place_room": int(layers["places"].max()) + 1,
            "row_room": max(layer.weight[0].numel() for layer in snn.layers),
            "image_room": _image_room(snn.layers[0]),
            "pitch_room": int(layers["pitch"].max()),
        },
    )


def _image_room(encoder: SpikingLayer) -> int:
    (inputs, height, width), border = encoder.spec.in_shape, 2 * encoder.spec.padding
    # Pixels are read four at a time: up to three more of each row.
    return inputs * (height + border) * (width + border + 3) + 64


def _pitch(layer: SpikingLayer) -> int:
    return -(-layer.spec.out_shape[0] // LANES) * LANES


def class_pitch(classes: int) -> int:
    """Number of class scores, rounded up to whole vectors."""
    return -(-classes // CLASS_LANES) * CLASS_LANES


def _class_rows(classifier: torch.Tensor) -> Rows:
    """Class weights [classes, C, H, W] as rows of classes, channels last."""
    classes, channels, height, width = classifier.shape
    rows = np.zeros((height, width, channels, class_pitch(classes)), np.int32)
    rows[..., :classes] = classifier.permute(2, 3, 1, 0).numpy()
    return Rows(np.stack([rows, -rows]), rows.shape[-1], rows.size)


def _rows(layer: SpikingLayer, pitch: int) -> Rows:
    def rows() -> Rows:
        ordered = layer.weight.permute(2, 3, 1, 0).numpy()
        padded = np.zeros((*ordered.shape[:3], pitch), np.int8)
        padded[..., : ordered.shape[3]] = ordered
        # Below this many channels there are too few rows to pay for turning sums of bits into numbers.
        sliced = pitch >= SLICED and largest_of(layer.weight) == 1 and padded[..., 0].size < 2**PLANES
        both = [_bits(sign * padded) if sliced else sign * padded for sign in (1, -1)]
        row, size = both[0].shape[-1], both[0].size
        values = np.concatenate([*(part.ravel() for part in both), np.zeros(row, np.int8)])
        return Rows(_aligned(values), row, size, 2 * size, sliced)

    return memoized(layer.weight, ("rows", pitch), rows)


def weight_bytes(layer: SpikingLayer) -> int:
    """Bytes of a hidden layer's weights for spikes of +1: padded, and in wide ternary layers two bits each."""
    return _rows(layer, _pitch(layer)).flip


def _bits(rows: np.ndarray) -> np.ndarray:
    """Rows of −1, 0 and 1 as a bit for each 1, then one for each −1, padded to whole vectors."""
    bits = np.concatenate([np.packbits(rows == sign, axis=-1, bitorder="little") for sign in (1, -1)], axis=-1)
    return np.pad(bits, [(0, 0)] * 3 + [(0, -bits.shape[-1] % 64)]).view(np.int8)


def _fours(layer: SpikingLayer, pitch: int) -> Rows:
    """The encoder's weights as [kernel row, input channel, four columns, pitch, 4]."""

    def fours() -> Rows:
        channels, inputs, height, width = layer.weight.shape
        padded = np.zeros((height, inputs, -(-width // 4) * 4, pitch), np.int8)
        padded[:, :, :width, :channels] = layer.weight.permute(2, 1, 3, 0).numpy()
        return Rows(_aligned(padded.reshape(height, inputs, -1, 4, pitch).swapaxes(-1, -2)))

    return memoized(layer.weight, ("fours", pitch), fours)


def _fans(layer: SpikingLayer, pitch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`fan`, `kinds` and `effective` of the layer that sends spikes to this one: places alike share fan-outs."""

    def fans() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        channels, height, width = layer.effective_fan_out.shape
        rows = np.zeros((height * width, pitch), np.int32)
        rows[:, :channels] = layer.effective_fan_out.flatten(1).T.numpy()
        alike, kinds = np.unique(rows, axis=0, return_inverse=True)
        # All channels of a place reach equally many.
        return layer.fan_out[0].flatten().numpy().astype(np.int32), kinds.ravel() * pitch, alike.ravel()

    return memoized(layer.weight, ("fans", layer.spec, pitch), fans)


def _no_fans(places: int, pitch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros(places, np.int32), np.zeros(places, np.int64), np.zeros(pitch, np.int32)


def _table(thresholds: torch.Tensor, pitch: int, dtype: type, least: int = 0) -> np.ndarray:
    # U is an integer: U ≥ θ ⇔ U ≥ ⌈θ⌉. Channels that only fill the last vector never reach a threshold.
    info, entries = np.iinfo(dtype), thresholds.shape[1]
    table: np.ndarray = np.full((max(entries, least) + 2, pitch), info.max, dtype)
    table[0] = info.min
    clipped = np.clip(thresholds.numpy(), info.min, info.max)
    table[1 : entries + 1, : len(thresholds)] = np.ceil(clipped).T.astype(dtype)
    return _aligned(table)


def _aligned(values: np.ndarray) -> np.ndarray:
    # Vectors of weights then begin where cache lines do.
    room = np.empty(values.nbytes + 64, np.uint8)
    skipped = -room.ctypes.data % 64
    copy = room[skipped : skipped + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy
