"""The integer network driven by its spikes, compiled: work is done where a spike arrives, and nowhere else.

Each image runs through all its steps at once, with membranes that stay in the processor's cache. A spike adds
a row of weights to the membranes it reaches; thresholds are compared a whole vector of neurons at a time.

Images through the compiled, spike-driven simulator: arrays out of the network, a record out of arrays.

Faults of spikes, compiled: those that `disturb.faulty` draws, one by one.
"""

from __future__ import annotations

from collections import namedtuple
from dataclasses import fields
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from numba import uint64 as u64
from torch import Tensor
from tqdm.auto import tqdm

from ...snn.network import SNN
from ...threads import compiled, compiled_loops
from ..disturb import FAULTS
from ..record import Record
from .layout import Layout, class_pitch, lay_out
from .steps import arrive, deliver, effective_synapses, encode, fire, present, score, show, words_of
from .vectors import VECTOR_BYTES, bits, filled, first_bit, ones, read, width_of


@njit(nogil=True, error_model="numpy")
def _uniform(seed, sample, layer, step, neuron):
    """Give a number in [0, 1) that depends on nothing but its arguments; see `disturb.uniform`."""
    word = u64(seed)
    for part in (u64(sample), u64(layer), u64(step), u64(neuron)):
        word = (word ^ part) + u64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> u64(30))) * u64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> u64(27))) * u64(0x94D049BB133111EB)
        word ^= word >> u64(31)
    return np.float64(word >> u64(11)) * 2.0**-53


@njit(nogil=True, error_model="numpy")
def disturb_spikes(layer, index, step, sample, fault, rate, seed, used, spikes, into):
    """Copy spikes, each deleted (fault 0) or given the other sign (1) with probability `rate`."""
    rises, falls, places = spikes
    kept_rises, kept_falls, kept_places = into
    words = words_of(layer)
    for place in range(u64(used)):
        kept_places[place] = places[place]
        for word in range(words):
            at, hits = place * words + word, u64(0)
            bits = rises[at] | falls[at]
            while bits:
                channel = word * u64(64) + first_bit(bits)
                neuron = places[place] * layer.channels + np.int64(channel)
                if _uniform(seed, sample, index, step, neuron) < rate:
                    hits |= bits & (~bits + u64(1))
                bits &= bits - u64(1)
            flipped = hits if fault else u64(0)
            kept_rises[at] = (rises[at] & ~hits) | (falls[at] & flipped)
            kept_falls[at] = (falls[at] & ~hits) | (rises[at] & flipped)


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
        present(
            geometry[0],
            geometry[1],
            levels,
            net.pixel_thresholds,
            pixels,
            counts,
            net,
            membrane,
            masks,
            fans,
            sums,
            arrivals[0],
            arrivals[1],
            arrivals[2],
        )
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
                used, up, down, effective = fire(
                    layer,
                    step,
                    net.table,
                    membrane,
                    thresholds,
                    hidden,
                    last,
                    spikes,
                    first_fan,
                    net.kinds,
                    net.effective_fan,
                )
            elif step <= levels:
                used, up, effective = encode(
                    layer,
                    step,
                    net.pixel_thresholds,
                    pixels,
                    counts,
                    membrane,
                    candidates,
                    spikes,
                    first_fan,
                    net.kinds,
                    net.effective_fan,
                )
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
            )
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

    @compiled(parallel=True, nogil=True, error_model="numpy")
    def run(
        images, samples, net, levels, time_steps, fault, rate, seed, counts, last_steps, totals, pending, scores
    ):
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
                _aligned(hidden, integer),
                _aligned(pixels, np.int32),
                (_aligned(hidden, integer), _aligned(hidden, integer)),
                _aligned(hidden, counts.dtype),
                _cleared(shown * geometry[0].pitch, np.int32),
                _room(words, geometry[0].positions),
                _room(words, most),
                _room(words, most),
                np.zeros((geometry[0].pitch + 63) // 64 * shown, np.uint64),
                _cleared(shown * first, integer),
                np.zeros((3, shown), np.int64),
            )
            for index in range(group * size, min(len(images), (group + 1) * size)):
                last_steps[index] = _run(
                    images[index],
                    samples[index],
                    net,
                    levels,
                    time_steps,
                    fault,
                    rate,
                    seed,
                    state,
                    counts[index],
                    totals[group],
                    pending[group],
                    scores[index],
                )

    return run


# numba itself looks at this file only, not at those whose functions are compiled into the loop.
run = _loop(sha256(b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))).hexdigest())

# Steps of the first attempt at running until silence, and how much longer each further one is.
_FIRST_STEPS, _LONGER = 12, 3

# Groups of images for each thread: enough for all to end at about the same time.
_GROUPS = 4

_BATCH = 1000

# numba takes named tuples, not dataclasses.
_Net = namedtuple("_Net", [field.name for field in fields(Layout)])


def run_events(
    snn: SNN,
    images: Tensor,
    samples: Tensor,
    time_steps: int | None,
    disturbance: tuple[str, float, int] | None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Record:
    """Give the record of uint8 images [N, C, H, W], of a network that meets no `bounds.obstacle`.

    samples: their indices, int64 [N], from which faults are drawn. time_steps: None runs until silence.
    disturbance: fault, rate and seed of `disturb.faulty`. batch_size: images between two looks at the
    progress bar; a thread holds the state of one image, so memory is that of the record.
    """
    limit = time_steps or snn.sufficient_steps + 1
    steps = time_steps or min(limit, _FIRST_STEPS)
    while True:
        record = _record(snn, images, samples, steps, disturbance, batch_size or _BATCH, progress)
        settled = bool((record.settled_at > 0).all())
        if time_steps or settled or steps == limit:
            break
        steps = min(limit, _LONGER * steps)
    return record if time_steps or not settled else record.until(int(record.settled_at.max()) + 1)


def _record(
    snn: SNN, images: Tensor, samples: Tensor, steps: int, disturbance, batch_size: int, progress: bool
) -> Record:
    fault, rate, seed = disturbance or (FAULTS[0], 0.0, 0)
    layout = lay_out(snn, steps, disturbance is not None)
    net, geometry = _Net(*(getattr(layout, name) for name in _Net._fields)), layout.geometry
    depth, groups = len(geometry), min(len(images), _GROUPS * get_num_threads())
    sizes = (geometry["pitch"] * geometry["positions"]).tolist()
    # A neuron sends at most one spike a step.
    counts = np.empty((len(images), sum(sizes)), np.int8 if steps <= np.iinfo(np.int8).max else np.int16)
    last_steps = np.empty(len(images), np.int64)
    totals = np.zeros((groups, steps, depth, 4), np.int64)
    pending = np.zeros((groups, depth, steps + 1), np.int64)
    classes = snn.spec.classes
    scores = np.zeros((len(images), steps, class_pitch(classes)), np.int32)
    starts = tqdm(range(0, len(images), batch_size), "simulate", unit="batch", disable=not progress)
    for part in (slice(start, start + batch_size) for start in starts):
        pixels = images[part].permute(0, 2, 3, 1).flatten(1, 2).contiguous().numpy()
        with compiled_loops():
            run(
                pixels,
                samples[part].numpy(),
                net,
                snn.levels,
                steps,
                FAULTS.index(fault),
                float(rate),
                seed,
                counts[part],
                last_steps[part],
                totals,
                pending,
                scores[part],
            )
    last, totals = torch.from_numpy(last_steps).clamp(min=snn.levels), totals.sum(0)
    at = pending.sum(0)[:, 1:]
    return Record(
        logits=torch.from_numpy(scores[..., :classes].cumsum(1, np.int64)).transpose(0, 1).contiguous(),
        labels=None,
        counts=[
            _map(part, layer.spec.out_shape)
            for part, layer in zip(torch.from_numpy(counts).split(sizes, 1), snn.layers, strict=True)
        ],
        settled_at=torch.where(last < steps, last, 0),
        positive=totals[..., PLUS],
        negative=totals[..., MINUS],
        sops=totals[..., SOPS],
        effective_sops=totals[..., EFFECTIVE_SOPS],
        pending=(at.sum(1, keepdims=True) - at.cumsum(1)).T,
        layer_names=tuple(layer.name for layer in snn.layers),
        neurons=tuple(layer.neurons for layer in snn.layers),
    )


def _map(counts: Tensor, shape: tuple[int, int, int]) -> Tensor:
    # Stored channels last, whole vectors of them.
    channels, height, width = shape
    return counts.unflatten(1, (height, width, -1))[..., :channels].permute(0, 3, 1, 2)
