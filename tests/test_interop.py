"""Published checkpoints become the same network here; rounding its ends leaves an exactly convertible one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checkpoints import float_ends_ann, pack, parameters, save_by_protocol
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import random_ann, random_images

from ann_snn_utils.ann.network import build_ann, raw_weight
from ann_snn_utils.ann.reference import codes, in_float64
from ann_snn_utils.ann.store import load_ann, save_ann
from ann_snn_utils.ann.tensorlayer import import_tensorlayer, quantize_ends
from ann_snn_utils.measure.equivalence import check_equivalence
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.thresholds import normalization, real_thresholds

NOTATION, SHAPE = "3C3-P2-4C2-5", (1, 8, 8)
ENDING_IN_A_MAP = "4C3-P2-2C2"


def saved(path, ann):
    np.savez(path, params=parameters(ann))
    return path


@tries(30)
@given(
    seed=st.integers(0, 10**6),
    network=st.sampled_from([NOTATION, ENDING_IN_A_MAP, "3-2"]),
    in_shape=st.sampled_from([(1, 8, 8), (3, 8, 8)]),
    k=st.integers(0, 2),
    levels=st.integers(1, 4),
    ternary=st.booleans(),
)
def test_an_imported_network_is_the_one_that_was_saved(tmp_path_factory, seed, **arguments):
    ann = float_ends_ann(seed, **arguments)
    path = saved(tmp_path_factory.mktemp("tensorlayer") / "model.npz", ann)
    imported = import_tensorlayer(path, **arguments)
    images = random_images(seed, arguments["in_shape"], samples=4)
    assert imported.spec == ann.spec and not imported.training
    assert torch.equal(imported(images), ann(images))
    tensors = ann.state_dict()
    assert all(torch.equal(value, tensors[name]) for name, value in imported.state_dict().items())


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_checkpoints_of_older_versions_of_numpy_are_read(tmp_path, protocol):
    ann, images = float_ends_ann(1, k=1), random_images(1, SHAPE)
    path = save_by_protocol(tmp_path / "model.npz", parameters(ann), protocol, old_numpy=protocol < 4)
    assert torch.equal(import_tensorlayer(path, NOTATION, SHAPE, k=1)(images), ann(images))


def test_the_classifier_sees_the_map_as_height_width_channels(tmp_path):
    ann, image = float_ends_ann(2, network=ENDING_IN_A_MAP), random_images(2, SHAPE, samples=1)
    listed = parameters(ann)
    imported = import_tensorlayer(saved(tmp_path / "model.npz", ann), ENDING_IN_A_MAP, SHAPE, k=0)
    features = imported.layers(imported.scaled(image)).detach().numpy()
    assert features.shape[2] * features.shape[3] > 1 and features.any()
    expected = features.transpose(0, 2, 3, 1).reshape(1, -1) @ listed[-1]
    assert np.allclose(imported(image).detach().numpy(), expected, rtol=1e-5)


def test_weights_that_were_saved_ternary_stay_as_they_are(tmp_path):
    ann = float_ends_ann(3)
    for layer in ann.layers[1:]:
        raw_weight(layer.conv).data.copy_(layer.conv.weight)
    imported = import_tensorlayer(saved(tmp_path / "model.npz", ann), NOTATION, SHAPE, k=0)
    for a, b in zip(imported.layers[1:], ann.layers[1:], strict=True):
        assert torch.equal(a.conv.weight, raw_weight(b.conv))


@tries(15)
@given(seed=st.integers(0, 10**6), k=st.integers(0, 2))
def test_an_imported_ternary_network_settles_on_its_codes(tmp_path_factory, seed, k):
    path = saved(tmp_path_factory.mktemp("tensorlayer") / "model.npz", float_ends_ann(seed, k=k))
    imported = import_tensorlayer(path, NOTATION, SHAPE, k)
    images = random_images(seed, SHAPE, samples=4)
    for thresholds in ("exact", "float"):
        assert check_equivalence(imported, convert(imported, thresholds, max_levels=1024), images).exact


def test_a_full_precision_import_settles_with_real_thresholds(tmp_path):
    path = saved(tmp_path / "model.npz", float_ends_ann(5, ternary=False))
    imported = import_tensorlayer(path, NOTATION, SHAPE, k=0, ternary=False)
    snn = convert(imported, "float", max_levels=1024)
    assert check_equivalence(imported, snn, random_images(5, SHAPE, samples=4)).exact


def test_big_endian_and_double_precision_files_are_read_as_float32(tmp_path):
    ann, images = float_ends_ann(6), random_images(6, SHAPE)
    listed = parameters(ann)
    for index, array in enumerate(listed):
        listed[index] = array.astype(">f4" if index % 2 else "<f8")
    np.savez(tmp_path / "model.npz", params=listed)
    assert torch.equal(import_tensorlayer(tmp_path / "model.npz", NOTATION, SHAPE, k=0)(images), ann(images))


def test_named_networks_bring_their_padding(tmp_path):
    ann = build_ann("2C3-P2-3", (1, 4, 4), 2, padding="same", int8_ends=False)
    path = saved(tmp_path / "model.npz", ann)
    assert import_tensorlayer(path, "2C3-P2-3", (1, 4, 4), 0, padding="same").spec.padding == "same"
    with pytest.raises(ValueError, match=r"array 10 .*layer 2 \(3\) weights.*\(1, 1, 2, 3\).*padding"):
        import_tensorlayer(path, "2C3-P2-3", (1, 4, 4), 0, padding="valid")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p[:-1], r"holds 20 arrays, and 3C3-P2-4C2-5 needs 21"),
        (lambda p: [*p, p[-1]], "holds 22 arrays"),
        (lambda p: p[5:], r"array 0 has shape \(2, 2, 3, 3\), and layer 0 \(3C3\) weights.*need \(3, 3, 1, 3\)"),
        (lambda p: [p[0].transpose(3, 2, 0, 1), *p[1:]], r"array 0 has shape \(3, 1, 3, 3\)"),
        (lambda p: [*p[:7], p[7][:2], *p[8:]], r"array 7 has shape \(2,\), and layer 1 \(P2\) γ"),
        (lambda p: [*p[:-1], p[-1].T], r"the classifier has shape \(3, 5\).*needs \(5, '2 or more'\)"),
        (lambda p: [*p[:-1], p[-1][:, :1]], r"the classifier has shape \(5, 1\)"),
        (lambda p: [*p[:-1], p[-1].ravel()], r"the classifier has shape \(15,\)"),
        (lambda p: [*p[:-1], np.zeros((5, 0), np.float32)], r"the classifier has shape \(5, 0\)"),
        (lambda p: [*p[:12], p[12] * np.nan, *p[13:]], r"layer 2 \(4C2\) γ holds nan"),
        (lambda p: [p[0] + np.inf, *p[1:]], r"layer 0 \(3C3\) weights holds inf"),
        (lambda p: [p[0] * 1e300, *p[1:]], r"layer 0 \(3C3\) weights holds -?inf"),
        (lambda p: [*p[:4], -1 - p[4], *p[5:]], r"layer 0 \(3C3\) variance holds -"),
        (lambda p: [*p[:-1], p[-1] - np.inf], "the classifier holds -inf"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_where(tmp_path, change, message):
    listed = parameters(float_ends_ann(0))
    changed = change([array.astype(np.float64) for array in listed])
    out = np.empty(len(changed), dtype=object)
    for index, array in enumerate(changed):
        out[index] = array
    np.savez(tmp_path / "model.npz", params=out)
    with pytest.raises(ValueError, match=message) as error:
        import_tensorlayer(tmp_path / "model.npz", NOTATION, SHAPE, k=0)
    assert "model.npz" in str(error.value)


def test_the_number_of_classes_can_be_demanded(tmp_path):
    path = saved(tmp_path / "model.npz", float_ends_ann(0))
    assert import_tensorlayer(path, NOTATION, SHAPE, 0, classes=3).spec.classes == 3
    with pytest.raises(ValueError, match=r"has shape \(5, 3\).*needs \(5, 10\)"):
        import_tensorlayer(path, NOTATION, SHAPE, 0, classes=10)


def test_a_wrong_description_is_reported_before_the_file_is_opened(tmp_path):
    with pytest.raises(ValueError, match="unknown token 'X'"):
        import_tensorlayer(tmp_path / "gone.npz", "3C3-X", SHAPE, 0)
    with pytest.raises(ValueError, match="k=-1"):
        import_tensorlayer(tmp_path / "gone.npz", NOTATION, SHAPE, -1)
    with pytest.raises(FileNotFoundError, match=r"gone\.npz"):
        import_tensorlayer(tmp_path / "gone.npz", NOTATION, SHAPE, 0)


def test_a_hostile_checkpoint_is_refused_by_the_import_too(tmp_path):
    path = pack(tmp_path / "model.npz", b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.")
    with pytest.raises(ValueError, match=r"asks for 'os\.system'"):
        import_tensorlayer(path, NOTATION, SHAPE, 0)


def rounded(weight: torch.Tensor) -> torch.Tensor:
    """s · round(w / s) in float64, s = max|w| / 127 for each channel."""
    weight = weight.detach().double()
    scale = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    return torch.where(scale > 0, (weight / scale).round() * scale, 0.0)


@pytest.mark.parametrize("ternary", [True, False])
@pytest.mark.parametrize("k", [0, 1])
def test_int8_ends_settle_on_their_codes_and_every_tensor_is_an_integer(ternary, k):
    ann = quantize_ends(float_ends_ann(7, ternary=ternary, k=k))
    snn = convert(ann, max_levels=1024)
    assert ann.spec.int8_ends and snn.integer
    assert check_equivalence(ann, snn, random_images(7, SHAPE, samples=5)).exact


@tries(30)
@given(seed=st.integers(0, 10**6), ternary=st.booleans())
def test_thresholds_are_those_of_the_rounded_weights(seed, ternary):
    ann = float_ends_ann(seed, ternary=ternary)
    before, after = in_float64(ann), in_float64(quantize_ends(ann))
    for index, (old, new) in enumerate(zip(before.layers, after.layers, strict=True)):
        if index > 0 and ternary:
            assert torch.equal(old.conv.weight, new.conv.weight)
            assert all(torch.equal(a, b) for a, b in zip(old.norm.buffers(), new.norm.buffers(), strict=True))
            continue
        assert torch.equal(new.conv.weight, new.conv.weight.round()) and new.conv.weight.abs().max() <= 127
        x = torch.rand(2, *old.spec.in_shape, dtype=torch.float64)
        exact = F.conv2d(x, rounded(old.conv.weight), stride=old.conv.stride, padding=old.conv.padding)
        assert torch.allclose(new.norm(new.conv(x)), old.norm(exact), rtol=1e-5, atol=1e-5)
        # The distance of an integer membrane to its threshold, in steps of the threshold, is that before.
        old_norm, new_norm = (normalization(layer.norm, "layer") for layer in (old, new))
        scale = old.conv.weight.abs().amax((1, 2, 3)) / 127
        theta = real_thresholds(new_norm, 1, 4) * scale[:, None]
        expected = real_thresholds(old_norm, 1, 4)
        finite = expected.isfinite()
        assert torch.equal(finite, theta.isfinite())
        assert torch.allclose(theta[finite], expected[finite], rtol=1e-5, atol=1e-5)


def test_logits_stay_close_and_codes_mostly_the_same():
    ann, images = float_ends_ann(8), random_images(8, SHAPE, samples=50)
    result = quantize_ends(ann)
    (old, old_logits), (new, new_logits) = codes(ann, images), codes(result, images)
    assert (old[0] != new[0]).double().mean() < 0.02
    assert (old_logits.argmax(1) == new_logits.argmax(1)).double().mean() > 0.8
    spread = float(raw_weight(ann.classifier).detach().abs().max()) / 127
    assert abs(float(result.classifier.scale) - spread) < 1e-9


def test_a_constant_channel_and_a_flat_variance_survive_rounding():
    ann = float_ends_ann(9)
    with torch.no_grad():
        raw_weight(ann.layers[0].conv)[0] = 0.0
        raw_weight(ann.layers[0].conv)[1] *= 1e6
        ann.layers[0].norm.running_var.zero_()
    result = quantize_ends(ann)
    images = random_images(9, SHAPE, samples=5)
    assert (codes(result, images)[0][0][:, 0] == codes(ann, images)[0][0][:, 0]).all()
    assert check_equivalence(result, convert(result, max_levels=1024), images).exact


def test_rounding_leaves_the_network_it_was_given_and_its_metadata(tmp_path):
    ann = float_ends_ann(10)
    ann.metadata = {"epochs": 3}
    before = {name: value.clone() for name, value in ann.state_dict().items()}
    result = quantize_ends(ann)
    assert all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())
    assert not ann.spec.int8_ends and result.metadata == {"epochs": 3} and not result.training
    save_ann(result, tmp_path / "ann.safetensors")
    images = random_images(10, SHAPE)
    assert torch.equal(codes(load_ann(tmp_path / "ann.safetensors"), images)[1], codes(result, images)[1])


def test_int8_ends_are_not_rounded_twice():
    ann, images = random_ann(11), random_images(11, SHAPE)
    once, twice = quantize_ends(float_ends_ann(11)), quantize_ends(quantize_ends(float_ends_ann(11)))
    assert torch.equal(once(images), twice(images))
    copy = quantize_ends(ann)
    assert copy is not ann and torch.equal(copy(images), ann(images))


@pytest.mark.parametrize("network", ["4C3-[6C3-6C3]-5", "4C3-M2-5"])
def test_shortcuts_and_maxima_are_rounded_with_the_layers(network):
    torch.manual_seed(12)
    ann = build_ann(network, SHAPE, 3, k=4, ternary=False, int8_ends=False, padding="same")
    images = random_images(12, SHAPE, samples=50)
    with torch.no_grad():
        for _ in range(30):
            ann(images)
        before, after = ann.eval()(images), quantize_ends(ann)(images)
    assert float((before - after).abs().mean()) < 0.2 * float(before.std())


@pytest.mark.parametrize("network", ["4C3-[6C3-6C3]-5", "4C3-M2-6C3-5", "4C3-6C3-6C3-A"])
def test_what_no_published_checkpoint_holds_is_refused(tmp_path, network):
    path = saved(tmp_path / "model.npz", float_ends_ann(13, network="4C3-6C3-6C3-5"))
    with pytest.raises(ValueError, match="network='4C3-.*a published checkpoint holds a chain"):
        import_tensorlayer(path, network, SHAPE, k=0, padding="same")


def test_a_full_precision_network_has_no_ends_to_round():
    with pytest.raises(ValueError, match="full precision.*quantized=True"):
        quantize_ends(build_ann("3", SHAPE, 2, quantized=False))
