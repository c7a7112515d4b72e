"""What a record says over time: how often it is right, how much it fires, and when it falls silent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .record import Record


@dataclass(frozen=True, eq=False)
class FiringRates:
    """Spikes per neuron at each step, float64 [T, L]: `net` counts a −1 as −1, `events` counts it as one."""

    net: np.ndarray
    events: np.ndarray


@dataclass(frozen=True, eq=False)
class Settling:
    """When samples fell silent: `counts` int64 [T], after step t in row t − 1; `unsettled`: not in this run."""

    counts: np.ndarray
    unsettled: int

    @property
    def samples(self) -> int:
        """Number of samples, settled or not."""
        return int(self.counts.sum()) + self.unsettled

    @property
    def share_unsettled(self) -> float:
        """Share of the samples that had not settled when the run ended."""
        return self.unsettled / self.samples


def correct(record: Record) -> np.ndarray:
    """Give how many samples are classified correctly after each step, int64 [T].

    Raises ValueError for a record without labels.
    """
    if record.labels is None:
        raise ValueError("this record has no labels: give simulate a Dataset, or labels=…, to measure accuracy")
    return (record.predictions == record.labels).sum(1).numpy()


def accuracy(record: Record) -> np.ndarray:
    """Give the share of samples classified correctly after each step, float64 [T].

    Raises ValueError for a record without labels.
    """
    return correct(record) / record.samples


def firing_rates(record: Record) -> FiringRates:
    """Give each layer's spikes per neuron at each step; their mean over axis 0 is the rate of the whole run."""
    places = record.samples * np.array(record.neurons)
    return FiringRates(
        net=(record.positive - record.negative) / places, events=(record.positive + record.negative) / places
    )


def sparsity(record: Record) -> np.ndarray:
    """Give each layer's share of neuron-steps without a spike over the whole run, float64 [L]."""
    return 1 - firing_rates(record).events.mean(0)


def cancelled(record: Record) -> np.ndarray:
    """Give each layer's number of −1 spikes, int64 [L].

    Every one takes back a +1 that was sent too early, so it is the number of pairs sent in vain.
    """
    return record.negative.sum(0)


def settling(record: Record) -> Settling:
    """Give the histogram of the steps after which samples were silent, and how many were not yet."""
    at = np.bincount(record.settled_at.numpy(), minlength=record.time_steps + 1)
    return Settling(counts=at[1:], unsettled=int(at[0]))
