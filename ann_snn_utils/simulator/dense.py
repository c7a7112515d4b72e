"""The network step by step in dense tensors: every layer is one convolution over a block of time steps.

It takes every network, real-valued weights too, and can trace the spikes and membranes of all neurons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from ..ann.network import maxima
from ..ann.notation import LARGEST_PIXEL, NetworkSpec
from ..snn.network import SNN, SpikingLayer
from .disturb import faulty
from .neuron import Firing, Neurons, Rule, fire, membrane_dtype, refuse_table_end, synaptic_input, threshold_table
from .record import Record, Traces

# Steps computed at once. Samples that have fallen silent leave the batch between two blocks.
BLOCK = 8

_TOTALS = ("positive", "negative", "sops", "effective_sops", "encoder_sops")

# Neurons · samples · steps of the widest layer that are worked on at once: a few MiB, near the cache.
WORKING_SET = 2**24

# On an accelerator, numbers of `column_sums` that are worked on at once: 2 GiB in float32.
COLUMNS = 2**29


def samples_at_once(snn: SNN, time_steps: int | None, device: torch.device) -> int:
    """How many samples to run at once, so that the widest layer stays within `WORKING_SET`, or `COLUMNS`."""
    steps = min(time_steps or BLOCK, BLOCK)
    widest = max(snn.neurons)
    if device.type == "cpu":
        return min(500, max(1, WORKING_SET // (widest * steps)))
    for one in (one for layer in snn.layers for one in layer.synapses):
        _, height, width = one.spec.out_shape
        widest = max(widest, height * width * one.weight[0].numel() * one.spec.groups)
    return max(1, COLUMNS // (widest * steps))


def _start(snn: SNN, images: Tensor, slack: int, negative_spikes: bool) -> tuple[list[Neurons], list[Rule]]:
    """The neurons of every layer at rest, the encoder's with the image in their membrane, and their rules."""
    states, rules = [], []
    for index, layer in enumerate(snn.layers):
        dtype, (channels, height, width) = membrane_dtype(layer, slack), layer.spec.out_shape
        shape = (len(images), channels, height * width)
        membrane = torch.zeros(shape, dtype=dtype)
        if index == 0:
            membrane += synaptic_input(layer.synapses[0], images, LARGEST_PIXEL, layer.name).flatten(2).to(dtype)
        count, last = (torch.zeros(shape, dtype=torch.int16) for _ in range(2))
        received = None
        if layer.spec.kind == "maximum":
            received = torch.zeros(len(images), *layer.spec.in_shape, dtype=torch.int16)
        states.append(Neurons(membrane, count, last, received))
        rising, falling = (threshold_table(table, dtype) for table in layer.compared)
        # Maxima follow their window, whatever the rule of the neurons in it.
        signed = negative_spikes or layer.spec.kind == "maximum"
        rules.append(Rule(rising, falling, index == 0, signed, layer.spec.lowest))
    return states, rules


def _summed(
    layer: SpikingLayer, received: Mapping[int, Firing], busy: Tensor | None, spec: NetworkSpec, dtype: torch.dtype
) -> Tensor:
    """What the steps and samples in which a spike arrives (busy, [T, N]) add to membranes of a dtype, [R, C, P].

    busy: None for all of them.
    """
    parts = []
    for one in layer.synapses:
        amplitude, (channels, height, width) = spec.amplitude(one.spec.source), one.spec.in_shape
        spikes = received[one.spec.source].spikes
        inputs = (spikes if busy is None else spikes[busy]).reshape(-1, channels, height, width)
        # Each sum is exact in float32, but not what they add up to.
        sums = (synaptic_input(one, inputs, amplitude, layer.name).flatten(2) * amplitude).to(dtype)
        parts.append(sums if one.gain is None else sums * one.gain[:, None])
    return reduce(torch.add, parts)


def _maximum_change(layer: SpikingLayer, spikes: Tensor, state: Neurons) -> Tensor:
    """By how much spikes [T, N, C, P] of its source move the maxima of a layer, [T, N, C, P']; changes `state`."""
    assert state.received is not None
    counts = state.received + spikes.unflatten(3, state.received.shape[2:]).cumsum(0)
    state.received = counts[-1].to(torch.int16)
    # Counts of 16 bits are exact in float32.
    largest = maxima(counts.flatten(0, 1).float(), layer.spec).flatten(2).unflatten(0, counts.shape[:2])
    return torch.diff(largest, dim=0, prepend=state.membrane[None].float())


def _arriving(
    snn: SNN, index: int, sent: Mapping[int, Firing], state: Neurons, steps: int
) -> tuple[Tensor, Tensor | None]:
    """What steps add to a layer's membranes, and for each step and sample its row of that, as `fire` takes it."""
    layer, sources = snn.layers[index], snn.layers[index].spec.sources if index else ()
    busy = row = None
    # An accelerator adds to all membranes in less time than it takes to hear from it which receive nothing.
    if not index or not state.count.is_cuda:
        busy = torch.zeros(steps, len(state.count), dtype=torch.bool)
        for source in sources:
            busy |= sent[source].active
        row = torch.full(busy.shape, -1)
        if index:
            row[busy] = torch.arange(int(busy.sum()))
    if index == 0:
        sums = state.membrane[:0]
    elif layer.spec.kind == "maximum":
        change = _maximum_change(layer, sent[sources[0]].spikes, state)
        sums = change.flatten(0, 1) if busy is None else change[busy]
    else:
        sums = _summed(layer, sent, busy, snn.spec, state.membrane.dtype)
    return sums.to(state.membrane.dtype).contiguous(), row


def _count_operations(totals: Mapping[str, Tensor], snn: SNN, index: int, sent: Mapping[int, Firing]) -> None:
    """Add the synaptic operations of what came to a layer at each step."""
    for one in snn.layers[index].synapses if index else ():
        events = sent[one.spec.source].events.flatten(1)
        reached, effective = ((events * reach.flatten()).sum(1) for reach in (one.fan_out, one.effective_fan_out))
        totals["sops"][:, index] += reached
        totals["effective_sops"][:, index] += effective
        if snn.spec.origin(one.spec.source) == 0:
            totals["encoder_sops"][:, index] += reached


def run_dense(
    snn: SNN,
    images: Tensor,
    samples: Tensor,
    time_steps: int | None,
    disturbance: tuple[str, float, int] | None,
    traced: bool = False,
    negative_spikes: bool = True,
) -> Record:
    """The record of one batch of uint8 images [N, C, H, W], with traces of them all where `traced`.

    It works where the tensors of network, images and samples are, under `torch.device`; the record is on the CPU.
    samples: their indices, int64 [N], from which faults are drawn. time_steps: None runs until silence.
    disturbance: fault, rate and seed of `disturb.faulty`. negative_spikes: see `neuron.Rule`.
    """
    depth, size = len(snn.layers), len(images)
    limit = time_steps or snn.sufficient_steps + 1
    # A lost or flipped spike can push a membrane beyond the bound of the undisturbed network.
    farthest = max(abs(end) for layer in snn.layers for end in layer.membrane)
    states, rules = _start(snn, images, 2 * limit * farthest if disturbance else 0, negative_spikes)
    counts = [torch.zeros_like(state.count) for state in states]
    fired_last = [torch.zeros_like(state.last) for state in states]
    active, last = torch.arange(size), torch.zeros(size, dtype=torch.int64)
    score = torch.zeros(size, snn.spec.classes, dtype=torch.float64)
    if snn.bias is not None:
        score += snn.bias
    weight = snn.classifier.double().flatten(1).T
    blocks: list[dict[str, Tensor]] = []
    logits: list[Tensor] = []
    spike_traces: list[list[Tensor]] = [[] for _ in states]
    membrane_traces: list[list[Tensor]] = [[] for _ in states]
    done = 0
    while done < limit and len(active):
        steps = min(BLOCK, limit - done)
        totals = {name: torch.zeros(steps, depth, dtype=torch.int64) for name in _TOTALS}
        # What layers send, as the ones behind them receive it; the encoder has its image already.
        sent: dict[int, Firing] = {}
        for index, (layer, state, rule) in enumerate(zip(snn.layers, states, rules, strict=True)):
            fired = fire(*_arriving(snn, index, sent, state, steps), state, rule, done + 1, steps, traced)
            # No earlier, as a neuron sends at most one spike a step.
            if layer.saturates and done + steps >= layer.table_end:
                climbed = state.count - fired.spikes.sum(0) + fired.spikes.cumsum(0, dtype=torch.int16)
                if int(climbed.max()) >= layer.table_end:
                    refuse_table_end(snn, index)
            _count_operations(totals, snn, index, sent)
            totals["positive"][:, index] = fired.positive
            totals["negative"][:, index] = fired.events.sum((1, 2)) - fired.positive
            latest = (fired.active * torch.arange(done + 1, done + steps + 1)[:, None]).amax(0)
            last[active] = torch.maximum(last[active], latest)
            if fired.membranes is not None:
                shape = layer.spec.out_shape[1:]
                spike_traces[index].append(fired.spikes.unflatten(3, shape).cpu())
                membrane_traces[index].append(fired.membranes.unflatten(3, shape).cpu())
            if disturbance is not None:
                received = faulty(fired.spikes, *disturbance, samples[active], index, done + 1)
                fired = replace(fired, spikes=received, events=(received != 0).sum(1))
            sent[index] = fired
            for source in snn.spec.graph.last_read[index] if index else ():
                del sent[source]
        scores = score.expand(steps, -1, -1).clone()
        scores[:, active] += (fired.spikes.flatten(2).double() @ weight).cumsum(0)
        score = scores[-1]
        logits.append(scores)
        blocks.append(totals)
        done += steps
        silent = (last[active] < done) & (done > snn.levels) & (not traced)
        for index, state in enumerate(states):
            counts[index][active] = state.count
            fired_last[index][active] = state.last
            if silent.any():
                state.select(~silent)
        active = active[~silent]

    shaped = zip(counts, snn.layers, strict=True)
    # A neuron sends at most one spike a step.
    small = torch.int8 if done < 2**7 else torch.int16
    counts = [count.to(small).unflatten(2, layer.spec.out_shape[1:]).cpu() for count, layer in shaped]
    settled = last.clamp(min=snn.levels).cpu()
    integer = not snn.classifier.is_floating_point()
    traces = None
    if traced:
        spikes, membranes = ([torch.cat(parts) for parts in t] for t in (spike_traces, membrane_traces))
        traces = Traces(spikes, membranes)
    record = Record(
        logits=torch.cat(logits).to(torch.int64 if integer else torch.float64).cpu(),
        labels=None,
        counts=counts,
        settled_at=torch.where(settled < done, settled, 0),
        **{name: torch.cat([totals[name] for totals in blocks]).cpu().numpy() for name in _TOTALS},
        pending=np.stack([_pending(steps, done) for steps in fired_last], 1),
        layer_names=snn.layer_names,
        neurons=snn.neurons,
        traces=traces,
        amplitude=snn.amplitude,
    )
    # Under faults a sample may never fall silent: the run then stays as long as it was.
    return record if time_steps else record.until_silence()


def _pending(last: Tensor, steps: int) -> np.ndarray:
    """How many neurons fire after each step 1 … steps, from the step of each one's last spike."""
    at = torch.bincount(last.flatten(), minlength=steps + 1).cpu().numpy()
    return at.sum() - at.cumsum()[1 : steps + 1]
