"""The one-adder form decides as the table does, with as few fractional bits as there can be."""

from __future__ import annotations

import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann

from ann_snn_utils.ann.notation import parse
from ann_snn_utils.snn.certificate import certify, one_adder, signed_bits
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.network import SpikingLayer, Synapses


def layer_of(thresholds, lowest, highest) -> SpikingLayer:
    """A layer of one-pixel neurons with the given table and membrane bounds, one row a channel."""
    table = torch.tensor(thresholds)
    geometry = parse(str(len(table)), (1, 1, 1))[0]
    ends = [torch.full((len(table),), end) for end in (lowest, highest)]
    synapses = Synapses(geometry.synapses[0][0], torch.ones(len(table), 1, 1, 1, dtype=torch.int8))
    return SpikingLayer(geometry, (synapses,), table, *ends)


def fires(bits, offset, step, level, membrane) -> bool:
    return (membrane << bits) >= offset + level * step


def feasible(row: list[int], lowest: int, highest: int, bits: int) -> bool:
    """Whether any integers A and D will do, by trying every D and every A that could matter."""
    one = 1 << bits
    reach = (highest - lowest + 2) * one
    for step in range(0, reach + 1):
        for offset in range((lowest - 1) * one - reach * len(row), (highest + 2) * one + 1):
            if all(
                fires(bits, offset, step, j, u) == (u >= theta)
                for j, theta in enumerate(row, 1)
                for u in range(lowest, highest + 1)
            ):
                return True
    return False


@tries(50)
@given(networks())
def test_the_adder_decides_as_the_table_for_every_channel_level_and_membrane(ann):
    snn = convert(ann)
    for layer, certificate in zip(snn.layers, certify(snn), strict=True):
        for channel in range(len(layer.thresholds)):
            lowest, highest = int(layer.lowest[channel]), int(layer.highest[channel])
            for level, theta in enumerate(layer.thresholds[channel].tolist(), layer.spec.lowest + 1):
                right = int(certificate.offset[channel]) + level * int(certificate.step[channel])
                # The least membrane whose shifted value is not below it, in whole numbers of any size.
                least = -(-right >> certificate.fractional_bits)
                assert min(max(least, lowest), highest + 1) == min(max(theta, lowest), highest + 1)


@tries(25)
@given(st.lists(st.integers(-2, 4), min_size=1, max_size=3).map(sorted))
def test_no_smaller_number_of_fractional_bits_would_do(row):
    layer = layer_of([row], -2, 3)
    try:
        bits, _, _ = one_adder(layer)
    except ValueError:
        bits = 2
    for fewer in range(min(bits, 2)):
        assert not feasible(row, -2, 3, fewer)
    if bits < 2:
        assert feasible(row, -2, 3, bits)


def test_thresholds_on_a_whole_step_need_no_fractional_bits():
    assert one_adder(layer_of([[2, 5, 8]], -20, 20))[0] == 0


def test_thresholds_that_alternate_by_one_need_one_fractional_bit():
    bits, offset, step = one_adder(layer_of([[1, 2, 4, 5, 7]], -20, 20))
    assert bits == 1 and fires(bits, int(offset), int(step), 3, 4) and not fires(bits, int(offset), int(step), 3, 3)


def test_thresholds_that_lie_on_no_line_are_refused():
    with pytest.raises(ValueError, match="no A"):
        one_adder(layer_of([[0, 1, 15, 16]], -20, 20))


def test_rounding_alone_never_needs_fewer_bits_than_the_certificate():
    ann = random_ann(4, network="6C3-P2-8C2-9", clip=4)
    for certificate in certify(convert(ann), real=convert(ann, "float")):
        assert certificate.naive_bits is None or certificate.naive_bits >= 0
        assert certificate.membrane_bits == signed_bits(*certificate.membrane)


def test_a_signed_width_is_the_smallest_that_holds_both_ends():
    assert [signed_bits(*ends) for ends in ((0, 0), (-1, 0), (-128, 127), (-129, 0), (0, 128), (-8, -8))] == [
        1,
        1,
        8,
        9,
        9,
        4,
    ]


def test_a_network_with_real_thresholds_is_refused():
    with pytest.raises(ValueError, match="thresholds='float'"):
        certify(convert(random_ann(), "float"))
