"""A circuit for an integer network: A, D and f of each layer, every bit width, and what it must reproduce.

Its golden outputs are the spikes of every layer and step, the membranes at the end, scores and predictions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..simulator.record import Record, Traces
from ..simulator.run import simulate
from ..snn.certificate import LayerCertificate, certify, count_bits, signed_bits
from ..snn.network import SNN, SpikingLayer, smallest_integer

# Samples whose spikes and membranes are held in memory at once.
CHUNK = 16


def golden_records(snn: SNN, images: Tensor, time_steps: int) -> Iterator[tuple[Record, Traces]]:
    """Yield the runs of uint8 images [N, C, H, W] with all their traces, a few samples at a time, in order.

    Raises ValueError, as `simulate` does, where a neuron needs more counts than its layer has.
    """
    for part in images.split(CHUNK):
        record = simulate(snn, part, time_steps, trace=range(len(part)))
        assert record.traces is not None, "the run was asked to trace its samples"
        yield record, record.traces


@dataclass(frozen=True, eq=False)
class LayerHardware:
    """One layer as a circuit; every width is in bits, signed where the value may be negative.

    weights: for each of its synapses the bits of a weight, 2 for −1, 0, +1, else 8; none for maxima. largest_count:
    how many levels J a neuron's count can climb, from `lowest_count`; saturates: an input could ask for more.
    fraction_bits: f of (U << f) ≥ A + j·D. offset, step: A and D, int64 [O]. membrane: least and greatest U.
    membrane_bits: of U, which holds every partial sum too. threshold_bits: of A + j·D for every level j that a
    count can stand at or before, and of U << f. count_bits: of a count, unsigned where it begins with 0.
    """

    layer: SpikingLayer
    weights: tuple[int, ...]
    largest_count: int
    saturates: bool
    fraction_bits: int
    offset: Tensor
    step: Tensor
    membrane: tuple[int, int]
    membrane_bits: int
    threshold_bits: int
    count_bits: int

    @property
    def weight_bits(self) -> int:
        """Bits of a weight of its first synapses."""
        return self.weights[0]

    @property
    def lowest_count(self) -> int:
        """The least count, 0 where there is a ReLU."""
        return self.layer.spec.lowest

    @property
    def maximum(self) -> bool:
        """Whether its membrane is the largest count in a window, and not a sum."""
        return self.layer.spec.kind == "maximum"

    @property
    def constant_bytes(self) -> int:
        """Bytes of the smallest integer type for A and D."""
        ends = torch.cat([self.offset, self.step])
        return bytes_for(int(ends.min()), int(ends.max()))

    @property
    def membrane_bytes(self) -> int:
        """Bytes of the smallest integer type for a membrane."""
        return bytes_for(*self.membrane)


@dataclass(frozen=True, eq=False)
class Hardware:
    """A network as a circuit: its layers, encoder first; the least and greatest class score, and a score's bits."""

    layers: tuple[LayerHardware, ...]
    score: tuple[int, int]
    score_bits: int

    @property
    def score_bytes(self) -> int:
        """Bytes of the smallest integer type for a class score."""
        return bytes_for(*self.score)


def bytes_for(lowest: int, highest: int) -> int:
    """Size of the smallest signed integer type of whole bytes that holds lowest … highest."""
    return torch.iinfo(smallest_integer(lowest, highest)).bits // 8


def hardware(snn: SNN) -> Hardware:
    """The circuit of an integer network, with thresholds that one adder makes.

    The order in which the spikes of a step are added does not matter: every count lies in 0 … J before and
    after its spike, so any partial sum lies within the worst case of U. Raises ValueError for a network that
    is not all integers, or whose thresholds no A + j·D gives, or whose neuron is the published one.
    """
    if any(layer.rising is not None for layer in snn.layers):
        raise ValueError(
            f"thresholds={snn.thresholds!r}: the published neuron compares strictly, with two thresholds, and one "
            "adder would not give its spikes; convert the network with thresholds='exact'"
        )
    certificates = certify(snn)
    pairs = zip(snn.layers, certificates, strict=True)
    layers = tuple(_layer(index, layer, certificate) for index, (layer, certificate) in enumerate(pairs))
    last, weight = layers[-1], snn.classifier.long().flatten(1)
    counts = (last.lowest_count, last.lowest_count + last.largest_count)
    ends = torch.stack([weight * count for count in counts])
    begin = torch.zeros(len(weight), dtype=torch.int64) if snn.bias is None else snn.bias
    score = int((begin + ends.amin(0).sum(1)).min()), int((begin + ends.amax(0).sum(1)).max())
    return Hardware(layers, score, signed_bits(*score))


def _layer(index: int, layer: SpikingLayer, certificate: LayerCertificate) -> LayerHardware:
    most, bits = layer.thresholds.shape[1], certificate.fractional_bits
    least = layer.spec.lowest
    level = torch.arange(most + 2) + least
    compared = certificate.offset[:, None] + level * certificate.step[:, None]
    lowest, highest = certificate.membrane
    ends = min(int(compared.min()), lowest << bits), max(int(compared.max()), highest << bits)
    kept = () if layer.spec.kind == "maximum" else layer.synapses
    return LayerHardware(
        layer,
        tuple(2 if index > 0 and int(one.weight.abs().max()) <= 1 else 8 for one in kept) or (2,),
        most,
        layer.saturates,
        bits,
        certificate.offset,
        certificate.step,
        certificate.membrane,
        certificate.membrane_bits,
        signed_bits(*ends),
        count_bits(least, least + most),
    )
