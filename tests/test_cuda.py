"""On CUDA the dense simulator leaves the record that it leaves on the CPU, to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from networks import networks, random_ann, random_images, with_weight
from test_simulate import traces_agree

from ann_snn_utils.ann.graph import SynapseSpec
from ann_snn_utils.simulator import dense, oracle, run
from ann_snn_utils.simulator.run import choose_device, simulate
from ann_snn_utils.snn.conversion import convert
from ann_snn_utils.snn.network import FORMS, REAL_FORMS, Synapses, column_sums

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")


def same(one, other) -> None:
    """Two records are equal in values and types."""
    tensors = [
        [record.logits, record.settled_at, *record.counts]
        + ([] if record.traces is None else [*record.traces.spikes, *record.traces.membranes])
        for record in (one, other)
    ]
    for a, b in zip(*tensors, strict=True):
        assert a.device == b.device == torch.device("cpu") and a.dtype == b.dtype and torch.equal(a, b)
    for table in ("positive", "negative", "sops", "effective_sops", "encoder_sops", "pending"):
        assert np.array_equal(getattr(one, table), getattr(other, table)), table


def both(snn, images, **how) -> None:
    same(*(simulate(snn, images, backend="dense", device=device, **how) for device in ("cuda", None)))


@tries(150)
@given(
    st.data(),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 2),
    st.integers(1, 3),
    st.tuples(st.integers(1, 4), st.integers(1, 3)),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_the_sums_of_columns_are_those_of_a_convolution(
    data, groups, stride, padding, dilation, width, kernel, dtype
):
    sides = [(k - 1) * dilation + 1 + data.draw(st.integers(0, 4)) for k in kernel]
    samples, outputs = data.draw(st.integers(0, 3)), groups * data.draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    inputs = torch.randint(-3, 4, (samples, groups * width, *sides), generator=generator).to(dtype)
    weight = torch.randint(-127, 128, (outputs, width, *kernel), generator=generator).to(dtype)
    expected = F.conv2d(inputs, weight, None, stride, padding, dilation, groups)
    shapes = tuple(inputs.shape[1:]), tuple(expected.shape[1:])
    spec = SynapseSpec(0, *shapes, kernel, stride, padding, dilation, groups)
    assert torch.equal(column_sums(spec, inputs, weight), expected)


@tries(25)
@given(ann=networks(), time_steps=st.integers(1, 11), seed=st.integers(0, 1000))
def test_a_network_that_sums_columns_equals_the_oracle(ann, time_steps, seed):
    images = random_images(seed, ann.spec.in_shape)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Synapses, "sums", lambda self, inputs, weight: column_sums(self.spec, inputs, weight))
        record = simulate(convert(ann), images, time_steps, backend="dense")
    expected = oracle.run(ann, images.numpy(), time_steps)
    assert np.array_equal(record.logits.numpy(), expected.logits)
    assert all(
        np.array_equal(one.numpy(), count) for one, count in zip(record.counts, expected.counts, strict=True)
    )


@on_cuda
@tries(40)
@given(networks(), st.one_of(st.none(), st.integers(1, 11)), st.integers(0, 1000), st.booleans())
def test_cuda_leaves_the_record_of_the_cpu(ann, time_steps, seed, negative_spikes):
    images = random_images(seed, ann.spec.in_shape, samples=3)
    how = dict(time_steps=time_steps, trace=[2, 0], negative_spikes=negative_spikes)
    both(convert(ann, max_levels=512), images, **how)


@on_cuda
@tries(15)
@given(ann=networks(), time_steps=st.integers(1, 9), seed=st.integers(0, 1000))
def test_cuda_equals_the_oracle(ann, time_steps, seed):
    images = random_images(seed, ann.spec.in_shape)
    record = simulate(convert(ann), images, time_steps, trace=[0, 1], device="cuda")
    expected = oracle.run(ann, images.numpy(), time_steps)
    assert np.array_equal(record.logits.numpy(), expected.logits)
    assert np.array_equal(record.sops, expected.sops)
    assert np.array_equal(record.settled_at.numpy(), expected.settled_at)
    traces_agree(record, expected)


@on_cuda
@tries(25)
@given(networks(), st.integers(0, 1000), st.sampled_from(["delete", "flip"]), st.floats(0, 1))
def test_cuda_draws_the_noise_and_the_faults_of_the_cpu(ann, seed, fault, rate):
    images = random_images(seed, ann.spec.in_shape, samples=4)
    both(convert(ann), images, time_steps=9, noise_ratio=0.5, fault=fault, fault_rate=rate, seed=seed, trace=[1])


@on_cuda
@pytest.mark.parametrize("form", [form for form in FORMS if form not in REAL_FORMS])
@pytest.mark.parametrize("network", ["33C3-P2-17C3-70", "3C3-[40C3-D3]-M3s1-33C3d2-A2-260C1-5"])
def test_wide_layers_on_cuda_leave_the_record_of_the_cpu_in_any_batches(form, network):
    if form == "published" and "[" in network:
        pytest.skip("the published neuron is one of chains")
    ann = random_ann(7, network=network, in_shape=(2, 8, 8), padding="same", k=1, clip=2)
    for size in (None, 3):
        both(convert(ann, form), random_images(7, (2, 8, 8), samples=7), batch_size=size)


@on_cuda
@pytest.mark.parametrize("factor", [2**13, 2**24])
def test_sums_beyond_float32_and_the_user_s_flags_do_not_round_on_cuda(factor):
    """Weights of 14 and 25 bits: TF32 holds neither, float32 the first only."""
    snn = convert(random_ann(2))
    wide = with_weight(snn.layers[1], snn.layers[1].weight.long() * factor + 1)
    snn = replace(snn, layers=(snn.layers[0], wide, *snn.layers[2:]))
    images, before = random_images(2, (1, 8, 8), samples=5), torch.get_float32_matmul_precision()
    for precision in ("highest", "high", "medium"):
        torch.set_float32_matmul_precision(precision)
        try:
            with torch.autocast("cuda", torch.bfloat16):
                both(snn, images, time_steps=9, trace=[0])
        finally:
            torch.set_float32_matmul_precision(before)


@on_cuda
def test_a_network_changed_in_place_runs_on_cuda_as_it_now_is():
    snn, images = convert(random_ann(8)), random_images(8, (1, 8, 8), samples=4)
    both(snn, images, time_steps=8)
    snn.layers[1].weight.neg_()
    snn.layers[2].thresholds.add_(1)
    both(snn, images, time_steps=8)


@pytest.fixture
def pretended(monkeypatch):
    """Names of devices are believed."""
    monkeypatch.setattr(run, "pick_device", lambda name: torch.device("cuda" if name == "auto" else name))


def test_no_device_and_the_cpu_leave_the_choice_of_the_backend_as_it_is():
    snn, images = convert(random_ann(2)), random_images(2, (1, 8, 8))
    assert {choose_device(snn, name, "events").type for name in (None, "cpu")} == {"cpu"}
    same(*(simulate(snn, images, 8, device=name) for name in (None, "cpu")))


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="device='xpu:7' cannot be used here"):
        simulate(convert(random_ann(2)), random_images(2, (1, 8, 8)), 8, device="xpu:7")


def test_cuda_is_refused_where_it_cannot_be_exact_and_auto_then_takes_the_cpu(pretended, caplog):
    ann, images = random_ann(2), random_images(2, (1, 8, 8))
    assert choose_device(convert(ann), "auto").type == "cuda"
    for snn, backend, device, reason in (
        (convert(ann), "events", "cuda", "backend='events' is compiled for the CPU"),
        *((convert(ann, form), None, "cuda", "sums of real numbers") for form in REAL_FORMS),
        (convert(ann), None, "mps", "no float64"),
    ):
        with pytest.raises(ValueError, match=f"device='{device}' cannot run .*{reason}"):
            simulate(snn, images, 8, backend=backend, device=device)
    with caplog.at_level("INFO"):
        assert choose_device(convert(ann, "float"), "auto").type == "cpu"
    assert "simulating on the CPU: device='cuda': sums of real numbers" in caplog.text


def test_a_backend_that_nobody_knows_is_refused_on_every_device(pretended):
    with pytest.raises(ValueError, match="backend='lava': choose one of"):
        simulate(convert(random_ann(2)), random_images(2, (1, 8, 8)), 8, backend="lava", device="cuda")


def test_what_is_worked_on_at_once_on_an_accelerator_grows_with_the_area_of_the_kernel():
    snn = convert(random_ann(2, network="8C5-3", in_shape=(1, 28, 28)))
    sizes = [dense.samples_at_once(snn, 4, torch.device(name)) for name in ("cpu", "cuda")]
    assert sizes == [500, 2**29 // (24 * 24 * 25 * 4)]
