"""`thresholds="published"` fires as the published neuron does, spike for spike, rounded or not, ties included."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import published_oracle
import pytest
import torch
from examples import tries
from hypothesis import assume, given
from hypothesis import strategies as st
from networks import chains, random_ann, random_images
from test_simulate import needs_kernel

from ann_snn_utils.ann.network import build_ann
from ann_snn_utils.hardware.circuit import hardware
from ann_snn_utils.measure.equivalence import check_equivalence
from ann_snn_utils.measure.logs import published_sop_num
from ann_snn_utils.simulator.run import choose_backend, simulate
from ann_snn_utils.snn.certificate import certify
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.store import load_snn, save_snn
from ann_snn_utils.snn.thresholds import scale_thresholds

FORMS = {"published": True, "published-float": False}


def with_ties(ann, seed: int):
    """Batch norms whose thresholds lie on integers, halves and quarters: ties are frequent in both modes."""
    draw = torch.Generator().manual_seed(seed)

    def pick(values, like):
        return torch.tensor(values, dtype=like.dtype)[torch.randint(len(values), like.shape, generator=draw)]

    for layer in ann.layers[1:]:
        norm = layer.norm
        norm.eps = 0.0
        norm.running_var.copy_(pick([0.0625, 1.0, 4.0, 16.0], norm.running_var))
        norm.weight.data.copy_(pick([-2.0, 0.0, 1.0, 1.0, 2.0, 2.0, 1e9], norm.weight))
        norm.bias.data.copy_(pick([-0.5, 0.0, 0.25, 0.5, 1.0], norm.bias))
        norm.running_mean.copy_(pick([-3.0, -1.5, 0.0, 0.25, 1.0, 2.0], norm.running_mean))
    return ann


def agrees(record, expected) -> None:
    for layer, spikes in enumerate(expected.spikes):
        assert np.array_equal(record.positive[:, layer], (spikes > 0).sum((1, 2, 3, 4))), layer
        assert np.array_equal(record.negative[:, layer], (spikes < 0).sum((1, 2, 3, 4))), layer
        assert np.array_equal(record.counts[layer].numpy(), expected.counts[layer])
    assert np.array_equal(record.logits.numpy(), expected.logits)
    assert np.array_equal(published_sop_num(record), expected.sops.sum(1).cumsum())


@pytest.mark.parametrize("form", FORMS)
@tries(25)
@given(ann=chains(), time_steps=st.integers(1, 11), seed=st.integers(0, 1000), ties=st.booleans())
def test_every_backend_equals_the_published_neuron_bit_for_bit(backend, form, ann, time_steps, seed, ties):
    # The published layers have no clip.
    assume(len(ann.layers) > 1 and ann.spec.clip is None)
    ann = with_ties(ann, seed) if ties else ann
    images = random_images(seed, ann.spec.in_shape)
    expected = published_oracle.run(ann, images.numpy(), time_steps, FORMS[form])
    agrees(simulate(convert(ann, form), images, time_steps, backend=backend), expected)


@pytest.mark.parametrize("form", FORMS)
@tries(20)
@given(ann=chains(), seed=st.integers(0, 1000))
def test_every_traced_spike_and_membrane_equals_the_published_neuron(form, ann, seed):
    assume(len(ann.layers) > 1 and ann.spec.clip is None)
    ann, images = with_ties(ann, seed), random_images(seed, ann.spec.in_shape)
    expected = published_oracle.run(ann, images.numpy(), 9, FORMS[form])
    record = simulate(convert(ann, form), images, 9, trace=[0, 1])
    for spikes, wanted in zip(record.traces.spikes, expected.spikes, strict=True):
        assert np.array_equal(spikes.numpy(), wanted)
    for membranes, wanted in zip(record.traces.membranes[1:], expected.membranes, strict=True):
        assert np.array_equal(membranes.numpy(), wanted)


def one_neuron(mean: float, beta: float = 0.5, var: float = 1.0, weight: float = 1.0):
    """A white image, four spikes of an encoder of one neuron, and a hidden neuron with θ_j = (j − 1 + …)·σ + μ."""
    ann = build_ann("1C1-1", (1, 1, 1), 2)
    for layer, value in zip(ann.layers, (1.0, weight), strict=True):
        layer.conv.parametrizations.weight.original.data.fill_(value)
        layer.norm.eps = 0.0
    ann.layers[1].norm.running_mean.fill_(mean)
    ann.layers[1].norm.bias.data.fill_(beta)
    ann.layers[1].norm.running_var.fill_(var)
    ann.layers[0].norm.bias.data.fill_(3.0)
    return ann.eval()


WHITE = torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)


@pytest.mark.parametrize("form", FORMS)
def test_on_a_tie_the_published_neuron_waits_and_the_designs_fires(form):
    # θ_j = j − 1 + 1 = j, and U = 1, 2, 3, 4: a tie at every step.
    ann = one_neuron(mean=1.0)
    design, published = (simulate(convert(ann, name), WHITE, 6, trace=[0]) for name in ("exact", form))
    assert design.traces.spikes[1].flatten().tolist() == [1, 1, 1, 1, 0, 0]
    assert published.traces.spikes[1].flatten().tolist() == [0, 1, 1, 1, 0, 0]
    assert published.settled_at.tolist() == [4]


def test_rounding_moves_the_first_threshold_and_the_strict_comparison_mends_half_of_it():
    # θ_1 = 2.4 is rounded to 2: U > 2 where U ≥ 3 is right. θ_1 = 2.6 is rounded to 3, and U > 3 is wrong.
    mended, worse = (convert(one_neuron(mean=mean), "published").layers[1] for mean in (2.4, 2.6))
    assert mended.thresholds[0, 0] == 2 and mended.rising[0, 0] == 3
    assert worse.thresholds[0, 0] == 3 and worse.rising[0, 0] == 4
    exact = [convert(one_neuron(mean=mean)).layers[1].thresholds[0, 0].item() for mean in (2.4, 2.6)]
    assert exact == [3, 3]


def test_a_step_that_rounds_to_nothing_is_never_taken_back():
    # d = round(10 000 · 10⁻⁵) = 0: the clamp at b keeps V from ever falling below θ⁻.
    layer = convert(one_neuron(mean=1.0, var=1e-10), "published").layers[1]
    assert (layer.falling == layer.lowest[:, None]).all() and (layer.rising[0] == 2).all()


def test_published_networks_are_compared_and_certified_and_their_mismatches_counted():
    ann = random_ann(3)
    images = random_images(3, (1, 8, 8), samples=20)
    snn = convert(ann, "published")
    result = check_equivalence(ann, snn, images)
    assert (result.settled_at > 0).all() and sum(result.mismatches) > 0 and not result.exact
    assert len(certify(snn)) == len(snn.layers)
    with pytest.raises(ValueError, match="thresholds='published-float'"):
        certify(convert(ann, "published-float"))


def test_no_circuit_of_one_adder_stands_for_the_published_neuron():
    with pytest.raises(ValueError, match="thresholds='published'.*compares strictly.*thresholds='exact'"):
        hardware(convert(random_ann(3), "published"))


@pytest.mark.parametrize("form", FORMS)
def test_a_published_network_comes_back_from_its_file(form, tmp_path):
    snn = convert(with_ties(random_ann(4, k=1), 4), form)
    save_snn(snn, tmp_path / "snn.safetensors")
    loaded = load_snn(tmp_path / "snn.safetensors")
    for one, other in zip(snn.layers, loaded.layers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.compared, other.compared, strict=True))
    images = random_images(4, (1, 8, 8))
    assert torch.equal(simulate(snn, images, 9).logits, simulate(loaded, images, 9).logits)


def test_a_file_whose_published_neuron_compared_with_at_least_is_refused_with_the_remedy(tmp_path):
    snn = convert(random_ann(4), "published")
    older = replace(snn, layers=tuple(replace(layer, rising=None, falling=None) for layer in snn.layers))
    save_snn(older, tmp_path / "snn.safetensors")
    with pytest.raises(ValueError, match=r"snn\.safetensors: thresholds='published'.*compares strictly: convert"):
        load_snn(tmp_path / "snn.safetensors")


@pytest.mark.parametrize("form", FORMS)
def test_scaled_published_thresholds_are_those_of_a_neuron_that_still_compares_strictly(form):
    ann = one_neuron(mean=1.0)
    snn = scale_thresholds(convert(ann, form), [1, 2.0])
    # θ_j = 2 · j, and U = 1, 2, 3, 4.
    record = simulate(snn, WHITE, 6, trace=[0])
    assert record.traces.spikes[1].flatten().tolist() == [0, 0, 1, 0, 0, 0]


def test_networks_with_integer_weights_run_compiled_in_both_modes():
    needs_kernel()
    for form in FORMS:
        assert choose_backend(convert(random_ann(2), form), 8, name="events") == "events"


def test_full_precision_weights_keep_the_rounding_of_the_published_integer_mode():
    ann = build_ann("3C3-5", (1, 6, 6), 3, ternary=False, int8_ends=False).eval()
    layer = convert(ann, "published").layers[1]
    assert layer.thresholds.dtype == torch.float64
    scaled = layer.thresholds * 10_000
    assert torch.allclose(scaled, scaled.round(), atol=1e-6)
    # The least membrane that fires is one whose scaled value lies above the threshold, and no smaller one is.
    below = torch.nextafter(layer.rising, torch.tensor(-torch.inf, dtype=torch.float64))
    assert (layer.rising * 10_000 > scaled.round()).all() and (below * 10_000 <= scaled.round()).all()
