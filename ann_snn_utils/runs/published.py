"""What results stand beside: the published system's, and those of the networks that come with the project.

And the results of all collected runs as Markdown: the short table of the README, and the page in data/results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..ann.notation import NETWORKS
from ..ann.store import list_pretrained
from ..measure.activity import SILENCE
from ..tables import markdown_table
from .compare import baseline_of, by_setting, compare, describe, in_words, neuron_forms, setting_of
from .results import RECORDED, RunResult, bundled_runs, collected_results, read_collected, results_root

# Zou et al., Frontiers in Neuroscience 18:1449020, 2024, k = 0, 200 epochs.
PUBLISHED = (
    {"dataset": "mnist", "network": NETWORKS["lenet"][0], "ann": 0.9945, "snn": 0.9945, "time_steps": 4},
    {"dataset": "cifar10", "network": NETWORKS["vgg"][0], "ann": 0.9332, "snn": 0.9315, "time_steps": 8},
)

_LABELS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}

MOST_ROWS = 8

# What of a setting changes the spiking network, and which images it is shown; the rest is how it was trained.
_FORM = ("k", "ternary", "levels", "clip", "int8_ends", "size", "crop", "limit", "samples")


def published(dataset: str, network: str) -> Mapping[str, Any] | None:
    """The published results for a data set and a network in notation, None where none."""
    wanted = dataset, network
    return next((entry for entry in PUBLISHED if (entry["dataset"], entry["network"]) == wanted), None)


def label(dataset: str) -> str:
    """The name of a data set as it stands above a table or a figure."""
    return _LABELS.get(dataset, dataset)


def published_point(found: Mapping[str, RunResult]) -> tuple[int, float] | None:
    """Time steps and accuracy (a fraction) of the published system where it ran one of these runs' networks."""
    entries = (published(one.results["dataset"], one.results["network"]) for one in found.values())
    return next(((entry["time_steps"], entry["snn"]) for entry in entries if entry), None)


def on_test_set(found: Mapping[str, RunResult]) -> dict[str, RunResult]:
    """The runs on undisturbed test images; choices made on held-out training images do not belong there."""
    return {run: one for run, one in found.items() if one.results["undisturbed"] and not one.held_out}


def by_dataset(found: Mapping[str, RunResult]) -> dict[str, dict[str, RunResult]]:
    """Data set → its runs; data sets with published results first, then those with more test images."""
    sets: dict[str, dict[str, RunResult]] = {}
    for run, one in found.items():
        sets.setdefault(one.results["dataset"], {})[run] = one

    first = [entry["dataset"] for entry in PUBLISHED]

    def place(dataset: str) -> tuple[int, int, str]:
        images = max(one.results["samples"] for one in sets[dataset].values())
        return first.index(dataset) if dataset in first else len(first), -images, dataset

    return {dataset: sets[dataset] for dataset in sorted(sets, key=place)}


def recorded_in(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a bundled network's metadata record, in the form of results.json.

    They must hold samples, correct, mismatches and neurons, and may hold ann_correct, snn_correct (by time step
    and "silence"), spikes_per_sample, sops_per_sample and more. ValueError where they do not.
    """
    try:
        samples, right = metadata["samples"], metadata.get("snn_correct", {})
        correct = {"ann": metadata["ann_correct"]} if "ann_correct" in metadata else {}
        correct |= {"qann": metadata["correct"]}
        accuracy = {name: count / samples for name, count in correct.items()}
        accuracy |= {"snn": {step: count / samples for step, count in right.items()}}
        found = {name: metadata[name] for name in RECORDED if name in metadata}
        found |= {"samples": samples, "correct": correct | {"snn": right}, "accuracy": accuracy}
        # The sum with 0 raises TypeError for what is no number, as the divisions above do.
        found |= {name: metadata[name] + 0 for name in ("mismatches", "neurons")}
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        said = f"{error!r:.200}"
        raise ValueError(f"the network's metadata record no results ({said}): restore it from git") from None
    return found


def bundled_beside(dataset: str, network: str) -> tuple[str, dict[str, Any]] | None:
    """The name and results of the first bundled network for a data set, of the same architecture if there is one.

    Its results are those of the run that it was made in, where they are collected, else what is recorded with it.
    """
    entries = {n: e for n, e in list_pretrained().items() if e.get("source", {}).get("name") == dataset}
    same = [name for name, entry in entries.items() if entry["spec"]["network"] == network]
    for name in same or entries:
        run = results_root() / f"{entries[name].get('run')}.json"
        return name, read_collected(run).results if run.is_file() else recorded_in(entries[name])
    return None


def _soonest(frame: pd.DataFrame) -> str:
    """The setting whose last spike comes first; of several, the one nearest to the baseline."""
    return str(frame.groupby("setting", sort=False)["last spike"].max().astype(float).fillna(math.inf).idxmin())


def main_results(found: Mapping[str, RunResult]) -> pd.DataFrame:
    """The main results on test sets, at most `MOST_ROWS` rows: accuracies in percent, mean ± deviation over seeds.

    Of a data set's first network, which is the published one where there is one: the settings of the bundled
    networks, or else the baseline, and the setting that falls silent soonest; of its others the bundled setting
    with the most seeds. Networks of which none is bundled are left out where another one of the data set is. No row
    is chosen by its accuracy.
    """
    tested, bundled = on_test_set(found), bundled_runs()
    rows = []
    for dataset, members in by_dataset(tested).items():
        networks = [one.results["network"] for run, one in members.items() if run in bundled]
        networks = networks or [one.results["network"] for one in members.values()]
        first, *others = dict.fromkeys(sorted(networks, key=lambda network: not published(dataset, network)))
        for network in (first, *others):
            own = {run: one for run, one in members.items() if one.results["network"] == network}
            frame = compare(own)
            main = list(dict.fromkeys(frame.loc[[run for run in frame.index if run in bundled], "setting"]))
            main, table = main or ["baseline"], by_setting(frame)
            seeds = frame.groupby("setting")["seed"].nunique()
            chosen = [*main, _soonest(frame)] if network == first else [max(main, key=seeds.__getitem__)]
            for setting in dict.fromkeys(chosen):
                run, reached = own[frame.index[frame.setting == setting][0]], table.loc[setting]
                made = setting_of(run)
                row = {"images, network": f"{label(dataset)}, {in_words('network', made['network'])}"}
                row |= {"setting": describe(made, _FORM), "epochs": made["epochs"]}
                row |= {"seeds": reached["runs"], "ANN": reached["ANN"]}
                row |= {f"SNN, {at}": reached[at] for at in ("T = 1", "T = 2", "T = 4")}
                rows.append(row | {"SNN at silence": reached[SILENCE], "published": _beside(run)})
    return pd.DataFrame(rows[:MOST_ROWS])


def main_table(found: Mapping[str, RunResult] | None = None, columns: Sequence[str] | None = None) -> str:
    """The main results as the README's Markdown table, and below it how many codes were compared.

    columns: those of `main_results` to show; all where left out.
    """
    tested = on_test_set(collected_results() if found is None else found)
    rows = main_results(tested)
    if rows.empty:
        return "no results on a test set yet: `ann-snn collect` keeps those of a run"
    return f"{markdown_table(rows.to_dict('records'), columns)}\n\n{_codes(tested)}"


def _codes(found: Mapping[str, RunResult]) -> str:
    wrong = sum(one.results["mismatches"] for one in found.values())
    compared = sum(one.results.get("neurons") or 0 for one in found.values())
    counts = f"{wrong:,} of {compared:,} counts at silence"
    runs = "one run on a test set" if len(found) == 1 else f"all {len(found)} runs on test sets"
    return f"Over {runs}, {counts} differ from the quantized network's codes."


def _beside(run: RunResult) -> str:
    found, setting = published(run.results["dataset"], run.results["network"]), setting_of(run)
    if found is None or setting["k"] != 0 or not setting["ternary"]:
        return "–"
    return f"{100 * found['snn']:.2f} at T = {found['time_steps']}"


def all_results(found: Mapping[str, RunResult] | None = None) -> str:
    """Every collected setting as a Markdown page, data set after data set, in percent of the test images."""
    collected = collected_results() if found is None else found
    tested = on_test_set(collected)
    parts = [
        "# All collected results",
        "`ann-snn table --all` prints this page from the files beside it, which hold every run's raw numbers, "
        "parameters and training history. Accuracies on test images in percent, mean ± standard deviation over the "
        "runs of a setting; settings are named by what they have other than the baseline; epochs: full precision "
        "+ quantized; last spike: the latest step in which any image's network still fired, of all runs. Published "
        "results: Zou et al. 2024, 200 epochs, real-valued first and last layer.",
        _codes(tested),
    ]
    for dataset, members in by_dataset(tested).items():
        parts += [f"## {label(dataset)}", *_page_of(members)]
        for network in dict.fromkeys(one.results["network"] for one in members.values()):
            if entry := published(dataset, network):
                reached = f"ANN {100 * entry['ann']:.2f}, SNN {100 * entry['snn']:.2f} at T = {entry['time_steps']}"
                parts.append(f"Published for `{network}`: {reached}.")
    choices = {run: one for run, one in collected.items() if one.held_out and one.results["undisturbed"]}
    if choices:
        note = "Made on training images that were held out, never on a test set. These numbers are no results."
        parts += ["## Choices", note]
        for dataset, members in by_dataset(choices).items():
            parts += [f"### {label(dataset)}", *_page_of(members, forms=False)]
    return "\n\n".join(parts) + "\n"


def _page_of(members: Mapping[str, RunResult], forms: bool = True) -> list[str]:
    frame = compare(members)
    table = by_setting(frame)
    table.insert(1, "epochs", frame.groupby("setting", sort=False)["epochs"].first())
    named = [f"T = {step}" for step in (1, 2, 4, 8)]
    columns = ["runs", "epochs", "ANN", "quantized", *named, SILENCE, "last spike", "SOPs", "µJ", "mismatches"]
    table["last spike"] = table["last spike"].map(lambda step: "–" if pd.isna(step) else f"{step:.0f}")
    text = markdown_table(table[columns].reset_index().to_dict("records"))
    parts = [f"Baseline: {describe(baseline_of(members))}.", text]
    if forms and len(other := neuron_forms(members, frame)):
        note = "The same networks with other forms of thresholds, and without spikes that are taken back, on the "
        parts += [f"{note}images that notebook 04 takes for it:", markdown_table(other.to_dict("records"))]
    return parts
