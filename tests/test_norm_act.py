"""Batch norm and activation in one compiled function do what the layers do one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ann_snn_utils.ann.network import convolve
from ann_snn_utils.ann.notation import parse
from ann_snn_utils.ann.quantize import QuantReLU

norm_act = pytest.importorskip("ann_snn_utils.ann.fused", exc_type=ImportError).norm_act
pytestmark = pytest.mark.slow
# None is a plain ReLU, else (k, clip).
ACTIVATIONS = st.one_of(st.none(), st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(1, 4))))


def made(seed: int, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor, nn.BatchNorm2d]:
    generator = torch.Generator().manual_seed(seed)
    x, gradient = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    norm = nn.BatchNorm2d(shape[1])
    with torch.no_grad():
        norm.weight.uniform_(-1, 2, generator=generator)
        norm.bias.normal_(generator=generator)
    return (3 * x + 2).contiguous(memory_format=torch.channels_last), gradient, norm


def fused(x: Tensor, gradient: Tensor, norm: nn.BatchNorm2d, form: tuple | None) -> tuple[Tensor, ...]:
    x, norm = x.detach().requires_grad_(), copy.deepcopy(norm)
    out = norm_act(x, norm, 2 ** form[0] if form else 0, form[1] if form else None)
    return out.detach(), *torch.autograd.grad(out, (x, norm.weight, norm.bias), gradient), *norm.buffers()


def layered(x: Tensor, gradient: Tensor, norm: nn.BatchNorm2d, form: tuple | None) -> tuple[Tensor, ...]:
    x, norm = x.detach().double().requires_grad_(), copy.deepcopy(norm).double()
    out = (QuantReLU(*form) if form else nn.ReLU())(norm(x))
    return out.detach(), *torch.autograd.grad(out, (x, norm.weight, norm.bias), gradient.double()), *norm.buffers()


def decided(x: Tensor, norm: nn.BatchNorm2d, form: tuple | None) -> Tensor:
    # Neurons on the edge of a level, or of the range with a gradient, may fall to either side.
    y = copy.deepcopy(norm).double()(x.detach().double())
    n = 2 ** form[0] if form else 1
    edge = ((y * n + 0.5) - (y * n + 0.5).round()).abs()
    limit = (y - form[1]).abs() if form and form[1] else torch.full_like(y, 1.0)
    return (edge > 1e-4) & (y.abs() > 1e-4) & (limit > 1e-4)


@tries(25)
@given(st.integers(0, 99), st.integers(2, 5), st.integers(1, 40), st.integers(1, 6), ACTIVATIONS)
def test_forward_gradients_and_statistics_are_those_of_the_layers(seed, images, channels, side, form):
    x, gradient, norm = made(seed, (images, channels, side, side), torch.float32)
    safe = decided(x, norm, form).all(0, keepdim=True).all(-1, keepdim=True).all(-2, keepdim=True)
    deviation = x.double().var((0, 2, 3), unbiased=False, keepdim=True).sqrt()
    safe = (safe & (deviation > 0.05)).flatten()
    for mine, theirs in zip(fused(x, gradient, norm, form), layered(x, gradient, norm, form), strict=True):
        if mine.ndim == 4:
            mine, theirs = mine[:, safe], theirs[:, safe]
        elif mine.ndim == 1:
            mine, theirs = mine[safe], theirs[safe]
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=2e-3, atol=2e-3)


@tries(25)
@given(st.integers(0, 99), st.tuples(st.integers(0, 2), st.one_of(st.none(), st.integers(1, 4))))
def test_codes_of_bfloat16_maps_are_whole_levels_of_the_unrounded_norm(seed, form):
    x, gradient, norm = made(seed, (6, 9, 5, 4), torch.bfloat16)
    safe = decided(x, norm, form)
    mine, theirs = fused(x, gradient, norm, form)[0], layered(x, gradient, norm, form)[0]
    assert mine.dtype == torch.bfloat16 and (mine * 2 ** form[0] % 1 == 0).all()
    assert torch.equal(mine.double()[safe], theirs[safe])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_number_of_threads_changes_no_bit(dtype):
    x, gradient, norm = made(1, (30, 17, 9, 9), dtype)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(fused(x, gradient, norm, (0, None)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_channel_far_from_zero_keeps_its_variance():
    x, gradient, norm = made(2, (40, 3, 6, 6), torch.float32)
    norm.running_mean += 1000
    mine, theirs = fused(x + 1000, gradient, norm, None), layered(x + 1000, gradient, norm, None)
    torch.testing.assert_close(mine[0].double(), theirs[0], rtol=1e-3, atol=1e-3)


def test_without_a_momentum_running_statistics_are_means_over_all_batches():
    mine, theirs = nn.BatchNorm2d(3, momentum=None), nn.BatchNorm2d(3, momentum=None).double()
    for seed in range(3):
        x, _, _ = made(seed, (5, 3, 4, 4), torch.float32)
        norm_act(x, mine, 1, None)
        theirs(x.double())
    torch.testing.assert_close(mine.running_mean.double(), theirs.running_mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.running_var.double(), theirs.running_var, rtol=1e-4, atol=1e-5)


def test_a_single_value_in_a_channel_is_refused_by_name():
    with pytest.raises(ValueError, match=r"one value in each channel, images \[1, 4, 1, 1\]: give two images"):
        norm_act(torch.zeros(1, 4, 1, 1), nn.BatchNorm2d(4), 1, None)


@pytest.mark.parametrize(("network", "side"), [("3C3-P2-4-5", 8), ("2C5-P3-6", 10), ("4C1-P2-3C2-7", 12)])
def test_convolutions_as_matrix_products_are_exact(network, side):
    generator = torch.Generator().manual_seed(side)
    for spec in parse(network, (2, side, side)):
        x = torch.randint(-4, 5, (3, *spec.in_shape), generator=generator).double()
        weight = torch.randint(-4, 5, (spec.out_shape[0], spec.in_shape[0], *spec.kernel), generator=generator)
        expected = F.conv2d(x, weight.double(), None, spec.stride, spec.padding)
        assert torch.equal(convolve(x, weight.double(), spec.branches[0]), expected)
