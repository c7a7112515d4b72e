"""The table of the README: every setting's results on the test set beside those of the published system."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ..ann.notation import NETWORKS
from ..data.dataset import NAMES
from ..measure.activity import SILENCE
from ..tables import markdown_table
from .compare import Comparison, compare, held_out, spread
from .outcome import Outcome

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

COPIES = {"cifar10-jpeg": "cifar10"}

LABELS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar10-jpeg": "CIFAR-10, JPEG copies",
}

_SHOWN_AT = {f"T = {step}": f"SNN, T = {step}" for step in (1, 2, 4, 8)} | {SILENCE: "SNN at silence"}

COLUMNS = (
    "data set",
    "network",
    "setting",
    "n",
    "epochs",
    "full-precision ANN",
    "quantized ANN",
    *_SHOWN_AT.values(),
    "mismatches",
    "published",
)

_TRAINING = ("01_train_ann", "02_quantize")

# They are columns of their own, or say which run it is.
_TOLD = {"run", "dataset", "network", "k", "ternary", "seed", "ann_epochs", "qann_epochs"}

# They change only what else is recorded.
_ASIDE = {"max_levels", "published_samples", "robustness_samples", "time_steps"}


def published(dataset: str, network: str) -> Mapping[str, Any] | None:
    """Give the published results for a data set (or copies of it) and a network in notation, None where none."""
    wanted = COPIES.get(dataset, dataset), network
    found = [entry for entry in PUBLISHED if (entry["dataset"], entry["network"]) == wanted]
    return found[0] if found else None


def published_beside(comparison: Comparison) -> dict[str, Mapping[str, Any]]:
    """Give setting → published results, for the settings whose network and data set have any."""
    first = {setting: rows[0] for setting, rows in comparison.settings.items()}
    found = {setting: published(row["dataset"], row["network"]) for setting, row in first.items()}
    return {setting: entry for setting, entry in found.items() if entry}


def heading(dataset: str) -> str:
    """Give the name of a data set as it stands above a figure."""
    return LABELS.get(dataset, dataset) + (" (published: original images)" if dataset in COPIES else "")


def on_test_set(outcomes: Mapping[str, Outcome]) -> dict[str, Outcome]:
    """Give the runs on undisturbed test images; choices made on held-out training images do not belong there."""
    return {
        run: outcome
        for run, outcome in outcomes.items()
        if outcome.results["undisturbed"] and not held_out(outcome)
    }


def results_table(outcomes: Mapping[str, Outcome]) -> str:
    """Give the settings of these runs on the test set as a Markdown table; accuracies in percent.

    Seeds of one setting make one row, which says where they were run with several versions of the code.
    """
    comparison = compare(on_test_set(outcomes))
    if not comparison.rows:
        return "no results on a test set yet: `ann-snn collect` keeps those of a run"
    found: dict[tuple, list[dict[str, Any]]] = {}
    for row in comparison.rows:
        found.setdefault(_order(row, comparison), []).append(row)
    rows = [_row(found[order], comparison) for order in sorted(found)]
    alike = Counter(order[:-1] for order in found)
    for order, row in zip(sorted(found), rows, strict=True):
        # Told only where nothing else tells two rows apart.
        if alike[order[:-1]] > 1:
            row["setting"] += f", images {order[-1]}"
    return markdown_table(rows, COLUMNS)


def _order(row: Mapping[str, Any], comparison: Comparison) -> tuple:
    """Give what runs of one row have in common, in the order of the table: what was published stands first."""
    dataset, network = row["dataset"], row["network"]
    place = NAMES.index(dataset) if dataset in NAMES else len(NAMES)
    epochs = _epochs(comparison.outcomes[row["run"]])
    return (
        published(dataset, network) is None,
        place,
        dataset,
        network,
        _setting(row, comparison),
        epochs,
        str(row["data"]),
    )


def _row(members: list[dict[str, Any]], comparison: Comparison) -> dict[str, Any]:
    first, values = members[0], spread(members)
    dataset, network, codes = first["dataset"], first["network"], {str(member["code"]) for member in members}
    neurons = [member["neurons"] for member in members if isinstance(member["neurons"], int)]
    of = f" of {sum(neurons):,}" if len(neurons) == len(members) else ""
    versions = f" ({len(codes)} versions of the code)" if len(codes) > 1 else ""
    return (
        {shown: values.get(name) for name, shown in _SHOWN_AT.items()}
        | _beside(first)
        | {
            "data set": LABELS.get(dataset, dataset),
            "network": next((name for name, (notation, _) in NETWORKS.items() if notation == network), network),
            "setting": _setting(first, comparison),
            "n": f"{values['n']}{versions}",
            "epochs": _epochs(comparison.outcomes[first["run"]]),
            "full-precision ANN": values["ANN"],
            "quantized ANN": values["quantized"],
            "mismatches": f"{values['mismatches']:,}{of}",
        }
    )


def _setting(row: Mapping[str, Any], comparison: Comparison) -> str:
    parts = [f"k = {row.get('k')}", "ternary" if row.get("ternary") else "int8"]
    for name, value in comparison.outcomes[row["run"]].unusual.items():
        if name not in _TOLD and not name.endswith(".seed") and name not in _ASIDE:
            parts.append(f"{name} = {value}")
    return ", ".join(parts)


def _epochs(outcome: Outcome) -> str:
    stages = (outcome.stages.get(stem) for stem in _TRAINING)
    histories = [stage.metrics.get("history") if stage else None for stage in stages]
    return " + ".join(str(len(history)) if isinstance(history, list) else "?" for history in histories)


def _beside(row: Mapping[str, Any]) -> dict[str, str]:
    found = published(row["dataset"], row["network"])
    if found is None or row.get("k") != 0 or not row.get("ternary"):
        return {}
    note = ", original images" if row["dataset"] in COPIES else ""
    reached = f"ANN {100 * found['ann']:.2f}, SNN {100 * found['snn']:.2f} at T = {found['time_steps']}"
    return {"published": reached + note}
