"""The cost report counts what the definitions say, and agrees with the energy of the whole run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import chains, networks, random_ann, random_images

from ann_snn_utils.hardware.circuit import hardware
from ann_snn_utils.hardware.cost import cost_report, cost_table
from ann_snn_utils.measure.energy import ENERGY_45NM, energy
from ann_snn_utils.measure.events import layer_events, macs
from ann_snn_utils.measure.verdict import MODELS, estimate
from ann_snn_utils.simulator import oracle
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert


def report_of(ann, seed=1, samples=3, **arguments):
    snn = convert(ann, max_levels=512)
    images = random_images(seed, ann.spec.in_shape, samples)
    record = simulate(snn, images)
    return snn, images, record, cost_report(snn, hardware(snn), images, record, **arguments)


@tries(20)
@given(networks(), st.integers(0, 100))
def test_measured_work_is_never_more_than_the_worst_case(ann, seed):
    _, _, record, report = report_of(ann, seed)
    for layer in report["layers"]:
        for what in ("events", "additions", "threshold_updates", "cycles"):
            assert 0 <= layer[what]["measured"] <= layer[what]["worst_case"], what
    total = report["total"]
    assert total["events"]["measured"] * record.samples == pytest.approx((record.positive + record.negative).sum())
    assert report["steps"] == record.time_steps


@tries(8)
@given(chains(), st.integers(0, 100))
def test_cycles_are_the_spikes_that_reach_the_busiest_neuron_and_one_comparison_a_step(ann, seed):
    _, images, record, report = report_of(ann, seed)
    layers, _ = oracle.layers_of(ann)
    run = oracle.run(ann, images.numpy(), record.time_steps)
    for index, layer in enumerate(layers[1:], 1):
        synapses = replace(layer, weight=(layer.weight != 0).astype(np.int64))
        cycles = [
            oracle.convolve(synapses, np.abs(spikes)).reshape(len(images), -1).max(1) + 1
            for spikes in run.spikes[index - 1]
        ]
        assert report["layers"][index]["cycles"]["measured"] == pytest.approx(np.sum(cycles) / len(images))


def test_memory_is_the_bits_of_weights_constants_membranes_and_counts():
    snn, _, _, report = report_of(random_ann(2, network="3C3-P2-5", clip=2))
    circuit = hardware(snn)
    first, second = report["layers"][0], report["layers"][1]
    assert first["memory_bits"]["weights"] == 8 * 3 * 9 and second["memory_bits"]["weights"] == 2 * 3 * 3 * 4
    assert first["memory_bits"]["counts"] == 0 and second["memory_bits"]["counts"] == 2 * second["neurons"]
    for layer, entry in zip(circuit.layers, report["layers"], strict=True):
        assert entry["memory_bits"]["membranes"] == layer.membrane_bits * layer.layer.neurons
        assert entry["adders"] == layer.layer.neurons
    assert [layer["dense"]["macs"] for layer in report["layers"]] == macs(snn.spec)[:-1]


def test_weights_behind_an_average_are_stored_once_by_a_dense_network_and_for_each_place_by_the_circuit():
    snn, _, record, report = report_of(random_ann(1, network="3C3-A2-4C2-A2", in_shape=(1, 12, 12), clip=2))
    events = layer_events(record, snn)
    for found, entry, weights, neurons, bits in (
        (events[1], report["layers"][1], 4 * 3 * 2 * 2, 4 * 4 * 4, 2),
        (events[2], report["classifier"], 3 * 4 * 2 * 2, 0, 8),
    ):
        norms = 64 * 4 * bool(neurons)
        assert found.weights == weights
        assert entry["dense"]["memory_bits"]["int8"] == 8 * (weights + neurons) + norms
        assert entry["memory_bits"]["weights"] == 4 * bits * weights
    assert report["layers"][1]["dense"]["cycles"] == 3 * 2 * 2


def test_branches_that_are_added_keep_their_gains_and_multiply_by_them_once_a_step():
    snn, _, record, report = report_of(random_ann(3, network="2C3-[2C3-3C1]-4", in_shape=(1, 6, 6), padding="same"))
    assert any(one.gain is not None for layer in snn.layers for one in layer.synapses)
    for layer, entry in list(zip(snn.layers, report["layers"], strict=True))[1:]:
        gains = [one.gain for one in layer.synapses if one.gain is not None]
        assert entry["multiplications"] == len(gains) * layer.neurons * record.time_steps
        assert ("gains" in entry["memory_bits"]) == bool(gains)
    table = cost_table(report)
    assert "gains" in table and "gains" not in cost_table(report_of(random_ann(3))[3])


def test_energy_is_that_of_the_run_under_every_set_of_constants():
    other = replace(ENERGY_45NM, name="free adds", int8_add=0.0, int32_add=0.0)
    snn, _, record, report = report_of(random_ann(4), constants=(ENERGY_45NM, other))
    for constants, entry in zip((ENERGY_45NM, other), report["energy"], strict=True):
        whole = energy(record, snn, constants)
        assert entry["snn_picojoules"]["total"] == pytest.approx(whole.snn.total)
        assert entry["ann_int8"]["picojoules"] == pytest.approx(whole.ann_int8.total)
        assert entry["constants"] == constants.name
    assert report["energy"][1]["ann_int8"]["break_even_steps"] is None, "steps that cost nothing never break even"


def test_the_break_even_is_where_steps_of_the_mean_cost_add_up_to_the_dense_network():
    snn, _, record, report = report_of(random_ann(5))
    entry = report["energy"][0]
    parts, steps = entry["snn_picojoules"], entry["ann_int8"]["break_even_steps"]
    each = (parts["total"] - parts["encoder"]) / record.time_steps
    assert parts["encoder"] + steps * each == pytest.approx(entry["ann_int8"]["picojoules"])
    spent, dense = entry["snn_picojoules_until_step"], entry["ann_int8"]["picojoules"]
    first = next((t for t, cost in enumerate(spent, 1) if cost > dense), None)
    assert entry["ann_int8"]["exceeded_at"] == first


def test_energy_with_memory_is_told_by_layer_and_step_and_adds_up():
    snn, _, record, report = report_of(random_ann(4))
    report = json.loads(json.dumps(report))
    for model, how in MODELS.items():
        told, found = report["energy_by_model"][model], estimate(layer_events(record, snn), how)
        assert told["picojoules"] == pytest.approx(found.total)
        parts = {part: np.array(cost) for part, cost in told["layers"].items()}
        assert {cost.shape for cost in parts.values()} == {(len(snn.layers) + 1, record.time_steps)}
        assert sum(cost.sum() for cost in parts.values()) == pytest.approx(found.total)
        for rival, dense in told["dense"].items():
            assert sum(map(sum, dense["layers"].values())) == pytest.approx(dense["picojoules"])
            assert dense["picojoules"] == pytest.approx(found.totals[rival])
    assert "| Lemaire et al. |" in cost_table(report) and "Yan et al." in cost_table(report)


def test_the_tables_show_every_layer_and_the_sums():
    _, _, _, report = report_of(random_ann(6))
    text = cost_table(report)
    for layer in report["layers"]:
        assert f"{layer['name']} |" in text
    assert f"{report['total']['memory_bits']['snn']:,}" in text and "45 nm" in text


def test_scores_of_a_classifier_are_as_wide_as_what_its_bias_adds():
    snn, images, record, _ = report_of(random_ann(1, clip=1))
    bits = layer_events(record, snn)[-1].membrane_bits
    biased = replace(snn, bias=torch.full((snn.spec.classes,), -(2**20)))
    assert bits < 20 and layer_events(simulate(biased, images), biased)[-1].membrane_bits == 22
