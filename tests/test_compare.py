"""Runs side by side, and a notebook's place in its run."""

from __future__ import annotations

import pytest
from outcomes import make_run, outcome, results

from ann_snn_utils.files import load_json, save_json
from ann_snn_utils.runs.compare import (
    ablations,
    all_outcomes,
    compare,
    cost_points,
    grouped,
    groups,
    held_out,
    neuron_forms,
    result_row,
)
from ann_snn_utils.runs.folder import open_stage, runs_root
from ann_snn_utils.runs.manifest import read_manifest
from ann_snn_utils.runs.outcome import collect
from ann_snn_utils.tables import markdown_table


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("ANN_SNN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("ANN_SNN_RESULTS", str(tmp_path / "results"))


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_many_settings_are_named_by_what_they_have_other_than_the_most_usual_one():
    clips = [{"k": 0, "levels": 4, "clip": clip} for clip in (0, 1, 2, 3)]
    others = [{"k": 1, "levels": 4, "clip": 0}, {"k": 2, "levels": 4, "clip": 0}, {"k": 1, "levels": 2, "clip": 0}]
    table = [{"run": str(at), **row} for at, row in enumerate(clips + others)]
    assert list(groups(table, ["k", "levels", "clip"])) == [
        "k=0 levels=4 clip=0",
        "clip=1",
        "clip=2",
        "clip=3",
        "k=1",
        "k=2",
        "k=1 levels=2",
    ]
    assert list(groups(table[:3], ["k", "levels", "clip"])) == ["clip=0", "clip=1", "clip=2"]


def test_a_row_holds_percentages_and_only_the_steps_that_were_run():
    row = result_row(results(accuracy=0.97))
    assert (row["ANN"], row["quantized"], row["T = 1"], row["silence"]) == (99.0, 97.0, 50.0, 97.0)
    assert "T = 8" not in row and row["spikes"] == 12.5 and row["energy / µJ"] == 4.0


def test_seeds_of_one_setting_are_grouped_and_settings_are_not_mixed():
    runs = [outcome("a", shares(0.96)), outcome("b", shares(0.98), seed=1)]
    runs.append(outcome("c", shares(0.9), k=1))
    comparison = compare({run.run: run for run in runs})
    table = grouped(comparison.rows, comparison.apart)
    found = [(row["k"], row["n"], plain(row["quantized"])) for row in table]
    assert found == [(0, 2, "97.00 ± 1.41"), (1, 1, "90.00")]


def shares(accuracy: float) -> dict:
    return {"accuracy": {"ann": 0.98, "qann": accuracy, "snn": {"1": 0.5, "silence": accuracy}}}


def test_the_same_run_under_two_names_is_not_counted_as_two_seeds():
    comparison = compare({name: outcome(name) for name in "ab"})
    assert grouped(comparison.rows, comparison.apart)[0]["n"] == "2 (1 seeds)"


def test_the_seed_of_any_stage_is_no_setting():
    comparison = compare({"a": outcome("a"), "b": outcome("b", seed=1)})
    comparison.outcomes["b"].manifest["stages"]["04_spike_analysis"]["parameters"] = {"seed": 0}
    assert compare(comparison.outcomes).apart == ["dataset", "network", "k"]


def test_a_parameter_that_a_notebook_did_not_take_yet_had_its_default():
    old, new = outcome("a"), outcome("b", seed=1, label_smoothing=0.0, crop=0)
    assert compare({"a": old, "b": new}).apart == ["dataset", "network", "k"]
    assert "crop" in compare({"a": old, "b": outcome("b", crop=24)}).apart


def test_a_table_separates_thousands_and_marks_what_is_missing():
    lines = markdown_table([{"a": 1234.5, "b": 0.126}, {"a": True}]).split("\n")
    assert lines == ["| a | b |", "|---|---|", "| 1,234 | 0.13 |", "| True | – |"]


def test_an_ablation_lets_one_parameter_vary_and_holds_the_others():
    given = [dict(k=0, clip=0), dict(k=1, clip=0), dict(k=1, clip=0, seed=1), dict(k=1, clip=2), dict(k=2, clip=4)]
    tables = ablations(compare({str(i): outcome(str(i), **one) for i, one in enumerate(given)}))
    assert {title: [(row[title.split(",")[0]], row["n"]) for row in table] for title, table in tables.items()} == {
        "k, with clip = 0": [(0, 1), (1, 2)],
        "clip, with k = 1": [(0, 2), (2, 1)],
    }


def test_an_ablation_tells_where_the_code_differs_too():
    (table,) = ablations(compare({"a": outcome("a"), "b": outcome("b", k=1, code="c1")})).values()
    assert [row["k"] for row in table] == [0, 1] and len({row["code"] for row in table}) == 2


def test_a_point_of_cost_is_the_mean_of_its_runs_at_each_step_before_silence():
    cheap = {"energy_over_time": [1e6, 1e6, 2e6], "energy_pj": {"snn": 2e6}, "accuracy_over_time": [0.1, 0.6, 0.9]}
    points = cost_points(compare({"a": outcome("a"), "b": outcome("b", cheap, seed=1)}))
    assert [point["name"] for point in points] == ["T = 1", "T = 2", "silence"]
    assert [point["cost"] for point in points] == [1.5e6, 2e6, 3e6]
    assert points[0]["accuracy"] == pytest.approx(0.3) and points[2]["runs"] == [(4e6, 0.98), (2e6, 0.9)]
    assert [point["cost"] for point in cost_points(compare({"a": outcome("a")}), "sops")] == [600.0, 1200.0, 1234.0]


def test_without_costs_over_time_there_is_the_point_at_silence():
    old = outcome("a")
    del old.results["energy_over_time"]
    assert [(point["name"], point["cost"]) for point in cost_points(compare({"a": old}))] == [("silence", 4e6)]


def test_a_local_run_wins_over_the_collected_one_of_its_name():
    collect(make_run("a", accuracy=0.4))
    collect(make_run("b", accuracy=0.5))
    make_run("a", accuracy=0.6)
    for name in ("results.json", "manifest.json"):
        (runs_root() / "b" / name).unlink()
    found = {name: outcome.results["accuracy"]["qann"] for name, outcome in all_outcomes().items()}
    assert found == {"a": 0.6, "b": 0.5}
    assert list(all_outcomes("b")) == ["b"] and list(all_outcomes("b, a")) == ["b", "a"]
    with pytest.raises(FileNotFoundError, match="no sweep 'c'"):
        all_outcomes("c, b")


def test_runs_on_held_out_images_are_told_from_those_on_the_test_set():
    assert held_out(outcome("a", held_out=5000)) == 5000 and held_out(outcome("a")) == 0


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
    monkeypatch.setattr("ann_snn_utils.runs.folder.FOLDER", tmp_path)
    notebook('run = ""\nseed = 0\n', tmp_path, "01_train_ann")
    notebook('run = ""\nseed = 0\n', tmp_path, "02_quantize")
    return tmp_path


def test_a_stage_records_its_parameters_and_its_results(place):
    stage = open_stage("01_train_ann", {"run": "r", "seed": 4, "other": object()})
    stage.finish(results=results(), metrics={"correct": 90})
    recorded = read_manifest(stage.folder)["stages"]["01_train_ann"]
    assert recorded["parameters"] == {"run": "r", "seed": 4} and recorded["metrics"] == {"correct": 90}
    assert load_json(stage.folder / "results.json")["run"] == "r" and list(all_outcomes()) == ["r"]


def test_a_stage_records_what_took_the_place_of_parameters_that_were_left_open(place):
    stage = open_stage("01_train_ann", {"run": "r", "seed": -1})
    stage.finish(parameters={"seed": 7})
    assert read_manifest(stage.folder)["stages"]["01_train_ann"]["parameters"] == {"run": "r", "seed": 7}


def test_a_run_of_before_there_were_recipes_is_compared_by_what_it_did():
    written_out = {"optimizer": "adamw", "learning_rate": 0.003, "label_smoothing": 0.0, "schedule": "one-cycle"}
    now = {"augmentation": "shift", "momentum": 0.0, "initialisation": "random"} | written_out
    assert compare({"a": outcome("a"), "b": outcome("b", **now)}).apart == ["dataset", "network", "k"]
    mirrored = outcome("c", dataset="cifar10", augmentation="shift-flip")
    assert compare({"a": outcome("a", dataset="cifar10"), "c": mirrored}).apart == ["dataset", "network", "k"]


def test_what_is_unusual_of_a_run_is_neither_a_default_nor_its_recipes():
    own = {"optimizer": "muon", "learning_rate": 0.003, "qann_learning_rate": 0.0012, "label_smoothing": 0.2}
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


def test_forms_of_the_neuron_stand_side_by_side_with_n():
    curves = {"accuracy_by_thresholds": {"exact": [0.5, 0.75], "published": [0.5, 0.5]}}
    runs = {
        "a": outcome("a", curves),
        "b": outcome("b", seed=1),
        "c": outcome("c", curves | {"accuracy_without_negative_spikes": [0.25, 0.25]}, seed=2),
    }
    found = [(r["neuron"], r["n"], plain(r["T = 1"]), plain(r["T = 2"])) for r in neuron_forms(compare(runs))]
    assert found == [
        ("exact thresholds", 2, "50.00 ± 0.00", "75.00 ± 0.00"),
        ("published thresholds", 2, "50.00 ± 0.00", "50.00 ± 0.00"),
        ("without negative spikes", 1, "25.00", "25.00"),
    ]
