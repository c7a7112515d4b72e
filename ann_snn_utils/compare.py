"""Results of many runs side by side: one row a run, seeds grouped into mean ± standard deviation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from .outcome import Outcome, collected_outcomes, local_outcome
from .run_table import part_of, row_of, with_differences
from .runs import list_runs
from .spec import SOURCE_OPTIONS
from .summary import SILENCE, STEPS
from .sweep_file import chosen_runs, list_sweeps

READ_AT = tuple(f"T = {step}" for step in STEPS) + (SILENCE,)
ACCURACIES = ("ANN", "quantized", *READ_AT)
# Settings that can all be named in full before figures and tables are full of names.
MANY = 6
# A narrow column may break before the sign, and not behind it.
_SPACE = "\N{NO-BREAK SPACE}"
# What tells runs apart without being a setting of theirs, whichever stage was given it.
_APART = ("run", "seed", "code", "data")


def all_outcomes(selection: str = "") -> dict[str, Outcome]:
    """Give every run that has results, local or collected, by its name; a local run of the same name wins.

    selection: a sweep, or names of runs separated by commas; empty for all. Raises FileNotFoundError for a
    name that is neither, ValueError that names a damaged file.
    """
    collected = collected_outcomes()
    if not selection:
        names = sorted({*list_runs(), *collected})
    elif selection in list_sweeps():
        names = chosen_runs(selection)
    else:
        names = list(dict.fromkeys(name.strip() for name in selection.split(",") if name.strip()))
        if rest := [name for name in names if name not in collected]:
            chosen_runs(", ".join(rest))
    found = {name: local_outcome(name) or collected.get(name) for name in names}
    return {name: outcome for name, outcome in found.items() if outcome is not None}


def held_out(outcome: Outcome) -> int:
    """Give how many training images stood in for the test set; 0 for results on the test set itself."""
    value = outcome.parameters.get("held_out")
    return value if isinstance(value, int) else 0


def described(outcome: Outcome) -> dict[str, Any]:
    """Give what a run's results come from: its parameters, and short digests of its code and its data.

    A digest is None where the run does not tell it.
    """
    stages = outcome.stages.values()
    codes = [part_of(stage, "request").get("code") for stage in stages]
    data = [digests for stage in stages if (digests := part_of(stage, "metrics").get("data"))]
    named = {name: outcome.results[name] for name in ("dataset", "network")}
    return outcome.parameters | named | {
        "code": None if None in codes or not codes else _digest(codes), "data": _digest(data) if data else None
    }  # fmt: skip


def _digest(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side: a row for each, and the columns that tell their settings apart."""

    outcomes: Mapping[str, Outcome]
    rows: list[dict[str, Any]]
    apart: list[str]

    @property
    def settings(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each setting, under its name."""
        return groups(self.rows, self.apart)

    def curves(self, quantity: str = "accuracy") -> dict[str, list[list[float]]]:
        """Give `<quantity>_over_time` of every run of each setting; runs that did not record it are left out."""
        found = {
            name: [self.outcomes[row["run"]].results.get(f"{quantity}_over_time") for row in rows]
            for name, rows in self.settings.items()
        }
        return {name: [curve for curve in curves if curve] for name, curves in found.items() if any(curves)}

    def by_dataset(self) -> dict[str, Comparison]:
        """Give a comparison for each data set: accuracies on different images do not belong in one figure."""
        names = dict.fromkeys(row["dataset"] for row in self.rows)
        runs = {name: [row["run"] for row in self.rows if row["dataset"] == name] for name in names}
        return {name: compare({run: self.outcomes[run] for run in members}) for name, members in runs.items()}


def compare(outcomes: Mapping[str, Outcome]) -> Comparison:
    """Give these runs side by side."""
    origins = {run: described(outcome) for run, outcome in outcomes.items()}
    table = [{"run": run, **origins[run], **result_row(outcome.results)} for run, outcome in outcomes.items()]
    return Comparison(dict(outcomes), table, told_apart(origins.values()))


def told_apart(origins: Iterable[Mapping[str, Any]]) -> list[str]:
    """Give what tells runs apart, beside the seed: data set, network, k, and all else that is not the same.

    Code counts among it, and data where runs of one data set have other images.
    """
    origins = list(origins)
    names = dict.fromkeys(n for found in origins for n in found if n.rpartition(".")[2] not in _APART)
    sources: dict[object, set] = {}
    for found in origins:
        sources.setdefault(tuple(found.get(n) for n in ("dataset", *SOURCE_OPTIONS)), set()).add(found["data"])
    names |= dict.fromkeys(["code", "data"] if any(len(s) > 1 for s in sources.values()) else ["code"])
    varied = [name for name in names if len({repr(found.get(name)) for found in origins}) > 1]
    return list(dict.fromkeys(["dataset", "network", "k", *varied]))


def mixed(outcomes: Mapping[str, Outcome]) -> list[str]:
    """Give a line for each thing, code or images, in which some of these runs differ from most of them."""
    described = with_differences([row_of(run, found.manifest, found.results) for run, found in outcomes.items()])
    notes: dict[str, list[str]] = {}
    for row in described:
        if row["mixed"]:
            notes.setdefault(row["mixed"], []).append(row["run"])
    return [f"{', '.join(runs)}: other {note} than most runs" for note, runs in notes.items()]


def result_row(result: Mapping[str, Any]) -> dict[str, Any]:
    """Give one flat row for a results.json: accuracies in percent, what was settled, work and energy."""
    accuracy = result["accuracy"]
    row = {name: result.get(name) for name in ("dataset", "network", "samples")}
    row |= {"ANN": 100 * accuracy["ann"], "quantized": 100 * accuracy["qann"]}
    at = [*map(str, STEPS), SILENCE]
    row |= {name: 100 * accuracy["snn"][step] for name, step in zip(READ_AT, at, strict=True)
            if step in accuracy["snn"]}  # fmt: skip
    row |= {"mismatches": result["mismatches"], "neurons": result.get("neurons")}
    row |= {"spikes": result["spikes_per_sample"], "SOPs": result["sops_per_sample"]}
    return row | {"energy / µJ": result["energy_pj"]["snn"] / 1e6}


def groups(table: list[dict], by: Iterable[str]) -> dict[str, list[dict]]:
    """Give the rows that agree in all of `by`, under a name made of those that differ, such as k=0.

    Where none differs the name is "all runs", or that of the only run. Of more than `MANY` settings, the one
    that has most in common with the others is named in full, and these by what they have other than it.
    """
    by = list(by)
    told = [name for name in by if len({repr(row.get(name)) for row in table}) > 1]
    found: dict[str, list[dict]] = {}
    for row in table:
        found.setdefault(repr([row.get(name) for name in by]), []).append(row)
    if not told:
        return {table[0].get("run", "all runs") if len(table) == 1 else "all runs": table} if table else {}
    settings = [{name: rows[0].get(name) for name in told} for rows in found.values()]
    base = max(settings, key=lambda one: sum(repr(one[n]) == repr(other[n]) for other in settings for n in told))
    few = len(settings) <= MANY
    names = [[n for n in told if few or one is base or repr(one[n]) != repr(base[n])] for one in settings]
    return {
        " ".join(f"{name}={one[name]}" for name in shown): rows
        for one, shown, rows in zip(settings, names, found.values(), strict=True)
    }


def mean_curve(curves: list[list[float]]) -> list[float]:
    """Give the mean of values over time; one that has settled keeps its last value."""
    longest = max(map(len, curves))
    return [mean(curve[min(step, len(curve) - 1)] for curve in curves) for step in range(longest)]


def grouped(table: list[dict], by: Iterable[str]) -> list[dict]:
    """Give one row for each setting: n runs, mean ± standard deviation of every accuracy (percent), the cost."""
    by = list(by)
    return [{name: members[0].get(name) for name in by} | spread(members) for members in groups(table, by).values()]


def spread(members: list[dict]) -> dict[str, Any]:
    """Give n, mean ± sample standard deviation of the accuracies, and mean cost, of rows of one setting."""
    # A run that was made twice is no second seed.
    seeds = {repr([(n, v) for n, v in row.items() if n.endswith("seed")] or row.get("run")) for row in members}
    twice = len(seeds) < len(members)
    row: dict[str, Any] = {"n": f"{len(members)} ({len(seeds)} seeds)" if twice else len(members)}
    for name in ACCURACIES:
        values = [member[name] for member in members if name in member]
        if values:
            row[name] = mean_and_deviation(values)
    for name in ("spikes", "SOPs", "energy / µJ"):
        row[name] = mean(member[name] for member in members)
    return row | {"mismatches": sum(member["mismatches"] for member in members)}


def mean_and_deviation(values: list[float]) -> str:
    """Give mean ± sample standard deviation with two decimals; the mean alone of a single value."""
    return f"{mean(values):.2f}" + (f" ±{_SPACE}{stdev(values):.2f}" if len(values) > 1 else "")


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
