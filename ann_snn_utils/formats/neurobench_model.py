"""The spiking network under NeuroBench, whose harness counts operations by looking at what every layer is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..ann.notation import LARGEST_PIXEL
from ..data.dataset import as_images
from ..simulator.run import simulate
from ..snn.network import SNN, Synapses
from .packages import require_packages


class Spikes(nn.Identity):
    """Passes the spikes of a layer on, where NeuroBench sees them."""


class SpikingModule(nn.Module):
    """The network as torch layers that are given its spikes, step by step.

    The simulator runs; the layers repeat its sums, so that hooks see inputs and outputs: `synapses` those of each
    layer in turn (the encoder's sees the image, once), `neurons` the spikes, `classifier` those of the last layer.
    """

    def __init__(self, snn: SNN, time_steps: int) -> None:
        super().__init__()
        self.snn, self.time_steps = snn, time_steps
        self.synapses = nn.ModuleList(
            nn.ModuleList(_convolution(one) for one in layer.synapses if layer.spec.kind == "neurons")
            for layer in snn.layers
        )
        self.neurons = nn.ModuleList(Spikes() for _ in snn.layers)
        self.classifier = nn.Linear(snn.classifier[0].numel(), len(snn.classifier), bias=False)
        self.classifier.weight = nn.Parameter(snn.classifier.flatten(1).float(), requires_grad=False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Class scores [N, classes] after the last step, of images uint8 [N, C, H, W] or floats in 0 … 1."""
        if images.dtype != torch.uint8:
            images = (images * LARGEST_PIXEL).round().long()
        images = as_images(images, self.snn.spec.in_shape)
        record = simulate(self.snn, images, self.time_steps, trace=range(len(images)))
        assert record.traces is not None
        spikes = [one.float() for one in record.traces.spikes]
        for step in range(self.time_steps):
            for index, layer in enumerate(self.snn.layers):
                for convolution, one in zip(self.synapses[index], layer.synapses, strict=False):  # type: ignore[call-overload]
                    source = one.spec.source
                    if source >= 0:
                        convolution(spikes[source][step] * self.snn.spec.amplitude(source))
                    elif step == 0:
                        convolution(images.float())
                self.neurons[index](spikes[index][step])
            self.classifier((spikes[-1][step] * self.snn.spec.amplitude(len(spikes) - 1)).flatten(1))
        return record.logits[-1]


def _convolution(synapses: Synapses) -> nn.Conv2d:
    spec = synapses.spec
    geometry = spec.stride, spec.padding, spec.dilation, spec.groups
    convolution = nn.Conv2d(spec.in_shape[0], spec.out_shape[0], spec.kernel, *geometry, bias=False)
    convolution.weight = nn.Parameter(synapses.weight.float(), requires_grad=False)
    return convolution


def neurobench_model(snn: SNN, time_steps: int) -> Any:
    """The network as a model for `neurobench.benchmarks.Benchmark`, run for `time_steps` steps an image.

    Its Effective_ACs are the effective synaptic operations of the hidden layers and of the classifier; a signed
    spike is one. Its Effective_MACs are those of the encoder, whose input are pixels, and, where k > 0, of what
    reads the encoder, whose spikes carry 2^k. Dense is every synapse at every step, the encoder once. The footprint
    counts float32, as torch holds no two-bit weights: `hardware.cost` has the circuit's.
    """
    require_packages("neurobench", "snntorch")
    from neurobench.models import TorchModel

    model = TorchModel(SpikingModule(snn, time_steps))
    model.add_activation_module(Spikes)
    return model
