"""A network as a directed acyclic graph of layers: what each of them reads, and the shape that follows from it.

Layers are numbered in the order of their list, −1 is the image. A layer of neurons adds up one or two branches,
each a convolution and its batch norm, or the input as it is (the shortcut of a residual block). A branch reads one
layer, or several side by side (concatenation), or their averages over small windows. The other kind of layer takes
maxima over windows. Notation says most networks; whatever it cannot say is a list of `Node`s, kept as JSON by
`graph_text`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import isfinite, prod
from typing import Any

import msgspec

Shape = tuple[int, int, int]

# Limits that no study on one machine comes near; beyond them a mistyped number would take all memory.
MOST_NEURONS, MOST_WEIGHTS = 2**26, 2**28
MOST_NODES, MOST_TEXT = 1000, 2**20
# Of batch norms in a given graph: 1 − 2^-24, a float32, plus this is 1, so that scale and bias stand as they are.
SMALLEST_EPS = 2.0**-24
# A neuron counts in 16 bits.
MOST_COUNTS = 2**15 - 1

KINDS = ("neurons", "maximum")


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
        return sum(prod(weight_shape(b, sizes, self.out_shape[0])) for b, sizes in pairs if not b.identity)

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


def weight_shape(branch: Branch, sizes: Sequence[Shape], outputs: int) -> tuple[int, int, int, int]:
    """Shape [O, I / groups, kh, kw] of a branch's weights."""
    assert branch.kernel is not None
    return outputs, input_shape(branch, sizes)[0] // branch.groups, *branch.kernel


@dataclass(frozen=True)
class ReadOut:
    """The linear classifier of the last layer: of averages over windows of a size, with or without a bias."""

    average: int = 1
    bias: bool = False


@dataclass(frozen=True)
class Graph:
    """The layers of a network, encoder first, and its read-out."""

    layers: tuple[LayerSpec, ...]
    read_out: ReadOut = field(default_factory=ReadOut)

    @cached_property
    def _last_read(self) -> dict[int, tuple[int, ...]]:
        last = {source: index for index, layer in enumerate(self.layers) for source in layer.sources}
        return {i: tuple(source for source, reader in last.items() if reader == i) for i in range(len(self.layers))}

    def read_last_by(self, index: int) -> tuple[int, ...]:
        """The layers that no layer behind this one reads: what is known of them can be forgotten."""
        return self._last_read[index]

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


def checked_shape(in_shape: Shape) -> Shape:
    """(C, H, W) as three ints; ValueError for anything else, or an image of more than 2^26 values."""
    try:
        channels, height, width = map(operator.index, in_shape)
    except (TypeError, ValueError):
        channels = height = width = 0
    if min(channels, height, width) < 1:
        raise ValueError(f"in_shape={in_shape!r:.80}: give (channels, height, width), each at least 1")
    if channels * height * width > MOST_NEURONS:
        raise ValueError(f"in_shape={in_shape!r:.80}: an image of at most {MOST_NEURONS:,} values is taken")
    return channels, height, width


def placed(node: Node, before: Sequence[LayerSpec], in_shape: Shape) -> LayerSpec:
    """The layer that a node makes behind the layers `before` it, for images of shape (C, H, W).

    Raises ValueError that says what does not fit, without the layer's name.
    """
    if node.kind not in KINDS:
        raise ValueError(f"kind={node.kind!r:.40}: choose one of {', '.join(KINDS)}")
    if not 1 <= len(node.branches) <= 2:
        raise ValueError(
            f"{len(node.branches)} branches: a layer adds one or two; add the others in layers of their own"
        )
    _check_counts(node, encoder=not before)
    branches, sizes, shapes = [], [], set()
    for branch in node.branches:
        sources = [_source(source, before, in_shape) for source in branch.sources]
        branch, out = _settled(branch, sources, node)
        branches.append(branch)
        sizes.append(tuple(sources))
        shapes.add(out)
    if len(shapes) > 1:
        raise ValueError(f"its branches of shapes {' and '.join(map(str, sorted(shapes)))} cannot be added")
    if branches[0].identity:
        raise ValueError("its first branch is the identity: put the convolution first, or a depthwise one of ones")
    if node.kind == "maximum" and (len(branches) > 1 or len(branches[0].sources) > 1 or branches[0].average > 1):
        raise ValueError("a maximum is taken over windows of one layer: concatenate, add or average behind it")
    step, lowest, highest = node.step, node.lowest, node.highest
    if node.kind == "maximum":
        source = before[branches[0].sources[0]] if branches[0].sources[0] >= 0 else None
        if source is None:
            raise ValueError("the image goes into a convolution first, which encodes it")
        step, lowest, highest = source.step, source.lowest, source.highest
    layer = LayerSpec(
        node.name, shapes.pop(), tuple(branches), tuple(sizes), node.kind, step, lowest, highest, node.eps
    )
    _check_size(layer, before)
    return layer


def _check_counts(node: Node, encoder: bool) -> None:
    if node.step is not None and not (isfinite(node.step) and node.step > 0):
        raise ValueError(f"step={node.step!r}: give a number above 0")
    if not (isfinite(node.eps) and node.eps > 0):
        raise ValueError(f"eps={node.eps!r}: give a number above 0")
    highest = MOST_COUNTS if node.highest is None else node.highest
    if not (-MOST_COUNTS <= node.lowest <= 0 < highest <= MOST_COUNTS):
        raise ValueError(
            f"counts from {node.lowest} to {node.highest}: give lowest from {-MOST_COUNTS} to 0 and highest from 1 "
            f"to {MOST_COUNTS}"
        )
    if encoder and (node.lowest < 0 or node.highest is not None or node.kind != "neurons"):
        raise ValueError("the first layer encodes the image: neurons that count from 0 to the network's `levels`")
    if encoder and (len(node.branches) > 1 or node.branches[0].sources != (-1,) or node.branches[0].average != 1):
        raise ValueError(
            "the first layer reads the image (−1) as it is, and nothing else: resize images beforehand"
        )


def _source(source: int, before: Sequence[LayerSpec], in_shape: Shape) -> Shape:
    if not -1 <= source < len(before):
        raise ValueError(
            f"it reads layer {source}, which is not before it: order them so that none reads itself or a later one"
        )
    if source == -1:
        if before:
            raise ValueError("it reads the image (−1), which only the first layer encodes: let it read that layer")
        return in_shape
    return before[source].out_shape


def _settled(branch: Branch, sizes: Sequence[Shape], node: Node) -> tuple[Branch, Shape]:
    """The branch with its kernel, and its groups where it is the identity, and the shape of what it gives."""
    numbers = (branch.stride, branch.dilation, branch.groups, branch.average, branch.padding + 1)
    if not branch.sources or min(numbers) < 1 or min(branch.kernel or (1,)) < 1:
        raise ValueError(f"{_told(branch)}: give a source, and whole numbers of at least 1 (padding: 0)")
    if len({size[1:] for size in sizes}) > 1:
        raise ValueError(f"maps of shapes {', '.join(map(str, sizes))} cannot be concatenated")
    if (branch.groups > 1 or branch.identity) and len(sizes) > 1:
        raise ValueError(
            "groups, or the identity, of a concatenation: let a layer of its own take each source, and concatenate "
            "behind it"
        )
    p = branch.average
    if sizes[0][1] % p or sizes[0][2] % p:
        raise ValueError(f"the {sizes[0][1]}×{sizes[0][2]} map before it does not divide by {p}")
    channels, height, width = input_shape(branch, sizes)
    if branch.identity or node.kind == "maximum":
        branch = replace(branch, groups=channels)
    if branch.identity:
        branch = replace(branch, kernel=(1, 1))
    branch = replace(branch, kernel=branch.kernel or (height, width))
    outputs = channels if branch.identity or node.kind == "maximum" else node.channels
    if outputs is None or outputs < 1:
        raise ValueError(f"channels={node.channels}: give at least 1")
    if channels % branch.groups or outputs % branch.groups:
        raise ValueError(
            f"{channels} input and {outputs} output channels do not divide into {branch.groups} groups"
        )
    assert branch.kernel is not None
    map_size = []
    for size, kernel in zip((height, width), branch.kernel, strict=True):
        reach = (kernel - 1) * branch.dilation + 1
        if size + 2 * branch.padding < reach:
            rows, columns = branch.kernel
            raise ValueError(f"kernel {rows}×{columns} is larger than the {height}×{width} map before it")
        map_size.append((size + 2 * branch.padding - reach) // branch.stride + 1)
    if node.kind == "maximum" and 2 * branch.padding > min(branch.kernel):
        raise ValueError(f"padding={branch.padding} of a maximum: give at most half of its window")
    return branch, (outputs, map_size[0], map_size[1])


def _told(branch: Branch) -> str:
    return ", ".join(f"{name}={value!r:.40}" for name, value in vars(branch).items())


def _check_size(layer: LayerSpec, before: Sequence[LayerSpec]) -> None:
    weights = layer.weights + sum(one.weights for one in before)
    if prod(layer.out_shape) > MOST_NEURONS or weights > MOST_WEIGHTS:
        raise ValueError(
            f"with {layer.token} the network has {weights:,} weights and {prod(layer.out_shape):,} neurons "
            f"in a layer; at most {MOST_WEIGHTS:,} and {MOST_NEURONS:,}: use fewer, or smaller images"
        )


def check_graph(graph: Graph) -> Graph:
    """The graph; ValueError for a layer that nothing reads, or a map that the read-out cannot average."""
    read = {source for layer in graph.layers for source in layer.sources}
    for number, layer in enumerate(graph.layers[:-1]):
        if number not in read:
            raise ValueError(
                f"network: nothing reads layer {number} ({layer.token}): leave it out, or let one read it"
            )
    p, (_, height, width) = graph.read_out.average, graph.layers[-1].out_shape
    if p < 1 or height % p or width % p:
        raise ValueError(f"network: the {height}×{width} map before the read-out does not divide by {p}")
    return graph


@dataclass(frozen=True)
class _Text:
    layers: tuple[Node, ...]
    read_out: ReadOut = field(default_factory=ReadOut)


def graph_text(nodes: Sequence[Node], average: int = 1, bias: bool = False) -> str:
    """The JSON text that `build_ann` takes for a network of these nodes, encoder first.

    average, bias: of the read-out. What a field leaves at its default is left out of the text.

    >>> graph_text([Node("a", (Branch((-1,), (3, 3)),), channels=2)])
    '{"layers":[{"name":"a","branches":[{"sources":[-1],"kernel":[3,3]}],"channels":2}],"read_out":{}}'
    """
    text = {"layers": [_told_apart(node) for node in nodes], "read_out": _told_apart(ReadOut(average, bias))}
    return msgspec.json.encode(text).decode()


def _told_apart(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their default."""
    told = {}
    for one in fields(value):
        found = getattr(value, one.name)
        if found != one.default:
            told[one.name] = [_told_apart(branch) for branch in found] if one.name == "branches" else found
    return told


def read_graph(text: str, in_shape: Shape) -> Graph:
    """The graph that a text of `graph_text` says, for images of shape (C, H, W).

    Raises ValueError that names the layer and what is wrong with it.
    """
    try:
        if len(text) > MOST_TEXT:
            raise ValueError(f"its text has {len(text)} characters; at most {MOST_TEXT:,}")
        told = msgspec.json.decode(text, type=_Text)
        if not 1 <= len(told.layers) <= MOST_NODES:
            raise ValueError(f"it has {len(told.layers)} layers; give 1 to {MOST_NODES}")
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"network: {error}: make its text with graph_text") from None
    layers: list[LayerSpec] = []
    for number, node in enumerate(told.layers):
        try:
            layers.append(placed(node, layers, in_shape))
        except ValueError as reason:
            raise ValueError(f"network: layer {number} ({node.name:.40}): {reason}") from None
    return check_graph(Graph(tuple(layers), told.read_out))
