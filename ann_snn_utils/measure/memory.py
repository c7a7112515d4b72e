"""Energy with memory, by two models that read the same events: an access by its memory's size, a bit by its way.

E. Lemaire, L. Cordone, A. Castagnetti, P.-E. Novac, J. Courtois, B. Miramond, An analytical estimation of spiking
neural networks energy efficiency, ICONIP 2022, arXiv 2210.13107: numbers of operations and accesses for each kind
of layer, and 45 nm constants. What it leaves open, or what was criticised since, is a choice in `Lemaire`.

Z. Yan, Z. Bai, K. Tang, W.-F. Wong, Reconsidering the energy efficiency of spiking neural networks inference from
analytical perspectives, arXiv 2409.08290, version 4, 2026. A spike is an event that is routed by itself, at 3 pJ a
bit and hop (Loihi's); activations move densely, at 0.25 pJ; the rival has ⌈log2(T + 1)⌉ bits. 22 nm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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
    return _with_products(spent, layer, how, _lemaire_products)


def lemaire_dense(layer: LayerEvents, rival: Rival, how: Lemaire) -> dict[str, float]:
    """Picojoules of a layer of a dense network, component by component."""
    bits, _ = rival.widths(layer)
    spent = _lemaire_products(layer, rival, how)
    spent["arithmetic"] += ADD[_kind(bits)] * layer.neurons
    biased = how.thresholds and layer.kind != CLASSIFIER
    spent["thresholds"] = layer.neurons * biased * how.fetch(2 * layer.channels, 32)
    spent["traffic"] += layer.neurons * how.fetch(layer.neurons, bits)
    spent["addressing"] += 0.0 if layer.fully_connected else ADD["int32"] * layer.neurons
    return spent


def _lemaire_products(layer: LayerEvents, rival: Rival, how: Lemaire) -> dict[str, float]:
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


@dataclass(frozen=True)
class Yan:
    """What the model assumes; the defaults are its “typical neuromorphic” hardware.

    add: picojoules of an addition, a comparison, a threshold move. scaled_mac: a multiply-accumulate of b bits
    costs 3.7 (b/32)² + 0.9 (b/32), as in version 3; otherwise what its synthesis in version 4 amounts to.
    weight_bit, state_bit: to read a bit of a weight, to read or write one of a membrane. sparse_bit, dense_bit: to
    move a bit by one hop, as an event and in a dense stream. hops: of a value to each neuron that it reaches;
    multicast: it takes its way once. skip_zero_weights: synapses of weight zero cost nothing. membranes: read and
    written once a "step", or at each "spike" that reaches them. reuse: a dense layer fetches a weight once, and
    not for each product.
    """

    add: float = 0.05448
    scaled_mac: bool = False
    weight_bit: float = 0.0378
    state_bit: float = 0.0378
    sparse_bit: float = 3.0
    dense_bit: float = 0.25
    hops: float = 1.0
    multicast: bool = False
    skip_zero_weights: bool = True
    membranes: str = "step"
    reuse: bool = True

    def multiply_accumulate(self, activation_bits: int, weight_bits: int) -> float:
        """Picojoules of a multiply-accumulate.

        The paper prints no table of them, nor weight_bit: both are solved for from the break-evens that it prints
        for 2 and 3 bits times 4 and 8, and for half and one and a half times the energy of a weight.
        """
        if self.scaled_mac:
            bits = max(activation_bits, weight_bits)
            return 3.7 * (bits / 32) ** 2 + 0.9 * (bits / 32)
        return 0.0075 + 0.00101 * activation_bits * weight_bits


# What moves, and at what cost: the paper's typical case and its two bounds, where nothing has a way to go and
# where every spike takes a read of 64 bits from DRAM; and one memory on the chip, which holds weights, membranes
# and spikes.
PLACES: dict[str, dict[str, Any]] = {
    "routed events": {},
    "no movement": {"sparse_bit": 0.0, "dense_bit": 0.0},
    "on-chip memory": {"sparse_bit": 0.25, "multicast": True, "weight_bit": 0.25, "state_bit": 0.25},
    "through DRAM": {"sparse_bit": 1300.0, "dense_bit": 1300 / 64},
}


def yan_spiking(layer: LayerEvents, how: Yan) -> dict[str, np.ndarray]:
    """Picojoules of a spiking layer at each step, component → [T]."""
    sops = layer.effective_sops if how.skip_zero_weights else layer.sops
    clocked = how.membranes == "step"
    comparisons = layer.comparisons(clocked, how.skip_zero_weights)
    touched = layer.neurons * layer.working if clocked else sops
    state_bits = layer.membrane_bits + layer.count_bits
    # Read and written; the encoder's membranes are written once and then only read.
    accesses = comparisons + at_first_step(layer, layer.neurons) if layer.kind == ENCODER else 2 * touched
    moved = layer.arriving if how.multicast else sops
    spent = {
        "arithmetic": how.add * (sops + comparisons + layer.moves),
        "weights": sops * layer.weight_bits * how.weight_bit,
        "membranes": accesses * state_bits * how.state_bit,
        "traffic": moved * how.hops * how.sparse_bit,
    }
    return _with_products(spent, layer, how, _yan_products)


def yan_dense(layer: LayerEvents, rival: Rival, how: Yan) -> dict[str, float]:
    """Picojoules of a layer of a dense network: its products, and two comparisons to quantize each neuron."""
    spent = _yan_products(layer, rival, how)
    spent["arithmetic"] += 2 * how.add * layer.neurons
    return spent


def _yan_products(layer: LayerEvents, rival: Rival, how: Yan) -> dict[str, float]:
    input_bits, weight_bits = rival.widths(layer)
    operations = rival.operations(layer, layer.synapses)
    each = how.add if rival.adds(layer) else how.multiply_accumulate(input_bits, weight_bits)
    # Maxima have no weights to fetch.
    fetched = layer.weights if how.reuse or not layer.weights else operations
    moved = layer.inputs if how.multicast else operations
    return {
        "arithmetic": each * operations,
        "weights": fetched * weight_bits * how.weight_bit,
        "traffic": moved * input_bits * how.hops * how.dense_bit,
    }


def _with_products(
    spent: dict[str, np.ndarray], layer: LayerEvents, how: Any, products: Callable[..., Mapping[str, float]]
) -> dict[str, np.ndarray]:
    """What spikes cost in a layer, and in the encoder its products, which are due when the image is presented."""
    if layer.kind != ENCODER:
        return spent
    dense = products(layer, Rival("", 8, layer.weight_bits), how)
    return spent | {part: spent[part] + at_first_step(layer, cost) for part, cost in dense.items()}
