"""Dense networks of the same shape that a spiking network is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .events import ENCODER, HIDDEN, LayerEvents


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
