"""Results of runs as plain tables for a terminal."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .artifacts import load_json
from .runs import MANIFEST, read_manifest, require, run_folder, stale_stages
from .summary import SILENCE
from .unfinished import mark_of


def results_table(folder: str | os.PathLike[str]) -> str:
    """Give a run's results.json as an aligned table: accuracy of each network, mismatches, spikes, SOPs.

    Raises FileNotFoundError that names the notebook to run where the file is missing, ValueError where it
    lacks an entry.
    """
    path = require(folder, "results.json")
    results = load_json(path)
    try:
        rows = list(outcome_rows(results).values())
        title = f"{results['run']}: {results['dataset']}, {results['network']}, k = {results['k']}"
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path} is not complete ({error!r:.200}): run notebook 04_spike_analysis again") from None
    notes = [f"outdated: {name} read files that have been made anew; run the study again"
             for name in stale_stages(read_manifest(folder))]  # fmt: skip
    return "\n".join([title, *aligned(rows), *notes])


def outcome_rows(results: Mapping[str, Any]) -> dict[str, tuple[str, str, str]]:
    """Give what results tell as rows of label, value and count or comment, by the names ann, qann, 1 …, sops, macs.

    Where networks or time steps are left out, or spikes, SOPs, energy or MACs, their rows are; raises
    LookupError, TypeError or ValueError for the rest.
    """
    correct, samples, shares = results["correct"], results["samples"], results.get("accuracy", {})

    def scored(label: str, right: int, share: float | None) -> tuple[str, str, str]:
        # The spiking network may have seen fewer images than the networks that it was made from.
        images = round(right / share) if share else samples
        share = right / samples if share is None else share
        return label, f"{100 * share:.2f} %", f"{right:,} of {images:,}"

    networks = {"ann": "full-precision ANN", "qann": "quantized ANN"}
    there = {name: label for name, label in networks.items() if name in correct}
    rows = {name: scored(label, correct[name], shares.get(name)) for name, label in there.items()}
    within = f", T ≤ {results['silence_step']}" if "silence_step" in results else ""
    for step, right in correct["snn"].items():
        label = f"integer SNN at silence{within}" if step == SILENCE else f"integer SNN, T = {step}"
        rows[step] = scored(label, right, shares.get("snn", {}).get(step))
    rows["mismatches"] = ("code mismatches", f"{results['mismatches']:,}", f"of {results['neurons']:,} codes")
    macs, spikes, sops = (results.get(f"{name}_per_sample") for name in ("macs", "spikes", "sops"))
    if spikes is not None:
        rows["spikes"] = ("spikes per image", f"{spikes:,.0f}", "")
    if sops is not None:
        rows["sops"] = ("SOPs per image", f"{sops:,.0f}", f"{sops / macs:.3f} per MAC of the ANN" if macs else "")
    if energy := results.get("energy_pj"):
        ours, int8, fp32 = (f"{energy[name] / 1e6:,.3f} µJ" for name in ("snn", "int8", "fp32"))
        rows["energy"] = ("arithmetic energy per image", ours, f"ANN: int8 {int8}, FP32 {fp32}")
    if macs is not None:
        rows["macs"] = ("MACs per image (ANN)", f"{macs:,}", "")
    return rows


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
