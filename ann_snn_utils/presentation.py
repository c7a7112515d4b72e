"""The encoder's spikes of all steps, and what they add up to, found in one pass over the image.

Its membranes stay while its threshold climbs: a neuron that fires fires in every step up to its last one. So the
spikes of a step are those of the next one and a few more, and so are their sums of weights.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numba import uint64 as u64

from .firing import encode_place, words_of
from .lanes import add, width_of
from .row_sums import add_nested_rows


@njit(nogil=True, error_model="numpy")
def present(layer, to, levels, thresholds, pixels, counts, net, masks, fans, sums, spikes, synapses, effective):
    """Run the encoder over all its steps, and sum up what each step adds to the membranes of layer `to`.

    sums: [levels · neurons of `to`], to which is added. masks: room for the spikes of one place. fans: room for
    levels · channels. spikes, synapses, effective: int64 [levels], set to the spikes of each step, and to the
    synapses that they reach, all of them and those other than 0.
    """
    pitch, words = u64(layer.pitch), words_of(layer)
    line, crowd, stride = u64(to.line), u64(to.crowd), u64(to.pitch * to.positions)
    first_reach, first_stretch, first_weight = u64(to.reach), u64(to.stretches), u64(to.weights)
    spikes[:], synapses[:], effective[:] = 0, 0, 0
    for position in range(u64(layer.positions)):
        fan = u64(net.fan[u64(to.fan) + position])
        kind, top, most = u64(net.kinds[u64(to.fan) + position]), u64(0), u64(0)
        for level in range(u64(levels)):
            mask = level * words
            sent = encode_place(layer, position, np.int64(level) + 1, thresholds, pixels, counts, masks, mask, kind,
                                net.effective_fan, fans, level * pitch)  # fmt: skip
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
        for stretch in range(first_stretch + u64(net.reach[here]), first_stretch + u64(net.reach[here + u64(1)])):
            state, size = u64(net.stretches[stretch, u64(0)]), u64(net.stretches[stretch, u64(1)])
            weight = first_weight + u64(net.stretches[stretch, u64(2)])
            if most <= crowd:
                add_nested_rows(sums, state, size, stride, net.weights, weight, line, masks, words, top, 1)
            else:
                add_nested_rows(sums, state, size, stride, net.weights, weight, line, masks, words, top, 0)
    for level in range(u64(levels)):
        for channel in range(level * pitch, (level + u64(1)) * pitch):
            effective[level] += fans[channel]
            fans[channel] = 0


@njit(nogil=True, error_model="numpy")
def arrive(to, level, sums, membrane):
    """Add the sums of a step to the membranes of layer `to`, and clear them."""
    states, size, lanes = u64(to.states), u64(to.pitch * to.positions), width_of(membrane)
    first = u64(level) * size
    vector = u64(0)
    while vector < size:
        add(membrane, states + vector, sums, first + vector)
        vector += lanes
