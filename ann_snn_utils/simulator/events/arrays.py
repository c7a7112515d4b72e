"""Weights, thresholds and fan-outs as arrays of the compiled simulator: channels last, padded to whole vectors.

What spikes reach lies as rows, [kernel row, kernel column, input channel, output channel], so that a spike adds one
unbroken row of weights: bytes, or of ternary weights nibbles.
"""

from __future__ import annotations

import numpy as np
import torch

from ...ann.graph import SynapseSpec
from ...ann.operations import without_groups
from ...snn.network import SpikingLayer, Synapses, memoized
from .build import group

# Channels of a layer are padded to whole vectors, class scores to theirs: see task.h.
LANES, CLASS_LANES = 32, 16

# Channels whose sums fill vectors: of a layer that has less, several places are summed up together.
_TOGETHER = 128

# How spikes come to membranes: by rows of bytes or nibbles, or by a window on neurons of the same channel.
BYTES, NIBBLES, WINDOW, MAXIMUM = range(4)


def pitch_of(layer: SpikingLayer) -> int:
    """Number of channels, rounded up to whole vectors."""
    return -(-layer.spec.out_shape[0] // LANES) * LANES


def marks_in(width: int) -> int:
    """Marks of a row of a map, in whole cache lines: see task.h."""
    return (width + 16) // 16 * 16


def class_pitch(classes: int) -> int:
    """Number of class scores, rounded up to whole vectors."""
    return -(-classes // CLASS_LANES) * CLASS_LANES


def largest_of(weight: torch.Tensor) -> int:
    """The largest |w|."""
    return memoized(weight, ("largest",), lambda: int(weight.long().abs().max()))


def how_of(layer: SpikingLayer, one: Synapses) -> int:
    """Which of BYTES … MAXIMUM brings spikes over these synapses to a layer's membranes."""
    (inputs, _, _), outputs, groups = one.spec.in_shape, one.spec.out_shape[0], one.spec.groups
    if layer.spec.kind == "maximum":
        return MAXIMUM
    if groups > 1 and inputs == groups == outputs:
        return WINDOW
    return BYTES if largest_of(one.weight) > 1 else NIBBLES


def abreast(layer: SpikingLayer) -> int:
    """Places of a row of the map whose sums are formed together: several where a layer has few channels."""
    if any(how_of(layer, one) >= WINDOW or one.spec.dilation > 1 for one in layer.synapses):
        return 1
    return max(1, min(_TOGETHER // pitch_of(layer), layer.spec.out_shape[2]))


def sight(layer: SpikingLayer, one: Synapses) -> tuple[int, int]:
    """Rows and columns of the map before that places abreast see."""
    rows, columns = one.spec.kernel
    return rows, columns + (abreast(layer) - 1) * one.spec.stride


def rows(layer: SpikingLayer, one: Synapses, how: int, flip: int) -> tuple[np.ndarray, int, int]:
    """Weights as rows, one for each neuron that sends spikes, those for −1 `flip` rows further, and one of 0.

    A row has those of places abreast, one place after the other: 0 where a place does not see as far. Also how many
    bytes it is from a row to the next one, and from the first one to that of zeros.
    """
    pitch, together, seen = pitch_of(layer), abreast(layer), sight(layer, one)

    def made() -> tuple[np.ndarray, int, int]:
        ordered = without_groups(one.weight, one.spec.groups).permute(2, 3, 1, 0).numpy()
        plus = np.zeros((*seen, ordered.shape[2], together, pitch), np.int8)
        for place in range(together):
            first = place * one.spec.stride
            plus[:, first : first + ordered.shape[1], :, place, : ordered.shape[3]] = ordered
        both = [weights.reshape(*seen, ordered.shape[2], -1) for weights in (plus, -plus)]
        if how != BYTES:
            both = [_nibbles(weights) for weights in both]
        row, size = both[0].shape[-1], both[0].size
        nothing = flip * row + size
        values = _aligned(nothing + row, np.int8)
        for part, start in zip(both, (0, flip * row), strict=True):
            values[start : start + size] = part.ravel()
        return values, row, nothing

    return memoized(one.weight, ("rows", one.spec.groups, pitch, how, flip, together, seen), made)


def weight_bytes(layer: SpikingLayer) -> int:
    """Bytes of a hidden layer's weights for spikes of +1, each once, channels padded: of ternary ones half."""
    total, pitch = 0, pitch_of(layer)
    for one in layer.synapses:
        how, taps = how_of(layer, one), one.weight[0, 0].numel()
        row = pitch // (2 if how == NIBBLES else 1)
        total += taps * row * (1 if how >= WINDOW else one.spec.in_shape[0])
    return total


def window(one: Synapses, pitch: int) -> np.ndarray:
    """Weights of neurons that see their own channel only, as [kernel row, kernel column, pitch]."""
    return memoized(
        one.weight, ("window", pitch), lambda: _padded(one.weight[:, 0].permute(1, 2, 0).numpy(), pitch)
    )


def extent(spec: SynapseSpec) -> tuple[int, int]:
    """Rows and columns that a kernel lies on, with the gaps of its dilation."""
    rows, columns = ((size - 1) * spec.dilation + 1 for size in spec.kernel)
    return rows, columns


def groups(one: Synapses, pitch: int) -> np.ndarray:
    """The encoder's weights, [kernel row, input channel, group of columns, pitch, group()], with zeros in the gaps.

    A channel's weights of a group take four bytes.
    """

    def made() -> np.ndarray:
        (height, width), d = extent(one.spec), one.spec.dilation
        weight = without_groups(one.weight, one.spec.groups)
        channels, inputs = weight.shape[:2]
        padded = np.zeros((height, inputs, -(-width // group()) * group(), pitch), f"i{4 // group()}")
        padded[::d, :, :width:d, :channels] = weight.permute(2, 1, 3, 0).numpy()
        return _copied(padded.reshape(height, inputs, -1, group(), pitch).swapaxes(-1, -2))

    return memoized(one.weight, ("groups", one.spec.groups, one.spec.dilation, pitch), made)


def fans(one: Synapses) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fan-outs of a source's places, and effective ones of its neurons: `fans`, `kinds`, `effective` of task.h.

    Those of places are [height, width], with 0 behind them as far as marks go. Rows of the map with the same
    effective ones, all but those at the border, share a row of `effective`, [width, pitch]; `kinds` says where that
    of each row of the map begins.
    """

    def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        channels, _, width = one.spec.in_shape
        reached = one.effective_fan_out.permute(1, 2, 0).numpy()
        reached = _padded(reached, -(-channels // LANES) * LANES, np.int32).reshape(len(reached), -1)
        alike, kinds = np.unique(reached, axis=0, return_inverse=True)
        # All channels of a place reach as many.
        places = _padded(one.fan_out[0].numpy(), marks_in(width), np.int32)
        return places, kinds.ravel().astype(np.int64) * reached.shape[1], alike

    return memoized(one.weight, ("fans", one.spec), made)


def class_rows(classifier: torch.Tensor) -> np.ndarray:
    """Class weights [classes, C, H, W] as rows of classes, channels last, and once more negated."""
    ordered = _padded(classifier.permute(2, 3, 1, 0).numpy(), class_pitch(len(classifier)), np.int32)
    return np.stack([ordered, -ordered])


def table(thresholds: torch.Tensor, lowest: int, pitch: int, dtype: type, least: int = 0) -> np.ndarray:
    """Thresholds [O, J] of the levels from lowest + 1 on, as rows [level, pitch] of whole numbers.

    Before them stands a row that every membrane reaches; behind them stand rows that none reaches, at least one,
    and as many as bring the table to level `least`.
    """
    info, (channels, entries) = np.iinfo(dtype), thresholds.shape
    made: np.ndarray = np.full((max(entries, least) + 2, pitch), info.max, dtype)
    made[0] = info.min
    rows = thresholds.numpy().T
    # U is an integer: U ≥ θ ⇔ U ≥ ⌈θ⌉. What exceeds the type stays at its end: as a float, that is beyond it.
    inside = np.maximum(np.ceil(rows[rows < info.max]), info.min)
    made[1 : entries + 1, :channels][rows < info.max] = inside
    # Channels that only fill the last vector stay at 0.
    made[: 1 - lowest, channels:] = info.min
    return _copied(made)


def _padded(values: np.ndarray, pitch: int, dtype: type = np.int8) -> np.ndarray:
    """Values with zeros behind the last dimension, up to the pitch."""
    padded = np.zeros((*values.shape[:-1], pitch), dtype)
    padded[..., : values.shape[-1]] = values
    return padded


def _nibbles(rows: np.ndarray) -> np.ndarray:
    """Rows of −1, 0 and 1 as nibbles with 1 more: for each block of channels that is summed at once, its halves."""
    pitch, blocks, start = rows.shape[-1], [], 0
    for width in (256, 128, 64, 32):
        while width <= pitch - start:
            low, high = (rows[..., start + at : start + at + width // 2] + 1 for at in (0, width // 2))
            blocks.append(low | high << 4)
            start += width
    return np.concatenate(blocks, axis=-1)


def _aligned(size: int, dtype: type) -> np.ndarray:
    """Zeros that begin with a cache line, so that no vector of weights lies across two."""
    size *= np.dtype(dtype).itemsize
    room = np.zeros(size + 64, np.uint8)
    skipped = -room.ctypes.data % 64
    return room[skipped : skipped + size].view(dtype)


def _copied(values: np.ndarray) -> np.ndarray:
    copy = _aligned(values.size, values.dtype.type).reshape(values.shape)
    copy[...] = values
    return copy
