"""The integer network of a run over time, as a table and as the published logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.dataset import load_recorded
from ..measure.activity import correct
from ..measure.logs import log_folder, write_logs
from ..simulator.disturb import noisy
from ..simulator.record import Record
from ..simulator.run import simulate
from ..snn.store import load_snn
from ..tables import aligned
from .folder import SNN_FILE, TRIALS, require
from .gallery import network_folder


def simulate_run(
    run: str,
    time_steps: int | None = None,
    samples: int | None = None,
    logs: bool = False,
    dataset: str | None = None,
    **disturbance: Any,
) -> tuple[str, Path | None]:
    """Simulate a run: its table of accuracy, spikes and SOPs over time, and the folder of its six logs if wanted.

    time_steps: None runs until every image is silent. disturbance: noise_ratio, seed, fault and fault_rate of
    `simulate`. dataset: where the run's images lie now. logs: written in batches of 200 images (50 for CIFAR-10),
    as published, into figs/, or that of a folder in trials/ where the network is disturbed, samples are left out or
    time_steps are given.
    """
    folder = network_folder(run)
    snn = load_snn(require(folder, SNN_FILE))
    test = load_recorded(snn.metadata, dataset=dataset)
    test = test if samples is None else test.subset(samples)
    record = simulate(snn, test, time_steps, progress=True, **disturbance)
    table = over_time(record)
    if not logs:
        return table, None
    size = 50 if "cifar" in test.name.lower() else 200
    asked = disturbance | {"samples": samples, "time_steps": time_steps}
    told = {name: value for name, value in asked.items() if value}
    if told.keys() - {"seed"}:
        folder = folder / TRIALS / "-".join(f"{name}={value}" for name, value in sorted(told.items()))
    target = log_folder(snn, folder / "figs")
    # The same run in parts: noise is drawn over all images, and faults by the number of each.
    images = noisy(test.images, disturbance.pop("noise_ratio", 0.0), disturbance.get("seed", 0))
    records = (
        simulate(
            snn,
            images[start : start + size],
            record.time_steps,
            labels=test.labels[start : start + size],
            first_sample=start,
            **disturbance,
        )
        for start in range(0, len(test), size)
    )
    write_logs(records, target)
    return table, target


def over_time(record: Record) -> str:
    """A record of labelled images as a table with one line for each step."""
    rows, images = [("T", "correct", "accuracy", "silent", "spikes/image", "SOPs/image")], record.samples
    # Once: each of them adds up all steps.
    columns = correct(record), record.silent.sum(1).numpy(), record.spike_num / images, record.sop_num / images
    for step, (right, silent, spikes, sops) in enumerate(zip(*columns, strict=True), 1):
        share = f"{100 * right / images:.2f} %"
        rows.append((str(step), f"{right:,}", share, f"{silent:,}", f"{spikes:,.1f}", f"{sops:,.0f}"))
    return "\n".join(aligned(rows))
