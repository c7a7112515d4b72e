"""A spiking network on disk. A file is read with suspicion: types, shapes, order, worst cases of membranes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from ..ann.network import LARGEST_PIXEL
from ..ann.notation import MOST_COUNTS, NetworkSpec, spec_of
from ..files import load_tensors, save_tensors
from .network import FORMS, REAL_FORMS, SNN, SpikingLayer, smallest_integer, worst_case

# Of every layer, and of the published neuron's layers.
_TENSORS, _COMPARED = ("weight", "thresholds", "lowest", "highest"), ("rising", "falling")


@dataclass(frozen=True)
class _Description:
    """What a file says of its tensors."""

    spec: dict[str, Any]
    thresholds: str
    saturates: list[bool]
    metadata: dict[str, Any]


def _check_layer(
    where: str, index: int, spec: NetworkSpec, form: str, part: dict[str, Tensor], largest: Tensor
) -> None:
    """Raise ValueError for a tensor of a layer that conversion could not have made; make integers int64."""
    integer, geometry = spec.int8_ends or (index > 0 and spec.ternary), spec.layers[index]
    shape = (geometry.out_shape[0], geometry.in_shape[0], *geometry.kernel)
    weight, table = part["weight"], part["thresholds"]
    if weight.shape != shape:
        raise ValueError(f"{where}.weight has shape {tuple(weight.shape)}, not {shape}")
    if weight.dtype != (torch.int8 if integer else torch.float64):
        raise ValueError(f"{where}.weight is {weight.dtype}, not {'an integer' if integer else 'float64'}")
    if spec.ternary and index > 0 and int(weight.abs().max()) > 1:
        raise ValueError(f"{where}.weight holds {int(weight.abs().max())}, which is none of −1, 0, +1")
    if integer and form not in REAL_FORMS and table.is_floating_point():
        raise ValueError(f"{where}.thresholds are {table.dtype}, not integers")
    most = spec.levels if index == 0 else MOST_COUNTS
    if table.ndim != 2 or len(table) != len(weight) or not 1 <= table.shape[1] <= most:
        raise ValueError(f"{where}.thresholds have shape {tuple(table.shape)}, not [{len(weight)}, 1 … {most}]")
    # Infinities stand for levels that are always, or never, reached; their difference is no number.
    if (table[:, 1:] < table[:, :-1]).any():
        raise ValueError(f"{where}.thresholds do not ascend with the count")
    if "rising" in part:
        _check_compared(where, table, part["rising"], part["falling"])
    for name, bound in zip(("lowest", "highest"), worst_case(weight, largest), strict=True):
        found = part[name]
        same = found.shape == bound.shape and not found.is_floating_point()
        # The last bit of a sum of real weights differs between machines.
        if not same or ((found.long() - bound).abs() > (not integer)).any():
            raise ValueError(f"{where}.{name} is not the worst case of its weights and inputs; convert it again")
    for name in part.keys() - {"weight"}:
        if not part[name].is_floating_point():
            part[name] = part[name].long()


def _check_compared(where: str, table: Tensor, rising: Tensor, falling: Tensor) -> None:
    """Raise ValueError where the published neuron's tables are not of its thresholds' type, shape and order."""
    for name, other in (("rising", rising), ("falling", falling)):
        if other.shape != table.shape or other.is_floating_point() != table.is_floating_point():
            raise ValueError(f"{where}.{name} is {other.dtype} {tuple(other.shape)}, unlike its thresholds")
        if (other[:, 1:] < other[:, :-1]).any():
            raise ValueError(f"{where}.{name} does not ascend with the count")
    if (falling > rising).any():
        raise ValueError(f"{where}: a spike is taken back above the membrane that sends it; convert it again")


def _checked(tensors: dict[str, Tensor], name: str, path: str | Path) -> Tensor:
    """A tensor of a file by its name; ValueError where it is missing, of another type, or holds NaN."""
    tensor = tensors.get(name)
    if tensor is None:
        raise ValueError(f"{path}: tensor {name} is missing; convert the network again")
    if tensor.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64, torch.float64):
        raise ValueError(f"{path}: {name} are {tensor.dtype}, not integers or float64; convert the network again")
    if tensor.is_floating_point() and torch.isnan(tensor).any():
        raise ValueError(f"{path}: tensor {name} holds NaN; convert the network again")
    return tensor


def save_snn(snn: SNN, path: str | Path, **metadata: object) -> None:
    """Write the network to a safetensors file, every integer tensor in its smallest type."""
    tensors = {"classifier": snn.classifier}
    for index, layer in enumerate(snn.layers):
        for name in (*_TENSORS, *_COMPARED):
            tensor = getattr(layer, name)
            if tensor is None:
                continue
            if not tensor.is_floating_point():
                tensor = tensor.to(smallest_integer(int(tensor.min()), int(tensor.max())))
            tensors[f"layers.{index}.{name}"] = tensor
    saturates = [layer.saturates for layer in snn.layers]
    save_tensors(
        path, tensors, vars(_Description(snn.spec.to_dict(), snn.thresholds, saturates, snn.metadata | metadata))
    )


def load_snn(path: str | Path) -> SNN:
    """Read a network that `save_snn` wrote, checking types, shapes, the order of thresholds and every bound.

    Raises FileNotFoundError or ValueError that names the file, the tensor and what is wrong with it.
    """
    tensors, metadata = load_tensors(path)
    try:
        told = msgspec.convert(metadata, _Description)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path} holds no spiking network ({error}); notebook 03_convert writes one") from None
    spec, form = spec_of(path, told.metadata | {"spec": told.spec}), told.thresholds
    if form not in FORMS or len(told.saturates) != len(spec.layers):
        raise ValueError(f"{path} holds no spiking network of {spec.network:.80}; notebook 03_convert writes one")
    largest = torch.full((spec.in_shape[0],), LARGEST_PIXEL)
    layers: list[SpikingLayer] = []
    for index, (geometry, saturates) in enumerate(zip(spec.layers, told.saturates, strict=True)):
        names = (*_TENSORS, *_COMPARED) if index and form.startswith("published") else _TENSORS
        if names != _TENSORS and f"layers.{index}.rising" not in tensors:
            raise ValueError(
                f"{path}: thresholds={form!r} was written by a version whose published neuron compared with ≥; "
                "the published one compares strictly: convert the network again (notebook 03_convert)"
            )
        part = {name: _checked(tensors, f"layers.{index}.{name}", path) for name in names}
        _check_layer(f"{path}: layers.{index}", index, spec, form, part, largest)
        layers.append(SpikingLayer(geometry, **part, saturates=saturates))
        largest = layers[-1].reachable * (2**spec.k if index == 0 else 1)
    classifier = _checked(tensors, "classifier", path)
    shape = (spec.classes, *layers[-1].spec.out_shape)
    wanted = torch.int8 if spec.int8_ends else torch.float64
    if classifier.shape != shape or classifier.dtype != wanted:
        found = f"{classifier.dtype} {tuple(classifier.shape)}"
        raise ValueError(f"{path}: classifier is {found}, not {wanted} {shape}")
    return SNN(spec, tuple(layers), classifier, form, told.metadata)
