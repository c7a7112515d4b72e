"""A spiking network on disk. A file is read with suspicion: types, shapes, order, worst cases of membranes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from ..ann.notation import NetworkSpec, spec_of
from ..ann.placement import MOST_COUNTS
from ..files import load_tensors, save_tensors
from .network import (
    FORMS,
    REAL_FORMS,
    SNN,
    SpikingLayer,
    Synapses,
    layer_of_maxima,
    membrane_range,
    smallest_integer,
)

# Of every layer, and of the published neuron's layers.
_TENSORS, _COMPARED = ("thresholds", "lowest", "highest"), ("rising", "falling")


@dataclass(frozen=True)
class _Description:
    """What a file says of its tensors."""

    spec: dict[str, Any]
    thresholds: str
    saturates: list[bool]
    metadata: dict[str, Any]


def _check_synapses(where: str, index: int, spec: NetworkSpec, form: str, one: Synapses, channels: int) -> None:
    """Raise ValueError for weights or gains that conversion could not have made."""
    integer, weight, gain, geometry = spec.has_whole_weights(index), one.weight, one.gain, one.spec
    shape = (channels, geometry.in_shape[0] // geometry.groups, *geometry.kernel)
    if weight.shape != shape:
        raise ValueError(f"{where}.weight has shape {tuple(weight.shape)}, not {shape}")
    if weight.dtype != (torch.int8 if integer else torch.float64):
        raise ValueError(f"{where}.weight is {weight.dtype}, not {'an integer' if integer else 'float64'}")
    # In 64 bits: of int8 −128 has no absolute value.
    if spec.ternary and index > 0 and (largest := int(weight.long().abs().max())) > 1:
        raise ValueError(f"{where}.weight holds {largest}, which is none of −1, 0, +1")
    if gain is not None and (gain.shape != (channels,) or gain.is_floating_point() != (form in REAL_FORMS)):
        raise ValueError(f"{where}.gain is {gain.dtype} {tuple(gain.shape)}, not one number for each channel")


def _check_layer(
    where: str, index: int, spec: NetworkSpec, form: str, part: dict[str, Tensor], reach: tuple[Tensor, Tensor]
) -> None:
    """Raise ValueError for a tensor of a layer that conversion could not have made; make integers int64.

    reach: the worst case of the layer's membrane.
    """
    integer, table, channels = spec.has_whole_weights(index), part["thresholds"], spec.layers[index].out_shape[0]
    if integer and form not in REAL_FORMS and table.is_floating_point():
        raise ValueError(f"{where}.thresholds are {table.dtype}, not integers")
    most = spec.levels if index == 0 else MOST_COUNTS - spec.counts(index)[0]
    if table.ndim != 2 or len(table) != channels or not 1 <= table.shape[1] <= most:
        raise ValueError(f"{where}.thresholds have shape {tuple(table.shape)}, not [{channels}, 1 … {most}]")
    # Infinities stand for levels that are always, or never, reached; their difference is no number.
    if (table[:, 1:] < table[:, :-1]).any():
        raise ValueError(f"{where}.thresholds do not ascend with the count")
    if "rising" in part:
        _check_compared(where, table, part["rising"], part["falling"])
    for name, bound in zip(("lowest", "highest"), reach, strict=True):
        found = part[name]
        same = found.shape == bound.shape and not found.is_floating_point()
        # The last bit of a sum of real weights differs between machines.
        if not same or ((found.long() - bound).abs() > (not integer)).any():
            raise ValueError(f"{where}.{name} is not the worst case of its weights and inputs; convert it again")
    for name in part:
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


def _prefixes(index: int, number: int) -> list[str]:
    """How names of the tensors of a layer's synapses begin."""
    return [f"layers.{index}", *(f"layers.{index}.{also}" for also in range(1, number))]


def save_snn(snn: SNN, path: str | Path, **metadata: object) -> None:
    """Write the network to a safetensors file, every integer tensor in its smallest type."""
    found: dict[str, Tensor | None] = {"classifier": snn.classifier, "bias": snn.bias}
    for index, layer in enumerate(snn.layers):
        # Maxima follow from the layer of which they are taken.
        if layer.spec.kind == "maximum":
            continue
        found |= {f"layers.{index}.{name}": getattr(layer, name) for name in (*_TENSORS, *_COMPARED)}
        for prefix, one in zip(_prefixes(index, len(layer.synapses)), layer.synapses, strict=True):
            found |= {f"{prefix}.weight": one.weight, f"{prefix}.gain": one.gain}
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            tensors[name] = tensor.to(smallest_integer(int(tensor.min()), int(tensor.max())))
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
        raise ValueError(f"{path} holds no spiking network of {spec.title:.80}; notebook 03_convert writes one")
    layers: list[SpikingLayer] = []
    for index, (geometry, saturates) in enumerate(zip(spec.layers, told.saturates, strict=True)):
        if geometry.kind == "maximum":
            layers.append(layer_of_maxima(geometry, layers))
            continue
        names = (*_TENSORS, *_COMPARED) if index and form.startswith("published") else _TENSORS
        if names != _TENSORS and f"layers.{index}.rising" not in tensors:
            raise ValueError(
                f"{path}: thresholds={form!r} was written by a version whose published neuron compared with ≥; "
                "the published one compares strictly: convert the network again (notebook 03_convert)"
            )
        synapses = []
        shapes = [one for branch in geometry.synapses for one in branch]
        for prefix, one in zip(_prefixes(index, len(shapes)), shapes, strict=True):
            gain = _checked(tensors, f"{prefix}.gain", path) if f"{prefix}.gain" in tensors else None
            gain = gain if gain is None or gain.is_floating_point() else gain.long()
            synapses.append(Synapses(one, _checked(tensors, f"{prefix}.weight", path), gain))
            _check_synapses(f"{path}: {prefix}", index, spec, form, synapses[-1], geometry.out_shape[0])
        part = {name: _checked(tensors, f"layers.{index}.{name}", path) for name in names}
        reach = membrane_range(synapses, layers, spec)
        _check_layer(f"{path}: layers.{index}", index, spec, form, part, reach)
        layers.append(SpikingLayer(geometry, tuple(synapses), **part, saturates=saturates))
    classifier, bias = _checked(tensors, "classifier", path), None
    shape = (spec.classes, *layers[-1].spec.out_shape)
    wanted = torch.int8 if spec.int8_ends else torch.float64
    if classifier.shape != shape or classifier.dtype != wanted:
        found = f"{classifier.dtype} {tuple(classifier.shape)}"
        raise ValueError(f"{path}: classifier is {found}, not {wanted} {shape}")
    if spec.graph.read_out.bias:
        bias = _checked(tensors, "bias", path)
        if bias.shape != (spec.classes,) or bias.is_floating_point():
            raise ValueError(f"{path}: bias is {bias.dtype} {tuple(bias.shape)}, not {spec.classes} integers")
        bias = bias.long()
    return SNN(spec, tuple(layers), classifier, form, told.metadata, bias)
