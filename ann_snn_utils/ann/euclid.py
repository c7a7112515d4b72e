"""Extremes of a line and its rounded values over a range of integers, found as the greatest common divisor is."""

from __future__ import annotations

from fractions import Fraction
from math import lcm


def most_of(n: int, m: int, a: int, b: int, c: int, d: int) -> int:
    """The maximum of a·x + b·⌊(c·x + d) / m⌋ over x = 0 … n − 1, for n and m of at least 1.

    As in Euclid's algorithm: whole multiples of m leave the fraction, then x and its floor change places.

    >>> most_of(10, 7, 2, -3, 5, 1) == max(2 * x - 3 * ((5 * x + 1) // 7) for x in range(10))
    True
    """
    best, base = None, 0
    while True:
        whole, c = divmod(c, m)
        a += b * whole
        whole, d = divmod(d, m)
        base += b * whole
        top = (c * (n - 1) + d) // m
        found = max(base, base + a * (n - 1) + b * top)
        best = found if best is None else max(best, found)
        if top == 0 or (a >= 0 and b >= 0) or (a <= 0 and b <= 0):
            return best
        if a < 0:
            # The first x at which the floor is y = 1 … top: ⌈(m·y − d) / c⌉, from y − 1 counted.
            base += a + b
        # Otherwise the last x at which it is y = 0 … top − 1: ⌈(m·(y + 1) − d) / c⌉ − 1.
        n, m, a, b, c, d = top, c, b, a, m, m - d - 1


def nearest_whole(n: int, slope: Fraction, start: Fraction) -> Fraction:
    """How near slope·x + start comes to a whole number over x = 0 … n − 1, for n of at least 1.

    >>> nearest_whole(3, Fraction(3, 10), Fraction(1, 4))
    Fraction(3, 20)
    """
    m = lcm(slope.denominator, start.denominator)
    c, d = int(slope * m), int(start * m)
    above, below = d - most_of(n, m, -c, m, c, d), m - d - most_of(n, m, c, -m, c, d)
    return Fraction(min(above, below), m)
