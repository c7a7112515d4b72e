"""What runs reached, in a notebook and in a terminal: the card of one run, the table of settings, a list of runs.

The card sets a run beside the network that comes with the project and the published system; the table sets its
setting among those of its data set. Notebook 06 shows both as DataFrames, `ann-snn study` prints them last.
"""

from __future__ import annotations

import base64
import html
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from IPython.display import HTML

from ..ann.notation import title_of
from ..ann.store import BUNDLED, list_pretrained
from ..measure.activity import SILENCE
from ..measure.verdict import TITLES
from ..tables import aligned, cell
from .compare import CURVES, baseline_of, by_setting, compare, describe, neuron_forms
from .folder import RESULTS_FILE, SNN_FILE, TRIALS, check_run_name, list_runs, recorded_last, run_folder, runs_root
from .gallery import bundled_name, network_names
from .manifest import MARK, mark_of, read_manifest
from .published import bundled_beside, by_dataset, label, on_test_set, published
from .results import (
    RunResult,
    bundled_runs,
    collected_results,
    is_altered,
    load_results,
    local_result,
    outdated,
    result_in,
)
from .sweeps import RESULT_COLUMNS, result_cells

MOST_SETTINGS = 8


def card(columns: Mapping[str, Mapping[str, Any]], counts: bool = False) -> pd.DataFrame:
    """Results beside each other, a column of text for each, "–" for what one does not tell.

    columns: heading → results in the form of results.json, of which any part may be missing; of a spiking
    network's accuracies, the steps in any of them are rows. counts: tell right answers and images too.
    Raises LookupError, TypeError or ValueError for what is no such results.
    """
    steps = {step for results in columns.values() for step in results.get("accuracy", {}).get("snn", {})}
    ordered = sorted(steps, key=lambda step: (step == SILENCE, int(step) if step.isdigit() else 0, step))
    frame = pd.DataFrame({name: _card_column(results, ordered, counts) for name, results in columns.items()})
    return frame[(frame != "–").any(axis=1)]


def _card_column(results: Mapping[str, Any], steps: Iterable[str], counts: bool) -> pd.Series:
    told = results.get("accuracy", {}), results.get("correct", {})
    shares, right = ({**of_anns, **of_anns.get("snn", {})} for of_anns in told)

    def scored(name: str) -> str:
        if name not in shares:
            return "–"
        images = f" ({right[name]:,} of {results['samples']:,})" if counts and name in right else ""
        return f"{100 * shares[name]:.2f} %{images}"

    rows = {"full-precision ANN": scored("ann"), "quantized ANN": scored("qann")}
    rows |= {step_label(step): scored(step) for step in steps}
    last, average = results.get("silence_step"), results.get("mean_settling_step")
    rows["last step with a spike"] = cell(last) + (f" (mean {average:.1f})" if average else "")
    macs = results.get("macs_per_sample")
    for row, name in (("spikes per image", "spikes"), ("SOPs per image", "sops")):
        value = results.get(f"{name}_per_sample")
        rows[row] = "–" if value is None else f"{value:,.0f}"
    if macs and "sops_per_sample" in results:
        rows["SOPs per image"] += f" ({results['sops_per_sample'] / macs:.2f} per MAC)"
    energy = results.get("energy_pj", {})
    rows["energy per image"] = f"{energy['snn'] / 1e6:.3f} µJ" if "snn" in energy else "–"
    if "int8" in energy:
        rows["energy per image"] += f" (int8 ANN {energy['int8'] / 1e6:.3f})"
    by_model = results.get("energy_by_model") or {}
    for model in ("lemaire", "yan"):
        spent = by_model.get(model)
        energies = f"{spent['snn'] / 1e6:,.2f} µJ (int8 ANN {spent['int8'] / 1e6:,.2f})" if spent else "–"
        rows[f"with memory, {TITLES[model]}"] = energies
    of = f" of {results['neurons']:,}" if results.get("neurons") else ""
    rows["code mismatches"] = cell(results.get("mismatches")) + of
    return pd.Series(rows)


def step_label(step: str) -> str:
    """What a spiking network's accuracy at a time step, or at silence, is called on a card."""
    return "SNN at silence" if step == SILENCE else f"SNN, T = {step}"


def card_of(result: RunResult, other: RunResult | None = None) -> pd.DataFrame:
    """The card of a run: its results beside another run's, a bundled network's and the published system's, if any.

    A bundled network whose results are the run's very own, as of the run that it was made in, has no column.
    """
    dataset, network = result.results["dataset"], result.results["network"]
    disturbed = "" if result.results["undisturbed"] else " (disturbed)"
    columns = {f"this run, {result.run}{disturbed}": result.results} | ({other.run: other.results} if other else {})
    if (beside := bundled_beside(dataset, network)) and beside[1] != result.results:
        columns[f"bundled {beside[0]}"] = beside[1]
    if entry := published(dataset, network):
        shares = {"ann": entry["ann"], "snn": {str(entry["time_steps"]): entry["snn"]}}
        columns["published"] = {"accuracy": shares}
    frame = card(columns)
    # All steps are in notebook 04; here are those that decide.
    told = [f"SNN, T = {step}" for step in (1, 2, 4, *([entry["time_steps"]] if entry else []))]
    return frame[[not name.startswith("SNN, T") or name in told for name in frame.index]]


def settings_table(frame: pd.DataFrame, run: str = "") -> pd.DataFrame:
    """The settings of `compare`'s frame as text, indexed by name: those nearest to the baseline, and that of `run`.

    At most `MOST_SETTINGS`. Accuracies in percent, mean ± standard deviation over the runs; energy of one image.
    """
    table = by_setting(frame)
    own = frame.setting.get(run)
    chosen = list(table.index)[:MOST_SETTINGS]
    if own is not None and own not in chosen:
        chosen[-1:] = [own]
    columns = ["runs", "T = 1", "T = 2", "T = 4", SILENCE, "µJ"]
    shown = table.loc[chosen, columns].map(cell)
    shown.columns = shown.columns.str.replace(" ", "\N{NO-BREAK SPACE}")
    return shown.rename(index={own: f"{own} (this run)"}).rename_axis(None)


def select(
    run: str = "", dataset: str = "", sweep: str = ""
) -> tuple[RunResult, dict[str, dict[str, RunResult]], dict[str, RunResult]]:
    """The run on the card, data set → the runs to compare, and the choices among them made on held-out images.

    run: empty for the latest. dataset: empty for that of the run, or all those of a sweep. sweep: its name, or
    names of runs separated by commas; empty for all runs but those that were disturbed on purpose. Raises
    FileNotFoundError for what is not there, ValueError where nothing is left.
    """
    # papermill's -p makes a number of a name that looks like one.
    run, dataset, sweep = map(str, (run, dataset, sweep))
    found = {name: one for name, one in load_results(sweep).items() if sweep or one.results["undisturbed"]}
    found = {name: one for name, one in found.items() if dataset in ("", one.results["dataset"])}
    if not found:
        asked = " ".join(f"{n}={v!r}" for n, v in (("dataset", dataset), ("sweep", sweep)) if v) or "no choice"
        raise ValueError(f"{asked}: no such run has finished notebook 04 yet; run `ann-snn study` first")
    this = find_result(found, run)
    tested = {name: one for name, one in found.items() if not one.held_out}
    chosen = dataset or ("" if sweep else this.results["dataset"])
    datasets = {name: own for name, own in by_dataset(tested).items() if chosen in ("", name)}
    return this, datasets, {name: one for name, one in found.items() if one.held_out}


def find_result(found: Mapping[str, RunResult], run: str = "") -> RunResult:
    """The result of a run; without a name of the latest one among these, else a bundled network's, else the first.

    Raises FileNotFoundError where there is no such run, ValueError where it has no results yet.
    """
    if run := str(run):
        # Not by `load_results`: a sweep may have the name of a run.
        if result := found.get(run) or local_result(check_run_name(run)) or collected_results().get(run):
            return result
        run_folder(run)
        raise ValueError(f"run={run!r} has no results yet: run notebook 04_spike_analysis first")
    latest = recorded_last(name for name in list_runs() if name in found)
    likely = (latest, *bundled_runs(), *on_test_set(found))
    return found[next((name for name in likely if name in found), min(found))]


def folded(title: str, frame: pd.DataFrame) -> HTML:
    """A table under a line that opens it, which scrolls by itself where it is wider than the page."""
    table = frame.map(cell).to_html(border=0)
    summary = f"<summary><b>{html.escape(title)}</b></summary>"
    return HTML(f'<details>{summary}<div style="overflow-x: auto">{table}</div></details>')


def csv_link(frame: pd.DataFrame, name: str) -> HTML:
    """A link to the table as a CSV file that is part of the page; nothing is written on this machine."""
    data = base64.b64encode(frame.to_csv().encode()).decode()
    return HTML(f'<a download="{html.escape(name)}" href="data:text/csv;base64,{data}">{html.escape(name)}</a>')


def full_tables(
    datasets: Mapping[str, Mapping[str, RunResult]], choices: Mapping[str, RunResult]
) -> Iterator[HTML]:
    """Every setting and every run of each data set, folded, its CSV file, and the choices on held-out images."""
    for name, found in datasets.items():
        frame = compare(found)
        plain, forms = frame.drop(columns=list(CURVES)), neuron_forms(found, frame)
        yield folded(f"{label(name)}: all {frame.setting.nunique()} settings", by_setting(frame))
        yield folded(f"{label(name)}: all {len(frame)} runs", plain)
        if len(forms):
            yield folded(f"{label(name)}: other forms of thresholds, and no spike taken back", forms)
        yield csv_link(plain, f"{name}.csv")
    for name, found in by_dataset(choices).items():
        yield folded(f"{label(name)}: choices on held-out images, no results", by_setting(compare(found)))


def as_text(frame: pd.DataFrame) -> list[str]:
    """A table of text as aligned lines."""
    rows = [(name, *map(str, row)) for name, row in zip(frame.index, frame.to_numpy(), strict=True)]
    return aligned([(frame.index.name or "", *frame.columns), *rows])


def run_card(folder: str | os.PathLike[str]) -> str:
    """The card of a run's results as aligned text; whether they are outdated; how many trials lie beside them.

    Raises FileNotFoundError that names the notebook to run where results.json is missing, ValueError where it
    lacks an entry.
    """
    result = result_in(folder)
    remedy = "read files that have been made anew; run the study again"
    notes = [f"outdated: {name} {remedy}" for name in read_manifest(folder).stale_stages()]
    if is_altered(folder, result):
        notes.append(f"changed: {RESULTS_FILE} is not the file that was recorded; run the study again")
    if trials := len(list((Path(folder) / TRIALS).glob("*.json"))):
        notes.append(f"trials of this network under other settings, disturbed or not: {trials} in {TRIALS}/")
    results = result.results
    title = f"{result.run}: {results['dataset']}, {title_of(results['network'])}, k = {results.get('k')}"
    return "\n".join([title, *as_text(card_of(result)), *notes])


def run_report(folder: str | os.PathLike[str]) -> str:
    """The card of a run, and its setting among those of its data set. Raises as `run_card` does."""
    result = result_in(folder)
    dataset = result.results["dataset"]
    try:
        everything = load_results()
    except ValueError as error:
        # Another run's file is no reason to keep this one's results back.
        return f"{run_card(folder)}\n\nno settings beside it: {error}"
    found = {name: one for name, one in on_test_set(everything).items() if one.results["dataset"] == dataset}
    if result.run not in found or len(found) == 1:
        return run_card(folder)
    title = f"{label(dataset)}: settings beside each other (baseline: {describe(baseline_of(found))})"
    return "\n".join([run_card(folder), "", title, *as_text(settings_table(compare(found), result.run))])


def runs_table() -> str:
    """One line for each run: data set, accuracy of its networks, mismatches and spikes, or what is missing."""
    # One that stopped in its first stage has no manifest yet.
    if not (runs := sorted({*list_runs(), *list_runs(MARK)})):
        return f"no runs in {runs_root()} yet: `ann-snn study` makes one"
    rows: list[tuple[str, ...]] = [("run", "data set", *RESULT_COLUMNS)]
    for run in runs:
        if isinstance(result := _result_or_state(run), str):
            rows.append((run, result))
        else:
            rows.append((run, result.results["dataset"], *result_cells(result.results).values()))
    return "\n".join(aligned(rows))


def _result_or_state(run: str) -> RunResult | str:
    """A run's result, or in a few words what it has instead."""
    folder = run_folder(run)
    try:
        if result := local_result(run):
            stale = outdated(result.manifest)
            return f"outdated: what {stale[0]} read or made are other files now" if stale else result
        done = ", ".join(read_manifest(folder).stages) or "nothing"
    except ValueError as error:
        return f"damaged: {error}"
    mark = mark_of(folder)
    return f"no results yet; done: {done}" + (f"; {mark.state} in {mark.stage}" if mark else "")


def networks_table() -> str:
    """One line for each network that can be named, bundled ones first. Raises ValueError where there is none."""
    rows: list[tuple[str, ...]] = [("name", "data set", "network", "accuracy", "size")]
    for name, entry in list_pretrained().items():
        accuracy, size = 100 * entry["correct"] / entry["samples"], entry["bytes"] / 1e6
        source, network = entry["source"]["name"], title_of(entry["spec"]["network"])
        rows.append((f"{BUNDLED}{name}", source, network, f"{accuracy:.2f} %", f"{size:.1f} MB"))
    for run in (name for name in network_names() if not bundled_name(name)):
        size = (run_folder(run) / SNN_FILE).stat().st_size / 1e6
        if isinstance(result := _result_or_state(run), str):
            rows.append((run, result.partition(";")[0]))
            continue
        found, accuracy = result.results, 100 * result.results["accuracy"]["snn"][SILENCE]
        rows.append((run, found["dataset"], title_of(found["network"]), f"{accuracy:.2f} %", f"{size:.1f} MB"))
    if len(rows) == 1:
        raise ValueError(
            "no networks are here, neither bundled ones nor those of runs: work in a checkout of the project"
        )
    return "\n".join(aligned(rows))
