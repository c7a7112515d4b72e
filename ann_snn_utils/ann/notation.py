"""Network notation: `32C5-P2-64C5-P2-1000` becomes the layers of a network, and a spec says what is built of it.

    32C5       a convolution with 32 output channels and 5×5 kernels
    32C3s2     with stride 2; `d2` dilation, `g4` groups, in any order behind the kernel
    D3         a depthwise 3×3 convolution, one kernel for each channel; `s2` and `d2` as above
    P2         a trainable 2×2 convolution with stride 2 and as many channels as its input
    M2, M3s2   max pooling over 2×2 windows, or over 3×3 ones with stride 2
    A2, A      averages over 2×2 windows, or over all that is left, for what comes behind it
    1000       a fully connected layer over all that is left of the map
    [a-b]      a residual block: its input is added to what its last layer sums up, through a 1×1 convolution with
               batch norm where shapes differ; 3[a-b] is three of them

Every layer is a convolution without bias, batch norm and (quantized) ReLU, which in a block follows the addition; a
linear classifier comes last. Whatever a network cannot be is refused here, before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from math import prod
from typing import Any, NamedTuple

import msgspec

from ..checks import RULES, check
from ..data.dataset import SOURCE_OPTIONS
from .graph import Branch, Graph, LayerSpec, Node, ReadOut, Shape, input_shape
from .placement import MOST_COUNTS, MOST_WEIGHTS, check_divides, check_graph, checked_shape, placed, read_graph

NETWORKS = {
    "lenet": ("32C5-P2-64C5-P2-1000", "valid"),
    "vgg": ("96C3-256C3-P2-384C3-P2-384C3-256C3-P2-1024-1024", "same"),
    "resnet20": ("16C3-3[16C3-16C3]-[32C3s2-32C3]-2[32C3-32C3]-[64C3s2-64C3]-2[64C3-64C3]-A", "same"),
    "resnet18": (
        "64C3-2[64C3-64C3]-[128C3s2-128C3]-[128C3-128C3]-[256C3s2-256C3]-[256C3-256C3]-[512C3s2-512C3]-[512C3-512C3]-A",
        "same",
    ),
}

LARGEST_PIXEL = 255
# torch's own.
BATCH_NORM_EPS = 1e-5

# Limits that no study on one machine comes near.
MOST_CHARACTERS, MOST_LAYERS = 1000, 200
# The thresholds of a layer stay below a GiB.
MOST_THRESHOLDS = 2**27

_NUMBER = r"[1-9]\d{,8}"
_CONVOLUTION = re.compile(rf"({_NUMBER})C({_NUMBER})((?:[sdg]{_NUMBER})*)", re.ASCII)
_DEPTHWISE = re.compile(rf"(D)({_NUMBER})((?:[sd]{_NUMBER})*)", re.ASCII)
_POOLING = re.compile(r"M([2-9])(?:s([1-9]))?", re.ASCII)


def parse(network: str, in_shape: Shape, padding: str = "valid") -> list[LayerSpec]:
    """The layers of a network in notation, for images of shape (C, H, W).

    padding: of convolutions and max pooling, "valid" or "same". Raises ValueError that shows the wrong token in its
    place and says why it is wrong.

    >>> for layer in parse("32C5-P2-1000", (1, 28, 28)):
    ...     print(layer.token, layer.in_shape, layer.out_shape)
    32C5 (1, 28, 28) (32, 24, 24)
    P2 (32, 24, 24) (32, 12, 12)
    1000 (32, 12, 12) (1000, 1, 1)
    >>> block = parse("4C3-[4C3-4C3]", (1, 8, 8), "same")[-1]
    >>> [(branch.sources, branch.identity) for branch in block.branches]
    [((1,), False), ((0,), True)]
    """
    return list(graph_of(network, in_shape, padding).layers)


def graph_of(network: str, in_shape: Shape, padding: str = "valid") -> Graph:
    """The graph of a network in notation, or in the JSON that `graph_text` writes; ValueError as `parse` raises."""
    check("padding", padding)
    if not isinstance(network, str):
        raise ValueError(f"network={network!r:.40}: give text such as '32C5-P2-1000'")
    return _graph_of(network, checked_shape(in_shape), padding)


@lru_cache(maxsize=64)
def _graph_of(network: str, in_shape: Shape, padding: str) -> Graph:
    if network.startswith("{"):
        return read_graph(network, in_shape)
    if len(network) > MOST_CHARACTERS:
        raise ValueError(
            f"network={network!r:.40}: give text such as '32C5-P2-1000', of at most {MOST_CHARACTERS} characters"
        )
    layers: list[LayerSpec] = []
    average, entry, shape = 1, Branch((-1,)), in_shape
    for token in _tokens(network):
        try:
            _, height, width = shape
            if token.begins:
                entry = Branch((len(layers) - 1,), average=average)
            if token.ends and token.text[:1] in ("A", "M"):
                raise ValueError("a residual block ends with a convolution or neurons, to which its input is added")
            if match := re.fullmatch(r"A([2-9]?)", token.text):
                average *= int(match[1] or _side(height // average, width // average))
                check_divides(shape, average, token.text)
            else:
                branch = Branch((len(layers) - 1,), average=average)
                node = _node(token.text, branch, (shape[0], height // average, width // average), padding)
                node = replace(node, eps=BATCH_NORM_EPS)
                layer = placed(node, layers, in_shape)
                if token.ends:
                    node = replace(node, branches=(*node.branches, _shortcut(entry, layer, layers)))
                    layer = placed(node, layers, in_shape)
                layers.append(layer)
                average, shape = 1, layer.out_shape
        except ValueError as reason:
            raise _error(reason, network, token) from None
    if not layers:
        raise ValueError(f"network={network!r:.40}: it has no layer; give text such as '32C5-P2-1000'")
    return check_graph(Graph(tuple(layers), ReadOut(average)))


class _Token(NamedTuple):
    """A token, the place where it stands, and whether a residual block begins or ends with it."""

    text: str
    place: int
    begins: bool = False
    ends: bool = False


def _error(reason: object, network: str, token: _Token) -> ValueError:
    marker = " " * token.place + "^" * max(1, len(token.text))
    return ValueError(f"network: {reason}\n    {network}\n    {marker}")


def _tokens(network: str) -> list[_Token]:
    """The tokens of a network, blocks repeated as often as it says."""
    found: list[_Token] = []
    block: list[_Token] | None = None
    times, place = 1, 0
    for written in network.split("-"):
        match = re.fullmatch(r"(?:([1-9]\d?)?(\[))?([^][]*)(\])?", written)
        number, begins, text, ends = match.groups() if match else ("", "", written, "")
        token = _Token(text, place + (match.start(3) if match else 0), bool(begins), bool(ends))
        place += len(written) + 1
        if match is None or (begins and block is not None) or (ends and block is None and not begins):
            reason = f"{written!r:.40} is no part of a block; write 3[16C3-16C3], and no block in another"
            raise _error(reason, network, token)
        if begins:
            block, times = [], int(number or 1)
        (found if block is None else block).append(token)
        if block is not None and ends:
            found += block * times
            block = None
        if len(found) > MOST_LAYERS:
            raise ValueError(f"network: it has {len(found)} layers and more; use at most {MOST_LAYERS}")
    if block is not None:
        raise _error("the block that begins here has no end: write ]", network, block[0])
    return found


def _side(height: int, width: int) -> int:
    if height != width:
        raise ValueError(f"the {height}×{width} map is not square: write A2 to A9, or use square images")
    return height


def _node(token: str, branch: Branch, shape: Shape, padding: str) -> Node:
    """The layer that a token says; branch: what it reads, of shape (C, H, W)."""
    channels, *_ = shape
    if match := _CONVOLUTION.fullmatch(token) or _DEPTHWISE.fullmatch(token):
        kernel, options = int(match[2]), _options(match[3])
        if padding == "same" and kernel % 2 == 0:
            raise ValueError(f"kernel {kernel}×{kernel} is even, and 'same' padding needs an odd one")
        outputs, groups = (channels, channels) if match[1] == "D" else (int(match[1]), options.get("g", 1))
        stride, dilation = options.get("s", 1), options.get("d", 1)
        pad = kernel // 2 * dilation if padding == "same" else 0
        branch = replace(
            branch, kernel=(kernel, kernel), stride=stride, padding=pad, dilation=dilation, groups=groups
        )
        return Node(token, (branch,), outputs)
    if match := _POOLING.fullmatch(token):
        kernel, stride = int(match[1]), int(match[2] or match[1])
        overlap = stride < kernel
        if padding == "same" and overlap and kernel % 2 == 0:
            raise ValueError(f"windows of {kernel}×{kernel} that overlap are even, and 'same' needs odd ones")
        pad = kernel // 2 if padding == "same" and overlap else 0
        if stride == kernel:
            check_divides(shape, kernel, token)
        return Node(token, (replace(branch, kernel=(kernel, kernel), stride=stride, padding=pad),), kind="maximum")
    if match := re.fullmatch(r"P([2-9])", token):
        step = int(match[1])
        check_divides(shape, step, token)
        return Node(token, (replace(branch, kernel=(step, step), stride=step),), channels)
    if re.fullmatch(_NUMBER, token, re.ASCII):
        return Node(token, (branch,), int(token))
    raise ValueError(
        f"unknown token {token!r:.40}; write 32C5 (convolution), P2 (stride 2), 1000 (neurons), M2 (maxima), A2 "
        "(averages), D3 (depthwise) or [16C3-16C3] (residual block)"
    )


def _options(text: str) -> dict[str, int]:
    found = re.findall(r"([sdg])(\d+)", text)
    if len(dict(found)) < len(found):
        raise ValueError(f"{text!r:.40} says one thing twice")
    return {name: int(number) for name, number in found}


def _shortcut(entry: Branch, last: LayerSpec, layers: list[LayerSpec]) -> Branch:
    """The way around a residual block: the identity, or a 1×1 convolution with the stride that its shape needs."""
    if entry.sources == (-1,):
        raise ValueError("a residual block cannot come first: let a convolution encode the image")
    shape = input_shape(entry, [layers[entry.sources[0]].out_shape])
    if shape == last.out_shape:
        return replace(entry, identity=True)
    return replace(entry, kernel=(1, 1), stride=max(1, round(shape[1] / last.out_shape[1])))


def title_of(network: str) -> str:
    """What to call a network: its notation, or how many layers a graph has.

    >>> title_of('{"layers":[{}, {}], "read_out":{}}')
    'graph of 2 layers'
    """
    if not network.startswith("{"):
        return network
    layers = len(msgspec.json.decode(network)["layers"])
    return f"graph of {layers} layer{'s' if layers > 1 else ''}"


@dataclass(frozen=True)
class NetworkSpec:
    """All that `build_ann` was called with; `network`: notation, or text of `graph_text`; `padding` is resolved."""

    network: str
    in_shape: Shape
    classes: int
    k: int = 0
    ternary: bool = True
    quantized: bool = True
    levels: int = 4
    clip: int | None = None
    padding: str = "valid"
    int8_ends: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The arguments as plain values, fit for JSON and for `build_ann(**…)`."""
        return asdict(self) | {"in_shape": list(self.in_shape)}

    @cached_property
    def graph(self) -> Graph:
        """The layers and the read-out."""
        return graph_of(self.network, self.in_shape, self.padding)

    @property
    def layers(self) -> list[LayerSpec]:
        """Geometry of every layer, encoder first."""
        return list(self.graph.layers)

    @property
    def is_graph(self) -> bool:
        """Whether the network is a graph in JSON, whose weights are integers in units that it keeps."""
        return self.network.startswith("{")

    @property
    def title(self) -> str:
        """What to call the network, as `title_of` says."""
        return title_of(self.network)

    def origin(self, index: int) -> int:
        """The layer whose counts a layer has: itself, or the one of which it takes maxima; −1 is the image."""
        layers = self.graph.layers
        if not -1 <= index < len(layers):
            raise IndexError(f"layer {index}: give 0 to {len(layers) - 1}, or -1 for the image")
        while index >= 0 and layers[index].kind == "maximum":
            index = layers[index].sources[0]
        return index

    def step(self, index: int) -> float:
        """What one count of a layer is worth: its value is count · step. Counts of the image are pixels."""
        index = self.origin(index)
        if index < 0:
            return 1 / LARGEST_PIXEL
        own = self.graph.layers[index].step
        return own if own is not None else 2.0**-self.k if index else 1.0

    def counts(self, index: int) -> tuple[int, int | None]:
        """The least and the greatest count of a layer, None where there is no limit."""
        index = self.origin(index)
        if index < 0:
            return 0, LARGEST_PIXEL
        layer = self.graph.layers[index]
        if index == 0:
            return 0, self.levels
        if self.is_graph or self.clip is None:
            return layer.lowest, layer.highest
        return 0, self.clip * 2**self.k

    def has_whole_weights(self, index: int) -> bool:
        """Whether the weights of a layer are integers, so that its membranes are integers too."""
        return self.int8_ends or (self.ternary and index > 0)

    def amplitude(self, index: int) -> int:
        """What a spike of a layer counts for the next ones: 2^k from the encoder and maxima of it, else 1."""
        return 1 if self.origin(index) else 2**self.k


def checked_spec(spec: NetworkSpec) -> NetworkSpec:
    """The spec with every value in its plain type; ValueError that names the one that no network can have."""
    plain: dict[str, Any] = {"in_shape": checked_shape(spec.in_shape)}
    for name, value in vars(spec).items():
        if name in RULES and not (name == "clip" and value is None):
            plain[name] = check(name, value)
    spec = replace(spec, **plain)
    weights = prod(spec.graph.inputs) * spec.classes
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"classes={spec.classes}: a classifier of {weights:,} weights; give at most {MOST_WEIGHTS:,}"
        )
    if spec.is_graph and not (spec.quantized and spec.int8_ends):
        raise ValueError(
            f"quantized={spec.quantized}, int8_ends={spec.int8_ends}: a graph in JSON holds whole weights: leave "
            "both True, or write the network in notation"
        )
    return spec


def check_counts(spec: NetworkSpec, max_levels: int = 0) -> None:
    """Refuse a network whose tables of thresholds would be too large; max_levels: their length without a clip."""
    most = max_levels if spec.clip is None else spec.clip * 2**spec.k
    widest = max(layer.out_shape[0] for layer in spec.layers)
    if most > MOST_COUNTS or most * widest > MOST_THRESHOLDS:
        raise ValueError(
            f"clip={spec.clip}, k={spec.k}: counts up to {most} in {widest} channels; at most {MOST_COUNTS} "
            f"(16 bits) and {MOST_THRESHOLDS:,} thresholds a layer are taken: use a smaller k, clip or max_levels"
        )


def spec_of(path: object, metadata: Mapping[str, object]) -> NetworkSpec:
    """The spec that a file's metadata hold; ValueError that names the file where it is none."""
    found = metadata.get("spec")
    if not isinstance(found, dict) or set(found) != {field.name for field in fields(NetworkSpec)}:
        raise ValueError(f"{path} holds no network: its metadata have no whole 'spec'; make it again")
    source, data = metadata.get("source", {"name": ""}), metadata.get("data")
    known = {"name", *SOURCE_OPTIONS}
    if not (isinstance(source, dict) and isinstance(source.get("name"), str) and set(source) <= known):
        raise ValueError(f"{path}: its metadata name no data set; make it again")
    if data is not None and not (isinstance(data, dict) and {"training", "test", "classes"} <= set(data)):
        raise ValueError(f"{path}: its metadata hold no digests of images in 'data'; make it again")
    try:
        return checked_spec(NetworkSpec(**found))
    except ValueError as error:
        raise ValueError(f"{path} holds no network: {error}") from None
