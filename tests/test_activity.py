"""Accuracy and activity over time, from records written by hand and from random runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import networks, random_ann, random_images
from records import hand_made

from ann_snn_utils.measure.activity import accuracy, cancelled, correct, firing_rates, settling, sparsity
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


def test_firing_rates_are_spikes_per_neuron_and_step():
    rates = firing_rates(hand_made())
    assert rates.net.tolist() == [[1.0, 3 / 6, 1 / 4], [2 / 8, 1 / 6, 1 / 4], [0.0, -1 / 6, 0.0]]
    assert rates.events.tolist() == [[1.0, 3 / 6, 1 / 4], [2 / 8, 3 / 6, 3 / 4], [0.0, 3 / 6, 0.0]]


def test_sparsity_is_the_share_of_neuron_steps_without_a_spike():
    assert np.allclose(sparsity(hand_made()), [1 - 10 / 24, 1 - 9 / 18, 1 - 4 / 12])


def test_cancelled_counts_the_spikes_that_took_one_back():
    assert cancelled(hand_made()).tolist() == [0, 3, 1]


def test_settling_separates_the_samples_that_were_still_active():
    result = settling(hand_made())
    assert result.counts.tolist() == [0, 1, 0]
    assert (result.unsettled, result.samples, result.share_unsettled) == (1, 2, 0.5)


@settings(max_examples=25, deadline=None)
@given(networks(), st.integers(1, 9), st.integers(0, 1000))
def test_the_measures_agree_with_each_other_on_any_run(ann, time_steps, seed):
    images = random_images(seed, ann.spec.in_shape, samples=3)
    record = simulate(convert(ann), images, time_steps)
    rates, places = firing_rates(record), record.samples * np.array(record.neurons)

    assert np.array_equal(record.spike_num - record.spike_collect, 2 * record.negative[:, 1:].sum(1).cumsum())
    assert np.allclose(sparsity(record) + rates.events.mean(0), 1)
    assert (abs(rates.net) <= rates.events).all() and (rates.events <= 1).all()
    # Net spikes summed over the run are the counts; and nothing is taken back that was not sent.
    counts = [int(count.sum()) for count in record.counts]
    assert np.allclose(rates.net.sum(0) * places, counts)
    assert (2 * cancelled(record) + counts == (record.positive + record.negative).sum(0)).all()
    assert settling(record).samples == 3


def test_a_run_to_silence_leaves_no_sample_unsettled():
    record = simulate(convert(random_ann(2)), random_images(2, (1, 8, 8), samples=7))
    result = settling(record)
    assert result.share_unsettled == 0 and result.counts.sum() == 7
    assert result.counts[-1] == 0, "the last step of such a run is the silent one"
