"""Times that can be compared on a busy machine: jobs take turns, and ratios are formed within each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def interleaved(jobs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Give the seconds of every job in each of `repeats` rounds, in which every job runs once, in their order.

    One round before them, which compiles and warms up, is not timed. Raises ValueError for repeats below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats!r}: give at least 1")
    for job in jobs.values():
        job()
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Give the median, the quartiles (`low`, `high`) and the number n of some values."""
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return {"median": median, "low": low, "high": high, "n": len(values)}


def ratios(values: Sequence[float], to: Sequence[float]) -> dict[str, float]:
    """Give the spread of values[i] / to[i]: a slow moment of the machine slows both of a round."""
    return spread([value / other for value, other in zip(values, to, strict=True)])
