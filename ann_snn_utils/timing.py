"""Times that can be compared on a busy machine: jobs take turns, and ratios are formed within each round."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np


def interleaved(jobs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Give the seconds of every job in each of `repeats` rounds, in which all jobs take turns, in their order.

    At its turn a job runs twice, and the second run is timed: the first finds in the caches what the job before
    left there, and the threads of that job's library still waiting for more. Raises ValueError for repeats
    below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats!r}: give at least 1")
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            job()
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
