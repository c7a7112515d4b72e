"""The notebooks run in order on a tiny preset, each from the artifact of the one before, and tell the truth."""

from __future__ import annotations

import csv
import inspect
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest
import torch
from bundles import check_in_python
from outcomes import make_run
from toy_notebooks import run_here

from ann_snn_utils import check_equivalence, load_ann, load_dataset, load_snn, simulate
from ann_snn_utils.batch.execute import WIDGET_MIME, NotebookFailed, execute
from ann_snn_utils.batch.pages import PLOTLY_MIME
from ann_snn_utils.batch.study import study
from ann_snn_utils.cli import main
from ann_snn_utils.files import ROOT
from ann_snn_utils.measure.activity import correct
from ann_snn_utils.runs.manifest import read_manifest
from ann_snn_utils.runs.parameters import NOTEBOOKS, parameters_of
from ann_snn_utils.runs.report import run_report
from ann_snn_utils.runs.results import collect
from ann_snn_utils.simulator import oracle

pytestmark = pytest.mark.slow

TINY = {
    "network": "6C5-P2-8C5-P2-24",
    "limit": 300,
    "ann_epochs": 3,
    "qann_epochs": 4,
    "clip": 4,
    "published_samples": 50,
    "robustness_samples": 30,
    "time_steps": 6,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_RUNS", str(tmp_path_factory.mktemp("runs")))
        yield study(TINY, run="tiny", progress=False)


@pytest.fixture
def without_pages(monkeypatch):
    """No pages are written, which takes seconds for a whole study; those of the first study are looked at."""
    monkeypatch.setattr("ann_snn_utils.batch.study.write_site", lambda *_, **__: None)


ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_notebook_opens_alike_and_leads_to_its_neighbours(path):
    cells = nbformat.read(path, as_version=4).cells
    opening = cells[0].source
    assert opening.startswith(f"# {path.stem[:2]} · ")
    positions = [opening.find(f"**{word}.**") for word in ("Question", "Goals", "Inputs", "Outputs", "Run time")]
    assert 0 < positions[0] and positions == sorted(positions), "question, goals, inputs, outputs, run time"
    place = ALL.index(path)
    neighbours = {one.name for one in ALL[max(0, place - 1) : place + 2]} - {path.name}
    assert neighbours <= set(re.findall(r"\]\((\S+)\)", opening))
    assert cells[1].metadata.tags == ["parameters"]
    (imports,) = [cell.source for cell in cells if "versions_line()" in cell.source]
    assert imports.endswith("print(versions_line())")


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_notebook_asks_before_it_runs_and_ends_with_exercises_and_the_way_on(path):
    cells = nbformat.read(path, as_version=4).cells
    asked = [cell.source for cell in cells if cell.source.startswith("**Predict, then run.**")]
    assert asked and all("<details><summary>Answer</summary>" in source for source in asked)
    last = cells[-1].source
    assert last.startswith("## Exercises") and re.findall(r"^\*\*(\d)\.\*\* ", last, re.MULTILINE) == [
        "1",
        "2",
        "3",
    ]
    assert last.count("<details><summary>Hint</summary>\n\n") == 3
    assert last.splitlines()[-1] == cells[0].source.splitlines()[2], "the links of the top"


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_help_of_a_parameter_is_a_sentence(path):
    for name, parameter in parameters_of(path).items():
        assert re.fullmatch(r"[A-Z].*\.", parameter.help) or name == "run", parameter


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_links_between_notebooks_lead_to_one(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for link in re.findall(r"\]\((\S+\.ipynb)\)", cell.source):
            assert (NOTEBOOKS / link).is_file(), link


def test_every_stage_leaves_its_artifact_notebook_and_page(run):
    for artifact in ("ann.safetensors", "qann.safetensors", "snn.safetensors", "results.json", "manifest.json"):
        assert (run / artifact).is_file()
    for number in ("00", "01", "02", "03", "04", "05", "06"):
        assert list((run / "notebooks").glob(f"{number}_*.ipynb")) and list((run / "html").glob(f"{number}_*.html"))


def test_where_nobody_moves_sliders_the_explorers_are_pages_or_captions_and_figures(run):
    executed = nbformat.read(run / "notebooks" / "05_explore.ipynb", as_version=4)
    outputs = [output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])]
    assert sum(PLOTLY_MIME in data for data in outputs) == 12
    assert sum("make lab" in data.get("text/markdown", "") for data in outputs) == 4
    # The list of networks and the explorer of one image are their own pages.
    assert sum("snn-explorer" in data.get("text/html", "") for data in outputs) == 2
    assert not any(WIDGET_MIME in data for data in outputs) and "widgets" not in executed.metadata


def test_no_output_is_a_raw_dictionary(run):
    for path in (run / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                text = output.get("text", "") or ("" if len(data) > 1 else data.get("text/plain", ""))
                assert not text.lstrip().startswith("{"), f"{path.stem}: {cell.source}"


def test_the_overview_shows_the_neurons_rule_and_runs_it_beside_the_simulator(run):
    executed = nbformat.read(run / "notebooks" / "00_overview.ipynb", as_version=4)
    outputs = [output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])]
    shown = "\n".join(data.get("text/markdown", "") for data in outputs)
    assert inspect.getsource(oracle.fire) in shown and "| step | count n |" in shown


def test_the_manifest_tells_how_each_stage_was_made(run):
    stages = read_manifest(run).stages
    assert list(stages) == ["01_train_ann", "02_quantize", "03_convert", "04_spike_analysis"]
    first, second = stages["01_train_ann"], stages["02_quantize"]
    assert second.inputs["ann.safetensors"] == first.artifacts["ann.safetensors"]
    assert second.parameters["clip"] == 4
    assert all(stage.versions["torch"] == torch.__version__.split("+")[0] for stage in stages.values())


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
    table = run_report(run)
    accuracy = json.loads((run / "results.json").read_text())["accuracy"]
    for value in (accuracy["ann"], accuracy["qann"], accuracy["snn"]["silence"]):
        assert f"{100 * value:.2f}" in table


def test_a_second_study_keeps_what_is_there(run, without_pages):
    before = {path: path.stat().st_mtime_ns for path in run.glob("*.safetensors")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANN_SNN_RUNS", str(run.parent))
        assert study(TINY, run="tiny", notebooks="01-04", progress=False) == run
    assert {path: path.stat().st_mtime_ns for path in run.glob("*.safetensors")} == before


def test_the_hardware_notebook_leaves_a_bundle_that_its_readers_reproduce(
    run, without_kernels, without_pages, monkeypatch
):
    monkeypatch.setenv("ANN_SNN_RUNS", str(run.parent))
    study({"samples": 3}, run="tiny", notebooks="08", progress=False)
    assert check_in_python(run / "bundle").returncode == 0
    stage = read_manifest(run).stages["08_hardware"]
    written = {path.relative_to(run).as_posix() for path in (run / "bundle").rglob("*") if path.is_file()}
    assert set(stage.artifacts) == written and stage.metrics["samples"] == 3
    names = ("network", "limit", "ann_epochs", "qann_epochs", "clip", "published_samples")
    given = {name: TINY[name] for name in names} | {"samples": 3}
    other = study(given, run="other", notebooks="01-03,08", progress=False)
    assert read_manifest(other).stages["08_hardware"].shared_from == "tiny"
    assert check_in_python(other / "bundle").returncode == 0


@pytest.mark.parametrize(("network", "shape"), [("1C3", (1, 26, 26)), ("4C5-M2-6C3-8", (4, 24, 24))])
def test_networks_of_one_channel_or_with_maxima_behind_the_encoder_go_the_same_way(
    network, shape, runs, without_kernels, without_pages
):
    small = TINY | {"network": network, "ann_epochs": 8, "qann_epochs": 8}
    run = study(small, run="small", notebooks="01-04", progress=False)
    assert load_snn(run / "snn.safetensors").spec.layers[0].out_shape == shape
    assert json.loads((run / "results.json").read_text())["mismatches"] == 0
    # Of a part of the test set all numbers are of this part.
    part = study(small | {"samples": 20}, run="part", notebooks="01-04", progress=False)
    found = json.loads((part / "results.json").read_text())
    assert found["samples"] == 20 and found["correct"]["qann"] == found["correct"]["snn"]["silence"]
    assert "ann" not in found["accuracy"] and main(["evaluate", "part", "--samples", "20"]) == 0


def test_a_notebook_without_its_input_names_the_one_that_makes_it(runs):
    (runs / "empty").mkdir(parents=True)
    with pytest.raises(NotebookFailed, match="notebook 01_train_ann makes it"):
        run_here(NOTEBOOKS / "02_quantize.ipynb", runs / "empty", {"run": "empty"})


def test_a_sweep_shares_what_the_study_made_and_makes_its_own_page(run, monkeypatch, capsys):
    monkeypatch.setenv("ANN_SNN_RUNS", str(run.parent))
    given = [f"{name}={value}" for name, value in TINY.items()]
    options = [option for setting in given for option in ("--set", setting)]
    assert main(["sweep", *options, "--name", "tiny", "--jobs", "1"]) == 0
    assert "0 stages to make, 4 to share" in capsys.readouterr().out
    swept = run.parent / "sweeps" / "tiny"
    with (swept / "results.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    first, second = (json.loads((run.parent / name / "results.json").read_text()) for name in ("tiny", row["run"]))
    assert row["run"] != "tiny" and first | {"run": ""} == second | {"run": ""}
    assert float(row["accuracy.qann"]) == first["accuracy"]["qann"] and row["mixed"] == ""
    page = (swept / "html" / "06_compare_runs.html").read_text(encoding="utf-8")
    assert row["run"] in page and "all made by one method, and tested on the same images" in page


def test_the_comparison_reads_collected_results_and_keeps_choices_apart(tmp_path, monkeypatch):
    for name in ("RUNS", "RESULTS"):
        monkeypatch.setenv(f"ANN_SNN_{name}", str(tmp_path / name))
    for seed in range(2):
        collect(make_run(f"kept{seed}", seed=seed, accuracy=0.9 + seed / 50))
    shutil.rmtree(tmp_path / "RUNS")
    make_run("choice", held_out=50, accuracy=0.25)
    make_run("other", dataset="mnist", k=1)
    path = execute(NOTEBOOKS / "06_compare_runs.ipynb", tmp_path / "shown", {"run": "kept1"})
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    kinds = ("text/markdown", "text/html")
    data = [output.get("data", {}) for output in outputs]
    shown = "\n".join([*(one.get("text", "") for one in outputs), *(one.get(k, "") for one in data for k in kinds)])
    tested, choices = shown.rsplit("choices on held-out images", 1)
    assert "91.00 ±\N{NO-BREAK SPACE}1.41" in tested and "baseline (this run)" in tested and "kept0" in tested
    assert "25.00" not in tested and "25.00" in choices and "other" not in shown.replace("other forms", "")


def test_a_network_of_ones_own_is_quantized_proved_and_handed_on(tmp_path):
    quick = {"own_epochs": 1, "largest_count": 7, "torchvision_models": False}
    executed = nbformat.read(execute(NOTEBOOKS / "09_own_network.ipynb", tmp_path, quick), as_version=4)
    outputs = [output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])]
    shown = "\n".join(data.get("text/markdown", "") for data in outputs)
    assert shown.count("| 9,878,400 | 0 | 0 |") == 2, "both networks agree in every code and class"
    assert "GELU cannot be converted" in shown and "`torchvision_models = False`" in shown
    assert sum(PLOTLY_MIME in data for data in outputs) == 1
    assert sum("snn-explorer" in data.get("text/html", "") for data in outputs) == 1


def test_plain_papermill_from_any_directory_makes_the_same_network_bit_for_bit(run, tmp_path):
    # Same parameters, same seed, same machine, and the same number of threads.
    shutil.copytree(run, tmp_path / "runs" / "copy")
    made = tmp_path / "runs" / "copy" / "qann.safetensors"
    made.unlink()
    command = [sys.executable, "-m", "papermill", str(ROOT / "notebooks" / "02_quantize.ipynb"), "out.ipynb"]
    command += ["-k", "python3", "-p", "run", "copy", "-p", "clip", "4", "-p", "qann_epochs", "4"]
    environment = os.environ | {"ANN_SNN_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert made.read_bytes() == (run / "qann.safetensors").read_bytes()
    assert "clip = 4" in (tmp_path / "out.ipynb").read_text()
