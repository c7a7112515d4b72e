"""Real images: the bundled MNIST network does what its description says, to the last image and neuron."""

from __future__ import annotations

import os

import pytest

from ann_snn_utils import check_equivalence, convert, evaluate, load_dataset, load_pretrained, simulate
from ann_snn_utils.measure.activity import correct

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("ANN_SNN_DATA"), reason="ANN_SNN_DATA names no data folder"),
]


@pytest.fixture(scope="module")
def bundled():
    try:
        test = load_dataset("mnist", "test")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return load_pretrained("mnist-lenet-k0"), test


def test_every_neuron_of_every_test_image_settles_on_its_code(bundled):
    ann, test = bundled
    result = check_equivalence(ann, convert(ann), test.images)
    assert result.samples == 10_000 and sum(result.neurons) == 291_600_000
    assert result.exact, result.examples


def test_the_quantized_network_classifies_9967_of_10000_images(bundled):
    ann, test = bundled
    assert evaluate(ann, test) == ann.metadata["correct"] == 9967


def test_the_integer_network_is_right_on_9962_images_at_four_steps(bundled):
    ann, test = bundled
    assert correct(simulate(convert(ann), test, 4)).tolist() == [9067, 9934, 9961, 9962]


def test_published_rounding_makes_mistakes_that_never_heal(bundled):
    ann, test = bundled
    result = check_equivalence(ann, convert(ann, "published"), test.subset(200).images)
    assert sum(result.mismatches) > 0 and not result.mismatches[0]


def test_with_counts_of_at_most_two_every_image_is_silent_by_the_third_step(bundled):
    _, test = bundled
    record = simulate(convert(load_pretrained("mnist-lenet-k0-clip2")), test, 4)
    assert correct(record).tolist() == [9531, 9960, 9963, 9963]
    assert 0 < record.settled_at.min() and record.settled_at.max() == 3
