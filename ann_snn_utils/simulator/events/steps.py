"""Which neurons of a layer fire at a step: a bit for each, their counts moved, their fan-out added up.

Spikes are three arrays: words of 64 channels with a bit for each positive spike, the same for the negative ones,
and the places whose words these are. Places that send none have no words.

The encoder's spikes of all steps, and what they add up to, found in one pass over the image.

Its membranes stay while its threshold climbs: a neuron that fires fires in every step up to its last one. So the
spikes of a step are those of the next one and a few more, and so are their sums of weights.

Where spikes go: the membranes that they reach, the synapses that they take, the classes that they speak for.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64

from .rows import add_nested_rows, add_pixel_row, add_rows
from .vectors import bits, filled, first_bit, ones, read, total, where, width_of, write


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
                rise, fall, fans = _towards_code(
                    layer, step, word, at, table, membrane, counts, last, fan, effective_fan, fans
                )
            else:
                rise, fall, fans = _across(
                    layer, step, word, at, table, membrane, thresholds, counts, last, fan, effective_fan, fans
                )
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


@njit(nogil=True, error_model="numpy")
def show(image, to, reach, stretches, weights, membrane):
    """Add an image [positions, channels] to the encoder's membranes."""
    positions, inputs = image.shape
    first_reach, first_stretch, line = u64(to.reach), u64(to.stretches), u64(to.line)
    for position in range(u64(positions)):
        for channel in range(u64(inputs)):
            value = np.int16(image[position, channel])
            if value == 0:
                continue
            place = first_reach + position
            at, end = first_stretch + u64(reach[place]), first_stretch + u64(reach[place + u64(1)])
            while at < end:
                state, size = u64(stretches[at]), u64(stretches[at + u64(1)])
                weight = u64(stretches[at + u64(2)]) + channel * line
                at += u64(3)
                add_pixel_row(membrane, state, size, weights, weight, value)


@njit(nogil=True, error_model="numpy")
def deliver(used, spikes, layer, to, reach, stretches, weights, membrane, fan):
    """Add the spikes of `layer` to the membranes of layer `to` that they reach, and give how many synapses they
    reach there. fan: those of a spike from each place."""
    rises, falls, places = spikes
    words, line, crowd, synapses = words_of(layer), u64(to.line), u64(to.crowd), u64(0)
    first_reach, first_stretch, first_state, first_weight, first_fan = (
        u64(to.reach),
        u64(to.stretches),
        u64(to.states),
        u64(to.weights),
        u64(to.fan),
    )
    nothing = u64(layer.channels) * line
    for place in range(u64(used)):
        position, first, end = u64(places[place]), place * words, (place + u64(1)) * words
        sent = u64(0)
        for word in range(first, end):
            sent += ones(rises[word]) + ones(falls[word])
        synapses += sent * u64(fan[first_fan + position])
        rise, fall, first = rises[first], falls[first], first + u64(1)
        here = first_reach + position
        at, last = first_stretch + u64(reach[here]), first_stretch + u64(reach[here + u64(1)])
        while at < last:
            state, size = first_state + u64(stretches[at]), u64(stretches[at + u64(1)])
            weight = first_weight + u64(stretches[at + u64(2)])
            at += u64(3)
            if sent <= crowd:
                add_rows(
                    membrane, state, size, weights, weight, line, nothing, rise, fall, rises, falls, first, end, 1
                )
            else:
                add_rows(
                    membrane, state, size, weights, weight, line, nothing, rise, fall, rises, falls, first, end, 0
                )
    return np.int64(synapses)


@njit(nogil=True, error_model="numpy")
def effective_synapses(used, spikes, layer, to, kinds, effective_fan):
    """Give how many synapses other than 0 the spikes of `layer` reach."""
    rises, falls, places = spikes
    words, total = words_of(layer), 0
    for place in range(u64(used)):
        fan = u64(kinds[u64(to.fan) + u64(places[place])])
        for word in range(words):
            bits = rises[place * words + word] | falls[place * words + word]
            while bits:
                total += effective_fan[fan + word * u64(64) + first_bit(bits)]
                bits &= bits - u64(1)
    return total


@njit(nogil=True, error_model="numpy")
def score(used, spikes, layer, weights, scores):
    """Add the class weights of the last layer's spikes, a row of classes for each neuron, to a step's scores.

    Behind the channels of each place lies a row of zeros.
    """
    rises, falls, places = spikes
    words, classes = words_of(layer), u64(len(scores))
    nothing = u64(layer.channels) * classes
    for place in range(u64(used)):
        base = u64(places[place]) * u64(layer.channels + 1) * classes
        first, end = place * words, (place + u64(1)) * words
        add_rows(
            scores,
            u64(0),
            classes,
            weights,
            base,
            classes,
            nothing,
            rises[first],
            falls[first],
            rises,
            falls,
            first + u64(1),
            end,
            0,
        )


@njit(nogil=True, error_model="numpy")
def present(
    layer, to, levels, thresholds, pixels, counts, net, membrane, masks, fans, sums, spikes, synapses, effective
):
    """Run the encoder over all its steps, and sum up what each step adds to the membranes of layer `to`.

    sums: [levels · neurons of `to`], to which is added. masks: room for the spikes of one place. fans: room for
    levels · channels of a place, all 0. spikes, synapses, effective: int64 [levels], set to the spikes of each
    step, and to the synapses that they reach, all of them and those other than 0.
    """
    pitch, words, lanes, levels = u64(layer.pitch), words_of(layer), width_of(membrane), u64(levels)
    no_fans = filled(0, fans, membrane)
    line, crowd, stride = u64(to.line), u64(to.crowd), u64(to.pitch * to.positions)
    nothing = u64(layer.channels) * line
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
                    more = where(over, read(net.effective_fan, kind + vector, membrane), no_fans)
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
        here = first_reach + position
        at, last = first_stretch + u64(net.reach[here]), first_stretch + u64(net.reach[here + u64(1)])
        while at < last:
            state, size = u64(net.stretches[at]), u64(net.stretches[at + u64(1)])
            weight = first_weight + u64(net.stretches[at + u64(2)])
            at += u64(3)
            if most <= crowd:
                add_nested_rows(sums, state, size, stride, net.weights, weight, line, nothing, masks, words, top, 1)
            else:
                add_nested_rows(sums, state, size, stride, net.weights, weight, line, nothing, masks, words, top, 0)
    for level in range(levels):
        for vector in range(level * pitch, (level + u64(1)) * pitch, lanes):
            effective[level] += total(read(fans, vector, membrane))
            write(fans, vector, no_fans)


@njit(nogil=True, error_model="numpy")
def arrive(to, level, sums, membrane):
    """Add the sums of a step to the membranes of layer `to`, and clear them."""
    states, size = u64(to.states), u64(to.pitch * to.positions)
    first = u64(level) * size
    for vector in range(u64(0), size, width_of(membrane)):
        arriving = read(sums, first + vector, membrane)
        write(membrane, states + vector, read(membrane, states + vector, membrane) + arriving)
        write(sums, first + vector, filled(0, sums, membrane))
