"""Vectors of compiled loops do what NumPy does, entry by entry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

numba = pytest.importorskip("numba")

from ann_snn_utils.simulator.events.vectors import bits, filled, read, total, where, width_of, write  # noqa: E402

_INTEGERS = {np.int8: 64, np.int16: 32, np.int32: 16}


@numba.njit
def _combined(one, other, sums, answers):
    """Write what each operation gives to a row of its own."""
    at, lanes = numba.uint64(0), width_of(one)
    a, b = read(one, at, one), read(other, at, one)
    write(sums, at, a + b)
    write(sums, lanes, a - b)
    write(sums, lanes * 2, a + (a > b))
    write(sums, lanes * 3, a - (a < b))
    write(sums, lanes * 4, where((a > b) | (a == b), a, filled(7, one, one)))
    answers[0], answers[1], answers[2], answers[3] = bits(a >= b), bits(a > b), bits(a < b), bits(a == b)
    return total(a)


@pytest.mark.parametrize("dtype", _INTEGERS)
@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([1, 3, 2**31 - 1]))
def test_every_operation_is_that_of_numpy(dtype, seed, spread):
    lanes, info = _INTEGERS[dtype], np.iinfo(dtype)
    draw, largest = np.random.default_rng(seed), min(spread, info.max)
    a, b = draw.integers(-largest - 1, largest, (2, lanes), endpoint=True).astype(dtype)
    sums, answers = np.zeros((5, lanes), dtype), np.zeros(4, np.uint64)
    result = _combined(a, b, sums.ravel(), answers)
    expected = [a + b, a - b, a + (a > b), a - (a < b).astype(dtype), np.where(a >= b, a, dtype(7))]
    assert np.array_equal(sums, expected)
    assert result == int(a.astype(np.int64).sum())
    for answer, wanted in zip(answers, (a >= b, a > b, a < b, a == b), strict=True):
        assert int(answer) == sum(1 << lane for lane in np.flatnonzero(wanted).tolist())
