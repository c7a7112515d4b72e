"""Network notation: `32C5-P2-64C5-P2-1000` becomes the geometry of each layer, and a spec says what is built of it.

`32C5` is a convolution with 32 output channels and 5×5 kernels, `P2` a trainable 2×2 convolution with stride 2
and as many channels as its input, a bare number a fully connected layer over all that is left of the map.
Whatever a network cannot be is refused here, before anything is built.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import prod
from typing import Any

from ..checks import RULES, check
from ..data.dataset import SOURCE_OPTIONS

NETWORKS = {
    "lenet": ("32C5-P2-64C5-P2-1000", "valid"),
    "vgg": ("96C3-256C3-P2-384C3-P2-384C3-256C3-P2-1024-1024", "same"),
}

Shape = tuple[int, int, int]

# Limits that no study on one machine comes near; beyond them a mistyped number would take all memory.
MOST_CHARACTERS, MOST_LAYERS = 1000, 200
MOST_NEURONS, MOST_WEIGHTS = 2**26, 2**28
# A neuron counts in 16 bits, and the thresholds of a layer stay below a GiB.
MOST_COUNTS, MOST_THRESHOLDS = 2**15 - 1, 2**27


@dataclass(frozen=True)
class LayerSpec:
    """Geometry of one layer: its token, shapes (C, H, W) of its input and output, kernel, stride, padding."""

    token: str
    in_shape: Shape
    out_shape: Shape
    kernel: tuple[int, int]
    stride: int
    padding: int


def parse(network: str, in_shape: Shape, padding: str = "valid") -> list[LayerSpec]:
    """The geometry of each layer of a network in notation, for images of shape (C, H, W).

    Raises ValueError that shows the wrong token in its place and says why it is wrong.

    >>> for layer in parse("32C5-P2-1000", (1, 28, 28)):
    ...     print(layer.token, layer.in_shape, layer.out_shape)
    32C5 (1, 28, 28) (32, 24, 24)
    P2 (32, 24, 24) (32, 12, 12)
    1000 (32, 12, 12) (1000, 1, 1)
    """
    check("padding", padding)
    if not isinstance(network, str) or len(network) > MOST_CHARACTERS:
        raise ValueError(
            f"network={network!r:.40}: give text such as '32C5-P2-1000', of at most {MOST_CHARACTERS} characters"
        )
    tokens = network.split("-")
    if len(tokens) > MOST_LAYERS:
        raise ValueError(f"network: it has {len(tokens)} layers; use at most {MOST_LAYERS}")
    layers: list[LayerSpec] = []
    shape = checked_shape(in_shape)
    weights = 0
    for position, token in enumerate(tokens):
        try:
            layer = _layer(token, shape, padding)
            weights += prod((layer.out_shape[0], layer.in_shape[0], *layer.kernel))
            if prod(layer.out_shape) > MOST_NEURONS or weights > MOST_WEIGHTS:
                raise ValueError(
                    f"with {token} the network has {weights:,} weights and {prod(layer.out_shape):,} neurons "
                    f"in a layer; at most {MOST_WEIGHTS:,} and {MOST_NEURONS:,}: use fewer, or smaller images"
                )
        except ValueError as reason:
            start = sum(len(t) + 1 for t in tokens[:position])
            marker = " " * start + "^" * max(1, len(token))
            raise ValueError(f"network: {reason}\n    {network}\n    {marker}") from None
        layers.append(layer)
        shape = layer.out_shape
    return layers


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


def _layer(token: str, shape: Shape, padding: str) -> LayerSpec:
    channels, height, width = shape
    if match := re.fullmatch(r"([1-9]\d{,8})C([1-9]\d{,8})", token, re.ASCII):
        out, kernel = int(match[1]), int(match[2])
        pad = kernel // 2 if padding == "same" else 0
        if padding == "same" and kernel % 2 == 0:
            raise ValueError(f"kernel {kernel}×{kernel} is even, and 'same' padding needs an odd one")
        if min(height, width) + 2 * pad < kernel:
            raise ValueError(f"kernel {kernel}×{kernel} is larger than the {height}×{width} map before it")
        size = (out, height + 2 * pad - kernel + 1, width + 2 * pad - kernel + 1)
        return LayerSpec(token, shape, size, (kernel, kernel), 1, pad)
    if match := re.fullmatch(r"P([2-9])", token):
        step = int(match[1])
        if height % step or width % step:
            raise ValueError(f"the {height}×{width} map before {token} does not divide by {step}")
        return LayerSpec(token, shape, (channels, height // step, width // step), (step, step), step, 0)
    if re.fullmatch(r"[1-9]\d{,8}", token, re.ASCII):
        return LayerSpec(token, shape, (int(token), 1, 1), (height, width), 1, 0)
    raise ValueError(f"unknown token {token!r:.40}; write 32C5 (convolution), P2 (stride 2) or 1000 (neurons)")


@dataclass(frozen=True)
class NetworkSpec:
    """All that `build_ann` was called with; `network` is in notation, `padding` is resolved."""

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

    @property
    def layers(self) -> list[LayerSpec]:
        """Geometry of every layer, encoder first."""
        return parse(self.network, self.in_shape, self.padding)


def checked_spec(spec: NetworkSpec) -> NetworkSpec:
    """The spec with every value in its plain type; ValueError that names the one that no network can have."""
    plain: dict[str, Any] = {"in_shape": checked_shape(spec.in_shape)}
    for name, value in vars(spec).items():
        if name in RULES and not (name == "clip" and value is None):
            plain[name] = check(name, value)
    spec = replace(spec, **plain)
    layers = spec.layers
    weights = prod(layers[-1].out_shape) * spec.classes
    if weights > MOST_WEIGHTS:
        raise ValueError(
            f"classes={spec.classes}: a classifier of {weights:,} weights; give at most {MOST_WEIGHTS:,}"
        )
    return spec


def check_counts(spec: NetworkSpec, most: int) -> None:
    """Refuse tables of thresholds for counts up to `most` that would be too large for the layers of a network."""
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
    source = metadata.get("source", {"name": ""})
    if not isinstance(source, dict) or not {"name"} <= set(source) <= {"name", *SOURCE_OPTIONS}:
        raise ValueError(f"{path}: its metadata name no data set; make it again")
    try:
        return checked_spec(NetworkSpec(**found))
    except ValueError as error:
        raise ValueError(f"{path} holds no network: {error}") from None
