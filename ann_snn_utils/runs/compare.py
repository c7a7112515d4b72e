"""Results of many runs side by side: one row a run, seeds grouped into mean ± standard deviation.

What one parameter changes: settings that are the same in everything else, side by side.

What accuracy costs: a point for each setting and time step, with every run that it is the mean of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from ..data.dataset import SOURCE_OPTIONS
from ..measure.activity import SILENCE, STEPS
from ..tables import mean_and_deviation
from .folder import list_runs
from .outcome import (
    Outcome,
    chosen_runs,
    collected_outcomes,
    list_sweeps,
    local_outcome,
    part_of,
    row_of,
    with_differences,
)

READ_AT = tuple(f"T = {step}" for step in STEPS) + (SILENCE,)

ACCURACIES = ("ANN", "quantized", *READ_AT)

# Settings that can all be named in full before figures and tables are full of names.
MANY = 6

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
    return (
        outcome.parameters
        | named
        | {"code": None if None in codes or not codes else _digest(codes), "data": _digest(data) if data else None}
    )


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
    row |= {
        name: 100 * accuracy["snn"][step] for name, step in zip(READ_AT, at, strict=True) if step in accuracy["snn"]
    }
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


# Seeing that code or images differ too is the reader's matter: they stand in the table.
_SHOWN = ("code", "data")


def ablations(comparison: Comparison) -> dict[str, list[dict[str, Any]]]:
    """Give a table for each parameter that alone tells some settings apart, under a title that says the rest.

    A row is a setting: the parameter's value, n runs, mean ± standard deviation of every accuracy, mean cost.
    """
    told = [name for name in comparison.apart if len({repr(row.get(name)) for row in comparison.rows}) > 1]
    varied = [name for name in told if name not in _SHOWN]
    tables = {}
    for parameter in varied:
        rest = [name for name in varied if name != parameter]
        alike: dict[str, list[list[dict[str, Any]]]] = {}
        for rows in comparison.settings.values():
            alike.setdefault(repr([rows[0].get(name) for name in rest]), []).append(rows)
        for settings in alike.values():
            if len({repr(rows[0].get(parameter)) for rows in settings}) > 1:
                tables[_title(parameter, rest, settings[0][0])] = _table(parameter, told, settings)
    return tables


def neuron_forms(comparison: Comparison, steps: tuple[int, ...] = (1, 2, 4, 8)) -> list[dict[str, Any]]:
    """Give a row for each setting and form of neuron: the thresholds' forms, and the one without negative spikes.

    Accuracies in percent on the images that notebook 04 took for it, mean ± standard deviation over n runs.
    Runs that did not record it are left out.
    """
    table = []
    for setting, rows in comparison.settings.items():
        found: dict[str, list[list[float]]] = {}
        for row in rows:
            for form, curve in _forms(comparison.outcomes[row["run"]].results).items():
                found.setdefault(form, []).append(curve)
        for form, curves in found.items():
            at = {t: [100 * curve[t - 1] for curve in curves if len(curve) >= t] for t in steps}
            reached = {f"T = {t}": mean_and_deviation(values) for t, values in at.items() if values}
            table.append({"setting": setting, "neuron": form, "n": len(curves), **reached})
    return table


def _forms(results: dict[str, Any]) -> dict[str, list[float]]:
    by_form = results.get("accuracy_by_thresholds")
    named = {f"{form} thresholds": curve for form, curve in (by_form if isinstance(by_form, dict) else {}).items()}
    named["without negative spikes"] = results.get("accuracy_without_negative_spikes")
    return {form: curve for form, curve in named.items() if isinstance(curve, list) and curve}


def _title(parameter: str, rest: list[str], row: dict[str, Any]) -> str:
    fixed = ", ".join(f"{name} = {row.get(name)}" for name in rest)
    return f"{parameter}, with {fixed}" if fixed else parameter


def _table(parameter: str, told: list[str], settings: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    shown = [parameter, *(name for name in _SHOWN if name in told)]
    rows = [{name: members[0].get(name) for name in shown} | spread(members) for members in settings]
    return sorted(rows, key=lambda row: _order(row[parameter]))


def _order(value: Any) -> tuple[bool, float, str]:
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if is_number else 0.0, str(value)


def cost_points(comparison: Comparison, quantity: str = "energy") -> list[dict[str, Any]]:
    """Give a point for each setting and step of STEPS before silence, and at silence, setting after setting.

    quantity: "energy" (picojoules a sample) or "sops". A point: group (the setting's name), name (the step),
    accuracy (fraction) and cost, means over its runs, and runs, a pair of cost and accuracy for each.
    """
    points = []
    for setting, rows in comparison.settings.items():
        results = [comparison.outcomes[row["run"]].results for row in rows]
        accuracies = [result["accuracy_over_time"] for result in results]
        costs = [result.get(f"{quantity}_over_time") for result in results]
        last = max(map(len, accuracies))
        for step in (step for step in STEPS if step < last and all(costs)):
            pairs = [(_at(cost, step), _at(curve, step)) for cost, curve in zip(costs, accuracies, strict=True)]
            points.append(_point(setting, f"T = {step}", pairs))
        at_silence = [
            result["energy_pj"]["snn"] if quantity == "energy" else result["sops_per_sample"] for result in results
        ]
        pairs = [(cost, curve[-1]) for cost, curve in zip(at_silence, accuracies, strict=True)]
        points.append(_point(setting, SILENCE, pairs))
    return points


def _at(curve: list[float], step: int) -> float:
    return curve[min(step, len(curve)) - 1]


def _point(setting: str, name: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    cost, accuracy = (mean(values) for values in zip(*pairs, strict=True))
    return {"group": setting, "name": name, "cost": cost, "accuracy": accuracy, "runs": pairs}
