"""Networks from elsewhere: the published TensorLayer checkpoints, and int8 ends for networks without them."""

from __future__ import annotations

import os
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from .models import ANN, NetworkSpec, build_ann, copy_weights, raw_weight
from .notation import Shape
from .npz import read_object_array
from .quantize import int8_scale

NORM_PARTS = ("β", "γ", "μ", "variance")


@torch.no_grad()
def import_tensorlayer(
    path: str | os.PathLike[str],
    network: str,
    in_shape: Shape,
    k: int,
    ternary: bool = True,
    padding: str | None = None,
    classes: int | None = None,
    levels: int = 4,
) -> ANN:
    """Give the network, in evaluation mode, whose parameters a published checkpoint (.npz) holds.

    network, in_shape (C, H, W), k, ternary, padding and levels describe it as in `build_ann`; classes: None
    takes the number from the file. The file holds `params`: for each layer W [kh, kw, in, out], β, γ, μ, σ²,
    then the classifier [in, classes] over the map flattened as (H, W, C). Encoder and classifier stay full
    precision as published; `quantize_ends` makes them int8. Only numbers are read from the file, nothing in
    it is executed. Source of the format: the code of Zou et al. 2024; its MNIST networks take pixels in
    0 … 1, as here, while its CIFAR-10 network was trained on standardised images and needs such.
    Raises FileNotFoundError, or ValueError that names the file, the array and the shape the network needs.
    """
    with torch.device("meta"):
        spec = build_ann(
            network, in_shape, 2 if classes is None else classes, k, ternary, True, levels, None, padding, False
        ).spec
    arrays = read_object_array(path)
    spec = _fitted(path, arrays, spec, classes)
    arrays = _finite(path, arrays, spec)
    ann = build_ann(**spec.to_dict())
    for index, layer in enumerate(ann.layers):
        weight, beta, gamma, mean, variance = (torch.from_numpy(a) for a in _of_layer(arrays, index))
        raw_weight(layer.conv).copy_(weight.permute(3, 2, 0, 1))
        layer.norm.bias.copy_(beta)
        layer.norm.weight.copy_(gamma)
        layer.norm.running_mean.copy_(mean)
        layer.norm.running_var.copy_(variance)
    channels, height, width = spec.layers[-1].out_shape
    read_out = torch.from_numpy(arrays[-1]).reshape(height, width, channels, spec.classes)
    raw_weight(ann.classifier).copy_(read_out.permute(3, 2, 0, 1).flatten(1))
    return ann.eval()


def _of_layer(arrays: list[np.ndarray], index: int) -> list[np.ndarray]:
    size = 1 + len(NORM_PARTS)
    return arrays[size * index : size * (index + 1)]


def _needed(spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Give the name and shape of each array that the layers need, in the order of the file."""
    needed: dict[str, tuple[int, ...]] = {}
    for index, layer in enumerate(spec.layers):
        where, out = f"layer {index} ({layer.token})", layer.out_shape[0]
        needed[f"{where} weights"] = (*layer.kernel, layer.in_shape[0], out)
        needed |= {f"{where} {part}": (out,) for part in NORM_PARTS}
    return needed


def _fitted(path: object, arrays: list[np.ndarray], spec: NetworkSpec, classes: int | None) -> NetworkSpec:
    """Give the spec with the file's number of classes, once every array has the shape it needs."""
    needed = _needed(spec)
    for position, ((what, shape), array) in enumerate(zip(needed.items(), arrays, strict=False)):
        if array.shape != shape:
            raise ValueError(
                f"{path}: array {position} has shape {array.shape}, and {what} of {spec.network} on "
                f"{spec.in_shape} images need {shape}: check network, in_shape and padding"
            )
    if len(arrays) != len(needed) + 1:
        raise ValueError(
            f"{path} holds {len(arrays)} arrays, and {spec.network} needs {len(needed) + 1}: "
            f"W, β, γ, μ, variance for each of {len(spec.layers)} layers, and the classifier"
        )
    inputs, shape = prod(spec.layers[-1].out_shape), arrays[-1].shape
    found = shape[1] if len(shape) == 2 and shape[0] == inputs else 0
    if found < 2 or found != (classes or found):
        wanted = (inputs, "2 or more" if classes is None else classes)
        raise ValueError(f"{path}: the classifier has shape {shape}, and {spec.network} needs {wanted}")
    return replace(spec, classes=found)


def _finite(path: object, arrays: list[np.ndarray], spec: NetworkSpec) -> list[np.ndarray]:
    """Give the arrays as float32, once every value is finite and no variance is negative."""
    with np.errstate(over="ignore"):
        arrays = [array.astype(np.float32) for array in arrays]
    for what, array in zip([*_needed(spec), "the classifier"], arrays, strict=True):
        bad = ~np.isfinite(array) | ((array < 0) & what.endswith("variance"))
        if bad.any():
            raise ValueError(
                f"{path}: {what} holds {array[bad][0]}, which no trained network does: take another checkpoint"
            )
    return arrays


@torch.no_grad()
def quantize_ends(ann: ANN) -> ANN:
    """Give the network with int8 encoder and classifier, rounded after training; nothing else changes.

    Weights become round(w / s), s = max|w| / 127 for each channel, and batch norm absorbs the scale:
    γ·(s·z − μ)/σ = (γ·s)·(z − μ/s)/σ, so thresholds are those of the rounded weights s·round(w / s). Hidden
    layers with full-precision weights are rounded likewise; ternary ones stay as they are. A network with
    int8 ends is copied. Raises ValueError for a network that is not quantized.
    """
    if not ann.spec.quantized:
        raise ValueError("quantize_ends: this network is full precision; build it with quantized=True first")
    like = ann.layers[0].norm.weight
    result = build_ann(**replace(ann.spec, int8_ends=True).to_dict()).to(like)
    copy_weights(ann, result).train(ann.training)
    result.metadata = dict(ann.metadata)
    if ann.spec.int8_ends:
        return result
    for index, layer in enumerate(result.layers):
        if index == 0 or not ann.spec.ternary:
            raw = raw_weight(layer.conv)
            scale = int8_scale(raw.double())
            # Stored as integers their own scale is 1: no later rounding, in any precision, moves a weight.
            raw.copy_((raw.double() / scale).round())
            _absorb(layer.norm, scale.flatten())
    return result


def _absorb(norm: torch.nn.BatchNorm2d, scale: Tensor) -> None:
    norm.weight.copy_(norm.weight.double() * scale)
    norm.running_mean.copy_(norm.running_mean.double() / scale)
