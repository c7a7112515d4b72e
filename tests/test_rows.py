"""Sums of rows of weights, added to membranes as spikes do it, are those of NumPy for any number of vectors."""

from __future__ import annotations

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from numba import uint64 as u64  # noqa: E402

from ann_snn_utils.simulator.events.rows import Nest, Rows, Stretch, Word, add_nested_rows, add_rows  # noqa: E402

CHANNELS, LONGEST = 70, 40


@numba.njit
def _added(into, size, weights, rises, falls, narrow):
    line = u64(len(weights) // (CHANNELS + 1))
    stretch, rows = Stretch(u64(0), u64(size), u64(0)), Rows(weights, line, u64(CHANNELS) * line)
    word = Word(rises[0], falls[0], u64(1), u64(len(rises)))
    nest = Nest(u64(2), u64(1), u64(0))
    if narrow:
        add_rows(into, stretch, rows, rises, falls, word, 1)
        add_nested_rows(into, stretch, rows, rises, nest, 1)
    else:
        add_rows(into, stretch, rows, rises, falls, word, 0)
        add_nested_rows(into, stretch, rows, rises, nest, 0)


def _words(channels) -> np.ndarray:
    words = np.zeros(2, np.uint64)
    for channel in channels:
        words[channel // 64] |= np.uint64(1) << np.uint64(channel % 64)
    return words


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("membrane", [np.int16, np.int32])
def test_rows_of_spikes_are_added_up_to_the_end_of_a_stretch(membrane, narrow):
    draw, lanes = np.random.default_rng(0), 64 // np.dtype(membrane).itemsize
    largest = 5 if narrow else 127
    weights = draw.integers(-largest, largest, (CHANNELS + 1, LONGEST * lanes), np.int8, endpoint=True)
    weights[CHANNELS] = 0
    for vectors in range(1, LONGEST + 1):
        up, down = draw.choice(CHANNELS, 9, replace=False), draw.choice(CHANNELS, 7, replace=False)
        into, expected = np.zeros((2, LONGEST * lanes), membrane)
        _added(into, vectors * lanes, weights.ravel(), _words(up), _words(down), narrow)
        sums = 2 * weights[up].sum(0, membrane) - weights[down].sum(0, membrane)
        expected[: vectors * lanes] = sums[: vectors * lanes]
        assert np.array_equal(into, expected), f"{vectors} vectors"
