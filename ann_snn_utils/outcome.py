"""What one run reached and how it was made: read from its folder, or from the results kept with the project."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .artifacts import ROOT, load_json
from .manifest import is_manifest, read_manifest
from .notebooks import FOLDER, parameters_of
from .recipes import before, recipe
from .run_table import parameters_of_run
from .runs import ARTIFACTS, check_run_name, runs_root

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

        One that a notebook did not take yet when the run was made has the value that the run had all the same.
        """
        return parameters_of_run({"stages": {
            stem: {"parameters": self._implied(stem) | stage["parameters"]} for stem, stage in self.stages.items()
        }})  # fmt: skip

    @property
    def unusual(self) -> dict[str, Any]:
        """The parameters that are neither the notebooks' defaults nor those of the data set's recipe.

        Where the stages of a run were given different values of one, so are all of these.
        """
        own = asdict(recipe(str(self.parameters.get("dataset"))))
        usual = {name: (value, own.get(name, value)) for stem in ARTIFACTS.values()
                 for name, value in _defaults(stem).items()}  # fmt: skip
        return {name: value for name, value in self.parameters.items() if value not in usual.get(name, ())}

    def _implied(self, stem: str) -> dict[str, Any]:
        defaults = _defaults(stem)
        dataset = self.stages.get("01_train_ann", {"parameters": {}})["parameters"].get("dataset", "")
        return defaults | {name: value for name, value in before(str(dataset)).items() if name in defaults}

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
