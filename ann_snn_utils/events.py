"""The integer network driven by its spikes, compiled: work is done where a spike arrives, and nowhere else.

Each image runs through all its steps at once, with membranes that stay in the processor's cache. A spike adds
a row of weights to the membranes it reaches; thresholds are compared a whole vector of neurons at a time.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
from numba import njit, prange
from numba import uint64 as u64

from .delivery import deliver, effective_synapses, score, show
from .event_faults import disturb_spikes
from .firing import encode, fire
from .lanes import VECTOR_BYTES, bits, filled, ones, read, width_of
from .presentation import arrive, present

PLUS, MINUS, SOPS, EFFECTIVE_SOPS = range(4)


@njit(nogil=True, error_model="numpy")
def _run(image, sample, net, levels, time_steps, fault, rate, seed, state, counts, totals, pending, scores):
    """Run one image and give the step of its last spike."""
    membrane, pixels, thresholds, last, fans, encoded, sent, spare, masks, sums, arrivals = state
    geometry, depth = net.geometry, len(net.geometry)
    # Loops, as numba assigns whole arrays more slowly.
    for neuron in range(u64(len(counts))):
        counts[neuron] = 0
    for neuron in range(u64(len(pixels))):
        pixels[neuron] = 0
    show(image, geometry[0], net.reach, net.stretches, net.pixel_weights, pixels)
    for neuron in range(u64(len(membrane))):
        membrane[neuron], last[neuron] = 0, 0
    hidden = counts[geometry[0].pitch * geometry[0].positions :]
    candidates, last_step, levels = geometry[0].positions, 0, min(levels, time_steps)
    # Faults strike each step's spikes anew.
    at_once = rate == 0
    if at_once:
        present(geometry[0], geometry[1], levels, net.pixel_thresholds, pixels, counts, net, membrane, masks, fans,
                sums, arrivals[0], arrivals[1], arrivals[2])  # fmt: skip
        for level in range(levels):
            totals[level, 0, PLUS] += arrivals[0, level]
            totals[level, 1, SOPS] += arrivals[1, level]
            totals[level, 1, EFFECTIVE_SOPS] += arrivals[2, level]
            # A neuron that fires now has fired in every step before.
            pending[0, level] -= arrivals[0, level]
            pending[0, level + 1] += arrivals[0, level]
    encoded[2][:] = np.arange(candidates)
    for step in range(1, time_steps + 1):
        silent = True
        if at_once and step <= levels and arrivals[0, step - 1]:
            silent = False
            arrive(geometry[1], step - 1, sums, membrane)
        for index in range(at_once, depth):
            layer, to = geometry[index], geometry[min(index + 1, depth - 1)]
            spikes, first_fan = encoded if index == 0 else sent, to.fan if index + 1 < depth else -1
            if index:
                used, up, down, effective = fire(layer, step, net.table, membrane, thresholds, hidden, last, spikes,
                                                  first_fan, net.kinds, net.effective_fan)  # fmt: skip
            elif step <= levels:
                used, up, effective = encode(layer, step, net.pixel_thresholds, pixels, counts, membrane,
                                              candidates, spikes, first_fan, net.kinds,
                                              net.effective_fan)  # fmt: skip
                candidates, down = used, 0
                pending[0, step - 1] -= up
                pending[0, step] += up
            else:
                continue
            if up + down == 0:
                continue
            silent = False
            totals[step - 1, index, PLUS] += up
            totals[step - 1, index, MINUS] += down
            if not at_once:
                disturb_spikes(layer, index, step, sample, fault, rate, seed, used, spikes, spare)
                spikes = spare
                if index + 1 < depth:
                    effective = effective_synapses(used, spikes, layer, to, net.kinds, net.effective_fan)
            if index + 1 == depth:
                score(used, spikes, layer, net.scores, scores[step - 1])
                continue
            totals[step - 1, index + 1, EFFECTIVE_SOPS] += effective
            totals[step - 1, index + 1, SOPS] += deliver(
                used, spikes, layer, to, net.reach, net.stretches, net.weights, membrane, net.fan
            )  # fmt: skip
        if not silent:
            last_step = step
        elif step > levels:
            break
    for index in range(1, depth):
        for step in range(1, last_step + 1):
            pending[index, step] += _number_of(last, geometry[index], step, membrane)
    return last_step


@njit(nogil=True, error_model="numpy")
def _number_of(last, layer, step, membrane):
    """Give how many of the layer's neurons fired at `step` for the last time."""
    first, number, wanted = u64(layer.states), u64(0), filled(step, last, membrane)
    for vector in range(first, first + u64(layer.pitch * layer.positions), width_of(membrane)):
        number += ones(bits(read(last, vector, membrane) == wanted))
    return number


@njit(nogil=True, error_model="numpy")
def _aligned(size, integer):
    """Give an empty array whose vectors begin where cache lines do."""
    room = np.empty(size + VECTOR_BYTES, integer)
    skipped = -room.ctypes.data % VECTOR_BYTES // room.itemsize
    return room[skipped : skipped + size]


@njit(nogil=True, error_model="numpy")
def _cleared(size, integer):
    values = _aligned(size, integer)
    values[:] = 0
    return values


@njit(nogil=True, error_model="numpy")
def _room(words, places):
    """Give room for spikes, as `firing` has them."""
    return np.zeros(words, np.uint64), np.zeros(words, np.uint64), np.empty(places, np.int64)


def _loop(sources: str):
    """Give the compiled loop over images; what numba keeps of it on the disk holds while `sources` are the same.

    It runs images [N, H · W, C] and fills counts [N, neurons with their padding] (int8 where no count and no step
    is larger, else int16), last_steps int64 [N], totals int64 [G, T, L, 4], pending int64 [G, L, T + 1] (neurons
    by the step of their last spike, of those that fire) and scores int32 [N, T, classes with their padding], each
    step's own. fault: 0 deletes, 1 flips. G: groups of images, each
    one thread's.
    """

    @njit(parallel=True, cache=True, nogil=True, error_model="numpy")
    def run(
        images, samples, net, levels, time_steps, fault, rate, seed, counts, last_steps, totals, pending, scores
    ):  # fmt: skip
        _ = sources
        geometry, integer = net.geometry, net.table.dtype
        size = (len(images) + len(totals) - 1) // len(totals)
        for group in prange(len(totals)):
            words, most, hidden = 0, 0, 0
            for layer in geometry:
                words = max(words, (layer.pitch + 63) // 64 * layer.positions)
                most, hidden = max(most, layer.positions), layer.states + layer.pitch * layer.positions
            pixels = geometry[0].pitch * geometry[0].positions
            first, shown = geometry[1].pitch * geometry[1].positions, min(levels, time_steps)
            state = (
                _aligned(hidden, integer), _aligned(pixels, np.int32),
                (_aligned(hidden, integer), _aligned(hidden, integer)),
                _aligned(hidden, counts.dtype), _cleared(shown * geometry[0].pitch, np.int32),
                _room(words, geometry[0].positions), _room(words, most), _room(words, most),
                np.zeros((geometry[0].pitch + 63) // 64 * shown, np.uint64), _cleared(shown * first, integer),
                np.zeros((3, shown), np.int64),
            )  # fmt: skip
            for index in range(group * size, min(len(images), (group + 1) * size)):
                last_steps[index] = _run(
                    images[index], samples[index], net, levels, time_steps, fault, rate, seed, state,
                    counts[index], totals[group], pending[group], scores[index],
                )  # fmt: skip

    return run


# numba itself looks at this file only, not at those whose functions are compiled into the loop.
_SOURCES = ("delivery", "event_faults", "events", "firing", "lanes", "layout", "presentation", "row_sums")
run = _loop(sha256(b"".join(Path(__file__).with_name(f"{name}.py").read_bytes() for name in _SOURCES)).hexdigest())
