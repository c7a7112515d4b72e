"""Images through the compiled kernel, by as many threads as torch may use, and the record of what it leaves."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...checks import FAULTS
from ...snn.network import SNN
from ..record import Record
from .arrays import class_pitch
from .build import kernel
from .layout import Layout, lay_out

# Columns of the totals of a layer at a step.
PLUS, MINUS, SOPS, ENCODER_SOPS, EFFECTIVE_SOPS, TOTALS = range(6)

# Steps of the first attempt at running until silence, and how much longer each further one is.
_FIRST_STEPS, _LONGER = 12, 3

# Images between two looks at the progress bar.
_BATCH = 1000


class Task(ctypes.Structure):
    """`Task` of spikes.h: what is asked of every image."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in "depth levels steps fault seed class_pitch neurons".split()],
        *[(name, ctypes.c_int64) for name in "wide_counts ways slots event_room place_room row_room".split()],
        *[(name, ctypes.c_int64) for name in "image_room pitch_room window_room".split()],
        ("rate", ctypes.c_double),
        ("class_weights", ctypes.c_void_p),
    ]


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
        if time_steps:
            return record
        settled = bool((record.settled_at > 0).all())
        if settled or steps == limit:
            return record.until(int(record.settled_at.max()) + 1) if settled else record
        steps = min(limit, _LONGER * steps)


def _record(
    snn: SNN,
    images: Tensor,
    samples: Tensor,
    steps: int,
    disturbance: tuple[str, float, int] | None,
    batch_size: int,
    progress: bool,
) -> Record:
    net = lay_out(snn, steps, disturbance is not None)
    task, number, depth = _task(snn, net, steps, disturbance), len(images), len(snn.layers)
    # A neuron sends at most one spike a step.
    counts = torch.empty(number, net.neurons, dtype=torch.int16 if task.wide_counts else torch.int8)
    last = np.empty(number, np.int64)
    scores = np.zeros((number, steps, task.class_pitch), np.int32)
    totals, pending = _no_totals(steps, depth)
    images, samples = images.contiguous(), samples.contiguous()
    parts = range(0, number, batch_size)
    for start in tqdm(parts, "simulate", unit="batch") if progress else parts:
        part = slice(start, min(number, start + batch_size))
        of_part = _run(net, task, images[part], samples[part], counts[part], last[part], scores[part])
        totals, pending = totals + of_part[0], pending + of_part[1]
    last = np.maximum(last, snn.levels)
    fired_last = pending[:, 1:]
    scores = scores[..., : snn.spec.classes].cumsum(1, np.int64)
    if snn.bias is not None:
        scores += snn.bias.numpy()
    return Record(
        logits=torch.from_numpy(scores.swapaxes(0, 1).copy()),
        labels=None,
        # Where the kernel left them: channels last, padded to whole vectors.
        counts=[
            counts.as_strided((number, *shape), (net.neurons, *strides), first)
            for shape, strides, first in net.counts
        ],
        settled_at=torch.from_numpy(last * (last < steps)),
        positive=totals[..., PLUS],
        negative=totals[..., MINUS],
        sops=totals[..., SOPS],
        effective_sops=totals[..., EFFECTIVE_SOPS],
        encoder_sops=totals[..., ENCODER_SOPS],
        pending=(fired_last.sum(1, keepdims=True) - fired_last.cumsum(1)).T,
        layer_names=tuple(layer.name for layer in snn.layers),
        neurons=tuple(layer.neurons for layer in snn.layers),
        amplitude=snn.amplitude,
    )


def _task(snn: SNN, net: Layout, steps: int, disturbance: tuple[str, float, int] | None) -> Task:
    fault, rate, seed = disturbance or (FAULTS[0], 0.0, 0)
    return Task(
        depth=len(snn.layers),
        levels=snn.levels,
        steps=steps,
        fault=FAULTS.index(fault),
        seed=seed,
        class_pitch=class_pitch(snn.spec.classes),
        neurons=net.neurons,
        wide_counts=steps > 127,
        rate=rate,
        class_weights=net.class_weights.ctypes.data,
        **net.room,
    )


def _run(
    net: Layout,
    task: Task,
    images: Tensor,
    samples: Tensor,
    counts: Tensor,
    last: np.ndarray,
    scores: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Run images, which threads take one by one, so that all end at about the same time; returns their totals and
    neurons by the step of their last spike."""
    library = kernel(8 * np.dtype(net.membrane).itemsize)
    room, following = library.room_of(ctypes.byref(task)), ctypes.c_int64(0)

    def work() -> tuple[np.ndarray, np.ndarray]:
        totals, pending = _no_totals(task.steps, task.depth)
        try:
            own = net.idle.setdefault(room, []).pop()
        except IndexError:
            own = np.empty(room, np.uint8)
        library.simulate(
            net.layers.ctypes.data,
            net.synapses.ctypes.data,
            ctypes.addressof(task),
            images.data_ptr(),
            samples.data_ptr(),
            len(images),
            ctypes.addressof(following),
            counts.data_ptr(),
            last.ctypes.data,
            totals.ctypes.data,
            pending.ctypes.data,
            scores.ctypes.data,
            own.ctypes.data,
        )
        net.idle[room].append(own)
        return totals, pending

    threads = min(torch.get_num_threads(), len(images))
    running = [_pool(threads - 1).submit(work) for _ in range(threads - 1)]
    totals, pending = work()
    for one in running:
        others = one.result()
        totals, pending = totals + others[0], pending + others[1]
    return totals, pending


def _no_totals(steps: int, depth: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((steps, depth, TOTALS), np.int64), np.zeros((depth, steps + 1), np.int64)


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    # Kept from run to run: a thread that has to start takes as long as an image.
    return ThreadPoolExecutor(threads, "simulate")


# Threads do not live on in a forked process: it starts its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
