"""Scaled thresholds stay integers, in order and within reach; a factor of 1 changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann

from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.thresholds import scale_thresholds


@tries(30)
@given(networks(), st.floats(0.3, 3))
def test_integer_thresholds_are_multiplied_and_rounded_up(ann, scale):
    snn = convert(ann)
    for layer, scaled in zip(snn.layers, scale_thresholds(snn, scale).layers, strict=True):
        if layer.spec.kind == "maximum":
            assert torch.equal(scaled.thresholds, layer.thresholds), "maxima have no thresholds but the counts"
            continue
        table, lowest, highest = layer.thresholds, layer.lowest[:, None], layer.highest[:, None]
        reached = (table > lowest) & (table <= highest)
        expected = torch.where(reached, torch.ceil(table.double() * scale).long(), table).cummax(1).values
        assert scaled.thresholds.dtype == torch.int64
        assert torch.equal(scaled.thresholds, expected)


def test_a_factor_of_one_gives_the_same_network():
    snn = convert(random_ann(3))
    for one in (1, np.float32(1), np.int64(1)):
        for layer, scaled in zip(snn.layers, scale_thresholds(snn, one).layers, strict=True):
            assert torch.equal(layer.thresholds, scaled.thresholds)


def test_each_layer_can_have_its_own_factor():
    snn = convert(random_ann(3))
    scaled = scale_thresholds(snn, [1, 2, 1, 1])
    same = [torch.equal(a.thresholds, b.thresholds) for a, b in zip(snn.layers, scaled.layers, strict=True)]
    assert same == [True, False, True, True]


def test_real_thresholds_are_scaled_without_rounding():
    snn = convert(random_ann(3), "float")
    layer, scaled = snn.layers[1], scale_thresholds(snn, 1.1).layers[1]
    reached = (layer.thresholds > layer.lowest[:, None]) & (layer.thresholds <= layer.highest[:, None])
    assert reached.any() and torch.allclose(scaled.thresholds[reached], 1.1 * layer.thresholds[reached])


@pytest.mark.parametrize("scale", [0, -1, float("inf"), float("nan"), [1, 2], [1, 1, 1, 0]])
def test_a_factor_that_makes_no_sense_is_named(scale):
    with pytest.raises(ValueError, match="threshold_scale"):
        scale_thresholds(convert(random_ann(3)), scale)
