"""Who takes part in the benchmark: each contender's job on a workload, ready to be timed, and its exactness.

The same quantized network in other simulators, where they are installed: SpikingJelly and snnTorch.

Both compute in float32 with real-valued thresholds and biases; batch norms are folded into the weights.

The integer network in plain NumPy, as the published system simulates it: the benchmark's first rival.

Arrays of float64, one im2col and one matrix product for each layer and step, all steps whether or not anything
fires. Only the thresholds are the exact ones, so that its answers can be compared.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from ..ann.network import ANN
from ..ann.notation import LayerSpec
from ..ann.reference import codes
from ..simulator.run import choose_backend, simulate
from ..snn.network import SNN, SpikingLayer
from .workload import Workload


def simulate_numpy(snn: SNN, images: np.ndarray, time_steps: int) -> np.ndarray:
    """Give the class scores after each step, float64 [T, N, classes], for uint8 images [N, C, H, W].

    Source: Zou et al. 2024; the neuron is that of `neuron.py`.
    """
    encoder, *hidden = snn.layers
    pixels = _convolve(images.transpose(0, 2, 3, 1).astype(np.float64), _columns(encoder), encoder.spec)
    climbing = np.ones(pixels.shape, dtype=bool)
    # A spike of the encoder carries 2^k counts.
    weights = [_columns(layer) * (1 if index else snn.amplitude) for index, layer in enumerate(hidden)]
    states = [_State(layer, len(images)) for layer in hidden]
    classifier = snn.classifier.double().permute(2, 3, 1, 0).flatten(0, 2).numpy()
    score, scores = np.zeros((len(images), snn.spec.classes)), []
    for step in range(time_steps):
        if step < snn.levels:
            climbing &= pixels >= encoder.thresholds[:, step].numpy()
            spikes = climbing.astype(np.float64)
        else:
            spikes = np.zeros(pixels.shape)
        for layer, weight, state in zip(hidden, weights, states, strict=True):
            spikes = state.fire(_convolve(spikes, weight, layer.spec))
        score = score + spikes.reshape(len(images), -1) @ classifier
        scores.append(score)
    return np.stack(scores)


def _columns(layer: SpikingLayer) -> np.ndarray:
    return layer.weight.double().flatten(1).T.contiguous().numpy()


def _convolve(inputs: np.ndarray, weight: np.ndarray, spec: LayerSpec) -> np.ndarray:
    """Give the sums [N, H', W', O] of inputs [N, H, W, I]: im2col, then one matrix product."""
    pad = (spec.padding, spec.padding)
    padded = np.pad(inputs, ((0, 0), pad, pad, (0, 0)))
    windows = sliding_window_view(padded, spec.kernel, (1, 2))[:, :: spec.stride, :: spec.stride]
    shape = windows.shape[:3]
    return (windows.reshape(-1, weight.shape[0]) @ weight).reshape(*shape, -1)


class _State:
    """The membranes, counts and moving thresholds of one layer, each float64 [N, H, W, C]."""

    def __init__(self, layer: SpikingLayer, samples: int) -> None:
        channels, height, width = layer.spec.out_shape
        table = layer.thresholds.double().numpy()
        ends = np.full((channels, 1), np.inf)
        # θ_0 is never undercut and the one behind the last is never reached.
        self.table = np.concatenate([-ends, table, ends], 1)
        self.membrane = np.zeros((samples, height, width, channels))
        self.count = np.zeros(self.membrane.shape, dtype=np.int64)
        self.lower = np.broadcast_to(self.table[:, 0], self.membrane.shape).copy()
        self.upper = np.broadcast_to(self.table[:, 1], self.membrane.shape).copy()

    def fire(self, sums: np.ndarray) -> np.ndarray:
        """Add the sums to the membranes and give the spikes −1, 0, +1; thresholds move where one was sent."""
        self.membrane += sums
        spikes = (self.membrane >= self.upper).astype(np.float64)
        spikes -= self.membrane < self.lower
        moved = np.nonzero(spikes)
        self.count[moved] += spikes[moved].astype(np.int64)
        channel, count = moved[3], self.count[moved]
        self.lower[moved], self.upper[moved] = self.table[channel, count], self.table[channel, count + 1]
        return spikes


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


LABELS = {
    "events": "this project, events",
    "dense": "this project, dense",
    "silence": "this project, until silence",
    "ann-contiguous": "float32 ANN, contiguous",
    "ann-channels-last": "float32 ANN, channels last",
    "numpy": "NumPy im2col, float64",
    "spikingjelly": "SpikingJelly SpikeZIP, step by step",
    "spikingjelly-multi": "SpikingJelly SpikeZIP, multi-step",
    "snntorch": "snnTorch Leaky, another neuron",
}

# Those whose time does not depend on a number of steps.
TIMELESS = ("ann-contiguous", "ann-channels-last", "silence")

ANNS = ("ann-contiguous", "ann-channels-last")

SPIKINGJELLY = ("spikingjelly", "spikingjelly-multi")

# Rivals that are timed on small networks only: a VGG takes them minutes.
SLOW = ("numpy", *SPIKINGJELLY, "snntorch")

# Images on which exactness is checked; fewer of those in colour, whose networks take the float64 reference minutes.
EXACT_SAMPLES, EXACT_SAMPLES_IN_COLOUR = 64, 8


@dataclass(frozen=True)
class Contender:
    """A named job: `run` gives the class of each image, int64 [N]."""

    name: str
    run: Callable[[], Tensor]

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return LABELS[self.name]


def available(names: Sequence[str], work: Workload) -> tuple[list[str], list[str]]:
    """Give those contenders that can take part, and a line for each that cannot, with the reason.

    Raises ValueError for a name that is no contender's.
    """
    taking, skipped = [], []
    for name in names:
        if name not in LABELS:
            raise ValueError(f"contender {name!r}: choose from {', '.join(LABELS)}")
        package = {"spikingjelly-multi": "spikingjelly"}.get(name, name)
        reason = missing(package) if package in ("spikingjelly", "snntorch") else None
        if name == "events" and choose_backend(work.snn, None) != "events":
            reason = "numba is missing: pip install numba"
        if reason:
            skipped.append(f"{LABELS[name]}: skipped, {reason}")
        else:
            taking.append(name)
    return taking, skipped


def enter(name: str, work: Workload, time_steps: int) -> Contender:
    """Give the contender of that name on a workload over `time_steps`; whatever can be prepared is."""
    images, scaled = work.images, work.images.float() / 255
    if name in ("events", "dense", "silence"):
        steps, backend = (None, None) if name == "silence" else (time_steps, name)

        def run() -> Tensor:
            return simulate(work.snn, images, steps, backend=backend).predictions[-1]

    elif name in ANNS:
        layout = torch.channels_last if name == "ann-channels-last" else torch.contiguous_format
        ann, batch = copy.deepcopy(work.ann).to(memory_format=layout), scaled.contiguous(memory_format=layout)

        def run() -> Tensor:
            return _forward(ann, batch).argmax(1)

    elif name == "numpy":
        pixels = images.numpy()

        def run() -> Tensor:
            return torch.from_numpy(simulate_numpy(work.snn, pixels, time_steps)[-1].argmax(1))

    elif name in SPIKINGJELLY:
        net = spikingjelly(work.qann)

        def run() -> Tensor:
            return run_spikingjelly(net, scaled, time_steps, multi_step=name == "spikingjelly-multi").argmax(1)

    else:
        leaky = snntorch(work.qann)

        def run() -> Tensor:
            return run_snntorch(leaky, scaled, time_steps).argmax(1)

    return Contender(name, run)


@torch.inference_mode()
def _forward(ann: ANN, batch: Tensor) -> Tensor:
    return ann(batch)


def exactness(name: str, work: Workload, time_steps: int) -> dict[str, object]:
    """Give {"exact": bool or None, "checked": what was compared} of a contender on some of the images.

    Simulators of this project: class scores of every step equal those of the NumPy baseline, and counts at
    silence the quantized network's codes. NumPy: the same scores. SpikingJelly: its counts once settled.
    None for the float32 network and for another neuron, which answer another question.
    """
    images = work.images[: EXACT_SAMPLES if work.images.shape[1] == 1 else EXACT_SAMPLES_IN_COLOUR]
    if name in SPIKINGJELLY:
        different = spikingjelly_mismatches(spikingjelly(work.qann), work.qann, images)
        return {"exact": different == 0, "checked": f"{different} settled counts differ from the ANN's codes"}
    if name in (*ANNS, "snntorch"):
        return {"exact": None, "checked": "not the same computation"}
    backend = name if name in ("events", "dense") else None
    settled = simulate(work.snn, images, backend=backend)
    different = sum(
        int((count != code).sum()) for count, code in zip(settled.counts, codes(work.qann, images)[0], strict=True)
    )
    scores = torch.from_numpy(simulate_numpy(work.snn, images.numpy(), time_steps))
    equal = bool((scores == simulate(work.snn, images, time_steps, backend=backend).logits).all())
    return {
        "exact": equal and different == 0,
        "checked": f"{different} counts at silence differ from the ANN's codes; class scores of every step "
        f"{'equal' if equal else 'differ from'} the NumPy baseline's",
    }
