"""Collecting the results of a finished run into one small file without paths, which is kept with the project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .artifacts import load_json, save_json, sha256
from .manifest import MANIFEST, read_manifest, stale_stages
from .models import load_ann
from .outcome import Outcome, missing_in, read_collected, results_root
from .pretrained import FOLDER as PRETRAINED
from .pretrained import save_pretrained
from .run_table import part_of
from .runs import ARTIFACTS, check_run_name, require, run_folder
from .unfinished import mark_of

# What tells how a stage was made. Not what was asked of it besides, and where: that names paths and machines.
_KEPT = (
    "recorded", "parameters", "seed", "inputs", "artifacts", "metrics", "seconds", "stale", "versions", "git",
    "device",
)  # fmt: skip
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
    save_json(path, {
        "run": folder.name,
        "results": results | {"run": folder.name, "dataset": _without_folder(results["dataset"])},
        "manifest": {"run": folder.name, "stages": stages},
    })  # fmt: skip
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
        ann, check_run_name(name, "network"), folder, run=run, command=_command(outcome),
        mismatches=results["mismatches"], neurons=results["neurons"], snn_correct=results["correct"]["snn"],
        spikes_per_sample=results["spikes_per_sample"], sops_per_sample=results["sops_per_sample"],
    )  # fmt: skip


def _command(outcome: Outcome) -> str:
    if any("." in name for name in outcome.parameters):
        return "the notebooks 01 to 04, each with its own parameters"
    return " ".join(["ann-snn study", *(f"-p {name} {value}" for name, value in outcome.unusual.items())])


def _finished(folder: Path) -> dict[str, Any]:
    run, mark, manifest = folder.name, mark_of(folder), read_manifest(folder)
    if mark is not None:
        said = f"{mark['state']} in {mark['stage'] or 'a stage'}"
        remedy = "wait for it" if mark["state"] == "running" else "give its command again, which goes on"
        raise ValueError(f"run {run!r} is unfinished, {said}: {remedy}")
    stages = manifest["stages"]
    missing = [stem for stem in ARTIFACTS.values() if stem not in stages]
    if missing:
        raise ValueError(
            f"run {run!r} is unfinished, without {', '.join(missing)}: {_again(run, missing[0])}"
        )
    made = {name: (stem, digest) for stem in ARTIFACTS.values()
            for name, digest in stages[stem]["artifacts"].items()}  # fmt: skip
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
    return value.replace("\\", "/").rstrip("/").rpartition("/")[2] if is_path else value
