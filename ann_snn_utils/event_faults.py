"""Faults of listed spikes, compiled: those that `disturb.faulty` draws, one by one."""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64


@njit(nogil=True, error_model="numpy")
def _uniform(seed, sample, layer, step, neuron):
    """Give a number in [0, 1) that depends on nothing but its arguments; see `disturb.uniform`."""
    word = u64(seed)
    for part in (u64(sample), u64(layer), u64(step), u64(neuron)):
        word = (word ^ part) + u64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> u64(30))) * u64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> u64(27))) * u64(0x94D049BB133111EB)
        word ^= word >> u64(31)
    return np.float64(word >> u64(11)) * 2.0**-53


@njit(nogil=True, error_model="numpy")
def disturb_spikes(layer, index, step, sample, fault, rate, seed, used, spikes, into):
    """Copy listed spikes, each deleted (fault 0) or given the other sign (1) with probability `rate`."""
    rises, falls, places, risen, fallen = spikes
    kept_rises, kept_falls, kept_places, kept_risen, kept_fallen = into
    up, down = 0, 0
    for place in range(used):
        position = places[place]
        kept_places[place], kept_risen[place], kept_fallen[place] = position, up, down
        for sign, listed, starts in ((1, rises, risen), (-1, falls, fallen)):
            for spike in range(starts[place], starts[place + 1]):
                channel = listed[spike]
                hit = _uniform(seed, sample, index, step, position * layer.channels + channel) < rate
                if hit and not fault:
                    continue
                if (sign > 0) != hit:
                    kept_rises[up] = channel
                    up += 1
                else:
                    kept_falls[down] = channel
                    down += 1
    kept_risen[used], kept_fallen[used] = up, down
