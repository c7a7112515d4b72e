"""Proof that a layer runs on integers: its bit widths, and thresholds made by one adder instead of a table.

The one-adder form fires spike j when (U << f) ≥ A + j·D, with integers A and D for each channel and f
fractional bits for the layer. It decides as the table θ does, for every membrane in reach, exactly when

    (θ_j − 1)·2^f < A + j·D ≤ θ_j·2^f      for every level j that the membrane can reach,
    A + j·D > highest·2^f                  for the first one that it cannot.

For a pair of levels i < j these bounds leave an interval for D; an A exists for a D exactly when D lies in
the interval of every pair. So f is feasible iff, in every channel, the largest lower end is at most the
smallest upper end: a closed form over integers, without a search.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..ann.device import on_cpu
from ..checks import expect
from .network import SNN, SpikingLayer

MOST_BITS = 30

# Stands for "no bound"; far above any threshold · 2^f here, and far below the ends of int64.
UNBOUNDED = 2**60


@dataclass(frozen=True, eq=False)
class LayerCertificate:
    """What one layer needs in hardware.

    fractional_bits: the smallest f of the one-adder form. offset, step: A and D, int64 [O]. naive_bits: the
    smallest f for which rounding A and D to the nearest integer would do (None: unknown, or not within 30 bits).
    membrane: worst case (lowest, highest). The *_bits are signed widths, of the membrane in the worst case,
    of a threshold, and of a count (unsigned where it begins with 0).
    """

    name: str
    fractional_bits: int
    offset: Tensor
    step: Tensor
    naive_bits: int | None
    membrane: tuple[int, int]
    membrane_bits: int
    threshold_bits: int
    count_bits: int


def signed_bits(lowest: int, highest: int) -> int:
    """Width in bits of the smallest two's-complement integer that holds lowest … highest.

    >>> signed_bits(-128, 127), signed_bits(0, 128)
    (8, 9)
    """
    return max(max(highest, 0).bit_length(), max(-lowest - 1, 0).bit_length()) + 1


def count_bits(least: int, most: int) -> int:
    """Width in bits of a net spike count from `least` to `most`, unsigned where it begins with 0."""
    return signed_bits(least, most) if least else most.bit_length()


@on_cpu
def certify(snn: SNN, real: SNN | None = None) -> list[LayerCertificate]:
    """The certificate of every layer of an integer network, encoder first.

    real: the same network converted with thresholds="float", from which `naive_bits` is found.
    Every decision of the one-adder form is compared with the table's over channels × levels × the reachable
    range. Raises ValueError for a network whose thresholds are not integers.

    >>> from ann_snn_utils import build_ann, convert
    >>> snn = convert(build_ann("4C3-P2-16", (1, 8, 8), classes=10, clip=2).eval())
    >>> [(layer.name, layer.count_bits) for layer in certify(snn)][1:]
    [('P2', 2), ('16', 2)]
    """
    expect(SNN, snn=snn, real=snn if real is None else real)
    if not snn.integer:
        raise ValueError(f"certify: thresholds={snn.thresholds!r} or real-valued ends; convert an integer network")
    reals = [None] * len(snn.layers) if real is None else real.layers
    return list(map(_certify, snn.layers, reals))


def _certify(layer: SpikingLayer, real: SpikingLayer | None) -> LayerCertificate:
    bits, offset, step = one_adder(layer)
    if _disagreeing(layer, bits, offset, step).any():
        raise AssertionError(f"{layer.name}: the one-adder form differs from the table; this is a bug")
    return LayerCertificate(
        layer.name,
        bits,
        offset,
        step,
        None if real is None or any(one.gain is not None for one in layer.synapses) else naive_bits(layer, real),
        layer.membrane,
        signed_bits(*layer.membrane),
        signed_bits(int(layer.thresholds.min()), int(layer.thresholds.max())),
        count_bits(*layer.counts),
    )


def _bounds(layer: SpikingLayer, bits: int) -> tuple[Tensor, Tensor]:
    """The least and greatest A + j·D that decide right at each level, int64 [O, J]."""
    table, scale = layer.thresholds, 1 << bits
    least, greatest = (table - 1) * scale + 1, table * scale
    # Every membrane in reach fires, or none does: only one side matters.
    always, never = table <= layer.lowest[:, None], table > layer.highest[:, None]
    return least.masked_fill(always, -UNBOUNDED), greatest.masked_fill(never, UNBOUNDED)


def _step_interval(least: Tensor, greatest: Tensor) -> tuple[Tensor, Tensor]:
    """The interval of D, int64 [O] each, from every pair of levels i < j."""
    channels, levels = least.shape
    # NumPy divides integers by one and the same number many times as fast as torch does.
    lower, upper = least.numpy(), greatest.numpy()
    low, high = np.zeros(channels, np.int64), np.full(channels, UNBOUNDED)
    for gap in range(1, levels):
        np.maximum(low, -((upper[:, :-gap] - lower[:, gap:]) // gap).min(1), out=low)
        np.minimum(high, ((upper[:, gap:] - lower[:, :-gap]) // gap).min(1), out=high)
    return torch.from_numpy(low), torch.from_numpy(high)


def one_adder(layer: SpikingLayer) -> tuple[int, Tensor, Tensor]:
    """The smallest f and, for each channel, integers A and D with (U << f) ≥ A + j·D ⇔ U ≥ θ_j.

    Raises ValueError where no f up to 30 will do: the thresholds of a channel do not lie on a line.
    """
    # What is compared, and any D times any level, must stay clear of the marks for "no bound".
    lowest, highest = layer.membrane
    reach = (highest - lowest + 2) * (layer.thresholds.shape[1] + 2)
    waiting = torch.arange(len(layer.thresholds))
    for bits in range(max(0, min(MOST_BITS, UNBOUNDED.bit_length() - 3 - reach.bit_length())) + 1):
        least, greatest = _bounds(layer, bits)
        # A form is one with more bits too, doubled: only channels that have none yet are tried again.
        *_, found = line(least[waiting], greatest[waiting], layer.spec.lowest, 1 << bits)
        waiting = waiting[~found]
        if not len(waiting):
            offset, step, _ = line(least, greatest, layer.spec.lowest, 1 << bits)
            return bits, offset, step
    raise ValueError(f"{layer.name}: no A + j·D with up to {MOST_BITS} fractional bits gives these thresholds")


def line(least: Tensor, greatest: Tensor, lowest: int, room: int) -> tuple[Tensor, Tensor, Tensor]:
    """Integers A and D, int64 [O] each, with least ≤ A + j·D ≤ greatest at each level, and where there are any.

    least, greatest: int64 [O, J], ∓UNBOUNDED for none. Levels j count from lowest + 1. room: D is taken from the
    middle of its interval, or that far from its lower end.
    """
    level = torch.arange(1, least.shape[1] + 1) + lowest
    low, high = _step_interval(least, greatest)
    # Any D of the interval will do; the middle one stays clear of both ends.
    step = low + (torch.minimum(high, low + room) - low) // 2
    offset = (least - level * step[:, None]).amax(1)
    free = offset < -UNBOUNDED // 2  # no level binds A from below
    above = (greatest - level * step[:, None]).amin(1)
    return torch.where(free, above, offset), step, (low <= high) & (least <= greatest).all(1)


def _disagreeing(layer: SpikingLayer, bits: int, offset: Tensor, step: Tensor) -> Tensor:
    """True for each channel where (U << bits) ≥ A + j·D differs from U ≥ θ_j at any level and membrane.

    A comparison with an ascending U changes its answer once; where ⌈(A + j·D) / 2^f⌉, held in reach, equals
    θ_j, it changes at the same membrane, so every U is covered.
    """
    level = torch.arange(1, layer.thresholds.shape[1] + 1) + layer.spec.lowest
    first = -(-(offset[:, None] + level * step[:, None])).div(1 << bits, rounding_mode="floor")
    lowest, beyond = layer.lowest[:, None], layer.highest[:, None] + 1
    adder = torch.minimum(torch.maximum(first, lowest), beyond)
    table = torch.minimum(torch.maximum(layer.thresholds, lowest), beyond)
    return (adder != table).any(1)


def naive_bits(layer: SpikingLayer, real: SpikingLayer) -> int | None:
    """The smallest f for which A and D, rounded from the real thresholds, decide as the table does.

    real: the layer converted with thresholds="float". What rounding alone needs, to compare `one_adder` with;
    None beyond 30 bits. Constant channels, which have no line to round, are left out.
    """
    theta = real.thresholds.double()
    step = theta[:, 1] - theta[:, 0] if theta.shape[1] > 1 else torch.zeros(len(theta), dtype=theta.dtype)
    straight = torch.isfinite(theta).all(1) & (theta.abs().amax(1) < 2**30)
    for bits in range(MOST_BITS + 1):
        base = theta[:, 0] - step * (1 + layer.spec.lowest)
        offset = torch.where(straight, base * 2.0**bits, 0.0).round().long()
        wrong = _disagreeing(layer, bits, offset, torch.where(straight, step * 2.0**bits, 0.0).round().long())
        if not wrong[straight].any():
            return bits
    return None
