"""The integer network of a run over time, as a table and as the published logs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor

from ..data.dataset import load_recorded
from ..measure.logs import log_folder, write_logs
from ..simulator.record import Record
from ..simulator.run import simulate
from ..snn.store import load_snn
from ..tables import aligned
from .folder import SNN_FILE, require, run_folder


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
    as published.
    """
    folder = run_folder(run)
    snn = load_snn(require(folder, SNN_FILE))
    test = load_recorded(snn.metadata, dataset=dataset)
    test = test.subset(min(samples, len(test))) if samples else test
    record = simulate(snn, test, time_steps, progress=True, **disturbance)
    table = over_time(record)
    if not logs:
        return table, None
    size = 50 if "cifar" in test.name.lower() else 200
    starts = range(0, len(test), size)
    batches = (
        simulate(
            snn,
            test.subset(range(start, min(start + size, len(test)))),
            record.time_steps,
            **disturbance | {"seed": disturbance.get("seed", 0) + start // size},
        )
        for start in starts
    )
    target = log_folder(snn, folder / "figs")
    write_logs(batches, target)
    return table, target


def over_time(record: Record) -> str:
    """A record of labelled images as a table with one line for each step."""
    right = record.predictions.eq(cast(Tensor, record.labels)).sum(1)
    rows = [("T", "correct", "accuracy", "silent", "spikes/image", "SOPs/image")]
    images = record.samples
    for step in range(record.time_steps):
        silent = int(((record.settled_at > 0) & (record.settled_at < step + 1)).sum())
        spikes, sops = record.spike_num[step] / images, record.sop_num[step] / images
        rows.append(
            (
                str(step + 1),
                f"{int(right[step]):,}",
                f"{100 * int(right[step]) / images:.2f} %",
                f"{silent:,}",
                f"{spikes:,.1f}",
                f"{sops:,.0f}",
            )
        )
    return "\n".join(aligned(rows))
