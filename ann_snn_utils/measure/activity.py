"""What a record says over time: how often it is right, how much it fires, and when it falls silent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from ..checks import expect
from ..simulator.record import Record
from ..simulator.run import simulate
from ..snn.network import SNN
from .energy import energy_over_time
from .events import check_silent, macs
from .verdict import energy_by_model, run_events_of


def correct(record: Record) -> np.ndarray:
    """How many samples are classified correctly after each step, int64 [T]; ValueError without labels."""
    expect(Record, record=record)
    if record.labels is None:
        raise ValueError("this record has no labels: give simulate a Dataset, or labels=…, to measure accuracy")
    return (record.predictions == record.labels).sum(1).numpy()


def accuracy(record: Record) -> np.ndarray:
    """Share of samples classified correctly after each step, float64 [T]; ValueError without labels."""
    return correct(record) / record.samples


def sparsity(record: Record) -> np.ndarray:
    """Each layer's share of neuron-steps without a spike over the whole run, float64 [L]."""
    places = record.samples * np.array(record.neurons)
    return 1 - ((record.positive + record.negative) / places).mean(0)


def cancelled(record: Record) -> np.ndarray:
    """Each layer's number of −1 spikes, int64 [L]: each takes back a +1 that was sent too early."""
    return record.negative.sum(0)


STEPS = (1, 2, 3, 4, 6, 8)
SILENCE = "silence"

# What results of one number may be averaged over, whatever the code looked like. Raise it by hand when the same
# training, network and images give other numbers; a test re-evaluates a bundled network to tell.
METHOD = 1


def correct_at(record: Record, also: Iterable[int] = ()) -> dict[str, int]:
    """How many samples are right after each of STEPS, after the steps in `also`, and at silence.

    After silence nothing changes, so steps may lie beyond the record. Raises ValueError without labels, and for a
    record that ended before silence.
    """
    check_silent(record)
    right, done = correct(record), record.time_steps
    found = {str(step): int(right[min(step, done) - 1]) for step in sorted({*STEPS, *also})}
    return found | {SILENCE: int(right[-1])}


def results_at_silence(record: Record, snn: SNN, also: Iterable[int] = ()) -> dict[str, Any]:
    """The part of results.json that a run until silence tells, as JSON values.

    Accuracies are fractions; `correct` counts over all samples; `…_per_sample` and energies are means;
    `…_over_time` hold one value for each step; `silence_step` is the last step before all samples are silent.
    Raises ValueError as `correct_at` does.
    """
    samples, at = record.samples, correct_at(record, also)
    energies = energy_over_time(record, snn)
    spent = energies[-1]
    return {
        "samples": samples,
        "method": METHOD,
        "accuracy": {"snn": {step: right / samples for step, right in at.items()}},
        "correct": {"snn": at},
        "silence_step": int(record.settled_at.max()),
        "mean_settling_step": float(record.settled_at.double().mean()),
        "spikes_per_sample": float(record.spike_num[-1]) / samples,
        "sops_per_sample": float(record.sop_num[-1]) / samples,
        "effective_sops_per_sample": float(record.effective_sops.sum()) / samples,
        "macs_per_sample": sum(macs(snn.spec)),
        "energy_pj": {"snn": spent.snn.total, "int8": spent.ann_int8.total, "fp32": spent.ann_fp32.total},
        "energy_by_model": energy_by_model(run_events_of(record, snn)),
        "accuracy_over_time": accuracy(record).tolist(),
        "sops_over_time": (record.sop_num / samples).tolist(),
        "energy_over_time": [energy.snn.total for energy in energies],
    }


def membrane_ranges(snn: SNN, images: Tensor) -> list[tuple[int, int]]:
    """The smallest and the largest membrane of each layer while uint8 images [N, C, H, W] run until silence."""
    steps = int(simulate(snn, images).settled_at.max()) + 1
    # Membranes of every step of 2^25 neurons at most are in memory at once, however late the images settle.
    size = max(1, 2**25 // (steps * sum(layer.neurons for layer in snn.layers)))
    seen = []
    for part in images.split(size):
        traces = simulate(snn, part, trace=range(len(part))).traces
        assert traces is not None
        seen.append([(int(u.min()), int(u.max())) for u in traces.membranes])
    return [(min(low for low, _ in layer), max(high for _, high in layer)) for layer in zip(*seen, strict=True)]
