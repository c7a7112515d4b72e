"""What hardware must reproduce: spikes of every layer and step, membranes at the end, scores, predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .record import Record
from .simulate import simulate
from .snn import SNN

# Samples whose spikes and membranes are held in memory at once.
CHUNK = 16


@dataclass(frozen=True, eq=False)
class Golden:
    """Some samples' run of T steps; everything is an integer array.

    spikes: per layer int8 [n, T, C, H, W]. membranes: per layer [n, C, H, W] after the last step. scores:
    int64 [n, T, classes]. predictions: int64 [n, T], the first of equal scores.
    """

    spikes: list[np.ndarray]
    membranes: list[np.ndarray]
    scores: np.ndarray
    predictions: np.ndarray


def golden_parts(snn: SNN, images: Tensor, time_steps: int) -> Iterator[Golden]:
    """Yield the golden outputs of uint8 images [N, C, H, W], a few samples at a time, in order.

    Raises ValueError, as `simulate` does, where a neuron needs more counts than its layer has.
    """
    for start in range(0, len(images), CHUNK):
        part = images[start : start + CHUNK]
        yield golden_of(simulate(snn, part, time_steps, trace=range(len(part))))


def golden_of(record: Record) -> Golden:
    """Give the golden outputs of a record that carries the traces of all its samples."""
    return Golden(
        [spikes.transpose(0, 1).numpy() for spikes in record.traces.spikes],
        [membranes[-1].numpy() for membranes in record.traces.membranes],
        record.logits.transpose(0, 1).numpy(),
        record.predictions.T.numpy(),
    )
