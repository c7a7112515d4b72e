"""Nodes become layers with shapes, one behind another, or are refused with what does not fit."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, prod

import msgspec

from .graph import Branch, Graph, GraphText, LayerSpec, Node, Shape, input_shape, windows

# Limits that no study on one machine comes near; beyond them a mistyped number would take all memory.
MOST_NEURONS, MOST_WEIGHTS = 2**26, 2**28
MOST_NODES, MOST_TEXT = 1000, 2**20
# A neuron counts in 16 bits.
MOST_COUNTS = 2**15 - 1

KINDS = ("neurons", "maximum")


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
        _check_branch(branch, sources)
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
    # A maximum of counts is one of them.
    of: Node | LayerSpec = before[branches[0].sources[0]] if node.kind == "maximum" else node
    counts = of.step, of.lowest, of.highest
    layer = LayerSpec(node.name, shapes.pop(), tuple(branches), tuple(sizes), node.kind, *counts, node.eps)
    _check_size(layer, before)
    return layer


def _check_counts(node: Node, encoder: bool) -> None:
    for name, value in (("step", node.step), ("eps", node.eps)):
        if value is not None and not (isfinite(value) and value > 0):
            raise ValueError(f"{name}={value!r}: give a number above 0")
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


def _check_branch(branch: Branch, sizes: Sequence[Shape]) -> None:
    """Refuse numbers that no convolution has, and sources of these shapes that it cannot take together."""
    numbers = (branch.stride, branch.dilation, branch.groups, branch.average, branch.padding + 1)
    if not branch.sources or min(numbers) < 1 or min(branch.kernel or (1,)) < 1:
        told = ", ".join(f"{name}={value!r:.40}" for name, value in vars(branch).items())
        raise ValueError(f"{told}: give a source, and whole numbers of at least 1 (padding: 0)")
    if len({size[1:] for size in sizes}) > 1:
        raise ValueError(f"maps of shapes {', '.join(map(str, sizes))} cannot be concatenated")
    if (branch.groups > 1 or branch.identity) and len(sizes) > 1:
        raise ValueError(
            "groups, or the identity, of a concatenation: let a layer of its own take each source, and concatenate "
            "behind it"
        )
    check_divides(sizes[0], branch.average, "it")


def check_divides(shape: Shape, size: int, reader: str) -> None:
    """Refuse a map (C, H, W) that windows of size × size, which `reader` takes of it, do not fill."""
    _, height, width = shape
    if height % size or width % size:
        raise ValueError(
            f"the {height}×{width} map before {reader} does not divide by {size}: give images of another size="
        )


def _settled(branch: Branch, sizes: Sequence[Shape], node: Node) -> tuple[Branch, Shape]:
    """The branch with its kernel and groups, and the shape of what it makes of sources of these shapes."""
    channels, height, width = input_shape(branch, sizes)
    kernel, outputs, groups = branch.kernel or (height, width), node.channels, branch.groups
    if branch.identity:
        kernel = (1, 1)
    if branch.identity or node.kind == "maximum":
        # Each channel is passed on by itself.
        outputs = groups = channels
    if outputs is None or outputs < 1:
        raise ValueError(f"channels={node.channels}: give at least 1")
    if channels % groups or outputs % groups:
        raise ValueError(f"{channels} input and {outputs} output channels do not divide into {groups} groups")
    around = branch.stride, branch.padding, branch.dilation
    rows, columns = (windows(*pair, *around) for pair in zip((height, width), kernel, strict=True))
    if min(rows, columns) < 1:
        raise ValueError(f"kernel {kernel[0]}×{kernel[1]} is larger than the {height}×{width} map before it")
    if node.kind == "maximum" and 2 * branch.padding > min(kernel):
        raise ValueError(f"padding={branch.padding} of a maximum: give at most half of its window")
    return replace(branch, kernel=kernel, groups=groups), (outputs, rows, columns)


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


def read_graph(text: str, in_shape: Shape) -> Graph:
    """The graph that a text of `graph_text` says, for images of shape (C, H, W).

    Raises ValueError that names the layer and what is wrong with it.
    """
    try:
        if len(text) > MOST_TEXT:
            raise ValueError(f"its text has {len(text)} characters; at most {MOST_TEXT:,}")
        told = msgspec.json.decode(text, type=GraphText)
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
