"""The same quantized network in other simulators, where they are installed: SpikingJelly and snnTorch.

Both compute in float32 with real-valued thresholds and biases; batch norms are folded into the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from .models import ANN, codes

# Counts of a layer without a clip stay far below this in every network that is timed.
_LARGEST_COUNT = 63
# Steps in which the converted network of SpikingJelly settles.
SETTLING_STEPS = 64


def missing(name: str) -> str | None:
    """Give why a peer ("spikingjelly", "snntorch") cannot take part, or None where it is installed."""
    return None if find_spec(name) else f"{name} is not installed: pip install -c constraints.txt '.[bench]'"


class Quantizer(nn.Module):
    """The quantized ReLU in the form that SpikingJelly's SpikeZIP recipe looks for: s, sym, pos_max, neg_min."""

    def __init__(self, step: float, largest: int, level: int) -> None:
        super().__init__()
        self.s, self.sym, self.pos_max, self.neg_min, self.level = step, False, largest, 0, level

    def forward(self, x: Tensor) -> Tensor:
        return torch.floor(x / self.s + 0.5).clamp(0, self.pos_max) * self.s


@torch.no_grad()
def folded(qann: ANN, activation: Callable[[float, int], nn.Module]) -> nn.Sequential:
    """Give the network as convolutions with bias and `activation(step, largest count)` behind each."""
    modules: list[nn.Module] = []
    for layer in qann.layers:
        norm, spec = layer.norm, layer.spec
        gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        conv = nn.Conv2d(spec.in_shape[0], spec.out_shape[0], spec.kernel, spec.stride, spec.padding)
        conv.weight.copy_(layer.conv.weight.double() * gain[:, None, None, None])
        conv.bias.copy_(norm.bias.double() - norm.running_mean.double() * gain)
        n, clip = 2**layer.activation.k, layer.activation.clip
        modules += [conv, activation(1 / n, _LARGEST_COUNT * n if clip is None else clip * n)]
    read_out = nn.Linear(qann.classifier.in_features, qann.spec.classes, bias=False)
    read_out.weight.copy_(qann.classifier.weight * qann.classifier.scale)
    return nn.Sequential(*modules, nn.Flatten(), read_out).eval()


def spikingjelly(qann: ANN) -> nn.Module:
    """Give the network as SpikingJelly's SpikeZIP recipe converts it. ModuleNotFoundError without SpikingJelly."""
    logging.getLogger("spikingjelly").setLevel(logging.ERROR)
    from spikingjelly.activation_based.ann2snn import ModuleConverter, SpikeZIPTFQANNRecipe

    # The recipe spreads every bias over `level` steps, two at the least.
    ann = folded(qann, lambda step, largest: Quantizer(step, largest, level=2))
    return ModuleConverter(SpikeZIPTFQANNRecipe(time_steps=SETTLING_STEPS)).convert(ann)


@torch.inference_mode()
def run_spikingjelly(net: nn.Module, images: Tensor, time_steps: int, multi_step: bool) -> Tensor:
    """Give the class scores [N, classes] after `time_steps`: the image at the first step, zeros behind it.

    images: float32 [N, C, H, W] in 0 … 1. multi_step: all steps of a layer at once, SpikingJelly's mode "m".
    """
    from spikingjelly.activation_based import functional

    functional.reset_net(net)
    functional.set_step_mode(net, "m" if multi_step else "s")
    silence = torch.zeros_like(images)
    if not multi_step:
        return sum(net(silence if step else images) for step in range(time_steps))
    x = torch.stack([silence if step else images for step in range(time_steps)])
    for module in net:
        x = x.flatten(2) if isinstance(module, nn.Flatten) else module(x)
    return x.sum(0)


@torch.no_grad()
def spikingjelly_mismatches(net: nn.Module, qann: ANN, images: Tensor) -> int:
    """Give how many settled counts of SpikingJelly's network differ from the quantized network's codes."""
    run_spikingjelly(net, images.float() / 255, SETTLING_STEPS, multi_step=False)
    counts = [module.acc_q for module in net if hasattr(module, "acc_q")]
    pairs = zip(counts, codes(qann, images)[0], strict=True)
    return sum(int((count.round().long() != code).sum()) for count, code in pairs)


def snntorch(qann: ANN) -> nn.Sequential:
    """Give the network with snnTorch's Leaky neurons: no leak, a reset that subtracts the threshold of 1.

    The nearest that snnTorch has, and another neuron: it sends no −1, so nothing is ever taken back, and the
    image is shown, with all biases, at every step. Raises ValueError for k > 0 (its spikes are worth 1), and
    ModuleNotFoundError without snnTorch.
    """
    from snntorch import Leaky

    if qann.spec.k:
        raise ValueError(f"k={qann.spec.k}: spikes of snnTorch are worth 1, so only k=0 can be compared")
    return folded(qann, lambda *_: Leaky(beta=1.0, reset_mechanism="subtract", init_hidden=True))


@torch.inference_mode()
def run_snntorch(net: nn.Sequential, images: Tensor, time_steps: int) -> Tensor:
    """Give the class scores [N, classes] after `time_steps` of a constant float32 image [N, C, H, W]."""
    for module in net:
        if hasattr(module, "reset_mem"):
            module.reset_mem()
    return sum(net(images) for _ in range(time_steps))
