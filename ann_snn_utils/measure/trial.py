"""One trial of a spiking network: thresholds scaled, input noisy, spikes faulty, on some of the samples."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.dataset import Dataset
from ..simulator.disturb import noisy
from ..simulator.record import Record, merge
from ..simulator.run import simulate
from ..snn.network import SNN
from ..snn.thresholds import scale_thresholds
from .activity import accuracy
from .energy import energy_over_time

# Samples between two reports of progress.
CHUNK = 256


@dataclass(frozen=True)
class Setting:
    """What notebook 04 is run with, under the same names; threshold_scale is one factor or one for each layer."""

    samples: int
    threshold_scale: float | tuple[float, ...] = 1.0
    noise_ratio: float = 0.0
    fault: str = ""
    fault_rate: float = 0.0
    seed: int = 0

    def command(self, run: str, time_steps: int) -> str:
        """The shell line that repeats the trial on a run (or "bundled:…") in batch, with papermill."""
        # -r takes the name as text: -p would make a number of a run called 2024.
        words = ["papermill", "notebooks/04_spike_analysis.ipynb", "04_trial.ipynb", "-r", "run", run]
        for key, value in (("time_steps", time_steps), ("samples", self.samples), ("seed", self.seed)):
            words += ["-p", key, str(value)]
        if isinstance(self.threshold_scale, tuple):
            words += ["-y", f"threshold_scale: [{', '.join(map(str, self.threshold_scale))}]"]
        elif self.threshold_scale != 1:
            words += ["-p", "threshold_scale", str(self.threshold_scale)]
        if self.noise_ratio:
            words += ["-p", "noise_ratio", str(self.noise_ratio)]
        if self.fault and self.fault_rate:
            words += ["-p", "fault", self.fault, "-p", "fault_rate", str(self.fault_rate)]
        return shlex.join(words)


@dataclass(frozen=True, eq=False)
class Trial:
    """The run of a setting, averaged over its samples; all arrays are float64 [T], work is up to each step.

    accuracy: fractions. sops, effective_sops, energy (pJ): for one sample. ann_energy: the dense int8 network's.
    """

    setting: Setting
    record: Record
    accuracy: np.ndarray
    sops: np.ndarray
    effective_sops: np.ndarray
    energy: np.ndarray
    ann_energy: float


def run_trial(
    snn: SNN,
    samples: Dataset,
    setting: Setting,
    time_steps: int,
    report: Callable[[float], None] = lambda share: None,
) -> Trial:
    """The trial of a setting on the first `setting.samples` samples, as `simulate` would run it at once.

    report: is told the share that is done, and may raise to stop.
    """
    scaled = scale_thresholds(snn, setting.threshold_scale)
    chosen = samples.subset(range(min(setting.samples, len(samples))))
    # Noise is drawn over all images, and faults by each sample's index.
    images = noisy(chosen.images, setting.noise_ratio, setting.seed)
    how: dict[str, Any] = dict(seed=setting.seed, fault=setting.fault or None, fault_rate=setting.fault_rate)
    records = []
    for start in range(0, len(chosen), CHUNK):
        report(start / len(chosen))
        records.append(simulate(scaled, images[start : start + CHUNK], time_steps, first_sample=start, **how))
    report(1.0)
    record = merge(records, time_steps, chosen.labels)
    spent = energy_over_time(record, scaled)
    return Trial(
        setting,
        record,
        accuracy(record),
        record.sop_num / record.samples,
        record.effective_sops[:, 1:].sum(1).cumsum() / record.samples,
        np.array([e.snn.total for e in spent]),
        spent[-1].ann_int8.total,
    )
