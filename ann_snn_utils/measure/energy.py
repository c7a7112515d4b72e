"""Energy of arithmetic: what a run's additions cost, against the same network's multiplications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from ..ann.notation import NetworkSpec
from ..simulator.record import Record
from ..snn.network import SNN, SpikingLayer, smallest_integer


@dataclass(frozen=True)
class EnergyConstants:
    """Picojoules of one operation of each kind; `source` says where they come from.

    Make another set with `dataclasses.replace(ENERGY_45NM, name=…, source=…, int32_add=…)`.
    """

    name: str
    source: str
    fp32_mac: float
    fp32_add: float
    int8_mac: float
    int32_add: float
    int8_add: float


ENERGY_45NM = EnergyConstants(
    name="45 nm",
    source="M. Horowitz, Computing's energy problem (and what we can do about it), ISSCC 2014, 45 nm at 0.9 V",
    fp32_mac=4.6,
    fp32_add=0.9,
    int8_mac=0.23,
    int32_add=0.1,
    int8_add=0.03,
)


@dataclass(frozen=True)
class Parts:
    """Picojoules for one sample: encoding layer, hidden synapses, threshold updates, classifier."""

    encoder: float
    hidden: float
    thresholds: float
    classifier: float

    @property
    def total(self) -> float:
        """Sum of the parts."""
        return self.encoder + self.hidden + self.thresholds + self.classifier


@dataclass(frozen=True)
class Energy:
    """Picojoules for one sample: the spiking network, and the same network dense in int8 and in FP32.

    adds: the kind of addition that each hidden layer's membrane was charged for, "int8", "int32" or "fp32".
    """

    snn: Parts
    ann_int8: Parts
    ann_fp32: Parts
    adds: tuple[str, ...]


def macs(spec: NetworkSpec) -> list[int]:
    """Multiply-accumulates of each layer for one image, encoder first and the classifier last.

    They are a dense implementation's: padded positions at the border count too. The published comparison
    leaves out both ends: sum(macs(spec)[1:-1]).

    >>> macs(NetworkSpec("32C5-P2-64C5-P2-1000", (1, 28, 28), classes=10))
    [460800, 589824, 3276800, 262144, 1024000, 10000]
    """
    return [*(layer.macs for layer in spec.layers), prod(spec.graph.inputs) * spec.classes]


def energy(
    record: Record, snn: SNN, constants: EnergyConstants = ENERGY_45NM, time_steps: int | None = None
) -> Energy:
    """Energy of one sample's arithmetic, averaged over a run (or over its first `time_steps`).

    Spiking network: int8 multiply-accumulates of the encoder, once, as the image is presented once; one
    addition for every effective synaptic operation, for every hidden spike (its threshold moves) and for
    every channel and level of the encoder (whose neurons share a threshold); for every spike of the last
    layer one int32 addition per class. A membrane is charged for int8 additions where its worst case and
    its thresholds fit 8 bits, else for int32; full-precision weights and thresholds are charged as FP32.
    Dense network: its multiply-accumulates, in int8 or FP32. Not counted on either side: memory access,
    comparisons, batch norm. Raises ValueError for a record of another network or too short a run.
    """
    if record.neurons != tuple(layer.neurons for layer in snn.layers):
        raise ValueError(
            f"the record has layers of {record.neurons} neurons, this network others: pass the network it ran on"
        )
    steps = record.time_steps if time_steps is None else time_steps
    if not 1 <= steps <= record.time_steps:
        raise ValueError(f"time_steps={time_steps!r}: the record holds steps 1 to {record.time_steps}")
    encoder, *hidden = snn.layers
    events = (record.positive + record.negative)[:steps].sum(0) / record.samples
    operations = record.effective_sops[:steps].sum(0) / record.samples
    climbs = len(encoder.weight) * min(steps, snn.levels)
    work = macs(snn.spec)

    adds = [_synapse_add(layer) for layer in hidden]
    updates = ["fp32" if layer.thresholds.is_floating_point() else _synapse_add(layer) for layer in snn.layers]
    read_out = "fp32" if snn.classifier.is_floating_point() else "int32"
    moves = [climbs, *events[1:]]
    spiking = Parts(
        encoder=work[0] * (constants.fp32_mac if encoder.weight.is_floating_point() else constants.int8_mac),
        hidden=_priced(operations[1:], adds, constants),
        thresholds=_priced(moves, updates, constants),
        classifier=float(events[-1]) * snn.spec.classes * _cost(constants, read_out),
    )
    int8, fp32 = (_dense(work, cost) for cost in (constants.int8_mac, constants.fp32_mac))
    return Energy(spiking, int8, fp32, tuple(adds))


def _dense(work: list[int], cost: float) -> Parts:
    return Parts(encoder=work[0] * cost, hidden=sum(work[1:-1]) * cost, thresholds=0.0, classifier=work[-1] * cost)


def _synapse_add(layer: SpikingLayer) -> str:
    if layer.weight.is_floating_point():
        return "fp32"
    # An integer threshold lies within the membrane's range, or one above it.
    fits = smallest_integer(int(layer.lowest.min()), int(layer.highest.max()) + 1) == torch.int8
    return "int8" if fits else "int32"


def _priced(numbers: Sequence[float], adds: list[str], constants: EnergyConstants) -> float:
    return float(sum(n * _cost(constants, add) for n, add in zip(numbers, adds, strict=True)))


def _cost(constants: EnergyConstants, add: str) -> float:
    return float(getattr(constants, f"{add}_add"))
