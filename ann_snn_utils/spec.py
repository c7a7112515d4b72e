"""What a network was built with, and whether that is possible: checked before anything is built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from numbers import Integral

from .notation import MOST_WEIGHTS, LayerSpec, Shape, checked_shape, parse

LARGEST_K = 8
# What may narrow the data set that a file names, beside its name: arguments of `load_dataset`.
SOURCE_OPTIONS = ("limit", "size", "crop", "held_out")


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
    network: str, in_shape: Shape, classes: int, k: int, ternary: bool, quantized: bool, levels: int,
    clip: int | None, padding: str, int8_ends: bool,
) -> NetworkSpec:  # fmt: skip
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
