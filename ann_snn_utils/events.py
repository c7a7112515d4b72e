"""The integer network driven by its spikes, compiled: work is done where a spike arrives, and nowhere else.

Each image runs through all its steps at once, with membranes that stay in the processor's cache. A spike adds
a row of weights to the membranes it reaches; thresholds are compared a whole vector of neurons at a time.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numba import uint64 as u64

from .event_faults import disturb_events
from .lanes import add_rows, add_ternary_rows, below, list_bits, reached

PLUS, MINUS, SOPS, EFFECTIVE_SOPS = range(4)
VECTOR_BYTES = 64


@njit(nogil=True, error_model="numpy")
def _deliver(used, events, to, reach, stretches, weights, membrane, crowd):
    """Add all listed events to the membranes of layer `to` that they reach.

    Up to `crowd` events of one place, of which the positive ones come first, add up within a byte.
    """
    rows, signs, neurons, places, starts, falls = events
    first_reach, first_stretch, first_state, first_weight = (
        u64(to.reach), u64(to.stretches), u64(to.states), u64(to.weights)
    )  # fmt: skip
    for place in range(u64(used)):
        position, first, end = first_reach + u64(places[place]), u64(starts[place]), u64(starts[place + u64(1)])
        # A crowd of 0 says that the events are in no order: `falls` means nothing then.
        few = u64(0) < end - first <= u64(crowd)
        for at in range(first_stretch + u64(reach[position]), first_stretch + u64(reach[position + u64(1)])):
            state, size = first_state + u64(stretches[at, u64(0)]), u64(stretches[at, u64(1)])
            weight = first_weight + u64(stretches[at, u64(2)])
            if few:
                add_ternary_rows(membrane, state, size, weights, weight, rows, first, u64(falls[place]), end)
            else:
                add_rows(membrane, state, size, weights, weight, rows, signs, first, end)


@njit(nogil=True, error_model="numpy")
def _synapses(used, events, first_fan, fan, effective_fan):
    """Give how many synapses the listed events reach, and how many of them have a weight other than 0."""
    rows, signs, neurons, places, starts, falls = events
    all_of_them, effective = 0, 0
    for event in range(u64(starts[used])):
        all_of_them += fan[u64(first_fan) + u64(neurons[event])]
        effective += effective_fan[u64(first_fan) + u64(neurons[event])]
    return all_of_them, effective


@njit(nogil=True, error_model="numpy")
def _pixels(image, line, events):
    """List an image [positions, channels] as events, one for each pixel other than 0."""
    rows, signs, neurons, places, starts, falls = events
    positions, inputs = image.shape
    used, listed = u64(0), u64(0)
    for position in range(u64(positions)):
        first = listed
        for channel in range(u64(inputs)):
            rows[listed], signs[listed] = channel * u64(line), image[position, channel]
            listed += u64(image[position, channel] != 0)
        if listed > first:
            places[used], starts[used] = position, first
            used += u64(1)
    starts[used] = listed
    return used


@njit(nogil=True, error_model="numpy")
def _encode(layer, step, thresholds, pixels, line, candidates, events):
    """List the encoder's spikes: those neurons whose membrane reaches the threshold of this step.

    Thresholds ascend, so only the first `candidates` of the listed places, those of the step before, can fire.
    """
    rows, signs, neurons, places, starts, falls = events
    pitch, lanes, line = u64(layer.pitch), u64(VECTOR_BYTES // pixels.itemsize), u64(line)
    level, used, sent = u64(step - 1) * pitch, u64(0), u64(0)
    for place in range(u64(candidates)):
        position, first = u64(places[place]), sent
        for vector in range(u64(0), pitch, lanes):
            bits = reached(pixels, position * pitch + vector, thresholds, level + vector)
            if bits:
                list_bits(rows, sent, bits, vector * line, line)
                sent = list_bits(neurons, sent, bits, position * pitch + vector, u64(1))
        if sent > first:
            places[used], starts[used], falls[used] = position, first, sent
            used += u64(1)
    starts[used] = sent
    return np.int64(used), np.int64(sent)


@njit(nogil=True, error_model="numpy")
def _fire(layer, step, table, membrane, upper, lower, counts, last, line, events, fired_last):
    """List a hidden layer's spikes and move their thresholds; give also how many were positive."""
    rows, signs, neurons, places, starts, falls = events
    pitch, lanes, line = u64(layer.pitch), u64(VECTOR_BYTES // membrane.itemsize), u64(line)
    states, thresholds = u64(layer.states), u64(layer.table)
    used, sent, positive = u64(0), u64(0), u64(0)
    for position in range(u64(layer.positions)):
        first, at = sent, position * pitch
        for vector in range(u64(0), pitch, lanes):
            bits = reached(membrane, states + at + vector, upper, states + at + vector)
            if bits:
                list_bits(rows, sent, bits, vector, u64(1))
                sent = list_bits(neurons, sent, bits, at + vector, u64(1))
        risen = sent
        for vector in range(u64(0), pitch, lanes):
            bits = below(membrane, lower, states + at + vector)
            if bits:
                list_bits(rows, sent, bits, vector, u64(1))
                sent = list_bits(neurons, sent, bits, at + vector, u64(1))
        if sent > first:
            places[used], starts[used], falls[used] = position, first, risen
            used += u64(1)
    starts[used] = sent
    for event in range(sent):
        channel, state = u64(rows[event]), states + u64(neurons[event])
        rises = membrane[state] >= upper[state]
        sign = 1 if rises else -1
        count = counts[state] + sign
        entry = thresholds + u64(count) * pitch + channel
        lower[state], upper[state], counts[state] = table[entry], table[entry + pitch], count
        fired_last[u64(last[state])] -= 1
        last[state] = step
        rows[event], signs[event] = channel * line, sign
        positive += u64(rises)
    return np.int64(used), np.int64(sent), np.int64(positive)


@njit(nogil=True, error_model="numpy")
def _run(image, sample, net, levels, time_steps, fault, rate, seed, state, events, counts, totals, pending, scores):
    """Run one image and give the step of its last spike."""
    membrane, pixels, upper, lower, last, shown, encoded = state
    geometry, depth, classes = net.geometry, len(net.geometry), net.scores.shape[1]
    used = _pixels(image, geometry[0].line, shown)
    pixels[:] = 0
    _deliver(used, shown, geometry[0], net.reach, net.stretches, net.pixel_weights, pixels, 0)
    membrane[:], upper[:], lower[:], last[:], counts[:] = 0, net.upper, net.lower, 0, 0
    hidden = counts[geometry[0].pitch * geometry[0].positions :]
    candidates, last_step = geometry[0].positions, 0
    for place in range(candidates):
        encoded[3][place] = place
    for step in range(1, time_steps + 1):
        silent = True
        for index in range(depth):
            layer, to = geometry[index], geometry[min(index + 1, depth - 1)]
            fired_last, listed = pending[index], encoded if index == 0 else events
            if index:
                used, sent, positive = _fire(layer, step, net.table, membrane, upper, lower, hidden, last, to.line,
                                             events, fired_last)  # fmt: skip
            elif step <= levels:
                used, sent = _encode(layer, step, net.pixel_thresholds, pixels, to.line, candidates, encoded)
                candidates, positive = used, sent
                for event in range(u64(sent)):
                    counts[u64(encoded[2][event])] = step
                # A neuron that fires now has fired in every step before.
                fired_last[step - 1] -= sent
            else:
                continue
            if sent == 0:
                continue
            silent = False
            fired_last[step] += sent
            totals[step - 1, index, PLUS] += positive
            totals[step - 1, index, MINUS] += sent - positive
            if rate > 0:
                if index == 0:
                    encoded[1][:] = 1
                disturb_events(layer, index, step, sample, fault, rate, seed, used, listed)
            if index < depth - 1:
                # Faults leave no order among the signs.
                crowd = 0 if rate > 0 else to.crowd
                sops, effective_sops = _synapses(used, listed, to.fan, net.fan, net.effective_fan)
                totals[step - 1, index + 1, SOPS] += sops
                totals[step - 1, index + 1, EFFECTIVE_SOPS] += effective_sops
                _deliver(used, listed, to, net.reach, net.stretches, net.weights, membrane, crowd)
                continue
            for event in range(events[4][used]):
                for label in range(classes):
                    scores[step - 1, label] += events[1][event] * net.scores[events[2][event], label]
        if not silent:
            last_step = step
        elif step > levels:
            break
    return last_step


@njit(nogil=True, error_model="numpy")
def _aligned(size, integer):
    """Give an empty array whose vectors begin where cache lines do."""
    room = np.empty(size + VECTOR_BYTES, integer)
    skipped = -room.ctypes.data % VECTOR_BYTES // room.itemsize
    return room[skipped : skipped + size]


@njit(nogil=True, error_model="numpy")
def _room(events, places, integer):
    """Give empty lists: of events their weight rows, signs and neurons; of places where each one's events begin,
    and where its negative ones do."""
    # 16 entries more: a list is written a whole vector at a time.
    return (np.empty(events + 16, np.uint32), np.ones(events + 16, integer), np.empty(events + 16, np.uint32),
            np.empty(places, np.int32), np.empty(places + 1, np.int32), np.empty(places, np.int32))  # fmt: skip


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def run(images, samples, net, levels, time_steps, fault, rate, seed, counts, last_steps, totals, pending, scores):
    """Run images [N, H · W, C]; fill counts int16 [N, neurons with their padding], last_steps int64 [N], totals
    int64 [G, T, L, 4], pending int64 [G, L, T + 1] (neurons by the step of their last spike) and scores int64
    [N, T, classes], each step's own. fault: 0 deletes, 1 flips. G: groups of images, each one thread's."""
    geometry, integer = net.geometry, net.table.dtype
    size = (len(images) + len(totals) - 1) // len(totals)
    for group in prange(len(totals)):
        widest, most = 0, 0
        for layer in geometry:
            widest, most = max(widest, layer.pitch * layer.positions), max(most, layer.positions)
        hidden, pixels = len(net.upper), geometry[0].pitch * geometry[0].positions
        state = (
            _aligned(hidden, integer), _aligned(pixels, np.int32), _aligned(hidden, integer),
            _aligned(hidden, integer), np.empty(hidden, np.int16),
            _room(images.shape[1] * images.shape[2], images.shape[1], np.int32),
            _room(pixels, geometry[0].positions, integer),
        )  # fmt: skip
        events = _room(widest, most, integer)
        for index in range(group * size, min(len(images), (group + 1) * size)):
            last_steps[index] = _run(
                images[index], samples[index], net, levels, time_steps, fault, rate, seed, state, events,
                counts[index], totals[group], pending[group], scores[index],
            )
