"""Energy with memory, after Lemaire et al. 2022: an access costs by the size of the memory that it goes to.

E. Lemaire, L. Cordone, A. Castagnetti, P.-E. Novac, J. Courtois, B. Miramond, An analytical estimation of spiking
neural networks energy efficiency, ICONIP 2022, arXiv 2210.13107: numbers of operations and accesses for each kind
of layer, and 45 nm constants. What it leaves open, or what was criticised since, is a choice in `Lemaire`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .energy import kind_of_add
from .events import CLASSIFIER, ENCODER, FLOAT_BITS, LayerEvents, Rival, at_first_step

# Picojoules of an addition and of a multiplication: Horowitz, ISSCC 2014, 45 nm at 0.9 V. Narrower integers cost
# what int8 does, those in between what int32 does.
ADD, MULTIPLY = {"int8": 0.03, "int32": 0.1, "fp32": 0.9}, {"int8": 0.2, "int32": 3.1, "fp32": 3.7}

# The paper's memories: kilobytes, and picojoules to read a word of 64 bits.
_KILOBYTES, _PICOJOULES = (0.0, 8.0, 32.0, 1024.0), (0.0, 10.0, 20.0, 100.0)


def by_size(memory_bits: float, value_bits: float, word_bits: int = 64) -> float:
    """Picojoules of an access, on the line between memories of 8 kB, 32 kB and 1 MB, which goes on beyond the last.

    >>> by_size(8 * 8192, 8), by_size(20 * 8192, 64), by_size(2016 * 8192, 2)
    (10.0, 15.0, 180.0)
    """
    kilobytes = memory_bits / 8192
    beyond = max(0.0, kilobytes - 1024) * (100 - 20) / (1024 - 32)
    return float(np.interp(kilobytes, _KILOBYTES, _PICOJOULES)) + beyond


def fitted(memory_bits: float, value_bits: float, word_bits: int = 64) -> float:
    """Picojoules of an access, on one straight line through them, as in the authors' code (qualia-plugin-snn)."""
    return 1.09e-5 * memory_bits + 13.2


def banked(memory_bits: float, value_bits: float, word_bits: int = 64) -> float:
    """Picojoules of a value's share of a word of an 8 kB bank, however many banks, as their code offers too.

    >>> banked(1e9, 8), banked(1e9, 20)
    (1.25, 3.3333333333333335)
    """
    return 10 / (word_bits // min(word_bits, value_bits))


ACCESS: dict[str, Callable[[float, float, int], float]] = {
    "by size": by_size,
    "fitted": fitted,
    "8 kB banks": banked,
}


@dataclass(frozen=True)
class Lemaire:
    """What the model assumes; the defaults are the paper's, with the network's own widths and zeros skipped.

    access: what a memory access costs, one of ACCESS; scale: a factor on it. skip_zero_weights: synapses of weight
    zero cost nothing. membranes: when one is read and written, with its count: "spike and step", for each synaptic
    operation and once a step; "step", where arrivals are summed up beside the neuron; "spike", for operations
    only, and a neuron that nothing reaches is not compared either. reuse: what a dense layer fetches but once:
    "none", "weights", or "all" its operands. value_bits: one width for every value; None for each value's own.
    word_bits: of a word of a bank, which holds as many values as go into it. thresholds: a comparison reads its
    threshold, and a dense neuron its bias. queue: addresses of spikes that can wait between two layers.
    """

    access: str = "by size"
    scale: float = 1.0
    skip_zero_weights: bool = True
    membranes: str = "spike and step"
    reuse: str = "none"
    value_bits: int | None = None
    word_bits: int = 64
    thresholds: bool = True
    queue: int = 64

    def fetch(self, values: float, bits: int) -> float:
        """Picojoules of one access to a memory of so many values of so many bits."""
        if not values:
            # Maxima have no weights: where nothing is stored, nothing is fetched.
            return 0.0
        width = self.value_bits or bits
        return self.scale * ACCESS[self.access](values * width, width, self.word_bits)


def lemaire_spiking(layer: LayerEvents, how: Lemaire) -> dict[str, np.ndarray]:
    """Picojoules of a spiking layer at each step, component → [T]."""
    sops = layer.effective_sops if how.skip_zero_weights else layer.sops
    comparisons = layer.comparisons(how.membranes != "spike", how.skip_zero_weights)
    each_spike, each_step = "spike" in how.membranes, "step" in how.membranes
    reads = writes = each_spike * sops + each_step * layer.neurons * layer.working
    if layer.kind == ENCODER:
        # Its membranes are written once, when the image is presented, and only read from then on.
        reads, writes = comparisons, at_first_step(layer, layer.neurons)
    arrival, departure = (how.fetch(how.queue, n.bit_length()) for n in (layer.inputs, layer.neurons))
    spent = {
        "arithmetic": ADD[kind_of_add(layer)] * (sops + comparisons + layer.moves),
        "weights": sops * how.fetch(layer.weights, layer.weight_bits),
        "membranes": (reads + writes) * how.fetch(layer.neurons, layer.membrane_bits + layer.count_bits),
        "thresholds": comparisons * how.thresholds * how.fetch(2 * layer.channels, layer.threshold_bits),
        "traffic": layer.arriving * arrival + layer.spikes * departure,
        # The place of each synapse is counted up from that of the first, which takes two multiplications.
        "addressing": ADD["int32"] * sops + (0 if layer.fully_connected else 2) * _mac("int32") * layer.arriving,
    }
    if layer.kind == ENCODER:
        for part, cost in _multiplied(layer, Rival("", 8, layer.weight_bits), how).items():
            spent[part] = spent[part] + at_first_step(layer, cost)
    return spent


def lemaire_dense(layer: LayerEvents, rival: Rival, how: Lemaire) -> dict[str, float]:
    """Picojoules of a layer of a dense network, component by component."""
    bits, _ = rival.widths(layer)
    spent = _multiplied(layer, rival, how)
    spent["arithmetic"] += ADD[_kind(bits)] * layer.neurons
    biased = how.thresholds and layer.kind != CLASSIFIER
    spent["thresholds"] = layer.neurons * biased * how.fetch(2 * layer.channels, 32)
    spent["traffic"] += layer.neurons * how.fetch(layer.neurons, bits)
    spent["addressing"] += 0.0 if layer.fully_connected else ADD["int32"] * layer.neurons
    return spent


def _multiplied(layer: LayerEvents, rival: Rival, how: Lemaire) -> dict[str, float]:
    """The dense products of a layer: what its multiply-accumulates, weights, inputs and their addresses cost."""
    input_bits, weight_bits = rival.widths(layer)
    operations = rival.operations(layer, layer.synapses)
    each = ADD[kind_of_add(layer)] if rival.adds(layer) else _mac(_kind(max(input_bits, weight_bits)))
    fetched = layer.weights if how.reuse != "none" else operations
    read = layer.inputs if layer.fully_connected or how.reuse == "all" else operations
    addresses = operations if layer.fully_connected else layer.inputs + layer.channels * layer.taps
    return {
        "arithmetic": each * operations,
        "weights": fetched * how.fetch(layer.weights, weight_bits),
        "traffic": read * how.fetch(layer.inputs, input_bits),
        "addressing": ADD["int32"] * addresses,
    }


def _kind(bits: int) -> str:
    return "int8" if bits <= 8 else "int32" if bits < FLOAT_BITS else "fp32"


def _mac(kind: str) -> float:
    return MULTIPLY[kind] + ADD[kind]
