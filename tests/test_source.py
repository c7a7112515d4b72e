"""Which images a run takes: what its parameters name, and the two sets that they give."""

from __future__ import annotations

import pytest
import torch

from ann_snn_utils.data.dataset import data_identity, load_dataset, load_splits, source_of


def test_parameters_that_are_zero_or_missing_narrow_nothing():
    everything = {"name": "digits", "limit": None, "size": None, "crop": None, "held_out": None}
    assert source_of({"dataset": "digits"}) == everything
    assert source_of({"dataset": "digits", "limit": 0, "size": 0, "crop": 0, "held_out": 0, "k": 2}) == everything


def test_parameters_that_narrow_are_handed_on_by_name():
    given = {"limit": 30, "size": 12, "crop": 10, "held_out": 99}
    assert source_of({"dataset": "mnist", "network": "lenet", **given}) == {"name": "mnist", **given}


def test_training_images_stay_whole_and_test_images_are_their_centre():
    training, test = load_splits(**source_of({"dataset": "digits", "size": 12, "crop": 8, "limit": 40}))
    whole = load_dataset("digits", "test", size=12, limit=40)
    assert (training.split, test.split) == ("train", "test")
    assert (training.in_shape, test.in_shape) == ((1, 12, 12), (1, 8, 8))
    assert torch.equal(test.images, whole.images[:, :, 2:10, 2:10])


def test_held_out_images_are_cropped_as_test_images_and_the_others_are_not():
    training, test = load_splits("digits", size=12, crop=8, held_out=100)
    assert (len(training), len(test)) == (1337, 100)
    assert (training.in_shape, test.in_shape) == ((1, 12, 12), (1, 8, 8))


def test_a_crop_that_does_not_fit_is_refused_although_training_images_stay_whole():
    with pytest.raises(ValueError, match=r"crop=\(30, 30\): images have \(28, 28\) pixels; give a crop within"):
        load_splits("digits", crop=30)


def test_the_identity_of_a_source_is_that_of_the_images_it_loads():
    source = source_of({"dataset": "digits", "size": 12, "crop": 8, "limit": 40})
    training, test = load_splits(**source)
    identity = data_identity(source)
    assert identity == {"training": training.sha256, "test": test.sha256, "classes": list("0123456789")}
    identity["classes"].clear()
    assert data_identity(source)["classes"] == list("0123456789")
    assert data_identity(source | {"limit": 41})["test"] != test.sha256
