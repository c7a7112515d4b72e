"""The integer spiking network over time: from uint8 images to spikes, totals and class scores per step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .data import Dataset
from .disturb import FAULTS, faulty, noisy
from .models import LARGEST_PIXEL
from .neuron import Neurons, fire, threshold_table
from .neuron import backend as loop_of
from .record import Record, Traces, merge
from .snn import SNN
from .synapse import membrane_dtype, synaptic_input

# Steps computed at once. Samples that have fallen silent leave the batch between two blocks.
BLOCK = 8
# Neurons · samples · steps of the widest layer that are worked on at once: a few MiB, near the cache.
WORKING_SET = 2**24


def simulate(
    snn: SNN,
    images: Tensor | Dataset,
    time_steps: int | None = None,
    noise_ratio: float = 0.0,
    seed: int = 0,
    labels: Tensor | None = None,
    trace: Iterable[int] = (),
    fault: str | None = None,
    fault_rate: float = 0.0,
    batch_size: int | None = None,
    backend: str | None = None,
    progress: bool = False,
) -> Record:
    """Give the record of a run of `time_steps` steps, or, with None, until every sample is silent.

    images: uint8 [N, C, H, W], or a Dataset (whose labels are then taken). noise_ratio: each pixel becomes
    pixel · (1 + (u − 1/2) · noise_ratio) with u uniform in [0, 1), rounded and clipped to uint8.
    trace: indices of samples whose spikes and membranes are kept. fault: "delete" or "flip" every emitted
    spike with probability fault_rate on its way to the next layer. seed: of noise and faults; those of a
    sample do not depend on the batch it is in. batch_size: samples at a time, chosen for the memory's sake
    where None. backend: "numba" or "torch", the fastest one there is where None.
    Source of the neuron: Zou et al. 2024, see `neuron.py`.
    Raises ValueError that names the argument that is wrong, or the layer whose threshold table is too short.
    """
    if isinstance(images, Dataset):
        images, labels = images.images, images.labels if labels is None else labels
    _check(snn, images, time_steps, noise_ratio, labels, fault, fault_rate, batch_size)
    images = noisy(images.cpu(), noise_ratio, seed)
    loop = loop_of(backend)
    disturbance = (fault, fault_rate, seed) if fault and fault_rate > 0 else None
    if batch_size is None:
        widest = max(layer.neurons for layer in snn.layers)
        batch_size = min(500, max(1, WORKING_SET // (widest * min(time_steps or BLOCK, BLOCK))))
    starts = range(0, len(images), batch_size)
    if progress:
        from tqdm.auto import tqdm

        starts = tqdm(starts, desc="simulate", unit="batch")
    records = []
    for start in starts:
        samples = torch.arange(start, min(start + batch_size, len(images)))
        record = _run(snn, images[samples], samples, time_steps, disturbance, loop)
        records.append(replace(record, labels=None if labels is None else labels[samples]))
    steps = max(record.time_steps for record in records)
    merged = merge(records, time_steps or steps)
    chosen = tuple(int(sample) for sample in trace)
    if not chosen:
        return merged
    if not all(0 <= sample < len(images) for sample in chosen):
        raise ValueError(f"trace={chosen}: give indices from 0 to {len(images) - 1}")
    kept = _run(snn, images[list(chosen)], torch.tensor(chosen), merged.time_steps, disturbance, loop, keep=True)
    return replace(merged, traces=replace(kept.traces, samples=chosen))


def _check(snn, images, time_steps, noise_ratio, labels, fault, fault_rate, batch_size) -> None:
    if images.dtype != torch.uint8 or tuple(images.shape[1:]) != snn.spec.in_shape or not len(images):
        raise ValueError(
            f"images are {images.dtype} of shape {tuple(images.shape)}: "
            f"this network takes uint8 [N, {', '.join(map(str, snn.spec.in_shape))}] with N ≥ 1"
        )
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels for {len(images)} images: give one label for each image")
    if time_steps is not None and (int(time_steps) != time_steps or time_steps < 1):
        raise ValueError(f"time_steps={time_steps!r}: give a whole number from 1, or None to run until silence")
    if not 0 <= noise_ratio <= 10:
        raise ValueError(f"noise_ratio={noise_ratio!r}: give a number from 0 to 10")
    if fault is not None and fault not in FAULTS:
        raise ValueError(f"fault={fault!r}: choose one of {', '.join(FAULTS)}, or None")
    if not 0 <= fault_rate <= 1:
        raise ValueError(f"fault_rate={fault_rate!r}: give a probability from 0 to 1")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: give at least 1")


def _start(snn: SNN, images: Tensor, slack: int) -> tuple[list[Neurons], list[Tensor]]:
    """Give the neurons of every layer at rest, the encoder's with the image in their membrane, and tables."""
    states, tables = [], []
    for index, layer in enumerate(snn.layers):
        dtype, (channels, height, width) = membrane_dtype(layer, slack), layer.spec.out_shape
        shape = (len(images), channels, height * width)
        membrane = torch.zeros(shape, dtype=dtype)
        if index == 0:
            membrane += synaptic_input(layer, images, LARGEST_PIXEL).flatten(2).to(dtype)
        count, last = (torch.zeros(shape, dtype=torch.int16) for _ in range(2))
        states.append(Neurons(membrane, count, last))
        tables.append(threshold_table(layer.thresholds, dtype))
    return states, tables


def _run(
    snn: SNN,
    images: Tensor,
    samples: Tensor,
    time_steps: int | None,
    disturbance: tuple[str, float, int] | None,
    loop: Callable[..., None],
    keep: bool = False,
) -> Record:
    """Run one batch; with keep=True no sample leaves early and the record carries traces."""
    depth, size = len(snn.layers), len(images)
    limit = time_steps or snn.sufficient_steps + 1
    # A lost or flipped spike can push a membrane beyond the bound of the undisturbed network.
    slack = 0 if disturbance is None else 2 * limit * max(int(layer.highest.max()) for layer in snn.layers)
    states, thresholds = _start(snn, images, slack)
    counts = [torch.zeros_like(state.count) for state in states]
    fired_last = [torch.zeros_like(state.last) for state in states]
    active, last = torch.arange(size), torch.zeros(size, dtype=torch.int64)
    score = torch.zeros(size, snn.spec.classes, dtype=torch.float64)
    weight = snn.classifier.double().flatten(1).T
    tables: dict[str, list[np.ndarray]] = {n: [] for n in ("positive", "negative", "sops", "effective_sops")}
    logits, spike_traces, membrane_traces = [], [[] for _ in states], [[] for _ in states]
    done = 0
    while done < limit and len(active):
        steps = min(BLOCK, limit - done)
        rows = {name: np.zeros((steps, depth), dtype=np.int64) for name in tables}
        arriving, events, busy = None, None, torch.zeros(steps, len(active), dtype=torch.bool)
        for index, (layer, state, table) in enumerate(zip(snn.layers, states, thresholds, strict=True)):
            row = torch.full(busy.shape, -1)
            row[busy] = torch.arange(int(busy.sum()))
            if index == 0:
                sums = state.membrane[:0]
            else:
                for name, reach in (("sops", layer.fan_out), ("effective_sops", layer.effective_fan_out)):
                    rows[name][:, index] = (events.flatten(1) * reach.flatten()).sum(1)
                amplitude = snn.amplitude if index == 1 else 1
                inputs = arriving[busy].unflatten(1, layer.spec.in_shape[:1]).unflatten(2, layer.spec.in_shape[1:])
                sums = synaptic_input(layer, inputs, amplitude).flatten(2)
                sums = (sums * amplitude).to(state.membrane.dtype).contiguous()
            fired = fire(loop, sums, row, state, table, done + 1, climbing=index == 0, keep=keep)
            arriving, events, busy = fired.spikes, fired.events, fired.active
            rows["positive"][:, index] = fired.positive
            rows["negative"][:, index] = events.sum((1, 2)) - fired.positive
            latest = (busy * torch.arange(done + 1, done + steps + 1)[:, None]).amax(0)
            last[active] = torch.maximum(last[active], latest)
            if keep:
                shape = layer.spec.out_shape[1:]
                spike_traces[index].append(fired.spikes.unflatten(3, shape))
                membrane_traces[index].append(fired.membranes.unflatten(3, shape))
            if disturbance is not None:
                arriving = faulty(arriving, *disturbance, samples[active], key=done * depth + index)
                events = (arriving != 0).sum(1)
        scores = score.expand(steps, -1, -1).clone()
        gained = torch.zeros(steps, len(active), snn.spec.classes, dtype=torch.float64)
        gained[busy] = arriving[busy].flatten(1).double() @ weight
        scores[:, active] += gained.cumsum(0)
        score = scores[-1]
        logits.append(scores)
        for name, table in rows.items():
            tables[name].append(table)
        done += steps
        silent = (last[active] < done) & (done > snn.levels) & (not keep)
        for index, state in enumerate(states):
            counts[index][active] = state.count
            fired_last[index][active] = state.last
            if silent.any():
                state.keep(~silent)
        active = active[~silent]

    shaped = zip(counts, snn.layers, strict=True)
    counts = [count.long().unflatten(2, layer.spec.out_shape[1:]) for count, layer in shaped]
    _check_tables(snn, counts)
    settled = torch.where(last.clamp(min=snn.levels) < done, last.clamp(min=snn.levels), 0)
    if time_steps is None:
        done = int(settled.max()) + 1
    integer = not snn.classifier.is_floating_point()
    return Record(
        logits=torch.cat(logits)[:done].to(torch.int64 if integer else torch.float64),
        labels=None,
        counts=counts,
        settled_at=settled,
        **{name: np.concatenate(parts)[:done] for name, parts in tables.items()},
        pending=np.stack([_pending(steps, done) for steps in fired_last], 1),
        layer_names=tuple(layer.name for layer in snn.layers),
        neurons=tuple(layer.neurons for layer in snn.layers),
        traces=Traces((), *([torch.cat(p) for p in t] for t in (spike_traces, membrane_traces))) if keep else None,
    )


def _pending(last: Tensor, steps: int) -> np.ndarray:
    """Give how many neurons fire after each step 1 … steps, from the step of each one's last spike."""
    at = torch.bincount(last.flatten(), minlength=steps + 1).numpy()
    return at.sum() - at.cumsum()[1 : steps + 1]


def _check_tables(snn: SNN, counts: list[Tensor]) -> None:
    for index, (layer, count) in enumerate(zip(snn.layers, counts, strict=True)):
        entries = layer.thresholds.shape[1]
        if layer.saturates and int(count.max()) >= entries:
            raise ValueError(
                f"layer {index} ({layer.name}): a neuron reached {entries} spikes, the end of its threshold "
                f"table; convert the network with max_levels={2 * entries} or more"
            )
