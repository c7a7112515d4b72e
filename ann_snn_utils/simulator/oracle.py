"""The network as its equations say, in plain Python and NumPy: the judge of every faster path.

With n = 2^k counts for one unit of activation, integer inputs m, and batch norm (γ, β, μ, σ = √(var + ε)):

    membrane    U = Σ w·m over all steps so far; it only accumulates and is never reset
    threshold   θ_j = (j − 1/2 − n·β)·σ/γ + n·μ  of the j-th spike, j = 1, 2, …
    neuron      +1 where U ≥ θ_{c+1}, else −1 where c > 0 and U < θ_c;  c: its +1 less its −1 spikes so far
    encoder     receives the image in step 1 only and fires +1 in step t where U ≥ θ_t, for `levels` steps
    scores      classifier weights × counts c of the last layer, after every step

(Zou et al. 2024.) Where a layer adds up sums that are worth different amounts, as at the end of a residual block,
the membrane is the value of the activation itself, a rational number, and θ_j = (j − 1/2) · step. A layer of maxima
has the largest count in its window as membrane, and θ_j = j.

It reads a quantized network's raw parameters, holds thresholds as rational numbers, walks neuron by neuron, and
imports nothing of this package, so that it cannot share a mistake with what it judges.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from math import floor, inf
from typing import Any

import numpy as np

Thresholds = Callable[[int], Fraction | float]  # j → θ_j


@dataclass(frozen=True, eq=False)
class Layer:
    """Integer weights [O, I / groups, kh, kw] and batch norm [O]; where γ < 0 weights, γ and μ are negated already.

    sources: the layers that it reads, −1 for the image; `average`: over windows of which size it reads them.
    shortcut: a second branch, which is added. maximum: it takes maxima over windows instead.
    """

    weight: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    eps: float
    stride: int
    padding: int
    dilation: int = 1
    groups: int = 1
    average: int = 1
    sources: tuple[int, ...] = ()
    shortcut: Layer | None = None
    maximum: bool = False

    @property
    def branches(self) -> list[Layer]:
        """What is added up: the layer's own convolution, and its shortcut where it has one."""
        return [self] if self.shortcut is None else [self, self.shortcut]


@dataclass(frozen=True, eq=False)
class Run:
    """What happened in T steps: per layer spikes and membranes [T, N, C, H, W] and final counts [N, C, H, W].

    logits [T, N, classes]; sops and effective_sops, synaptic operations [T, L]; settled_at [N].
    """

    spikes: list[np.ndarray]
    membranes: list[np.ndarray]
    counts: list[np.ndarray]
    logits: np.ndarray
    sops: np.ndarray
    effective_sops: np.ndarray
    settled_at: np.ndarray


def threshold(layer: Layer, channel: int, j: int, n: int | Fraction, unit: int | Fraction = 1) -> Fraction | float:
    """θ_j of a channel; unit: how many steps of the input make 1, so 255 for pixels. ±∞ in a constant channel."""
    gamma, beta, mean = (Fraction(float(values[channel])) for values in (layer.gamma, layer.beta, layer.mean))
    if gamma == 0:
        code = floor(n * beta + Fraction(1, 2))
        return -inf if j <= code else inf
    sigma = Fraction(float(np.sqrt(layer.variance[channel] + layer.eps)))
    return unit * ((j - Fraction(1, 2) - n * beta) * sigma / gamma + n * mean)


def fire(u: Any, count: int, theta: Thresholds, largest: int | None = None, lowest: int = 0) -> int:
    """The spike, +1, −1 or 0, of a neuron that holds membrane u and has sent `count` net spikes."""
    if u >= theta(count + 1) and (largest is None or count < largest):
        return 1
    if count > lowest and u < theta(count):
        return -1
    return 0


def encode(u: int, step: int, levels: int, theta: Thresholds) -> int:
    """The spike of an encoder's neuron, whose threshold climbs with every step, whether or not it fires."""
    return 1 if step <= levels and u >= theta(step) else 0


def settled_at(last: np.ndarray, levels: int, time_steps: int) -> np.ndarray:
    """The step with which each sample settled, from the step of its last spike; 0 where no silent step followed.

    Until the encoder's `levels` steps are over a sample only seems silent. Afterwards, in a step without a spike no
    membrane and no threshold changes, so no neuron can ever fire again: it is silent from step settled_at + 1 on.
    """
    settled = np.maximum(last, levels)
    return np.where(settled < time_steps, settled, 0)


def run(
    ann: Any, images: np.ndarray, time_steps: int, largest_count: int | None = None, negative_spikes: bool = True
) -> Run:
    """A quantized network's spiking form over T steps, for uint8 images [N, C, H, W].

    A hidden neuron counts to the largest count of its layer, or to `largest_count` where it has none; without
    negative_spikes none is taken back.
    """
    layers, classifier = layers_of(ann)
    spec, samples = ann.spec, len(images)
    thetas = [thresholds_of(spec, layers, index) for index in range(len(layers))]
    sums: list[list[Any]] = [[0] * 4 for _ in layers]
    counts: list[Any] = [0] * len(layers)
    history: list[list[np.ndarray]] = [[] for _ in layers]
    potentials: list[list[np.ndarray]] = [[] for _ in layers]
    sops, effective = np.zeros((2, time_steps, len(layers)), dtype=np.int64)
    bias = ann.classifier.bias
    begin = 0 if bias is None else np.round(bias.detach().numpy()).astype(np.int64)
    logits, last = [], np.zeros(samples, dtype=np.int64)
    for step in range(1, time_steps + 1):
        arriving: dict[int, np.ndarray] = {-1: images.astype(np.int64) * (step == 1)}
        for index, layer in enumerate(layers):
            lowest, highest = spec.counts(index)
            largest = largest_count if highest is None else highest
            for branch in layer.branches if index > 0 else ():
                inputs = gathered(branch, {source: np.abs(arriving[source]) for source in branch.sources})
                sops[step - 1, index] += operations(np.ones_like(branch.weight), branch, inputs)
                effective[step - 1, index] += operations(branch.weight != 0, branch, inputs)
            if layer.maximum:
                membrane = maxima(layer, counts[layer.sources[0]])
            else:
                terms = terms_of(spec, layer)
                for term, (branch, sources, _) in enumerate(terms):
                    of_worth = {s: arriving[s] * (s in sources) * carried(spec, s) for s in branch.sources}
                    sums[index][term] = sums[index][term] + convolve(branch, gathered(branch, of_worth))
                membrane = sums[index][0] if len(terms) == 1 else value(terms, sums[index])
            counts[index] = counts[index] + np.zeros(membrane.shape, dtype=np.int64)
            spikes = np.zeros(membrane.shape, dtype=np.int64)
            for where in np.ndindex(*spikes.shape):
                u: Any = membrane[where]
                count, theta = int(counts[index][where]), thetas[index][where[1]]
                if index > 0:
                    spike = fire(u, count, theta, largest, lowest)
                    spikes[where] = spike if negative_spikes else max(spike, 0)
                else:
                    spikes[where] = encode(u, step, spec.levels, theta)
            counts[index] = counts[index] + spikes
            history[index].append(spikes)
            potentials[index].append(membrane)
            last[spikes.reshape(samples, -1).any(1)] = step
            arriving[index] = spikes
        logits.append(begin + counts[-1].reshape(samples, -1) @ classifier.T)
    spikes_of, membranes_of = ([np.stack(steps) for steps in kept] for kept in (history, potentials))
    settled = settled_at(last, spec.levels, time_steps)
    return Run(spikes_of, membranes_of, counts, np.stack(logits), sops, effective, settled)


def carried(spec: Any, source: int) -> int:
    """Counts that a spike carries: a whole unit of activation from the encoder, or from maxima of it."""
    return 2**spec.k if source >= 0 and spec.origin(source) == 0 else 1


def terms_of(spec: Any, layer: Layer) -> list[tuple[Layer, tuple[int, ...], Fraction]]:
    """What a layer adds up: for each branch, its sources whose counts are worth the same, and how much that is."""
    terms = []
    for branch in layer.branches:
        worth = [
            Fraction(1, 255) if s < 0 else Fraction(spec.step(s)) / carried(spec, s) / branch.average**2
            for s in branch.sources
        ]
        for one in dict.fromkeys(worth):
            sources = tuple(s for s, other in zip(branch.sources, worth, strict=True) if other == one)
            terms.append((branch, sources, one))
    return terms


def thresholds_of(spec: Any, layers: list[Layer], index: int) -> list[Thresholds]:
    """j → θ_j for each channel of a layer."""
    layer, step = layers[index], Fraction(spec.step(index))
    channels, terms = range(len(layer.weight)), terms_of(spec, layer)
    if layer.maximum:
        return [lambda j: j for _ in channels]
    if len(terms) > 1:
        return [lambda j: (j - Fraction(1, 2)) * step for _ in channels]
    n, unit = 1 / step, step / terms[0][2]
    return [cache(partial(threshold, layer, channel, n=n, unit=unit)) for channel in channels]


def value(terms: list[tuple[Layer, tuple[int, ...], Fraction]], sums: list[Any]) -> np.ndarray:
    """What the sums of a layer's terms are worth after batch norm, Fractions [N, O, H, W]."""
    total = np.zeros(sums[0].shape, dtype=object)
    for term, (branch, _, worth) in enumerate(terms):
        for channel in range(total.shape[1]):
            gamma, beta, mean = (Fraction(float(v[channel])) for v in (branch.gamma, branch.beta, branch.mean))
            slope = gamma / Fraction(float(np.sqrt(branch.variance[channel] + branch.eps)))
            total[:, channel] += slope * worth * sums[term][:, channel].astype(object)
            # A branch of two terms is normalized once.
            if branch is not (terms[term - 1][0] if term else None):
                total[:, channel] += beta - slope * mean
    return total


def gathered(branch: Layer, values: dict[int, np.ndarray]) -> np.ndarray:
    """The values of a branch's sources side by side, summed over the windows of which it takes averages."""
    inputs = np.concatenate([values[source] for source in branch.sources], 1)
    p, (samples, channels, height, width) = branch.average, inputs.shape
    return inputs.reshape(samples, channels, height // p, p, width // p, p).sum((3, 5))


def convolve(layer: Layer, inputs: np.ndarray) -> np.ndarray:
    """Σ w·m of every neuron: [N, I, H, W] → [N, O, H', W'], integer sums written out."""
    seen, weights = np.split(windows(layer, inputs, 0), layer.groups, 1), np.split(layer.weight, layer.groups)
    groups = zip(seen, weights, strict=True)
    return np.concatenate([np.einsum("nihwkl,oikl->nohw", *group) for group in groups], 1)


def maxima(layer: Layer, counts: np.ndarray) -> np.ndarray:
    """The largest count in each window: [N, C, H, W] → [N, C, H', W']; nothing outside the map is one."""
    return windows(layer, counts, int(counts.min()) - 1).max((4, 5))


def windows(layer: Layer, inputs: np.ndarray, outside: int) -> np.ndarray:
    """What the layer's kernel lies on at each place of its map: [N, I, H, W] → [N, I, H', W', kh, kw]."""
    p, s, d = layer.padding, layer.stride, layer.dilation
    padded = np.pad(inputs, ((0, 0), (0, 0), (p, p), (p, p)), constant_values=outside)
    reach = [(k - 1) * d + 1 for k in layer.weight.shape[2:]]
    return np.lib.stride_tricks.sliding_window_view(padded, reach, (2, 3))[:, :, ::s, ::s, ::d, ::d]


def operations(synapses: np.ndarray, layer: Layer, arriving: np.ndarray) -> int:
    """How many of the layer's synapses (1 where one counts, else 0) the spikes of one step reach."""
    return int(convolve(replace(layer, weight=synapses.astype(np.int64)), np.abs(arriving)).sum())


def layers_of(ann: Any) -> tuple[list[Layer], np.ndarray]:
    """A quantized network's layers, and its classifier as integers [classes, inputs]."""
    layers = []
    for index, layer in enumerate(ann.layers):
        first, *others = layer.spec.branches
        if layer.spec.kind == "maximum":
            layers.append(replace(_ones(first, layer.spec.out_shape[0]), maximum=True))
            continue
        shortcut = None
        if others:
            channels = layer.spec.out_shape[0]
            added = layer.shortcut
            shortcut = _ones(others[0], channels) if added is None else _branch(ann, index, added, others[0])
        own = _branch(ann, index, layer, first)
        sign = np.where(own.gamma < 0, -1, 1)
        turned = own.weight * sign[:, None, None, None], own.gamma * sign, own.mean * sign
        layers.append(replace(own, weight=turned[0], gamma=turned[1], mean=turned[2], shortcut=shortcut))
    average = ann.spec.graph.read_out.average
    weight = to_int8(_raw(ann.classifier), per_channel=False) if not ann.spec.is_graph else _given(ann.classifier)
    weight = weight.reshape(len(weight), *ann.spec.graph.inputs)
    weight = weight.repeat(average, 2).repeat(average, 3)
    return layers, weight.reshape(len(weight), -1)


def _branch(ann: Any, index: int, part: Any, geometry: Any) -> Layer:
    """A convolution and its batch norm."""
    raw, norm = _raw(part.conv), part.norm
    if ann.spec.is_graph:
        weight = _given(part.conv)
    else:
        weight = to_int8(raw, per_channel=True) if index == 0 or not ann.spec.ternary else to_ternary(raw)
    gamma, beta, mean, variance = (
        values.detach().double().numpy() for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    return Layer(weight, gamma, beta, mean, variance, norm.eps, *_geometry(geometry))


def _ones(geometry: Any, channels: int) -> Layer:
    """A branch that passes on what it reads."""
    zero, one = np.zeros(channels), np.ones(channels)
    rows, columns = geometry.kernel
    weight = np.ones((channels, 1, rows, columns), dtype=np.int64)
    return Layer(weight, one, zero, zero, one, 0.0, *_geometry(geometry))


def _geometry(branch: Any) -> tuple[int, int, int, int, int, tuple[int, ...]]:
    return branch.stride, branch.padding, branch.dilation, branch.groups, branch.average, branch.sources


def _raw(module: Any) -> np.ndarray:
    return module.parametrizations.weight.original.detach().double().numpy()


def _given(module: Any) -> np.ndarray:
    """Weights of a graph whose integers are given: whole multiples of their unit."""
    rounding = module.parametrizations.weight[0]
    whole = np.round(_raw(module) / rounding.unit.detach().double().numpy())
    return np.clip(whole, float(rounding.lowest), rounding.largest).astype(np.int64)


def to_ternary(w: np.ndarray) -> np.ndarray:
    """−1, 0 or +1 of each weight: its sign where |w| > 0.7 · mean|w|, else 0."""
    return (np.sign(w) * (np.abs(w) > 0.7 * np.abs(w).mean())).astype(np.int64)


def to_int8(w: np.ndarray, per_channel: bool) -> np.ndarray:
    """Whole multiples of the largest |w| / 127, of each channel or of the whole layer."""
    scale = np.abs(w).max(axis=tuple(range(1, w.ndim)) if per_channel else None, keepdims=True) / 127
    return np.round(np.divide(w, scale, out=np.zeros_like(w), where=scale > 0)).astype(np.int64)
