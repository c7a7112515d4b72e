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
def deliver(used, spikes, layer, to, reach, stretches, weights, membrane):
    """Add the spikes of `layer` to the membranes of layer `to` that they reach."""
    rises, falls, places = spikes
    words, line, crowd = words_of(layer), u64(to.line), u64(to.crowd)
    first_reach, first_stretch, first_state, first_weight = (
        u64(to.reach), u64(to.stretches), u64(to.states), u64(to.weights)
    )  # fmt: skip
    for place in range(u64(used)):
        position, first, end = first_reach + u64(places[place]), place * words, (place + u64(1)) * words
        few = _sent(rises, falls, first, end) <= crowd
        for at in range(first_stretch + u64(reach[position]), first_stretch + u64(reach[position + u64(1)])):
            state, size = first_state + u64(stretches[at, u64(0)]), u64(stretches[at, u64(1)])
            weight = first_weight + u64(stretches[at, u64(2)])
            if few:
                add_rows(membrane, state, size, weights, weight, line, rises, falls, first, end, 1)
            else:
                add_rows(membrane, state, size, weights, weight, line, rises, falls, first, end, 0)


@njit(nogil=True, error_model="numpy")
def _sent(rises, falls, first, end):
    """Give the number of spikes in the words first … end − 1."""
    sent = u64(0)
    for word in range(first, end):
        sent += ones(rises[word]) + ones(falls[word])
    return sent


@njit(nogil=True, error_model="numpy")
def synapses(used, spikes, layer, to, fan):
    """Give how many synapses of layer `to` the spikes of `layer` reach."""
    rises, falls, places = spikes
    words, total = words_of(layer), u64(0)
    for place in range(u64(used)):
        # All channels of a place reach equally many.
        each = u64(fan[u64(to.fan) + u64(places[place]) * u64(layer.pitch)])
        total += each * _sent(rises, falls, place * words, (place + u64(1)) * words)
    return np.int64(total)


@njit(nogil=True, error_model="numpy")
def tally_again(used, spikes, layer, to, effective_fan, fans):
    """Set fans [channels] to the synapses other than 0 that the spikes of each channel reach."""
    rises, falls, places = spikes
    words = words_of(layer)
    fans[:] = 0
    for place in range(u64(used)):
        for word in range(words):
            bits = rises[place * words + word] | falls[place * words + word]
            while bits:
                channel = word * u64(64) + first_bit(bits)
                fans[channel] += effective_fan[u64(to.fan) + u64(places[place]) * u64(layer.pitch) + channel]
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
    """Add the class weights [neurons, classes] of the last layer's spikes to the scores of a step."""
    rises, falls, places = spikes
    words = words_of(layer)
    for place in range(u64(used)):
        for word in range(words):
            up, down = rises[place * words + word], falls[place * words + word]
            while up | down:
                channel = first_bit(up | down)
                sign = np.int64((up >> channel) & u64(1)) - np.int64((down >> channel) & u64(1))
                neuron = u64(places[place]) * u64(layer.pitch) + word * u64(64) + channel
                for label in range(u64(len(scores))):
                    scores[label] += sign * weights[neuron, label]
                up, down = up & ~(u64(1) << channel), down & ~(u64(1) << channel)
