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
from ..checks import expect
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


def _check_synapses(where: str, index: int, spec: NetworkSpec, form: str, one: Synapses) -> None:
    """Raise ValueError for weights or gains that conversion could not have made."""
    integer, weight, gain, geometry = spec.has_whole_weights(index), one.weight, one.gain, one.spec
    channels = geometry.out_shape[0]
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
    index: int, spec: NetworkSpec, form: str, part: dict[str, Tensor], reach: tuple[Tensor, Tensor]
) -> None:
    """Raise ValueError for a tensor of a layer that conversion could not have made.

    reach: the worst case of the layer's membrane.
    """
    where = f"layers.{index}"
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
        if not same or ((found - bound).abs() > (not integer)).any():
            raise ValueError(f"{where}.{name} is not the worst case of its weights and inputs; convert it again")


def _check_compared(where: str, table: Tensor, rising: Tensor, falling: Tensor) -> None:
    """Raise ValueError where the published neuron's tables are not of its thresholds' type, shape and order."""
    for name, other in (("rising", rising), ("falling", falling)):
        if other.shape != table.shape or other.is_floating_point() != table.is_floating_point():
            raise ValueError(f"{where}.{name} is {other.dtype} {tuple(other.shape)}, unlike its thresholds")
        if (other[:, 1:] < other[:, :-1]).any():
            raise ValueError(f"{where}.{name} does not ascend with the count")
    if (falling > rising).any():
        raise ValueError(f"{where}: a spike is taken back above the membrane that sends it; convert it again")


def _stored(tensors: dict[str, Tensor], name: str) -> Tensor:
    """A tensor of a file by its name; ValueError where it is missing, of another type, or holds NaN."""
    tensor = tensors.get(name)
    if tensor is None:
        raise ValueError(f"tensor {name} is missing; convert the network again")
    if tensor.dtype not in (torch.int8, torch.int16, torch.int32, torch.int64, torch.float64):
        raise ValueError(f"{name} are {tensor.dtype}, not integers or float64; convert the network again")
    if tensor.is_floating_point() and torch.isnan(tensor).any():
        raise ValueError(f"tensor {name} holds NaN; convert the network again")
    return tensor


def _widened(tensors: dict[str, Tensor], name: str) -> Tensor:
    """A tensor as `_stored`, int64 where the file has it in a smaller integer."""
    tensor = _stored(tensors, name)
    return tensor if tensor.is_floating_point() else tensor.long()


def _prefixes(index: int, number: int) -> list[str]:
    """How names of the tensors of a layer's synapses begin."""
    return [f"layers.{index}", *(f"layers.{index}.{also}" for also in range(1, number))]


def save_snn(snn: SNN, path: str | Path, **metadata: object) -> None:
    """Write the network to a safetensors file, every integer tensor in its smallest type."""
    expect(SNN, snn=snn)
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
    description = _Description(snn.spec.to_dict(), snn.thresholds, saturates, snn.metadata | metadata)
    save_tensors(path, tensors, vars(description))


@torch.inference_mode(False)
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
    try:
        for saturates in told.saturates:
            layers.append(_layer(tensors, layers, spec, form, saturates))
        classifier, bias = _read_out(tensors, spec)
    except ValueError as reason:
        raise ValueError(f"{path}: {reason}") from None
    return SNN(spec, tuple(layers), classifier, form, told.metadata, bias)


def _layer(
    tensors: dict[str, Tensor], before: list[SpikingLayer], spec: NetworkSpec, form: str, saturates: bool
) -> SpikingLayer:
    """The layer of a file that comes behind the layers `before` it."""
    index = len(before)
    geometry, published = spec.layers[index], form.startswith("published") and index > 0
    if geometry.kind == "maximum":
        return layer_of_maxima(geometry, before)
    if published and f"layers.{index}.rising" not in tensors:
        raise ValueError(
            f"thresholds={form!r} was written by a version whose published neuron compared with ≥; "
            "the published one compares strictly: convert the network again (notebook 03_convert)"
        )
    synapses = []
    shapes = [one for branch in geometry.synapses for one in branch]
    for prefix, shape in zip(_prefixes(index, len(shapes)), shapes, strict=True):
        gain = _widened(tensors, f"{prefix}.gain") if f"{prefix}.gain" in tensors else None
        synapses.append(Synapses(shape, _stored(tensors, f"{prefix}.weight"), gain))
        _check_synapses(prefix, index, spec, form, synapses[-1])
    names = (*_TENSORS, *_COMPARED) if published else _TENSORS
    part = {name: _widened(tensors, f"layers.{index}.{name}") for name in names}
    _check_layer(index, spec, form, part, membrane_range(synapses, before, spec))
    return SpikingLayer(geometry, tuple(synapses), **part, saturates=saturates)


def _read_out(tensors: dict[str, Tensor], spec: NetworkSpec) -> tuple[Tensor, Tensor | None]:
    """The classifier of a file, and its bias where the network has one."""
    classifier, shape = _stored(tensors, "classifier"), (spec.classes, *spec.layers[-1].out_shape)
    wanted = torch.int8 if spec.int8_ends else torch.float64
    if classifier.shape != shape or classifier.dtype != wanted:
        raise ValueError(f"classifier is {classifier.dtype} {tuple(classifier.shape)}, not {wanted} {shape}")
    if not spec.graph.read_out.bias:
        return classifier, None
    bias = _widened(tensors, "bias")
    if bias.shape != (spec.classes,) or bias.is_floating_point():
        raise ValueError(f"bias is {bias.dtype} {tuple(bias.shape)}, not {spec.classes} integers")
    return classifier, bias
