"""One row for each run; runs of another method or on other images are told apart, and never averaged."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from outcomes import make_run

from ann_snn_utils.files import load_json, save_json
from ann_snn_utils.runs.compare import by_setting, compare, mean_curve, mixed
from ann_snn_utils.runs.folder import chosen_runs, runs_root, sweep_folder
from ann_snn_utils.runs.manifest import MARK
from ann_snn_utils.runs.report import runs_table
from ann_snn_utils.runs.results import load_results
from ann_snn_utils.runs.sweeps import run_row, sweep_report, with_differences, write_csv

pytestmark = pytest.mark.usefixtures("runs")


def rows(*names: str) -> list[dict]:
    return with_differences([run_row(name) for name in names])


def test_a_row_holds_parameters_metrics_and_where_they_come_from(runs: Path) -> None:
    row = run_row(make_run("a", k=2))
    assert (row["run"], row["state"], row["k"], row["accuracy.snn.silence"]) == ("a", "done", 2, 0.5)
    assert (row["01_train_ann.loss"], row["01_train_ann.seconds"], row["01_train_ann.code"]) == (1.0, 2, "c0")
    assert row["01_train_ann.data.train"] == "d0" and row["versions.torch"] and row["machine.processor"]
    assert {"commit", "dirty", "recorded"} <= row.keys()


def test_a_row_holds_what_was_measured_under_the_name_of_a_parameter_too(runs: Path) -> None:
    row = run_row(make_run("a", samples=0, changed={"samples": 5000}))
    assert (row["samples"], row["results.samples"]) == (0, 5000) and "results.k" not in row


@pytest.mark.parametrize(
    "mark, state",
    [(None, "done"), ({"state": "failed", "error": "E"}, "failed"), ({"state": "running"}, "interrupted")],
)
def test_a_row_tells_the_state_of_its_run(runs: Path, mark: dict | None, state: str) -> None:
    make_run("a")
    if mark:
        (runs / "a" / MARK).write_text(json.dumps({"stage": "02_quantize", "said": "", **mark}))
    assert run_row("a", ["01_train_ann"])["state"] == state
    assert run_row("a", ["01_train_ann"])["error"] == ("02_quantize: E" if state == "failed" else None)
    assert run_row("a", ["01_train_ann", "08_hardware"])["state"] == (state if mark else "unfinished")
    assert run_row("b")["state"] == "unfinished" and not (runs / "b").exists()


def test_a_run_is_done_whatever_became_of_a_notebook_that_only_shows_it(runs: Path) -> None:
    make_run("a")
    mark = {"stage": "06_compare_runs", "said": "", "state": "running"}
    (runs / "a" / MARK).write_text(json.dumps(mark))
    assert run_row("a", ["01_train_ann"])["state"] == "done"
    assert run_row("a", ["01_train_ann", "06_compare_runs"])["state"] == "interrupted"


def test_the_table_of_all_runs_tells_where_one_was_stopped(runs: Path) -> None:
    make_run("a")
    (runs / "a" / "results.json").unlink()
    (runs / "a" / MARK).write_text(json.dumps({"stage": "04_spike_analysis", "said": "", "state": "running"}))
    assert runs_table().endswith("03_convert, 04_spike_analysis; interrupted in 04_spike_analysis")


def test_the_table_of_all_runs_tells_which_one_cannot_be_read(runs: Path) -> None:
    for name in ("a", "b"):
        make_run(name)
    (runs / "a" / "results.json").write_text("{")
    (runs / "b" / "manifest.json").write_text("[]")
    _, first, second = runs_table().splitlines()
    assert first.startswith(f"  a    damaged: {runs / 'a' / 'results.json'} is not valid JSON")
    assert second.startswith(f"  b    damaged: {runs / 'b' / 'manifest.json'} is not a manifest of stages")


def test_results_that_are_not_those_of_the_manifest_are_outdated_wherever_they_are_shown(runs: Path) -> None:
    for name in ("a", "b"):
        make_run(name)
    results = load_json(runs / "a" / "results.json")
    save_json(runs / "a" / "results.json", results | {"spikes_per_sample": 1.0})
    assert run_row("a")["state"] == "outdated" and run_row("b")["state"] == "done"
    _, first, second = runs_table().splitlines()
    assert (
        first == "  a    outdated: what 04_spike_analysis read or made are other files now"
        and "outdated" not in second
    )
    assert len(compare(load_results())) == 2, "a setting of its own"


def test_results_that_no_notebook_recorded_are_none(runs: Path) -> None:
    make_run("a")
    manifest = load_json(runs / "a" / "manifest.json")
    del manifest["stages"]["04_spike_analysis"]
    save_json(runs / "a" / "manifest.json", manifest)
    assert load_results() == {} and "no results yet; done: 01_train_ann" in runs_table()
    assert not any(name.startswith("accuracy") for name in run_row("a"))


def test_what_of_a_run_differs_from_most_others_is_said() -> None:
    for number in range(3):
        make_run(f"a{number}", seed=number)
    make_run("code", code="c1")
    make_run("method", changed={"method": 2})
    make_run("data", data="d1")
    assert {row["run"]: row["mixed"] for row in rows("a0", "a1", "a2", "code", "method", "data")} == {
        "a0": None,
        "a1": None,
        "a2": None,
        "code": None,
        "method": "method",
        "data": "training images",
    }
    assert mixed(load_results("a0,a1,data")) == ["data: other training images than most runs"]
    # Other images are no surprise where another data set was asked for.
    assert mixed(load_results(f"a0,a1,{make_run('mnist', data='d2', dataset='mnist')}")) == []


def test_another_version_or_machine_is_noted_apart(runs: Path) -> None:
    for name in "abc":
        make_run(name)
    manifest = json.loads((runs / "c" / "manifest.json").read_text())
    for stage in manifest["stages"].values():
        stage["versions"]["torch"] = "9.9"
    save_json(runs / "c" / "manifest.json", manifest)
    found = rows("a", "b", "c")
    assert [row["mixed"] for row in found] == [None] * 3 and found[0]["around"] is None
    assert found[2]["around"].startswith("torch 9.9 (others ")


def test_a_table_is_written_with_every_column_of_every_run(tmp_path: Path) -> None:
    make_run("a")
    make_run("b", clip=4)
    write_csv(rows("a", "b"), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0])[:5] == ["run", "state", "error", "mixed", "around"]
    assert [row["clip"] for row in found] == ["", "4"] and json.loads(found[0]["noise.0.5"]) == [0.1, 0.2]


def test_only_runs_that_agree_in_all_but_the_seed_are_averaged() -> None:
    make_run("a", accuracy=0.4)
    make_run("b", accuracy=0.6, seed=1, code="c1")
    make_run("c", k=1)
    make_run("d", changed={"method": 2})
    make_run("e", data="d1", clip=2)
    table = by_setting(compare(load_results()))
    names = ["baseline", "k = 1", "method 2"]
    assert list(table.index)[:3] == names and len(table) == 4 and table.index[3].startswith("clip 2, images ")
    assert list(table.runs) == ["2", "1", "1", "1"]
    assert table.quantized["baseline"].replace("\N{NO-BREAK SPACE}", " ") == "50.00 ± 14.14"


def test_a_curve_that_has_settled_keeps_its_last_value_in_the_mean() -> None:
    assert mean_curve([[0.0, 1.0], [0.5, 0.5, 0.0]]) == [0.25, 0.75, 0.5]


def test_the_report_of_a_sweep_tells_the_step_of_the_last_spike_not_the_silent_one_behind_it() -> None:
    make_run("a", changed={"silence_step": 7})
    asked = {"name": "s", "notebooks": [], "varied": ["k"], "runs": {"a": {"k": 0}}}
    save_json(sweep_folder("s") / "sweep.json", asked)
    _, header, row = sweep_report("s").splitlines()[:3]
    columns = re.split(r"  +", header.strip()), re.split(r"  +", row.strip())
    assert dict(zip(*columns, strict=True))["last spike"] == "7"


def test_a_sweep_says_which_of_its_runs_a_study_made_with_other_parameters() -> None:
    for name, k in (("a", 0), ("b", 1)):
        make_run(name, k=k)
    asked = {"name": "s", "notebooks": [], "varied": ["k"], "runs": {"a": {"k": 0}, "b": {"k": 2}}}
    save_json(sweep_folder("s") / "sweep.json", asked)
    assert "  b: made anew with k=1, where the sweep asked for k=2" in sweep_report("s").splitlines()
    # What was left open is told by the request alone: a record has the value that took its place.
    manifest = load_json(runs_root() / "b" / "manifest.json")
    for stage in manifest["stages"].values():
        stage["request"]["parameters"]["k"] = 2
    save_json(runs_root() / "b" / "manifest.json", manifest)
    assert "made anew" not in sweep_report("s")


def test_runs_are_chosen_by_sweep_or_by_name() -> None:
    make_run("a")
    make_run("b")
    asked = {"name": "levels", "notebooks": ["01_train_ann"], "varied": ["k"], "runs": {"b": {}, "c": {}}}
    save_json(sweep_folder("levels") / "sweep.json", asked)
    assert chosen_runs("") == ["a", "b"]
    assert chosen_runs("levels") == ["b", "c"] and chosen_runs("b, a") == ["b", "a"]
    assert list(load_results("levels")) == ["b"]
    with pytest.raises(FileNotFoundError, match=r"no sweep 'level'.*\(levels\)"):
        chosen_runs("level")
    with pytest.raises(FileNotFoundError, match="no run 'x'"):
        chosen_runs("a,x")
