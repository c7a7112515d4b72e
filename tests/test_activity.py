"""Accuracy and activity over time, from records written by hand and from random runs."""

from __future__ import annotations

import numpy as np
import pytest
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images
from records import hand_made

from ann_snn_utils.measure.activity import accuracy, cancelled, correct, sparsity
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.conversion import convert


def test_accuracy_counts_the_right_predictions_after_each_step_and_ties_take_the_first_class():
    record = hand_made()
    assert correct(record).tolist() == [1, 0, 2]
    assert correct(record).dtype == np.int64
    assert accuracy(record).tolist() == [0.5, 0.0, 1.0]


def test_accuracy_without_labels_says_where_to_give_them():
    with pytest.raises(ValueError, match="no labels.*Dataset"):
        accuracy(hand_made(labels=None))


def test_sparsity_is_the_share_of_neuron_steps_without_a_spike():
    assert np.allclose(sparsity(hand_made()), [1 - 10 / 24, 1 - 9 / 18, 1 - 4 / 12])


def test_cancelled_counts_the_spikes_that_took_one_back():
    assert cancelled(hand_made()).tolist() == [0, 3, 1]


@tries(25)
@given(networks(), st.integers(1, 9), st.integers(0, 1000))
def test_the_measures_agree_with_each_other_on_any_run(ann, time_steps, seed):
    images = random_images(seed, ann.spec.in_shape, samples=3)
    record = simulate(convert(ann), images, time_steps)
    events = record.positive + record.negative
    places = record.samples * record.time_steps * np.array(record.neurons)

    assert np.array_equal(record.spike_num - record.spike_collect, 2 * record.negative[:, 1:].sum(1).cumsum())
    assert np.allclose(sparsity(record) + events.sum(0) / places, 1)
    # Net spikes summed over the run are the counts; and nothing is taken back that was not sent.
    counts = [int(count.sum()) for count in record.counts]
    assert (record.positive - record.negative).sum(0).tolist() == counts
    assert (2 * cancelled(record) + counts == events.sum(0)).all()


def test_the_last_step_of_a_run_to_silence_is_the_silent_one():
    record = simulate(convert(random_ann(2)), random_images(2, (1, 8, 8), samples=7))
    assert (record.settled_at > 0).all() and int(record.settled_at.max()) == record.time_steps - 1
