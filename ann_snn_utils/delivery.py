"""Where spikes go: the membranes that they reach, the synapses that they take, the classes that they speak for."""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64

from .firing import words_of
from .lanes import first_bit, ones
from .row_sums import add_pixel_row, add_rows


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
        u64(to.reach), u64(to.stretches), u64(to.states), u64(to.weights), u64(to.fan)
    )  # fmt: skip
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
                add_rows(membrane, state, size, weights, weight, line, nothing, rise, fall, rises, falls, first,
                         end, 1)  # fmt: skip
            else:
                add_rows(membrane, state, size, weights, weight, line, nothing, rise, fall, rises, falls, first,
                         end, 0)  # fmt: skip
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
        add_rows(scores, u64(0), classes, weights, base, classes, nothing, rises[first], falls[first], rises, falls,
                 first + u64(1), end, 0)  # fmt: skip
