"""The simulator equals the oracle, spike for spike, and settles on the quantized network's codes."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import networks, random_ann, random_images

from ann_snn_utils.convert import convert
from ann_snn_utils.models import codes
from ann_snn_utils.neuron import BACKENDS
from ann_snn_utils.simulate import simulate


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(ann=networks(), time_steps=st.integers(1, 11), seed=st.integers(0, 1000))
def test_every_spike_count_and_total_equals_the_oracle(backend, ann, time_steps, seed):
    if backend == "numba":
        pytest.importorskip("numba")
    images = random_images(seed, ann.spec.in_shape)
    expected = oracle.run(ann, images.numpy(), time_steps)
    record = simulate(convert(ann), images, time_steps, trace=[0, 1], backend=backend)
    for layer, spikes in enumerate(expected.spikes):
        assert np.array_equal(record.traces.spikes[layer].numpy(), spikes)
        assert np.array_equal(record.traces.membranes[layer].numpy(), expected.membranes[layer])
        assert np.array_equal(record.counts[layer].numpy(), expected.counts[layer])
        assert np.array_equal(record.positive[:, layer], (spikes > 0).sum((1, 2, 3, 4)))
        assert np.array_equal(record.negative[:, layer], (spikes < 0).sum((1, 2, 3, 4)))
    assert np.array_equal(record.logits.numpy(), expected.logits)
    assert np.array_equal(record.sops, expected.sops)
    assert np.array_equal(record.effective_sops, expected.effective_sops)
    assert np.array_equal(record.settled_at.numpy(), expected.settled_at)


@settings(max_examples=60, deadline=None)
@given(networks(), st.integers(0, 1000))
def test_at_silence_every_count_is_the_ann_code(ann, seed):
    images = random_images(seed, ann.spec.in_shape, samples=5)
    record = simulate(convert(ann, max_levels=512), images)
    expected, logits = codes(ann, images)
    assert (record.settled_at > 0).all()
    for count, code in zip(record.counts, expected, strict=True):
        assert torch.equal(count, code)
    assert torch.equal(record.logits[-1].argmax(1), logits.argmax(1))


@settings(max_examples=30, deadline=None)
@given(networks(), st.integers(0, 1000))
def test_real_and_integer_thresholds_make_the_same_spikes(ann, seed):
    images = random_images(seed, ann.spec.in_shape)
    exact, real = (simulate(convert(ann, form), images, 12, trace=[0]) for form in ("exact", "float"))
    assert all(torch.equal(a, b) for a, b in zip(exact.traces.spikes, real.traces.spikes, strict=True))


def test_nothing_changes_after_silence_and_the_sufficient_steps_suffice():
    ann = random_ann(3, clip=2)
    snn, images = convert(ann), random_images(3, (1, 8, 8), samples=20)
    record = simulate(snn, images)
    longer = simulate(snn, images, snn.sufficient_steps + 5)
    assert record.time_steps == int(record.settled_at.max()) + 1 <= snn.sufficient_steps + 1
    assert torch.equal(longer.settled_at, record.settled_at)
    assert all(torch.equal(a, b) for a, b in zip(longer.counts, record.counts, strict=True))
    assert longer.abs_spike[record.time_steps - 1 :].sum() == 0


def test_a_run_does_not_depend_on_the_batch_size():
    snn, images = convert(random_ann(5)), random_images(5, (1, 8, 8), samples=9)
    disturbed = dict(time_steps=10, noise_ratio=0.5, fault="flip", fault_rate=0.1, seed=4)
    whole, parts = (simulate(snn, images, batch_size=size, **disturbed) for size in (9, 2))
    assert torch.equal(whole.logits, parts.logits)
    assert np.array_equal(whole.sops, parts.sops) and np.array_equal(whole.pending, parts.pending)
    assert torch.equal(whole.settled_at, parts.settled_at)


def test_pending_counts_the_neurons_that_will_still_fire():
    snn, images = convert(random_ann(6)), random_images(6, (1, 8, 8), samples=4)
    record = simulate(snn, images, 12, trace=range(4))
    for layer, spikes in enumerate(record.traces.spikes):
        later = [int((spikes[step:] != 0).any(0).sum()) for step in range(1, 13)]
        assert record.pending[:, layer].tolist() == later


def test_deleting_every_spike_silences_the_hidden_layers_and_the_scores():
    ann = random_ann(7)
    for layer in ann.layers[1:]:
        layer.norm.bias.data.fill_(-1.0)
        layer.norm.running_mean.fill_(0.0)
        layer.norm.weight.data.fill_(1.0)
    record = simulate(convert(ann), random_images(7, (1, 8, 8)), 8, fault="delete", fault_rate=1.0)
    assert record.positive[:, 0].sum() > 0
    assert record.spike_num[-1] == 0 and not record.logits.any()


def test_a_table_that_is_too_short_is_reported_with_the_remedy():
    ann = random_ann(1, k=2)
    with pytest.raises(ValueError, match=r"layer \d .*end of its threshold table.*max_levels=2"):
        simulate(convert(ann, max_levels=1), random_images(1, (1, 8, 8)), 30)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time_steps": 0}, "time_steps=0"),
        ({"noise_ratio": -1}, "noise_ratio=-1"),
        ({"fault": "lose"}, "fault='lose'"),
        ({"fault": "flip", "fault_rate": 2}, "fault_rate=2"),
        ({"images": torch.zeros(1, 1, 9, 9, dtype=torch.uint8)}, r"\(1, 1, 9, 9\)"),
        ({"images": torch.zeros(1, 1, 8, 8)}, "float32"),
        ({"images": torch.zeros(0, 1, 8, 8, dtype=torch.uint8)}, "N ≥ 1"),
        ({"trace": [7]}, r"trace=\(7,\)"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    arguments = {"images": random_images(0, (1, 8, 8)), "time_steps": 4} | arguments
    with pytest.raises(ValueError, match=message):
        simulate(convert(random_ann()), **arguments)
