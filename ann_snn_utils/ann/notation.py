"""Network notation: `32C5-P2-64C5-P2-1000` becomes the geometry of each layer.

`32C5` is a convolution with 32 output channels and 5×5 kernels, `P2` a trainable 2×2 convolution with
stride 2 and as many channels as its input, a bare number a fully connected layer over all that is left of
the map.

What a network was built with, and whether that is possible: checked before anything is built from it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from numbers import Integral

from ..data.dataset import SOURCE_OPTIONS

NETWORKS = {
    "lenet": ("32C5-P2-64C5-P2-1000", "valid"),
    "vgg": ("96C3-256C3-P2-384C3-P2-384C3-256C3-P2-1024-1024", "same"),
}

Shape = tuple[int, int, int]

# Limits that no study on one machine comes near; beyond them a mistyped number would take all memory.
MOST_CHARACTERS, MOST_LAYERS = 1000, 200

MOST_NEURONS, MOST_WEIGHTS = 2**26, 2**28


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
    """Give the geometry of each layer of a network in notation, for images of shape (C, H, W).

    Raises ValueError that shows the wrong token in its place and says why it is wrong.
    """
    if padding not in ("valid", "same"):
        raise ValueError(f"padding={padding!r:.40}: choose 'valid' (none) or 'same' (maps keep their size)")
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
            layers.append(_layer(token, shape, padding))
            weights += prod(layers[-1].out_shape[:1] + layers[-1].in_shape[:1] + layers[-1].kernel)
            if prod(layers[-1].out_shape) > MOST_NEURONS or weights > MOST_WEIGHTS:
                raise ValueError(
                    f"with {token} the network has {weights:,} weights and {prod(layers[-1].out_shape):,} neurons "
                    f"in a layer; at most {MOST_WEIGHTS:,} and {MOST_NEURONS:,}: use fewer, or smaller images"
                )
        except ValueError as reason:
            start = sum(len(t) + 1 for t in tokens[:position])
            marker = " " * start + "^" * max(1, len(token))
            raise ValueError(f"network: {reason}\n    {network}\n    {marker}") from None
        shape = layers[-1].out_shape
    return layers


def checked_shape(in_shape: Shape) -> Shape:
    """Give (C, H, W) as three ints; ValueError for anything else, or an image of more than 2^26 values."""
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


LARGEST_K = 8


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

    def to_dict(self) -> dict:
        """Give the arguments as plain values, fit for JSON and for `build_ann(**…)`."""
        return asdict(self) | {"in_shape": list(self.in_shape)}

    @property
    def layers(self) -> list[LayerSpec]:
        """Geometry of every layer, encoder first."""
        return parse(self.network, self.in_shape, self.padding)


def checked_spec(
    network: str,
    in_shape: Shape,
    classes: int,
    k: int,
    ternary: bool,
    quantized: bool,
    levels: int,
    clip: int | None,
    padding: str,
    int8_ends: bool,
) -> NetworkSpec:
    """Give the spec with these values; ValueError names the one that is wrong. `network` is in notation."""
    numbers = {"k": (k, 0, LARGEST_K), "levels": (levels, 1, 255), "classes": (classes, 2, 2**20)}
    if clip is not None:
        numbers["clip"] = clip, 1, 255
    whole = {}
    for name, (value, low, high) in numbers.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or not low <= value <= high:
            raise ValueError(f"{name}={value!r:.40}: give a whole number from {low} to {high}")
        whole[name] = int(value)
    flags = {"ternary": ternary, "quantized": quantized, "int8_ends": int8_ends}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name}={value!r:.40}: give True or False")
    spec = NetworkSpec(network, checked_shape(in_shape), padding=padding, **whole, **flags)
    weights = prod(spec.layers[-1].out_shape) * spec.classes
    if weights > MOST_WEIGHTS:
        raise ValueError(f"classes={classes}: a classifier of {weights:,} weights; give at most {MOST_WEIGHTS:,}")
    return spec


def spec_of(path: object, metadata: Mapping[str, object]) -> NetworkSpec:
    """Give the spec that a file's metadata hold; ValueError that names the file where it is none."""
    found = metadata.get("spec")
    names = {field.name for field in fields(NetworkSpec)}
    if not isinstance(found, dict) or set(found) != names:
        raise ValueError(f"{path} holds no network: its metadata have no whole 'spec'; make it again")
    source = metadata.get("source", {"name": ""})
    if not isinstance(source, dict) or not {"name"} <= set(source) <= {"name", *SOURCE_OPTIONS}:
        raise ValueError(f"{path}: its metadata name no data set; make it again")
    try:
        return checked_spec(**found)
    except ValueError as error:
        raise ValueError(f"{path} holds no network: {error}") from None
