"""Thresholds in their three forms, for every kind of channel, and the network's file."""

from __future__ import annotations

from math import ceil

import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import chains, networks, random_ann, random_images

from ann_snn_utils.ann.network import ANN, build_ann, raw_weight
from ann_snn_utils.ann.reference import codes
from ann_snn_utils.files import load_tensors, save_tensors
from ann_snn_utils.measure.equivalence import check_equivalence
from ann_snn_utils.simulator import oracle
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn import conversion
from ann_snn_utils.snn.conversion import LONGEST, SHORTEST, _whole, convert, levels_for, table_length
from ann_snn_utils.snn.network import worst_case
from ann_snn_utils.snn.store import load_snn, save_snn


@tries(40)
@given(chains())
def test_the_integer_table_is_the_rational_threshold_rounded_up_within_reach(ann):
    snn, (layers, _) = convert(ann), oracle.layers_of(ann)
    for index, (layer, raw) in enumerate(zip(snn.layers, layers, strict=True)):
        n, unit = (1, 255) if index == 0 else (2**ann.spec.k, 1)
        for channel, row in enumerate(layer.thresholds.tolist()):
            lowest, highest = int(layer.lowest[channel]), int(layer.highest[channel])
            for level, theta in enumerate(row, 1):
                value = oracle.threshold(raw, channel, level, n, unit)
                assert theta == ceil(min(max(value, lowest), highest + 1))


def one_neuron(gamma, beta, mean, variance, weight=1.0, k=0):
    """A hidden neuron with one synapse of weight ±1 and the given batch norm, ε = 0."""
    ann = build_ann("1-1", (1, 1, 1), 2, k=k)
    norm = ann.layers[1].norm
    norm.eps = 0.0
    with torch.no_grad():
        ann.layers[0].conv.parametrizations.weight.original.fill_(1.0)  # the encoder reaches all its levels
        ann.layers[1].conv.parametrizations.weight.original.fill_(weight)
        for parameter, value in zip(
            (norm.weight, norm.bias, norm.running_mean, norm.running_var),
            (gamma, beta, mean, variance),
            strict=True,
        ):
            parameter.fill_(value)
    return ann.eval()


def test_a_threshold_that_is_an_integer_is_kept_and_one_just_above_is_rounded_up():
    assert convert(one_neuron(1, 0.5, 0, 1)).layers[1].thresholds[0, :3].tolist() == [0, 1, 2]
    assert convert(one_neuron(1, 0.5 - 2**-24, 0, 1)).layers[1].thresholds[0, :3].tolist() == [1, 2, 3]


def test_levels_lie_sigma_over_gamma_apart_and_scale_with_two_to_the_k():
    # θ_j = (j − 1/2 − 2·0.25)·σ/γ + 2·1 with σ/γ = 3, k = 1
    real = convert(one_neuron(2, 0.25, 1, 36, k=1), "float").layers[1].thresholds
    assert real[0, :3].tolist() == [2.0, 5.0, 8.0]


def test_a_negative_gamma_negates_the_channel():
    layer = convert(one_neuron(-1, 0, -3, 1, weight=-1.0)).layers[1]
    assert layer.weight.item() == 1 and layer.thresholds[0, 0].item() == 4  # θ_1 = 1/2 + 3


def test_a_channel_with_gamma_zero_fires_its_constant_and_stops():
    record = simulate(convert(one_neuron(0, 2.6, 5, 1)), torch.zeros(1, 1, 1, 1, dtype=torch.uint8))
    assert record.counts[1].item() == 3
    assert simulate(convert(one_neuron(0, -1, 5, 1)), torch.zeros(1, 1, 1, 1, dtype=torch.uint8)).counts[1] == 0


def test_published_rounding_moves_the_first_threshold_by_up_to_half_a_unit():
    ann = one_neuron(2, 0.0, 1.4, 9)  # θ_1 = 0.75 + 1.4 = 2.15, step 1.5
    assert convert(ann, "published").layers[1].thresholds[0, 0].item() == 2
    assert convert(ann, "exact").layers[1].thresholds[0, 0].item() == 3
    assert convert(ann, "float").layers[1].thresholds[0, 0].item() == pytest.approx(2.15)


@tries(30)
@given(networks())
def test_no_membrane_leaves_its_bounds(ann):
    snn = convert(ann)
    record = simulate(snn, random_images(1, ann.spec.in_shape), 12, trace=[0, 1])
    for layer, membranes in zip(snn.layers, record.traces.membranes, strict=True):
        extent = membranes.movedim(2, 0).flatten(1)
        assert (extent.amin(1) >= layer.lowest).all() and (extent.amax(1) <= layer.highest).all()


def test_full_precision_hidden_weights_have_no_exact_integer_form():
    ann = build_ann("3C3-5", (1, 6, 6), 3, ternary=False, int8_ends=False)
    with pytest.raises(ValueError, match=r"layer 1 \(5\) has full-precision weights.*thresholds='float'"):
        convert(ann)
    assert not convert(ann, "float").integer


def test_full_precision_ends_keep_integer_hidden_layers():
    snn = convert(build_ann("3C3-5-4", (1, 6, 6), 3, int8_ends=False))
    assert snn.layers[0].weight.is_floating_point() and not snn.layers[1].thresholds.is_floating_point()
    record = simulate(snn, random_images(0, (1, 6, 6)), 6)
    assert record.logits.dtype == torch.float64 and record.predictions.shape == (6, 2)


@pytest.mark.parametrize("symbol", ["γ", "β", "μ", "var"])
def test_a_value_that_is_not_finite_is_named(symbol):
    ann = random_ann()
    norm = ann.layers[1].norm
    parts = {"γ": norm.weight.data, "β": norm.bias.data, "μ": norm.running_mean, "var": norm.running_var}
    parts[symbol][2] = float("nan")
    with pytest.raises(ValueError, match=rf"layer 1 \(P2\): {symbol} of channel 2 is nan"):
        convert(ann)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="thresholds='integer'"):
        convert(random_ann(), "integer")
    with pytest.raises(ValueError, match="full precision"):
        convert(build_ann("3C3-5", (1, 6, 6), 3, quantized=False))


@pytest.mark.parametrize("form", ["exact", "published", "float"])
def test_a_network_comes_back_from_its_file_as_it_was(tmp_path, form):
    snn = convert(random_ann(3, k=1), form)
    save_snn(snn, tmp_path / "snn.safetensors", note="x")
    loaded = load_snn(tmp_path / "snn.safetensors")
    assert loaded.spec == snn.spec and loaded.thresholds == form and loaded.metadata["note"] == "x"
    images = random_images(3, (1, 8, 8))
    assert torch.equal(simulate(loaded, images, 9).logits, simulate(snn, images, 9).logits)


def test_a_file_with_a_real_number_in_an_integer_network_is_refused(tmp_path):
    path = tmp_path / "snn.safetensors"
    save_snn(convert(random_ann()), path)
    assert all(not t.is_floating_point() for t in load_tensors(path)[0].values())
    tensors, metadata = load_tensors(path)
    tensors["layers.1.thresholds"] = tensors["layers.1.thresholds"].float()
    save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match="layers.1.thresholds are torch.float32, not integers"):
        load_snn(path)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("layers.1.highest", lambda t: t - 1, "layers.1.highest is not the worst case of its weights"),
        ("layers.1.weight", lambda t: t * 2, "layers.1.weight holds 2, which is none of −1, 0, \\+1"),
        ("layers.1.weight", lambda t: t.clone().fill_(-128), "layers.1.weight holds 128"),
        ("layers.1.thresholds", lambda t: t.flip(1), "layers.1.thresholds do not ascend"),
        ("layers.1.thresholds", lambda t: t[:1], "layers.1.thresholds have shape"),
        ("classifier", lambda t: t.double(), "classifier is torch.float64"),
        ("classifier", lambda t: None, "classifier is missing"),
    ],
)
def test_a_file_that_conversion_could_not_have_written_is_refused(tmp_path, name, change, message):
    path = tmp_path / "snn.safetensors"
    save_snn(convert(random_ann(2, clip=2)), path)
    tensors, metadata = load_tensors(path)
    tensors[name] = change(tensors[name])
    save_tensors(path, {key: tensor for key, tensor in tensors.items() if tensor is not None}, metadata)
    with pytest.raises(ValueError, match=message):
        load_snn(path)


def test_counts_that_do_not_fit_their_type_are_refused_not_wrapped():
    with pytest.raises(ValueError, match="clip=255, k=8: counts up to 65280"):
        convert(random_ann(k=8, clip=255))


def test_membranes_that_no_exact_sum_holds_are_refused():
    with pytest.raises(ValueError, match=r"2\^53"):
        worst_case(torch.full((1, 1, 1, 1), 127, dtype=torch.int8), torch.tensor([2**50]))


@pytest.mark.parametrize("k", [0, 2])
def test_scores_of_an_encoder_alone_become_its_logits(k):
    ann = random_ann(4, network="5", k=k)
    snn, images = convert(ann), random_images(4, (1, 8, 8))
    scores = simulate(snn, images).logits[-1].double() * snn.metadata["logit_scale"]
    assert torch.allclose(scores, codes(ann, images)[1], rtol=1e-6)


def hardly_trained(scale: float) -> ANN:
    """A network whose second layer counts `scale` times as high: its γ is that much larger."""
    ann = random_ann(1, k=1)
    ann.layers[1].norm.weight.data.mul_(scale)
    return ann


@pytest.mark.parametrize("scale", [1, 20, 100])
def test_a_table_is_made_long_enough_for_the_images(scale):
    ann, images = hardly_trained(scale), random_images(1, (1, 8, 8), samples=12)
    largest = max(int(code.max()) for code in codes(ann, images)[0][1:])
    length = levels_for(ann, images, batch_size=5)
    assert length == table_length(largest) and largest < length
    if scale > 1:
        assert largest >= SHORTEST
        with pytest.raises(ValueError, match="end of its threshold table"):
            check_equivalence(ann, convert(ann), images)
    assert check_equivalence(ann, convert(ann, max_levels=length), images).exact


@given(st.integers(0, 2**40))
def test_a_table_has_a_third_more_than_the_images_need_but_is_never_longer_than_memory_allows(largest):
    length = table_length(largest)
    assert SHORTEST <= length <= LONGEST and length & (length - 1) == 0
    assert 4 * largest < 3 * length or length == LONGEST
    assert length == SHORTEST or 4 * largest >= 3 * (length // 2)


def test_looking_for_the_length_of_tables_leaves_the_network_as_it_is():
    ann = random_ann(2).train()
    before = {name: value.clone() for name, value in ann.state_dict().items()}
    levels_for(ann, random_images(2, (1, 8, 8)))
    assert ann.training and all(torch.equal(value, before[name]) for name, value in ann.state_dict().items())


def test_layers_with_a_clip_need_no_look_at_the_images(monkeypatch):
    ann = random_ann(2, clip=2)
    monkeypatch.setattr(conversion, "reference_of", lambda ann: pytest.fail("the images were looked at"))
    assert levels_for(ann, random_images(2, (1, 8, 8))) == SHORTEST


def test_no_longer_table_is_proposed_than_conversion_takes():
    ann, images = hardly_trained(1e6), random_images(1, (1, 8, 8), samples=2)
    assert levels_for(ann, images) == LONGEST
    with pytest.raises(ValueError, match="reached 4096 spikes, the end of .* table; train the network longer, or"):
        simulate(convert(ann, max_levels=LONGEST), images)


def test_numbers_that_are_no_whole_ones_or_that_float64_rounds_are_refused_with_where_they_lie():
    assert _whole(torch.tensor([-3, 2**53 - 1], dtype=torch.float64), "the classifier").tolist() == [-3, 2**53 - 1]
    for value, told in ((-(2.0**53), r"9.01e\+15, beyond 2\^53"), (0.5, "0.5: give whole numbers")):
        with pytest.raises(ValueError, match=f"the classifier holds {told}"):
            _whole(torch.tensor([1, value], dtype=torch.float64), "the classifier")


def test_a_classifier_of_zeros_is_told_as_every_image_has_one_class():
    ann = random_ann(1)
    with torch.no_grad():
        raw_weight(ann.classifier).zero_()
    with pytest.warns(UserWarning, match="all weights of the classifier are 0: .* train the network again"):
        snn = convert(ann)
    assert simulate(snn, random_images(1, ann.spec.in_shape)).predictions[-1].tolist() == [0, 0]
