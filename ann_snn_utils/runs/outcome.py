"""What one run reached and how it was made: read from its folder, or from the results kept with the project.

One tidy row for each run: its state, every parameter, every metric, and where all of it came from.

Collecting the results of a finished run into one small file without paths, which is kept with the project.

The file that a sweep leaves, sweeps/<name>/sweep.json: its notebooks, what varied, and its runs.
"""

from __future__ import annotations

import csv
import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ann.store import FOLDER as PRETRAINED
from ..ann.store import load_ann, save_pretrained
from ..data.dataset import SOURCE_OPTIONS, folder_label
from ..files import ROOT, atomic, load_json, save_json, sha256
from .folder import ARTIFACTS, SWEEPS, check_run_name, list_runs, require, run_folder, runs_root, sweep_folder
from .manifest import MANIFEST, is_manifest, mark_of, read_manifest, stale_stages
from .parameters import FOLDER, defaults_of, parameters_of

# Where these differ, results are not comparable without a word; the others may change the last digits.
_MIXED = {"code": "code of {}", "data.train": "training images", "data.test": "test images"}

_AROUND = ("versions.", "machine.", "commit", "device")

_COMMIT = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")


def parameters_of_run(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Give every parameter of a run's stages; one that stages disagree on has a column of each such stage."""
    found: dict[str, Any] = {}
    for stem, stage in manifest["stages"].items():
        for name, value in stage["parameters"].items():
            if name != "run" and found.setdefault(name, value) != value:
                found[f"{stem}.{name}"] = value
    return found


def run_row(run: str, stages: Sequence[str] = ()) -> dict[str, Any]:
    """Give the row of a run, as `row_of` does; `stages` are those it should have."""
    folder = runs_root() / run
    path = folder / "results.json"
    results = load_json(path) if path.is_file() else {}
    if not isinstance(results, dict):
        raise ValueError(f"{path} holds no results: delete it and run 04_spike_analysis again")
    return row_of(run, read_manifest(folder), results, mark_of(folder), stages)


def row_of(
    run: str,
    manifest: Mapping[str, Any],
    results: Mapping[str, Any],
    mark: Mapping[str, Any] | None = None,
    stages: Sequence[str] = (),
) -> dict[str, Any]:
    """Give the row of what a run recorded.

    Columns: run, state, error; the parameters; results.json, flattened with dots; of each stage its metrics
    (of a training's history the last epoch), seconds and code digest; versions, commit and machine.
    """
    row: dict[str, Any] = {"run": run, "state": _state(manifest, mark, stages)}
    row["error"] = f"{mark['stage']}: {mark.get('error')}" if row["state"] == "failed" and mark else None
    row |= parameters_of_run(manifest)
    row |= {name: value for name, value in _flat(results) if name not in row}
    around: dict[str, list[str]] = {}
    for stem, stage in manifest["stages"].items():
        metrics = part_of(stage, "metrics")
        history = metrics.pop("history", [])
        last = history[-1] if isinstance(history, list) and history else {}
        row |= {f"{stem}.{name}": value for name, value in _flat(metrics | part_of({"last": last}, "last"))}
        row[f"{stem}.seconds"] = stage.get("seconds")
        row[f"{stem}.code"] = part_of(stage, "request").get("code")
        row[f"{stem}.shared_from"] = stage.get("shared_from")
        facts = {"recorded": stage.get("recorded"), "device": stage.get("device"), **part_of(stage, "git")}
        facts |= dict(_flat({name: part_of(stage, name) for name in ("versions", "machine")}))
        for name, value in facts.items():
            if value is not None:
                around.setdefault(name, []).append(str(value))
    # Stages of one run may have been made at different times.
    row |= {
        name: " ".join(dict.fromkeys(values)) if name != "recorded" else max(values)
        for name, values in around.items()
    }
    return row


def part_of(stage: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Give a part of a stage's record, such as its metrics; empty where it has none."""
    # A record that another version of the project wrote may lack it.
    value = stage.get(name)
    return dict(value) if isinstance(value, dict) else {}


def _state(manifest: Mapping[str, Any], mark: Mapping[str, Any] | None, stages: Sequence[str]) -> str:
    if mark is not None:
        return str(mark["state"])
    if set(stages) - set(manifest["stages"]) or not manifest["stages"]:
        return "unfinished"
    return "outdated" if stale_stages(manifest) else "done"


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", item


def with_differences(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the rows with two more columns: what of each run differs from most others.

    `mixed`: code or data, so that its results must not be mixed with the others'. `around`: versions, commit,
    machine. Data are compared among runs of the same data set, size and limit.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    usual: dict[tuple[Any, ...], Any] = {}
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        for name in names:
            if row.get(name) is not None:
                groups.setdefault(_peers(name, row), []).append(row[name])
    for peers, values in groups.items():
        plain = [value for value in values if isinstance(value, str | int | float)]
        usual[peers] = Counter(plain).most_common(1)
    described = []
    for row in rows:
        mixed, around = [], []
        for name in names:
            common = usual.get(_peers(name, row))
            if row.get(name) is None or not common or row[name] == common[0][0]:
                continue
            stem, _, last = name.partition(".")
            if last in _MIXED:
                mixed.append(_MIXED[last].format(stem))
            elif name.startswith(_AROUND):
                said = f"{name.removeprefix('versions.')} {row[name]} (others {common[0][0]})"
                around.append(_COMMIT.sub(r"\1", said))
        described.append(dict(row) | {"mixed": "; ".join(mixed) or None, "around": "; ".join(around) or None})
    return described


def _peers(name: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    last = name.partition(".")[2]
    alike = ("dataset", *SOURCE_OPTIONS) if last.startswith("data.") else ()
    return (name, *(repr(row.get(setting)) for setting in alike))


def write_csv(rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> Path:
    """Write the rows as a CSV file with one header line, atomically; lists are written as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    first = [name for name in ("run", "state", "error", "mixed", "around") if name in names]
    names = first + [name for name in names if name not in first]
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: json.dumps(v) if isinstance(v, list) else v for name, v in row.items()})
    return Path(path)


# Room for every count and energy, and small enough for any sum, mean or text of them.
_MOST = 1e15


@dataclass(frozen=True)
class Outcome:
    """A run's results.json, and its manifest (or the part of it that was collected)."""

    run: str
    results: dict[str, Any]
    manifest: dict[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter of the stages that made the results.

        One that a notebook did not take yet when the run was made has its default, which changes nothing.
        """
        return parameters_of_run(
            {
                "stages": {
                    stem: {"parameters": _defaults(stem) | stage["parameters"]}
                    for stem, stage in self.stages.items()
                }
            }
        )

    @property
    def stages(self) -> dict[str, Any]:
        """The records of the stages that made the results, by notebook."""
        found = self.manifest["stages"]
        return {stem: found[stem] for stem in ARTIFACTS.values() if stem in found}


def _defaults(stem: str) -> dict[str, Any]:
    path = FOLDER / f"{stem}.ipynb"
    found = parameters_of(path) if path.is_file() else {}
    return {name: parameter.default for name, parameter in found.items()}


def results_root() -> Path:
    """Give the folder of collected results: $ANN_SNN_RESULTS, else data/results below the repository root."""
    return ROOT / Path(os.environ.get("ANN_SNN_RESULTS") or "data/results").expanduser()


def local_outcome(run: str) -> Outcome | None:
    """Give the outcome of a run in its run folder, None where it has no results yet.

    Raises ValueError that names a damaged file.
    """
    path = runs_root() / run / "results.json"
    if not path.is_file():
        return None
    results = load_json(path)
    if missing := missing_in(results):
        raise ValueError(f"{path} is not complete ({missing}): run notebook 04_spike_analysis again")
    return Outcome(run, results, read_manifest(path.parent))


def collected_outcomes() -> dict[str, Outcome]:
    """Give run → outcome of every collected result, in alphabetical order. ValueError names a damaged file."""
    return {path.stem: read_collected(path) for path in sorted(results_root().glob("*.json"))}


def read_collected(path: Path) -> Outcome:
    """Give the outcome that `collect` wrote into a file. Raises ValueError that names a damaged one."""
    content = load_json(path)
    remedy = "collect its run again, or restore it from git"
    if not isinstance(content, dict) or not is_manifest(content.get("manifest")):
        raise ValueError(f"{path} holds no collected results: {remedy}")
    if missing := missing_in(content.get("results")):
        raise ValueError(f"{path} is not complete ({missing}): {remedy}")
    if content["results"].get("run") != path.stem:
        raise ValueError(f"{path} holds the results of run {content['results'].get('run')!r:.100}: {remedy}")
    return Outcome(check_run_name(path.stem), content["results"], content["manifest"])


def missing_in(results: Any) -> str:
    """Say what results lack, or hold wrongly, to be compared with others; empty where nothing."""
    if not isinstance(results, dict):
        return "no results"
    for name in ("dataset", "network"):
        if not isinstance(results.get(name), str):
            return f"no {name}"
    for name in ("samples", "mismatches", "spikes_per_sample", "sops_per_sample"):
        if not _is_number(results.get(name)):
            return f"no number of {name}"
    if not isinstance(results.get("undisturbed"), bool):
        return "nothing about disturbances"
    return _missing_in_accuracy(results) or _missing_in_curves(results)


def _missing_in_accuracy(results: Mapping[str, Any]) -> str:
    accuracy = results.get("accuracy")
    snn = accuracy.get("snn") if isinstance(accuracy, dict) else None
    if not isinstance(snn, dict):
        return "no accuracy of the spiking network"
    named = {"ann": accuracy.get("ann"), "qann": accuracy.get("qann"), "silence": snn.get("silence"), **snn}
    wrong = [name for name, value in named.items() if not (_is_number(value) and 0 <= value <= 1)]
    return f"no accuracy of {wrong[0]!r:.50}" if wrong else ""


def _missing_in_curves(results: Mapping[str, Any]) -> str:
    energy = results.get("energy_pj")
    if not isinstance(energy, dict) or not _is_number(energy.get("snn")):
        return "no energy of the spiking network"
    length = None
    # The last two are missing where the results were made before they were recorded.
    for name in ("accuracy_over_time", "sops_over_time", "energy_over_time"):
        curve = results.get(name)
        if curve is None and length:
            continue
        if not isinstance(curve, list) or not curve or not all(map(_is_number, curve)):
            return f"no {name}"
        if length not in (None, len(curve)):
            return f"{name} of another length"
        length = len(curve)
    return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST < value < _MOST


# What tells how a stage was made. Not what was asked of it besides, and where: that names paths and machines.
_KEPT = (
    "recorded",
    "parameters",
    "seed",
    "inputs",
    "artifacts",
    "metrics",
    "seconds",
    "stale",
    "versions",
    "git",
    "device",
)

_MACHINE = ("processor", "cores", "torch_threads", "cpu_capability", "accelerator")


def collect(run: str) -> Path:
    """Write a finished run's results, parameters, seed and provenance to data/results/<run>.json; give its path.

    The file appears whole or not at all, and the same run gives the same file. Raises FileNotFoundError where
    there is no such run, ValueError for one that is unfinished, outdated or damaged; both name the remedy.
    """
    folder = run_folder(run)
    manifest = _finished(folder)
    results = load_json(folder / "results.json")
    if missing := missing_in(results):
        raise ValueError(f"{folder / 'results.json'} is not complete ({missing}): run 04_spike_analysis again")
    stages = {stem: _essentials(manifest["stages"][stem]) for stem in ARTIFACTS.values()}
    path = results_root() / f"{folder.name}.json"
    save_json(
        path,
        {
            "run": folder.name,
            "results": results | {"run": folder.name, "dataset": _without_folder(results["dataset"])},
            "manifest": {"run": folder.name, "stages": stages},
        },
    )
    return path


def keep_network(run: str, name: str, folder: Path = PRETRAINED) -> Path:
    """Keep the network of a collected run with the project, with the results that `evaluate` is to reproduce.

    Raises ValueError for a run whose results are not those of its whole test set, and as `save_pretrained` does.
    """
    outcome = read_collected(results_root() / f"{check_run_name(run)}.json")
    ann = load_ann(require(run_folder(run), "qann.safetensors"))
    results, parameters = outcome.results, outcome.parameters
    if not results["undisturbed"] or parameters.get("held_out") or results["samples"] != ann.metadata["samples"]:
        raise ValueError(f"run {run!r} was disturbed, or not tested on its whole test set: keep another's network")
    return save_pretrained(
        ann,
        check_run_name(name, "network"),
        folder,
        run=run,
        command=_command(parameters),
        mismatches=results["mismatches"],
        neurons=results["neurons"],
        snn_correct=results["correct"]["snn"],
        spikes_per_sample=results["spikes_per_sample"],
        sops_per_sample=results["sops_per_sample"],
    )


def _command(parameters: Mapping[str, Any]) -> str:
    if any("." in name for name in parameters):
        return "the notebooks 01 to 04, each with its own parameters"
    defaults = defaults_of([FOLDER / f"{stem}.ipynb" for stem in ARTIFACTS.values()])
    given = [f"-p {name} {value}" for name, value in parameters.items() if value != defaults.get(name)]
    return " ".join(["ann-snn study", *given])


def _finished(folder: Path) -> dict[str, Any]:
    run, mark, manifest = folder.name, mark_of(folder), read_manifest(folder)
    if mark is not None:
        said = f"{mark['state']} in {mark['stage'] or 'a stage'}"
        remedy = "wait for it" if mark["state"] == "running" else "give its command again, which goes on"
        raise ValueError(f"run {run!r} is unfinished, {said}: {remedy}")
    stages = manifest["stages"]
    missing = [stem for stem in ARTIFACTS.values() if stem not in stages]
    if missing:
        raise ValueError(f"run {run!r} is unfinished, without {', '.join(missing)}: {_again(run, missing[0])}")
    made = {
        name: (stem, digest) for stem in ARTIFACTS.values() for name, digest in stages[stem]["artifacts"].items()
    }
    if "results.json" not in made or not (folder / "results.json").is_file():
        raise ValueError(f"run {run!r} is unfinished, without results.json: run 04_spike_analysis again")
    if stale := [stem for stem in stale_stages(manifest) if stem in ARTIFACTS.values()]:
        raise ValueError(
            f"run {run!r} is outdated, {stale[0]} read files that have been made anew: {_again(run, stale[0])}"
        )
    # Weights may have been deleted to save space; what is there must be what the manifest tells of.
    for name, (stem, digest) in made.items():
        if (folder / name).is_file() and sha256(folder / name) != digest:
            raise ValueError(
                f"run {run!r} is outdated, {name} is not the file that {stem} recorded in {MANIFEST}: "
                f"{_again(run, stem)}"
            )
    return manifest


def _again(run: str, stem: str) -> str:
    return f"`ann-snn study --run {run} --notebooks {stem[:2]}-04`, with the run's parameters, makes it"


def _essentials(stage: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: stage.get(name) for name in _KEPT}
    kept["parameters"] = {n: _without_folder(v) for n, v in stage["parameters"].items() if n != "run"}
    machine, request = (part_of(stage, name) for name in ("machine", "request"))
    kept["machine"] = {name: machine[name] for name in _MACHINE if name in machine}
    # A stage that a command made without its notebook has no digest of code.
    kept["request"] = {"code": request["code"]} if "code" in request else {}
    return kept


def _without_folder(value: Any) -> Any:
    # An image folder's path is of no use elsewhere.
    is_path = isinstance(value, str) and ("/" in value or "\\" in value)
    return folder_label(value.replace("\\", "/").rstrip("/").rpartition("/")[2]) if is_path else value


SWEEP_FILE = "sweep.json"


def list_sweeps() -> list[str]:
    """Give the names of all sweeps, in alphabetical order."""
    return sorted(path.parent.name for path in (runs_root() / SWEEPS).glob(f"*/{SWEEP_FILE}"))


def read_sweep_file(name: str) -> dict[str, Any]:
    """Give what a sweep asked for: name, notebooks, varied, and the parameters of each run.

    Raises FileNotFoundError, with the nearest names, where there is none of this name; ValueError for a damaged
    file.
    """
    path = sweep_folder(name) / SWEEP_FILE
    if not path.is_file():
        sweeps = list_sweeps()
        near = ", ".join(difflib.get_close_matches(name, sweeps, cutoff=0.3) or sweeps[:5]) or "none yet"
        raise FileNotFoundError(f"there is no sweep {name!r} in {runs_root()}: choose one that is there ({near})")
    asked = load_json(path)
    if not _is_sweep(asked):
        raise ValueError(f"{path} is not the file of a sweep: give the sweep's command again, which writes it anew")
    try:
        for run in asked["runs"]:
            check_run_name(run)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return asked


def _is_sweep(asked: Any) -> bool:
    if not isinstance(asked, dict):
        return False
    runs, *lists = (asked.get(name) for name in ("runs", "notebooks", "varied"))
    return (
        isinstance(runs, dict)
        and all(isinstance(parameters, dict) for parameters in runs.values())
        and all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists)
    )


def chosen_runs(selection: str) -> list[str]:
    """Give the runs of a sweep, or the runs whose names, separated by commas, are given; all for empty text.

    Raises FileNotFoundError for a name that is neither a sweep nor a run.
    """
    if not selection:
        return list_runs()
    if selection in list_sweeps():
        return list(read_sweep_file(selection)["runs"])
    names = [name.strip() for name in selection.split(",") if name.strip()]
    if len(names) == 1 and names[0] not in list_runs():
        read_sweep_file(names[0])
    return [run_folder(name).name for name in names]
