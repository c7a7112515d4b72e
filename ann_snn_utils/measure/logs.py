"""The six text logs of the published system, one line for each batch and time step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..files import atomic
from ..simulator.record import Record
from ..snn.network import REAL_FORMS, SNN
from .activity import correct


def published_sop_num(record: Record) -> np.ndarray:
    """Synaptic operations so far as the published system counts them, int64 [T]: |spike| · fan-out.

    A spike of the encoder, on its way to the first hidden layer, counts with its amplitude 2^k;
    `Record.sop_num` counts it as the one event that it is.
    """
    sops = record.sops + (record.amplitude - 1) * record.encoder_sops
    return sops[:, 1:].sum(1).cumsum()


def log_folder(snn: SNN, root: str | os.PathLike[str] = "figs") -> Path:
    """The folder that the published system would log to: root/{WQ|NWQ}[_INT]/k{k}.

    WQ: ternary weights; _INT: integer thresholds.
    """
    weights = "WQ" if snn.spec.ternary else "NWQ"
    return Path(root) / (weights if snn.thresholds in REAL_FORMS else f"{weights}_INT") / f"k{snn.k}"


def write_logs(
    records: Record | Iterable[Record], folder: str | os.PathLike[str], labels: Tensor | None = None
) -> None:
    """Write accuracy, spike_num, spike_collect, sop_num, abs_spike and sum_spike (.txt) into `folder`.

    records: one for each batch, all of the same number of steps; each gives one line per step to each file,
    an integer: correct predictions of the batch; spikes, their signed sum and synaptic operations so far;
    this step's absolute and signed spike sums. labels: int64, of all batches in turn, where the records have
    none. Only hidden layers count; sop_num is `published_sop_num`. The classifier's operations
    are left out: the published MNIST script, unlike its CIFAR-10 one, adds those to sop_num.
    All six files appear or none. Raises ValueError for records without labels or of different lengths.
    """
    batches: list[Record] = [records] if isinstance(records, Record) else list(records)
    if not batches:
        raise ValueError("write_logs: there is no record to write; pass one for each batch")
    steps = sorted({record.time_steps for record in batches})
    if len(steps) > 1:
        raise ValueError(f"the records hold {steps} time steps: run every batch with the same time_steps")
    if labels is not None:
        sizes = [record.samples for record in batches]
        if len(labels) != sum(sizes):
            raise ValueError(f"{len(labels)} labels for {sum(sizes)} samples in the records: give one for each")
        parts = torch.as_tensor(labels).split(sizes)
        batches = [replace(record, labels=part) for record, part in zip(batches, parts, strict=True)]
    logged: dict[str, Callable[[Record], np.ndarray]] = {"accuracy": correct, "sop_num": published_sop_num}
    logged |= {name: attrgetter(name) for name in ("spike_num", "spike_collect", "abs_spike", "sum_spike")}
    files = {
        f"{name}.txt": "".join(f"{number}\n" for record in batches for number in of(record))
        for name, of in logged.items()
    }
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file where the folder of the logs is to be: choose another folder")
    for name in files:
        if (folder / name).is_dir():
            raise ValueError(f"{folder / name} is a folder where a log is to be written: remove or rename it")
    # Each takes its name when all are written.
    with ExitStack() as written:
        for name, text in files.items():
            written.enter_context(atomic(folder / name)).write_text(text, encoding="ascii", newline="\n")
