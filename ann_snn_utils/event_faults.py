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
def disturb_events(layer, index, step, sample, fault, rate, seed, used, events):
    """Delete (fault 0) or flip (1) each listed spike with probability `rate`."""
    rows, signs, neurons, places, starts, falls = events
    kept = 0
    for place in range(used):
        first, starts[place] = starts[place], kept
        for event in range(first, starts[place + 1]):
            channel = neurons[event] - places[place] * layer.pitch
            neuron = places[place] * layer.channels + channel
            hit = _uniform(seed, sample, index, step, neuron) < rate
            if not hit or fault:
                rows[kept], neurons[kept] = rows[event], neurons[event]
                signs[kept] = -signs[event] if hit else signs[event]
                kept += 1
    starts[used] = kept
