"""Which neurons of a layer fire at a step: a bit for each, their thresholds moved, their fan-out added up.

Spikes are three arrays: words of 64 channels with a bit for each positive spike, the same for the negative ones,
and the places whose words these are. Places that send none have no words.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64

from .lanes import VECTOR_BYTES, below, first_bit, move, ones, reached, stamp, tally


@njit(nogil=True, error_model="numpy")
def words_of(layer):
    """Give the number of words that hold a bit for each channel of a layer."""
    return (u64(layer.pitch) + u64(63)) >> u64(6)


@njit(nogil=True, error_model="numpy")
def encode(layer, step, thresholds, pixels, counts, candidates, spikes, first_fan, effective_fan, fans):
    """Find the encoder's spikes: those neurons whose membrane reaches the threshold of this step.

    Thresholds ascend, so only the first `candidates` places, those of the step before, can fire, and a neuron's
    count is the last step at which it does. fans: where the fan-out of spikes is added up, from
    effective_fan[first_fan …]. Give the number of places that fire, and that of spikes.
    """
    rises, falls, places = spikes
    pitch, lanes, words = u64(layer.pitch), u64(VECTOR_BYTES // pixels.itemsize), words_of(layer)
    level, used, sent = u64(step - 1) * pitch, u64(0), u64(0)
    for place in range(u64(candidates)):
        at, first, before = u64(places[place]) * pitch, used * words, sent
        for word in range(words):
            rises[first + word] = u64(0)
        for vector in range(u64(0), pitch, lanes):
            over = reached(pixels, at + vector, thresholds, level + vector)
            if over:
                rises[first + (vector >> u64(6))] |= over << (vector & u64(63))
                sent += ones(over)
                stamp(counts, at + vector, over, step, pixels)
                tally(fans, vector, effective_fan, u64(first_fan) + at + vector, over, pixels)
        if sent > before:
            places[used] = places[place]
            used += u64(1)
    return np.int64(used), np.int64(sent)


@njit(nogil=True, error_model="numpy")
def fire(layer, step, table, membrane, upper, lower, counts, last, spikes, first_fan, effective_fan, fans):
    """Find a hidden layer's spikes and move their thresholds. fans: as in `encode`; first_fan: −1 behind the
    last layer. Give the number of places that fire, and those of positive and of negative spikes."""
    rises, falls, places = spikes
    pitch, lanes, words = u64(layer.pitch), u64(VECTOR_BYTES // membrane.itemsize), words_of(layer)
    states, thresholds = u64(layer.states), u64(layer.table)
    used, up, down = u64(0), u64(0), u64(0)
    for position in range(u64(layer.positions)):
        at, first, before = states + position * pitch, used * words, up + down
        for word in range(words):
            rises[first + word], falls[first + word] = u64(0), u64(0)
        for vector in range(u64(0), pitch, lanes):
            over = reached(membrane, at + vector, upper, at + vector)
            under = below(membrane, lower, at + vector)
            both, word, shift = over | under, first + (vector >> u64(6)), vector & u64(63)
            if not both:
                continue
            rises[word] |= over << shift
            falls[word] |= under << shift
            up, down = up + ones(over), down + ones(under)
            move(counts, last, upper, lower, at + vector, over, under, step)
            if first_fan >= 0:
                tally(fans, vector, effective_fan, u64(first_fan) + position * pitch + vector, both, membrane)
            while over:
                channel = vector + first_bit(over)
                upper[at + channel] = table[thresholds + (u64(counts[at + channel]) + u64(1)) * pitch + channel]
                over &= over - u64(1)
            while under:
                channel = vector + first_bit(under)
                lower[at + channel] = table[thresholds + u64(counts[at + channel]) * pitch + channel]
                under &= under - u64(1)
        if up + down > before:
            places[used] = position
            used += u64(1)
    return np.int64(used), np.int64(up), np.int64(down)
