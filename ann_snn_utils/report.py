"""Results of runs as plain tables for a terminal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .artifacts import load_json
from .runs import MANIFEST, read_manifest, require, run_folder, stale_stages
from .unfinished import mark_of


def results_table(folder: str | os.PathLike[str]) -> str:
    """Give a run's results.json as an aligned table: accuracy of each network, mismatches, spikes, SOPs.

    Raises FileNotFoundError that names the notebook to run where the file is missing, ValueError where it
    lacks an entry.
    """
    path = require(folder, "results.json")
    results = load_json(path)
    try:
        rows = _rows(results)
        title = f"{results['run']}: {results['dataset']}, {results['network']}, k = {results['k']}"
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path} is not complete ({error!r:.200}): run notebook 04_spike_analysis again") from None
    notes = [f"outdated: {name} read files that have been made anew; run the study again"
             for name in stale_stages(read_manifest(folder))]  # fmt: skip
    return "\n".join([title, *aligned(rows), *notes])


def _rows(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    accuracy, correct, samples = results["accuracy"], results["correct"], results["samples"]

    def scored(label: str, share: float, count: int) -> tuple[str, str, str]:
        return label, f"{100 * share:.2f} %", f"{count:,} of {samples:,}"

    steps = [step for step in accuracy["snn"] if step != "silence"]
    macs, spikes, sops = results["macs_per_sample"], results["spikes_per_sample"], results["sops_per_sample"]
    return [
        scored("full-precision ANN", accuracy["ann"], correct["ann"]),
        scored("quantized ANN", accuracy["qann"], correct["qann"]),
        *(scored(f"integer SNN, T = {step}", accuracy["snn"][step], correct["snn"][step]) for step in steps),
        scored(
            f"integer SNN at silence, T ≤ {results['silence_step']}",
            accuracy["snn"]["silence"],
            correct["snn"]["silence"],
        ),
        ("code mismatches", f"{results['mismatches']:,}", f"of {results['neurons']:,} codes"),
        ("spikes per image", f"{spikes:,.0f}", ""),
        ("SOPs per image", f"{sops:,.0f}", f"{sops / macs:.3f} per MAC of the ANN"),
        ("MACs per image (ANN)", f"{macs:,}", ""),
    ]


def runs_table(runs: Sequence[str]) -> str:
    """Give one line for each run: accuracy of its networks, mismatches and spikes, or what is missing."""
    rows: list[tuple[str, ...]] = [("run", "ANN %", "QANN %", "SNN %", "silent at", "mismatches", "spikes/image")]
    for run in runs:
        path = Path(run_folder(run)) / "results.json"
        try:
            results = load_json(path)
            accuracy = results["accuracy"]
            shares = (accuracy["ann"], accuracy["qann"], accuracy["snn"]["silence"])
            rows.append((
                run, *(f"{100 * share:.2f}" for share in shares), str(results["silence_step"]),
                f"{results['mismatches']:,}", f"{results['spikes_per_sample']:,.0f}",
            ))  # fmt: skip
        except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
            try:
                done = ", ".join(read_manifest(path.parent)["stages"]) or "nothing"
            except ValueError:
                done = f"unknown, its {MANIFEST} is damaged"
            mark = mark_of(path.parent)
            now = f"; {mark['state']} in {mark['stage']}" if mark else ""
            rows.append((run, f"no results yet; done: {done}{now}"))
    return "\n".join(aligned(rows))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Give rows of cells as lines of equal columns: the first to the left, the others to the right."""
    full = [row for row in rows if len(row) == max(map(len, rows))]
    widths = [max(len(row[column]) for row in full) for column in range(len(full[0]))] if full else []
    widths[:1] = [max(len(row[0]) for row in rows)] if rows else []
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        if len(row) == len(widths):
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        else:
            cells += row[1:]
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines
