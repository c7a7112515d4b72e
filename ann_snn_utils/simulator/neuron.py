"""The spiking neuron with dynamic threshold adaptation, for a whole layer over several time steps.

A neuron that has emitted n net spikes compares its membrane U, which only accumulates, with two thresholds:

    U ≥ θ_{n+1}            emit +1, n ← n + 1
    n > 0 and U < θ_n      emit −1, n ← n − 1      (takes back a spike that was sent too early)

(Where there is no ReLU the least count is below 0, and n goes down to it.)
So the threshold moves by one step per spike, and the membrane is never reset. The published neuron compares
strictly, which two tables of thresholds, one for each line, express: see `snn.thresholds.published_thresholds`.
Membranes are exact: integer sums over integer weights and inputs, whatever arithmetic the machine is fast at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..ann.exact_sums import adds_only
from ..snn.conversion import LONGEST
from ..snn.network import SNN, SpikingLayer, Synapses, smallest_integer

# Integers up to here are exact in float32, and up to 2^53 in float64.
EXACT_IN_FLOAT32, EXACT_IN_FLOAT64 = 2**24, 2**53


@dataclass(eq=False)
class Neurons:
    """State of a layer for N samples, changed in place: [N, C, P] with P positions in the map.

    membrane: U, int32, int64 or float64. count: net spikes, int16. last: step of the last spike, int16.
    received: of a layer that takes maxima, the counts of its source as they arrived, int16 [N, C, H, W].
    """

    membrane: Tensor
    count: Tensor
    last: Tensor
    received: Tensor | None = None

    def select(self, rows: Tensor) -> None:
        """Go on with some of the samples only."""
        self.membrane, self.count, self.last = self.membrane[rows], self.count[rows], self.last[rows]
        if self.received is not None:
            self.received = self.received[rows]


@dataclass(frozen=True, eq=False)
class Rule:
    """What the neurons of a layer compare their membranes with.

    rising, falling: [O, J + 2] in the membrane's type, θ_n in column n − lowest; column 0 lies below every membrane
    and column J + 1 above. lowest: the least count, below 0 in a layer without a ReLU. climbing: an encoding layer,
    whose threshold stands at θ_t in step t whether or not the neuron fired, and which is silent after the last
    level. negative_spikes: where False, no spike is taken back, as in the classical integrate-and-fire neuron that
    subtracts its threshold at each spike.
    """

    rising: Tensor
    falling: Tensor
    climbing: bool = False
    negative_spikes: bool = True
    lowest: int = 0


@dataclass(frozen=True, eq=False)
class Firing:
    """What a layer did in T steps.

    spikes: int8 [T, N, C, P]. events: the number of samples with a spike, int32 [T, C, P]. positive: the number of
    +1 spikes, int64 [T]. active: whether a sample spiked, bool [T, N]. membranes: after each step, [T, N, C, P],
    where they were asked for.
    """

    spikes: Tensor
    events: Tensor
    positive: Tensor
    active: Tensor
    membranes: Tensor | None


def threshold_table(thresholds: Tensor, dtype: torch.dtype) -> Tensor:
    """A table [O, J + 2] of a `Rule` from thresholds [O, J]."""
    extreme = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    table = torch.full((len(thresholds), thresholds.shape[1] + 2), extreme.max, dtype=dtype)
    table[:, 0] = extreme.min
    table[:, 1:-1] = thresholds.clamp(extreme.min, extreme.max)
    return table


def fire(
    sums: Tensor,
    row: Tensor | None,
    state: Neurons,
    rule: Rule,
    first_step: int,
    steps: int,
    traced: bool = False,
) -> Firing:
    """Run the neurons of a layer over T = `steps` steps; changes `state`.

    sums: what steps add to membranes, [R, C, P] in the membrane's dtype, one row for each step and sample
    that receive a spike at all. row: int64 [T, N], which row of `sums` is theirs, −1 for none; None where each step
    and sample has one, in order. traced: whether to return the membranes.
    """
    samples, channels, positions = state.membrane.shape
    spikes = torch.zeros(steps, samples, channels, positions, dtype=torch.int8)
    events = torch.zeros(steps, channels, positions, dtype=torch.int32)
    positive = torch.zeros(steps, dtype=torch.int64)
    active = torch.zeros(steps, samples, dtype=torch.bool)
    membranes = torch.zeros(spikes.shape, dtype=state.membrane.dtype) if traced else None
    membrane, count = state.membrane, state.count
    rising, falling, width = rule.rising.flatten(), rule.falling.flatten(), rule.rising.shape[1]
    at = count + (torch.arange(channels) * width - rule.lowest)[:, None]
    # Thresholds that stand above and below each neuron; only one that fires moves its own.
    above, below = rising[at + 1], falling[at]
    for step in range(steps):
        if row is None:
            membrane += sums[step * samples : (step + 1) * samples]
        else:
            receives = row[step] >= 0
            membrane[receives] += sums[row[step][receives]]
        if rule.climbing:
            above = rule.rising[:, min(first_step + step, width - 1), None]
        rise = membrane >= above
        spike = rise.to(torch.int8)
        if rule.negative_spikes and not rule.climbing:
            spike -= ((membrane < below) & ~rise).to(torch.int8)
        if membranes is not None:
            membranes[step] = membrane
        where: Any = slice(None)
        # An accelerator has moved all thresholds before it has told which have to.
        if not spike.is_cuda:
            where = spike.flatten().nonzero().flatten()
            if not len(where):
                continue
        count += spike
        fired = spike != 0
        state.last.masked_fill_(fired, first_step + step)
        spikes[step] = spike
        events[step] = fired.sum(0)
        positive[step] = rise.sum()
        active[step] = fired.flatten(1).any(1)
        if not rule.climbing:
            moved = at.view(-1)[where] + spike.view(-1)[where]
            at.view(-1)[where] = moved
            above.view(-1)[where], below.view(-1)[where] = rising[moved + 1], falling[moved]
    return Firing(spikes, events, positive, active, membranes)


def refuse_table_end(snn: SNN, index: int) -> NoReturn:
    """Raise ValueError for a layer whose counts reached the end of their threshold table."""
    layer = snn.layers[index]
    remedy = f"convert the network with max_levels={min(2 * layer.table_end, LONGEST)} or more"
    if layer.table_end == LONGEST:
        remedy = "train the network longer, or build it with a clip"
    raise ValueError(
        f"layer {index} ({layer.name}): a neuron reached {layer.table_end} spikes, the end of its threshold table; "
        f"{remedy}"
    )


def membrane_dtype(layer: SpikingLayer, slack: int = 0) -> torch.dtype:
    """The type of a layer's membrane: int32, or int64 where the worst case plus `slack` needs it.

    Real weights or real thresholds take a float64 membrane.
    """
    if not layer.integer:
        return torch.float64
    lowest, highest = layer.membrane
    small = smallest_integer(lowest - slack, highest + slack)
    return torch.int64 if small == torch.int64 else torch.int32


def synaptic_input(synapses: Synapses, inputs: Tensor, largest: int, name: str) -> Tensor:
    """Σ w·m of every neuron, [N, O, H, W], for integer inputs [N, I, H, W] with |m| ≤ `largest`.

    A float32 convolution that only adds is exact while every partial sum stays below 2^24, which the worst case
    over the synapses' weights decides beforehand; otherwise float64 computes it. Integer values, in floating point.
    Raises ValueError that names the layer where not even float64 holds the worst case.
    """
    weight, dtype = synapses.weight, torch.float64
    if not weight.is_floating_point():
        worst = int(weight.long().abs().sum((1, 2, 3)).max()) * largest
        if worst >= EXACT_IN_FLOAT64:
            raise ValueError(f"{name}: membranes up to {worst} do not fit an exact sum; use smaller inputs")
        if worst < EXACT_IN_FLOAT32 and (not _rounds_to_tf32() if inputs.is_cuda else adds_only()):
            dtype = torch.float32
    return synapses.sums(inputs.to(dtype), weight.to(dtype))


def _rounds_to_tf32() -> bool:
    """Whether a matrix product on CUDA may round float32 to TF32's 11 bits, as the process has set it."""
    try:
        return torch.backends.cuda.matmul.allow_tf32
    except RuntimeError:
        # Set by both of torch's interfaces, which then says nothing.
        return True
