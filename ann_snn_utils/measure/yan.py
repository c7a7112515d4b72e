"""Energy with data movement, after Yan et al.: what counts is how far a bit travels, and how often.

Z. Yan, Z. Bai, K. Tang, W.-F. Wong, Reconsidering the energy efficiency of spiking neural networks inference from
analytical perspectives, arXiv 2409.08290, version 4, 2026. A spike is an event that is routed by itself, at 3 pJ a
bit and hop (Loihi's); activations move densely, at 0.25 pJ; the rival has ⌈log2(T + 1)⌉ bits. 22 nm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .events import ENCODER, LayerEvents, Rival, at_first_step


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
    if layer.kind == ENCODER:
        for part, cost in _multiplied(layer, Rival("", 8, layer.weight_bits), how).items():
            spent[part] = spent[part] + at_first_step(layer, cost)
    return spent


def yan_dense(layer: LayerEvents, rival: Rival, how: Yan) -> dict[str, float]:
    """Picojoules of a layer of a dense network: its products, and two comparisons to quantize each neuron."""
    spent = _multiplied(layer, rival, how)
    spent["arithmetic"] += 2 * how.add * layer.neurons
    return spent


def _multiplied(layer: LayerEvents, rival: Rival, how: Yan) -> dict[str, float]:
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
