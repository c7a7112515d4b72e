"""The latency of the sliders is measured on moves that are moves; how long they take is not judged here."""

from __future__ import annotations

import pytest
import torch
from networks import random_ann, random_images

from ann_snn_utils import latency
from ann_snn_utils.convert import convert
from ann_snn_utils.data import Dataset
from ann_snn_utils.gallery import Network


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    monkeypatch.delenv("PLOTLY_RENDERER", raising=False)


@pytest.fixture
def network() -> Network:
    ann = random_ann(3, clip=2)
    samples = Dataset("random", "test", random_images(3, (1, 8, 8), 12), torch.arange(12) % 3, ("a", "b", "c"))
    return Network("net3", ann, convert(ann), samples)


def test_every_move_of_every_slider_is_measured(network):
    found = latency.slider_latencies(network, samples=8, time_steps=4, repeats=5)
    assert [len(one.milliseconds) for one in found] == [5] * 4 and [one.goal for one in found] == [100] * 3 + [500]
    assert all(time > 0 for one in found for time in one.milliseconds)


def test_every_move_of_the_threshold_slider_runs_the_network(network, monkeypatch):
    ran, run = [], latency.accuracy_lab.__globals__["run_trial"]
    monkeypatch.setitem(
        latency.accuracy_lab.__globals__, "run_trial", lambda *words: ran.append(words[2]) or run(*words)
    )
    latency.slider_latencies(network, samples=8, time_steps=4, repeats=9)
    # The undisturbed network first, then a move away from the first value, then the nine that are measured.
    assert len(ran) == 1 + 1 + 9 and not ran[0].disturbed and all(setting.disturbed for setting in ran[1:])


def test_the_table_shows_medians_and_quartiles_beside_the_goals(network):
    table = latency.latency_table(network, [latency.Latency("a slider", 100, (1.0, 2.0, 3.0, 4.0, 50.0))])
    assert table.splitlines()[0].startswith("net3, ") and table.splitlines()[-1].split() == [
        "a", "slider", "3.0", "2.0", "…", "4.0", "5", "<", "100"
    ]  # fmt: skip


def test_without_mnist_the_network_on_digits_is_taken(monkeypatch):
    opened = []

    def open_network(name):
        opened.append(name)
        if "mnist" in name:
            raise FileNotFoundError("mnist is not here")
        return name

    monkeypatch.setattr(latency, "open_network", open_network)
    assert latency.pick_network() == "bundled: digits-lenet-k0" and len(opened) == 2
    assert latency.pick_network("a-run") == "a-run"


@pytest.mark.parametrize("wrong", [{"repeats": 1}, {"time_steps": 1}])
def test_too_few_moves_are_refused(network, wrong):
    with pytest.raises(ValueError, match="at least 2"):
        latency.slider_latencies(network, samples=8, **wrong)
