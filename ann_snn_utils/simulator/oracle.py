"""The network as its equations say, in plain Python and NumPy: the judge of every faster path.

With n = 2^k counts for one unit of activation, integer inputs m, and batch norm (γ, β, μ, σ = √(var + ε)):

    membrane    U = Σ w·m over all steps so far; it only accumulates and is never reset
    threshold   θ_j = (j − 1/2 − n·β)·σ/γ + n·μ  of the j-th spike, j = 1, 2, …
    neuron      +1 where U ≥ θ_{c+1}, else −1 where c > 0 and U < θ_c;  c: its +1 less its −1 spikes so far
    encoder     receives the image in step 1 only and fires +1 in step t where U ≥ θ_t, for `levels` steps
    scores      classifier weights × counts c of the last layer, after every step

(Zou et al. 2024.) It reads a quantized network's raw parameters, holds thresholds as rational numbers, walks neuron
by neuron, and imports nothing of this package, so that it cannot share a mistake with what it judges.
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
    """Integer weights [O, I, kh, kw] and batch norm [O]; where γ < 0 the weights, γ and μ are negated already."""

    weight: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    eps: float
    stride: int
    padding: int


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


def threshold(layer: Layer, channel: int, j: int, n: int, unit: int = 1) -> Fraction | float:
    """θ_j of a channel; unit: how many steps of the input make 1, so 255 for pixels. ±∞ in a constant channel."""
    gamma, beta, mean = (Fraction(float(values[channel])) for values in (layer.gamma, layer.beta, layer.mean))
    if gamma == 0:
        code = floor(n * max(beta, Fraction(0)) + Fraction(1, 2))
        return -inf if j <= code else inf
    sigma = Fraction(float(np.sqrt(layer.variance[channel] + layer.eps)))
    return unit * ((j - Fraction(1, 2) - n * beta) * sigma / gamma + n * mean)


def fire(u: int, count: int, theta: Thresholds, largest: int | None = None) -> int:
    """The spike, +1, −1 or 0, of a neuron that holds membrane u and has sent `count` net spikes."""
    if u >= theta(count + 1) and (largest is None or count < largest):
        return 1
    if count > 0 and u < theta(count):
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

    A hidden neuron counts to at most clip · 2^k, or `largest_count`; without negative_spikes none is taken back.
    """
    layers, classifier = layers_of(ann)
    spec, n, samples = ann.spec, 2**ann.spec.k, len(images)
    largest = largest_count if spec.clip is None else spec.clip * n
    scales = [dict(n=1, unit=255), *[dict(n=n, unit=1)] * (len(layers) - 1)]
    thetas = [
        [cache(partial(threshold, layer, channel, **scale)) for channel in range(len(layer.weight))]
        for layer, scale in zip(layers, scales, strict=True)
    ]
    membranes: list[Any] = [None] * len(layers)
    counts: list[Any] = [None] * len(layers)
    history: list[list[np.ndarray]] = [[] for _ in layers]
    potentials: list[list[np.ndarray]] = [[] for _ in layers]
    sops, effective = np.zeros((2, time_steps, len(layers)), dtype=np.int64)
    logits, last = [], np.zeros(samples, dtype=np.int64)
    for step in range(1, time_steps + 1):
        arriving = images.astype(np.int64) * (step == 1)
        for index, layer in enumerate(layers):
            if index > 0:
                sops[step - 1, index] = operations(np.ones_like(layer.weight), layer, arriving)
                effective[step - 1, index] = operations(layer.weight != 0, layer, arriving)
            gained = convolve(layer, arriving)
            if step == 1:
                membranes[index] = counts[index] = np.zeros_like(gained)
            membranes[index] = membranes[index] + gained
            spikes = np.zeros_like(gained)
            for where in np.ndindex(*spikes.shape):
                u, count, theta = int(membranes[index][where]), int(counts[index][where]), thetas[index][where[1]]
                spike = fire(u, count, theta, largest) if index > 0 else encode(u, step, spec.levels, theta)
                spikes[where] = spike if negative_spikes else max(spike, 0)
            counts[index] = counts[index] + spikes
            history[index].append(spikes)
            potentials[index].append(membranes[index])
            last[spikes.reshape(samples, -1).any(1)] = step
            # One spike of the encoder stands for a whole unit of activation.
            arriving = spikes * (n if index == 0 else 1)
        logits.append(counts[-1].reshape(samples, -1) @ classifier.T)
    spikes_of, membranes_of = ([np.stack(steps) for steps in kept] for kept in (history, potentials))
    settled = settled_at(last, spec.levels, time_steps)
    return Run(spikes_of, membranes_of, counts, np.stack(logits), sops, effective, settled)


def convolve(layer: Layer, inputs: np.ndarray) -> np.ndarray:
    """Σ w·m of every neuron: [N, I, H, W] → [N, O, H', W'], integer sums written out."""
    p, s = layer.padding, layer.stride
    padded = np.pad(inputs, ((0, 0), (0, 0), (p, p), (p, p)))
    out, _, kh, kw = layer.weight.shape
    height, width = (padded.shape[2] - kh) // s + 1, (padded.shape[3] - kw) // s + 1
    sums = np.zeros((len(inputs), out, height, width), dtype=np.int64)
    for y in range(height):
        for x in range(width):
            patch = padded[:, :, y * s : y * s + kh, x * s : x * s + kw]
            sums[:, :, y, x] = np.einsum("nikl,oikl->no", patch, layer.weight)
    return sums


def operations(synapses: np.ndarray, layer: Layer, arriving: np.ndarray) -> int:
    """How many of the layer's synapses (1 where one counts, else 0) the spikes of one step reach."""
    return int(convolve(replace(layer, weight=synapses.astype(np.int64)), (arriving != 0).astype(np.int64)).sum())


def layers_of(ann: Any) -> tuple[list[Layer], np.ndarray]:
    """A quantized network's layers, and its classifier as integers [classes, inputs]."""
    layers = []
    for index, layer in enumerate(ann.layers):
        raw = layer.conv.parametrizations.weight.original.detach().double().numpy()
        weight = to_int8(raw, per_channel=True) if index == 0 or not ann.spec.ternary else to_ternary(raw)
        norm = layer.norm
        gamma, beta, mean, variance = (
            values.detach().double().numpy()
            for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        )
        sign = np.where(gamma < 0, -1, 1)
        weight, gamma, mean = weight * sign[:, None, None, None], gamma * sign, mean * sign
        shape = norm.eps, layer.conv.stride[0], layer.conv.padding[0]
        layers.append(Layer(weight, gamma, beta, mean, variance, *shape))
    raw = ann.classifier.parametrizations.weight.original.detach().double().numpy()
    return layers, to_int8(raw, per_channel=False)


def to_ternary(w: np.ndarray) -> np.ndarray:
    """−1, 0 or +1 of each weight: its sign where |w| > 0.7 · mean|w|, else 0."""
    return (np.sign(w) * (np.abs(w) > 0.7 * np.abs(w).mean())).astype(np.int64)


def to_int8(w: np.ndarray, per_channel: bool) -> np.ndarray:
    """Whole multiples of the largest |w| / 127, of each channel or of the whole layer."""
    channels = [np.abs(row).max() if per_channel else np.abs(w).max() for row in w]
    scale = np.array(channels).reshape(-1, *[1] * (w.ndim - 1)) / 127
    return np.round(np.divide(w, scale, out=np.zeros_like(w), where=scale > 0)).astype(np.int64)
