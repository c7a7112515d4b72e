"""The integer network as the compiled simulator reads it: flat arrays in the narrowest types that it can run in.

Bounds on what no number of the network exceeds choose the type of membranes, and say which networks must run in
dense tensors instead.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ...ann.device import on_cpu
from ...ann.notation import LARGEST_PIXEL
from ...snn.network import SNN, SpikingLayer, Synapses, memoized
from .arrays import (
    LANES,
    MAXIMUM,
    WINDOW,
    abreast,
    class_pitch,
    class_rows,
    extent,
    fans,
    groups,
    how_of,
    largest_of,
    marks_in,
    pitch_of,
    rows,
    sight,
    table,
    window,
)

# One number is kept free above every membrane: the threshold that is never reached.
_LARGEST = 2**31 - 1

# Threads that share an image, at most: maps have some ten rows, and each thread has room for all spikes of a layer.
TEAM = 8

# Lists of a layer's events: one for each step of a block of 16, and each thread of a team.
_LISTS = 16 * TEAM

# The steps of last spikes have 16 bits, and so have counts, which move by one a step.
_MOST_STEPS = 2**15 - 2

Made = TypeVar("Made")
_MADE: WeakKeyDictionary = WeakKeyDictionary()


def _made_once(make: Callable[..., Made]) -> Callable[..., Made]:
    """A function of a network that makes each of its results once, as long as the network's tensors stay."""

    @wraps(make)
    def kept(snn: SNN, *arguments: Any) -> Made:
        made = _MADE.get(snn)
        if made is None:
            tensors = [snn.classifier, *(t for layer in snn.layers for t in (*layer.compared, *layer.factors))]
            made = _MADE[snn] = {"tensors": tensors}
        # Each change of a tensor adds 1 to its version.
        key = (make, *arguments, sum([tensor._version for tensor in made["tensors"]]))
        if key not in made:
            made[key] = on_cpu(make)(snn, *arguments)
        return made[key]

    return kept


@_made_once
def obstacle(snn: SNN, time_steps: int, disturbed: bool) -> str | None:
    """Why the compiled simulator cannot take this network over `time_steps`; None where it is exact."""
    factors = (factor for layer in snn.layers for factor in layer.factors)
    if any(tensor.is_floating_point() for tensor in (snn.classifier, *factors)):
        return "it has real-valued weights"
    if time_steps > _MOST_STEPS:
        return f"{time_steps} steps are more than {_MOST_STEPS}"
    for layer in snn.layers:
        if not all(_ascend(table) for table in layer.compared):
            return f"thresholds of {layer.name} do not ascend"
    encoder, *hidden = snn.layers
    if LARGEST_PIXEL * int(torch.stack(_reach(encoder.weight)).sum(0).max()) >= _LARGEST:
        return f"membranes of {encoder.name} may need more than 32 bits"
    if largest_of(encoder.weight) >= 2**7:
        return f"weights of {encoder.name} need more than 8 bits"
    for index, layer in enumerate(hidden, 1):
        if membrane_bound(snn, index, time_steps, disturbed) >= 2**62:
            return f"membranes of layer {index} ({layer.name}) may need more than 64 bits"
        for one in layer.synapses:
            if largest_of(one.weight) >= 2**7:
                return f"weights of layer {index} ({layer.name}) need more than 8 bits"
            # Where a row lies is a number of 32 bits, among weights that are kept twice.
            if 2 * (_flip(snn, one.spec.source) + 1) * abreast(layer) * pitch_of(layer) >= _LARGEST:
                return f"weights of layer {index} ({layer.name}) are too many for 32 bits"
            # All that the spikes of a row of the map before reach is added up in 32 bits.
            if one.weight.numel() * one.spec.in_shape[2] >= _LARGEST:
                return f"synapses of layer {index} ({layer.name}) are too many for 32 bits"
    for index, layer in enumerate(snn.layers):
        # Where an event lies is a number of 32 bits, too.
        if _LISTS * (math.prod(layer.spec.out_shape) + LANES) >= _LARGEST:
            return f"neurons of layer {index} ({layer.name}) are too many for 32 bits"
    if 2 * snn.classifier[0].numel() * class_pitch(snn.spec.classes) >= _LARGEST:
        return "weights of the classifier are too many for 32 bits"
    if _image_room(encoder) >= _LARGEST:
        return f"the image with the padding of {encoder.name} is too large for 32 bits"
    if time_steps * int(torch.stack(_reach(snn.classifier)).sum(0).max()) >= _LARGEST:
        return "class scores may need more than 32 bits"
    return None


def _ascend(thresholds: torch.Tensor) -> bool:
    return memoized(thresholds, ("ascend",), lambda: bool((thresholds[:, 1:] >= thresholds[:, :-1]).all()))


def membrane_bound(snn: SNN, index: int, time_steps: int, disturbed: bool) -> int:
    """What no membrane of a hidden layer exceeds.

    Input counts lie within their table, and move by one a step at most; faults may bring them out of it.
    """
    layer = snn.layers[index]
    if layer.spec.kind == "maximum":
        return time_steps
    # In float64, whose rounding does not matter where it begins, and which does not overflow.
    bound = torch.zeros(len(layer.weight), dtype=torch.float64, device="cpu")
    for one, gain in zip(layer.synapses, layer.gains, strict=True):
        source, (up, down) = snn.layers[one.spec.source], _reach(one.weight)
        lowest = source.spec.lowest
        ends = (lowest + source.thresholds.shape[1], -lowest)
        most, least = (time_steps if disturbed else min(end, time_steps) for end in ends)
        reached = torch.maximum(up * most + down * least, up * least + down * most)
        bound += gain.abs().double() * snn.spec.amplitude(one.spec.source) * reached
    return int(bound.max())


def _reach(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each channel Σ|w| over its weights above 0, and over those below."""

    def sums() -> tuple[torch.Tensor, torch.Tensor]:
        flat = weight.long().flatten(1)
        return flat.clamp(min=0).sum(1), -flat.clamp(max=0).sum(1)

    return memoized(weight, ("reach",), sums)


# `Synapses` and `Layer` of task.h: sizes, and where their arrays lie.
SYNAPSES, LAYER = (
    np.dtype([(name, np.int64) for name in names.split()])
    for names in (
        "source target next in_channels in_height in_width kernel_height kernel_width stride padding dilation how "
        "crowd row nothing encoded weights gain fans kinds effective",
        "channels pitch height width levels lowest abreast end compared first inputs ways outputs slot "
        "event_width flip rising falling",
    )
)


class Task(ctypes.Structure):
    """`Task` of task.h: what is asked of all images, and where the answers go.

    kept    what it points to: threads are still at it where an interrupt ends the wait for them
    """

    kept: tuple[Any, ...]

    _fields_ = [
        *[(name, ctypes.c_int64) for name in "images members depth levels steps fault seed classes".split()],
        *[(name, ctypes.c_int64) for name in "class_pitch neurons wide_counts ways slots first_sample".split()],
        *[(name, ctypes.c_int64) for name in "event_room mark_room row_room word_room image_room".split()],
        *[(name, ctypes.c_int64) for name in ("pitch_room", "window_room")],
        ("rate", ctypes.c_double),
        *[(name, ctypes.c_void_p) for name in "layers synapses class_weights".split()],
        *[(name, ctypes.c_void_p) for name in "pixels counts settled_at logits totals".split()],
    ]


# Thresholds to compare a membrane with at every step, at most: with more, looking up two for each count is faster.
_COMPARED = 24


@dataclass(frozen=True, eq=False)
class Layout:
    """An SNN in flat arrays.

    layers          a record of LAYER for each, encoder first
    synapses        a record of SYNAPSES for each way from a layer to another, in the order of where they lead
    arrays          what these point to
    membrane        np.int16, np.int32 or np.int64, the type of membranes and of the hidden layers' thresholds
    work            synapses of all neurons
    counts          those of an image, of 8 and of 16 bits: an array [H, W, pitch] for each layer
    channels        of each layer, by its name there
    task            what does not depend on the run, such as where the records lie, and the class weights, int32, a
                    row of classes for each neuron of the last layer
    idle            memory for threads to work in that none does now, by its size
    """

    layers: np.ndarray
    synapses: np.ndarray
    arrays: list[np.ndarray]
    membrane: type
    work: int
    counts: list[np.dtype]
    channels: dict[str, int]
    task: Task
    idle: dict[int, list[torch.Tensor]] = field(default_factory=dict)


@_made_once
def lay_out(snn: SNN, time_steps: int, disturbed: bool = False) -> Layout:
    """The arrays of a network that meets no `obstacle`, with the narrowest membranes that are exact.

    Membranes are int16 where the worst case stays within: over all inputs, and over `time_steps` steps in
    which a neuron sends at most one spike each; with faults only the latter holds.
    """
    bounds = (membrane_bound(snn, index, time_steps, disturbed) for index in range(1, len(snn.layers)))
    largest = max(bounds, default=0)
    return _flat(snn, next(one for one in (np.int16, np.int32, np.int64) if largest < np.iinfo(one).max))


@_made_once
def _flat(snn: SNN, membrane: type) -> Layout:
    ways = [(target, one) for target, layer in enumerate(snn.layers) for one in layer.synapses]
    layers, synapses, slots = np.zeros(len(snn.layers), LAYER), np.zeros(len(ways), SYNAPSES), _slots(snn)
    arrays: list[np.ndarray] = []
    maps: list[tuple[int, int, int]] = []
    first = 0
    for index, layer in enumerate(snn.layers):
        row, (channels, height, width), pitch = layers[index], layer.spec.out_shape, pitch_of(layer)
        row["channels"], row["pitch"], row["height"], row["width"] = channels, pitch, height, width
        row["abreast"] = abreast(layer)
        row["levels"], row["lowest"] = layer.thresholds.shape[1], layer.spec.lowest
        row["end"] = layer.table_end if layer.saturates else _LARGEST
        row["compared"] = _COMPARED if row["levels"] > _COMPARED else _MOST_STEPS
        row["ways"], row["outputs"], row["slot"] = len(layer.synapses), -1, slots[index]
        row["event_width"], row["flip"] = _event_width(snn, index), _flip(snn, index)
        maps.append((height, width, pitch))
        row["first"], first = first, first + pitch * height * width
        if layer.rising is not None:
            # No one code says where a count moves that rises and falls at different membranes.
            row["compared"] = 0
        kind, least = (membrane, 0) if index else (np.int32, snn.levels)
        for name, thresholds in zip(("rising", "falling"), layer.compared, strict=True):
            arrays.append(table(thresholds, layer.spec.lowest, pitch, kind, least))
            # From the row of count 0 on.
            row[name] = arrays[-1][-layer.spec.lowest :].ctypes.data
    layers["inputs"] = np.cumsum(layers["ways"]) - layers["ways"]
    for way, (target, one) in enumerate(ways):
        row, source = synapses[way], one.spec.source
        row["source"], row["target"], row["next"] = source, target, -1
        if source >= 0:
            row["next"], layers[source]["outputs"] = layers[source]["outputs"], way
        for name, array in _fill(row, snn, target, one, membrane).items():
            arrays.append(array)
            row[name] = array.ctypes.data
    taps = synapses["kernel_height"] * synapses["kernel_width"]
    places = layers["height"] * layers["width"]
    arrays.append(class_rows(snn.classifier))
    return Layout(
        layers,
        synapses,
        arrays,
        membrane,
        work=sum(one.weight.numel() * int(places[target]) for target, one in ways),
        counts=[
            np.dtype([(str(at), kind, shape) for at, shape in enumerate(maps)]) for kind in (np.int8, np.int16)
        ],
        channels={str(at): channels for at, channels in enumerate(layers["channels"].tolist())},
        task=Task(
            depth=len(layers),
            levels=snn.levels,
            classes=snn.spec.classes,
            class_pitch=class_pitch(snn.spec.classes),
            neurons=first,
            layers=layers.ctypes.data,
            synapses=synapses.ctypes.data,
            class_weights=arrays[-1].ctypes.data,
            ways=len(ways),
            slots=1 + max(slots),
            event_room=int((layers["channels"] * places).max()),
            mark_room=max(height * marks_in(width) for height, width, _ in maps),
            # In whole vectors of 16 words.
            word_room=-(-int((layers["width"] * layers["pitch"]).max()) // (16 * LANES)) * 16,
            row_room=int((taps * synapses["in_channels"]).max()),
            image_room=_image_room(snn.layers[0]),
            pitch_room=int((layers["abreast"] * layers["pitch"]).max()),
            window_room=int((taps * layers["pitch"][synapses["target"]])[synapses["how"] >= WINDOW].max(initial=0)),
        ),
    )


def _fill(row: np.void, snn: SNN, target: int, one: Synapses, membrane: type) -> dict[str, np.ndarray]:
    """Fill in the sizes of a record of SYNAPSES, and return its arrays."""
    layer, spec, pitch = snn.layers[target], one.spec, pitch_of(snn.layers[target])
    row["in_channels"], row["in_height"], row["in_width"] = spec.in_shape
    # The encoder's weights fill the gaps of a dilation with zeros: see `groups`.
    row["kernel_height"], row["kernel_width"] = extent(spec) if spec.source < 0 else sight(layer, one)
    row["stride"], row["padding"], row["dilation"] = spec.stride, spec.padding, spec.dilation
    if spec.source < 0:
        return {"weights": groups(one, pitch)}
    row["encoded"] = snn.spec.origin(spec.source) == 0
    row["crowd"] = 127 // max(1, largest_of(one.weight))
    row["how"] = how_of(layer, one)
    if row["how"] >= WINDOW:
        weights = window(one, pitch)
    else:
        weights, row["row"], row["nothing"] = rows(layer, one, int(row["how"]), _flip(snn, spec.source))
    # Maxima are counts, whatever a spike of theirs carries.
    amplitude = 1 if row["how"] == MAXIMUM else snn.spec.amplitude(spec.source)
    gain = np.zeros((abreast(layer), pitch), np.int64)
    gain[:, : len(one.weight)] = amplitude * (1 if one.gain is None else one.gain.numpy())
    # Sums wrap around, and so may what they are multiplied by.
    arrays = {"weights": weights, "gain": gain.astype(membrane)}
    return arrays | dict(zip(("fans", "kinds", "effective"), fans(one), strict=True))


def _slots(snn: SNN) -> list[int]:
    """Where the spikes of each layer lie: a slot is free again when the last layer has read what is in it."""
    slots: list[int] = []
    free: list[int] = []
    for index in range(len(snn.layers)):
        slots.append(free.pop() if free else len(set(slots)))
        free.extend(slots[source] for source in snn.spec.graph.last_read[index] if source >= 0)
    return slots


def _event_width(snn: SNN, index: int) -> int:
    """Places of a row of the map; the classifier sees the whole map as one."""
    _, height, width = snn.layers[index].spec.out_shape
    return width if index + 1 < len(snn.layers) else height * width


def _flip(snn: SNN, index: int) -> int:
    """How far a layer's events of −1 are from those of +1: beyond these, and beyond all rows that they reach."""
    channels = snn.layers[index].spec.out_shape[0]
    read = ((layer, one) for layer in snn.layers for one in layer.synapses if one.spec.source == index)
    return channels * max(_event_width(snn, index), *(math.prod(sight(*way)) for way in read), 1)


def _image_room(encoder: SpikingLayer) -> int:
    (inputs, height, width), border = encoder.spec.in_shape, 2 * encoder.spec.padding
    # In bytes. Pixels take two, or are read in groups of four: three more of each row.
    return 2 * inputs * (height + border) * (width + border + 3) + 64
