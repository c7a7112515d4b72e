"""Results kept with the project: the same file for the same run, no paths in it, and only of finished runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from networks import random_ann
from outcomes import make_run, make_stale

from ann_snn_utils.ann.store import load_pretrained, save_ann, save_pretrained
from ann_snn_utils.cli import main
from ann_snn_utils.data.dataset import load_dataset
from ann_snn_utils.files import ROOT, load_json, save_json, sha256
from ann_snn_utils.measure.activity import correct_at
from ann_snn_utils.runs import results as module
from ann_snn_utils.runs.compare import compare, mixed
from ann_snn_utils.runs.folder import run_folder, runs_root, sweep_folder
from ann_snn_utils.runs.manifest import MARK, record_stage
from ann_snn_utils.runs.results import (
    collect,
    collected_results,
    keep_network,
    load_results,
    local_result,
    missing_in,
)
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert


@pytest.fixture(autouse=True)
def kept(runs: Path) -> Path:
    return runs.parent / "results"


def test_a_collected_run_can_be_compared_as_the_local_one_can(kept: Path) -> None:
    path = collect(make_run("a", k=2, label_smoothing=0.1))
    assert path == kept / "a.json"
    local, collected = local_result("a"), collected_results()["a"]
    assert compare({"a": collected}).equals(compare({"a": local}))
    assert collected.parameters["label_smoothing"] == 0.1 and collected.results["seed"] == 0
    assert mixed({"a": collected, "b": local}) == []


def test_a_collected_file_tells_how_the_run_was_made_and_names_no_place(tmp_path: Path) -> None:
    pictures = str(tmp_path / "pictures")
    text = collect(make_run("a", dataset=pictures)).read_text(encoding="utf-8")
    assert str(tmp_path) not in text and json.loads(text)["results"]["dataset"] == "pictures"
    first = json.loads(text)["manifest"]["stages"]["01_train_ann"]
    assert first["parameters"]["dataset"] == "pictures" and first["parameters"]["seed"] == 0
    assert first["versions"]["torch"] and first["seconds"] == 2 and first["request"] == {"code": "c0"}
    assert first["metrics"]["data"] == {"train": "d0", "test": "t0"} and len(first["metrics"]["history"]) == 2
    assert "system" not in first["machine"] and first["machine"]["cores"]


def test_the_same_run_gives_the_same_file() -> None:
    path = collect(make_run("a"))
    before = sha256(path)
    assert collect("a") == path and sha256(path) == before


def test_kept_results_of_another_setting_are_replaced_only_where_it_is_forced() -> None:
    collect(make_run("a", k=1))
    make_run("a", k=2)
    with pytest.raises(ValueError, match=r"a.json keeps results of another setting, k=1, not 2: .*--force"):
        collect("a")
    make_run("a", data="d1", k=1)
    with pytest.raises(ValueError, match="keeps results of another setting, images="):
        collect("a")
    collect(make_run("a", k=1))
    make_run("a", k=2)
    collect("a", force=True)
    assert collected_results()["a"].parameters["k"] == 2


def test_a_run_without_its_weights_can_be_collected() -> None:
    (run_folder(make_run("a")) / "qann.safetensors").unlink()
    assert collect("a").is_file()


def refused(run: str, kept: Path) -> str:
    with pytest.raises(ValueError) as caught:
        collect(run)
    assert not list(kept.glob("*"))
    return str(caught.value)


def test_an_unfinished_run_is_refused_with_how_to_finish_it(kept: Path) -> None:
    folder = run_folder("a", create=True)
    record_stage(folder, "01_train_ann", parameters={"seed": 0}, artifacts=[])
    assert "unfinished, without 02_quantize, 03_convert" in refused("a", kept)
    assert "`ann-snn study --run a --notebooks 02-04`, with the run's parameters, makes it" in refused("a", kept)
    (run_folder(make_run("b")) / MARK).write_text(
        json.dumps({"stage": "03_convert", "said": "", "state": "failed"})
    )
    assert "unfinished, failed in 03_convert: give its command again" in refused("b", kept)
    # What only shows a run does not unmake it.
    shown = json.dumps({"stage": "06_compare_runs", "said": "", "state": "failed"})
    (run_folder(make_run("c")) / MARK).write_text(shown)
    assert collect("c").is_file()


def test_an_outdated_run_is_refused_with_how_to_make_it_anew(kept: Path) -> None:
    make_stale(run_folder(make_run("a")))
    assert "outdated, 03_convert read files that have been made anew: `ann-snn study --run a" in refused("a", kept)
    save_json(run_folder(make_run("b")) / "results.json", load_json(run_folder("b") / "results.json") | {"k": 3})
    assert "outdated, results.json is not the file that 04_spike_analysis recorded" in refused("b", kept)


def test_a_run_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="there is no run 'nosuch'"):
        collect("nosuch")


def test_the_command_collects_what_it_can_and_says_what_not(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("a")
    make_stale(run_folder(make_run("b")))
    asked = {"name": "s", "notebooks": [], "varied": [], "runs": {"b": {}, "a": {}}}
    save_json(sweep_folder("s") / "sweep.json", asked)
    assert main(["collect", "--sweep", "s"]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"wrote {kept / 'a.json'}\n" and captured.err.startswith("ann-snn: run 'b' is outdated")
    assert main(["collect", "a"]) == 0 and main(["collect"]) == 2
    assert "no run is named: give runs (a, b), or --sweep NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("accuracy", {"ann": 1, "qann": 2, "snn": {"silence": 1}}, "`$.accuracy.qann`"),
        ("accuracy", {"ann": None, "qann": 1, "snn": {"silence": 1}}, "`$.accuracy.ann`"),
        ("accuracy", {"ann": 1, "qann": 1, "snn": {"4": 1}}, "no accuracy of the spiking network at silence"),
        ("samples", "9", "`$.samples`"),
        ("energy_pj", {}, "`$.energy_pj`"),
        ("accuracy_over_time", [], "`$.accuracy_over_time`"),
        ("correct", None, "`$.correct`"),
        ("sops_over_time", [1.0], "sops_over_time of another length"),
    ],
)
def test_collected_results_that_lack_something_are_named_with_it(kept: Path, name: str, value, said: str) -> None:
    path = collect(make_run("a"))
    content = load_json(path)
    content["results"][name] = value
    save_json(path, content)
    assert said in missing_in(content["results"])
    with pytest.raises(ValueError, match=f"a.json is not complete .*{re.escape(said)}.*collect its run again"):
        collected_results()


def test_a_file_under_another_runs_name_is_refused(kept: Path) -> None:
    collect(make_run("a")).rename(kept / "b.json")
    with pytest.raises(ValueError, match="b.json holds the results of run 'a'"):
        collected_results()


def test_a_runs_network_is_kept_with_the_results_to_reproduce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST", 30)
    collect(make_run("b", limit=40))
    path = run_folder("b") / "qann.safetensors"
    ann, source = random_ann(1, classes=10), {"name": "digits", "size": 8}
    save_ann(ann, path, source=source, samples=100, correct=50, seed=0)
    keep_network("b", "small", tmp_path / "pretrained")
    metadata = load_pretrained("small", tmp_path / "pretrained").metadata
    assert metadata["run"] == "b" and metadata["snn_correct"] == {"1": 50, "silence": 50}
    assert metadata["command"] == "ann-snn study -p network 8C5-10 -p limit 40" and metadata["mismatches"] == 0
    assert metadata["method"] == 1 and metadata["silence_step"] == 2
    first = load_dataset(**source).subset(range(30))
    assert metadata["first_1000"] == correct_at(simulate(convert(ann), first))


def test_a_bundled_network_that_no_run_made_is_replaced_only_where_it_is_forced(tmp_path: Path) -> None:
    source = {"name": "digits", "size": 8}
    path = save_pretrained(random_ann(2, classes=10), "small", tmp_path, source=source, correct=1, samples=40)
    before = sha256(path)
    with pytest.raises(ValueError, match="bundled:small is another network: choose another name, or give --force"):
        keep_network("b", "small", tmp_path)
    assert sha256(path) == before


def test_a_result_is_not_written_where_the_name_for_its_network_is_taken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run("b")
    assert main(["collect", "b", "--as", "bundled:digits-lenet-k0"]) == 2
    assert "bundled:digits-lenet-k0 is " in capsys.readouterr().err and collected_results() == {}


def test_a_local_run_wins_over_the_collected_one_of_its_name() -> None:
    collect(make_run("a", accuracy=0.4))
    collect(make_run("b", accuracy=0.5))
    make_run("a", accuracy=0.6)
    for name in ("results.json", "manifest.json"):
        (runs_root() / "b" / name).unlink()
    found = {name: one.results["accuracy"]["qann"] for name, one in load_results().items()}
    assert found == {"a": 0.6, "b": 0.5}
    assert list(load_results("b")) == ["b"] and list(load_results("b, a")) == ["b", "a"]
    with pytest.raises(FileNotFoundError, match="no sweep 'c'"):
        load_results("c, b")


def test_results_collected_before_methods_were_numbered_are_read_as_before_and_are_of_method_1(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANN_SNN_RESULTS", str(ROOT / "data" / "results"))
    old = {name: one for name, one in collected_results().items() if "method" not in one.results}
    assert {one.method for one in old.values()} == {1} and len(old) >= 79
    one = old["mnist-lenet-k0-ternary-s0-6165d83c"]
    assert one.parameters["label_smoothing"] == 0.1 and one.results["correct"]["snn"]["silence"] == 9967
    assert one.images == old["mnist-lenet-k2-ternary-s1-6165d83c"].images and not one.held_out
