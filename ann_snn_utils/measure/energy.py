"""Energy of arithmetic: what a run's additions cost, against the same network's multiplications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..simulator.record import Record
from ..snn.network import SNN
from .events import CLASSIFIER, ENCODER, FLOAT_BITS, HIDDEN, LayerEvents, Rival, at_first_step, layer_events


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
    comparisons, batch norm, and so the gains of branches that are added, which are ratios of batch norms.
    Raises ValueError for a record of another network or too short a run.
    """
    return energy_over_time(record, snn, constants, time_steps)[-1]


def energy_over_time(
    record: Record, snn: SNN, constants: EnergyConstants = ENERGY_45NM, time_steps: int | None = None
) -> list[Energy]:
    """What `energy` says of the first step, the first two, and so on up to all (or `time_steps`) of them."""
    layers, how = layer_events(record, snn, time_steps, until_silence=False), Arithmetic(constants)
    costs = [arithmetic_spiking(layer, how) for layer in layers]
    int8, fp32 = (_dense(layers, cost) for cost in (constants.int8_mac, constants.fp32_mac))
    adds = tuple(kind_of_add(layer) for layer in layers if layer.kind == HIDDEN)
    return [Energy(_spent(costs, step), int8, fp32, adds) for step in range(1, len(layers[0].working) + 1)]


def _spent(costs: Sequence[dict[str, np.ndarray]], steps: int) -> Parts:
    encoder, *hidden, classifier = (float(cost["synapses"][:steps].sum()) for cost in costs)
    return Parts(encoder, sum(hidden), sum(float(cost["thresholds"][:steps].sum()) for cost in costs), classifier)


@dataclass(frozen=True)
class Arithmetic:
    """What the model of arithmetic alone assumes: constants, and whether synapses of weight zero are skipped."""

    constants: EnergyConstants = ENERGY_45NM
    skip_zero_weights: bool = True


def arithmetic_spiking(layer: LayerEvents, how: Arithmetic) -> dict[str, np.ndarray]:
    """Picojoules of a spiking layer's arithmetic at each step, component → [T], as `energy` counts it."""
    constants = how.constants
    add = getattr(constants, f"{kind_of_add(layer)}_add")
    moved = constants.fp32_add if layer.threshold_bits == FLOAT_BITS else add
    if layer.kind == ENCODER:
        synapses = at_first_step(layer, layer.macs * _mac(constants, layer.weight_bits))
    else:
        # The classifier adds an integer for each class, whatever it is.
        skips = how.skip_zero_weights and layer.kind == HIDDEN
        synapses = add * (layer.effective_sops if skips else layer.sops)
    return {"synapses": synapses, "thresholds": moved * layer.moves}


def arithmetic_dense(layer: LayerEvents, rival: Rival, how: Arithmetic) -> dict[str, float]:
    """Picojoules of a dense layer's multiply-accumulates; of its additions where its weights are −1, 0 and +1.

    Widths below 8 bits cost what 8 bits do, and wider ones what FP32 does.
    """
    adds = getattr(how.constants, f"{kind_of_add(layer)}_add")
    each = adds if rival.adds(layer) else _mac(how.constants, max(rival.widths(layer)))
    return {"synapses": each * rival.operations(layer, layer.macs)}


def kind_of_add(layer: LayerEvents) -> str:
    """The addition that a layer's membrane is charged for: "int8" where it fits 8 bits, else "int32"; or "fp32"."""
    if layer.weight_bits == FLOAT_BITS:
        return "fp32"
    # An integer threshold lies within the membrane's range, or one above it.
    return "int8" if layer.kind != CLASSIFIER and layer.membrane_bits <= 8 else "int32"


def _mac(constants: EnergyConstants, bits: int) -> float:
    return constants.int8_mac if bits <= 8 else constants.fp32_mac


def _dense(layers: Sequence[LayerEvents], cost: float) -> Parts:
    encoder, *hidden, classifier = (layer.macs for layer in layers)
    return Parts(encoder=encoder * cost, hidden=sum(hidden) * cost, thresholds=0.0, classifier=classifier * cost)
