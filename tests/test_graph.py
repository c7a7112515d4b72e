"""Networks that are no chains: their layers, what is refused, and how two branches are added in integers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product
from types import SimpleNamespace

import pytest
import torch
from examples import tries
from hypothesis import example, given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images

from ann_snn_utils.ann.euclid import most_of, nearest_whole
from ann_snn_utils.ann.graph import Branch, Node, SynapseSpec, graph_text
from ann_snn_utils.ann.network import build_ann, convolve, raw_weight, set_affine
from ann_snn_utils.ann.notation import NETWORKS, graph_of, parse
from ann_snn_utils.ann.placement import read_graph
from ann_snn_utils.ann.reference import codes
from ann_snn_utils.measure.equivalence import check_equivalence
from ann_snn_utils.simulator.dense import _summed
from ann_snn_utils.simulator.run import simulate
from ann_snn_utils.snn.addition import Decision, add_in_integers
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.network import Synapses
from ann_snn_utils.snn.store import load_snn, save_snn

STEM = Node("stem", (Branch((-1,), (3, 3), padding=1),), 2)


def given_network(*nodes: Node, **arguments):
    """A graph of integer weights behind an encoder of two channels, for images of 1 × 6 × 6."""
    return random_ann(
        **{"network": graph_text([STEM, *nodes]), "in_shape": (1, 6, 6), "ternary": False} | arguments
    )


def test_a_residual_block_adds_its_input_to_what_its_last_layer_sums_up():
    *_, first, last = parse("4C3-2[4C3-4C3]-[8C3s2-8C3]", (1, 8, 8), "same")
    assert [branch.sources for branch in first.branches] == [(4,)]
    main, around = last.branches
    assert main.sources == (5,) and around.sources == (4,)
    assert not around.identity and around.kernel == (1, 1) and around.stride == 2
    assert last.in_shape == (8, 4, 4) and last.out_shape == (8, 4, 4)


def test_counts_of_the_image_are_pixels_and_other_layers_are_not_there():
    spec = random_ann(clip=2, k=1, network="2C3-M2-3").spec
    assert [spec.step(layer) for layer in (-1, 0, 1, 2)] == [1 / 255, 1, 1, 0.5]
    assert [spec.counts(layer) for layer in (-1, 0, 1, 2)] == [(0, 255), (0, 4), (0, 4), (0, 4)]
    assert [spec.amplitude(layer) for layer in (-1, 0, 1, 2)] == [1, 2, 2, 1]
    for layer in (-2, 3):
        with pytest.raises(IndexError, match=f"layer {layer}: give 0 to 2, or -1 for the image"):
            spec.step(layer)


def test_averages_belong_to_what_comes_behind_them():
    graph = graph_of("4C3-A2-[4C3-4C3]-A", (1, 8, 8), "same")
    assert [branch.average for layer in graph.layers for branch in layer.branches] == [1, 2, 1, 2]
    assert graph.read_out.average == 4 and graph.inputs == (4, 1, 1)


def test_the_published_residual_networks_have_their_layers_weights_and_shapes():
    # K. He et al., Deep residual learning, 2016: 0.27 million parameters in ResNet-20; 11.2 million in ResNet-18.
    for name, layers, millions in (("resnet20", 19, 0.27), ("resnet18", 17, 11.2)):
        found = parse(NETWORKS[name][0], (3, 32, 32), NETWORKS[name][1])
        assert len(found) == layers and sum(layer.weights for layer in found) / 1e6 == pytest.approx(
            millions, rel=0.01
        )


@pytest.mark.parametrize(
    ("network", "place", "message"),
    [
        ("4C3-[4C3-4C3", 5, "no end"),
        ("4C3-[4C3-[4C3]]", 9, "no block in another"),
        ("4C3-4C3]", 4, "no part of a block"),
        ("[4C3-4C3]", 5, "cannot come first"),
        ("4C3-[4C3-M2]", 9, "ends with a convolution"),
        ("4C3-8C3g3", 4, "4 input and 8 output channels do not divide into 3 groups"),
        ("4C3-8C3s2s2", 4, "one thing twice"),
        ("4C3-M3", 4, "does not divide by 3"),
        ("A2-4C3", 3, "resize images"),
    ],
)
def test_a_wrong_token_is_shown_in_its_place(network, place, message):
    with pytest.raises(ValueError, match=message) as refused:
        parse(network, (1, 8, 8), "same")
    assert str(refused.value).splitlines()[-1].index("^") == 4 + place


def test_a_block_whose_shapes_no_stride_brings_together_is_refused():
    with pytest.raises(ValueError, match="cannot be added"):
        parse("4C3-[4C3]", (1, 8, 8), "valid")


CONVOLUTION = Node("a", (Branch((0,), (3, 3), padding=1),), 2)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (
            [replace(CONVOLUTION, branches=(Branch((1,), (3, 3)),))],
            r"layer 1 \(a\): it reads layer 1.*itself or a later",
        ),
        ([replace(CONVOLUTION, branches=(Branch((-1,), (3, 3)),))], "only the first layer encodes"),
        ([replace(CONVOLUTION, branches=(Branch((0,), (3, 3), groups=3),))], "do not divide into 3 groups"),
        ([replace(CONVOLUTION, branches=(Branch((0,), (9, 9)),))], "kernel 9×9 is larger than the 6×6 map"),
        ([replace(CONVOLUTION, branches=(Branch((0,), (3, 3)), Branch((0,), identity=True)))], "cannot be added"),
        ([replace(CONVOLUTION, branches=(Branch((0,), identity=True),))], "put the convolution first"),
        ([replace(CONVOLUTION, branches=3 * CONVOLUTION.branches)], "3 branches"),
        ([replace(CONVOLUTION, branches=(Branch((0,), (3, 3), average=4),))], "does not divide by 4"),
        ([CONVOLUTION, replace(CONVOLUTION, name="b")], r"nothing reads layer 1 \(a\)"),
        ([replace(CONVOLUTION, step=-1.0)], "step=-1.0"),
        ([replace(CONVOLUTION, lowest=1)], "lowest from"),
        ([replace(CONVOLUTION, channels=None)], "channels=None"),
        ([replace(CONVOLUTION, kind="median")], "kind='median'"),
        ([CONVOLUTION, Node("m", (Branch((0, 1), (2, 2)),), kind="maximum")], "concatenate, add or average behind"),
        (
            [
                replace(CONVOLUTION, branches=(Branch((0,), (3, 3), stride=2),)),
                Node("c", (Branch((0, 1), (1, 1)),), 2),
            ],
            "cannot be concatenated",
        ),
    ],
)
def test_a_graph_that_cannot_be_is_refused_with_its_layers_name(nodes, message):
    with pytest.raises(ValueError, match=message):
        read_graph(graph_text([STEM, *nodes]), (1, 6, 6))


@pytest.mark.parametrize("text", ["{", '{"layers": 3}', '{"layers": []}', "{" * 2000, '{"layers": [{"name": 1}]}'])
def test_a_text_that_is_no_graph_says_how_to_make_one(text):
    with pytest.raises(ValueError, match="make its text with graph_text"):
        read_graph(text, (1, 6, 6))


@tries(25)
@given(networks(), st.integers(0, 1000))
def test_a_spiking_network_comes_back_from_its_file_as_it_was(tmp_path_factory, ann, seed):
    path = tmp_path_factory.mktemp("snn") / "snn.safetensors"
    for form in ("exact", "float", "published"):
        snn = convert(ann, form)
        save_snn(snn, path)
        one, other = (simulate(net, random_images(seed, ann.spec.in_shape), 5) for net in (snn, load_snn(path)))
        assert torch.equal(one.logits, other.logits) and (one.sops == other.sops).all()


def test_a_batch_norm_that_is_set_to_a_scale_and_a_bias_is_just_that():
    ann = given_network(Node("a", (Branch((0,), (1, 1)),), 2)).double().eval()
    set_affine(ann.layers[1].norm, torch.tensor([0.3, -2.0]), torch.tensor([0.1, 5.0]))
    z = torch.tensor([7.0, 11.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    scale, bias = (p.reshape(1, 2, 1, 1) for p in (ann.layers[1].norm.weight, ann.layers[1].norm.bias))
    assert torch.equal(ann.layers[1].norm(z), scale * z + bias)


def test_a_layer_without_a_relu_counts_below_zero():
    node = Node("signed", (Branch((0,), (3, 3), padding=1),), 3, lowest=-4, highest=4)
    ann, images = given_network(node), random_images(3, (1, 6, 6), 4)
    record = simulate(convert(ann), images)
    assert int(record.counts[1].min()) < 0 < int(record.counts[1].max())
    assert torch.equal(record.counts[1], codes(ann, images)[0][1])


def test_maxima_of_signed_counts_look_at_nothing_outside_the_map():
    signed = Node("signed", (Branch((0,), (3, 3), padding=1),), 3, lowest=-4, highest=4)
    ann = given_network(signed, Node("pool", (Branch((1,), (3, 3), padding=1, stride=2),), kind="maximum"))
    ann.layers[1].norm.bias.data.fill_(-3.0)
    record = simulate(convert(ann), random_images(3, (1, 6, 6), 4))
    assert int(record.counts[2].min()) < 0
    expected = torch.nn.functional.max_pool2d(record.counts[1].float(), 3, 2, 1)
    assert torch.equal(record.counts[2].float(), expected)


def test_classes_begin_with_their_bias():
    ann = random_ann(1, network=graph_text([STEM], bias=True), in_shape=(1, 6, 6), ternary=False)
    ann.classifier.bias.data.copy_(torch.tensor([5.0, -7.0, 100.0]))
    raw_weight(ann.classifier).data.zero_()
    record = simulate(convert(ann), random_images(1, (1, 6, 6)), 3)
    assert record.logits[:, 0].tolist() == [[5, -7, 100]] * 3
    assert check_equivalence(ann, convert(ann), random_images(1, (1, 6, 6))).exact


def test_sums_of_three_worths_cannot_be_added():
    layers = [replace(CONVOLUTION, name=f"{step}", step=step) for step in (0.3, 0.7)]
    adds = Node("cat", (Branch((0, 1, 2), (1, 1)),), 2)
    with pytest.raises(ValueError, match=r"layer 3 \(cat\) adds up counts of 3 different steps"):
        convert(given_network(*layers, adds))


@pytest.mark.parametrize("channels", [1, 4, 8])
def test_a_strided_convolution_of_single_pixels_has_the_gradients_of_its_definition(channels):
    generator = torch.Generator().manual_seed(channels)
    x, weight, wanted = (
        torch.randn(shape, generator=generator)
        for shape in ((4, channels, 8, 8), (6, channels, 1, 1), (4, 6, 4, 4))
    )
    given = [x.to(memory_format=torch.channels_last).requires_grad_(), weight.clone().requires_grad_()]
    convolve(*given, Branch((0,), (1, 1), stride=2)).backward(wanted)
    plain = [x.double().requires_grad_(), weight.double().requires_grad_()]
    torch.einsum("nchw,ocij->nohw", plain[0][:, :, ::2, ::2], plain[1]).backward(wanted.double())
    for one, other in zip(given, plain, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_network_in_notation_learns_through_its_blocks():
    ann = build_ann("4C3-[4C3-4C3]-[6C3s2-6C3]-A", (1, 8, 8), 3, padding="same", clip=3).train()
    ann(torch.rand(4, 1, 8, 8)).sum().backward()
    for part in ann.parts:
        assert raw_weight(part.conv).grad.abs().sum() > 0 and part.norm.weight.grad is not None


@tries(300)
@given(*(st.integers(1, 25) for _ in range(2)), *(st.integers(-30, 30) for _ in range(4)))
def test_the_maximum_of_a_line_and_a_rounded_one_is_that_of_all_places(n, m, a, b, c, d):
    assert most_of(n, m, a, b, c, d) == max(a * x + b * ((c * x + d) // m) for x in range(n))


@tries(200)
@given(st.integers(1, 25), *(st.fractions(-4, 4, max_denominator=12) for _ in range(2)))
def test_how_near_a_line_comes_to_a_whole_number_is_that_of_all_places(n, slope, start):
    assert nearest_whole(n, slope, start) == min(
        abs(slope * x + start - round(slope * x + start)) for x in range(n)
    )


_FRACTIONS = st.fractions(Fraction(-3), Fraction(3), max_denominator=6)
_POSITIVE = st.fractions(Fraction(1, 6), Fraction(4), max_denominator=6)


@st.composite
def decisions(draw) -> Decision:
    reach = tuple((draw(st.integers(-3, 0)), draw(st.integers(0, 3))) for _ in range(2))
    slopes = draw(st.one_of(_POSITIVE, st.just(Fraction(0)))), draw(_FRACTIONS)
    return Decision(slopes, draw(_FRACTIONS), draw(_POSITIVE), draw(st.integers(1, 3)), reach)


def alike(one: Decision, gains: Sequence[int], thresholds: list[int]) -> bool:
    """Whether integers decide as the real numbers do, for every two sums in reach and every level."""
    return all(
        (gains[0] * u + gains[1] * s >= theta)
        == (one.slopes[0] * u + one.slopes[1] * s >= one.first + i * one.step)
        for u, s in product(*(range(low, high + 1) for low, high in one.reach))
        for i, theta in enumerate(thresholds)
    )


@tries(200)
@given(st.lists(decisions(), min_size=1, max_size=2), st.integers(-1, 0))
def test_two_branches_are_added_in_integers_as_in_real_numbers(found, lowest):
    levels = min(one.levels for one in found)
    found = [replace(one, levels=levels) for one in found]
    added = add_in_integers(found, lowest)
    for channel, one in enumerate(found):
        gains, table = added.gains[:, channel].tolist(), added.thresholds[channel].tolist()
        assert alike(one, gains, table)
        # One adder makes them: they are A + j·D, but in a channel that is constant.
        assert len({b - a for a, b in pairwise(table)}) <= 1 or not any(gains)


@tries(8)
@given(decisions().filter(lambda one: one.slopes[0] and one.slopes[1]))
@example(Decision((Fraction(7, 6), Fraction(-2)), Fraction(1), Fraction(13, 6), 3, ((-1, 1), (-2, 0))))
def test_no_fewer_fractional_bits_would_do_with_a_factor_next_to_the_ratio(one):
    added = add_in_integers([one], 0)
    for bits in range(min(added.bits, 2)):
        size = 1 << bits
        ratio = abs(one.slopes[1] / one.slopes[0]) * size
        for q in (int(ratio), int(ratio) + 1):
            gains = size, q if one.slopes[1] > 0 else -q
            sums = sorted(
                {gains[0] * u + gains[1] * s for u, s in product(*(range(a, b + 1) for a, b in one.reach))}
            )
            ends = range(sums[0] - size * 3, sums[-1] + size * 3 + 2)
            lines = ([a + (j + 1) * d for j in range(one.levels)] for a in ends for d in range(len(ends)))
            assert not any(alike(one, gains, line) for line in lines)


def test_what_two_sources_send_adds_up_beyond_what_float32_holds():
    # float32 holds each of the sums, up to 2^24, but every fourth number only of 2^25 and more.
    inputs = (2**24 - 1) // 127
    weights = torch.full((2, 1, inputs, 1, 1), 127, dtype=torch.int8)
    weights[1, 0, 0] = 126
    spec = SynapseSpec(0, (inputs, 1, 1), (1, 1, 1), (1, 1))
    layer = SimpleNamespace(name="sum", synapses=[Synapses(spec, weight) for weight in weights])
    fired = {0: SimpleNamespace(spikes=torch.ones(1, 1, inputs, 1, dtype=torch.int8))}
    network, busy = SimpleNamespace(amplitude=lambda source: 1), torch.ones(1, 1, dtype=torch.bool)
    assert _summed(layer, fired, busy, network, torch.int32).item() == 2 * 127 * inputs - 1
