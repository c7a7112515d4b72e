"""The integer spiking network as data: weights, threshold tables and membrane bounds, saved as integers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .artifacts import load_tensors, save_tensors
from .layer_checks import check_layer, checked_tensor
from .models import LARGEST_PIXEL
from .notation import LayerSpec
from .spec import NetworkSpec, spec_of

FORMS = ("exact", "published", "float")


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
    def reachable(self) -> Tensor:
        """The largest net spike count that a neuron of each channel can reach, int64 [O]."""
        return (self.thresholds <= self.highest[:, None]).sum(1)

    @property
    def largest_count(self) -> int:
        """The largest net spike count that any neuron of the layer can reach."""
        return int(self.reachable.max())

    @cached_property
    def fan_out(self) -> Tensor:
        """Synapses that a spike of each input neuron reaches, int64 [I, H, W]: fewer at the map's border."""
        return self._fan_out(torch.ones_like(self.weight, dtype=torch.float64))

    @property
    def effective_fan_out(self) -> Tensor:
        """Synapses with a weight other than zero that a spike of each input neuron reaches, int64 [I, H, W]."""
        version = self.weight._version
        if version not in self._effective:
            self._effective[version] = self._fan_out((self.weight != 0).double())
        return self._effective[version]

    @cached_property
    def _effective(self) -> dict[int, Tensor]:
        # By the version of the weights: a change in place makes another one.
        return {}

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
    """Read a network that `save_snn` wrote, checking types, shapes, the order of thresholds and every bound.

    Raises FileNotFoundError or ValueError that names the file, the tensor and what is wrong with it.
    """
    tensors, description = load_tensors(path)
    metadata = description.get("metadata")
    if description.get("thresholds") not in FORMS or not isinstance(metadata, dict):
        raise ValueError(f"{path} holds no spiking network; notebook 03_convert writes one")
    spec, saturates = spec_of(path, metadata | {"spec": description.get("spec")}), description.get("saturates")
    if not isinstance(saturates, list) or [type(flag) for flag in saturates] != [bool] * len(spec.layers):
        raise ValueError(f"{path}: saturates is {saturates!r:.80}, not one true or false for each layer")
    largest = torch.full((spec.in_shape[0],), LARGEST_PIXEL)
    layers: list[SpikingLayer] = []
    for index, (geometry, flag) in enumerate(zip(spec.layers, saturates, strict=True)):
        part = {
            name: checked_tensor(tensors, f"layers.{index}.{name}", path)
            for name in ("weight", "thresholds", "lowest", "highest")
        }
        check_layer(path, index, spec, geometry, part, description["thresholds"], largest)
        layers.append(SpikingLayer(geometry, **part, saturates=flag))
        largest = layers[-1].reachable * (2**spec.k if index == 0 else 1)
    classifier = checked_tensor(tensors, "classifier", path)
    shape = (spec.classes, *layers[-1].spec.out_shape)
    wanted = torch.int8 if spec.int8_ends else torch.float64
    if classifier.shape != shape or classifier.dtype != wanted:
        found = f"{classifier.dtype} {tuple(classifier.shape)}"
        raise ValueError(f"{path}: classifier is {found}, not {wanted} {shape}")
    return SNN(spec, tuple(layers), classifier, description["thresholds"], metadata)
