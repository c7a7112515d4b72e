"""What a run of the spiking network leaves behind: class scores, counts, and totals per time step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

# The totals of each layer at each step, int64 [T, L].
_TOTALS = ("positive", "negative", "sops", "effective_sops", "pending", "encoder_sops")


@dataclass(frozen=True, eq=False)
class Traces:
    """Spikes and membranes of chosen samples: per layer int8 and membrane-typed tensors [T, n, C, H, W]."""

    spikes: list[Tensor]
    membranes: list[Tensor]


@dataclass(frozen=True, eq=False)
class Record:
    """A run of T steps over N samples and L layers (encoder first).

    logits: class scores after each step [T, N, classes], int64 (float64 with a full-precision classifier).
    labels: int64 [N] or None. counts: net spike counts at the end, one int8 or int16 [N, C, H, W] per layer.
    settled_at: int64 [N], the last step with a spike, at least the encoder's levels; 0 where the run saw no
    silent step after it. The sample is silent from the step behind it on, which is when that can be known: at
    step T exactly where 0 < settled_at < T, however long the run (see `silent`).
    positive, negative: +1 and −1 spikes of each layer at each step, int64 [T, L].
    sops, effective_sops: synaptic operations in each layer at each step, int64 [T, L]: every incoming spike
    times its fan-out, counting all synapses or those with a weight other than zero; 0 for the encoder.
    encoder_sops: those of `sops` that came from the encoder, or from maxima of it.
    pending: neurons of each layer that will still fire later in the run that was made, int64 [T, L].
    neurons: number of neurons of each layer for one sample. amplitude: counts that a spike of the encoder
    carries, 2^k, although it is one event in every total.
    """

    logits: Tensor
    labels: Tensor | None
    counts: list[Tensor]
    settled_at: Tensor
    positive: np.ndarray
    negative: np.ndarray
    sops: np.ndarray
    effective_sops: np.ndarray
    encoder_sops: np.ndarray
    pending: np.ndarray
    layer_names: tuple[str, ...]
    neurons: tuple[int, ...]
    traces: Traces | None = None
    amplitude: int = 1

    @property
    def time_steps(self) -> int:
        """Number of steps T."""
        return len(self.logits)

    @property
    def samples(self) -> int:
        """Number of samples N."""
        return self.logits.shape[1]

    def until(self, time_steps: int) -> Record:
        """The record's first steps. Counts and `pending` are the whole run's: let silence lie within the steps."""
        return replace(
            self,
            logits=self.logits[:time_steps],
            settled_at=self.settled_at * (self.settled_at < time_steps),
            **{name: getattr(self, name)[:time_steps] for name in _TOTALS},
        )

    def until_silence(self) -> Record:
        """The record up to the first step in which all samples are silent, or all of it where there is none."""
        settled = bool((self.settled_at > 0).all())
        return self.until(int(self.settled_at.max()) + 1) if settled else self

    @property
    def silent(self) -> Tensor:
        """Whether each sample is silent at each step, bool [T, N]: nothing about it changes any more."""
        step = torch.arange(1, self.time_steps + 1)[:, None]
        return (self.settled_at > 0) & (self.settled_at < step)

    @property
    def abs_spike(self) -> np.ndarray:
        """Spikes of the hidden layers at each step, each ±1 counted as one, int64 [T]."""
        return (self.positive + self.negative)[:, 1:].sum(1)

    @property
    def sum_spike(self) -> np.ndarray:
        """Signed sum of the hidden layers' spikes at each step, int64 [T]."""
        return (self.positive - self.negative)[:, 1:].sum(1)

    @property
    def spike_num(self) -> np.ndarray:
        """Spikes of the hidden layers so far, each ±1 counted as one, int64 [T]."""
        return self.abs_spike.cumsum()

    @property
    def spike_collect(self) -> np.ndarray:
        """Signed sum of the hidden layers' spikes so far, int64 [T]."""
        return self.sum_spike.cumsum()

    @property
    def sop_num(self) -> np.ndarray:
        """Synaptic operations in the hidden layers so far, int64 [T]; the classifier's are not counted."""
        return self.sops[:, 1:].sum(1).cumsum()

    @property
    def predictions(self) -> Tensor:
        """Class with the largest score after each step, int64 [T, N]; the first one of equal scores."""
        # NumPy promises the first of equal maxima; torch does not.
        return torch.from_numpy(self.logits.numpy().argmax(2))


def merge(records: list[Record], time_steps: int | None, labels: Tensor | None = None) -> Record:
    """One record of several batches, each continued to `time_steps` in the silence it had reached.

    time_steps: None is as long as the longest. labels: of all batches in turn. Raises ValueError for fewer steps.
    """
    first, longest = records[0], max(record.time_steps for record in records)
    steps = longest if time_steps is None else time_steps
    if steps < longest:
        raise ValueError(f"time_steps={steps}: a record has {longest} steps; give at least as many, or None")
    if len(records) == 1 and first.time_steps == steps:
        return replace(first, labels=labels)

    totals: dict[str, Any] = {}
    for name in _TOTALS:
        tables = [getattr(record, name) for record in records]
        totals[name] = np.sum([np.pad(table, ((0, steps - len(table)), (0, 0))) for table in tables], 0)

    logits = first.logits.new_empty(steps, sum(record.samples for record in records), first.logits.shape[2])
    for record, part in zip(records, logits.split([record.samples for record in records], 1), strict=True):
        part[: record.time_steps] = record.logits
        part[record.time_steps :] = record.logits[-1]
    return replace(
        first,
        logits=logits,
        labels=labels,
        counts=[torch.cat(parts) for parts in zip(*(record.counts for record in records), strict=True)],
        settled_at=torch.cat([record.settled_at for record in records]),
        traces=None,
        **totals,
    )
