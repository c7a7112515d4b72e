"""What is kept and said of energy is what is measured: the README, the page, the sliders, the columns."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from networks import random_ann, random_images

from ann_snn_utils import explore
from ann_snn_utils.ann.store import list_pretrained
from ann_snn_utils.cli import main
from ann_snn_utils.data.dataset import Dataset
from ann_snn_utils.files import ROOT, save_json
from ann_snn_utils.measure.activity import results_at_silence
from ann_snn_utils.measure.memory import Lemaire
from ann_snn_utils.measure.verdict import MODELS, Yan, estimate, run_events_of
from ann_snn_utils.runs import energy as module
from ann_snn_utils.runs.compare import result_row
from ann_snn_utils.runs.gallery import Network
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

ANN = random_ann(3, clip=2)
SAMPLES = Dataset("random", "test", random_images(3, (1, 8, 8), 12), torch.arange(12) % 3, ("a", "b", "c"))
NETWORK = Network("random", ANN, convert(ANN), SAMPLES)


def test_the_readme_says_what_the_command_prints(capsys):
    assert main(["energy", "--sentence"]) == 0
    (kept,) = re.findall(
        r"<!-- ann-snn energy --sentence -->\n(.*?)<!-- end of energy -->",
        (ROOT / "README.md").read_text("utf-8"),
        re.S,
    )
    assert kept == capsys.readouterr().out, "put what `ann-snn energy --sentence` prints into README.md"


def test_the_page_is_what_the_command_prints(capsys):
    assert main(["energy"]) == 0
    page = ROOT / "data" / "energy" / "README.md"
    assert page.read_text("utf-8") == capsys.readouterr().out, "run `ann-snn energy > data/energy/README.md`"


def test_every_bundled_network_is_kept_and_agrees_with_what_was_recorded_with_it():
    kept, bundled = module.kept_energy(), list_pretrained()
    assert set(kept) == set(bundled)
    for name, summary in kept.items():
        accuracy = bundled[name]["correct"] / bundled[name]["samples"]
        # Energy is measured on 1,000 of the test images: four standard errors.
        of_a_sample = 4 * (accuracy * (1 - accuracy) / module.IMAGES) ** 0.5
        assert summary["accuracy_over_time"][-1] == pytest.approx(accuracy, abs=of_a_sample)
        for model, entry in summary["models"].items():
            assert len(entry["until_step"]) == len(summary["accuracy_over_time"])
            assert entry["saves"]["int8"] == pytest.approx(entry["pj"]["int8"] / entry["pj"]["snn"]), model


@pytest.mark.slow
def test_what_is_kept_of_the_digits_is_measured_again():
    from ann_snn_utils.runs.gallery import open_network

    again, kept = module.measure_energy(open_network("bundled:digits-lenet-k0")), module.kept_energy()
    for model, entry in kept["digits-lenet-k0"]["models"].items():
        found = again["models"][model]
        assert found["pj"] == pytest.approx(entry["pj"]) and found["until_step"] == pytest.approx(
            entry["until_step"]
        )
        assert found["saves"] == pytest.approx(entry["saves"])
        for rival, spread in entry["spread"].items():
            assert found["spread"][rival] == pytest.approx(spread)


def test_a_network_is_measured_and_told_in_tables():
    summary = json.loads(json.dumps(module.measure_energy(NETWORK)))
    text = module.energy_page({"random": summary})
    assert summary["images"] == 12 and "int8, zeros skipped" in text and "Dampfhoffer et al." in text
    saves = summary["models"]["lemaire"]["saves"]["int8"]
    assert f"**{saves:.3g}** (" in text or f"**{saves:.2g}** (" in text
    curves, silence = module.energy_curves({"random": summary})
    assert set(curves) == set(silence) == {"arithmetic only", "Lemaire et al.", "Yan et al."}
    costs = [cost for cost, _ in curves["Yan et al."]["random"]]
    assert costs == sorted(costs) and silence["Yan et al."]["random"][0] <= costs[-1] * (1 + 1e-9)


def test_networks_whose_images_are_not_here_keep_what_was_found(tmp_path, monkeypatch, capsys):
    file = tmp_path / "networks.json"
    save_json(file, {"far": {"images": 7}})

    def open_network(name):
        if name == "bundled:far":
            raise FileNotFoundError("no images")
        return NETWORK

    monkeypatch.setattr(module, "list_pretrained", lambda: ["far", "near"])
    monkeypatch.setattr(module, "open_network", open_network)
    found = module.measure_bundled(file)
    assert found == module.kept_energy(file) and found["far"] == {"images": 7} and found["near"]["images"] == 12
    assert "far: left as it is (no images)" in capsys.readouterr().out


def test_results_have_a_column_for_every_model_and_old_ones_are_read_without():
    record = simulate(NETWORK.snn, SAMPLES)
    new = results_at_silence(record, NETWORK.snn)
    own = estimate(run_events_of(record, NETWORK.snn).until_silence, MODELS["lemaire"])
    results = new | {"mismatches": 0, "accuracy": {"ann": 1.0, "qann": 1.0, "snn": {"silence": 1.0}}}
    row = result_row(results)
    assert row["µJ, lemaire"] == pytest.approx(own.total / 1e6)
    assert row["int8 / SNN, lemaire"] == pytest.approx(own.saves["int8"])
    assert {"µJ, yan", "int8 / SNN, arithmetic", "ternary / SNN, yan"} <= set(row)
    old = {name: value for name, value in results.items() if name != "energy_by_model"}
    assert set(row) - set(result_row(old)) == {name for name in row if "SNN, " in name or name.startswith("µJ, ")}


def test_the_bench_shows_the_model_and_constants_that_were_chosen():
    shown = explore.energy_bench(NETWORK)
    runs = run_events_of(simulate(NETWORK.snn, SAMPLES), NETWORK.snn)
    values = {control["name"]: control["value"] for control in shown.shown["controls"]}

    def energy_drawn(answer) -> float:
        figure = answer["figures"]["energy"]
        factor = {"pJ": 1, "nJ": 1e3, "µJ": 1e6}[
            re.search(r"\((.J)\)", figure["layout"]["xaxis"]["title"]["text"])[1]
        ]
        bars = [bar for bar in go.Figure(figure).data if bar.type == "bar"]
        return factor * sum(float(bar.x[list(bar.y).index("integer SNN")]) for bar in bars)

    assert energy_drawn(shown.shown) == pytest.approx(estimate(runs.until_silence, Lemaire()).total)
    moved = values | {"lemaire.membranes": "step", "lemaire.scale": 2.0}
    expected = estimate(runs.until_silence, Lemaire(membranes="step", scale=2.0))
    assert energy_drawn(shown.answer(moved, print)) == pytest.approx(expected.total)
    other = {"model": "yan", "yan.sparse_bit": 0.5, "run": "fixed T", "skip_zero_weights": False}
    expected = estimate(runs.fixed, Yan(sparse_bit=0.5, skip_zero_weights=False))
    found = shown.answer(values | other, print)
    assert energy_drawn(found) == pytest.approx(expected.total)
    assert f"<b>{expected.saves['int8']:.2f}</b>" in found["line"]
    assert all(control["label"] and control["help"] for control in shown.shown["controls"])


def test_no_number_of_a_summary_is_missing():
    def numbers(value):
        if isinstance(value, dict):
            return [n for item in value.values() for n in numbers(item)]
        return [n for item in value for n in numbers(item)] if isinstance(value, list) else [value]

    found = [n for n in numbers(module.measure_energy(NETWORK)) if not isinstance(n, str)]
    assert found and all(math.isfinite(n) for n in found) and np.array(found).dtype.kind == "f"
