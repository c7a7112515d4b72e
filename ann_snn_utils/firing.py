"""Which neurons of a layer fire at a step: a bit for each, their thresholds moved, their fan-out added up.

Spikes are three arrays: words of 64 channels with a bit for each positive spike, the same for the negative ones,
and the places whose words these are. Places that send none have no words.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64

from .lanes import alike, below, first_bit, move, ones, reached, replace, stamp, tally, width_of


@njit(nogil=True, error_model="numpy")
def words_of(layer):
    """Give the number of words that hold a bit for each channel of a layer."""
    return (u64(layer.pitch) + u64(63)) >> u64(6)


@njit(nogil=True, error_model="numpy")
def encode_place(layer, position, step, thresholds, pixels, counts, spikes, first, kind, effective_fan, fans, bank):
    """Write the encoder's spikes from one place at a step to spikes[first …], and give their number.

    Their fan-out, from effective_fan[kind …], is added to fans[bank …]. Every vector takes the same way: where
    none of it fires, guessing wrong would cost more.
    """
    pitch, lanes, sent = u64(layer.pitch), width_of(pixels), u64(0)
    at, level = position * pitch, u64(step - 1) * pitch
    for word in range(words_of(layer)):
        start, bits = word * u64(64), u64(0)
        vector, end = start, min(pitch, start + u64(64))
        while vector < end:
            over = reached(pixels, at + vector, thresholds, level + vector)
            bits |= over << (vector - start)
            stamp(counts, at + vector, over, step, pixels)
            tally(fans, bank + vector, effective_fan, kind + vector, over, pixels)
            vector += lanes
        spikes[first + word] = bits
        sent += ones(bits)
    return sent


@njit(nogil=True, error_model="numpy")
def encode(layer, step, thresholds, pixels, counts, candidates, spikes, first_fan, kinds, effective_fan, fans):
    """Find the encoder's spikes: those neurons whose membrane reaches the threshold of this step.

    Thresholds ascend, so only the first `candidates` places, those of the step before, can fire, and a neuron's
    count is the last step at which it does. fans: where the fan-out of spikes is added up; that of a place is
    effective_fan[kinds[first_fan + place] …]. Give the number of places that fire, and that of spikes.
    """
    rises, falls, places = spikes
    words, used, total = words_of(layer), u64(0), u64(0)
    for place in range(u64(candidates)):
        position = u64(places[place])
        kind = u64(kinds[u64(first_fan) + position])
        sent = encode_place(layer, position, step, thresholds, pixels, counts, rises, used * words, kind,
                            effective_fan, fans, u64(0))  # fmt: skip
        total += sent
        places[used] = places[place]
        used += u64(sent > 0)
    return np.int64(used), np.int64(total)


@njit(nogil=True, error_model="numpy")
def fire(layer, step, table, membrane, upper, lower, counts, last, spikes, first_fan, kinds, effective_fan, fans):
    """Find a hidden layer's spikes and move their thresholds. fans: as in `encode`; first_fan: −1 behind the
    last layer. Give the number of places that fire, and those of positive and of negative spikes."""
    rises, falls, places = spikes
    pitch, lanes, words = u64(layer.pitch), width_of(membrane), words_of(layer)
    states, thresholds = u64(layer.states), u64(layer.table)
    used, up, down = u64(0), u64(0), u64(0)
    for position in range(u64(layer.positions)):
        at, first, before = states + position * pitch, used * words, up + down
        for word in range(words):
            start, rise, fall = word * u64(64), u64(0), u64(0)
            vector, end = start, min(pitch, start + u64(64))
            while vector < end:
                first_of, here, shift = vector, at + vector, vector - start
                vector += lanes
                over = reached(membrane, here, upper, here)
                under = below(membrane, lower, here)
                both = over | under
                if not both:
                    continue
                rise |= over << shift
                fall |= under << shift
                move(counts, last, upper, lower, here, over, under, step)
                if first_fan >= 0:
                    fan = u64(kinds[u64(first_fan) + position])
                    tally(fans, first_of, effective_fan, fan + first_of, both, membrane)
                # Neurons of one count find their next threshold in the same row.
                while over:
                    count = counts[here + first_bit(over)]
                    same = alike(counts, here, count, membrane) & over
                    replace(upper, here, same, table, thresholds + (u64(count) + u64(1)) * pitch + first_of)
                    over ^= same
                while under:
                    count = counts[here + first_bit(under)]
                    same = alike(counts, here, count, membrane) & under
                    replace(lower, here, same, table, thresholds + u64(count) * pitch + first_of)
                    under ^= same
            rises[first + word], falls[first + word] = rise, fall
            up, down = up + ones(rise), down + ones(fall)
        if up + down > before:
            places[used] = position
            used += u64(1)
    return np.int64(used), np.int64(up), np.int64(down)
