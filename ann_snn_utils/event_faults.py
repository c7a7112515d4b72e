"""Faults of spikes, compiled: those that `disturb.faulty` draws, one by one."""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64

from .firing import words_of
from .lanes import first_bit


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
    """Copy spikes, each deleted (fault 0) or given the other sign (1) with probability `rate`."""
    rises, falls, places = spikes
    kept_rises, kept_falls, kept_places = into
    words = words_of(layer)
    for place in range(u64(used)):
        kept_places[place] = places[place]
        for word in range(words):
            at, hits = place * words + word, u64(0)
            bits = rises[at] | falls[at]
            while bits:
                channel = word * u64(64) + first_bit(bits)
                neuron = places[place] * layer.channels + np.int64(channel)
                if _uniform(seed, sample, index, step, neuron) < rate:
                    hits |= bits & (~bits + u64(1))
                bits &= bits - u64(1)
            flipped = hits if fault else u64(0)
            kept_rises[at] = (rises[at] & ~hits) | (falls[at] & flipped)
            kept_falls[at] = (falls[at] & ~hits) | (rises[at] & flipped)
