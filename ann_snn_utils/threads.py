"""Compiled loops run one at a time, on as many threads as torch may use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from numba import set_num_threads
from numba.core import config

_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def compiled_loops() -> Iterator[None]:
    """Context in which to call a parallel loop: one of numba's thread pools ends the program when two start."""
    with _ONE_AT_A_TIME:
        set_num_threads(min(torch.get_num_threads(), config.NUMBA_NUM_THREADS))
        yield
