"""The comparison of settled counts with integer codes: zero where it must be, and able to find a difference."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images

from ann_snn_utils.ann.reference import codes, predict
from ann_snn_utils.data.dataset import Dataset
from ann_snn_utils.measure.equivalence import check_equivalence
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.certificate import certify
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.network import SNN


def tampered(snn: SNN, layer: int, channel: int) -> SNN:
    """The network with the first threshold of one channel moved out of reach."""
    table = snn.layers[layer].thresholds.clone()
    table[channel] = snn.layers[layer].highest[channel] + 1
    layers = list(snn.layers)
    layers[layer] = replace(layers[layer], thresholds=table)
    return replace(snn, layers=tuple(layers))


@tries(15)
@given(networks(), st.integers(0, 1000), st.integers(1, 5))
def test_exact_networks_are_exact_in_any_batch_size(ann, seed, batch_size):
    images = random_images(seed, ann.spec.in_shape, samples=5)
    snn = convert(ann, max_levels=512)
    result = check_equivalence(ann, snn, images, batch_size=batch_size)
    assert result.exact and not any(result.mismatches) and result.examples == ()
    assert result.samples == 5
    assert result.neurons == tuple(5 * layer.neurons for layer in snn.layers)
    assert torch.equal(result.settled_at, simulate(snn, images).settled_at)


@contextmanager
def another(name: str) -> Iterator[None]:
    """Torch as a user may have set it."""
    if name == "default type":
        torch.set_default_dtype(torch.float64)
    elif name == "default device":
        torch.set_default_device("meta")
    try:
        with {
            "autocast": partial(torch.autocast, "cpu"),
            "no oneDNN": partial(torch.backends.mkldnn.flags, enabled=False),
            "inference": torch.inference_mode,
        }.get(name, nullcontext)():
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)


@pytest.mark.parametrize("setting", ["autocast", "no oneDNN", "inference", "default type", "default device"])
def test_nothing_that_a_user_sets_of_torch_changes_a_number(setting, monkeypatch):
    if setting == "no oneDNN":
        monkeypatch.setattr("ann_snn_utils.ann.exact_sums._convolves_bytes", lambda: False)
    # As wide, and as many images, as an algorithm asks for that does not just multiply and add.
    ann = random_ann(5, network="8C3-16C3-5", padding="same", int8_ends=True)
    images, snn = random_images(5, (1, 8, 8), samples=20), convert(ann)
    (layers, logits), classes = codes(ann, images), predict(ann, images)
    wanted, offset = simulate(snn, images, 6, trace=[0, 7]), certify(snn)[1].offset
    noise: dict = dict(time_steps=None, noise_ratio=0.5, labels=np.arange(20) % 3)
    noisy = simulate(snn, images, **noise)
    with another(setting):
        found, scores = codes(ann, images)
        assert (
            torch.equal(predict(ann, images), classes)
            and all(map(torch.equal, found, layers))
            and torch.equal(scores, logits)
        )
        assert check_equivalence(ann, snn, images).exact
        assert torch.equal(simulate(convert(ann), images, 6).logits, wanted.logits)
        assert torch.equal(certify(snn)[1].offset, offset)
        assert torch.equal(simulate(snn, images, **noise).logits, noisy.logits)
        for backend in ("dense", "events"):
            record = simulate(snn, images, 6, trace=[0, 7], backend=backend)
            assert torch.equal(record.logits, wanted.logits) and np.array_equal(record.sops, wanted.sops)
            assert all(map(torch.equal, record.traces.membranes, wanted.traces.membranes))


def test_a_network_that_was_converted_for_inference_runs_afterwards():
    images = random_images(5, (1, 8, 8))
    with torch.inference_mode():
        snn = convert(random_ann(5))
    assert torch.equal(simulate(snn, images, 6).logits, simulate(convert(random_ann(5)), images, 6).logits)


def test_the_comparison_leaves_torch_its_threads():
    before, told = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        check_equivalence(random_ann(3), convert(random_ann(3)), random_images(3, (1, 8, 8)))
        other = threading.Thread(target=lambda: told.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert told == [3] == [torch.get_num_threads()]
    finally:
        torch.set_num_threads(before)


def test_every_mismatch_is_counted_and_the_examples_can_be_looked_up():
    ann, images = random_ann(3), random_images(3, (1, 8, 8), samples=10)
    expected, _ = codes(ann, images)
    channel = int((expected[2] != 0).sum((0, 2, 3)).argmax())
    snn = tampered(convert(ann), 2, channel)
    settled = simulate(snn, images).counts
    result = check_equivalence(ann, snn, images, batch_size=4)
    assert not result.exact
    assert result.mismatches == tuple(int((a != b).sum()) for a, b in zip(expected, settled, strict=True))
    assert result.mismatches[:2] == (0, 0)
    assert result.mismatches[2] == int((expected[2][:, channel] != 0).sum()) > 3
    first = [example for example in result.examples if example.layer == 2]
    assert len(first) == 3 and {example.channel for example in first} == {channel}
    for example in result.examples:
        place = (example.sample, example.channel, example.y, example.x)
        assert example.name == snn.layers[example.layer].name
        assert example.code == expected[example.layer][place] != example.count == settled[example.layer][place]
    assert result.examples == check_equivalence(ann, snn, images, batch_size=1).examples


def test_examples_in_a_later_batch_name_the_sample_of_the_whole_set():
    ann, image = random_ann(3), random_images(3, (1, 8, 8), samples=1)
    code = codes(ann, image)[0][-1].flatten()
    snn = tampered(convert(ann), 3, channel=int(code.argmax()))
    result = check_equivalence(ann, snn, image.repeat(5, 1, 1, 1), batch_size=1)
    assert [example.sample for example in result.examples] == [0, 1, 2]
    assert result.mismatches == (0, 0, 0, 5) and result.neurons[3] == 25


def test_prediction_mismatches_alone_are_not_exact():
    ann, images = random_ann(5), random_images(5, (1, 8, 8), samples=12)
    snn = convert(ann)
    reversed_classes = replace(snn, classifier=snn.classifier.flip(0).contiguous())
    expected = codes(ann, images)[1].argmax(1)
    wrong = (simulate(reversed_classes, images).predictions[-1] != expected).sum()
    result = check_equivalence(ann, reversed_classes, images)
    assert result.prediction_mismatches == wrong > 0
    assert not any(result.mismatches) and not result.exact


def test_class_scores_that_name_the_same_class_are_compared_too():
    ann, images = random_ann(5), random_images(5, (1, 8, 8), samples=12)
    snn = convert(ann)
    result = check_equivalence(ann, replace(snn, bias=torch.full((3,), 100)), images, batch_size=5)
    assert result.score_mismatches == 12 and not result.exact
    assert not any(result.mismatches) and not result.prediction_mismatches


def test_real_class_scores_are_compared_by_their_class():
    ann = random_ann(5, int8_ends=False)
    result = check_equivalence(ann, convert(ann), random_images(5, (1, 8, 8)))
    assert result.exact and result.score_mismatches == 0


def test_real_thresholds_agree_and_published_ones_are_measured():
    ann, images = random_ann(8), random_images(8, (1, 8, 8), samples=10)
    assert check_equivalence(ann, convert(ann, "float"), images).exact
    published = check_equivalence(ann, convert(ann, "published"), images)
    assert published.mismatches[0] == 0 and sum(published.mismatches) > 0 and not published.exact


def test_a_dataset_is_taken_as_its_images():
    ann, images = random_ann(3), random_images(3, (1, 8, 8), samples=4)
    dataset = Dataset("drawn", "test", images, torch.zeros(4, dtype=torch.int64), ("a", "b", "c"))
    assert check_equivalence(ann, convert(ann), dataset).samples == 4


def test_networks_that_do_not_belong_together_are_named():
    with pytest.raises(ValueError, match="k 0 ≠ 1.*convert this ANN"):
        check_equivalence(random_ann(), convert(random_ann(k=1)), random_images(0, (1, 8, 8)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(1, 1, 9, 9, dtype=torch.uint8), r"\[1, 1, 9, 9\]"),
        (torch.zeros(1, 1, 8, 8), "float32"),
        (torch.zeros(0, 1, 8, 8, dtype=torch.uint8), "N ≥ 1"),
    ],
)
def test_images_of_the_wrong_kind_are_named(images, message):
    with pytest.raises(ValueError, match=message):
        check_equivalence(random_ann(), convert(random_ann()), images)


def test_a_batch_size_of_zero_is_refused():
    with pytest.raises(ValueError, match="batch_size=0"):
        check_equivalence(random_ann(), convert(random_ann()), random_images(0, (1, 8, 8)), batch_size=0)
