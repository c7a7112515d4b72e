"""Which neurons of a layer fire at a step: listed place by place, their thresholds moved, their fan-out added up.

Spikes are lists: the channels of the positive and of the negative ones, the places that send them, and where in
both lists those of each place begin.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64

from .lanes import VECTOR_BYTES, below, list_bits, move, reached, stamp, tally


@njit(nogil=True, error_model="numpy")
def encode(layer, step, thresholds, pixels, counts, candidates, spikes, first_fan, effective_fan, fans):
    """List the encoder's spikes: those neurons whose membrane reaches the threshold of this step.

    Thresholds ascend, so only the first `candidates` of the listed places, those of the step before, can fire,
    and a neuron's count is the last step at which it does. fans: where the fan-out of spikes is added up, from
    effective_fan[first_fan …]. Give the places that fire, and the spikes.
    """
    rises, falls, places, risen, fallen = spikes
    pitch, lanes = u64(layer.pitch), u64(VECTOR_BYTES // pixels.itemsize)
    level, used, sent = u64(step - 1) * pitch, u64(0), u64(0)
    for place in range(u64(candidates)):
        at, first = u64(places[place]) * pitch, sent
        for vector in range(u64(0), pitch, lanes):
            over = reached(pixels, at + vector, thresholds, level + vector)
            if over:
                sent = list_bits(rises, sent, over, vector, pixels)
                stamp(counts, at + vector, over, step, pixels)
                tally(fans, vector, effective_fan, u64(first_fan) + at + vector, over, pixels)
        if sent > first:
            places[used], risen[used] = places[place], first
            used += u64(1)
    risen[used] = sent
    return np.int64(used), np.int64(sent)


@njit(nogil=True, error_model="numpy")
def fire(layer, step, table, membrane, upper, lower, counts, last, spikes, first_fan, effective_fan, fans):
    """List a hidden layer's spikes and move their thresholds. fans: as in `encode`; first_fan: −1 behind the
    last layer. Give the places that fire, and the spikes of both signs."""
    rises, falls, places, risen, fallen = spikes
    pitch, lanes = u64(layer.pitch), u64(VECTOR_BYTES // membrane.itemsize)
    states, thresholds = u64(layer.states), u64(layer.table)
    used, up, down = u64(0), u64(0), u64(0)
    for position in range(u64(layer.positions)):
        at, rise, fall = states + position * pitch, up, down
        for vector in range(u64(0), pitch, lanes):
            over = reached(membrane, at + vector, upper, at + vector)
            under = below(membrane, lower, at + vector)
            if over | under:
                both, fan = over | under, u64(first_fan) + position * pitch + vector
                move(counts, last, upper, lower, at + vector, over, under, step)
                if first_fan >= 0:
                    tally(fans, vector, effective_fan, fan, both, membrane)
                if over:
                    listed, up = up, list_bits(rises, up, over, vector, membrane)
                    for spike in range(listed, up):
                        channel = u64(rises[spike])
                        entry = thresholds + (u64(counts[at + channel]) + u64(1)) * pitch + channel
                        upper[at + channel] = table[entry]
                if under:
                    listed, down = down, list_bits(falls, down, under, vector, membrane)
                    for spike in range(listed, down):
                        channel = u64(falls[spike])
                        lower[at + channel] = table[thresholds + u64(counts[at + channel]) * pitch + channel]
        if up + down > rise + fall:
            places[used], risen[used], fallen[used] = position, rise, fall
            used += u64(1)
    risen[used], fallen[used] = up, down
    return np.int64(used), np.int64(up), np.int64(down)
