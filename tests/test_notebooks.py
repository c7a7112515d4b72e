"""The notebooks run in order on a tiny preset, each from the artifact of the one before, and tell the truth."""

from __future__ import annotations

import json

import nbformat
import pytest
import torch
from bundles import check_in_python

from ann_snn_utils import check_equivalence, load_ann, load_dataset, load_snn, simulate
from ann_snn_utils.batch import NotebookFailed, execute, study
from ann_snn_utils.export import PLOTLY_MIME, WIDGET_MIME
from ann_snn_utils.metrics import correct
from ann_snn_utils.notebooks import FOLDER
from ann_snn_utils.report import results_table
from ann_snn_utils.runs import read_manifest

TINY = {
    "network": "6C5-P2-8C5-P2-24", "limit": 300, "ann_epochs": 3, "qann_epochs": 4, "clip": 4,
    "published_samples": 50, "robustness_samples": 30, "time_steps": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield study(TINY, run="tiny", progress=False)


def test_every_stage_leaves_its_artifact_notebook_and_page(run):
    for artifact in ("ann.safetensors", "qann.safetensors", "snn.safetensors", "results.json", "manifest.json"):
        assert (run / artifact).is_file()
    for number in ("00", "01", "02", "03", "04", "05", "06"):
        assert list((run / "notebooks").glob(f"{number}_*.ipynb")) and list((run / "html").glob(f"{number}_*.html"))


def test_where_nobody_moves_sliders_the_explorers_are_captions_and_figures(run):
    executed = nbformat.read(run / "notebooks" / "05_explore.ipynb", as_version=4)
    outputs = [output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])]
    assert sum(PLOTLY_MIME in data for data in outputs) == 11
    assert sum("make lab" in data.get("text/markdown", "") for data in outputs) == 4
    assert not any(WIDGET_MIME in data for data in outputs) and "widgets" not in executed.metadata


def test_the_manifest_tells_how_each_stage_was_made(run):
    stages = read_manifest(run)["stages"]
    assert list(stages) == ["01_train_ann", "02_quantize", "03_convert", "04_spike_analysis"]
    first, second = stages["01_train_ann"], stages["02_quantize"]
    assert second["inputs"]["ann.safetensors"] == first["artifacts"]["ann.safetensors"]
    assert stages["02_quantize"]["parameters"]["clip"] == 4
    assert all(stage["versions"]["torch"] == torch.__version__.split("+")[0] for stage in stages.values())


def test_the_results_are_those_of_the_artifacts(run):
    results = json.loads((run / "results.json").read_text())
    qann, snn = load_ann(run / "qann.safetensors"), load_snn(run / "snn.safetensors")
    test = load_dataset("digits", limit=300)
    record = simulate(snn, test)
    assert snn.integer and check_equivalence(qann, snn, test.images).exact
    assert results["mismatches"] == 0 and results["correct"]["snn"]["silence"] == results["correct"]["qann"]
    assert results["correct"]["snn"]["1"] == correct(record)[0]
    assert results["spikes_per_sample"] * len(test) == pytest.approx(record.spike_num[-1])
    assert results["silence_step"] == int(record.settled_at.max())


def test_the_table_shows_the_results(run):
    table = results_table(run)
    accuracy = json.loads((run / "results.json").read_text())["accuracy"]
    for value in (accuracy["ann"], accuracy["qann"], accuracy["snn"]["silence"]):
        assert f"{100 * value:.2f}" in table


def test_a_second_study_keeps_what_is_there(run):
    before = {path: path.stat().st_mtime_ns for path in run.glob("*.safetensors")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_RUNS", str(run.parent))
        assert study(TINY, run="tiny", notebooks="00-04", progress=False) == run
    assert {path: path.stat().st_mtime_ns for path in run.glob("*.safetensors")} == before


def test_the_hardware_notebook_leaves_a_bundle_that_its_readers_reproduce(run):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_RUNS", str(run.parent))
        study({"samples": 3}, run="tiny", notebooks="08", progress=False)
    assert check_in_python(run / "bundle").returncode == 0
    stage = read_manifest(run)["stages"]["08_hardware"]
    assert list(stage["artifacts"]) == ["bundle/manifest.json"] and stage["metrics"]["samples"] == 3


def test_a_notebook_without_its_input_names_the_one_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("ANN_SNN_RUNS", str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotebookFailed, match="notebook 01_train_ann makes it"):
        execute(FOLDER / "02_quantize.ipynb", tmp_path / "empty", {"run": "empty"})
