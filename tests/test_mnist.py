"""Real images: on MNIST the integer network settles on the quantized network's codes, neuron for neuron."""

from __future__ import annotations

import os

import pytest

from ann_snn_utils import (
    accuracy,
    build_ann,
    check_equivalence,
    convert,
    evaluate,
    load_dataset,
    set_seed,
    simulate,
)
from ann_snn_utils import train as train_network

pytestmark = pytest.mark.skipif(not os.environ.get("ANN_SNN_DATA"), reason="ANN_SNN_DATA names no data folder")


@pytest.fixture(scope="module")
def trained():
    try:
        training, test = load_dataset("mnist", "train", limit=6000), load_dataset("mnist", "test")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    set_seed(0)
    ann = build_ann("12C5-P2-24C5-P2-128", training.in_shape, 10)
    train_network(ann, training, epochs=4, augmentation="shift", progress=False)
    return ann, test


def test_every_neuron_of_every_test_image_settles_on_its_code(trained):
    ann, test = trained
    result = check_equivalence(ann, convert(ann), test.images)
    assert result.samples == 10_000 and result.exact, result.examples


def test_the_spiking_network_is_as_accurate_as_the_quantized_one(trained):
    ann, test = trained
    record = simulate(convert(ann), test)
    assert record.settled_at.min() > 0
    assert round(accuracy(record)[-1] * len(test)) == evaluate(ann, test) > 9500


def test_published_rounding_makes_mistakes_that_never_heal(trained):
    ann, test = trained
    result = check_equivalence(ann, convert(ann, "published"), test.subset(500).images)
    assert sum(result.mismatches) > 0 and not result.mismatches[0]
