"""Which neurons of a layer fire at a step: a bit for each, their counts moved, their fan-out added up.

Spikes are three arrays: words of 64 channels with a bit for each positive spike, the same for the negative ones,
and the places whose words these are. Places that send none have no words.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64

from .lanes import bits, filled, first_bit, ones, read, total, where, width_of, write


@njit(nogil=True, error_model="numpy")
def words_of(layer):
    """Give the number of words that hold a bit for each channel of a layer."""
    return (u64(layer.pitch) + u64(63)) >> u64(6)


@njit(nogil=True, error_model="numpy")
def encode(layer, step, thresholds, pixels, counts, membrane, candidates, spikes, first_fan, kinds, effective_fan):
    """Find the encoder's spikes: those neurons whose membrane reaches the threshold of this step.

    Thresholds ascend, so only the first `candidates` places, those of the step before, can fire, and a neuron's
    count is the last step at which it does. Fan-outs of a place are effective_fan[kinds[first_fan + place] …].
    Give the number of places that fire, that of spikes, and the sum of their fan-outs.
    """
    rises, falls, places = spikes
    pitch, lanes, words = u64(layer.pitch), width_of(membrane), words_of(layer)
    used, up, level, no_fans = u64(0), u64(0), u64(step - 1) * pitch, filled(0, effective_fan, membrane)
    fans = no_fans
    for place in range(u64(candidates)):
        position = u64(places[place])
        at, fan, first, before = position * pitch, u64(kinds[u64(first_fan) + position]), used * words, up
        for word in range(words):
            start, rise = word * u64(64), u64(0)
            vector, end = start, min(pitch, start + u64(64))
            while vector < end:
                over = read(pixels, at + vector, membrane) >= read(thresholds, level + vector, membrane)
                write(counts, at + vector, read(counts, at + vector, membrane) + over)
                fans += where(over, read(effective_fan, fan + vector, membrane), no_fans)
                rise |= bits(over) << (vector - start)
                vector += lanes
            rises[first + word] = rise
            up += ones(rise)
        places[used] = position
        used += u64(up > before)
    return np.int64(used), np.int64(up), total(fans)


@njit(nogil=True, error_model="numpy")
def fire(layer, step, table, membrane, thresholds, counts, last, spikes, first_fan, kinds, effective_fan):
    """Find a hidden layer's spikes and count them.

    thresholds: room for the upper and the lower ones, which steps after `layer.compared` use. first_fan: −1 behind
    the last layer, else as in `encode`.

    Give the number of places that fire, those of positive and of negative spikes, and the sum of their fan-outs.
    """
    rises, falls, places = spikes
    pitch, words, compared = u64(layer.pitch), words_of(layer), step <= layer.compared
    if step == layer.compared + 1:
        _look_up(layer, table, counts, thresholds)
    used, up, down, fans = u64(0), u64(0), u64(0), filled(0, effective_fan, membrane)
    for position in range(u64(layer.positions)):
        at, first, before = u64(layer.states) + position * pitch, used * words, up + down
        fan = np.int64(kinds[u64(first_fan) + position]) if first_fan >= 0 else -1
        for word in range(words):
            if compared:
                rise, fall, fans = _towards_code(layer, step, word, at, table, membrane, counts, last, fan,
                                                 effective_fan, fans)  # fmt: skip
            else:
                rise, fall, fans = _across(layer, step, word, at, table, membrane, thresholds, counts, last, fan,
                                           effective_fan, fans)  # fmt: skip
            rises[first + word], falls[first + word] = rise, fall
            up, down = up + ones(rise), down + ones(fall)
        places[used] = position
        used += u64(up + down > before)
    return np.int64(used), np.int64(up), np.int64(down), total(fans)


# Inlined by numba: as a call of its own, it would pass its vectors through memory and take twice as long.
@njit(nogil=True, error_model="numpy", inline="always")
def _towards_code(layer, step, word, at, table, membrane, counts, last, fan, effective_fan, fans):
    """Move each count of a word by one towards the number of thresholds that the membrane reaches.

    Thresholds ascend, so U ≥ θ_{n+1} where that number is above n, and U < θ_n where it is below. A count is at
    most the number of steps so far, so the first `step` thresholds decide. Every vector takes the same way:
    where none of it fires, guessing wrong would cost more. at: the first neuron of the place. fan: where its
    fan-outs begin, or −1. Give the bits of positive and of negative spikes, and the fan-outs with theirs.
    """
    pitch, start, rise, fall = u64(layer.pitch), word * u64(64), u64(0), u64(0)
    rows, no_fans = u64(min(step, layer.rows)), filled(0, effective_fan, membrane)
    vector, end = start, min(pitch, start + u64(64))
    while vector < end:
        here, row = at + vector, u64(layer.table) + pitch + vector
        u, code = read(membrane, here, membrane), filled(0, counts, membrane)
        for _ in range(rows):
            code += u >= read(table, row, membrane)
            row += pitch
        count = read(counts, here, membrane)
        over, under = code > count, code < count
        fired = over | under
        write(counts, here, count + over - under)
        write(last, here, where(fired, filled(step, last, membrane), read(last, here, membrane)))
        if fan >= 0:
            fans += where(fired, read(effective_fan, u64(fan) + vector, membrane), no_fans)
        rise |= bits(over) << (vector - start)
        fall |= bits(under) << (vector - start)
        vector += width_of(membrane)
    return rise, fall, fans


@njit(nogil=True, error_model="numpy")
def _across(layer, step, word, at, table, membrane, thresholds, counts, last, fan, effective_fan, fans):
    """Compare each membrane of a word with its two thresholds, and look up those of the neurons that fire, one by
    one. The rest is as in `_towards_code`."""
    upper, lower = thresholds
    pitch, start, rise, fall = u64(layer.pitch), word * u64(64), u64(0), u64(0)
    vector, end = start, min(pitch, start + u64(64))
    while vector < end:
        u, here = read(membrane, at + vector, membrane), at + vector
        over, under = u >= read(upper, here, membrane), u < read(lower, here, membrane)
        if fan >= 0:
            more = read(effective_fan, u64(fan) + vector, membrane)
            fans += where(over | under, more, filled(0, effective_fan, membrane))
        rise |= bits(over) << (vector - start)
        fall |= bits(under) << (vector - start)
        vector += width_of(membrane)
    both = rise | fall
    while both:
        channel = start + first_bit(both)
        neuron, rising = at + channel, (rise >> (channel - start)) & u64(1)
        counts[neuron] += 1 if rising else -1
        last[neuron] = step
        _meet(layer, at, channel, table, counts, thresholds)
        both &= both - u64(1)
    return rise, fall, fans


@njit(nogil=True, error_model="numpy")
def _look_up(layer, table, counts, thresholds):
    """Set both thresholds of each neuron to those of its count."""
    for position in range(u64(layer.positions)):
        for channel in range(u64(layer.pitch)):
            _meet(layer, u64(layer.states) + position * u64(layer.pitch), channel, table, counts, thresholds)


@njit(nogil=True, error_model="numpy")
def _meet(layer, at, channel, table, counts, thresholds):
    """Set both thresholds of a neuron to those of its count."""
    upper, lower = thresholds
    neuron, pitch = at + channel, u64(layer.pitch)
    row = u64(layer.table) + u64(counts[neuron]) * pitch + channel
    lower[neuron], upper[neuron] = table[row], table[row + pitch]
