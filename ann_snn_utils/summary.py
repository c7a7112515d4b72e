"""What a run over a test set reached, in plain numbers: right answers, work and energy, after chosen steps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .activity import accuracy, correct
from .energy import energy, macs
from .record import Record
from .snn import SNN

STEPS = (1, 2, 3, 4, 6, 8)
SILENCE = "silence"


def correct_at(record: Record, also: Iterable[int] = ()) -> dict[str, int]:
    """Give how many samples are right after each of STEPS, after the steps in `also`, and at silence.

    The record must have run until silence: later steps change nothing. Raises ValueError without labels.
    """
    right, done = correct(record), record.time_steps
    found = {str(step): int(right[min(step, done) - 1]) for step in sorted({*STEPS, *also})}
    return found | {SILENCE: int(right[-1])}


def reached(record: Record, snn: SNN, also: Iterable[int] = ()) -> dict[str, Any]:
    """Give the part of results.json that a run until silence tells, as JSON values.

    Accuracies are fractions, `…_over_time` hold one value for each step, everything else is per sample.
    """
    samples, at = record.samples, correct_at(record, also)
    spent = energy(record, snn)
    steps = range(1, record.time_steps + 1)
    return {
        "samples": samples,
        "accuracy": {"snn": {step: right / samples for step, right in at.items()}},
        "correct": {"snn": at},
        "silence_step": int(record.settled_at.max()),
        "mean_settling_step": float(record.settled_at.double().mean()),
        "spikes_per_sample": float(record.spike_num[-1]) / samples,
        "sops_per_sample": float(record.sop_num[-1]) / samples,
        "effective_sops_per_sample": float(record.effective_sops.sum()) / samples,
        "macs_per_sample": sum(macs(snn.spec)),
        "energy_pj": {"snn": spent.snn.total, "int8": spent.ann_int8.total, "fp32": spent.ann_fp32.total},
        "accuracy_over_time": accuracy(record).tolist(),
        "sops_over_time": (record.sop_num / samples).tolist(),
        "energy_over_time": [energy(record, snn, time_steps=step).snn.total for step in steps],
    }
