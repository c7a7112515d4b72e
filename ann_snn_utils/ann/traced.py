"""What a traced torch model becomes: sums of terms, and the layers that activations make of them.

Convolutions and linear layers with what is affine behind them (batch norm, bias, residual addition) are gathered
until an activation closes a layer of neurons. A maximum that is taken before the activation waits with it, as
rounding and clamping keep the order. A sum that no activation follows becomes a layer of signed counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn

from .graph import Shape, windows

IMAGE = -1


class Window(NamedTuple):
    """What a pooling looks at: windows with as many columns as rows, and where they lie on a map."""

    size: int
    stride: int
    padding: int
    dilation: int


@dataclass(frozen=True, eq=False)
class Term:
    """scale ⊙ (weight * maps), where the maps are those of the layers `sources`, one behind another in channels.

    weight: real [O, I / groups, kh, kw], or None where the maps are passed on. scale: [O]. The source of the first
    layer is IMAGE, the pixels divided by 255. average: the maps are averaged over windows of so many rows and
    columns first. norm: the batch norm from which scale and shift come, where nothing else does.
    """

    sources: tuple[int, ...]
    weight: Tensor | None
    scale: Tensor
    average: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    norm: nn.BatchNorm2d | nn.BatchNorm1d | None = None


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """Neurons: a sum of terms and `shift` [O], clamped to `low` … `high`; or the maximum over windows of a source.

    name: the operation of the model whose value the sum is. step: of the activations, where the model rounds them
    itself. pool: the windows of max pooling.
    """

    name: str
    out_shape: Shape
    terms: tuple[Term, ...]
    shift: Tensor
    low: float = 0.0
    high: float = math.inf
    step: float | None = None
    pool: Window | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """The layers in the order of computation, the classifier behind them with its bias, and the model as traced."""

    in_shape: Shape
    layers: tuple[TracedLayer, ...]
    classifier: Term
    bias: Tensor
    model: fx.GraphModule


@dataclass(frozen=True, eq=False)
class Maps:
    """Values of layers that are closed: scale ⊙ (their maps, one behind another in channels) + shift, [C] each.

    name: the operation that made them. resized: the map that an adaptive pooling makes of them where no window
    does, and a linear layer must follow.
    """

    name: str
    sources: tuple[int, ...]
    shape: Shape
    scale: Tensor
    shift: Tensor
    average: int = 1
    resized: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Sum:
    """Terms that wait for an activation; max poolings that wait with them come after it."""

    name: str
    terms: tuple[Term, ...]
    shift: Tensor
    shape: Shape
    pools: tuple[Window, ...] = ()


def plain_maps(name: str, sources: tuple[int, ...], shape: Shape) -> Maps:
    scale = torch.ones(shape[0], dtype=torch.float64)
    return Maps(name, sources, shape, scale, torch.zeros_like(scale))


def passed(maps: Maps) -> Sum:
    """The maps as a sum that an activation may close."""
    return Sum(maps.name, (Term(maps.sources, None, maps.scale, maps.average),), maps.shift, maps.shape)


class LayerBuilder:
    """The layers of a traced model, in their order; ValueError for what layers of whole numbers cannot be."""

    def __init__(self) -> None:
        self.layers: list[TracedLayer] = []

    def activation(self, value: Maps | Sum, low: float, high: float, step: float | None = None) -> Maps:
        """Close a layer: counts of a sum in low … high; `step` where the model rounds them itself."""
        if isinstance(value, Maps) and step is None and self.within(value, low, high):
            return value
        total = self.waiting(value, pooled=True)
        if any(IMAGE in term.sources for term in total.terms):
            self.check_encoder(total, low)
        self.layers.append(TracedLayer(total.name, total.shape, total.terms, total.shift, low, high, step))
        maps = plain_maps(total.name, (len(self.layers) - 1,), total.shape)
        for pool in total.pools:
            maps = self.maximum(maps, pool)
        return maps

    def check_encoder(self, total: Sum, low: float) -> None:
        if self.layers:
            raise ValueError("a second layer reads the image: let one convolution encode it")
        if len(total.terms) > 1 or total.terms[0].weight is None:
            raise ValueError("the image itself is added, normalised or rounded: start with a Conv2d or Linear")
        if low < 0:
            raise ValueError(
                "the first layer has no activation, and it encodes the image in spikes: put a ReLU behind it"
            )

    def closed(self, value: Maps | Sum, resized: bool = False, pooled: bool = False) -> Maps:
        """Maps of layers; a sum that no activation follows becomes a layer of signed counts."""
        if isinstance(value, Sum):
            return self.activation(value, -math.inf, math.inf)
        if pooled and value.sources == (IMAGE,):
            raise ValueError("the image is pooled before any layer with weights: start with a Conv2d")
        if value.resized and not resized:
            raise ValueError(
                "the adaptive pooling before it has no square windows of one size: let a linear layer follow it, "
                "or an unpadded convolution over all of it, as Conv2d(…, 1) behind AdaptiveAvgPool2d(1)"
            )
        if value.shift.any() and value.sources != (IMAGE,):
            return self.activation(passed(value), -math.inf, math.inf)
        return value

    def waiting(self, value: Maps | Sum, pooled: bool = False) -> Sum:
        """A sum of terms; a max pooling that waits with it is closed first, unless `pooled`."""
        if isinstance(value, Sum) and (pooled or not value.pools):
            return value
        return passed(self.closed(value))

    def rounded(self, maps: Maps) -> Maps:
        """The maps as a layer of neurons of their own."""
        return self.activation(passed(maps), *self.bounds(maps))

    def maximum(self, maps: Maps, pool: Window) -> Maps:
        """Maxima over the windows of maps, a layer for each of their sources."""
        if maps.average > 1:
            maps = self.rounded(maps)
        rows, columns = (windows(side, *pool) for side in maps.shape[1:])
        first = len(self.layers)
        for source in maps.sources:
            before = self.layers[source]
            channels, name = before.out_shape[0], f"{before.name}_max"
            term, shape = Term((source,), None, torch.ones(channels)), (channels, rows, columns)
            self.layers.append(replace(before, name=name, out_shape=shape, terms=(term,), pool=pool))
        made = tuple(range(first, len(self.layers)))
        return replace(maps, sources=made, shape=(maps.shape[0], rows, columns))

    def gathered(self, sources: tuple[int, ...]) -> Maps:
        """Maps of several layers, one behind another in channels, as a layer that passes on their counts."""
        read = [self.layers[source] for source in sources]
        steps = {layer.step for layer in read}
        if len(steps) > 1 and None not in steps:
            raise ValueError(f"counts in steps of {sorted(filter(None, steps))} are read out together: use one")
        _, height, width = read[0].out_shape
        maps = plain_maps("read_out", sources, (sum(layer.out_shape[0] for layer in read), height, width))
        ends = min(layer.low for layer in read), max(layer.high for layer in read)
        return self.activation(passed(maps), *ends, steps.pop() if len(steps) == 1 else None)

    def concatenated(self, parts: list[Maps | Sum], dim: int) -> Maps:
        maps = [self.closed(part) for part in parts]
        if len({part.average for part in maps}) > 1:
            maps = [self.rounded(part) if part.average > 1 else part for part in maps]
        if dim not in (1, -3) or len({part.shape[1:] for part in maps}) > 1:
            raise ValueError("only channels of maps of one size can be concatenated: use dim=1")
        if any(IMAGE in part.sources for part in maps):
            raise ValueError("the image itself is concatenated: let one convolution read it")
        scale, shift = torch.cat([part.scale for part in maps]), torch.cat([part.shift for part in maps])
        sources = tuple(source for part in maps for source in part.sources)
        return replace(maps[0], sources=sources, shape=(len(scale), *maps[0].shape[1:]), scale=scale, shift=shift)

    def within(self, maps: Maps, low: float, high: float) -> bool:
        """Whether maps are those of layers as they are, whose values are in low … high."""
        if maps.sources == (IMAGE,) or not bool((maps.scale == 1).all()) or maps.shift.any() or maps.resized:
            return False
        return all(self.layers[i].low >= low and self.layers[i].high <= high for i in maps.sources)

    def bounds(self, maps: Maps) -> tuple[float, float]:
        """The least and the greatest value that maps of layers may have."""
        positive = all(self.layers[i].low >= 0 for i in maps.sources) and bool((maps.scale >= 0).all())
        return (0.0 if positive else -math.inf), math.inf

    def reads_out(self, total: Sum) -> bool:
        """Whether a sum is that of one linear layer over all that a layer holds."""
        term = total.terms[0]
        if len(total.terms) > 1 or total.pools or term.weight is None or IMAGE in term.sources or term.padding:
            return False
        rows, columns = (side // term.average for side in self.layers[term.sources[0]].out_shape[1:])
        return term.weight.shape[2:] == (rows, columns) and term.groups == 1
