"""Images through the compiled, spike-driven simulator: arrays out of the network, a record out of arrays."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import fields

import numpy as np
import torch
from numba import get_num_threads
from torch import Tensor
from tqdm.auto import tqdm

from .compiled import compiled_loops
from .disturb import FAULTS
from .events import EFFECTIVE_SOPS, MINUS, PLUS, SOPS, run
from .layout import Layout, class_pitch, lay_out
from .record import Record
from .snn import SNN

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
            run(pixels, samples[part].numpy(), net, snn.levels, steps, FAULTS.index(fault), float(rate), seed,
                counts[part], last_steps[part], totals, pending, scores[part])  # fmt: skip
    last, totals = torch.from_numpy(last_steps).clamp(min=snn.levels), totals.sum(0)
    at = pending.sum(0)[:, 1:]
    return Record(
        logits=torch.from_numpy(scores[..., :classes].cumsum(1, np.int64)).transpose(0, 1).contiguous(),
        labels=None,
        counts=[_map(part, layer.spec.out_shape) for part, layer in zip(
            torch.from_numpy(counts).split(sizes, 1), snn.layers, strict=True)],
        settled_at=torch.where(last < steps, last, 0),
        positive=totals[..., PLUS],
        negative=totals[..., MINUS],
        sops=totals[..., SOPS],
        effective_sops=totals[..., EFFECTIVE_SOPS],
        pending=(at.sum(1, keepdims=True) - at.cumsum(1)).T,
        layer_names=tuple(layer.name for layer in snn.layers),
        neurons=tuple(layer.neurons for layer in snn.layers),
    )  # fmt: skip


def _map(counts: Tensor, shape: tuple[int, int, int]) -> Tensor:
    # Stored channels last, whole vectors of them.
    channels, height, width = shape
    return counts.unflatten(1, (height, width, -1))[..., :channels].permute(0, 3, 1, 2)
