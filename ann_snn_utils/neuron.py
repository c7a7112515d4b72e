"""The spiking neuron with dynamic threshold adaptation, for a whole layer over several time steps.

A neuron that has emitted n net spikes compares its membrane U, which only accumulates, with two thresholds:

    U ≥ θ_{n+1}            emit +1, n ← n + 1
    n > 0 and U < θ_n      emit −1, n ← n − 1      (takes back a spike that was sent too early)

So the threshold moves by one step per spike, and the membrane is never reset.
"""

from __future__ import annotations

import torch
from torch import Tensor


def threshold_table(thresholds: Tensor, dtype: torch.dtype) -> Tensor:
    """Give [O, J + 2] with θ_n in column n: below every membrane at n = 0, above every one at n = J + 1."""
    extreme = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    table = torch.full((len(thresholds), thresholds.shape[1] + 2), extreme.max, dtype=dtype)
    table[:, 0] = extreme.min
    table[:, 1:-1] = thresholds.clamp(extreme.min, extreme.max)
    return table


def encode(membrane: Tensor, thresholds: Tensor, first_step: int, steps: int) -> Tensor:
    """Give the encoding layer's spikes, int8 [steps, N, C, H, W], from its constant membrane [N, C, H, W].

    At step j ≤ J the threshold stands at θ_j whether or not the neuron fired before; it fires iff U ≥ θ_j.
    Afterwards the layer is silent.
    """
    spikes = torch.zeros(steps, *membrane.shape, dtype=torch.int8)
    for row, step in enumerate(range(first_step, first_step + steps)):
        if step <= thresholds.shape[1]:
            spikes[row] = membrane >= thresholds[:, step - 1, None, None]
    return spikes


def fire(increments: Tensor, membrane: Tensor, count: Tensor, table: Tensor) -> Tensor:
    """Give the spikes int8 [T, N, C, H, W] of a layer; updates `membrane` and `count` [N, C, H, W] in place.

    increments: what each step adds to the membrane, [T, N, C, H, W] in the membrane's dtype. On return they
    hold the membrane after each step. count: int64. table: from `threshold_table`, in the membrane's dtype.
    """
    flat = table.flatten()
    start = (torch.arange(len(table)) * table.shape[1])[:, None, None]
    spikes = torch.empty(increments.shape, dtype=torch.int8)
    for step in range(len(increments)):
        membrane += increments[step]
        at = count + start
        rise = membrane >= flat[at + 1]
        fall = membrane < flat[at]
        spikes[step] = rise.to(torch.int8) - (fall & ~rise).to(torch.int8)
        count += spikes[step]
        increments[step] = membrane
    return spikes
