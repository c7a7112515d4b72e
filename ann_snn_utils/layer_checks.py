"""What the tensors of a spiking layer must be: types, shapes, order, and the worst case of its membranes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .notation import LayerSpec
from .spec import NetworkSpec

# A neuron counts in 16 bits.
MOST_COUNTS = 2**15 - 1


def worst_case(weight: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """Give the least and greatest membrane of each channel, int64 [O], for inputs from 0 to `largest` [I]."""
    reach = weight.double() * largest.double()[None, :, None, None]
    if float(reach.abs().sum((1, 2, 3)).max()) >= 2**53:
        raise ValueError("membranes of 2^53 and more cannot be computed exactly: use fewer or smaller inputs")
    return reach.clamp(max=0).sum((1, 2, 3)).floor().long(), reach.clamp(min=0).sum((1, 2, 3)).ceil().long()


def check_layer(
    path: str | Path, index: int, spec: NetworkSpec, geometry: LayerSpec, part: dict[str, Tensor], form: str,
    largest: Tensor,
) -> None:  # fmt: skip
    """Raise ValueError for a tensor of a layer that conversion could not have made; make integers int64."""
    whole, where = spec.int8_ends or (index > 0 and spec.ternary), f"{path}: layers.{index}"
    shape = (geometry.out_shape[0], geometry.in_shape[0], *geometry.kernel)
    weight, table = part["weight"], part["thresholds"]
    if weight.shape != shape:
        raise ValueError(f"{where}.weight has shape {tuple(weight.shape)}, not {shape}")
    if weight.dtype != (torch.int8 if whole else torch.float64):
        raise ValueError(f"{where}.weight is {weight.dtype}, not {'an integer' if whole else 'float64'}")
    if spec.ternary and index > 0 and int(weight.abs().max()) > 1:
        raise ValueError(f"{where}.weight holds {int(weight.abs().max())}, which is none of −1, 0, +1")
    if whole and form != "float" and table.is_floating_point():
        raise ValueError(f"{where}.thresholds are {table.dtype}, not integers")
    most = spec.levels if index == 0 else MOST_COUNTS
    if table.ndim != 2 or len(table) != len(weight) or not 1 <= table.shape[1] <= most:
        raise ValueError(f"{where}.thresholds have shape {tuple(table.shape)}, not [{len(weight)}, 1 … {most}]")
    # Infinities stand for levels that are always, or never, reached; their difference is no number.
    if (table[:, 1:] < table[:, :-1]).any():
        raise ValueError(f"{where}.thresholds do not ascend with the count")
    for name, bound in zip(("lowest", "highest"), worst_case(weight, largest), strict=True):
        found = part[name]
        same = found.shape == bound.shape and not found.is_floating_point()
        # The last bit of a sum of real weights differs between machines.
        if not same or ((found.long() - bound).abs() > (not whole)).any():
            raise ValueError(f"{where}.{name} is not the worst case of its weights and inputs; convert it again")
    for name in ("thresholds", "lowest", "highest"):
        if not part[name].is_floating_point():
            part[name] = part[name].long()


def checked_tensor(tensors: dict[str, Tensor], name: str, path: str | Path) -> Tensor:
    """Give a tensor of a file by its name; ValueError where it is missing, of another type, or holds NaN."""
    if name not in tensors:
        raise ValueError(f"{path}: tensor {name} is missing; convert the network again")
    tensor = tensors[name]
    known = (torch.int8, torch.int16, torch.int32, torch.int64, torch.float64)
    if tensor.dtype not in known:
        kind = "floating point" if tensor.is_floating_point() else "of another type"
        raise ValueError(f"{path}: {name} are {tensor.dtype}, not integers ({kind}); convert the network again")
    if tensor.is_floating_point() and torch.isnan(tensor).any():
        raise ValueError(f"{path}: tensor {name} holds NaN; convert the network again")
    return tensor
