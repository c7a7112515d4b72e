"""Real images: bundled networks do what their descriptions say, to the last image and neuron."""

from __future__ import annotations

import os

import pytest
import torch

from ann_snn_utils import check_equivalence, convert, load_dataset, load_pretrained, predict, simulate
from ann_snn_utils.ann.store import list_pretrained
from ann_snn_utils.data.dataset import load_recorded
from ann_snn_utils.measure.activity import SILENCE, correct_at
from ann_snn_utils.runs.results import FIRST

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


def test_published_rounding_makes_mistakes_that_never_heal(bundled):
    ann, test = bundled
    result = check_equivalence(ann, convert(ann, "published"), test.subset(200).images)
    assert sum(result.mismatches) > 0 and not result.mismatches[0]


def test_with_counts_of_at_most_two_every_image_is_silent_by_the_third_step(bundled):
    _, test = bundled
    settled_at = simulate(convert(load_pretrained("mnist-lenet-k0-clip2")), test, 4).settled_at
    assert 0 < settled_at.min() and settled_at.max() == 3


@pytest.mark.parametrize("name", sorted(list_pretrained()))
def test_exactly_so_many_images_are_right_as_the_index_says(name):
    """All test images, of CIFAR-10 the first 1,000, after every step that is recorded.

    At silence counts are the quantized network's codes, which it forms itself of the first 1,000 images in grey.
    """
    entry = list_pretrained()[name]
    try:
        test = load_recorded(entry, fetch=False)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    ann, wanted = load_pretrained(name), entry["snn_correct"]
    colour = entry["source"]["name"].startswith("cifar10")
    if colour:
        test, wanted = test.subset(range(FIRST)), entry["first_1000"]
    record = simulate(convert(ann), test)
    assert correct_at(record) == wanted
    if not colour:
        few = test.images[:FIRST]
        assert wanted[SILENCE] == entry["correct"]
        assert torch.equal(predict(ann, few), record.predictions[-1, : len(few)])
