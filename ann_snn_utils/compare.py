"""Results of many runs side by side: one row a run, seeds grouped into mean ± standard deviation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from statistics import mean, stdev

from .artifacts import load_json
from .manifest import read_manifest
from .run_table import parameters_of_run, run_row, with_differences
from .runs import runs_root
from .sweep_file import chosen_runs

# Zou et al., Frontiers in Neuroscience 18:1449020, 2024, k = 0, 200 epochs.
PUBLISHED = (
    {"dataset": "mnist", "network": "32C5-P2-64C5-P2-1000", "ann": 0.9945, "snn": 0.9945, "time_steps": 4},
    {
        "dataset": "cifar10",
        "network": "96C3-256C3-P2-384C3-P2-384C3-256C3-P2-1024-1024",
        "ann": 0.9332,
        "snn": 0.9315,
        "time_steps": 8,
    },
)
SETTING = ("dataset", "network", "k", "ternary", "int8_ends", "clip", "levels")
STEPS = ("1", "2", "4", "8", "silence")


def all_results(selection: str = "") -> dict[str, dict]:
    """Give the results.json of every run that has one, by the run's name; selection: as in `chosen_runs`.

    Raises ValueError that names a damaged one.
    """
    paths = {run: runs_root() / run / "results.json" for run in chosen_runs(selection)}
    found = {run: load_json(path) for run, path in paths.items() if path.is_file()}
    for run, result in found.items():
        try:
            markdown_table(grouped(rows([result])))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ValueError(
                f"{paths[run]} is not complete ({error!r:.200}): run notebook 04_spike_analysis again"
            ) from None
    return found


def origin(run: str) -> dict[str, object]:
    """Give what a run's results come from: its parameters, and short digests of its code and its data.

    A digest is None where the run does not tell it.
    """
    manifest = read_manifest(runs_root() / run)
    codes = [stage.get("request", {}).get("code") for stage in manifest["stages"].values()]
    data = [stage["metrics"].get("data") for stage in manifest["stages"].values() if stage["metrics"].get("data")]
    return parameters_of_run(manifest) | {
        "code": None if None in codes or not codes else _digest(codes), "data": _digest(data) if data else None
    }  # fmt: skip


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def settings(runs: Iterable[str]) -> list[str]:
    """Give what tells runs apart, beside the seed: data set, network, k, and all else that is not the same.

    Code counts among it, and data where runs of one data set have other images.
    """
    origins = [origin(run) for run in runs]
    apart = ("run", "seed", "code", "data")
    names = dict.fromkeys(name for found in origins for name in found if name not in apart)
    sources: dict[object, set] = {}
    for found in origins:
        sources.setdefault(tuple(found.get(n) for n in ("dataset", "size", "limit")), set()).add(found["data"])
    names |= dict.fromkeys(["code", "data"] if any(len(s) > 1 for s in sources.values()) else ["code"])
    varied = [name for name in names if len({repr(found.get(name)) for found in origins}) > 1]
    return list(dict.fromkeys(["dataset", "network", "k", *varied]))


def mixed(runs: Iterable[str]) -> list[str]:
    """Give a line for each run that was made with other code or data than most of these."""
    described = with_differences([run_row(run) for run in runs])
    return [f"{row['run']}: other {row['mixed']} than most runs" for row in described if row["mixed"]]


def rows(results: Iterable[dict]) -> list[dict]:
    """Give one flat row for each results.json: its setting, seed, accuracies in percent, spikes and SOPs."""
    table = []
    for result in results:
        accuracy = result["accuracy"]
        row = {name: result.get(name) for name in (*SETTING, "seed", "samples")}
        row |= {"ANN": 100 * accuracy["ann"], "quantized": 100 * accuracy["qann"]}
        reached = {t: 100 * accuracy["snn"][t] for t in STEPS if t in accuracy["snn"]}
        row |= {f"T = {t}" if t != "silence" else t: percent for t, percent in reached.items()}
        row |= {"mismatches": result["mismatches"], "spikes": result["spikes_per_sample"]}
        row |= {"SOPs": result["sops_per_sample"]}
        table.append(row)
    return table


def groups(table: list[dict], by: Iterable[str]) -> dict[str, list[dict]]:
    """Give the rows that agree in all of `by`, under a name made of those that differ, such as k=0.

    Where none differs the name is "all runs", or that of the only run.
    """
    by = list(by)
    told = [name for name in by if len({repr(row.get(name)) for row in table}) > 1]
    found: dict[tuple, list[dict]] = {}
    for row in table:
        found.setdefault(tuple(row.get(name) for name in by), []).append(row)
    if not told:
        return {table[0].get("run", "all runs") if len(table) == 1 else "all runs": table} if table else {}
    return {" ".join(f"{name}={rows[0].get(name)}" for name in told): rows for rows in found.values()}


def mean_curve(curves: list[list[float]]) -> list[float]:
    """Give the mean of accuracies over time; one that has settled keeps its last value."""
    longest = max(map(len, curves))
    return [mean(curve[min(step, len(curve) - 1)] for curve in curves) for step in range(longest)]


def grouped(table: list[dict], by: Iterable[str] = SETTING) -> list[dict]:
    """Give one row for each setting: n seeds, and mean ± standard deviation of every accuracy (percent)."""
    by = list(by)
    result = []
    for members in groups(table, by).values():
        row = {name: members[0].get(name) for name in by} | {"n": len(members)}
        for name in ("ANN", "quantized", *(f"T = {t}" for t in STEPS[:-1]), "silence"):
            values = [member[name] for member in members if name in member]
            if values:
                spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
                row[name] = f"{mean(values):.2f}{spread}"
        result.append(row)
    return result


def markdown_table(table: list[dict], columns: Iterable[str] | None = None) -> str:
    """Give the rows as a Markdown table; numbers with at most two decimals, large ones with separators."""
    names = list(columns or dict.fromkeys(name for row in table for name in row))
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in table:
        lines.append("| " + " | ".join(_text(row.get(name)) for name in names) + " |")
    return "\n".join(lines)


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
