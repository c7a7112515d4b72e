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
from ..snn.certificate import LayerCertificate, certify, signed_bits
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

    weight_bits: 2 for −1, 0, +1, else 8. largest_count: spikes J that a neuron can have sent; saturates: an
    input could ask for more. fraction_bits: f of (U << f) ≥ A + j·D. offset, step: A and D, int64 [O].
    membrane: least and greatest U. membrane_bits: of U, which holds every partial sum too. threshold_bits: of
    A + j·D for 0 ≤ j ≤ J + 1, and of U << f. count_bits: of an unsigned count 0 … J.
    """

    layer: SpikingLayer
    weight_bits: int
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
    """A network as a circuit: its layers, encoder first, and the width of a class score, in bits."""

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
    reach = snn.classifier.long().flatten(1) * layers[-1].largest_count
    score = int(reach.clamp(max=0).sum(1).min()), int(reach.clamp(min=0).sum(1).max())
    return Hardware(layers, score, signed_bits(*score))


def _layer(index: int, layer: SpikingLayer, certificate: LayerCertificate) -> LayerHardware:
    most, bits = layer.thresholds.shape[1], certificate.fractional_bits
    level = torch.arange(most + 2)
    compared = certificate.offset[:, None] + level * certificate.step[:, None]
    lowest, highest = certificate.membrane
    ends = min(int(compared.min()), lowest << bits), max(int(compared.max()), highest << bits)
    ternary = index > 0 and int(layer.weight.abs().max()) <= 1
    return LayerHardware(
        layer,
        2 if ternary else 8,
        most,
        layer.saturates,
        bits,
        certificate.offset,
        certificate.step,
        (lowest, highest),
        certificate.membrane_bits,
        signed_bits(*ends),
        most.bit_length(),
    )
