"""Finished runs with any results and parameters, without any training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ann_snn_utils.files import save_json, sha256
from ann_snn_utils.runs.folder import ARTIFACTS, run_folder
from ann_snn_utils.runs.manifest import Manifest, read_manifest, record_stage
from ann_snn_utils.runs.results import RunResult


def results(run: str = "r", accuracy: float = 0.98, changed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Complete results.json of 100 images whose spiking network is right on half of them at T = 1."""
    right, over_time = round(100 * accuracy), [0.5, accuracy, accuracy]
    return {
        "run": run,
        "dataset": "digits",
        "network": "8C5-10",
        "k": 0,
        "ternary": True,
        "seed": 0,
        "samples": 100,
        "accuracy": {"ann": 0.99, "qann": accuracy, "snn": {"1": 0.5, "silence": accuracy}},
        "correct": {"ann": 99, "qann": right, "snn": {"1": 50, "silence": right}},
        "mismatches": 0,
        "neurons": 5000,
        "silence_step": 2,
        "spikes_per_sample": 12.5,
        "sops_per_sample": 1234.0,
        "macs_per_sample": 5000,
        "energy_pj": {"snn": 4e6, "int8": 8e6, "fp32": 9e7},
        "undisturbed": True,
        "accuracy_over_time": over_time,
        "sops_over_time": [600.0, 1200.0, 1234.0],
        "energy_over_time": [2e6, 3e6, 4e6],
        "noise": {"0.5": [0.1, 0.2]},
    } | dict(changed or {})


def make_run(
    name: str,
    code: str = "c0",
    data: str = "d0",
    accuracy: float = 0.5,
    changed: dict | None = None,
    **parameters: Any,
) -> str:
    """Make the run folder of a finished study; code: of its first stage. changed: entries of its results.json."""
    folder = run_folder(name, create=True)
    given = {"run": name, "dataset": "digits", "network": "8C5-10", "seed": 0, "k": 0, "ternary": True} | parameters
    inputs: list[str] = []
    shown = {"dataset": given["dataset"], "k": given["k"], "ternary": given["ternary"]}
    for artifact, stem in ARTIFACTS.items():
        text = results(name, accuracy, shown | (changed or {})) if artifact == "results.json" else [name, artifact]
        save_json(folder / artifact, text)
        metrics: dict[str, Any] = {"data": {"train": data, "test": "t0"}} if stem == "01_train_ann" else {}
        if stem in ("01_train_ann", "02_quantize"):
            metrics["history"] = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}]
        record_stage(
            folder,
            stem,
            parameters=given,
            inputs=inputs,
            artifacts=[artifact],
            metrics=metrics,
            seconds=2,
            request={"parameters": given, "code": code if stem == "01_train_ann" else "c0"},
        )
        inputs = [artifact]
    return name


def make_stale(folder: Path) -> None:
    """Let the quantized network be made anew, after all that read it."""
    save_json(folder / "qann.safetensors", ["another"])
    stage = read_manifest(folder).stages["02_quantize"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record_stage(
            folder,
            "02_quantize",
            parameters=stage.parameters,
            inputs=["ann.safetensors"],
            artifacts=["qann.safetensors"],
            metrics=stage.metrics,
        )
    assert sha256(folder / "qann.safetensors") != stage.artifacts["qann.safetensors"]


def outcome(run: str, changed: dict | None = None, code: str = "c0", **parameters: Any) -> RunResult:
    """A result in memory, whose quantized network took the same parameters as the first."""
    given = {"dataset": "digits", "network": "8C5-10", "k": 0, "ternary": True, "seed": 0} | parameters
    stages = {
        stem: {
            "parameters": given,
            "stale": False,
            "inputs": {},
            "artifacts": {},
            "request": {"code": code},
            "metrics": {"history": [{"epoch": 1}]},
        }
        for stem in ARTIFACTS.values()
    }
    shown = {name: given[name] for name in ("dataset", "k", "ternary")}
    return RunResult(
        run,
        results(run, changed=shown | (changed or {})),
        msgspec.convert({"run": run, "stages": stages}, Manifest),
    )
