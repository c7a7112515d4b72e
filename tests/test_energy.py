"""Operations and energy, worked out by hand for a network small enough to do so."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, astuple, replace

import numpy as np
import pytest
import torch
from networks import random_ann, random_images, with_weight
from records import hand_made

from ann_snn_utils.ann.network import build_ann
from ann_snn_utils.ann.notation import NETWORKS
from ann_snn_utils.measure.energy import ENERGY_45NM, EnergyConstants, energy
from ann_snn_utils.measure.events import macs
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.network import SNN, SpikingLayer, Synapses


def narrow_snn() -> SNN:
    """Layers of 4, 3 and 2 neurons over a 1×1 image: a wide encoder, one narrow and one wide membrane."""
    spec = build_ann("4-3-2", (1, 1, 1), 2, levels=2).spec
    layers = []
    for geometry, reach in zip(spec.layers, (32385, 126, 127), strict=True):
        out, inputs = geometry.out_shape[0], geometry.in_shape[0]
        layers.append(
            SpikingLayer(
                geometry,
                (Synapses(geometry.synapses[0][0], torch.ones(out, inputs, 1, 1, dtype=torch.int8)),),
                torch.ones(out, 1, dtype=torch.int64),
                torch.zeros(out, dtype=torch.int64),
                torch.full((out,), reach),
            )
        )
    return SNN(spec, tuple(layers), torch.ones(2, 2, 1, 1, dtype=torch.int8))


PLAIN = EnergyConstants(
    "made up", "this test", fp32_mac=1e6, fp32_add=1e5, int8_mac=1e3, int32_add=7.0, int8_add=1.0
)


def test_macs_are_those_of_a_dense_implementation():
    spec = build_ann("3C3-P2-5", (2, 8, 8), 4, padding="same").spec
    # 3 filters × 64 places × 2 channels × 9; then 3 × 16 × 3 × 4; then 5 × 3 × 16; then 5 inputs × 4 classes.
    assert macs(spec) == [3456, 576, 240, 20]


def test_macs_of_the_published_lenet():
    notation, padding = NETWORKS["lenet"]
    assert macs(build_ann(notation, (1, 28, 28), 10, padding=padding).spec) == [
        460_800,
        589_824,
        3_276_800,
        262_144,
        1_024_000,
        10_000,
    ]


def test_each_part_of_the_energy_by_hand():
    result = energy(hand_made(), narrow_snn(), PLAIN)
    # Two samples: effective operations 20 and 8, spikes 9 and 4; the encoder's 4 channels climb 2 levels.
    assert result.adds == ("int8", "int32")
    assert result.snn.encoder == 4 * 1e3
    assert result.snn.hidden == 10 * 1.0 + 4 * 7.0
    assert result.snn.thresholds == 4 * 2 * 7.0 + 4.5 * 1.0 + 2 * 7.0
    assert result.snn.classifier == 2 * 2 * 7.0
    assert astuple(result.ann_int8) == (4 * 1e3, (12 + 6) * 1e3, 0.0, 4 * 1e3)
    assert result.ann_fp32.total == (4 + 12 + 6 + 4) * 1e6
    assert result.snn.total == sum(astuple(result.snn))


def test_a_shorter_run_costs_what_its_steps_did():
    first = energy(hand_made(), narrow_snn(), PLAIN, time_steps=1)
    assert first.snn.encoder == 4 * 1e3, "the image is presented once, at the first step"
    assert first.snn.hidden == 8 * 1.0 + 2 * 7.0
    assert first.snn.thresholds == 4 * 1 * 7.0 + 1.5 * 1.0 + 0.5 * 7.0
    assert first.snn.classifier == 0.5 * 2 * 7.0


def test_energy_of_a_sample_does_not_depend_on_how_many_there_are():
    snn, images = convert(random_ann(4)), random_images(4, (1, 8, 8), samples=3)
    once, twice = (simulate(snn, batch, 9) for batch in (images, torch.cat([images, images])))
    assert energy(once, snn) == energy(twice, snn)


def test_full_precision_weights_are_charged_as_fp32():
    snn = narrow_snn()
    encoder = replace(
        with_weight(snn.layers[0], snn.layers[0].weight.double()), thresholds=torch.ones(4, 1).double()
    )
    floats = replace(snn, layers=(encoder, *snn.layers[1:]), classifier=snn.classifier.double())
    result = energy(hand_made(), floats, PLAIN)
    assert result.snn.encoder == 4 * 1e6
    assert result.snn.thresholds == 4 * 2 * 1e5 + 4.5 * 1.0 + 2 * 7.0
    assert result.snn.classifier == 2 * 2 * 1e5
    assert result.adds == ("int8", "int32")


def test_the_constants_are_horowitz_and_cannot_be_changed_by_accident():
    values = (ENERGY_45NM.fp32_mac, ENERGY_45NM.fp32_add, ENERGY_45NM.int8_mac)
    assert values == (4.6, 0.9, 0.23)
    assert (ENERGY_45NM.int32_add, ENERGY_45NM.int8_add) == (0.1, 0.03)
    assert "Horowitz" in ENERGY_45NM.source and "ISSCC 2014" in ENERGY_45NM.source
    with pytest.raises(FrozenInstanceError):
        ENERGY_45NM.fp32_mac = 0.0


def test_a_network_of_a_single_layer_has_no_hidden_energy():
    snn = convert(random_ann(1, network="3", in_shape=(1, 4, 4)))
    result = energy(simulate(snn, random_images(1, (1, 4, 4)), 5), snn)
    assert result.snn.hidden == 0 and result.adds == () and result.ann_int8.hidden == 0


def test_a_record_of_another_network_or_too_short_a_run_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 3, 2\)"):
        energy(hand_made(), convert(random_ann()))
    for steps in (0, 4):
        with pytest.raises(ValueError, match=f"time_steps={steps}.*1 to 3"):
            energy(hand_made(), narrow_snn(), time_steps=steps)


def test_skipped_zero_weights_cost_nothing():
    record, snn = hand_made(), narrow_snn()
    denser = hand_made(effective_sops=record.sops)
    assert energy(denser, snn).snn.hidden > energy(record, snn).snn.hidden
    assert energy(hand_made(effective_sops=np.zeros((3, 3), int)), snn).snn.hidden == 0
