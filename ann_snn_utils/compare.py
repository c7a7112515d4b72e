"""Results of many runs side by side: one row a run, seeds grouped into mean ± standard deviation."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean, stdev

from .artifacts import load_json
from .runs import list_runs, runs_root

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


def all_results() -> dict[str, dict]:
    """Give the results.json of every run that has one, by the run's name; ValueError names a damaged one."""
    paths = {run: runs_root() / run / "results.json" for run in list_runs()}
    found = {run: load_json(path) for run, path in paths.items() if path.is_file()}
    for run, result in found.items():
        try:
            markdown_table(grouped(rows([result])))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise ValueError(
                f"{paths[run]} is not complete ({error!r:.200}): run notebook 04_spike_analysis again"
            ) from None
    return found


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


def grouped(table: list[dict]) -> list[dict]:
    """Give one row for each setting: n seeds, and mean ± standard deviation of every accuracy (percent)."""
    groups: dict[tuple, list[dict]] = {}
    for row in table:
        groups.setdefault(tuple(row[name] for name in SETTING), []).append(row)
    result = []
    for members in groups.values():
        row = {name: members[0][name] for name in SETTING} | {"n": len(members)}
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
