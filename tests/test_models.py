"""Network notation, the networks it makes, and their quantized forward pass."""

from __future__ import annotations

import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images

from ann_snn_utils.ann.exact_sums import _convolves_bytes, exact_sums
from ann_snn_utils.ann.graph import Branch, Node, graph_text
from ann_snn_utils.ann.network import ANN, build_ann, copy_weights
from ann_snn_utils.ann.notation import parse
from ann_snn_utils.ann.quantize import Int8, QuantReLU, int8_scale, ternary
from ann_snn_utils.ann.reference import codes, in_float64, reference_of
from ann_snn_utils.ann.store import load_ann, save_ann
from ann_snn_utils.files import load_tensors, save_tensors


def test_lenet_has_the_published_shapes():
    shapes = [layer.out_shape for layer in parse("32C5-P2-64C5-P2-1000", (1, 28, 28))]
    assert shapes == [(32, 24, 24), (32, 12, 12), (64, 8, 8), (64, 4, 4), (1000, 1, 1)]


def test_vgg_sees_three_by_three_at_its_first_fully_connected_layer():
    layer = build_ann("vgg", (3, 24, 24), 10).spec.layers[-2]
    assert layer.in_shape == (256, 3, 3) and layer.kernel == (3, 3)


@pytest.mark.parametrize(
    ("network", "marked", "reason"),
    [
        ("32C5-P2-64X5", "64X5", "unknown token"),
        ("32C5--10", "", "unknown token"),
        ("32C29-10", "32C29", "larger than the 28×28 map"),
        ("4C4-P2-10", "P2", "25×25 map before P2 does not divide by 2"),
        ("8C5-P2-100-P2", "P2", "1×1 map before P2"),
        ("0C5-10", "0C5", "unknown token"),
    ],
)
def test_a_wrong_token_is_pointed_at_and_explained(network, marked, reason):
    with pytest.raises(ValueError, match=reason) as error:
        parse(network, (1, 28, 28))
    text, caret = str(error.value).split("\n")[-2:]
    assert text.strip() == network
    start = caret.index("^")
    assert text[start : start + len(marked)] == marked and caret.count("^") == max(1, len(marked))


def test_same_padding_refuses_even_kernels():
    with pytest.raises(ValueError, match="4×4 is even"):
        parse("8C4", (1, 8, 8), "same")
    with pytest.raises(ValueError, match="windows of 2×2 that overlap are even"):
        parse("8C3-M2s1", (1, 8, 8), "same")
    assert parse("8C3-M2", (1, 8, 8), "same")[-1].out_shape == (8, 4, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": -1}, "k=-1"),
        ({"k": 99}, "k=99"),
        ({"levels": 0}, "levels=0"),
        ({"clip": 0}, "clip=0"),
        ({"classes": 1}, "classes=1"),
        ({"padding": "full"}, "padding='full'"),
        ({"in_shape": (28, 28)}, "in_shape"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_ann(**{"network": "8C3-10", "in_shape": (1, 8, 8), "classes": 10} | arguments)


def test_ternary_weights_follow_the_published_rule():
    weight = torch.tensor([1.0, -1.0, 0.5, -0.4, 0.1])
    assert ternary(weight).tolist() == [1, -1, 1, 0, 0]  # 0.7 · mean|w| = 0.42


@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=8))
def test_int8_weights_are_the_nearest_multiples_of_their_scale(values):
    weight = torch.tensor([values], dtype=torch.float64)
    codes, scale = Int8()(weight), int8_scale(weight)
    assert codes.abs().max() <= 127 and torch.equal(codes, codes.round())
    assert ((codes * scale - weight).abs() <= scale / 2 * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    ("k", "clip", "expected"),
    [(0, None, [0, 0, 1, 3]), (1, None, [0, 0.5, 0.5, 2.5]), (0, 2, [0, 0, 1, 2]), (2, 1, [0, 0.25, 0.5, 1])],
)
def test_activations_round_half_up_to_levels(k, clip, expected):
    x = torch.tensor([-1.0, 0.3, 0.5, 2.6], requires_grad=True)
    a = QuantReLU(k, clip)(x)
    a.sum().backward()
    assert a.tolist() == expected
    assert x.grad.tolist() == [0, 1, 1, 0 if clip else 1]


@tries(25)
@given(networks())
def test_a_quantized_network_computes_with_integer_weights_exactly(ann: ANN):
    for module in [*(part.conv for part in ann.double().parts), ann.classifier]:
        assert torch.equal(module.weight, module.weight.round())
        assert module.weight.abs().max() <= 127


def test_a_network_comes_back_from_its_file_as_it_was(tmp_path):
    ann, images = random_ann(2, k=1, clip=3), random_images(2, (1, 8, 8))
    save_ann(ann, tmp_path / "ann.safetensors", seed=7)
    loaded = load_ann(tmp_path / "ann.safetensors").eval()
    assert loaded.spec == ann.spec and loaded.metadata == {"seed": 7}
    assert torch.equal(loaded(images), ann(images))


def test_a_file_without_a_network_is_named(tmp_path):
    save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match=r"x.safetensors holds no network"):
        load_ann(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"source": {"limit": 3}}, "name no data set"),
        ({"source": {"name": 3}}, "name no data set"),
        ({"source": {"name": "digits"}, "data": {"test": ""}}, "hold no digests"),
    ],
)
def test_a_file_that_does_not_say_which_images_it_stands_on_is_refused(tmp_path, metadata, message):
    save_ann(random_ann(), tmp_path / "x.safetensors", **metadata)
    with pytest.raises(ValueError, match=rf"x.safetensors: its metadata {message}"):
        load_ann(tmp_path / "x.safetensors")


def test_full_precision_weights_start_the_quantized_network():
    spec = {"network": "3C3-5", "in_shape": (1, 6, 6), "classes": 3}
    source, target = build_ann(**spec, quantized=False), build_ann(**spec)
    copy_weights(source, target)
    assert torch.equal(target.layers[1].conv.weight, ternary(source.layers[1].conv.weight))
    with pytest.raises(ValueError, match="shapes differ"):
        copy_weights(source, build_ann("4C3-5", (1, 6, 6), 3))


GRAPH = graph_text([Node("a", (Branch((-1,), (3, 3)),), 2, step=0.5)])


@pytest.mark.parametrize("real", ["quantized", "int8_ends"])
def test_a_graph_of_whole_weights_has_no_real_ones(real):
    assert build_ann(GRAPH, (1, 8, 8), 3).spec.is_graph
    with pytest.raises(ValueError, match=f"{real}=False.*holds whole weights: leave both True"):
        build_ann(GRAPH, (1, 8, 8), 3, **{real: False})


def test_weights_of_a_graph_are_not_copied_into_notation_of_the_same_shape():
    like = graph_text([Node("3C3", (Branch((-1,), (3, 3)),), 3, eps=1e-5)])
    ours, theirs = (build_ann(network, (1, 8, 8), 3) for network in ("3C3", like))
    assert ours.spec.graph == theirs.spec.graph
    with pytest.raises(ValueError, match="cannot copy weights of 3C3 into graph of 1 layer"):
        copy_weights(ours, theirs)


def test_codes_are_refused_for_a_full_precision_network():
    with pytest.raises(ValueError, match="quantized=True"):
        codes(build_ann("3C3-5", (1, 6, 6), 3, quantized=False), random_images(0, (1, 6, 6)))


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        ("99999-99999", (1, 8, 8), "weights and 99,999 neurons in a layer; at most"),
        ("9999C3", (1, 999, 999), "use fewer, or smaller images"),
        ("1" * 1001, (1, 8, 8), "of at most 1000 characters"),
        ("-".join(["1"] * 201), (1, 8, 8), "201 layers and more; use at most 200"),
        ("4C3", (1, 10**5, 10**5), "an image of at most"),
    ],
)
def test_a_network_that_would_take_all_memory_is_refused_before_it_is_built(network, shape, message):
    with pytest.raises(ValueError, match=message):
        build_ann(network, shape, 10)


def test_a_file_that_names_a_larger_network_than_it_holds_is_refused_by_its_shapes(tmp_path):
    path = tmp_path / "ann.safetensors"
    save_ann(random_ann(), path)
    tensors, metadata = load_tensors(path)
    metadata["spec"] |= {"network": "2000-2000-2000", "in_shape": [1, 8, 8]}
    save_tensors(path, tensors, metadata)
    with pytest.raises(ValueError, match=r"ann.safetensors does not fit the network it names: .* needs"):
        load_ann(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_file_with_a_weight_that_is_not_finite_is_refused(tmp_path, value):
    ann = random_ann()
    ann.layers[1].norm.weight.data[0] = value
    save_ann(ann, tmp_path / "ann.safetensors")
    with pytest.raises(ValueError, match=r"layers.1.norm.weight holds a value that is not finite"):
        load_ann(tmp_path / "ann.safetensors")


@pytest.mark.parametrize("form", [{}, {"k": 2, "clip": 3}, {"ternary": False, "k": 1}, {"int8_ends": False}])
def test_codes_by_sums_in_float32_are_those_of_the_network_in_float64(form):
    torch.manual_seed(3)
    ann = build_ann("8C3-P2-16C3-P2-30", (3, 16, 16), 10, padding="same", **form)
    for layer in ann.layers:
        layer.norm.running_mean.normal_()
        layer.norm.running_var.uniform_(0.5, 30)
    images = torch.randint(0, 256, (12, 3, 16, 16), dtype=torch.uint8)
    reference = in_float64(ann)
    x = reference.scaled(images)
    with torch.no_grad():
        for index, counts in enumerate(reference_of(ann).counts(images)):
            x = reference.layers[index](x)
            assert torch.equal(counts * ann.spec.step(index), x)


def test_a_network_that_is_not_finite_has_no_codes():
    ann = random_ann(0, clip=2)
    ann.layers[1].norm.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="layers.1.norm.bias of the network holds a value that is not finite"):
        codes(ann, torch.zeros(1, *ann.spec.in_shape, dtype=torch.uint8))


@tries(60)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 2)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(0, 2), st.integers(1, 2)),
    st.sampled_from([1, 127, 128, 300]),
    st.sampled_from([(0, 3), (-5, 127), (0, 255), (-(2**20), 2**20)]),
    st.integers(0, 2**31),
)
def test_sums_in_small_types_are_those_of_float64(channels, kernel, geometry, largest_weight, reach, seed):
    (outputs, inputs, groups), (stride, padding, dilation) = channels, geometry
    generator = torch.Generator().manual_seed(seed)
    conv = torch.nn.Conv2d(groups * inputs, groups * outputs, kernel, stride, padding, dilation, groups, bias=False)
    shape = conv.weight.shape
    conv.weight.data = torch.randint(-largest_weight, largest_weight + 1, shape, generator=generator).double()
    counts = torch.randint(reach[0], reach[1] + 1, (3, groups * inputs, 6, 7), generator=generator).double()
    with torch.no_grad():
        assert torch.equal(exact_sums(conv)(counts).double(), conv(counts))


@pytest.mark.parametrize("largest", [1, 64, 127])
def test_sums_of_bytes_never_saturate(largest):
    torch.manual_seed(largest)
    conv = torch.nn.Conv2d(96, 40, 3, padding=1, bias=False).double()
    conv.weight.data = largest * torch.randint(0, 2, conv.weight.shape).double().mul(2).sub(1)
    for reach in (1, 63, 127, 128, 255):
        counts = torch.full((2, 96, 5, 5), float(reach), dtype=torch.float64)
        with torch.no_grad():
            assert torch.equal(exact_sums(conv)(counts).double(), conv(counts)), reach


@pytest.mark.parametrize("in_bytes", [True, False])
def test_codes_are_the_same_with_and_without_sums_of_bytes(in_bytes, monkeypatch):
    if in_bytes and not _convolves_bytes():
        pytest.skip("torch convolves no bytes here")
    ann, images = random_ann(4), random_images(4, (1, 8, 8), samples=5)
    monkeypatch.setattr("ann_snn_utils.ann.exact_sums._convolves_bytes", lambda: in_bytes)
    reference, x = in_float64(ann), images.double() / 255
    found, logits = codes(ann, images)
    with torch.no_grad():
        for index, layer in enumerate(reference.layers):
            x = layer(x)
            assert torch.equal(found[index] * ann.spec.step(index), x)
        assert torch.equal(logits, reference(images))


def test_a_network_in_another_type_than_files_hold_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="is torch.float64, and files hold float32"):
        save_ann(build_ann("4C3-8", (1, 8, 8), 3).double(), tmp_path / "ann.safetensors")
    assert not any(tmp_path.iterdir())
