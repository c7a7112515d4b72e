"""The simulator equals the oracle, spike for spike, and settles on the quantized network's codes."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images, with_weight

from ann_snn_utils.ann.network import build_ann, raw_weight
from ann_snn_utils.ann.reference import codes
from ann_snn_utils.simulator import oracle
from ann_snn_utils.simulator.events import arrays, build, layout
from ann_snn_utils.simulator.events.build import hindrance
from ann_snn_utils.simulator.events.layout import lay_out
from ann_snn_utils.simulator.record import merge
from ann_snn_utils.simulator.run import BACKENDS, choose_backend, simulate
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.network import SNN


def needs_kernel() -> None:
    if reason := hindrance():
        pytest.skip(reason)


def agrees(record, expected) -> None:
    for layer, spikes in enumerate(expected.spikes):
        assert np.array_equal(record.counts[layer].numpy(), expected.counts[layer])
        assert np.array_equal(record.positive[:, layer], (spikes > 0).sum((1, 2, 3, 4)))
        assert np.array_equal(record.negative[:, layer], (spikes < 0).sum((1, 2, 3, 4)))
        later = [(spikes[step:] != 0).any(0).sum() for step in range(1, len(spikes) + 1)]
        assert np.array_equal(record.pending[:, layer], later)
    assert np.array_equal(record.logits.numpy(), expected.logits)
    assert np.array_equal(record.sops, expected.sops)
    assert np.array_equal(record.effective_sops, expected.effective_sops)
    assert np.array_equal(record.settled_at.numpy(), expected.settled_at)


def traces_agree(record, expected) -> None:
    for traced, spikes in zip(record.traces.spikes, expected.spikes, strict=True):
        assert np.array_equal(traced.numpy(), spikes)
    for traced, membranes in zip(record.traces.membranes, expected.membranes, strict=True):
        # Where two branches are added the oracle holds rational numbers, of which integers only decide alike.
        assert membranes.dtype == object or np.array_equal(traced.numpy(), membranes)


def agree(one, other) -> None:
    """Two backends left the same record."""
    assert torch.equal(one.logits, other.logits) and torch.equal(one.settled_at, other.settled_at)
    assert all(torch.equal(a.int(), b.int()) for a, b in zip(one.counts, other.counts, strict=True))
    for table in ("positive", "negative", "sops", "effective_sops", "encoder_sops", "pending"):
        assert np.array_equal(getattr(one, table), getattr(other, table)), table


@cache
def judged(network: str, padding: str):
    """A network of this notation, two images, and what the oracle makes of them in 7 steps."""
    ann = random_ann(11, network=network, in_shape=(3, 8, 10), k=1, padding=padding)
    images = random_images(11, (3, 8, 10))
    return ann, images, oracle.run(ann, images.numpy(), 7)


@tries(40)
@given(ann=networks(), time_steps=st.integers(1, 11), seed=st.integers(0, 1000))
def test_every_backend_equals_the_oracle_bit_for_bit(backend, ann, time_steps, seed):
    images = random_images(seed, ann.spec.in_shape)
    agrees(simulate(convert(ann), images, time_steps, backend=backend), oracle.run(ann, images.numpy(), time_steps))


@tries(30)
@given(ann=networks(), time_steps=st.integers(1, 11), seed=st.integers(0, 1000))
def test_every_traced_spike_and_membrane_equals_the_oracle(ann, time_steps, seed):
    images = random_images(seed, ann.spec.in_shape)
    expected = oracle.run(ann, images.numpy(), time_steps)
    record = simulate(convert(ann), images, time_steps, trace=[0, 1])
    traces_agree(record, expected)


@tries(25)
@given(ann=networks(), time_steps=st.integers(1, 11), seed=st.integers(0, 1000))
def test_without_negative_spikes_every_spike_and_membrane_equals_the_oracle(ann, time_steps, seed):
    images = random_images(seed, ann.spec.in_shape)
    expected = oracle.run(ann, images.numpy(), time_steps, negative_spikes=False)
    record = simulate(convert(ann), images, time_steps, trace=[0, 1], negative_spikes=False)
    agrees(record, expected)
    assert not record.negative.any()
    traces_agree(record, expected)


@tries(25)
@given(networks(), st.integers(0, 1000))
def test_without_negative_spikes_a_silent_network_stays_silent(ann, seed):
    snn, images = convert(ann, max_levels=512), random_images(seed, ann.spec.in_shape, samples=4)
    record = simulate(snn, images, negative_spikes=False)
    longer = simulate(snn, images, record.time_steps + 7, negative_spikes=False)
    assert (record.settled_at > 0).all() and record.time_steps <= snn.sufficient_steps + 1
    assert torch.equal(longer.settled_at, record.settled_at)
    assert torch.equal(longer.logits[-1], record.logits[-1])
    assert longer.abs_spike[record.time_steps - 1 :].sum() == 0


def one_neuron_sent_too_much() -> SNN:
    """Two encoder channels, one firing in step 1 and one in steps 1 to 3, excite by 4 and inhibit by 1.

    So U is 3, 2, 1 and then stays; the hidden neuron's thresholds are 1, 2, 3.
    """
    snn = convert(random_ann(0, network="2C1-1", in_shape=(1, 1, 1), classes=2, levels=3))
    encoder, hidden = snn.layers
    thresholds = torch.tensor([[5, 99, 99], [5, 5, 5]])
    encoder = replace(with_weight(encoder, torch.ones_like(encoder.weight)), thresholds=thresholds)
    hidden = replace(
        with_weight(hidden, torch.tensor([4, -1], dtype=torch.int8).reshape(1, 2, 1, 1)),
        thresholds=torch.tensor([[1, 2, 3]]),
        lowest=torch.tensor([-3]),
        highest=torch.tensor([12]),
    )
    classifier = torch.tensor([1, -2], dtype=torch.int8).reshape(2, 1, 1, 1)
    return replace(snn, layers=(encoder, hidden), classifier=classifier)


def test_a_spike_sent_too_early_is_taken_back_only_with_negative_spikes():
    image = torch.full((1, 1, 1, 1), 10, dtype=torch.uint8)
    signed, classical = (
        simulate(one_neuron_sent_too_much(), image, 5, trace=[0], negative_spikes=negative, backend="dense")
        for negative in (True, False)
    )
    for record, spikes, counts in (
        (signed, [1, 1, -1, 0, 0], [1, 2, 1, 1, 1]),
        (classical, [1, 1, 0, 0, 0], [1, 2, 2, 2, 2]),
    ):
        assert record.traces.membranes[1].flatten().tolist() == [3, 2, 1, 1, 1]
        assert record.traces.spikes[1].flatten().tolist() == spikes
        assert record.logits[:, 0].tolist() == [[count, -2 * count] for count in counts]
        assert record.settled_at.tolist() == [3]
    assert signed.negative[:, 1].tolist() == [0, 0, 1, 0, 0] and not classical.negative.any()


def test_the_compiled_simulator_says_that_it_always_takes_spikes_back(caplog):
    needs_kernel()
    snn = convert(random_ann(2))
    with caplog.at_level("INFO"):
        assert choose_backend(snn, 8, negative_spikes=False) == "dense"
    assert "simulating with dense tensors: compiled neurons always take spikes back" in caplog.text
    with pytest.raises(ValueError, match="backend='events' cannot run .*take spikes back; use backend='dense'"):
        simulate(snn, random_images(2, (1, 8, 8)), 8, backend="events", negative_spikes=False)


@pytest.mark.parametrize(
    "network",
    [
        "33C3-P2-17C3-70",
        "3C3-5C3-P2-2C1-9",
        "16C5-16C1-P2-100-7",
        pytest.param("150C3-65C3-4", marks=pytest.mark.slow),
        "3C3-600-9",
    ],
)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_widths_that_fill_no_whole_vector_and_padded_maps_equal_the_oracle(backend, network, padding):
    ann, images, expected = judged(network, padding)
    agrees(simulate(convert(ann), images, 7, backend=backend), expected)


@tries(40)
@given(networks(), st.integers(0, 1000), st.sampled_from(["delete", "flip"]), st.floats(0, 1))
def test_backends_agree_under_noise_and_faults(ann, seed, fault, rate):
    needs_kernel()
    snn, images = convert(ann), random_images(seed, ann.spec.in_shape, samples=4)
    disturbed = dict(time_steps=9, noise_ratio=0.5, fault=fault, fault_rate=rate, seed=seed)
    agree(*(simulate(snn, images, backend=name, **disturbed) for name in BACKENDS))


@pytest.mark.parametrize(
    "network", ["20C3-20C3s2-40C3-5", "33C3-[20C3-20C3]-[40C3s2-70C3]-9", "5C1-5C3-M3s1-5C1-300"]
)
@pytest.mark.parametrize("width", [5, 11])
def test_places_that_are_summed_up_together_each_keep_to_their_own(network, width):
    """Of layers with few channels, whose maps are as wide as it comes."""
    needs_kernel()
    snn = convert(random_ann(4, network=network, in_shape=(1, 6, width), padding="same", k=1))
    assert {arrays.abreast(layer) for layer in snn.layers[1:]} - {1}
    images = random_images(4, (1, 6, width), samples=3)
    for arguments in (dict(time_steps=7), dict(time_steps=35), dict(time_steps=20, fault="delete", fault_rate=0.2)):
        agree(*(simulate(snn, images, backend=name, **arguments) for name in BACKENDS))


@pytest.mark.parametrize("width", [16, 32])
def test_membranes_at_the_bound_of_their_type_do_not_wrap(width):
    """All weights and inputs at their largest: the sum is the bound, and the type must hold it."""
    needs_kernel()
    ann = random_ann(0, network="64C3-64C3-5", in_shape=(1, 8, 8), k=6 if width == 32 else 0)
    snn = convert(ann)
    encoder, *hidden = snn.layers
    full = [with_weight(layer, torch.ones_like(layer.weight)) for layer in hidden]
    always = replace(encoder, thresholds=torch.full_like(encoder.thresholds, -(2**30)))
    snn = replace(snn, layers=(always, *full))
    images = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    largest = 9 * 64 * snn.amplitude * snn.levels
    steps = 5
    assert lay_out(snn, steps).membrane == (np.int32 if width == 32 else np.int16)
    one, other = (simulate(snn, images, steps, backend=name, trace=[0]) for name in BACKENDS)
    assert int(one.traces.membranes[1].max()) == largest
    agree(one, other)


@pytest.mark.parametrize(
    "network", ["40C3-[40C3-D3]-M3s1-33C3d2-A2-260C1-5", "3C3-[280C3-280C1]-[3C3s2-D3]-[3C3-3C1]-A"]
)
def test_wide_layers_of_a_graph_equal_dense_tensors_with_faults_and_without(network):
    needs_kernel()
    snn = convert(random_ann(7, network=network, in_shape=(2, 8, 8), padding="same", k=1, clip=2))
    images = random_images(7, (2, 8, 8), samples=3)
    for arguments in (dict(time_steps=9), dict(time_steps=35), dict(time_steps=20, fault="flip", fault_rate=0.2)):
        agree(*(simulate(snn, images, backend=name, **arguments) for name in BACKENDS))


@pytest.mark.parametrize("compared", [24, 0])
def test_branches_whose_sum_needs_64_bits_equal_the_oracle(backend, compared, monkeypatch):
    monkeypatch.setattr("ann_snn_utils.simulator.events.layout._COMPARED", compared)
    ann = random_ann(11, network="2C3-[D3-4C1]", in_shape=(1, 6, 6), padding="same", ternary=False, k=1)
    assert lay_out(convert(ann), 9).membrane == np.int64
    images = random_images(5, (1, 6, 6), samples=3)
    record = simulate(convert(ann), images, 9, backend=backend)
    assert record.negative[:, 1:].any()
    agrees(record, oracle.run(ann, images.numpy(), 9))


def test_wide_membranes_in_an_odd_number_of_vectors_are_counted_each_to_their_own_layer(backend):
    ann = random_ann(5, network="16C3-16C3-16C3-5", in_shape=(1, 9, 9), k=1, ternary=False)
    assert lay_out(convert(ann), 9).membrane == np.int32
    images = random_images(5, (1, 9, 9), samples=3)
    agrees(simulate(convert(ann), images, 9, backend=backend), oracle.run(ann, images.numpy(), 9))


@pytest.mark.parametrize(("levels", "time_steps"), [(1, 6), (9, 3), (9, 14)])
def test_an_encoder_of_many_levels_or_one_speaks_for_as_long_as_the_run_lasts(backend, levels, time_steps):
    ann = random_ann(6, levels=levels, in_shape=(3, 8, 8))
    images = random_images(6, (3, 8, 8), samples=3)
    agrees(simulate(convert(ann), images, time_steps, backend=backend), oracle.run(ann, images.numpy(), time_steps))


def test_counts_and_scores_too_large_for_a_byte_are_kept_whole():
    needs_kernel()
    snn, images = convert(random_ann(1, k=6), max_levels=4096), random_images(1, (1, 8, 8), samples=6)
    snn = replace(snn, classifier=snn.classifier.int() * 1000)
    one, other = (simulate(snn, images, 400, backend=name) for name in BACKENDS)
    assert max(int(count.max()) for count in one.counts) > 127 and int(one.logits.abs().max()) > 2**15
    agree(one, other)


@pytest.mark.parametrize("limit", ["layout._COMPARED=0", "layout._COMPARED=2"])
@tries(40)
@given(ann=networks(), time_steps=st.integers(1, 11), seed=st.integers(0, 1000))
def test_thresholds_looked_up_make_the_same_spikes(limit, ann, time_steps, seed):
    needs_kernel()
    images = random_images(seed, ann.spec.in_shape)
    with pytest.MonkeyPatch.context() as patch:
        name, value = limit.split("=")
        patch.setattr(f"ann_snn_utils.simulator.events.{name}", int(value))
        record = simulate(convert(ann), images, time_steps, backend="events")
    agrees(record, oracle.run(ann, images.numpy(), time_steps))


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.int64])
def test_a_threshold_that_no_membrane_reaches_lies_beyond_every_membrane_of_any_type(kind):
    thresholds = torch.tensor([[-torch.inf, -2.5, 2.5, torch.inf]], dtype=torch.float64)
    least, greatest = np.iinfo(kind).min, np.iinfo(kind).max
    assert arrays.table(thresholds, 0, 32, kind)[:, 0].tolist() == [least, least, -2, 3, greatest, greatest]


def test_thresholds_that_do_not_ascend_are_left_to_dense_tensors(caplog):
    needs_kernel()
    snn = convert(random_ann(8, k=1))
    assert choose_backend(snn, 8) == "events"
    for index in range(len(snn.layers)):
        layers = list(snn.layers)
        layers[index] = replace(layers[index], thresholds=layers[index].thresholds.flip(1))
        with caplog.at_level("INFO"):
            assert choose_backend(replace(snn, layers=tuple(layers)), 8) == "dense"
        assert f"thresholds of {layers[index].name} do not ascend" in caplog.text


def test_a_network_beyond_the_compiled_simulators_types_runs_in_dense_tensors_and_says_why(caplog):
    needs_kernel()
    snn = convert(random_ann(2))
    wide = with_weight(snn.layers[1], snn.layers[1].weight.long() * 2**20)
    huge = replace(snn, layers=(snn.layers[0], wide, *snn.layers[2:]))
    with caplog.at_level("INFO"):
        assert choose_backend(huge, 8) == "dense"
    assert f"layer 1 ({wide.name})" in caplog.text
    with pytest.raises(ValueError, match="cannot run this network: weights of layer 1"):
        choose_backend(huge, 8, name="events")
    loud, louder = (
        replace(snn, layers=(with_weight(snn.layers[0], snn.layers[0].weight.long().sign() * n), *snn.layers[1:]))
        for n in (2**7 - 1, 2**7)
    )
    agree(*(simulate(loud, random_images(2, (1, 8, 8)), 8, backend=name) for name in BACKENDS))
    with pytest.raises(ValueError, match=f"weights of {snn.layers[0].name} need more than 8 bits"):
        choose_backend(louder, 8, name="events")
    assert choose_backend(snn, 8) == "events"


def test_layers_too_large_for_numbers_of_32_bits_are_left_to_dense_tensors(monkeypatch):
    snn = convert(random_ann(2, network="1C3-128C5-3", in_shape=(1, 8, 32), padding="same"))
    silent = with_weight(snn.layers[0], torch.zeros_like(snn.layers[0].weight))
    snn, (_, layer, _) = replace(snn, layers=(silent, *snn.layers[1:])), snn.layers
    reasons = {}
    for bits in range(31, 8, -1):
        monkeypatch.setattr(layout, "_LARGEST", 2**bits - 1)
        reasons.setdefault(layout.obstacle.__wrapped__(snn, 8, False), bits)
    assert reasons[None] == 31
    synapses, neurons = layer.weight[:, 0].numel() * 32, 128 * (128 * 8 * 32 + 32)
    assert 2 ** reasons[f"synapses of layer 1 ({layer.name}) are too many for 32 bits"] <= synapses + 1
    assert 2 ** reasons[f"neurons of layer 1 ({layer.name}) are too many for 32 bits"] <= neurons + 1


def test_an_encoder_with_fewer_thresholds_than_levels_is_silent_beyond_them():
    needs_kernel()
    snn = convert(random_ann(4))
    short = replace(snn.layers[0], thresholds=snn.layers[0].thresholds[:, :2])
    snn = replace(snn, layers=(short, *snn.layers[1:]))
    one, other = (simulate(snn, random_images(4, (1, 8, 8)), 9, backend=name) for name in BACKENDS)
    assert int(one.counts[0].max()) == 2
    agree(one, other)


def test_a_long_run_until_silence_goes_on_beyond_its_first_attempt():
    needs_kernel()
    snn, images = convert(random_ann(1, k=3), max_levels=512), random_images(1, (1, 8, 8), samples=6)
    one, other = (simulate(snn, images, backend=name) for name in BACKENDS)
    assert one.time_steps == other.time_steps > 32
    agree(one, other)


def test_a_network_changed_in_place_runs_as_it_now_is():
    needs_kernel()
    snn, images = convert(random_ann(8)), random_images(8, (1, 8, 8), samples=4)
    before = simulate(snn, images, 8)
    snn.layers[1].weight.neg_()
    snn.layers[1].weight[0].zero_()
    snn.layers[2].thresholds.add_(1)
    one, other = (simulate(snn, images, 8, backend=name) for name in BACKENDS)
    assert not torch.equal(one.logits, before.logits)
    agree(one, other)
    assert one.effective_sops[0, 1] < before.effective_sops[0, 1]


def test_without_a_compiler_the_dense_backend_runs_and_the_compiled_one_says_what_to_install(monkeypatch):
    monkeypatch.setattr(build, "compiler", lambda: None)
    monkeypatch.setattr(sys.modules["ann_snn_utils.simulator.run"], "hindrance", hindrance.__wrapped__)
    snn = convert(random_ann(2))
    assert choose_backend(snn, 8) == "dense"
    with pytest.raises(ValueError, match="pip install ziglang"):
        choose_backend(snn, 8, name="events")


@tries(25)
@given(networks(), st.integers(0, 1000))
def test_at_silence_every_count_is_the_ann_code(ann, seed):
    images = random_images(seed, ann.spec.in_shape, samples=5)
    record = simulate(convert(ann, max_levels=4096), images)
    expected, logits = codes(ann, images)
    assert (record.settled_at > 0).all()
    for count, code in zip(record.counts, expected, strict=True):
        assert torch.equal(count, code)
    assert torch.equal(record.logits[-1].argmax(1), logits.argmax(1))


@tries(30)
@given(networks(), st.integers(0, 1000))
def test_real_and_integer_thresholds_make_the_same_spikes(ann, seed):
    images = random_images(seed, ann.spec.in_shape)
    exact, real = (simulate(convert(ann, form), images, 12, trace=[0]) for form in ("exact", "float"))
    assert all(torch.equal(a, b) for a, b in zip(exact.traces.spikes, real.traces.spikes, strict=True))


def test_nothing_changes_after_silence_and_the_sufficient_steps_suffice():
    ann = random_ann(3, clip=2)
    snn, images = convert(ann), random_images(3, (1, 8, 8), samples=20)
    record = simulate(snn, images)
    longer = simulate(snn, images, snn.sufficient_steps + 5, trace=range(20))
    assert record.time_steps == int(record.settled_at.max()) + 1 <= snn.sufficient_steps + 1
    assert torch.equal(longer.settled_at, record.settled_at)
    assert all(torch.equal(a, b) for a, b in zip(longer.counts, record.counts, strict=True))
    assert longer.abs_spike[record.time_steps - 1 :].sum() == 0
    assert not any(spikes[record.time_steps - 1 :].any() for spikes in longer.traces.spikes)


def test_a_run_far_beyond_silence_says_the_same_on_and_on(backend):
    snn, images = convert(random_ann(3, clip=2)), random_images(3, (1, 8, 8), samples=5)
    record, longer = (simulate(snn, images, steps, backend=backend) for steps in (None, 2**15))
    assert torch.equal(longer.until(record.time_steps).logits, record.logits)
    assert torch.equal(
        longer.logits[record.time_steps :], record.logits[-1:].expand(2**15 - record.time_steps, -1, -1)
    )
    assert longer.sops.sum() == record.sops.sum() and torch.equal(longer.settled_at, record.settled_at)
    with pytest.raises(ValueError, match="32768 steps are more than 32766"):
        choose_backend(snn, 2**15, disturbed=True, name="events")


def test_batches_are_continued_in_their_silence_and_never_cut():
    snn, images = convert(random_ann(3, clip=2)), random_images(3, (1, 8, 8), samples=4)
    batches = [simulate(snn, some) for some in images.split(2)]
    longest = max(record.time_steps for record in batches)
    assert [merge(batches, steps).time_steps for steps in (None, longest, 99)] == [longest, longest, 99]
    for steps in (0, longest - 1):
        with pytest.raises(ValueError, match=f"^time_steps={steps}: a record has {longest} steps; give at least"):
            merge(batches, steps)


def test_what_is_pending_in_the_first_steps_of_a_run_is_what_fires_later_in_all_of_it():
    record = simulate(convert(random_ann(3, clip=2)), random_images(3, (1, 8, 8), samples=4))
    assert record.until(2).pending.tolist() == record.pending[:2].tolist() and record.pending[1].any()


def test_a_run_cut_short_says_of_every_sample_what_a_run_of_that_length_says(backend):
    snn, images = convert(random_ann(3, k=1, clip=2)), random_images(3, (1, 8, 8), samples=20)
    whole = simulate(snn, images, backend=backend)
    assert torch.equal(whole.silent[-1], torch.ones(20, dtype=torch.bool))
    for steps in range(1, whole.time_steps + 1):
        short = simulate(snn, images, steps, backend=backend)
        assert torch.equal(short.settled_at, whole.until(steps).settled_at)
        assert torch.equal(short.silent[-1], whole.silent[steps - 1])
        assert torch.equal(short.silent[-1], (0 < whole.settled_at) & (whole.settled_at < steps))


def test_silence_is_known_one_step_after_the_last_spike_and_not_before_the_encoder_is_done():
    image = torch.full((1, 1, 1, 1), 10, dtype=torch.uint8)
    record = simulate(one_neuron_sent_too_much(), image, 5, backend="dense")
    assert record.settled_at.tolist() == [3] and record.silent[:, 0].tolist() == [False, False, False, True, True]
    dark = simulate(one_neuron_sent_too_much(), torch.zeros_like(image), 5, backend="dense")
    # No neuron fires at all, but the encoder could until its third step.
    assert dark.abs_spike.sum() == 0 and dark.settled_at.tolist() == [3]


def test_a_run_until_silence_in_which_faults_prevent_it_stays_as_long_as_it_was():
    needs_kernel()
    snn, images = convert(random_ann(6, clip=2)), random_images(6, (1, 8, 8), samples=6)
    faults = dict(fault="flip", fault_rate=0.5, seed=1)
    agree(*(simulate(snn, images, backend=name, **faults) for name in BACKENDS))


def test_a_run_does_not_depend_on_the_number_of_threads():
    snn, images = convert(random_ann(7)), random_images(7, (1, 8, 8), samples=9)
    before, records = torch.get_num_threads(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        records.append(simulate(snn, images, 10, fault="flip", fault_rate=0.1))
    torch.set_num_threads(before)
    agree(*records)


def test_a_run_does_not_depend_on_the_batch_size():
    snn, images = convert(random_ann(5)), random_images(5, (1, 8, 8), samples=9)
    for disturbed in ({}, dict(noise_ratio=0.5, fault="flip", fault_rate=0.1, seed=4)):
        agree(*(simulate(snn, images, 10, batch_size=size, **disturbed) for size in (9, 2)))


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


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_count_that_reaches_the_end_of_its_table_and_comes_back_is_reported_too(backend):
    """A neuron is driven up, and what takes it back arrives a few steps later."""
    ann = build_ann("2C1-2C1-1C1-2C1", (1, 1, 1), 2, levels=4).eval()
    weights = ([[1.0], [1.0]], [[1.0, 0.0], [0.0, 1.0]], [[1.0, -1.0]], [[1.0], [1.0]])
    norms = (([4.0, 4.0], [0.0, 0.0]), ([1.0, 4.0], [0.0, -12.0]), ([3.0], [0.0]), ([1.0, 1.0], [0.0, 0.0]))
    for layer, weight, (gamma, beta) in zip(ann.layers, weights, norms, strict=True):
        raw_weight(layer.conv).data = torch.tensor(weight)[:, :, None, None]
        layer.norm.weight.data, layer.norm.bias.data = torch.tensor(gamma), torch.tensor(beta)
        layer.norm.running_var.fill_(1 - layer.norm.eps)
    white = torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)
    assert simulate(convert(ann, max_levels=8), white, 16, backend=backend).counts[2].max() < 4
    with pytest.raises(ValueError, match=r"layer 2 .*reached 4 spikes, the end of its threshold table"):
        simulate(convert(ann, max_levels=4), white, 16, backend=backend)


def test_images_run_in_parts_are_struck_by_the_faults_that_strike_them_together():
    snn, images = convert(random_ann(3)), random_images(3, (1, 8, 8), samples=6)
    how = dict(time_steps=6, fault="flip", fault_rate=0.2, seed=4)
    for backend in BACKENDS:
        whole = simulate(snn, images, backend=backend, **how)
        parts = [simulate(snn, images[at : at + 2], backend=backend, first_sample=at, **how) for at in (0, 2, 4)]
        assert torch.equal(torch.cat([part.logits for part in parts], 1), whole.logits)
        assert not torch.equal(simulate(snn, images[2:], backend=backend, **how).logits, whole.logits[:, 2:])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1, 2, 3], "labels from 1 to 3: give those of 3 classes, 0 to 2"),
        ([0, -1, 0], "labels from -1 to 0"),
        ([0.0, 1.0, 2.0], "labels of type torch.float32: give whole numbers"),
        ([True, False, True], "labels of type torch.bool"),
        ([0, 1], r"labels \[2\] for 3 images"),
    ],
)
def test_labels_that_no_image_can_have_are_refused(labels, message):
    snn = convert(random_ann(1))
    with pytest.raises(ValueError, match=message):
        simulate(snn, random_images(1, (1, 8, 8), samples=3), 2, labels=torch.tensor(labels))


def test_labels_of_any_integer_type_are_taken():
    snn, images = convert(random_ann(1)), random_images(1, (1, 8, 8), samples=3)
    for labels in (np.array([0, 1, 2], np.uint16), torch.tensor([0, 1, 2], dtype=torch.uint8)):
        record = simulate(snn, images, 2, labels=labels)
        assert record.labels.tolist() == [0, 1, 2] and record.labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time_steps": 0}, "time_steps=0"),
        ({"backend": "gpu"}, "backend='gpu'"),
        ({"noise_ratio": -1}, "noise_ratio=-1"),
        ({"fault": "lose"}, "fault='lose'"),
        ({"fault": "flip", "fault_rate": 2}, "fault_rate=2"),
        ({"fault": "flip"}, "fault='flip' without a fault_rate"),
        ({"images": torch.zeros(1, 1, 9, 9, dtype=torch.uint8)}, r"\[1, 1, 9, 9\]"),
        ({"images": torch.zeros(1, 1, 8, 8)}, "float32"),
        ({"images": torch.zeros(0, 1, 8, 8, dtype=torch.uint8)}, "N ≥ 1"),
        ({"trace": [7]}, r"trace=\[7\]: give a list of indices from 0 to"),
        ({"trace": [0.5]}, r"trace=\[0.5\]: give a list of indices"),
        ({"trace": 1}, "trace=1: give a list of indices"),
        ({"labels": torch.zeros(2, 1), "time_steps": 1}, r"labels \[2, 1\] for 2 images"),
        ({"labels": [0, 1, 2]}, r"labels \[3\] for 2 images"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    arguments = {"images": random_images(0, (1, 8, 8)), "time_steps": 4} | arguments
    with pytest.raises(ValueError, match=message):
        simulate(convert(random_ann()), **arguments)


def test_the_oracle_shares_no_code_with_what_it_judges():
    imported = list(ast.walk(ast.parse(Path(oracle.__file__).read_text(encoding="utf-8"))))
    names = {alias.name for node in imported if isinstance(node, ast.Import) for alias in node.names}
    names |= {"." * node.level + (node.module or "") for node in imported if isinstance(node, ast.ImportFrom)}
    assert names == {
        "__future__",
        "collections.abc",
        "dataclasses",
        "fractions",
        "functools",
        "math",
        "typing",
        "numpy",
    }
