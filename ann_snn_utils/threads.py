"""Compiled loops run one at a time, on as many threads as torch may use."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from numba import njit, set_num_threads
from numba.core import config

_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def compiled_loops() -> Iterator[None]:
    """Context in which to call a parallel loop: one of numba's thread pools ends the program when two start."""
    with _ONE_AT_A_TIME:
        allowed = torch.get_num_threads()
        set_num_threads(min(allowed, config.NUMBA_NUM_THREADS))
        # Where numba's pool is OpenMP's, as torch's is, its start gave torch as many threads as there are cores.
        if torch.get_num_threads() != allowed:
            torch.set_num_threads(allowed)
        yield


def compiled(**options: Any) -> Callable[[Callable], Any]:
    """Decorate a function with numba's `njit`, kept on the disk where there is a place for it.

    There is none in a read-only installation without a home, as in a container: it is compiled in each process.
    """

    def decorate(function: Callable) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)

    return decorate
