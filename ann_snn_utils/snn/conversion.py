"""From a quantized network to an integer spiking network: batch norms become tables of thresholds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..ann.network import ANN, LARGEST_PIXEL, Layer
from ..ann.notation import NETWORKS, NetworkSpec, Shape, check_counts, checked_spec
from ..ann.reference import in_float64
from ..ann.train import batch_sizes
from ..checks import check
from .network import FORMS, REAL_FORMS, SNN, SpikingLayer, worst_case
from .thresholds import exact_thresholds, normalization, published_thresholds, real_thresholds

# Entries of an open-ended layer's table.
SHORTEST, LONGEST = 64, 4096


def check_network(
    settings: Mapping[str, Any], in_shape: Shape, classes: int, images: int = 2, hardware: bool = False
) -> NetworkSpec:
    """The spec of the network that a study's parameters ask for; ValueError where it could not be made.

    Takes milliseconds and no memory: what each parameter may be alone `check_settings` says, and here stands what
    depends on the network and its data.

    settings            by the notebooks' names: network, padding, k, ternary, levels, clip, int8_ends, …
    in_shape, classes   of the images as the network will see them
    images              how many the training set has, where that is known
    hardware            whether a bundle will be written, which holds integers only
    """
    notation, own_padding = NETWORKS.get(settings["network"], (settings["network"], "valid"))
    asked = {name: settings[name] for name in ("k", "ternary", "levels", "int8_ends") if name in settings}
    clip, padding = settings.get("clip") or None, settings.get("padding") or own_padding
    spec = checked_spec(NetworkSpec(notation, in_shape, classes, clip=clip, padding=padding, **asked))
    check_counts(spec, settings.get("max_levels") or SHORTEST if clip is None else clip * 2**spec.k)
    if "batch_size" in settings:
        batch_sizes(spec, images, settings["batch_size"])
    scales = settings.get("threshold_scale", 1.0)
    if isinstance(scales, list | tuple) and len(scales) != len(spec.layers):
        raise ValueError(
            f"threshold_scale={scales!r:.80}: give one factor, or one for each of {len(spec.layers)} layers"
        )
    if hardware and not spec.int8_ends:
        raise ValueError("int8_ends=False: a hardware bundle holds integers only; set it to true, or leave out 08")
    return spec


def table_length(largest: int) -> int:
    """A `max_levels` with room for counts of `largest` and a third more: 64, doubled up to 4096."""
    length = SHORTEST
    while 4 * largest >= 3 * length and length < LONGEST:
        length *= 2
    return length


@torch.no_grad()
def levels_for(ann: ANN, images: Tensor, batch_size: int = 250) -> int:
    """A `max_levels` for a quantized network and uint8 images [N, C, H, W], from the activations it shows.

    Little training leaves a layer with large counts. Bounds on membranes grow with the tables, so they are no
    longer than that. batch_size: images at a time.
    """
    # In float32 a count may come out as its neighbour, for which `table_length` leaves room.
    reference, largest = copy.deepcopy(ann).cpu().float().eval(), 0.0
    for batch in images.cpu().split(batch_size):
        x = reference.layers[0](reference.scaled(batch))
        for layer in reference.layers[1:]:
            x = layer(x)
            largest = max(largest, float(x.max()) * 2**ann.spec.k)
    return table_length(round(min(largest, LONGEST)))


@torch.no_grad()
def convert(ann: ANN, thresholds: str = "exact", max_levels: int = SHORTEST) -> SNN:
    """The spiking network that settles on exactly the codes of a quantized network.

    thresholds: "exact" (integers, ⌈θ_j⌉), "float" (real θ_j in float64), "published" (the baseline, Zou et al.
    2024: hidden layers compare strictly, with the first threshold rounded to an integer and the step to
    1/10 000) or "published-float" (the same neuron without rounding): see `thresholds.published_thresholds`.
    max_levels: length of the threshold table of a layer without a clip, `levels_for` chooses one;
    `simulate` reports a neuron that would need more. Raises ValueError for a network that is not quantized,
    holds a value that is not finite, or has full-precision hidden weights where thresholds are to be exact.

    >>> from ann_snn_utils import build_ann
    >>> snn = convert(build_ann("4C3-P2-16", (1, 8, 8), classes=10, clip=2).eval())
    >>> [(layer.name, layer.weight.dtype, layer.largest_count) for layer in snn.layers][1:]
    [('P2', torch.int8, 2), ('16', torch.int8, 2)]
    >>> snn.integer
    True
    """
    if thresholds not in FORMS:
        raise ValueError(f"thresholds={thresholds!r}: choose one of {', '.join(FORMS)}")
    if not ann.spec.quantized:
        raise ValueError("convert: this network is full precision; train one built with quantized=True")
    max_levels = check("max_levels", max_levels)
    reference, spec = in_float64(ann), ann.spec
    check_counts(spec, max_levels if spec.clip is None else spec.clip * 2**spec.k)
    layers: list[SpikingLayer] = []
    largest = torch.full((spec.in_shape[0],), LARGEST_PIXEL)
    for index, layer in enumerate(reference.layers):
        spiking = _spiking_layer(layer, index, spec, thresholds, largest, max_levels)
        layers.append(spiking)
        largest = spiking.reachable * (2**spec.k if index == 0 else 1)
    weight = reference.classifier.weight.detach().reshape(spec.classes, *layers[-1].spec.out_shape)
    # The counts of an encoder that is the last layer are in units of 1.
    scale = float(reference.classifier.scale) / 2 ** (spec.k if len(layers) > 1 else 0)
    return SNN(
        spec,
        tuple(layers),
        weight.to(torch.int8) if spec.int8_ends else weight,
        thresholds,
        {**ann.metadata, "logit_scale": scale},
    )


def _spiking_layer(
    layer: Layer, index: int, spec: NetworkSpec, form: str, largest: Tensor, max_levels: int
) -> SpikingLayer:
    """Convert one layer whose inputs reach at most `largest` counts (pixels), int64 per input channel."""
    name, encoder = f"layer {index} ({layer.spec.token})", index == 0
    integer = spec.int8_ends or (spec.ternary and not encoder)
    if not integer and not encoder and form == "exact":
        raise ValueError(
            f"{name} has full-precision weights, and thresholds='exact' needs integer membranes: "
            "build the network with ternary=True or int8_ends=True, or use thresholds='float'"
        )
    norm = normalization(layer.norm, name)
    weight = layer.conv.weight * norm.sign[:, None, None, None]
    if not torch.isfinite(weight).all():
        raise ValueError(f"{name}: a weight is not finite; train the network again")
    lowest, highest = worst_case(weight, largest)

    limit = spec.levels if encoder else max_levels if spec.clip is None else spec.clip * 2**spec.k
    open_ended = not encoder and spec.clip is None
    # One level more than the table holds tells whether an open-ended layer could ask for it.
    levels = limit + open_ended
    n, scale = (1, LARGEST_PIXEL) if encoder else (2**spec.k, 1)
    if form.startswith("published") and not encoder:
        rounded = form == "published"
        reach = (lowest, highest) if integer and rounded else None
        tables = published_thresholds(norm, n, levels, rounded, reach)
    elif form in REAL_FORMS or not integer and encoder:
        tables = [real_thresholds(norm, n, levels, scale)]
    else:
        tables = [exact_thresholds(norm, n, levels, lowest, highest, scale)]
    used = int((tables[0] <= highest[:, None]).sum(1).max())
    length = limit if encoder else max(1, min(limit, used))
    table, *compared = (table[:, :length].contiguous() for table in tables)
    weight, saturates = weight.to(torch.int8) if integer else weight.detach(), used > length and open_ended
    return SpikingLayer(layer.spec, weight, table, lowest, highest, saturates, *compared)
