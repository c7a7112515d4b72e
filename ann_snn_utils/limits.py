"""What this machine can do at best: int8 multiplications in a large matrix product, int8 additions, memory."""

from __future__ import annotations

import numpy as np
import torch

from .record import Record
from .timing import interleaved, spread

_PRODUCT = 2048
# Elements that stay in one core's cache, and so many that they come from memory.
_CACHED, _STREAMED = 2**15, 2**26


def hardware_limits(repeats: int, quick: bool = False) -> dict[str, dict[str, float]]:
    """Give the spread of what the machine does at best in a second.

    int8_operations: of a large matrix product, a multiply–add counted as two. int8_additions: in the cache,
    by one core, times the threads in use. memory_bytes: of additions in memory, two read and one written.
    """
    smaller = 8 if quick else 1
    side, cached, streamed = _PRODUCT // smaller, _CACHED, _STREAMED // smaller**2
    a, b = (torch.randint(-2, 3, (side, side), dtype=torch.int8) for _ in range(2))
    x, y = (np.ones(cached, dtype=np.int8) for _ in range(2))
    p, q = (torch.ones(streamed, dtype=torch.int16) for _ in range(2))
    times = streamed // cached

    def add() -> None:
        # One thread: an addition this small would wait for the threads longer than it takes.
        for _ in range(times):
            np.add(x, y, out=x)

    jobs = {"product": lambda: torch._int_mm(a, b), "cached": add, "streamed": lambda: p.add_(q)}
    seconds = interleaved(jobs, repeats)
    return {
        "int8_operations": spread([2 * side**3 / s for s in seconds["product"]]),
        "int8_additions": spread([torch.get_num_threads() * times * cached / s for s in seconds["cached"]]),
        "memory_bytes": spread([3 * 2 * streamed / s for s in seconds["streamed"]]),
    }


def work_of(record: Record) -> dict[str, float]:
    """Give synaptic operations per image of a run: all, and those through a weight other than zero.

    A spike adds to a membrane for each; the encoder's and the classifier's products are not among them.
    """
    return {
        "synaptic_operations": float(record.sops.sum()) / record.samples,
        "effective_synaptic_operations": float(record.effective_sops.sum()) / record.samples,
    }
