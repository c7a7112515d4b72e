"""The integer spiking network over time: from uint8 images to spikes, totals and class scores per step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .data import Dataset
from .disturb import FAULTS, faulty, noisy
from .models import LARGEST_PIXEL
from .neuron import encode, fire, threshold_table
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
    progress: bool = False,
) -> Record:
    """Give the record of a run of `time_steps` steps, or, with None, until every sample is silent.

    images: uint8 [N, C, H, W], or a Dataset (whose labels are then taken). noise_ratio: each pixel becomes
    pixel · (1 + (u − 1/2) · noise_ratio) with u uniform in [0, 1), rounded and clipped to uint8.
    trace: indices of samples whose spikes and membranes are kept. fault: "delete" or "flip" every emitted
    spike with probability fault_rate on its way to the next layer. seed: of noise and faults; those of a
    sample do not depend on the batch it is in. batch_size: samples at a time, chosen for the memory's sake
    where None. Source of the neuron: Zou et al. 2024, see `neuron.py`.
    Raises ValueError that names the argument that is wrong, or the layer whose threshold table is too short.
    """
    if isinstance(images, Dataset):
        images, labels = images.images, images.labels if labels is None else labels
    _check(snn, images, time_steps, noise_ratio, labels, fault, fault_rate, batch_size)
    images = noisy(images.cpu(), noise_ratio, seed)
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
        record = _run(snn, images[samples], samples, time_steps, disturbance)
        records.append(replace(record, labels=None if labels is None else labels[samples]))
    steps = max(record.time_steps for record in records)
    merged = merge(records, time_steps or steps)
    chosen = tuple(int(sample) for sample in trace)
    if not chosen:
        return merged
    if not all(0 <= sample < len(images) for sample in chosen):
        raise ValueError(f"trace={chosen}: give indices from 0 to {len(images) - 1}")
    kept = _run(snn, images[list(chosen)], torch.tensor(chosen), merged.time_steps, disturbance, keep=True)
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


@dataclass
class _Layer:
    """Neurons of one layer for the samples still running; `last` is the step of each one's last spike."""

    membrane: Tensor
    count: Tensor
    last: Tensor
    table: Tensor

    def keep(self, rows: Tensor) -> None:
        self.membrane, self.count, self.last = self.membrane[rows], self.count[rows], self.last[rows]


def _start(snn: SNN, images: Tensor, slack: int) -> list[_Layer]:
    layers = []
    for index, layer in enumerate(snn.layers):
        dtype = membrane_dtype(layer, slack)
        shape = (len(images), *layer.spec.out_shape)
        membrane = (
            torch.zeros(shape, dtype=dtype) if index else synaptic_input(layer, images, LARGEST_PIXEL).to(dtype)
        )
        count, last = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int16)
        layers.append(_Layer(membrane, count, last, threshold_table(layer.thresholds, dtype)))
    return layers


def _run(
    snn: SNN,
    images: Tensor,
    samples: Tensor,
    time_steps: int | None,
    disturbance: tuple[str, float, int] | None,
    keep: bool = False,
) -> Record:
    """Run one batch; with keep=True no sample leaves early and the record carries traces."""
    depth, size = len(snn.layers), len(images)
    limit = time_steps or snn.sufficient_steps + 1
    # A lost or flipped spike can push a membrane beyond the bound of the undisturbed network.
    slack = 0 if disturbance is None else 2 * limit * max(int(layer.highest.max()) for layer in snn.layers)
    layers = _start(snn, images, slack)
    counts = [torch.zeros_like(layer.count) for layer in layers]
    fired_last = [torch.zeros_like(layer.last) for layer in layers]
    active, last = torch.arange(size), torch.zeros(size, dtype=torch.int64)
    score = torch.zeros(size, snn.spec.classes, dtype=torch.float64)
    tables: dict[str, list[np.ndarray]] = {n: [] for n in ("positive", "negative", "sops", "effective_sops")}
    logits, spike_traces, membrane_traces = [], [[] for _ in layers], [[] for _ in layers]
    done = 0
    while done < limit and len(active):
        steps = min(BLOCK, limit - done)
        rows = {name: np.zeros((steps, depth), dtype=np.int64) for name in tables}
        arriving = None
        for index, (layer, state) in enumerate(zip(snn.layers, layers, strict=True)):
            if index == 0:
                spikes = encode(state.membrane, layer.thresholds, done + 1, steps)
                state.count += spikes.sum(0)
                membranes = state.membrane.expand(steps, *state.membrane.shape)
            else:
                events = (arriving != 0).sum(1)
                rows["sops"][:, index] = (events * layer.fan_out).sum((1, 2, 3))
                rows["effective_sops"][:, index] = (events * layer.effective_fan_out).sum((1, 2, 3))
                amplitude = snn.amplitude if index == 1 else 1
                sums = synaptic_input(layer, arriving.flatten(0, 1) * amplitude, amplitude)
                membranes = sums.to(state.membrane.dtype).unflatten(0, (steps, -1)).contiguous()
                spikes = fire(membranes, state.membrane, state.count, state.table)
            rows["positive"][:, index] = (spikes > 0).sum((1, 2, 3, 4))
            rows["negative"][:, index] = (spikes < 0).sum((1, 2, 3, 4))
            for step in range(steps):
                state.last[spikes[step] != 0] = done + step + 1
            last[active] = torch.maximum(last[active], state.last.flatten(1).amax(1).long())
            if keep:
                spike_traces[index].append(spikes)
                membrane_traces[index].append(membranes.clone())
            arriving = spikes
            if disturbance is not None:
                arriving = faulty(spikes, *disturbance, samples[active], key=done * depth + index)
        scores = score.expand(steps, -1, -1).clone()
        weight = snn.classifier.double().flatten(1)
        scores[:, active] += (arriving.flatten(2).double() @ weight.T).cumsum(0)
        score = scores[-1]
        logits.append(scores)
        for name, table in rows.items():
            tables[name].append(table)
        done += steps
        silent = (last[active] < done) & (done > snn.levels) & (not keep)
        for index, state in enumerate(layers):
            counts[index][active] = state.count
            fired_last[index][active] = state.last
            if silent.any():
                state.keep(~silent)
        active = active[~silent]

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
    at = torch.bincount(last.flatten().long(), minlength=steps + 1).numpy()
    return at.sum() - at.cumsum()[1 : steps + 1]


def _check_tables(snn: SNN, counts: list[Tensor]) -> None:
    for index, (layer, count) in enumerate(zip(snn.layers, counts, strict=True)):
        entries = layer.thresholds.shape[1]
        if layer.saturates and int(count.max()) >= entries:
            raise ValueError(
                f"layer {index} ({layer.name}): a neuron reached {entries} spikes, the end of its threshold "
                f"table; convert the network with max_levels={2 * entries} or more"
            )
