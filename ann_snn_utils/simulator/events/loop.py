"""Images through the compiled kernel, by as many threads as torch may use, and the record of what it leaves."""

from __future__ import annotations

import ctypes
import itertools
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...checks import FAULTS
from ...snn.network import SNN
from ..neuron import refuse_table_end
from ..record import Record, merge
from .build import kernel
from .layout import TEAM, Layout, Task, lay_out

# What the kernel counts of a layer at a step, in its order: see the enum of task.h.
_TOTALS = ("positive", "negative", "sops", "encoder_sops", "effective_sops", "pending")

# Steps of the first attempt at running until silence, and how much longer each further one is.
_FIRST_STEPS, _LONGER = 12, 3

# Images between two looks at the progress bar.
_BATCH = 1000

# Synapses of a network from which on threads share an image: with fewer, one has run it when others have woken.
_SHARED = 2**24


def run_events(
    snn: SNN,
    images: Tensor,
    time_steps: int | None,
    disturbance: tuple[str, float, int] | None,
    batch_size: int | None = None,
    progress: bool = False,
    first_sample: int = 0,
) -> Record:
    """The record of uint8 images [N, C, H, W], of a network that meets no `layout.obstacle`.

    time_steps: None runs until silence. disturbance: fault, rate and seed of `disturb.faulty`. batch_size: images
    between two looks at the progress bar. first_sample: the first image's number, by which faults are drawn.
    Raises ValueError for a layer whose counts reached the end of their threshold tables.
    """
    limit = snn.sufficient_steps + 1
    if time_steps and time_steps > limit and not disturbance:
        # Behind silence nothing happens any more.
        return merge([run_events(snn, images, None, None, batch_size, progress)], time_steps)
    limit = time_steps or limit
    steps = time_steps or min(limit, _FIRST_STEPS)
    while True:
        record = _record(snn, images, steps, disturbance, batch_size or _BATCH, progress, first_sample)
        if time_steps:
            return record
        if steps == limit or bool((record.settled_at > 0).all()):
            return record.until_silence()
        steps = min(limit, _LONGER * steps)


def _record(
    snn: SNN,
    images: Tensor,
    steps: int,
    disturbance: tuple[str, float, int] | None,
    batch_size: int,
    progress: bool,
    first_sample: int,
) -> Record:
    number, net = len(images), lay_out(snn, steps, disturbance is not None)
    at_once, threads = min(number, batch_size), torch.get_num_threads()
    shared = 2 * at_once <= threads and net.work >= _SHARED
    threads = min(threads, TEAM if shared else at_once)
    # A neuron sends at most one spike a step.
    wide = steps >= 2**7
    counts = np.empty(number, net.counts[wide])
    settled_at = torch.from_numpy(np.empty(number, np.int64))
    logits = torch.from_numpy(np.empty((steps, number, snn.spec.classes), np.int64))
    # Threads add to them what they found; the last column says whether a count reached its end.
    totals: Any = np.zeros((steps, len(snn.layers), len(_TOTALS) + 1), np.int64)
    images = images.contiguous()
    task = Task.from_buffer_copy(net.task)
    task.images, task.members, task.steps = number, threads if shared else 1, steps
    task.wide_counts, task.first_sample = wide, first_sample
    if disturbance:
        fault, task.rate, task.seed = disturbance
        task.fault = FAULTS.index(fault)
    task.pixels, task.counts, task.totals = images.data_ptr(), counts.ctypes.data, totals.ctypes.data
    task.settled_at, task.logits = settled_at.data_ptr(), logits.data_ptr()
    task.kept = net, images, counts, totals, settled_at, logits
    run = _run_together if shared else _run_apart
    parts = range(0, number, batch_size)
    for start in tqdm(parts, "simulate", unit="batch") if progress else parts:
        run(net, task, threads, start, min(number, start + batch_size))
    *columns, ended = totals.transpose(2, 0, 1)
    if np.count_nonzero(ended):
        refuse_table_end(snn, int(ended.any(0).argmax()))
    if snn.bias is not None:
        logits += snn.bias
    return Record(
        logits=logits,
        labels=None,
        # Where the kernel left them: channels last, padded to whole vectors.
        counts=[
            torch.from_numpy(counts[layer][..., :channels].transpose(0, 3, 1, 2))
            for layer, channels in net.channels.items()
        ],
        settled_at=settled_at,
        **dict(zip(_TOTALS, columns, strict=True)),
        layer_names=snn.layer_names,
        neurons=snn.neurons,
        amplitude=snn.amplitude,
    )


def _run_apart(net: Layout, task: Task, threads: int, start: int, end: int) -> None:
    """Run images from one index up to another, which threads take one by one, so that they end together."""
    library, following = _kernel(net), ctypes.c_int64(start)
    size = library.room_of(ctypes.addressof(task))

    def work(thread: int, call: int) -> None:
        room = _room(net, size)
        next_image = ctypes.addressof(following)
        library.simulate(ctypes.addressof(task), end, next_image, thread, room.data_ptr(), call)
        net.idle[size].append(room)

    _in_threads(library, threads, work)


def _run_together(net: Layout, task: Task, threads: int, start: int, end: int) -> None:
    """The same, each image by all threads together."""
    library = _kernel(net)
    size = library.room_of(ctypes.addressof(task))
    room = _room(net, size)

    def work(index: int, thread: int, call: int) -> None:
        library.join(ctypes.addressof(task), index, thread, room.data_ptr(), call)

    for index in range(start, end):
        library.begin(ctypes.addressof(task), room.data_ptr())
        _in_threads(library, threads, partial(work, index))
    net.idle[size].append(room)


def _kernel(net: Layout) -> ctypes.CDLL:
    return kernel(8 * np.dtype(net.membrane).itemsize)


def _room(net: Layout, size: int) -> Tensor:
    """Memory to work in: what another run left, or new."""
    try:
        return net.idle.setdefault(size, []).pop()
    except IndexError:
        return torch.empty(size, dtype=torch.uint8, device="cpu")


class Call(ctypes.Structure):
    """`Call` of team.h: what a thread calls others for."""

    _fields_ = [*[(name, ctypes.c_int64) for name in "entered left number".split()], ("newest", ctypes.c_void_p)]


# What is asked of each thread. They are kept from run to run.
_CREW: list[SimpleQueue[Callable[[], None]]] = []
_NUMBERS, _NEWEST = itertools.count(1), ctypes.c_int64()


def _in_threads(library: ctypes.CDLL, threads: int, work: Callable[[int, int], None]) -> None:
    """Let threads work, this one as the first, until what any of them began is done.

    work: takes a thread's number and the address of a `Call`, or 0 where it is alone. The kernel turns away who
    comes when the first thread is done, and others stay awake in it for a moment, for the next call: to wake one
    takes as long as an image.
    """
    if threads == 1:
        return work(0, 0)
    call = Call(number=next(_NUMBERS), newest=ctypes.addressof(_NEWEST))

    def one(thread: int) -> None:
        work(thread, ctypes.addressof(call))

    while len(_CREW) < threads - 1:
        # Once it is served: what is put into a queue that nobody serves would stay there.
        asked: SimpleQueue[Callable[[], None]] = SimpleQueue()
        Thread(target=_serve, args=(asked,), name="simulate", daemon=True).start()
        _CREW.append(asked)
    for thread, asked in enumerate(_CREW[: threads - 1], 1):
        asked.put(partial(one, thread))
    try:
        one(0)
    finally:
        while library.close_call(ctypes.addressof(call)):
            time.sleep(1e-4)


def _serve(asked: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        # Who cannot come, as for want of memory, is not missed: the others do all there is.
        with suppress(Exception):
            asked.get()()


# Threads do not live on in a forked process: it starts its own.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_CREW.clear)
