"""Two branches that are added, as in a residual block, on integers.

Their sums U and S of integers are worth different amounts, so that with one unit for U the quantized activation has
reached its j-th level exactly when U + r·S ≥ θ_j, with a real r > 0 for each channel (where r < 0, S counts as −S).
In integers that is

    (U << f) + q·S ≥ A + j·D

with f fractional bits for the layer and integers q, A, D for each channel. It decides alike for every U and S in
reach exactly when for each level j, with T_j(S) = ⌈θ_j − r·S⌉ the least U that fires,

    max over S of 2^f·(T_j(S) − 1) + q·S  <  A + j·D  ≤  min over S of 2^f·T_j(S) + q·S,

where only those S count whose T_j(S) lies in the reach of U; beyond, one of the two sides is enough. Both ends are
extremes of a linear function and a rounded one, which an algorithm like Euclid's finds in some twenty steps,
however many S there are. The two q next to r·2^f are tried, as r·2^f itself lies in the interval that all q form
for which there are real A and D. In integers these form a line through the intervals of all levels: see
`certificate.line`. The fewest f is taken for which one of the two q will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, lcm

import torch
from torch import Tensor

from ..ann.euclid import most_of
from .certificate import UNBOUNDED, line

Range = tuple[int, int]


@dataclass(frozen=True)
class Decision:
    """When a neuron has reached its i-th level: slopes[0]·U + slopes[1]·S ≥ first + i·step, i = 0 … levels − 1.

    slopes: of the two sums, the first at least 0. reach: ends of U and of S.
    """

    slopes: tuple[Fraction, Fraction]
    first: Fraction
    step: Fraction
    levels: int
    reach: tuple[Range, Range]


@dataclass(frozen=True, eq=False)
class Addition:
    """bits: f. gains: int64 [2, O], 2^f (0 where U does not matter) and q. thresholds: A + j·D, int64 [O, J]."""

    bits: int
    gains: Tensor
    thresholds: Tensor


def add_in_integers(decisions: Sequence[Decision], lowest: int, name: str = "the layer") -> Addition:
    """The integer form of a layer, one decision for each channel, whose counts begin at `lowest`.

    Raises ValueError, with the layer's name, where it would not fit 64-bit integers.
    """
    bits, done = 0, []
    for decision in decisions:
        while (found := _channel(decision, bits, lowest)) is None:
            bits += 1
            if _size(decision) << bits >= 2 * UNBOUNDED:
                most = [max(map(abs, ends)) for ends in decision.reach]
                raise ValueError(
                    f"{name} adds sums that reach {most[0]:,} and {most[1]:,}, for {decision.levels} levels: they "
                    f"need more than {bits - 1} fractional bits, with which numbers reach 2^61. Use fewer levels "
                    "(levels, clip, k or max_levels), ternary weights (ternary=True), or a block that keeps its "
                    "shape, to which its input is added as it is"
                )
        done.append((bits, found))
    # What was found with fewer bits holds with more, all its numbers shifted.
    gains = torch.tensor([[g << bits - b for g in gain] for b, (gain, _) in done]).T
    rows = [[t * 2 ** (bits - b) for t in table] for b, (_, table) in done]
    return Addition(bits, gains, torch.tensor(rows))


def _size(decision: Decision) -> int:
    """What no membrane and no level times D exceeds, without fractional bits."""
    (p, r), (us, ss) = decision.slopes, decision.reach
    ratio = ceil(abs(r) / p) if p else 1
    return (decision.levels + 2) * (max(map(abs, us)) + (ratio + 1) * max(map(abs, ss)) + 1)


def _channel(decision: Decision, bits: int, lowest: int) -> tuple[Range, list[int]] | None:
    """The two gains of a channel and its thresholds, or None where so few bits are not enough."""
    (p, r), (us, ss) = decision.slopes, decision.reach
    one, numbers, sign = 1 << bits, range(decision.levels), -1 if r < 0 else 1
    if r < 0:
        r, ss = -r, (-ss[1], -ss[0])
    if p == 0 and r == 0:
        return (0, 0), [0 if decision.first + i * decision.step <= 0 else 1 for i in numbers]
    unit, ratio = (p, r / p) if p else (r, Fraction(0))
    if ratio == 0:
        # One of the sums alone decides: the other one is 0, whatever its factor.
        us, ss, ratio = us if p else ss, (0, 0), Fraction(1)
    # All in whole multiples of 1/m: U·m + slope·S ≥ theta + i·climb.
    parts = ratio, decision.first / unit, decision.step / unit
    m = lcm(*(part.denominator for part in parts))
    slope, theta, climb = (part.numerator * (m // part.denominator) for part in parts)
    below = slope * one // m
    for q in (below, below + 1):
        ends: list[Range] = []
        for i in numbers:
            ends.append(_ends(theta + i * climb, slope, m, q, bits, us, ss))
            if ends[-1][0] > ends[-1][1]:
                break
        else:
            least, greatest = torch.tensor(ends).T[:, None]
            offset, rise, found = line(least, greatest, lowest, one)
            table = [int(offset) + (lowest + 1 + i) * int(rise) for i in numbers]
            # Once more in integers that know no overflow.
            if found and all(a <= t <= b for t, (a, b) in zip(table, ends, strict=True)):
                return (one if p else 0, (sign * q if p else sign * one) if r else 0), table
    return None


def _ends(theta: int, ratio: int, m: int, q: int, bits: int, us: Range, ss: Range) -> Range:
    """The least and the greatest threshold of one level that decide right for every U and S; ratio > 0."""
    (low, high), (least, most), one = us, ss, 1 << bits
    # From `first` on T(S) ≤ high, so that some U fires; behind `last` T(S) ≤ low, so that every U does.
    first, last = -((high * m - theta) // ratio), -((low * m - theta) // ratio) - 1
    lower, upper = -UNBOUNDED, UNBOUNDED
    if first > least:
        lower = high * one + q * min(first - 1, most) + 1
    if last < most:
        upper = low * one + q * max(last + 1, least)
    first, last = max(first, least), min(last, most)
    if first <= last:
        # T(first + x) = −⌊(ratio·x + at) / m⌋.
        number, base, at = last - first + 1, q * first, ratio * first - theta
        lower = max(lower, base + most_of(number, m, q, -one, ratio, at) - one + 1)
        upper = min(upper, base - most_of(number, m, -q, one, ratio, at))
    return lower, upper
