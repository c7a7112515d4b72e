"""Where spikes go: the membranes that they reach, the synapses that they take, the classes that they speak for."""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64

from .row_sums import add_pixel_rows, add_rows


@njit(nogil=True, error_model="numpy")
def show(image, to, reach, stretches, weights, membrane, channels, values):
    """Add an image [positions, channels] to the encoder's membranes; channels, values: room for a pixel's."""
    positions, inputs = image.shape
    first_reach, first_stretch = u64(to.reach), u64(to.stretches)
    for position in range(u64(positions)):
        shown = u64(0)
        for channel in range(u64(inputs)):
            channels[shown], values[shown] = channel, image[position, channel]
            shown += u64(image[position, channel] != 0)
        if shown == 0:
            continue
        place = first_reach + position
        for at in range(first_stretch + u64(reach[place]), first_stretch + u64(reach[place + u64(1)])):
            state, size, weight = u64(stretches[at, u64(0)]), u64(stretches[at, u64(1)]), u64(stretches[at, u64(2)])
            add_pixel_rows(membrane, state, size, weights, weight, channels, u64(to.line), values, u64(0), shown)


@njit(nogil=True, error_model="numpy")
def deliver(used, spikes, to, reach, stretches, weights, membrane):
    """Add all listed spikes to the membranes of layer `to` that they reach."""
    rises, falls, places, risen, fallen = spikes
    first_reach, first_stretch, first_state, first_weight, line, crowd = (
        u64(to.reach), u64(to.stretches), u64(to.states), u64(to.weights), u64(to.line), u64(to.crowd)
    )  # fmt: skip
    for place in range(u64(used)):
        position = first_reach + u64(places[place])
        rise, rises_end = u64(risen[place]), u64(risen[place + u64(1)])
        fall, falls_end = u64(fallen[place]), u64(fallen[place + u64(1)])
        few = rises_end - rise + falls_end - fall <= crowd
        for at in range(first_stretch + u64(reach[position]), first_stretch + u64(reach[position + u64(1)])):
            state, size = first_state + u64(stretches[at, u64(0)]), u64(stretches[at, u64(1)])
            weight = first_weight + u64(stretches[at, u64(2)])
            if few:
                add_rows(membrane, state, size, weights, weight, line, rises, rise, rises_end, falls, fall,
                         falls_end, 1)  # fmt: skip
            else:
                add_rows(membrane, state, size, weights, weight, line, rises, rise, rises_end, falls, fall,
                         falls_end, 0)  # fmt: skip


@njit(nogil=True, error_model="numpy")
def synapses(used, spikes, layer, to, fan):
    """Give how many synapses of layer `to` the listed spikes reach."""
    rises, falls, places, risen, fallen = spikes
    reached_by = u64(0)
    for place in range(u64(used)):
        sent = u64(risen[place + u64(1)] - risen[place]) + u64(fallen[place + u64(1)] - fallen[place])
        # All channels of a place reach equally many.
        reached_by += sent * u64(fan[u64(to.fan) + u64(places[place]) * u64(layer.pitch)])
    return np.int64(reached_by)


@njit(nogil=True, error_model="numpy")
def tally_listed(used, spikes, layer, to, effective_fan, fans):
    """Set fans [channels] to the synapses other than 0 that the listed spikes of each channel reach."""
    rises, falls, places, risen, fallen = spikes
    fans[:] = 0
    for place in range(used):
        first = to.fan + places[place] * layer.pitch
        for spike in range(risen[place], risen[place + 1]):
            fans[rises[spike]] += effective_fan[first + rises[spike]]
        for spike in range(fallen[place], fallen[place + 1]):
            fans[falls[spike]] += effective_fan[first + falls[spike]]


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
    rises, falls, places, risen, fallen = spikes
    for place in range(u64(used)):
        at = u64(places[place]) * u64(layer.pitch)
        for spike in range(u64(risen[place]), u64(risen[place + u64(1)])):
            for label in range(u64(len(scores))):
                scores[label] += weights[at + u64(rises[spike]), label]
        for spike in range(u64(fallen[place]), u64(fallen[place + u64(1)])):
            for label in range(u64(len(scores))):
                scores[label] -= weights[at + u64(falls[spike]), label]
