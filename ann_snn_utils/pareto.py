"""What accuracy costs: a point for each setting and time step, with every run that it is the mean of."""

from __future__ import annotations

from statistics import mean
from typing import Any

from .compare import Comparison
from .summary import SILENCE, STEPS


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
        at_silence = [result["energy_pj"]["snn"] if quantity == "energy" else result["sops_per_sample"]
                      for result in results]  # fmt: skip
        pairs = [(cost, curve[-1]) for cost, curve in zip(at_silence, accuracies, strict=True)]
        points.append(_point(setting, SILENCE, pairs))
    return points


def _at(curve: list[float], step: int) -> float:
    return curve[min(step, len(curve)) - 1]


def _point(setting: str, name: str, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    cost, accuracy = (mean(values) for values in zip(*pairs, strict=True))
    return {"group": setting, "name": name, "cost": cost, "accuracy": accuracy, "runs": pairs}
