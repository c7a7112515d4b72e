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
    if step <= layer.compared:
        return _fire_towards_code(layer, step, table, membrane, counts, last, spikes, first_fan, kinds,
                                  effective_fan)  # fmt: skip
    upper, lower = thresholds
    if step == layer.compared + 1:
        _look_up(layer, table, counts, upper, lower)
    return _fire_across(layer, step, table, membrane, upper, lower, counts, last, spikes, first_fan, kinds,
                        effective_fan)  # fmt: skip


@njit(nogil=True, error_model="numpy")
def _fire_towards_code(layer, step, table, membrane, counts, last, spikes, first_fan, kinds, effective_fan):
    """Move each count by one towards the number of thresholds that the membrane reaches.

    Thresholds ascend, so U ≥ θ_{n+1} where that number is above n, and U < θ_n where it is below. A count is at
    most the number of steps so far, so the first `step` thresholds decide. Every vector takes the same way:
    where none of it fires, guessing wrong would cost more.
    """
    rises, falls, places = spikes
    pitch, lanes, words = u64(layer.pitch), width_of(membrane), words_of(layer)
    states, rows, first_row = u64(layer.states), u64(min(step, layer.rows)), u64(layer.table) + u64(layer.pitch)
    now, none = filled(step, last, membrane), filled(0, counts, membrane)
    no_fans = filled(0, effective_fan, membrane)
    used, up, down, fans = u64(0), u64(0), u64(0), no_fans
    for position in range(u64(layer.positions)):
        at, first, before = states + position * pitch, used * words, up + down
        fan = u64(kinds[u64(first_fan) + position]) if first_fan >= 0 else u64(0)
        for word in range(words):
            start, rise, fall = word * u64(64), u64(0), u64(0)
            vector, end = start, min(pitch, start + u64(64))
            while vector < end:
                here, shift, row = at + vector, vector - start, first_row + vector
                u, code = read(membrane, here, membrane), none
                for _ in range(rows):
                    code += u >= read(table, row, membrane)
                    row += pitch
                count = read(counts, here, membrane)
                over, under = code > count, code < count
                fired = over | under
                write(counts, here, count + over - under)
                write(last, here, where(fired, now, read(last, here, membrane)))
                if first_fan >= 0:
                    fans += where(fired, read(effective_fan, fan + vector, membrane), no_fans)
                rise |= bits(over) << shift
                fall |= bits(under) << shift
                vector += lanes
            rises[first + word], falls[first + word] = rise, fall
            up, down = up + ones(rise), down + ones(fall)
        places[used] = position
        used += u64(up + down > before)
    return np.int64(used), np.int64(up), np.int64(down), total(fans)


@njit(nogil=True, error_model="numpy")
def _look_up(layer, table, counts, upper, lower):
    """Set both thresholds of each neuron to those of its count."""
    pitch, states = u64(layer.pitch), u64(layer.states)
    for position in range(u64(layer.positions)):
        for channel in range(pitch):
            neuron = states + position * pitch + channel
            row = u64(layer.table) + u64(counts[neuron]) * pitch + channel
            lower[neuron], upper[neuron] = table[row], table[row + pitch]


@njit(nogil=True, error_model="numpy")
def _fire_across(layer, step, table, membrane, upper, lower, counts, last, spikes, first_fan, kinds, effective_fan):
    """Compare each membrane with its two thresholds, and look up those of the neurons that fire, one by one."""
    rises, falls, places = spikes
    pitch, lanes, words = u64(layer.pitch), width_of(membrane), words_of(layer)
    states, used, up, down, fans = u64(layer.states), u64(0), u64(0), u64(0), 0
    for position in range(u64(layer.positions)):
        at, first, before = states + position * pitch, used * words, up + down
        fan = u64(kinds[u64(first_fan) + position]) if first_fan >= 0 else u64(0)
        for word in range(words):
            start, rise, fall = word * u64(64), u64(0), u64(0)
            vector, end = start, min(pitch, start + u64(64))
            while vector < end:
                u, shift = read(membrane, at + vector, membrane), vector - start
                rise |= bits(u >= read(upper, at + vector, membrane)) << shift
                fall |= bits(u < read(lower, at + vector, membrane)) << shift
                vector += lanes
            both = rise | fall
            while both:
                channel = start + first_bit(both)
                neuron, rising = at + channel, (rise >> (channel - start)) & u64(1)
                counts[neuron] += 1 if rising else -1
                last[neuron] = step
                row = u64(layer.table) + u64(counts[neuron]) * pitch + channel
                lower[neuron], upper[neuron] = table[row], table[row + pitch]
                fans += effective_fan[fan + channel] if first_fan >= 0 else 0
                both &= both - u64(1)
            rises[first + word], falls[first + word] = rise, fall
            up, down = up + ones(rise), down + ones(fall)
        places[used] = position
        used += u64(up + down > before)
    return np.int64(used), np.int64(up), np.int64(down), np.int64(fans)
