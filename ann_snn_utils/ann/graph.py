"""A network as a directed acyclic graph of layers: what each of them reads, and the shape that follows from it.

Layers are numbered in the order of their list, −1 is the image. A layer of neurons adds up one or two branches,
each a convolution and its batch norm, or the input as it is (the shortcut of a residual block). A branch reads one
layer, or several side by side (concatenation), or their averages over small windows. The other kind of layer takes
maxima over windows. Notation says most networks; whatever it cannot say is a list of `Node`s, kept as JSON by
`graph_text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from math import prod
from typing import Any

import msgspec

Shape = tuple[int, int, int]

# The eps of a batch norm that only multiplies and adds: 1 − 2^-24 is a float32, and as variance it makes σ = 1.
SMALLEST_EPS = 2.0**-24


@dataclass(frozen=True)
class Branch:
    """One way into a layer, a convolution as torch means it, without bias.

    sources     the layers that it reads, −1 for the image; several are concatenated, channel after channel
    kernel      (rows, columns); None is all that is left of the map
    average     averages over windows of this size come first, and kernel, stride and padding are on their map
    identity    no convolution and no batch norm: the input is added as it is
    """

    sources: tuple[int, ...]
    kernel: tuple[int, int] | None = None
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    average: int = 1
    identity: bool = False


@dataclass(frozen=True)
class Node:
    """A layer of a graph, as `graph_text` takes it: its count is in lowest … highest, its value count · step.

    name        what it is called in reports and errors
    branches    one, or two that are added
    channels    of its output; None for maxima, which have their input's
    kind        "neurons", or "maximum" over windows of its branch's kernel
    step        of its values; None takes 2^-k (1 for the encoder) as notation does
    lowest      0 is a ReLU, less none
    highest     None is no limit
    eps         of its batch norms
    """

    name: str
    branches: tuple[Branch, ...]
    channels: int | None = None
    kind: str = "neurons"
    step: float | None = None
    lowest: int = 0
    highest: int | None = None
    eps: float = SMALLEST_EPS


@dataclass(frozen=True)
class SynapseSpec:
    """A convolution straight from the map of a layer (source; −1: the image) to that of another, (C, H, W) each."""

    source: int
    in_shape: Shape
    out_shape: Shape
    kernel: tuple[int, int]
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1


@dataclass(frozen=True)
class LayerSpec:
    """One layer with its shapes (C, H, W).

    token: its name. out_shape: of its map. branches: what it reads, every number settled. sizes: for each branch
    the shapes of its sources. kind, step, lowest, highest, eps: as of `Node`.
    """

    token: str
    out_shape: Shape
    branches: tuple[Branch, ...]
    sizes: tuple[tuple[Shape, ...], ...]
    kind: str = "neurons"
    step: float | None = None
    lowest: int = 0
    highest: int | None = None
    eps: float = SMALLEST_EPS

    def __deepcopy__(self, memo: object) -> LayerSpec:
        # It never changes, and would be half of what copying a network takes.
        return self

    @property
    def in_shape(self) -> Shape:
        """Shape of what the first convolution takes: concatenated and averaged."""
        return input_shape(self.branches[0], self.sizes[0])

    @property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the first branch's kernel."""
        kernel = self.branches[0].kernel
        assert kernel is not None
        return kernel

    @property
    def stride(self) -> int:
        """Stride of the first branch."""
        return self.branches[0].stride

    @property
    def padding(self) -> int:
        """Padding of the first branch on each side."""
        return self.branches[0].padding

    @property
    def sources(self) -> tuple[int, ...]:
        """All layers that it reads, those of its first branch first."""
        return tuple(source for branch in self.branches for source in branch.sources)

    @cached_property
    def weights(self) -> int:
        """How many weights it has."""
        if self.kind == "maximum":
            return 0
        pairs = zip(self.branches, self.sizes, strict=True)
        fan_in = (
            input_shape(b, sizes)[0] // b.groups * prod(b.kernel or ()) for b, sizes in pairs if not b.identity
        )
        return self.out_shape[0] * sum(fan_in)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a dense implementation for one image, of padded positions at the border too."""
        return self.weights * prod(self.out_shape[1:])

    @property
    def synapses(self) -> tuple[tuple[SynapseSpec, ...], ...]:
        """For each branch, and each of its sources, the convolution straight from that source's map.

        An average is one convolution with what follows: its weights are repeated and its stride is longer.
        """
        return tuple(
            tuple(_synapse(branch, *pair, self.out_shape) for pair in zip(branch.sources, sizes, strict=True))
            for branch, sizes in zip(self.branches, self.sizes, strict=True)
        )


def _synapse(branch: Branch, source: int, in_shape: Shape, out_shape: Shape) -> SynapseSpec:
    assert branch.kernel is not None
    p, dilation, (rows, columns) = branch.average, branch.dilation, branch.kernel
    if p > 1:
        rows, columns = (((k - 1) * dilation + 1) * p for k in branch.kernel)
        dilation = 1
    geometry = branch.stride * p, branch.padding * p, dilation, branch.groups
    return SynapseSpec(source, in_shape, out_shape, (rows, columns), *geometry)


def input_shape(branch: Branch, sizes: Sequence[Shape]) -> Shape:
    """Shape of what a branch's convolution takes, of sources of these shapes."""
    _, height, width = sizes[0]
    return sum(size[0] for size in sizes), height // branch.average, width // branch.average


def windows(side: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """How many windows lie along a side of a map, as torch counts them; none where this is less than 1."""
    return (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


@dataclass(frozen=True)
class ReadOut:
    """The linear classifier of the last layer: of averages over windows of a size, with or without a bias."""

    average: int = 1
    bias: bool = False


@dataclass(frozen=True)
class Graph:
    """The layers of a network, encoder first, and its read-out."""

    layers: tuple[LayerSpec, ...]
    read_out: ReadOut = ReadOut()

    @cached_property
    def last_read(self) -> dict[int, tuple[int, ...]]:
        """For each layer those that it is the last to read: behind it their maps can be freed."""
        last = {source: index for index, layer in enumerate(self.layers) for source in layer.sources}
        return {i: tuple(source for source, reader in last.items() if reader == i) for i in range(len(self.layers))}

    @cached_property
    def chain(self) -> bool:
        """Whether each layer is one convolution over the whole of the layer before it, and nothing else."""
        plain = (
            layer.kind == "neurons"
            and layer.lowest == 0
            and layer.branches == (replace(layer.branches[0], sources=(i - 1,), dilation=1, groups=1, average=1),)
            for i, layer in enumerate(self.layers)
        )
        return all(plain) and not self.read_out.bias

    @cached_property
    def inputs(self) -> Shape:
        """Shape of what the classifier takes."""
        channels, height, width = self.layers[-1].out_shape
        return channels, height // self.read_out.average, width // self.read_out.average


@dataclass(frozen=True)
class GraphText:
    """What the text of a graph says."""

    layers: tuple[Node, ...]
    read_out: ReadOut = ReadOut()


def graph_text(nodes: Sequence[Node], average: int = 1, bias: bool = False) -> str:
    """The JSON text that `build_ann` takes for a network of these nodes, encoder first.

    average, bias: of the read-out. What a field leaves at its default is left out of the text.

    >>> graph_text([Node("a", (Branch((-1,), (3, 3)),), channels=2)])
    '{"layers":[{"name":"a","branches":[{"sources":[-1],"kernel":[3,3]}],"channels":2}],"read_out":{}}'
    """
    graph = GraphText(tuple(nodes), ReadOut(average, bias))
    return msgspec.json.encode(asdict(graph, dict_factory=_without_defaults)).decode()


# No two of them have a field of one name and two defaults.
_DEFAULTS = {one.name: one.default for kind in (Branch, Node, ReadOut) for one in fields(kind)}


def _without_defaults(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if name not in _DEFAULTS or value != _DEFAULTS[name]}
