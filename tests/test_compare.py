"""Runs side by side: settings under human names, seeds together, differences from the baseline."""

from __future__ import annotations

import math

import msgspec
import pytest
from outcomes import outcome, results

from ann_snn_utils.files import load_json, save_json
from ann_snn_utils.runs.compare import (
    baseline_of,
    by_setting,
    compare,
    cost_curves,
    describe,
    differences,
    effects,
    far_apart,
    in_words,
    most_alike,
    neuron_forms,
    result_row,
)
from ann_snn_utils.runs.manifest import read_manifest
from ann_snn_utils.runs.results import RunResult, load_results
from ann_snn_utils.runs.stage import open_stage
from ann_snn_utils.tables import aligned, cell, markdown_table

pytestmark = pytest.mark.usefixtures("runs")


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def runs(*given: dict, **changed) -> dict:
    return {str(i): outcome(str(i), changed.get(f"r{i}"), **one) for i, one in enumerate(given)}


def shares(accuracy: float) -> dict:
    return {"accuracy": {"ann": 0.98, "qann": accuracy, "snn": {"1": 0.5, "silence": accuracy}}}


def test_settings_are_named_by_what_they_have_other_than_the_most_usual_one_nearest_first():
    clips = [{"levels": 1, "clip": 1}, {"ternary": False}, {"clip": 4}, {"clip": 2}, {}, {"k": 1}]
    frame = compare(runs(*clips, {"k": 1, "int8_ends": False}))
    assert list(frame.setting) == [
        "baseline",
        "k = 1",
        "int8",
        "clip 2",
        "clip 4",
        "k = 1, full-precision ends",
        "1 level, clip 1",
    ]
    assert list(frame.varies[:4]) == ["", "k", "ternary", "clip"] and frame.index[0] == "4"


def test_the_baseline_is_the_setting_of_a_bundled_network_where_it_is_among_the_runs():
    given = {"clip": 2, "label_smoothing": 0.1}
    found = {name: outcome(name, **given) for name in ("a", "b")}
    assert baseline_of(found)["clip"] == 2
    found["mnist-lenet-k0-ternary-s0-6165d83c"] = outcome("mnist-lenet-k0-ternary-s0-6165d83c")
    assert list(compare(found).setting) == ["baseline", *["label smoothing 0.1, clip 2"] * 2]
    assert describe(baseline_of(found)) == "8C5-10, k = 0, ternary, 1 + 1 epochs"


@pytest.mark.parametrize(
    "parameter, value, words",
    [
        ("levels", 1, "1 level"),
        ("levels", 2, "2 levels"),
        ("clip", 0, "no clip"),
        ("crop", 24, "24×24 crops"),
        ("qann_optimizer", "adamw", "then AdamW"),
        ("network", "vgg", "VGG"),
        ("03_convert.seed", 3, "03 convert.seed 3"),
    ],
)
def test_parameters_have_names_that_people_use(parameter, value, words):
    assert in_words(parameter, value) == words


def test_a_row_holds_percentages_and_only_the_steps_that_were_run():
    row = result_row(results(accuracy=0.97))
    assert (row["ANN"], row["quantized"], row["T = 1"], row["silence"]) == (99.0, 97.0, 50.0, 97.0)
    assert math.isnan(row["T = 8"]) and row["spikes"] == 12.5 and row["µJ"] == 4.0


def test_seeds_of_one_setting_are_averaged_and_settings_are_not_mixed():
    table = by_setting(compare(runs({}, {"seed": 1}, {"k": 1}, r0=shares(0.96), r1=shares(0.98), r2=shares(0.9))))
    found = [(setting, row.runs, plain(row.quantized), row["T = 8"]) for setting, row in table.iterrows()]
    assert found == [("baseline", "2", "97.00 ± 1.41", "–"), ("k = 1", "1", "90.00", "–")]


def test_another_version_of_the_code_is_no_setting_and_another_method_is():
    found = {"a": outcome("a"), "b": outcome("b", code="c1", seed=1), "c": outcome("c", {"method": 2}, seed=2)}
    assert list(compare(found).setting) == ["baseline", "baseline", "method 2"]


def test_the_same_run_under_two_names_is_not_counted_as_two_seeds():
    assert list(by_setting(compare(runs({}, {}))).runs) == ["2 of 1 seeds"]


def test_settings_that_are_called_alike_are_told_apart_all_the_same():
    one, two, zero = ({"fault": fault, "fault_rate": 0.1} for fault in ("delete", None, 0))
    frame = compare(runs({}, {"seed": 1}, one, two))
    assert sorted(frame.setting) == ["baseline", "baseline", "delete spikes, fault rate 0.1", "fault rate 0.1"]
    twice = compare(runs({}, {"seed": 1}, one, two, zero))
    assert len(set(twice.setting)) == 4
    assert set(compare(runs({}, {"fault": "delete", "fault_rate": 0.0})).setting) == {"baseline"}


def test_results_whose_network_was_made_anew_since_are_a_setting_of_their_own():
    found = runs({}, {"seed": 1})
    found["1"].manifest.stages["02_quantize"].stale = True
    assert list(compare(found).setting) == ["baseline", "outdated 1"]


def test_the_seed_of_any_stage_is_no_setting():
    found = runs({}, {"seed": 1})
    found["1"].manifest.stages["04_spike_analysis"].parameters = {"seed": 0}
    assert set(compare(found).setting) == {"baseline"}


def test_a_parameter_that_a_notebook_did_not_take_yet_had_its_default():
    assert set(compare(runs({}, dict(seed=1, label_smoothing=0.0, crop=0))).setting) == {"baseline"}
    assert set(compare(runs({}, dict(crop=24))).setting) == {"baseline", "24×24 crops"}


def test_padding_that_is_left_empty_is_the_networks_own():
    found = runs({"padding": ""}, {"padding": "valid", "seed": 1}, {"padding": "same"})
    assert sorted(compare(found).setting) == ["baseline", "baseline", "padding same"]


def test_epochs_are_those_that_were_made_whatever_was_asked_for():
    found = runs({"qann_epochs": 0}, {"qann_epochs": 1, "seed": 1}, {"qann_epochs": 0, "seed": 2})
    found["2"].manifest.stages["02_quantize"].metrics["history"] *= 3
    assert sorted(compare(found).setting) == ["1 + 3 epochs", "baseline", "baseline"]


def test_results_on_other_images_of_one_source_are_a_setting_of_their_own():
    found = runs({}, {"seed": 1}, {"seed": 2, "limit": 50})
    for run, images in (("0", "a"), ("1", "b"), ("2", "c")):
        found[run].manifest.stages["01_train_ann"].metrics["data"] = {"test": images}
    frame = compare(found)
    assert frame.setting["0"] == "baseline" and frame.setting["1"].startswith("images ")
    found["1"].manifest.stages["01_train_ann"].metrics["data"] = {"test": "a"}
    assert list(compare(found).setting) == ["baseline", "baseline", "50 images"]


def test_an_effect_is_the_difference_from_the_baseline_of_the_same_seed_or_from_its_mean():
    changed = {f"r{i}": shares(value) for i, value in enumerate((0.90, 0.94, 0.91, 0.99))}
    frame = compare(runs({}, {"seed": 1}, {"clip": 2, "seed": 1}, {"clip": 2, "seed": 7}, **changed))
    found = effects(frame)
    assert list(found.varies) == ["clip", "clip"] and list(found.setting) == ["clip 2", "clip 2"]
    assert list(found.silence) == pytest.approx([-3, 7]) and found["T = 2"].isna().all()


def test_costs_are_means_over_runs_step_by_step_and_settled_runs_keep_theirs():
    cheap = {"energy_over_time": [1e6, 1e6], "sops_over_time": [0.0, 0.0], "accuracy_over_time": [0.1, 0.6]}
    found = runs({}, {"seed": 1}, r1=cheap)
    (points,) = cost_curves(compare(found)).values()
    assert [cost for cost, _ in points] == [1.5e6, 2e6, 2.5e6] and points[0][1] == pytest.approx(0.3)
    (points,) = cost_curves(compare(runs({})), "sops").values()
    assert [cost for cost, _ in points] == [600.0, 1200.0, 1234.0]
    del found["0"].results["energy_over_time"]
    assert [cost for cost, _ in cost_curves(compare(found))["baseline"]] == [1e6, 1e6]


def test_what_is_drawn_in_colour_is_the_baseline_the_run_and_what_differs_most_from_the_baseline():
    curves = [[0.9], [0.1], [0.8], [0.9], [0.5]]
    changed = {f"r{i}": {"accuracy_over_time": c, "sops_over_time": c} for i, c in enumerate(curves)}
    found = runs(
        {},
        {"k": 1},
        {"k": 2},
        {"k": 3},
        {"k": 4},
        **{n: c | {"energy_over_time": None} for n, c in changed.items()},
    )
    assert far_apart(compare(found), "3", most=4) == ["baseline", "k = 3", "k = 1", "k = 4"]
    assert far_apart(compare(found), "3", "4", most=4) == ["baseline", "k = 3", "k = 4", "k = 1"]


def test_two_runs_are_told_apart_by_parameters_and_seed():
    found = runs({"clip": 2}, {"seed": 1}, {"clip": 2, "seed": 3})
    table = differences(found["0"], found["1"])
    assert list(table.index) == ["clip", "seed"] and list(table["0"]) == [2, 0] and list(table["1"]) == [0, 1]
    assert most_alike(found, found["0"]) is found["1"] and most_alike({"0": found["0"]}, found["0"]) is None


def test_a_table_separates_thousands_and_marks_what_is_missing():
    assert markdown_table([{"a": "x|y"}]).split("\n")[-1] == r"| x\|y |"
    lines = markdown_table([{"a": 1234.5, "b": 0.126}, {"a": True, "b": math.nan}]).split("\n")
    assert lines == ["| a | b |", "|---|---|", "| 1,234 | 0.13 |", "| True | – |"]


def test_lines_are_aligned_and_a_remark_widens_no_column():
    rows = [("run", "SNN %", "n"), ("long name", "9.1", "10"), ("b", "no results yet")]
    assert aligned(rows) == ["  run        SNN %   n", "  long name    9.1  10", "  b          no results yet"]


def test_forms_of_the_neuron_stand_side_by_side_with_how_many_runs_they_are_of():
    curves = {"accuracy_by_thresholds": {"exact": [0.5, 0.75], "published": [0.5, 0.5]}}
    found = runs(
        {}, {"seed": 1}, {"seed": 2}, r0=curves, r2=curves | {"accuracy_without_negative_spikes": [0.25, 0.25]}
    )
    forms = neuron_forms(found, compare(found))
    assert [(r.neuron, r.runs, plain(r["T = 1"]), plain(r["T = 2"])) for _, r in forms.iterrows()] == [
        ("exact thresholds", 2, "50.00 ± 0.00", "75.00 ± 0.00"),
        ("published thresholds", 2, "50.00 ± 0.00", "50.00 ± 0.00"),
        ("no spike taken back", 1, "25.00", "25.00"),
    ]


def test_forms_of_the_neuron_are_averaged_over_runs_on_as_many_images_only():
    few, many = ({"accuracy_by_thresholds": {"exact": [0.5]}, "samples_of_forms": n} for n in (10, 500))
    found = runs({}, {"seed": 1}, {"seed": 2}, r0=few, r1=many, r2=many)
    forms = neuron_forms(found, compare(found))
    assert [(row.images, row.runs) for _, row in forms.iterrows()] == [(10, 1), (500, 2)]


def notebook(text: str, folder, name: str) -> None:
    save_json(
        folder / f"{name}.ipynb",
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {},
            "cells": [
                {
                    "id": "a",
                    "cell_type": "code",
                    "metadata": {"tags": ["parameters"]},
                    "source": text,
                    "outputs": [],
                    "execution_count": None,
                }
            ],
        },
    )


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("ann_snn_utils.runs.stage.NOTEBOOKS", tmp_path)
    notebook('run = ""\nseed = 0\n', tmp_path, "01_train_ann")
    notebook('run = ""\nseed = 0\n', tmp_path, "02_quantize")
    return tmp_path


def test_a_stage_records_its_parameters_and_its_results(place):
    stage = open_stage("01_train_ann", {"run": "r", "seed": 4, "other": object()})
    stage.finish(results=results(), metrics={"correct": 90})
    recorded = read_manifest(stage.folder).stages["01_train_ann"]
    assert recorded.parameters == {"run": "r", "seed": 4} and recorded.metrics == {"correct": 90}
    assert load_json(stage.folder / "results.json")["run"] == "r" and list(load_results()) == ["r"]


def test_a_stage_records_what_took_the_place_of_parameters_that_were_left_open(place):
    stage = open_stage("01_train_ann", {"run": "r", "seed": -1})
    stage.finish(parameters={"seed": 7})
    assert read_manifest(stage.folder).stages["01_train_ann"].parameters == {"run": "r", "seed": 7}


def test_a_run_of_before_there_were_recipes_is_compared_by_what_it_did():
    written_out = {"optimizer": "adamw", "learning_rate": 0.003, "label_smoothing": 0.0, "schedule": "one-cycle"}
    now = {"augmentation": "shift", "momentum": 0.0, "initialisation": "random"} | written_out
    assert set(compare({"a": outcome("a"), "b": outcome("b", **now)}).setting) == {"baseline"}
    mirrored = outcome("c", dataset="cifar10", augmentation="shift-flip")
    assert set(compare({"a": outcome("a", dataset="cifar10"), "c": mirrored}).setting) == {"baseline"}


def test_what_is_unusual_of_a_run_is_neither_a_default_nor_its_recipes():
    own = {"optimizer": "muon", "learning_rate": 0.003, "qann_learning_rate": 0.002, "label_smoothing": 0.2}
    own |= {"schedule": "linear", "momentum": 0.6, "initialisation": "whitened", "augmentation": "reflect-flip"}
    assert {"k", "seed"} & outcome("a").unusual.keys() == set()
    named = {"dataset", "network"}
    assert outcome("a", dataset="cifar10", **own).unusual.keys() <= named
    changed = outcome("a", dataset="cifar10", **own | {"momentum": 0.9, "clip": 3})
    assert changed.unusual.keys() - named == {"momentum", "clip"}
    assert outcome("a", dataset="mnist", **own).unusual["optimizer"] == "muon"


def test_an_empty_run_takes_the_latest_one_that_has_the_input(place):
    stage = open_stage("01_train_ann", {"run": "first", "seed": 0})
    (stage.folder / "ann.safetensors").write_bytes(b"x")
    stage.finish(artifacts=["ann.safetensors"])
    assert open_stage("02_quantize", {"run": "", "seed": 0}, ["ann.safetensors"]).folder == stage.folder


def test_a_missing_input_names_the_notebook_that_makes_it(place):
    open_stage("01_train_ann", {"run": "r", "seed": 0})
    with pytest.raises(FileNotFoundError, match="01_train_ann makes it"):
        open_stage("02_quantize", {"run": "r", "seed": 0}, ["ann.safetensors"])


def trained_elsewhere(run: str) -> RunResult:
    """The results of a network of two layers that no run trained."""
    trained = outcome(run)
    alone = {"04_spike_analysis": trained.manifest.stages["04_spike_analysis"]}
    alone["04_spike_analysis"] = msgspec.structs.replace(alone["04_spike_analysis"], parameters={})
    accuracy = {name: value for name, value in trained.results["accuracy"].items() if name != "ann"}
    of_graph = {"network": '{"layers":[{}, {}]}', "k": 0, "ternary": False, "accuracy": accuracy}
    return RunResult(run, trained.results | of_graph, msgspec.structs.replace(trained.manifest, stages=alone))


def test_of_a_network_that_was_trained_elsewhere_nothing_is_said_but_what_it_is_and_its_name():
    row = compare({"a": outcome("a"), "b": outcome("b"), "own": trained_elsewhere("own")}).loc["own"]
    assert row.setting == "graph of 2 layers, int8, trained elsewhere, run own" and math.isnan(row["ANN"])


def test_two_networks_that_were_trained_elsewhere_are_not_two_seeds_of_one_training():
    table = by_setting(compare({"one": trained_elsewhere("one"), "other": trained_elsewhere("other")}))
    assert list(table.runs) == ["1", "1"] and len(set(table.index)) == 2


def test_a_number_that_rounds_to_zero_has_no_sign():
    assert [cell(-0.001), cell(0.0), cell(-0.006)] == ["0.00", "0.00", "-0.01"]
