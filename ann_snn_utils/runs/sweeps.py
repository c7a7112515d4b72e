"""A row for each run: state, parameters, metrics, and where all of it came from; and a sweep's table of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ..data.dataset import SOURCE_OPTIONS
from ..files import atomic, load_json
from ..tables import aligned
from .folder import ARTIFACTS, RESULTS_FILE, read_sweep_file, runs_root, sweep_folder
from .manifest import Manifest, Mark, mark_of, read_for, read_manifest

TABLE_FILE = "results.csv"

# What tables of runs tell of their results: the heading, and the entry of results.json.
RESULT_COLUMNS = {
    "ANN %": "accuracy.ann",
    "QANN %": "accuracy.qann",
    "SNN %": "accuracy.snn.silence",
    "last spike": "silence_step",
    "mismatches": "mismatches",
    "spikes/image": "spikes_per_sample",
}

T = TypeVar("T")


def parameters_of_run(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Every parameter of a run's stages; one that stages disagree on has a column of each such stage."""
    found: dict[str, Any] = {}
    for stem, own in parameters.items():
        for name, value in own.items():
            if name != "run" and found.setdefault(name, value) != value:
                found[f"{stem}.{name}"] = value
    return found


def run_row(run: str, stages: Sequence[str] = ()) -> dict[str, Any]:
    """The row of a run, as `row_of` makes it; `stages` are those it should have."""
    folder = runs_root() / run
    path = folder / RESULTS_FILE
    manifest = read_for(RESULTS_FILE, folder)
    results = load_json(path) if path.is_file() and manifest.has(RESULTS_FILE) else {}
    if not isinstance(results, dict):
        raise ValueError(f"{path} holds no results: delete it and run 04_spike_analysis again")
    return row_of(run, manifest, results, mark_of(folder), stages)


def row_of(
    run: str, manifest: Manifest, results: Mapping[str, Any], mark: Mark | None = None, stages: Sequence[str] = ()
) -> dict[str, Any]:
    """The row of what a run recorded.

    Columns: run, state, error; the parameters; results.json, flattened with dots, with its method number; of
    each stage its metrics (of a training's history the last epoch), seconds and code digest; versions, commit
    and machine.
    """
    row: dict[str, Any] = {"run": run, "state": _state(manifest, mark, stages)}
    row["error"] = f"{mark.stage}: {mark.error}" if row["state"] == "failed" and mark else None
    row |= parameters_of_run({stem: stage.parameters for stem, stage in manifest.stages.items()})
    # Results from before the method number was recorded are of method 1. A parameter may be called like what was
    # measured, as `samples`, which is 0 for all images.
    for name, value in _flat({"method": 1} | dict(results) if results else {}):
        if row.setdefault(name, value) != value:
            row[f"results.{name}"] = value
    around = []
    for stem, stage in manifest.stages.items():
        metrics = dict(stage.metrics)
        history = metrics.pop("history", [])
        last = history[-1] if isinstance(history, list) and history and isinstance(history[-1], dict) else {}
        made = {"seconds": stage.seconds, "code": (stage.request or {}).get("code")}
        told = dict(_flat(metrics | last)) | made | {"shared_from": stage.shared_from}
        row |= {f"{stem}.{name}": value for name, value in told.items()}
        facts = {"recorded": stage.recorded, "device": stage.device, **stage.git}
        facts |= dict(_flat({"versions": stage.versions, "machine": stage.machine}))
        around += [(name, str(value)) for name, value in facts.items() if value is not None]
    # Stages of one run may have been made at different times.
    joined = {name: " ".join(dict.fromkeys(values)) for name, values in grouped(around).items()}
    if "recorded" in joined:
        joined["recorded"] = max(joined["recorded"].split())
    return row | joined


def _state(manifest: Manifest, mark: Mark | None, stages: Sequence[str]) -> str:
    # A notebook that only shows the run does not make it unfinished.
    if mark is not None and mark.stage in (*ARTIFACTS.values(), *stages, ""):
        return mark.state
    if set(stages) - set(manifest.stages) or not manifest.stages:
        return "unfinished"
    return "outdated" if manifest.stale_stages() else "done"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


# Where these differ, results are never averaged; what is around a run may change the last digits.
_MIXED = {"method": "method", "data.train": "training images", "data.test": "test images"}
_AROUND = ("versions.", "machine.", "commit", "device")
_COMMIT = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")


def with_differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with two more columns: what of each run differs from most others.

    `mixed`: method or images, so that its results must not be mixed with the others'. `around`: versions,
    commit, machine. Images are compared among runs of the same data set, size and limit.
    """
    named = dict.fromkeys(name for row in rows for name in row if _mixes(name) or name.startswith(_AROUND))
    told = [{name: str(row[name]) for name in named if row.get(name) is not None} for row in rows]
    peers = grouped((_peers(name, row), own[name]) for row, own in zip(rows, told, strict=True) for name in own)
    usual = {key: Counter(values).most_common(1)[0][0] for key, values in peers.items()}
    described = []
    for row, own in zip(rows, told, strict=True):
        others = {name: usual[_peers(name, row)] for name in own}
        odd = [name for name, value in own.items() if value != others[name]]
        mixed = "; ".join(_mixes(name) for name in odd if _mixes(name))
        apart = [
            f"{name.removeprefix('versions.')} {own[name]} (others {others[name]})"
            for name in odd
            if not _mixes(name)
        ]
        around = "; ".join(_COMMIT.sub(r"\1", said) for said in apart)
        described.append(dict(row) | {"mixed": mixed or None, "around": around or None})
    return described


def grouped(pairs: Iterable[tuple[Any, T]]) -> dict[Any, list[T]]:
    """Key → its values, in order; pairs with None for a key are left out."""
    found: dict[Any, list[T]] = {}
    for key, value in pairs:
        if key is not None:
            found.setdefault(key, []).append(value)
    return found


def _mixes(name: str) -> str:
    return _MIXED.get(name) or _MIXED.get(name.partition(".")[2], "")


def _peers(name: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    alike = ("dataset", *SOURCE_OPTIONS) if ".data." in name else ()
    return (name, *(repr(row.get(setting)) for setting in alike))


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the rows as a CSV file with one header line, atomically; lists are written as JSON."""
    plain = [{n: json.dumps(v) if isinstance(v, list) else v for n, v in row.items()} for row in rows]
    # As objects: a whole number beside an empty cell would become 4.0.
    frame = pd.DataFrame(plain, dtype=object)
    first = [name for name in ("run", "state", "error", "mixed", "remade", "around") if name in frame]
    frame = frame[first + [name for name in frame if name not in first]]
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def _read_results(name: str) -> tuple[list[str], list[dict[str, Any]]]:
    """The parameters that vary in a sweep, and a row for each of its runs as they are now."""
    asked = read_sweep_file(name)
    rows = [parameters | run_row(run, asked.notebooks) for run, parameters in asked.runs.items()]
    described = with_differences(rows)
    for row, (run, parameters) in zip(described, asked.runs.items(), strict=True):
        row["remade"] = _remade(read_manifest(runs_root() / run), parameters)
    return asked.varied, described


def _remade(manifest: Manifest, parameters: Mapping[str, Any]) -> str | None:
    """With what a study made a run anew that a sweep had asked for with these parameters; None where none did."""
    # Of a parameter that was left open a record tells the value that took its place, and only the request this.
    asked = [(stage.request or {}).get("parameters", {}) for stage in manifest.stages.values()]
    made = {
        name: one[name]
        for one in asked
        for name in parameters
        if one.get(name, parameters[name]) != parameters[name]
    }
    told, wanted = (", ".join(f"{name}={values[name]}" for name in made) for values in (made, parameters))
    return f"made anew with {told}, where the sweep asked for {wanted}" if made else None


def write_results(name: str) -> list[dict[str, Any]]:
    """Write the table of a sweep's runs, sweeps/<name>/results.csv, and return its rows."""
    rows = _read_results(name)[1]
    write_csv(rows, sweep_folder(name) / TABLE_FILE)
    return rows


def sweep_report(name: str) -> str:
    """The results of a sweep as text: a line for each run, and what of it differs from the others."""
    varied, rows = _read_results(name)
    known = [label for label, column in RESULT_COLUMNS.items() if any(column in row for row in rows)]
    lines = [("run", *varied, *known, "state")]
    for row in rows:
        cells = result_cells(row)
        settings = (str(row.get(parameter, "–")) for parameter in varied)
        lines.append((row["run"], *settings, *(cells[label] for label in known), row["state"]))
    kinds = ("mixed", "remade", "around")
    mixed, remade, around = (grouped((row[kind], row["run"]) for row in rows) for kind in kinds)
    other = "other {} than most runs; do not mix their results"
    notes = {other.format(what): runs for what, runs in mixed.items()} | remade | around
    said = (f"  {_some(runs)}: {note}" for note, runs in notes.items())
    return "\n".join([f"sweep {name}", *aligned(lines), *said])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def result_cells(results: Mapping[str, Any]) -> dict[str, str]:
    """What tables tell of results, in the form of results.json or of a run's row; "–" for what these lack."""
    row = dict(_flat(results))
    return {label: _cell(label, row.get(column)) for label, column in RESULT_COLUMNS.items()}


def _cell(label: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    if label.endswith("%"):
        return f"{100 * value:.2f}"
    return f"{value:,.0f}" if isinstance(value, float) else f"{value:,}"
