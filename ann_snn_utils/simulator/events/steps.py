"""One step of one image: which neurons fire, and the membranes, synapses and classes that their spikes reach.

The encoder's membranes stay while its threshold climbs: a neuron that fires fires in every step up to its last one,
so the spikes of a step are those of the next one and a few more, and so are their sums of weights. `encode_all`
finds its spikes of all steps, and what they add up to, in one pass; `encode` finds those of one step, for runs in
which faults strike each step's spikes anew.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numba import uint64 as u64

from .rows import Nest, Rows, Stretch, Word, add_nested_rows, add_pixel_row, add_rows
from .vectors import bits, filled, first_bit, ones, read, total, where, width_of, write


class Spikes(NamedTuple):
    """Spikes of a layer at one step: for each place that sends any, words of 64 channels.

    rises, falls: uint64, a bit for each positive and each negative spike. places: int64, whose words these are.
    """

    rises: np.ndarray
    falls: np.ndarray
    places: np.ndarray


class State(NamedTuple):
    """What the neurons of one image hold, places one behind the other, each padded to whole vectors of channels.

    pixels, encoded: of the encoder, its int32 membranes and its counts. The others are of the hidden layers, one
    behind the other: membrane; counts; last, the step of the last spike; upper and lower, the thresholds of the
    next +1 and −1, in use after `compared` steps only.
    """

    pixels: np.ndarray
    encoded: np.ndarray
    membrane: np.ndarray
    counts: np.ndarray
    last: np.ndarray
    upper: np.ndarray
    lower: np.ndarray


class AllSteps(NamedTuple):
    """Room for the encoder's spikes of all its steps, and what `encode_all` leaves in it.

    masks: the spikes of one place. fans: levels · channels of a place, all 0. sums: what each step adds to the
    membranes of the first hidden layer, all 0 before. spikes, synapses, effective: int64 [levels], the number of
    spikes of each step and of the synapses that they reach, all of them and those other than 0.
    """

    masks: np.ndarray
    fans: np.ndarray
    sums: np.ndarray
    spikes: np.ndarray
    synapses: np.ndarray
    effective: np.ndarray


@njit(nogil=True, error_model="numpy")
def words_of(layer):
    """Number of words that hold a bit for each channel of a layer."""
    return (u64(layer.pitch) + u64(63)) >> u64(6)


@njit(nogil=True, error_model="numpy")
def add_image(image, to, net, pixels):
    """Add an image [positions, channels] to the encoder's membranes."""
    positions, inputs = image.shape
    reach, stretches = net.reach, net.stretches
    first_reach, first_stretch, line = u64(to.reach), u64(to.stretches), u64(to.line)
    for position in range(u64(positions)):
        for channel in range(u64(inputs)):
            value = np.int16(image[position, channel])
            if value == 0:
                continue
            place = first_reach + position
            at, end = first_stretch + u64(reach[place]), first_stretch + u64(reach[place + u64(1)])
            while at < end:
                weight = u64(stretches[at + u64(2)]) + channel * line
                stretch = Stretch(u64(stretches[at]), u64(stretches[at + u64(1)]), weight)
                at += u64(3)
                add_pixel_row(pixels, stretch, net.pixel_weights, value)


@njit(nogil=True, error_model="numpy")
def encode(layer, step, net, state, candidates, spikes, first_fan):
    """Find the encoder's spikes: those neurons whose membrane reaches the threshold of this step.

    Thresholds ascend, so only the first `candidates` places, those of the step before, can fire, and a neuron's
    count is the last step at which it does. Fan-outs of a place are effective_fan[kinds[first_fan + place] …].
    Returns the number of places that fire, that of spikes, and the sum of their fan-outs.
    """
    rises, falls, places = spikes
    pixels, counts, membrane = state.pixels, state.encoded, state.membrane
    thresholds, kinds, effective_fan = net.pixel_thresholds, net.kinds, net.effective_fan
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
def encode_all(layer, to, levels, net, state, steps):
    """Run the encoder over all its steps, and sum up what each step adds to the membranes of layer `to`."""
    pixels, counts, membrane = state.pixels, state.encoded, state.membrane
    thresholds, effective_fan = net.pixel_thresholds, net.effective_fan
    masks, fans, sums, spikes, synapses, effective = steps
    pitch, words, lanes, levels = u64(layer.pitch), words_of(layer), width_of(membrane), u64(levels)
    no_fans = filled(0, fans, membrane)
    crowd, stride = u64(to.crowd), u64(to.pitch * to.positions)
    rows = Rows(net.weights, u64(to.line), u64(layer.channels) * u64(to.line))
    first_reach, first_stretch, first_weight = u64(to.reach), u64(to.stretches), u64(to.weights)
    spikes[:], synapses[:], effective[:] = 0, 0, 0
    for position in range(u64(layer.positions)):
        fan, kind = u64(net.fan[u64(to.fan) + position]), u64(net.kinds[u64(to.fan) + position])
        top, most, at = u64(0), u64(0), position * pitch
        for level in range(levels):
            mask, sent = level * words, u64(0)
            for word in range(words):
                start, rise = word * u64(64), u64(0)
                vector, end = start, min(pitch, start + u64(64))
                while vector < end:
                    bank = level * pitch + vector
                    over = read(pixels, at + vector, membrane) >= read(thresholds, bank, membrane)
                    write(counts, at + vector, read(counts, at + vector, membrane) + over)
                    more = where(over, read(effective_fan, kind + vector, membrane), no_fans)
                    write(fans, bank, read(fans, bank, membrane) + more)
                    rise |= bits(over) << (vector - start)
                    vector += lanes
                masks[mask + word] = rise
                sent += ones(rise)
            if sent == 0:
                break
            spikes[level] += sent
            synapses[level] += sent * fan
            top, most = level + u64(1), max(most, sent)
            if level:
                # A spike of the step before that comes again is counted once.
                for word in range(words):
                    masks[mask - words + word] ^= masks[mask + word]
        if top == 0:
            continue
        nest, here = Nest(words, top, stride), first_reach + position
        at, last = first_stretch + u64(net.reach[here]), first_stretch + u64(net.reach[here + u64(1)])
        while at < last:
            weight = first_weight + u64(net.stretches[at + u64(2)])
            stretch = Stretch(u64(net.stretches[at]), u64(net.stretches[at + u64(1)]), weight)
            at += u64(3)
            # Two calls, as whether sums fit a byte must be known when they are compiled.
            if most <= crowd:
                add_nested_rows(sums, stretch, rows, masks, nest, 1)
            else:
                add_nested_rows(sums, stretch, rows, masks, nest, 0)
    for level in range(levels):
        for vector in range(level * pitch, (level + u64(1)) * pitch, lanes):
            effective[level] += total(read(fans, vector, membrane))
            write(fans, vector, no_fans)


@njit(nogil=True, error_model="numpy")
def add_sums(to, level, sums, membrane):
    """Add what the encoder's spikes of one step sum up to to the membranes of layer `to`, and clear the sums."""
    states, size = u64(to.states), u64(to.pitch * to.positions)
    first = u64(level) * size
    for vector in range(u64(0), size, width_of(membrane)):
        more = read(sums, first + vector, membrane)
        write(membrane, states + vector, read(membrane, states + vector, membrane) + more)
        write(sums, first + vector, filled(0, sums, membrane))


@njit(nogil=True, error_model="numpy")
def fire(layer, step, net, state, spikes, first_fan):
    """Find a hidden layer's spikes and count them.

    first_fan: −1 behind the last layer, else as in `encode`. Returns the number of places that fire, those of
    positive and of negative spikes, and the sum of their fan-outs.
    """
    rises, falls, places = spikes
    kinds, membrane = net.kinds, state.membrane
    pitch, words, compared = u64(layer.pitch), words_of(layer), step <= layer.compared
    if step == layer.compared + 1:
        _look_up_all(layer, net.table, state)
    used, up, down, fans = u64(0), u64(0), u64(0), filled(0, net.effective_fan, membrane)
    for position in range(u64(layer.positions)):
        at, first, before = u64(layer.states) + position * pitch, used * words, up + down
        fan = np.int64(kinds[u64(first_fan) + position]) if first_fan >= 0 else -1
        for word in range(words):
            if compared:
                rise, fall, fans = _move_towards_code(layer, step, word, at, net, state, fan, fans)
            else:
                rise, fall, fans = _compare_with_two(layer, step, word, at, net, state, fan, fans)
            rises[first + word], falls[first + word] = rise, fall
            up, down = up + ones(rise), down + ones(fall)
        places[used] = position
        used += u64(up + down > before)
    return np.int64(used), np.int64(up), np.int64(down), total(fans)


# Inlined by numba: as a call of its own, it would pass its vectors through memory and take twice as long.
@njit(nogil=True, error_model="numpy", inline="always")
def _move_towards_code(layer, step, word, at, net, state, fan, fans):
    """Move each count of a word by one towards the number of thresholds that the membrane reaches.

    Thresholds ascend, so U ≥ θ_{n+1} where that number is above n, and U < θ_n where it is below. A count is at
    most the number of steps so far, so the first `step` thresholds decide. Every vector takes the same way:
    where none of it fires, guessing wrong would cost more. at: the first neuron of the place. fan: where its
    fan-outs begin, or −1. Returns the bits of positive and of negative spikes, and the fan-outs with theirs.
    """
    table, effective_fan = net.table, net.effective_fan
    membrane, counts, last = state.membrane, state.counts, state.last
    pitch, start, rise, fall = u64(layer.pitch), word * u64(64), u64(0), u64(0)
    rows, no_fans = u64(min(step, layer.rows)), filled(0, effective_fan, membrane)
    vector, end = start, min(pitch, start + u64(64))
    while vector < end:
        here, row = at + vector, u64(layer.rising) + pitch + vector
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
def _compare_with_two(layer, step, word, at, net, state, fan, fans):
    """Compare each membrane of a word with its two thresholds; look up, one by one, those of neurons that fire.

    For many thresholds, and for the published neuron, which rises and falls at different ones. The rest is as in
    `_move_towards_code`.
    """
    membrane, effective_fan = state.membrane, net.effective_fan
    pitch, start, rise, fall = u64(layer.pitch), word * u64(64), u64(0), u64(0)
    vector, end = start, min(pitch, start + u64(64))
    while vector < end:
        u, here = read(membrane, at + vector, membrane), at + vector
        over, under = u >= read(state.upper, here, membrane), u < read(state.lower, here, membrane)
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
        state.counts[neuron] += 1 if rising else -1
        state.last[neuron] = step
        _look_up(layer, at, channel, net.table, state)
        both &= both - u64(1)
    return rise, fall, fans


@njit(nogil=True, error_model="numpy")
def _look_up_all(layer, table, state):
    """Set both thresholds of each neuron of a layer to those of its count."""
    for position in range(u64(layer.positions)):
        for channel in range(u64(layer.pitch)):
            _look_up(layer, u64(layer.states) + position * u64(layer.pitch), channel, table, state)


@njit(nogil=True, error_model="numpy")
def _look_up(layer, at, channel, table, state):
    """Set both thresholds of a neuron to those of its count."""
    neuron, pitch = at + channel, u64(layer.pitch)
    row = u64(state.counts[neuron]) * pitch + channel
    state.lower[neuron] = table[u64(layer.falling) + row]
    state.upper[neuron] = table[u64(layer.rising) + row + pitch]


@njit(nogil=True, error_model="numpy")
def deliver(used, spikes, layer, to, net, membrane):
    """Add the spikes of `layer` to the membranes of layer `to` that they reach; returns the synapses they take."""
    rises, falls, places = spikes
    reach, stretches, fan = net.reach, net.stretches, net.fan
    words, crowd, synapses = words_of(layer), u64(to.crowd), u64(0)
    rows = Rows(net.weights, u64(to.line), u64(layer.channels) * u64(to.line))
    first_reach, first_stretch, first_fan = u64(to.reach), u64(to.stretches), u64(to.fan)
    first_state, first_weight = u64(to.states), u64(to.weights)
    for place in range(u64(used)):
        position, first, end = u64(places[place]), place * words, (place + u64(1)) * words
        sent = u64(0)
        for number in range(first, end):
            sent += ones(rises[number]) + ones(falls[number])
        synapses += sent * u64(fan[first_fan + position])
        word, here = Word(rises[first], falls[first], first + u64(1), end), first_reach + position
        at, last = first_stretch + u64(reach[here]), first_stretch + u64(reach[here + u64(1)])
        while at < last:
            state, size = first_state + u64(stretches[at]), u64(stretches[at + u64(1)])
            stretch = Stretch(state, size, first_weight + u64(stretches[at + u64(2)]))
            at += u64(3)
            # As in `encode_all`.
            if sent <= crowd:
                add_rows(membrane, stretch, rows, rises, falls, word, 1)
            else:
                add_rows(membrane, stretch, rows, rises, falls, word, 0)
    return np.int64(synapses)


@njit(nogil=True, error_model="numpy")
def effective_synapses(used, spikes, layer, to, net):
    """Number of synapses other than 0 that the spikes of `layer` reach in layer `to`."""
    rises, falls, places = spikes
    words, synapses = words_of(layer), 0
    for place in range(u64(used)):
        fan = u64(net.kinds[u64(to.fan) + u64(places[place])])
        for word in range(words):
            left = rises[place * words + word] | falls[place * words + word]
            while left:
                synapses += net.effective_fan[fan + word * u64(64) + first_bit(left)]
                left &= left - u64(1)
    return synapses


@njit(nogil=True, error_model="numpy")
def score(used, spikes, layer, weights, scores):
    """Add the class weights of the last layer's spikes, a row of classes for each neuron, to a step's scores.

    Behind the channels of each place lies a row of zeros.
    """
    rises, falls, places = spikes
    words, classes = words_of(layer), u64(len(scores))
    rows = Rows(weights, classes, u64(layer.channels) * classes)
    for place in range(u64(used)):
        base = u64(places[place]) * u64(layer.channels + 1) * classes
        first, end = place * words, (place + u64(1)) * words
        word = Word(rises[first], falls[first], first + u64(1), end)
        add_rows(scores, Stretch(u64(0), classes, base), rows, rises, falls, word, 0)
