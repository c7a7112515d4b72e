"""What a run reached, in numbers: those of the record itself, at each step."""

from __future__ import annotations

import json

import pytest
import torch
from networks import random_ann, random_images
from records import hand_made

from ann_snn_utils.measure.activity import STEPS, accuracy, correct, correct_at, results_at_silence
from ann_snn_utils.measure.energy import energy
from ann_snn_utils.measure.events import macs
from ann_snn_utils.measure.verdict import energy_summary
from ann_snn_utils.runs.evaluation import over_time
from ann_snn_utils.simulator.record import Record, merge
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert

SNN = convert(random_ann(3, clip=2))
RECORD = simulate(SNN, random_images(3, (1, 8, 8), samples=9), labels=torch.arange(9) % 3)


def test_after_silence_nothing_changes():
    right, at = correct(RECORD).tolist(), correct_at(RECORD, also=[5, 99])
    assert list(at) == ["1", "2", "3", "4", "5", "6", "8", "99", "silence"]
    assert at["1"] == right[0] and at["99"] == at["silence"] == right[-1]
    assert [at[str(step)] for step in STEPS] == [right[min(step, len(right)) - 1] for step in STEPS]


def test_what_is_reached_at_silence_is_not_said_of_a_run_that_ended_before():
    short = simulate(SNN, random_images(3, (1, 8, 8), samples=9), 2, labels=torch.arange(9) % 3)
    for told in (
        correct_at,
        lambda record: results_at_silence(record, SNN),
        lambda record: energy_summary(record, SNN),
    ):
        with pytest.raises(ValueError, match="9 of 9 images are not silent after 2 steps.*time_steps=None"):
            told(short)


def test_costs_are_those_of_one_sample_up_to_each_step():
    found = json.loads(json.dumps(results_at_silence(RECORD, SNN)))
    steps = RECORD.time_steps
    assert found["samples"] == 9 and found["accuracy_over_time"] == accuracy(RECORD).tolist()
    assert found["energy_over_time"][0] == energy(RECORD, SNN, time_steps=1).snn.total
    assert found["energy_over_time"][-1] == found["energy_pj"]["snn"] and len(found["energy_over_time"]) == steps
    assert found["sops_over_time"][-1] == found["sops_per_sample"] == pytest.approx(RECORD.sop_num[-1] / 9)
    assert found["macs_per_sample"] == sum(macs(SNN.spec)) and found["silence_step"] == int(RECORD.settled_at.max())
    assert found["accuracy"]["snn"]["silence"] == found["correct"]["snn"]["silence"] / 9


def test_a_table_adds_up_the_steps_once_however_many_there_are(monkeypatch):
    asked, sops = [], Record.sop_num.fget
    monkeypatch.setattr(Record, "sop_num", property(lambda record: asked.append(1) or sops(record)))
    first, *lines = over_time(merge([hand_made()], 1000, torch.tensor([0, 1]))).splitlines()
    assert first.split() == ["T", "correct", "accuracy", "silent", "spikes/image", "SOPs/image"]
    assert lines[0].split() == ["1", "1", "50.00", "%", "0", "2.0", "15"]
    assert lines[-1].split() == ["1000", "2", "100.00", "%", "1", "6.5", "24"]
    assert len(lines) == 1000 and len(asked) == 1
