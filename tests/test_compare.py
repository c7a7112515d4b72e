"""Runs side by side, and a notebook's place in its run."""

from __future__ import annotations

import pytest

from ann_snn_utils.artifacts import load_json, save_json
from ann_snn_utils.compare import all_results, grouped, markdown_table, rows
from ann_snn_utils.runs import read_manifest
from ann_snn_utils.stage import open_stage


def result(seed: int, accuracy: float, k: int = 0) -> dict:
    return {
        "dataset": "digits", "network": "8C5-10", "k": k, "seed": seed, "samples": 100, "mismatches": 0,
        "accuracy": {"ann": 0.98, "qann": accuracy, "snn": {"1": 0.5, "silence": accuracy}},
        "spikes_per_sample": 12.5, "sops_per_sample": 1234.0,
    }  # fmt: skip


def test_a_row_holds_percentages_and_only_the_steps_that_were_run():
    (row,) = rows([result(0, 0.97)])
    assert (row["ANN"], row["quantized"], row["T = 1"], row["silence"]) == (98.0, 97.0, 50.0, 97.0)
    assert "T = 8" not in row and row["spikes"] == 12.5


def test_seeds_of_one_setting_are_grouped_and_settings_are_not_mixed():
    table = grouped(rows([result(0, 0.96), result(1, 0.98), result(0, 0.9, k=1)]))
    assert [(row["k"], row["n"], row["quantized"]) for row in table] == [(0, 2, "97.00 ± 1.41"), (1, 1, "90.00")]


def test_a_table_separates_thousands_and_marks_what_is_missing():
    lines = markdown_table([{"a": 1234.5, "b": 0.126}, {"a": True}]).split("\n")
    assert lines == ["| a | b |", "|---|---|", "| 1,234 | 0.13 |", "| True | – |"]


def notebook(text: str, folder, name: str) -> None:
    save_json(folder / f"{name}.ipynb", {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
        {"id": "a", "cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": text, "outputs": [],
         "execution_count": None}]})  # fmt: skip


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ANN_SNN_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr("ann_snn_utils.stage.FOLDER", tmp_path)
    notebook('run = ""\nseed = 0\n', tmp_path, "01_train_ann")
    notebook('run = ""\nseed = 0\n', tmp_path, "02_quantize")
    return tmp_path


def test_a_stage_records_its_parameters_and_its_results(place):
    stage = open_stage("01_train_ann", {"run": "r", "seed": 4, "other": object()})
    stage.finish(results=result(4, 0.9), metrics={"correct": 90})
    recorded = read_manifest(stage.folder)["stages"]["01_train_ann"]
    assert recorded["parameters"] == {"run": "r", "seed": 4} and recorded["metrics"] == {"correct": 90}
    assert load_json(stage.folder / "results.json")["run"] == "r" and list(all_results()) == ["r"]


def test_an_empty_run_takes_the_latest_one_that_has_the_input(place):
    stage = open_stage("01_train_ann", {"run": "first", "seed": 0})
    (stage.folder / "ann.safetensors").write_bytes(b"x")
    stage.finish(artifacts=["ann.safetensors"])
    assert open_stage("02_quantize", {"run": "", "seed": 0}, ["ann.safetensors"]).folder == stage.folder


def test_a_missing_input_names_the_notebook_that_makes_it(place):
    open_stage("01_train_ann", {"run": "r", "seed": 0})
    with pytest.raises(FileNotFoundError, match="01_train_ann makes it"):
        open_stage("02_quantize", {"run": "r", "seed": 0}, ["ann.safetensors"])
