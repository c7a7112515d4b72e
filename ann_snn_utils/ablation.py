"""What one parameter changes: settings that are the same in everything else, side by side."""

from __future__ import annotations

from typing import Any

from .compare import Comparison, mean_and_deviation, spread

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
