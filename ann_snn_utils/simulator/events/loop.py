"""Images through the compiled kernel, by as many threads as torch may use, and the record of what it leaves."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
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
PLUS, MINUS, SOPS, ENCODER_SOPS, EFFECTIVE_SOPS, _TOTALS = range(6)

# Steps of the first attempt at running until silence, and how much longer each further one is.
_FIRST_STEPS, _LONGER = 12, 3

# Images between two looks at the progress bar.
_BATCH = 1000


class Task(ctypes.Structure):
    """`Task` of spikes.h: what is asked of all images."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in "images depth levels steps fault seed classes".split()],
        *[(name, ctypes.c_int64) for name in "class_pitch neurons wide_counts ways slots event_room".split()],
        *[(name, ctypes.c_int64) for name in "place_room row_room image_room pitch_room window_room".split()],
        ("rate", ctypes.c_double),
        ("class_weights", ctypes.c_void_p),
    ]


def run_events(
    snn: SNN,
    images: Tensor,
    time_steps: int | None,
    disturbance: tuple[str, float, int] | None,
    batch_size: int | None = None,
    progress: bool = False,
) -> Record:
    """The record of uint8 images [N, C, H, W], of a network that meets no `layout.obstacle`.

    time_steps: None runs until silence. disturbance: fault, rate and seed of `disturb.faulty`. batch_size: images
    between two looks at the progress bar.
    """
    limit = time_steps or snn.sufficient_steps + 1
    steps = time_steps or min(limit, _FIRST_STEPS)
    while True:
        record = _record(snn, images, steps, disturbance, batch_size or _BATCH, progress)
        if time_steps:
            return record
        settled = bool((record.settled_at > 0).all())
        if settled or steps == limit:
            return record.until(int(record.settled_at.max()) + 1) if settled else record
        steps = min(limit, _LONGER * steps)


def _record(
    snn: SNN,
    images: Tensor,
    steps: int,
    disturbance: tuple[str, float, int] | None,
    batch_size: int,
    progress: bool,
) -> Record:
    number, depth = len(images), len(snn.layers)
    net = lay_out(snn, steps, disturbance is not None)
    task = _task(snn, net, number, steps, disturbance)
    # A neuron sends at most one spike a step.
    counts = torch.empty(number, net.neurons, dtype=torch.int16 if task.wide_counts else torch.int8)
    settled_at = torch.empty(number, dtype=torch.int64)
    logits = torch.empty(steps, number, snn.spec.classes, dtype=torch.int64)
    threads = min(torch.get_num_threads(), number)
    totals = np.zeros((threads, steps, depth, _TOTALS), np.int64)
    pending = np.zeros((threads, depth, steps + 1), np.int64)
    run_until = _runner(net, task, images.contiguous(), counts, settled_at, logits, totals, pending)
    parts = range(0, number, batch_size)
    for start in tqdm(parts, "simulate", unit="batch") if progress else parts:
        run_until(start, min(number, start + batch_size))
    of_all, fired_last = totals.sum(0), pending[..., 1:].sum(0)
    if snn.bias is not None:
        logits += snn.bias
    return Record(
        logits=logits,
        labels=None,
        # Where the kernel left them: channels last, padded to whole vectors.
        counts=[
            counts.as_strided((number, *shape), (net.neurons, *strides), first)
            for shape, strides, first in net.counts
        ],
        settled_at=settled_at,
        positive=of_all[..., PLUS],
        negative=of_all[..., MINUS],
        sops=of_all[..., SOPS],
        effective_sops=of_all[..., EFFECTIVE_SOPS],
        encoder_sops=of_all[..., ENCODER_SOPS],
        pending=(fired_last.sum(1, keepdims=True) - fired_last.cumsum(1)).T,
        layer_names=tuple(layer.name for layer in snn.layers),
        neurons=tuple(layer.neurons for layer in snn.layers),
        amplitude=snn.amplitude,
    )


def _task(snn: SNN, net: Layout, images: int, steps: int, disturbance: tuple[str, float, int] | None) -> Task:
    fault, rate, seed = disturbance or (FAULTS[0], 0.0, 0)
    return Task(
        images=images,
        depth=len(snn.layers),
        levels=snn.levels,
        steps=steps,
        fault=FAULTS.index(fault),
        seed=seed,
        classes=snn.spec.classes,
        class_pitch=class_pitch(snn.spec.classes),
        neurons=net.neurons,
        wide_counts=steps > 127,
        rate=rate,
        class_weights=net.addresses[2],
        **net.room,
    )


def _runner(
    net: Layout,
    task: Task,
    images: Tensor,
    counts: Tensor,
    settled_at: Tensor,
    logits: Tensor,
    totals: np.ndarray,
    pending: np.ndarray,
) -> Callable[[int, int], None]:
    """What runs images from one index up to another. Threads take them one by one, so that all end at about the
    same time; each has its own totals and neurons by the step of their last spike."""
    library = kernel(8 * np.dtype(net.membrane).itemsize)
    room, following = library.room_of(ctypes.byref(task)), ctypes.c_int64()
    layers, synapses, _ = net.addresses

    def work(thread: int, end: int) -> None:
        try:
            own = net.idle.setdefault(room, []).pop()
        except IndexError:
            own = torch.empty(room, dtype=torch.uint8)
        library.simulate(
            layers,
            synapses,
            ctypes.addressof(task),
            images.data_ptr(),
            end,
            ctypes.addressof(following),
            counts.data_ptr(),
            settled_at.data_ptr(),
            totals[thread].ctypes.data,
            pending[thread].ctypes.data,
            logits.data_ptr(),
            own.data_ptr(),
        )
        net.idle[room].append(own)

    def run_until(start: int, end: int) -> None:
        following.value = start
        others = range(1, len(totals))
        running = [_pool(len(others)).submit(work, thread, end) for thread in others]
        work(0, end)
        for one in running:
            one.result()

    return run_until


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    # Kept from run to run: a thread that has to start takes as long as an image.
    return ThreadPoolExecutor(threads, "simulate")


# Threads do not live on in a forked process: it starts its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
