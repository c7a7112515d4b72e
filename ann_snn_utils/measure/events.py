"""What energy is paid for: the events in each layer of a spiking network for one image, and its dense rivals.

Fan-outs are exact at the border of a map. Whatever the network is made of, a layer is one row of events, and all
models of energy read these rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from torch import Tensor

from ..ann.device import on_cpu
from ..ann.notation import NetworkSpec
from ..simulator.record import Record
from ..snn.certificate import count_bits, signed_bits
from ..snn.network import SNN, SpikingLayer

ENCODER, HIDDEN, CLASSIFIER = "encoder", "hidden", "classifier"

# The width of a full-precision weight, threshold or membrane.
FLOAT_BITS = 32


@dataclass(frozen=True, eq=False)
class LayerEvents:
    """The size of a layer, and its events at each step of a run, as means over the images.

    kind: ENCODER, HIDDEN or CLASSIFIER. inputs, neurons, channels: numbers of them; taps: places of the kernel.
    weights: as of `stored_weights`. synapses: pairs of an input and a neuron with a weight between them. macs:
    multiply-accumulates of a dense implementation, which also multiplies the padding. nonzero_macs: synapses whose
    input, the quantized network's activation, is not zero; None where the record does not tell. weight_bits,
    membrane_bits, count_bits, threshold_bits: widths; the membrane's holds its worst case and every threshold,
    which lies at most one above it.
    At each step, float64 [T]: arriving: spikes that reach the layer. sops, effective_sops: synapses, and those with
    a weight other than zero, that these reach. spikes: its own; a hidden layer's thresholds move with each.
    working: the share of images for which the layer still has to run. For k = 0, effective_sops are what NeuroBench
    calls effective ACs.
    """

    name: str
    kind: str
    inputs: int
    neurons: int
    channels: int
    taps: int
    weights: int
    synapses: int
    macs: int
    nonzero_macs: float | None
    weight_bits: int
    membrane_bits: int
    count_bits: int
    threshold_bits: int
    arriving: np.ndarray
    sops: np.ndarray
    effective_sops: np.ndarray
    spikes: np.ndarray
    working: np.ndarray

    @property
    def fully_connected(self) -> bool:
        """Whether every weight belongs to one synapse only."""
        return self.neurons == self.channels

    @property
    def moves(self) -> np.ndarray:
        """Threshold moves at each step, [T]: the encoder's climb, one to a channel, the others' follow spikes."""
        return self.channels * self.working if self.kind == ENCODER else self.spikes * (self.kind == HIDDEN)

    def comparisons(self, clocked: bool, skip_zero_weights: bool) -> np.ndarray:
        """Comparisons of a membrane with a threshold at each step, [T]; the classifier has none.

        clocked: of every neuron in every step. Otherwise of those that something reached, or whose own threshold
        moved in the step before; no two arrivals are taken to reach the same neuron, so this is their upper bound.
        """
        every = self.neurons * self.working * (self.kind != CLASSIFIER)
        if clocked or self.kind == ENCODER:
            return every
        reached = self.effective_sops if skip_zero_weights else self.sops
        return np.minimum(every, reached + np.append(0.0, self.spikes[:-1]))

    def scaled(self, factor: float) -> LayerEvents:
        """The same layer with so many times the spikes."""
        names = ("arriving", "sops", "effective_sops", "spikes")
        return replace(self, **{name: factor * getattr(self, name) for name in names})


@on_cpu
def layer_events(
    record: Record, snn: SNN, time_steps: int | None = None, until_silence: bool = True
) -> tuple[LayerEvents, ...]:
    """The events of every layer, encoder first and the classifier last, in a run or its first `time_steps`.

    until_silence: each image stops with the step that shows its silence; otherwise all run for `time_steps`.
    Raises ValueError for a record of another network or too short a run.
    """
    steps = check_record(record, snn, time_steps)
    share = 1 / record.samples
    spikes = share * (record.positive + record.negative)[:steps]
    step = np.arange(1, steps + 1)
    running = np.ones(steps)
    if until_silence:
        settled = record.settled_at.numpy()
        running = ((settled == 0) | (step[:, None] <= settled + 1)).mean(1)
    work, layers = macs(snn.spec), []
    for index, layer in enumerate(snn.layers):
        synapses, maxima = layer.synapses, layer.spec.kind == "maximum"
        sources = [one.spec.source for one in synapses] if index else []
        nonzero = None
        if sources and record.counts:
            nonzero = sum(_reached(record.counts[one.spec.source], one.fan_out) for one in synapses)
        bits = FLOAT_BITS
        if layer.integer:
            lowest, highest = layer.membrane
            bits = signed_bits(lowest, highest + 1)
        layers.append(
            LayerEvents(
                name=layer.name,
                kind=HIDDEN if index else ENCODER,
                inputs=sum(prod(one.spec.in_shape) for one in synapses),
                neurons=layer.neurons,
                channels=len(layer.weight),
                taps=prod(layer.spec.kernel),
                weights=stored_weights(layer),
                synapses=sum(int(one.fan_out.sum()) for one in synapses),
                macs=work[index],
                nonzero_macs=nonzero,
                weight_bits=0 if maxima else max(_weight_bits(one.weight) for one in synapses),
                membrane_bits=bits,
                count_bits=count_bits(*layer.counts) if index else 0,
                threshold_bits=FLOAT_BITS if layer.thresholds.is_floating_point() else bits,
                arriving=spikes[:, sources].sum(1),
                sops=share * record.sops[:steps, index],
                effective_sops=share * record.effective_sops[:steps, index],
                spikes=spikes[:, index],
                working=running if index else (step <= snn.levels).astype(np.float64),
            )
        )
    return (*layers, _classifier(snn, layers[-1], record, work[-1]))


def _classifier(snn: SNN, last: LayerEvents, record: Record, macs: int) -> LayerEvents:
    weight = snn.classifier.flatten(1)
    classes, inputs = weight.shape
    reach = weight.double().abs().sum(1) * max(map(abs, snn.layers[-1].counts))
    most = int((reach if snn.bias is None else reach + snn.bias.abs()).max())
    # Which inputs fired is not in the totals: the share of weights other than zero stands for all of them.
    share = int((weight != 0).sum()) / weight.numel()
    counts = record.counts[-1].flatten(1) if record.counts else None
    sops = last.spikes * classes
    bits = FLOAT_BITS if weight.is_floating_point() else signed_bits(-most, most)
    return LayerEvents(
        name="classifier",
        kind=CLASSIFIER,
        inputs=inputs,
        neurons=classes,
        channels=classes,
        taps=prod(snn.classifier.shape[2:]),
        # As of `stored_weights`.
        weights=macs,
        synapses=weight.numel(),
        macs=macs,
        nonzero_macs=None if counts is None else float((counts != 0).sum()) * classes / len(counts),
        weight_bits=_weight_bits(weight),
        membrane_bits=bits,
        count_bits=0,
        threshold_bits=bits,
        arriving=last.spikes,
        sops=sops,
        effective_sops=sops * share,
        spikes=np.zeros_like(sops),
        working=last.working,
    )


def stored_weights(layer: SpikingLayer) -> int:
    """How many weights a layer has to store, as a dense one has.

    Those of an average's window are one. The identity has one for each channel. Maxima have none: a comparison
    takes the place of a weight.
    """
    return layer.spec.weights + sum(branch.identity for branch in layer.spec.branches) * len(layer.weight)


def _weight_bits(weight: Tensor) -> int:
    if weight.is_floating_point():
        return FLOAT_BITS
    return 2 if int(weight.abs().max()) <= 1 else 8


def _reached(counts: Tensor, fan_out: Tensor) -> float:
    # NumPy counts ten times as fast as torch does.
    fired = np.count_nonzero(counts.numpy(), axis=0)
    return float((fired * fan_out.numpy()).sum()) / len(counts)


def check_record(record: Record, snn: SNN, time_steps: int | None) -> int:
    """The number of steps to look at; ValueError for a record of another network, or of too few steps."""
    if record.neurons != tuple(layer.neurons for layer in snn.layers):
        raise ValueError(
            f"the record has layers of {record.neurons} neurons, this network others: pass the network it ran on"
        )
    steps = record.time_steps if time_steps is None else time_steps
    if not 1 <= steps <= record.time_steps:
        raise ValueError(f"time_steps={time_steps!r}: the record holds steps 1 to {record.time_steps}")
    return steps


def check_silent(record: Record) -> None:
    """Raise ValueError for a record that ended before every image was silent."""
    if waiting := int((record.settled_at == 0).sum()):
        raise ValueError(
            f"{waiting} of {record.samples} images are not silent after {record.time_steps} steps, so what they "
            "end on is not known: simulate with time_steps=None, or for longer where faults keep them from silence"
        )


def macs(spec: NetworkSpec) -> list[int]:
    """Multiply-accumulates of each layer for one image, encoder first and the classifier last.

    They are a dense implementation's: padded positions at the border count too. The published comparison
    leaves out both ends: sum(macs(spec)[1:-1]).

    >>> macs(NetworkSpec("32C5-P2-64C5-P2-1000", (1, 28, 28), classes=10))
    [460800, 589824, 3276800, 262144, 1024000, 10000]
    """
    return [*(layer.macs for layer in spec.layers), prod(spec.graph.inputs) * spec.classes]


def spikes_per_synapse(layers: Sequence[LayerEvents], nonzero: bool = False) -> float:
    """Spikes that a synapse carries in one inference, on average over all but the encoder's.

    nonzero: only operations at weights other than zero count, over all synapses all the same.
    """
    spiking = [layer for layer in layers if layer.kind != ENCODER]
    operations = sum(float((layer.effective_sops if nonzero else layer.sops).sum()) for layer in spiking)
    return operations / sum(layer.synapses for layer in spiking)


def at_first_step(layer: LayerEvents, amount: float) -> np.ndarray:
    """An amount that is due once, when the image is presented, [T]."""
    return amount * np.eye(1, len(layer.working))[0]


@dataclass(frozen=True)
class Rival:
    """A dense network of the spiking network's shape, which sees the image once.

    activation_bits, weight_bits: widths of its hidden layers; None for the spiking network's own weights, and
    ternary ones are then added, not multiplied. Below 8 bits, pixels and the two ends keep their own widths.
    skip_zeros: multiplications by an activation of zero, and their fetches, are left out.
    """

    name: str
    activation_bits: int
    weight_bits: int | None
    skip_zeros: bool = False

    def widths(self, layer: LayerEvents) -> tuple[int, int]:
        """Bits of an activation that enters the layer, and of a weight."""
        activation = max(8, self.activation_bits) if layer.kind == ENCODER else self.activation_bits
        if self.weight_bits is None or (self.weight_bits < 8 and layer.kind != HIDDEN):
            return activation, layer.weight_bits
        return activation, self.weight_bits

    def adds(self, layer: LayerEvents) -> bool:
        """Whether the layer's weights are −1, 0 and +1, so that nothing has to be multiplied."""
        return self.weight_bits is None and layer.weight_bits == 2

    def operations(self, layer: LayerEvents, dense: float) -> float:
        """How many of a layer's dense operations are carried out; pixels of zero are not skipped."""
        if not self.skip_zeros or layer.kind == ENCODER:
            return dense
        if layer.nonzero_macs is None:
            raise ValueError(f"{self.name}: the record holds no counts to tell which activations are zero")
        return dense * layer.nonzero_macs / layer.synapses


FP32, INT8 = Rival("FP32", 32, 32), Rival("int8", 8, 8)
SKIPPING = Rival("int8, zeros skipped", 8, 8, skip_zeros=True)


def rivals_of(layers: Sequence[LayerEvents]) -> dict[str, Rival]:
    """The networks to compare with: FP32, int8, int8 that skips zeros, and two of ⌈log2(T + 1)⌉ bits.

    So many bits hold the counts of a run of T steps (Yan et al., arXiv 2409.08290): "matched" has them in its
    weights too, "ternary" has the spiking network's own weights, which makes it the very network that was
    converted.
    """
    bits = len(layers[0].working).bit_length()
    found = {"fp32": FP32, "int8": INT8}
    if all(layer.nonzero_macs is not None for layer in layers if layer.kind != ENCODER):
        found["int8_skipping"] = SKIPPING
    found["matched"] = Rival(f"{bits}-bit", bits, bits)
    found["ternary"] = Rival(f"{bits}-bit, ternary weights", bits, None)
    return found
