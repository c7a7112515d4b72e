"""The bench re-quantizes without training and compares all codes of all three forms."""

from __future__ import annotations

import pytest
import torch
from networks import random_ann, random_images

from ann_snn_utils.data.dataset import Dataset
from ann_snn_utils.measure.activity import accuracy
from ann_snn_utils.measure.equivalence import adder_bits, check_equivalence, compare_forms, requantize
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.certificate import certify
from ann_snn_utils.snn.conversion import convert

SAMPLES = Dataset("random", "test", random_images(3, (1, 8, 8), 6), torch.arange(6) % 3, ("a", "b", "c"))


def test_exact_and_float_forms_match_every_code_and_published_ones_are_counted():
    ann = random_ann(3, clip=2)
    found = compare_forms(ann, SAMPLES, 5)
    assert sum(found.mismatches["exact"]) == sum(found.mismatches["float"]) == 0
    expected = check_equivalence(ann, convert(ann, "published"), SAMPLES)
    assert found.mismatches["published"] == list(expected.mismatches) and sum(expected.mismatches) > 0
    assert found.compared == list(expected.neurons)


def test_accuracy_over_time_is_that_of_a_run_of_as_many_steps():
    ann = random_ann(4, clip=1)
    found = compare_forms(ann, SAMPLES, 40)
    run = simulate(convert(ann, "published"), SAMPLES, 40)
    assert found.accuracy["published"].tolist() == accuracy(run).tolist()
    assert found.accuracy["exact"][-1] == found.ann_accuracy


def test_fractional_bits_are_the_certificates():
    exact, real = (convert(random_ann(3, clip=2), form) for form in ("exact", "float"))
    proofs = certify(exact, real)
    assert adder_bits(exact, real)["integers that fit all decisions"] == [p.fractional_bits for p in proofs]
    assert adder_bits(real, real) == {}


def test_a_comparison_without_a_number_of_steps_goes_on_until_the_slowest_form_is_silent():
    ann = random_ann(4, k=2)
    found = compare_forms(ann, SAMPLES, None)
    longest = max(simulate(net, SAMPLES).time_steps for net in found.networks.values())
    assert {len(curve) for curve in found.accuracy.values()} == {longest}
    assert found.accuracy["exact"][-1] == found.ann_accuracy


@pytest.mark.parametrize(("k", "levels", "clip"), [(0, 4, None), (2, 2, 1), (1, 6, 3)])
def test_requantizing_keeps_weights_and_changes_the_activations(k, levels, clip):
    ann = random_ann(3, k=1, levels=4, clip=2)
    other = requantize(ann, k, levels, clip)
    assert (other.spec.k, other.spec.levels, other.spec.clip) == (k, levels, clip)
    for one, two in zip(ann.layers, other.layers, strict=True):
        assert torch.equal(one.conv.weight, two.conv.weight)
        assert torch.equal(one.norm.running_mean, two.norm.running_mean)


def test_a_report_that_raises_stops_the_comparison():
    def stop(share):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compare_forms(random_ann(3), SAMPLES, 3, stop)
