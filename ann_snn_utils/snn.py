"""The integer spiking network as data: weights, threshold tables and membrane bounds, saved as integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .artifacts import load_tensors, save_tensors
from .models import NetworkSpec
from .notation import LayerSpec


@dataclass(frozen=True, eq=False)
class SpikingLayer:
    """One layer of neurons that share a convolution.

    weight: int8 [O, I, kh, kw] (float64 where full precision). thresholds: [O, J], θ_j in column j − 1,
    int64, or float64 for real thresholds; a neuron counts at most J spikes. lowest, highest: worst-case
    membrane of each channel, int64 [O]. saturates: a larger count than J could be asked for.
    """

    spec: LayerSpec
    weight: Tensor
    thresholds: Tensor
    lowest: Tensor
    highest: Tensor
    saturates: bool = False

    @property
    def name(self) -> str:
        """The layer's token in the network notation."""
        return self.spec.token

    @property
    def neurons(self) -> int:
        """Number of neurons, C · H · W of the output."""
        channels, height, width = self.spec.out_shape
        return channels * height * width

    @property
    def largest_count(self) -> int:
        """The largest net spike count that any neuron of the layer can reach."""
        return int((self.thresholds <= self.highest[:, None]).sum(1).max())

    @cached_property
    def fan_out(self) -> Tensor:
        """Synapses that a spike of each input neuron reaches, int64 [I, H, W]: fewer at the map's border."""
        return self._fan_out(torch.ones_like(self.weight, dtype=torch.float64))

    @cached_property
    def effective_fan_out(self) -> Tensor:
        """Synapses with a weight other than zero that a spike of each input neuron reaches, int64 [I, H, W]."""
        return self._fan_out((self.weight != 0).double())

    def _fan_out(self, synapses: Tensor) -> Tensor:
        outputs = torch.ones(1, *self.spec.out_shape, dtype=torch.float64)
        reach = F.conv_transpose2d(outputs, synapses, None, self.spec.stride, self.spec.padding)
        return reach[0].round().long()


@dataclass(frozen=True, eq=False)
class SNN:
    """An integer spiking network: `layers` (encoder first) and the `classifier`, int8 [classes, C, H, W].

    spec says how the network was built, `thresholds` ("exact", "published", "float") how it was converted;
    `metadata` holds JSON values, among them `logit_scale`: ANN logit = logit_scale · integer score.
    """

    spec: NetworkSpec
    layers: tuple[SpikingLayer, ...]
    classifier: Tensor
    thresholds: str = "exact"
    metadata: dict = field(default_factory=dict)

    @property
    def k(self) -> int:
        """Quantization level: hidden counts are in units of 2^-k."""
        return self.spec.k

    @property
    def levels(self) -> int:
        """Number of steps in which the encoding layer may fire."""
        return self.spec.levels

    @property
    def amplitude(self) -> int:
        """Counts that one spike of the encoding layer carries, 2^k."""
        return 2**self.spec.k

    @property
    def integer(self) -> bool:
        """True where no tensor of the network is floating point."""
        tensors = [self.classifier, *(t for layer in self.layers for t in (layer.weight, layer.thresholds))]
        return not any(t.is_floating_point() for t in tensors)

    @property
    def sufficient_steps(self) -> int:
        """Steps after which every input has settled: levels + Σ over hidden layers of the largest count."""
        return self.levels + sum(layer.largest_count for layer in self.layers[1:])


def smallest_integer(lowest: int, highest: int) -> torch.dtype:
    """Give the smallest signed integer dtype that holds lowest … highest; ValueError beyond 64 bits."""
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        if torch.iinfo(dtype).min <= lowest and highest <= torch.iinfo(dtype).max:
            return dtype
    raise ValueError(f"no 64-bit integer holds {lowest} … {highest}: use fewer levels or smaller weights")


def save_snn(snn: SNN, path: str | Path, **metadata: object) -> None:
    """Write the network to a safetensors file, every integer tensor in its smallest type."""
    tensors = {"classifier": snn.classifier}
    for index, layer in enumerate(snn.layers):
        for name in ("weight", "thresholds", "lowest", "highest"):
            tensor = getattr(layer, name)
            if not tensor.is_floating_point():
                tensor = tensor.to(smallest_integer(int(tensor.min()), int(tensor.max())))
            tensors[f"layers.{index}.{name}"] = tensor
    description = {
        "spec": snn.spec.to_dict(),
        "thresholds": snn.thresholds,
        "saturates": [layer.saturates for layer in snn.layers],
        "metadata": snn.metadata | metadata,
    }
    save_tensors(path, tensors, description)


def load_snn(path: str | Path) -> SNN:
    """Read a network that `save_snn` wrote, checking types, shapes and the order of thresholds.

    Raises FileNotFoundError or ValueError that names the file, the tensor and what is wrong with it.
    """
    tensors, description = load_tensors(path)
    if not {"spec", "thresholds", "saturates"} <= set(description):
        raise ValueError(f"{path} holds no spiking network; notebook 03_convert writes one")
    spec = NetworkSpec(**description["spec"] | {"in_shape": tuple(description["spec"]["in_shape"])})
    layers = []
    for index, geometry in enumerate(spec.layers):
        part = {
            name: _checked(tensors, f"layers.{index}.{name}", path)
            for name in ("weight", "thresholds", "lowest", "highest")
        }
        shape = (geometry.out_shape[0], geometry.in_shape[0], *geometry.kernel)
        if part["weight"].shape != shape:
            raise ValueError(f"{path}: layers.{index}.weight has shape {tuple(part['weight'].shape)}, not {shape}")
        whole = spec.int8_ends or (index > 0 and spec.ternary)
        if whole and (part["weight"].is_floating_point()):
            raise ValueError(f"{path}: layers.{index}.weight is {part['weight'].dtype}, not an integer")
        if whole and description["thresholds"] != "float" and part["thresholds"].is_floating_point():
            raise ValueError(f"{path}: layers.{index}.thresholds are {part['thresholds'].dtype}, not integers")
        if part["thresholds"].ndim != 2 or (part["thresholds"].diff(dim=1) < 0).any():
            raise ValueError(f"{path}: layers.{index}.thresholds do not ascend with the count")
        for name in ("thresholds", "lowest", "highest"):
            if not part[name].is_floating_point():
                part[name] = part[name].long()
        layers.append(SpikingLayer(geometry, **part, saturates=description["saturates"][index]))
    classifier = _checked(tensors, "classifier", path)
    shape = (spec.classes, *layers[-1].spec.out_shape)
    if classifier.shape != shape or (spec.int8_ends and classifier.dtype != torch.int8):
        raise ValueError(f"{path}: classifier is {classifier.dtype} {tuple(classifier.shape)}, not int8 {shape}")
    return SNN(spec, tuple(layers), classifier, description["thresholds"], description["metadata"])


def _checked(tensors: dict[str, Tensor], name: str, path: str | Path) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{path}: tensor {name} is missing; convert the network again")
    tensor = tensors[name]
    if tensor.is_floating_point() and torch.isnan(tensor).any():
        raise ValueError(f"{path}: tensor {name} holds NaN")
    return tensor
