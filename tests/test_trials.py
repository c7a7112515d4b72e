"""Results of one setting never take the place of another's, be it a disturbed trial or other parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_notebooks import write_notebook

from ann_snn_utils.batch.execute import execute
from ann_snn_utils.batch.study import study
from ann_snn_utils.runs import stage as stages
from ann_snn_utils.runs.folder import run_folder
from ann_snn_utils.runs.manifest import read_manifest
from ann_snn_utils.runs.stage import PLANNED

TRAIN = """
from ann_snn_utils.runs.stage import open_stage
stage = open_stage("01_train_ann", globals())
(stage.folder / "ann.safetensors").write_text(f"{epochs}")
stage.finish(artifacts=["ann.safetensors"])
"""
ANALYSE = """
from ann_snn_utils.runs.stage import open_stage
stage = open_stage("04_spike_analysis", globals(), inputs=["ann.safetensors"])
stage.finish(results={"undisturbed": noise_ratio == 0, "accuracy": 0.9 if noise_ratio == 0 else 0.1})
"""


@pytest.fixture
def notebooks(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a study that trains and analyses; `open_stage` looks there too."""
    folder = tmp_path / "notebooks"
    write_notebook(folder / "01_train_ann.ipynb", 'run = ""\nepochs = 2', TRAIN)
    write_notebook(folder / "04_spike_analysis.ipynb", 'run = ""\nnoise_ratio = 0.0\nsamples = 0', ANALYSE)
    monkeypatch.setattr(stages, "NOTEBOOKS", folder)
    return folder


def results_of(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def analyse(run: str, **given: object) -> None:
    """What notebook 04 does in JupyterLab, or under papermill."""
    names = {"run": run, "noise_ratio": 0.0, "samples": 0, **given}
    stage = stages.open_stage("04_spike_analysis", names, inputs=["ann.safetensors"])
    stage.finish(results={"undisturbed": names["noise_ratio"] == 0, "accuracy": 0.9, "samples": names["samples"]})


def train(run: str, epochs: int) -> None:
    """What notebook 01 does in JupyterLab, or under papermill."""
    stage = stages.open_stage("01_train_ann", {"run": run, "epochs": epochs})
    (stage.folder / "ann.safetensors").write_text(f"{epochs}")
    stage.finish(artifacts=["ann.safetensors"])


@pytest.mark.parametrize("given", [{"noise_ratio": 1.0}, {"samples": 50}, {"noise_ratio": 1.0, "samples": 50}])
def test_a_trial_of_another_setting_has_a_file_of_its_own_and_leaves_the_run_as_it_was(notebooks, runs, given):
    train("r", 2)
    analyse("r")
    before = (runs / "r/results.json").read_bytes(), (runs / "r/manifest.json").read_bytes()
    analyse("r", **given)
    assert ((runs / "r/results.json").read_bytes(), (runs / "r/manifest.json").read_bytes()) == before
    (trial,) = (runs / "r/trials").iterdir()
    kept = json.loads(trial.read_text())
    assert kept["parameters"] == {"noise_ratio": 0.0, "samples": 0, **given}
    assert kept["inputs"] == read_manifest(runs / "r").stages["04_spike_analysis"].inputs


def test_a_disturbed_trial_is_no_result_even_where_there_is_none_yet(notebooks, runs):
    train("r", 2)
    analyse("r", noise_ratio=1.0)
    assert not (runs / "r/results.json").exists() and len(list((runs / "r/trials").iterdir())) == 1
    analyse("r")
    assert results_of(runs / "r")["undisturbed"]


def test_the_same_setting_again_replaces_its_own_results(notebooks, runs):
    train("r", 2)
    for _ in range(2):
        analyse("r")
    assert not (runs / "r/trials").exists()


def test_networks_that_results_tell_of_are_not_replaced_by_hand(notebooks, runs):
    train("r", 2)
    train("r", 3)
    analyse("r")
    with pytest.raises(ValueError, match="run 'r' has results .* epochs=3, not 4: name another run"):
        train("r", 4)
    assert (runs / "r/ann.safetensors").read_text() == "3"


def test_a_network_that_no_notebook_made_is_not_replaced_by_a_training(
    notebooks, runs, without_kernels, monkeypatch
):
    own = run_folder("mine", create=True) / "qann.safetensors"
    own.write_text("of my own")
    for again in (lambda: train("mine", 2), lambda: study({}, run="mine", folder=notebooks, progress=False)):
        with pytest.raises(ValueError, match="'mine' holds a network that no notebook made.*name another run"):
            again()
    assert [path.read_text() for path in own.parent.iterdir()] == ["of my own"]
    monkeypatch.setenv(PLANNED, "1")
    study({}, run="mine", folder=notebooks, notebooks="01", progress=False, force=True)
    assert (own.parent / "ann.safetensors").is_file()


def test_a_study_replaces_results_of_other_parameters_only_where_it_is_forced(
    notebooks, runs, without_kernels, monkeypatch
):
    monkeypatch.setenv(PLANNED, "1")
    folder = study({}, run="r", folder=notebooks, progress=False)
    for given in ({"noise_ratio": 1.0}, {"epochs": 5}):
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match="run 'r' has results that .*--force"):
            study(given, run="r", folder=notebooks, progress=False)
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    study({"noise_ratio": 1.0}, run="r", folder=notebooks, progress=False, force=True)
    assert results_of(folder)["accuracy"] == 0.1


@pytest.mark.slow
def test_a_study_of_a_disturbed_network_has_its_results_in_a_run_of_its_own(notebooks, runs):
    folder = study({"noise_ratio": 1.0}, run="noisy", folder=notebooks, progress=False)
    assert results_of(folder)["accuracy"] == 0.1 and not (folder / "trials").exists()


@pytest.mark.slow
def test_papermill_with_the_labs_line_leaves_the_runs_results(
    notebooks, runs, tmp_path, without_kernels, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setenv(PLANNED, "1")
        folder = study({}, run="r", folder=notebooks, progress=False)
    execute(notebooks / "04_spike_analysis.ipynb", tmp_path / "out", {"run": "r", "noise_ratio": 1.0})
    assert results_of(folder)["accuracy"] == 0.9 and len(list((folder / "trials").iterdir())) == 1


def test_a_run_that_papermill_takes_for_a_number_is_the_one_of_these_digits(notebooks, runs):
    train(2024, 2)
    train(0, 2)
    assert sorted(path.name for path in runs.iterdir()) == ["0", "2024"]
