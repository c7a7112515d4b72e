"""Images through the compiled simulator: all steps of one image at a time, groups of images on as many threads."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numba import get_num_threads, njit, prange
from numba import uint64 as u64
from torch import Tensor
from tqdm.auto import tqdm

from ...checks import FAULTS
from ...snn.network import SNN
from ...threads import compiled, compiled_loops
from ..record import Record
from .layout import Layout, class_pitch, lay_out
from .steps import (
    AllSteps,
    Spikes,
    State,
    add_image,
    add_sums,
    deliver,
    effective_synapses,
    encode,
    encode_all,
    fire,
    score,
    words_of,
)
from .vectors import VECTOR_BYTES, bits, filled, first_bit, ones, read, width_of

# Columns of `Results.totals`.
PLUS, MINUS, SOPS, EFFECTIVE_SOPS = range(4)


class Task(NamedTuple):
    """What is asked of every image. fault: index in FAULTS; it strikes each spike with probability `rate`."""

    levels: int
    time_steps: int
    fault: int
    rate: float
    seed: int


class Results(NamedTuple):
    """What the images leave behind, G groups of them, each one thread's.

    counts: [N, neurons with their padding], int8 where no count and no step is larger, else int16. last_steps:
    int64 [N], step of the last spike. totals: int64 [G, T, L, 4]. pending: int64 [G, L, T + 1], neurons by the
    step of their last spike, of those that fire. scores: int32 [N, T, classes with their padding], what each
    step adds.
    """

    counts: np.ndarray
    last_steps: np.ndarray
    totals: np.ndarray
    pending: np.ndarray
    scores: np.ndarray


class Workspace(NamedTuple):
    """A thread's own memory, used for one image after the other, so that it stays in the processor's cache."""

    encoded: Spikes
    sent: Spikes
    disturbed: Spikes
    steps: AllSteps


@njit(nogil=True, error_model="numpy")
def _uniform(seed, sample, layer, step, neuron):
    """A number in [0, 1) that depends on nothing but its arguments; see `disturb.uniform`."""
    word = u64(seed)
    for part in (u64(sample), u64(layer), u64(step), u64(neuron)):
        word = (word ^ part) + u64(0x9E3779B97F4A7C15)
        word = (word ^ (word >> u64(30))) * u64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> u64(27))) * u64(0x94D049BB133111EB)
        word ^= word >> u64(31)
    return np.float64(word >> u64(11)) * 2.0**-53


@njit(nogil=True, error_model="numpy")
def _disturb(layer, index, step, sample, task, used, spikes, disturbed):
    """Copy spikes, each deleted (fault 0) or given the other sign (1) at the task's rate: `disturb.faulty`."""
    words = words_of(layer)
    for place in range(u64(used)):
        disturbed.places[place] = spikes.places[place]
        for word in range(words):
            at, hits = place * words + word, u64(0)
            left = spikes.rises[at] | spikes.falls[at]
            while left:
                channel = word * u64(64) + first_bit(left)
                neuron = spikes.places[place] * layer.channels + np.int64(channel)
                if _uniform(task.seed, sample, index, step, neuron) < task.rate:
                    hits |= left & (~left + u64(1))
                left &= left - u64(1)
            flipped = hits if task.fault else u64(0)
            disturbed.rises[at] = (spikes.rises[at] & ~hits) | (spikes.falls[at] & flipped)
            disturbed.falls[at] = (spikes.falls[at] & ~hits) | (spikes.rises[at] & flipped)


@njit(nogil=True, error_model="numpy")
def _run(image, sample, net, task, state, workspace, totals, pending, scores):
    """Run one image, add to the totals of its group, and return the step of its last spike."""
    geometry, depth, membrane = net.geometry, len(net.geometry), state.membrane
    encoded, steps = workspace.encoded, workspace.steps
    # Loops, as numba assigns whole arrays more slowly, and takes seconds more to compile it.
    for neuron in range(u64(len(state.encoded))):
        state.encoded[neuron] = 0
    for neuron in range(u64(len(state.pixels))):
        state.pixels[neuron] = 0
    for neuron in range(u64(len(membrane))):
        membrane[neuron], state.counts[neuron], state.last[neuron] = 0, 0, 0
    add_image(image, geometry[0], net, state.pixels)
    candidates, last_step, levels = geometry[0].positions, 0, min(task.levels, task.time_steps)
    for place in range(u64(candidates)):
        encoded.places[place] = place
    # Faults strike each step's spikes anew: only without them is the encoder done in one pass.
    at_once = task.rate == 0
    if at_once:
        encode_all(geometry[0], geometry[1], levels, net, state, steps)
        for level in range(levels):
            totals[level, 0, PLUS] += steps.spikes[level]
            totals[level, 1, SOPS] += steps.synapses[level]
            totals[level, 1, EFFECTIVE_SOPS] += steps.effective[level]
            # A neuron that fires now has fired in every step before.
            pending[0, level] -= steps.spikes[level]
            pending[0, level + 1] += steps.spikes[level]
    for step in range(1, task.time_steps + 1):
        silent = True
        if at_once and step <= levels and steps.spikes[step - 1]:
            silent = False
            add_sums(geometry[1], step - 1, steps.sums, membrane)
        for index in range(at_once, depth):
            layer, to = geometry[index], geometry[min(index + 1, depth - 1)]
            spikes, first_fan = encoded if index == 0 else workspace.sent, to.fan if index + 1 < depth else -1
            if index:
                used, up, down, effective = fire(layer, step, net, state, spikes, first_fan)
            elif step <= levels:
                used, up, effective = encode(layer, step, net, state, candidates, spikes, first_fan)
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
                _disturb(layer, index, step, sample, task, used, spikes, workspace.disturbed)
                spikes = workspace.disturbed
                if index + 1 < depth:
                    effective = effective_synapses(used, spikes, layer, to, net)
            if index + 1 == depth:
                score(used, spikes, layer, net.scores, scores[step - 1])
                continue
            totals[step - 1, index + 1, EFFECTIVE_SOPS] += effective
            totals[step - 1, index + 1, SOPS] += deliver(used, spikes, layer, to, net, membrane)
        if not silent:
            last_step = step
        elif step > levels:
            break
    for index in range(1, depth):
        for step in range(1, last_step + 1):
            pending[index, step] += _last_fired(geometry[index], step, state.last, membrane)
    return last_step


@njit(nogil=True, error_model="numpy")
def _last_fired(layer, step, last, membrane):
    """How many of the layer's neurons fired at `step` for the last time."""
    first, number, wanted = u64(layer.states), u64(0), filled(step, last, membrane)
    for vector in range(first, first + u64(layer.pitch * layer.positions), width_of(membrane)):
        number += ones(bits(read(last, vector, membrane) == wanted))
    return number


@njit(nogil=True, error_model="numpy")
def _aligned(size, integer):
    """An array of zeros whose vectors begin where cache lines do."""
    room = np.zeros(size + VECTOR_BYTES, integer)
    skipped = -room.ctypes.data % VECTOR_BYTES // room.itemsize
    return room[skipped : skipped + size]


@njit(nogil=True, error_model="numpy")
def _no_spikes(words, places):
    return Spikes(np.zeros(words, np.uint64), np.zeros(words, np.uint64), np.zeros(places, np.int64))


def _loop(sources: str):
    """The compiled loop over images; what numba caches of it on the disk holds while `sources` are the same."""

    @compiled(parallel=True, nogil=True, error_model="numpy")
    def run(images, samples, net, task, results):
        """Run images [N, H · W, C], whose indices are `samples` [N]; task, results: as plain tuples."""
        _ = sources
        task = Task(task[0], task[1], task[2], task[3], task[4])
        geometry, integer = net.geometry, net.table.dtype
        # Taken apart here: numba loses what a parallel loop writes to an array inside a tuple.
        counts, last_steps, totals, pending, scores = results
        size = (len(images) + len(totals) - 1) // len(totals)
        for group in prange(len(totals)):
            words, places, hidden = 0, 0, 0
            for layer in geometry:
                words = max(words, (layer.pitch + 63) // 64 * layer.positions)
                places, hidden = max(places, layer.positions), layer.states + layer.pitch * layer.positions
            pitch, levels = geometry[0].pitch, min(task.levels, task.time_steps)
            pixels = _aligned(pitch * geometry[0].positions, np.int32)
            membrane, upper, lower = _aligned(hidden, integer), _aligned(hidden, integer), _aligned(hidden, integer)
            last = _aligned(hidden, counts.dtype)
            steps = AllSteps(
                np.zeros((pitch + 63) // 64 * levels, np.uint64),
                _aligned(levels * pitch, np.int32),
                _aligned(levels * geometry[1].pitch * geometry[1].positions, integer),
                np.zeros(levels, np.int64),
                np.zeros(levels, np.int64),
                np.zeros(levels, np.int64),
            )
            spikes = _no_spikes(words, places), _no_spikes(words, places), _no_spikes(words, places)
            workspace = Workspace(spikes[0], spikes[1], spikes[2], steps)
            for index in range(group * size, min(len(images), (group + 1) * size)):
                encoded, hidden_counts = counts[index, : len(pixels)], counts[index, len(pixels) :]
                state = State(pixels, encoded, membrane, hidden_counts, last, upper, lower)
                last_steps[index] = _run(
                    images[index],
                    samples[index],
                    net,
                    task,
                    state,
                    workspace,
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

# Images between two looks at the progress bar; a thread holds the state of one image only.
_BATCH = 1000


def run_events(
    snn: SNN,
    images: Tensor,
    samples: Tensor,
    time_steps: int | None,
    disturbance: tuple[str, float, int] | None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Record:
    """The record of uint8 images [N, C, H, W], of a network that meets no `layout.obstacle`.

    samples: their indices, int64 [N], from which faults are drawn. time_steps: None runs until silence.
    disturbance: fault, rate and seed of `disturb.faulty`. batch_size: images between two looks at the
    progress bar.
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
    snn: SNN,
    images: Tensor,
    samples: Tensor,
    steps: int,
    disturbance: tuple[str, float, int] | None,
    batch_size: int,
    progress: bool,
) -> Record:
    fault, rate, seed = disturbance or (FAULTS[0], 0.0, 0)
    net = lay_out(snn, steps, disturbance is not None)
    task = Task(snn.levels, steps, FAULTS.index(fault), rate, seed)
    sizes = (net.geometry["pitch"] * net.geometry["positions"]).tolist()
    results = _empty(net, len(images), steps, snn.spec.classes)
    starts = tqdm(range(0, len(images), batch_size), "simulate", unit="batch", disable=not progress)
    for part in (slice(start, start + batch_size) for start in starts):
        pixels = images[part].permute(0, 2, 3, 1).flatten(1, 2).contiguous().numpy()
        of_part = results._replace(
            **{name: getattr(results, name)[part] for name in ("counts", "last_steps", "scores")}
        )
        with compiled_loops():
            # numba looks at the types of a plain tuple ten times as fast, which a single image feels.
            run(pixels, samples[part].numpy(), net, tuple(task), tuple(of_part))
    last, totals = torch.from_numpy(results.last_steps).clamp(min=snn.levels), results.totals.sum(0)
    fired_last = results.pending.sum(0)[:, 1:]
    counts = torch.from_numpy(results.counts).split(sizes, 1)
    scores = results.scores[..., : snn.spec.classes].cumsum(1, np.int64)
    return Record(
        logits=torch.from_numpy(scores).transpose(0, 1).contiguous(),
        labels=None,
        counts=[_map(part, layer.spec.out_shape) for part, layer in zip(counts, snn.layers, strict=True)],
        settled_at=torch.where(last < steps, last, 0),
        positive=totals[..., PLUS],
        negative=totals[..., MINUS],
        sops=totals[..., SOPS],
        effective_sops=totals[..., EFFECTIVE_SOPS],
        pending=(fired_last.sum(1, keepdims=True) - fired_last.cumsum(1)).T,
        layer_names=tuple(layer.name for layer in snn.layers),
        neurons=tuple(layer.neurons for layer in snn.layers),
        amplitude=snn.amplitude,
    )


def _empty(net: Layout, images: int, steps: int, classes: int) -> Results:
    depth, groups = len(net.geometry), min(images, _GROUPS * get_num_threads())
    neurons = int((net.geometry["pitch"] * net.geometry["positions"]).sum())
    # A neuron sends at most one spike a step.
    count = np.int8 if steps <= np.iinfo(np.int8).max else np.int16
    return Results(
        np.empty((images, neurons), count),
        np.empty(images, np.int64),
        np.zeros((groups, steps, depth, 4), np.int64),
        np.zeros((groups, depth, steps + 1), np.int64),
        np.zeros((images, steps, class_pitch(classes)), np.int32),
    )


def _map(counts: Tensor, shape: tuple[int, int, int]) -> Tensor:
    # Stored channels last, whole vectors of them.
    channels, height, width = shape
    return counts.unflatten(1, (height, width, -1))[..., :channels].permute(0, 3, 1, 2)
