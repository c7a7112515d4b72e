"""Run folders, the names of runs and the manifest."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from toy_notebooks import write_notebook

from ann_snn_utils.data.dataset import data_identity, source_of
from ann_snn_utils.files import ROOT, save_tensors
from ann_snn_utils.runs import folder as runs
from ann_snn_utils.runs import provenance
from ann_snn_utils.runs.manifest import Images, StageRecord, is_current, read_manifest, record_stage
from ann_snn_utils.runs.stage import images_of, open_stage, request_of


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANN_SNN_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def folder() -> Path:
    folder = runs.run_folder("one", create=True)
    for name, text in (("ann.safetensors", "ann"), ("qann.safetensors", "qann")):
        (folder / name).write_text(text)
    return folder


def record(folder: Path, notebook: str, inputs: list[str], artifacts: list[str], **more) -> StageRecord:
    return record_stage(folder, notebook, parameters={"seed": 3}, inputs=inputs, artifacts=artifacts, **more)


@pytest.mark.parametrize(
    "name, said",
    [
        ("", "give the run a name"),
        ("../up", "'/'"),
        ("a b", "' '"),
        ("-x", "begin with"),
        ("x.", "end with"),
        ("con", "reserved"),
        ("x" * 121, "121 characters"),
        ("köln", "'ö'"),
        (7, "run=7"),
    ],
)
def test_the_error_for_a_run_name_says_what_is_wrong_with_it(name: str, said: str) -> None:
    with pytest.raises(ValueError, match="run=") as error:
        runs.run_folder(name, create=True)
    assert said in str(error.value)


def test_a_run_that_is_not_there_is_reported_with_those_that_are(folder: Path) -> None:
    record(folder, "01_train_ann", [], ["ann.safetensors"])
    with pytest.raises(FileNotFoundError, match=r"no run 'onne'.*\(one\)"):
        runs.run_folder("onne")


def test_runs_lie_in_the_repository_unless_the_environment_says_otherwise(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert runs.run_folder("x", create=True) == root / "x"
    monkeypatch.delenv("ANN_SNN_RUNS")
    monkeypatch.chdir(tmp_path)
    assert runs.runs_root() == Path(runs.__file__).parents[2] / "data" / "runs"


@pytest.mark.parametrize("artifact", runs.ARTIFACTS)
def test_a_missing_artifact_names_the_notebook_that_makes_it(root: Path, artifact: str) -> None:
    folder = runs.run_folder("empty", create=True)
    with pytest.raises(FileNotFoundError, match=f"{artifact} is missing: notebook {runs.ARTIFACTS[artifact]}"):
        runs.require(folder, artifact)


def test_an_artifact_that_is_there_is_given(folder: Path) -> None:
    assert runs.require(folder, "ann.safetensors") == folder / "ann.safetensors"


def test_the_latest_run_is_the_one_recorded_last_among_those_with_the_artifact(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="01_train_ann"):
        runs.latest_run("ann.safetensors")
    record(folder, "01_train_ann", [], ["ann.safetensors"])
    other = runs.run_folder("a-later-one", create=True)
    (other / "other").write_text("")
    record(other, "01_train_ann", [], ["other"])
    assert runs.latest_run("other") == "a-later-one"
    assert runs.latest_run("ann.safetensors") == "one"
    assert runs.list_runs() == ["a-later-one", "one"]


def test_the_manifest_holds_what_is_needed_to_repeat_a_stage(folder: Path) -> None:
    record(folder, "01_train_ann", [], ["ann.safetensors"], seconds=1.5, metrics={"accuracy": 0.5}, device="cpu")
    stage = json.loads((folder / "manifest.json").read_text())["stages"]["01_train_ann"]
    assert stage["parameters"] == {"seed": 3} and stage["seed"] == 3
    assert stage["seconds"] == 1.5 and stage["metrics"] == {"accuracy": 0.5} and stage["device"] == "cpu"
    assert {"python", "torch", "numpy"} <= set(stage["versions"])
    assert {"commit", "dirty"} == set(stage["git"])
    assert stage["machine"]["torch_threads"] >= 1 and stage["machine"]["processor"]
    assert len(stage["artifacts"]["ann.safetensors"]) == 64 and not stage["stale"]


def test_stages_are_recorded_beside_each_other_and_a_second_record_replaces_the_first(folder: Path) -> None:
    record(folder, "02_quantize", ["ann.safetensors"], ["qann.safetensors"])
    record(folder, "01_train_ann", [], ["ann.safetensors"], seconds=1)
    record(folder, "01_train_ann", [], ["ann.safetensors"], seconds=2)
    stages = read_manifest(folder).stages
    assert list(stages) == ["01_train_ann", "02_quantize"] and stages["01_train_ann"].seconds == 2


def test_a_missing_file_is_named_and_nothing_is_recorded(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="snn.safetensors"):
        record(folder, "03_convert", ["qann.safetensors"], ["snn.safetensors"])
    assert not (folder / "manifest.json").exists()


def test_an_input_that_was_changed_behind_the_manifest_makes_a_stage_stale(folder: Path) -> None:
    record(folder, "01_train_ann", [], ["ann.safetensors"])
    (folder / "ann.safetensors").write_text("another")
    with pytest.warns(UserWarning, match="ann.safetensors is not the file that 01_train_ann recorded"):
        stage = record(folder, "02_quantize", ["ann.safetensors"], ["qann.safetensors"])
    assert stage.stale
    (folder / "snn.safetensors").write_text("snn")
    with pytest.warns(UserWarning, match="outdated input"):
        stage = record(folder, "03_convert", ["qann.safetensors"], ["snn.safetensors"])
    assert stage.stale


def test_running_an_earlier_stage_again_shows_which_later_ones_are_outdated(folder: Path) -> None:
    record(folder, "01_train_ann", [], ["ann.safetensors"])
    record(folder, "02_quantize", ["ann.safetensors"], ["qann.safetensors"])
    assert read_manifest(folder).stale_stages() == []
    (folder / "ann.safetensors").write_text("trained anew")
    record(folder, "01_train_ann", [], ["ann.safetensors"])
    assert read_manifest(folder).stale_stages() == ["02_quantize"]


def test_a_stage_is_current_until_its_request_inputs_or_artifacts_change(folder: Path) -> None:
    request = {"parameters": {"k": 0}, "code": "abc"}
    record(folder, "01_train_ann", [], ["ann.safetensors"])
    record(folder, "02_quantize", ["ann.safetensors"], ["qann.safetensors"])
    assert not is_current(folder, "02_quantize", request)
    record(folder, "02_quantize", ["ann.safetensors"], ["qann.safetensors"], request=request)
    assert is_current(folder, "02_quantize", request)
    assert not is_current(folder, "02_quantize", {**request, "code": "abd"})
    for name in ("ann.safetensors", "qann.safetensors"):
        before = (folder / name).read_text()
        (folder / name).write_text("changed")
        assert not is_current(folder, "02_quantize", request)
        (folder / name).write_text(before)
        assert is_current(folder, "02_quantize", request)
    record(folder, "02_quantize", ["ann.safetensors"], ["qann.safetensors"])
    assert not is_current(folder, "02_quantize", request), "made by hand since"


def test_a_stage_is_current_until_its_images_change(folder: Path, tmp_path: Path) -> None:
    images = images_of(folder, {"dataset": str(image_folder(tmp_path))}, ())
    record(folder, "01_train_ann", [], ["ann.safetensors"], request={"code": "a"}, images=images)
    assert is_current(folder, "01_train_ann", {"code": "a"})
    moved = tmp_path / "images" / "test" / "dark" / "0.png"
    moved.rename(tmp_path / "images" / "test" / "light" / "moved.png")
    assert not is_current(folder, "01_train_ann", {"code": "a"})
    (tmp_path / "images" / "test" / "light" / "moved.png").rename(moved)
    assert is_current(folder, "01_train_ann", {"code": "a"})
    shutil.rmtree(tmp_path / "images")
    assert not is_current(folder, "01_train_ann", {"code": "a"})


def test_a_stage_stands_on_the_images_that_its_inputs_were_made_from(folder: Path, tmp_path: Path) -> None:
    source = source_of({"dataset": str(image_folder(tmp_path))})
    assert images_of(folder, {}, ["ann.safetensors"]) is None
    save_tensors(folder / "ann.safetensors", {"a": torch.ones(1)}, {"source": source})
    images = images_of(folder, {}, ["qann.safetensors", "ann.safetensors"])
    assert images == Images(source, data_identity(source)) and images.identity["classes"] == ["dark", "light"]


def image_folder(place: Path) -> Path:
    """A data set of two classes with two images each in the training and the test set."""
    for split in ("train", "test"):
        for grey, name in ((60, "dark"), (190, "light")):
            (place / "images" / split / name).mkdir(parents=True)
            for number in range(2):
                Image.new("L", (6, 6), grey + number).save(place / "images" / split / name / f"{number}.png")
    return place / "images"


def kernel_that_ran(monkeypatch: pytest.MonkeyPatch, *cells: str) -> None:
    """Pretend that this process is a kernel that ran these cells, the last of them now."""
    history = SimpleNamespace(input_hist_raw=["", *cells])
    shell = SimpleNamespace(history_manager=history)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.delenv("ANN_SNN_BATCH", raising=False)


@pytest.mark.parametrize(
    "cells, known",
    [
        (["run = ''\nk = 0", "train()", "finish()"], True),
        (["run = ''\nk = 7  # mine", "train()\n", "finish()"], True),
        (["run = ''\nk = 0", "train(twice=True)", "finish()"], False),
        (["run = ''\nk = 0", "train()", "train()", "finish()"], False),
        (["run = ''\nk = 0", "finish()"], False),
        (["run = ''\nk = 0\ntrain = other", "train()", "finish()"], False),
        (["import os", "run = ''\nk = 0", "train()", "finish()"], False),
    ],
)
def test_a_stage_made_by_hand_is_that_of_the_saved_notebook_where_the_kernel_ran_just_its_cells(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: list[str], known: bool
) -> None:
    path = write_notebook(tmp_path / "02_quantize.ipynb", "run = ''\nk = 0", "train()", "finish()", "show()")
    monkeypatch.setenv("ANN_SNN_NOTEBOOK", str(path))
    kernel_that_ran(monkeypatch, *cells)
    stage = open_stage("02_quantize", {"run": "one", "k": 7}, ["ann.safetensors"])
    stage.finish(artifacts=["qann.safetensors"])
    request = request_of(path, {"k": 7})
    assert read_manifest(folder).stages["02_quantize"].request == (request if known else None)
    assert is_current(folder, "02_quantize", request) == known


def test_a_manifest_that_is_something_else_is_named(folder: Path) -> None:
    (folder / "manifest.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="manifest.json is not a manifest"):
        read_manifest(folder)


@pytest.fixture
def notebooks(tmp_path: Path) -> list[Path]:
    return [
        write_notebook(tmp_path / "01_train_ann.ipynb", 'run = ""\ndataset = "digits"\nseed = 0\nsize = 0'),
        write_notebook(tmp_path / "02_quantize.ipynb", 'run = ""\nk = 0\nternary = True\ntime_steps = 8'),
        write_notebook(tmp_path / "00_overview.ipynb", 'run = ""\ntime_steps = 10'),
    ]


def test_a_run_is_named_after_its_parameters(notebooks: list[Path]) -> None:
    assert runs.default_run_name({}, notebooks) == "digits-lenet-k0-ternary-s0"
    named = runs.default_run_name({"dataset": "mnist", "k": 2, "ternary": False, "seed": 5}, notebooks)
    assert named == "mnist-lenet-k2-int8-s5"


def test_runs_with_other_parameters_have_other_names(notebooks: list[Path]) -> None:
    settings: list[dict] = [
        {},
        {"size": 14},
        {"size": 20},
        {"dataset": "/a/pictures"},
        {"dataset": "/b/pictures"},
        {"network": "8C3-P2-10"},
        {"network": "8C3,P2,10"},
        {"time_steps": 8},
        {"time_steps": 10},
        {"other": 1},
        {"network": "64C3-" * 12 + "10"},
        {"network": "64C3-" * 12 + "11"},
    ]
    names = [runs.default_run_name(setting, notebooks) for setting in settings]
    assert len(set(names)) == len(settings)
    assert all(runs.check_run_name(name) for name in names)


def test_a_default_that_is_spelled_out_does_not_change_the_name(notebooks: list[Path]) -> None:
    spelled = runs.default_run_name({"size": 0, "run": "x", "dataset": "digits"}, notebooks)
    assert spelled == runs.default_run_name({}, notebooks)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    package = tmp_path / "pack"
    rooms = ("ann/train", "simulator/run", "simulator/events/loop", "hardware/readers/run", "figures/run")
    for name in ("__init__", "files", *rooms):
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1")
    return package


def digest_of(tmp_path: Path, package: Path, code: str) -> str:
    notebook = write_notebook(tmp_path / "01_x.ipynb", 'run = ""', code)
    return provenance.code_digest(notebook, package, {"train": "ann.train", "show": "figures.run"})


@pytest.mark.parametrize(
    "code, changed, changes",
    [
        ("from pack.ann.train import x", "ann/train.py", True),
        ("from pack.ann.train import x", "files.py", True),
        ("from pack.ann.train import x", "simulator/run.py", False),
        ("from pack import train", "ann/train.py", True),
        ("from pack import train", "simulator/run.py", False),
        ("from pack.simulator import run", "ann/train.py", True),
        ("from pack.simulator import run", "simulator/events/loop.py", True),
        ("from pack.simulator import run", "simulator/events/kernel.h", True),
        ("from pack.hardware import readers", "hardware/readers/bench.v", True),
        ("from pack.hardware import readers", "hardware/readers/README.md", True),
        ("import pack.ann.train as t", "simulator/run.py", False),
        ("from pack import unknown", "simulator/run.py", True),
        ("from pack import *", "simulator/run.py", True),
        ("import pack", "simulator/run.py", True),
        ("%time 1\nfrom pack.figures import run", "figures/run.py", False),
        ("from pack import show, figures", "files.py", False),
        ("import packed, numpy", "files.py", False),
    ],
)
def test_the_digest_of_a_notebook_follows_the_rooms_it_computes_with(
    tmp_path: Path, package: Path, code: str, changed: str, changes: bool
) -> None:
    before = digest_of(tmp_path, package, code)
    assert before == digest_of(tmp_path, package, code)
    (package / changed).write_text("changed = True")
    assert (digest_of(tmp_path, package, code) != before) == changes


def test_every_room_either_computes_or_shows_and_those_that_compute_stand_in_the_order_of_their_imports() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    layers = [re.split(r" [|:] ", layer) for layer in reversed(contract["layers"])]
    rooms = [room for layer in layers for room in layer]
    assert {*rooms} == {*provenance._COMPUTING, *provenance._SHOWING}
    places = [next(n for n, layer in enumerate(layers) if room in layer) for room in provenance._COMPUTING]
    assert places == sorted(places)


def test_the_digest_changes_with_the_notebook_itself(tmp_path: Path, package: Path) -> None:
    assert digest_of(tmp_path, package, "a = 1") != digest_of(tmp_path, package, "a = 2")


def test_a_folder_that_is_no_repository_has_no_commit(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) == {"commit": None, "dirty": None}
