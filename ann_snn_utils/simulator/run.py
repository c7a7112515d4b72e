"""The integer spiking network over time: from uint8 images to spikes, totals and class scores per step."""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..ann.device import pick_device
from ..checks import check, check_settings, expect
from ..data.dataset import Dataset, as_images
from ..snn.network import SNN
from .dense import run_dense, samples_at_once
from .disturb import noisy
from .events.build import hindrance
from .events.layout import obstacle
from .events.loop import run_events
from .record import Record, merge

# The fastest first: spike by spike, compiled, for integer networks; dense tensors for every network.
BACKENDS = ("events", "dense")

_log = logging.getLogger(__name__)


def choose_backend(
    snn: SNN,
    time_steps: int | None,
    disturbed: bool = False,
    name: str | None = None,
    negative_spikes: bool = True,
) -> str:
    """The backend called `name`, or, with None, the fastest one that is exact for this run.

    time_steps: None for a run until silence. disturbed: whether faults strike. Raises ValueError for an unknown
    name, and for a backend that cannot run this here; where None falls back to dense tensors, the log says why.
    """
    if name not in (None, *BACKENDS):
        raise ValueError(f"backend={name!r}: choose one of {', '.join(BACKENDS)}, or None")
    if name == "dense":
        return name
    # What goes on after all is silent need not be run.
    needed = snn.sufficient_steps + 1
    steps = time_steps if time_steps and (disturbed or time_steps < needed) else needed
    reason = None if negative_spikes else "compiled neurons always take spikes back"
    reason = reason or obstacle(snn, steps, disturbed) or hindrance()
    if reason and name:
        raise ValueError(f"backend={name!r} cannot run this network: {reason}; use backend='dense'")
    if reason:
        _log.info("simulating with dense tensors: %s", reason)
    return "dense" if reason else "events"


def choose_device(snn: SNN, name: str | None, backend: str | None = None) -> torch.device:
    """Where dense tensors compute: on the device called `name`, as `pick_device` says, with None on the CPU.

    Another device than the CPU must be CUDA, the network integer, and the backend not the compiled one: then every
    sum is exact there too, while those of real numbers would depend on the order of their terms. ValueError where
    it is not so; "auto" then takes the CPU, and the log says why.
    """
    if name is None or (device := pick_device(name)).type == "cpu":
        return torch.device("cpu")
    reason = None
    if device.type != "cuda":
        reason = "it has no float64, by which sums and scores are exact"
    elif not snn.integer:
        reason = f"sums of real numbers ({snn.thresholds!r}, or a float classifier) round differently there"
    elif backend == "events":
        reason = "backend='events' is compiled for the CPU; use backend='dense'"
    if reason and name != "auto":
        raise ValueError(f"device={name!r} cannot run this network exactly: {reason}, or device='cpu'")
    if reason:
        _log.info("simulating on the CPU: device=%r: %s", str(device), reason)
    return torch.device("cpu") if reason else device


def simulate(
    snn: SNN,
    images: Tensor | np.ndarray | Dataset,
    time_steps: int | None = None,
    noise_ratio: float = 0.0,
    seed: int = 0,
    labels: Tensor | None = None,
    trace: Iterable[int] = (),
    fault: str | None = None,
    fault_rate: float | None = None,
    batch_size: int | None = None,
    backend: str | None = None,
    progress: bool = False,
    negative_spikes: bool = True,
    device: str | None = None,
    first_sample: int = 0,
) -> Record:
    """Run the network for `time_steps` steps, or, with None, until every sample is silent.

    time_steps       None runs until every sample is silent
    images, labels   uint8 [N, C, H, W] as `as_images` takes them, and classes [N]; or a Dataset, which has both
    noise_ratio      of the pixels: see `disturb.noisy`
    fault            "delete" or "flip": what strikes a spike on its way to the next layer …
    fault_rate       … with this probability, 0 … 1
    seed             of noise and faults, whose draws do not depend on `batch_size`
    first_sample     number of the first image among those of which these are a part; faults are drawn by it (noise
                     is drawn over all images: let `noisy` do it before they are parted)
    trace            indices of samples whose spikes and membranes are recorded
    negative_spikes  False never takes a spike back, as the integrate-and-fire neuron of rate conversion, which
                     subtracts its threshold at a spike; what it settles on need not be the ANN's codes
    batch_size       samples at a time; None for as many as memory takes well
    backend          "events" or "dense"; None for the fastest that is exact: see `choose_backend`
    device           "cuda", "auto", or None for the CPU, all with the same record: see `choose_device`
    progress         show a bar

    Source of the neuron: Zou et al. 2024, see `neuron.py`; the network says whether it is the design's or the
    published one. Raises ValueError that names the argument that is wrong, or the layer whose threshold table
    is too short.
    """
    expect(SNN, snn=snn)
    if isinstance(images, Dataset):
        labels = images.labels if labels is None else labels
    images = as_images(images, snn.spec.in_shape)
    if labels is not None:
        labels = _as_labels(labels, len(images), snn.spec.classes)
    if fault and fault_rate is None:
        raise ValueError(f"fault={fault!r} without a fault_rate: give the share of spikes that it strikes")
    fault_rate = fault_rate or 0.0
    given: dict[str, Any] = {"time_steps": time_steps, "fault": fault, "batch_size": batch_size}
    given = {name: value for name, value in given.items() if value is not None}
    given |= {"noise_ratio": noise_ratio, "fault_rate": fault_rate, "seed": seed, "first_sample": first_sample}
    given = {name: check(name, value) for name, value in given.items()}
    time_steps, batch_size = given.get("time_steps"), given.get("batch_size")
    noise_ratio, fault_rate = given["noise_ratio"], given["fault_rate"]
    seed, first_sample = given["seed"], given["first_sample"]
    check_settings({"fault": fault or "", "fault_rate": fault_rate})
    images = noisy(images.cpu(), noise_ratio, seed)
    disturbance = (fault, fault_rate, seed) if fault and fault_rate else None
    try:
        chosen = tuple(map(operator.index, trace))
    except TypeError:
        chosen = (-1,)
    if not all(0 <= sample < len(images) for sample in chosen):
        raise ValueError(f"trace={trace!r:.80}: give a list of indices from 0 to {len(images) - 1}")
    target = choose_device(snn, device, backend)
    if target.type != "cpu":
        backend = backend or "dense"
    backend = choose_backend(snn, time_steps, disturbance is not None, backend, negative_spikes)

    def dense(samples: Tensor, steps: int | None, traced: bool) -> Record:
        # What is made on the way is made there; autocast would round the sums.
        with target, torch.autocast(target.type, enabled=False):
            there = images[samples].to(target), (samples + first_sample).to(target)
            net = snn if target.type == "cpu" else snn.to(target)
            return run_dense(net, *there, steps, disturbance, traced, negative_spikes)

    if backend == "events":
        merged = run_events(snn, images, time_steps, disturbance, batch_size, progress, first_sample)
    else:
        parts = torch.arange(len(images), device="cpu").split(
            batch_size or samples_at_once(snn, time_steps, target)
        )
        records = [
            dense(samples, time_steps, False)
            for samples in tqdm(parts, "simulate", unit="batch", disable=not progress)
        ]
        merged = merge(records, time_steps)
    traces = dense(torch.tensor(chosen, device="cpu"), merged.time_steps, True).traces if chosen else None
    return merged if labels is None is traces else replace(merged, labels=labels, traces=traces)


def _as_labels(labels: Tensor | np.ndarray, images: int, classes: int) -> Tensor:
    labels = torch.as_tensor(labels, device="cpu")
    if labels.shape != (images,):
        raise ValueError(f"labels {list(labels.shape)} for {images} images: give each image one, [N]")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels of type {labels.dtype}: give whole numbers, the index of each image's class")
    labels = labels.to(torch.int64)
    if images and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels from {int(labels.min())} to {int(labels.max())}: give those of {classes} classes, "
            f"0 to {classes - 1}"
        )
    return labels
