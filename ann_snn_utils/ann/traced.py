"""What a traced torch model becomes: sums of terms, and the layers that activations make of them.

Convolutions and linear layers with what is affine behind them (batch norm, bias, residual addition) are gathered
until an activation closes a layer of neurons. A maximum that is taken before the activation waits with it, as
rounding and clamping keep the order. A sum that no activation follows becomes a layer of signed counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from .graph import Branch, Shape, windows

IMAGE = -1

# In evaluation mode they do the same.
Norm = nn.BatchNorm2d | nn.BatchNorm1d | nn.SyncBatchNorm


class Window(NamedTuple):
    """What a pooling looks at: windows with as many columns as rows, and where they lie on a map."""

    size: int
    stride: int
    padding: int
    dilation: int


@dataclass(frozen=True, eq=False)
class Term:
    """A branch in real numbers: scale ⊙ (weight * maps). The source of the first layer is IMAGE, pixels / 255.

    weight: [O, I / groups, kh, kw], whose sides are the kernel, or None where the maps are passed on. scale: [O].
    stride … average: as of `Branch`. norm: the batch norm from which scale and shift come, where nothing else does.
    """

    sources: tuple[int, ...]
    scale: Tensor
    weight: Tensor | None = None
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    average: int = 1
    norm: Norm | None = None

    @property
    def branch(self) -> Branch:
        """The way that it takes, without its numbers."""
        return Branch(self.sources, None, self.stride, self.padding, self.dilation, self.groups, self.average)


@dataclass(frozen=True, eq=False)
class Value:
    """What an operation of the model makes: a sum of terms plus `shift` [C], of `shape` (C, H, W).

    name: the operation. pools: max poolings that come behind the activation for which the sum waits. resized: the
    map that an adaptive pooling makes of it where no window does, and a linear layer must follow.
    """

    name: str
    terms: tuple[Term, ...]
    shift: Tensor
    shape: Shape
    pools: tuple[Window, ...] = ()
    resized: tuple[int, int] | None = None

    @property
    def maps(self) -> Term | None:
        """The only term, where that is no more than maps as they are, each times a number; None for other sums.

        Of the image, whatever is added too.
        """
        first, *others = self.terms
        summed = others or first.weight is not None or self.pools
        return None if summed or (self.shift.any() and first.sources != (IMAGE,)) else first

    def read(self, **changes: Any) -> Value:
        """The maps, read with these changes of their term."""
        (term,) = self.terms
        return replace(self, terms=(replace(term, **changes),))


def maps_of(name: str, sources: tuple[int, ...], shape: Shape) -> Value:
    """The maps of layers, one behind another in channels, or the image."""
    scale = torch.ones(shape[0], dtype=torch.float64)
    return Value(name, (Term(sources, scale),), torch.zeros_like(scale), shape)


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """Neurons: the sum of a `Value`, clamped to `low` … `high`; or the maximum over windows of a source.

    step: of the activations, where the model rounds them itself. pool: the windows of max pooling.
    """

    name: str
    terms: tuple[Term, ...]
    shift: Tensor
    shape: Shape
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


class LayerBuilder:
    """The layers of a traced model, in their order; ValueError for what layers of whole numbers cannot be."""

    def __init__(self) -> None:
        self.layers: list[TracedLayer] = []

    def activation(self, value: Value, low: float, high: float, step: float | None = None) -> Value:
        """Counts in low … high; `step` where the model rounds them itself."""
        if step is None and self.within(value, low, high):
            return value
        return self.neurons(self.waiting(value, pooled=True), low, high, step)

    def neurons(self, total: Value, low: float, high: float, step: float | None = None) -> Value:
        """Close a layer: the maps of counts of a sum, as `activation` says."""
        if any(IMAGE in term.sources for term in total.terms):
            self.check_encoder(total, low)
        self.layers.append(TracedLayer(total.name, total.terms, total.shift, total.shape, low, high, step))
        maps = maps_of(total.name, (len(self.layers) - 1,), total.shape)
        for pool in total.pools:
            maps = self.maximum(maps, pool)
        return maps

    def check_encoder(self, total: Value, low: float) -> None:
        if self.layers:
            raise ValueError("a second layer reads the image: let one convolution encode it")
        if len(total.terms) > 1 or total.terms[0].weight is None:
            raise ValueError("the image itself is added, normalised or rounded: start with a Conv2d or Linear")
        if low < 0:
            raise ValueError(
                "the first layer has no activation, and it encodes the image in spikes: put a ReLU behind it"
            )

    def closed(self, value: Value, resized: bool = False, pooled: bool = False) -> Value:
        """Maps of layers; a sum that no activation follows becomes a layer of signed counts."""
        if value.maps is None:
            return self.neurons(value, -math.inf, math.inf)
        if pooled and value.maps.sources == (IMAGE,):
            raise ValueError("the image is pooled before any layer with weights: start with a Conv2d")
        if value.resized and not resized:
            raise ValueError(
                "the adaptive pooling before it has no square windows of one size: let a linear layer follow it, "
                "or an unpadded convolution over all of it, as Conv2d(…, 1) behind AdaptiveAvgPool2d(1)"
            )
        return value

    def waiting(self, value: Value, pooled: bool = False) -> Value:
        """A sum that an activation may close; a max pooling that waits with it is closed first, unless `pooled`."""
        return value if value.maps is None and (pooled or not value.pools) else self.closed(value)

    def rounded(self, maps: Value) -> Value:
        """The maps as a layer of neurons of their own."""
        return self.neurons(maps, *self.bounds(maps))

    def maximum(self, maps: Value, pool: Window) -> Value:
        """Maxima over the windows of maps, a layer for each of their sources."""
        (term,) = maps.terms
        if term.average > 1:
            maps = self.rounded(maps)
            (term,) = maps.terms
        rows, columns = (windows(side, *pool) for side in maps.shape[1:])
        first = len(self.layers)
        for source in term.sources:
            before = self.layers[source]
            made = maps_of(f"{before.name}_max", (source,), (before.shape[0], rows, columns))
            self.layers.append(replace(before, name=made.name, terms=made.terms, shape=made.shape, pool=pool))
        return replace(
            maps.read(sources=tuple(range(first, len(self.layers)))), shape=(maps.shape[0], rows, columns)
        )

    def gathered(self, sources: tuple[int, ...]) -> Term:
        """Maps of several layers, one behind another in channels, as those of a layer that passes them on."""
        read = [self.layers[source] for source in sources]
        steps = {layer.step for layer in read}
        if len(steps) > 1 and None not in steps:
            raise ValueError(f"counts in steps of {sorted(filter(None, steps))} are read out together: use one")
        _, height, width = read[0].shape
        maps = maps_of("read_out", sources, (sum(layer.shape[0] for layer in read), height, width))
        ends = min(layer.low for layer in read), max(layer.high for layer in read)
        return self.neurons(maps, *ends, steps.pop() if len(steps) == 1 else None).terms[0]

    def concatenated(self, parts: list[Value], dim: int) -> Value:
        maps = [self.closed(part) for part in parts]
        if len({part.terms[0].average for part in maps}) > 1:
            maps = [self.rounded(part) if part.terms[0].average > 1 else part for part in maps]
        if dim not in (1, -3) or len({part.shape[1:] for part in maps}) > 1:
            raise ValueError("only channels of maps of one size can be concatenated: use dim=1")
        sources = tuple(source for part in maps for source in part.terms[0].sources)
        if IMAGE in sources:
            raise ValueError("the image itself is concatenated: let one convolution read it")
        scale = torch.cat([part.terms[0].scale for part in maps])
        whole = maps[0].read(sources=sources, scale=scale)
        return replace(whole, shift=torch.zeros_like(scale), shape=(len(scale), *whole.shape[1:]))

    def within(self, value: Value, low: float, high: float) -> bool:
        """Whether a value is the maps of layers as they are, whose values are in low … high."""
        maps = value.maps
        if maps is None or maps.sources == (IMAGE,) or not bool((maps.scale == 1).all()) or value.resized:
            return False
        return all(self.layers[i].low >= low and self.layers[i].high <= high for i in maps.sources)

    def bounds(self, maps: Value) -> tuple[float, float]:
        """The least and the greatest value that maps of layers may have."""
        (term,) = maps.terms
        positive = all(self.layers[i].low >= 0 for i in term.sources) and bool((term.scale >= 0).all())
        return (0.0 if positive else -math.inf), math.inf

    def reads_out(self, total: Value) -> bool:
        """Whether a sum is that of one linear layer over all that a layer holds."""
        term = total.terms[0]
        if len(total.terms) > 1 or total.pools or term.weight is None or IMAGE in term.sources or term.padding:
            return False
        rows, columns = (side // term.average for side in self.layers[term.sources[0]].shape[1:])
        return term.weight.shape[2:] == (rows, columns) and term.groups == 1
