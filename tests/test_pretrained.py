"""Bundled networks come back with the same integers, or not at all."""

from __future__ import annotations

import json

import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images

from ann_snn_utils.ann.network import build_ann, raw_weight
from ann_snn_utils.ann.quantize import ternary
from ann_snn_utils.ann.reference import codes
from ann_snn_utils.ann.store import (
    PRETRAINED,
    list_pretrained,
    load_pretrained,
    pack_ternary,
    save_pretrained,
    unpack_ternary,
)
from ann_snn_utils.data.dataset import data_identity
from ann_snn_utils.files import sha256
from ann_snn_utils.runs.evaluation import evaluate_network
from ann_snn_utils.snn.conversion import convert


@tries(30)
@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=50))
def test_ternary_weights_take_two_bits_and_come_back(weights):
    weight = torch.tensor(weights, dtype=torch.float32)
    packed = pack_ternary(weight)
    assert packed.dtype == torch.uint8 and len(packed) == -(-len(weights) // 4)
    assert unpack_ternary(packed, (len(weights),)).tolist() == weights


def test_bytes_that_are_no_ternary_weights_are_refused():
    with pytest.raises(ValueError, match="none of −1, 0, \\+1"):
        unpack_ternary(torch.tensor([0b11], dtype=torch.uint8), (4,))
    with pytest.raises(ValueError, match="2 bytes of ternary weights do not make shape \\(4,\\)"):
        unpack_ternary(torch.zeros(2, dtype=torch.uint8), (4,))


@tries(20)
@given(networks(), st.integers(0, 100))
def test_a_restored_network_has_the_same_codes_and_thresholds(tmp_path_factory, ann, seed):
    folder = tmp_path_factory.mktemp("pretrained")
    save_pretrained(ann, "net", folder)
    restored = load_pretrained("net", folder)
    images = random_images(seed, ann.spec.in_shape)
    (before, scores), (after, again) = codes(ann, images), codes(restored, images)
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True)) and torch.equal(scores, again)
    for form in ("exact", "published"):
        for one, other in zip(convert(ann, form).layers, convert(restored, form).layers, strict=True):
            assert torch.equal(one.weight, other.weight) and torch.equal(one.thresholds, other.thresholds)


def test_a_weight_at_the_threshold_of_ternary_weights_is_kept_as_conversion_sees_it(tmp_path):
    ann = random_ann(4, network="3C3-40C3-5")
    weight = raw_weight(ann.layers[1].conv)
    with torch.no_grad():
        for _ in range(100):
            # As close to the threshold as there is: on one of its sides in float32, on the other in float64.
            weight[0, 0, 0, 0] = 0.7 * weight.abs().mean()
            for _ in range(8):
                if bool((ternary(weight) != ternary(weight.double())).any()):
                    break
                weight[0, 0, 0, 0] = torch.nextafter(weight[0, 0, 0, 0], weight.new_tensor(1.0))
            else:
                weight[1] *= 1.01
                continue
            break
    assert bool((ternary(weight) != ternary(weight.double())).any())
    save_pretrained(ann, "tiny", tmp_path)
    made, restored = convert(ann), convert(load_pretrained("tiny", tmp_path))
    assert torch.equal(made.layers[1].weight, restored.layers[1].weight)


def test_the_index_says_what_each_network_is_and_how_it_was_made(tmp_path):
    ann = random_ann(1)
    ann.metadata = {"correct": 9, "samples": 10}
    path = save_pretrained(ann, "tiny", tmp_path, command="make study", seed=0)
    save_pretrained(random_ann(2), "other", tmp_path)
    index = list_pretrained(tmp_path)
    assert list(index) == ["tiny", "other"] and index["tiny"]["sha256"] == sha256(path)
    assert index["tiny"]["command"] == "make study" and index["tiny"]["correct"] == 9
    assert load_pretrained("tiny", tmp_path).metadata == {**ann.metadata, "command": "make study", "seed": 0}


def test_a_file_that_is_not_the_listed_one_is_refused(tmp_path):
    path = save_pretrained(random_ann(1), "tiny", tmp_path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="tiny.safetensors has SHA-256 .* restore it from git"):
        load_pretrained("tiny", tmp_path)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    save_pretrained(random_ann(1), "tiny", tmp_path)
    with pytest.raises(ValueError, match="'big': choose one of tiny"):
        load_pretrained("big", tmp_path)


def test_full_precision_ends_are_not_bundled(tmp_path):
    with pytest.raises(ValueError, match="int8_ends=True"):
        save_pretrained(build_ann("4", (1, 2, 2), 2, int8_ends=False), "net", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(list_pretrained()))
def test_every_bundled_network_loads_and_is_small(name):
    entry = json.loads((PRETRAINED / "index.json").read_text())[name]
    ann = load_pretrained(name)
    most = 4_000_000 if entry["source"]["name"].startswith("cifar") else 1_000_000
    assert entry["bytes"] < most and {"command", "seed"} <= set(entry)
    assert convert(ann).integer


@pytest.mark.parametrize("name", sorted(list_pretrained()))
def test_a_bundled_network_says_which_images_it_was_made_with(name):
    entry, metadata = list_pretrained()[name], load_pretrained(name).metadata
    assert entry["data"] == metadata["data"] and len(metadata["data"]["classes"]) == 10
    if entry["source"]["name"] == "digits":
        assert metadata["data"] == data_identity(metadata["source"])


@pytest.mark.filterwarnings("ignore:the 10 images and labels")
def test_a_bundled_network_is_not_evaluated_on_other_images_of_the_same_name(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    labels, images = bytes(range(10)), bytes(10 * 28 * 28 - 1) + b"\xff"
    for part in ("train", "t10k"):
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 10]) + labels)
        sides = b"".join(side.to_bytes(4, "big") for side in (10, 28, 28))
        (raw / f"{part}-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3]) + sides + images)
    monkeypatch.setenv("ANN_SNN_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="the test images of mnist are not those that this network was made with"):
        evaluate_network("bundled:mnist-lenet-k0")
