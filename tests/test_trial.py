"""A trial is what notebook 04 would run, in parts that report progress and can be stopped."""

from __future__ import annotations

import shlex

import numpy as np
import pytest
import torch
from networks import random_ann, random_images

from ann_snn_utils.data.dataset import Dataset
from ann_snn_utils.measure import trial as trial_module
from ann_snn_utils.measure.activity import accuracy
from ann_snn_utils.measure.energy import energy
from ann_snn_utils.measure.trial import Setting, run_trial
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.thresholds import scale_thresholds


@pytest.fixture
def samples(monkeypatch) -> Dataset:
    monkeypatch.setattr(trial_module, "CHUNK", 4)
    return Dataset("random", "test", random_images(3, (1, 8, 8), 10), torch.arange(10) % 3, ("a", "b", "c"))


@pytest.mark.parametrize(
    "setting",
    [
        Setting(10),
        Setting(7, threshold_scale=1.2),
        Setting(9, threshold_scale=(1.0, 0.8, 1.1, 1.3)),
        Setting(10, noise_ratio=0.7, seed=4),
        Setting(10, fault="flip", fault_rate=0.2, seed=5),
        Setting(10, threshold_scale=0.9, noise_ratio=0.3, fault="delete", fault_rate=0.1, seed=6),
    ],
)
def test_a_trial_in_parts_equals_one_run_over_all_its_samples(samples, setting):
    snn = convert(random_ann(3, clip=2))
    found = run_trial(snn, samples, setting, 6)
    scaled = scale_thresholds(snn, setting.threshold_scale)
    whole = simulate(
        scaled,
        samples.subset(range(setting.samples)),
        6,
        noise_ratio=setting.noise_ratio,
        fault=setting.fault or None,
        fault_rate=setting.fault_rate,
        seed=setting.seed,
    )
    assert torch.equal(found.record.logits, whole.logits)
    assert np.array_equal(found.accuracy, accuracy(whole))
    assert np.allclose(found.sops, whole.sop_num / setting.samples)
    assert np.allclose(found.effective_sops, whole.effective_sops.sum(1).cumsum() / setting.samples)
    assert found.energy[2] == energy(whole, scaled, time_steps=3).snn.total
    assert found.ann_energy == energy(whole, scaled).ann_int8.total


def test_progress_is_reported_between_the_parts(samples):
    shares = []
    run_trial(convert(random_ann(3)), samples, Setting(10), 3, shares.append)
    assert shares == [0, 0.4, 0.8, 1]


def test_a_report_that_raises_stops_the_trial(samples):
    def stop(share):
        if share > 0:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run_trial(convert(random_ann(3)), samples, Setting(10), 3, stop)


def options(line: str) -> dict[str, str]:
    words = shlex.split(line)
    return {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word in ("-p", "-r")}


def test_the_command_gives_notebook_04_the_setting_under_its_own_names():
    setting = Setting(256, 1.05, 0.3, "delete", 0.015, seed=7)
    line = setting.command("digits-lenet", 4)
    assert line.startswith("papermill notebooks/04_spike_analysis.ipynb ")
    assert options(line) == {
        "run": "digits-lenet",
        "time_steps": "4",
        "samples": "256",
        "seed": "7",
        "threshold_scale": "1.05",
        "noise_ratio": "0.3",
        "fault": "delete",
        "fault_rate": "0.015",
    }


def test_the_command_leaves_out_what_is_as_it_always_is():
    assert set(options(Setting(64).command("r", 8))) == {"run", "time_steps", "samples", "seed"}


def test_scales_of_the_layers_travel_as_yaml():
    line = Setting(64, (1.0, 0.95)).command("r", 8)
    assert shlex.split(line)[-2:] == ["-y", "threshold_scale: [1.0, 0.95]"]


def test_a_bundled_network_is_named_as_everywhere():
    assert options(Setting(64).command("bundled:digits-lenet-k0", 8))["run"] == "bundled:digits-lenet-k0"


def test_a_run_whose_name_looks_like_a_number_is_named_as_text():
    assert "-r run 2024" in Setting(64).command("2024", 8)
