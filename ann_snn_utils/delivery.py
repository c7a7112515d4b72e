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
            for at in range(first_stretch + u64(reach[place]), first_stretch + u64(reach[place + u64(1)])):
                state, size = u64(stretches[at, u64(0)]), u64(stretches[at, u64(1)])
                weight = u64(stretches[at, u64(2)]) + channel * line
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
    for place in range(u64(used)):
        position, first, end = u64(places[place]), place * words, (place + u64(1)) * words
        sent = u64(0)
        for word in range(first, end):
            sent += ones(rises[word]) + ones(falls[word])
        synapses += sent * u64(fan[first_fan + position])
        here = first_reach + position
        for at in range(first_stretch + u64(reach[here]), first_stretch + u64(reach[here + u64(1)])):
            state, size = first_state + u64(stretches[at, u64(0)]), u64(stretches[at, u64(1)])
            weight = first_weight + u64(stretches[at, u64(2)])
            if sent <= crowd:
                add_rows(membrane, state, size, weights, weight, line, rises, falls, first, end, 1)
            else:
                add_rows(membrane, state, size, weights, weight, line, rises, falls, first, end, 0)
    return np.int64(synapses)


@njit(nogil=True, error_model="numpy")
def tally_again(used, spikes, layer, to, kinds, effective_fan, fans):
    """Set fans [channels] to the synapses other than 0 that the spikes of each channel reach."""
    rises, falls, places = spikes
    words = words_of(layer)
    fans[:] = 0
    for place in range(u64(used)):
        fan = u64(kinds[u64(to.fan) + u64(places[place])])
        for word in range(words):
            bits = rises[place * words + word] | falls[place * words + word]
            while bits:
                channel = word * u64(64) + first_bit(bits)
                fans[channel] += effective_fan[fan + channel]
                bits &= bits - u64(1)


@njit(nogil=True, error_model="numpy")
def taken(fans):
    """Give the sum of what has been tallied, and begin anew."""
    total = 0
    for channel in range(u64(len(fans))):
        total += fans[channel]
        fans[channel] = 0
    return total


@njit(nogil=True, error_model="numpy")
def score(used, spikes, layer, weights, scores):
    """Add the class weights of the last layer's spikes, a row of classes for each neuron, to a step's scores."""
    rises, falls, places = spikes
    words, classes = words_of(layer), u64(len(scores))
    for place in range(u64(used)):
        base = u64(places[place]) * u64(layer.pitch) * classes
        first, end = place * words, (place + u64(1)) * words
        add_rows(scores, u64(0), classes, weights, base, classes, rises, falls, first, end, 0)
