"""The equations again, in plain NumPy: loops over layers, steps and neurons, sharing no code with the package.

It reads a network's raw parameters, derives the thresholds with rational numbers, and simulates neuron by
neuron. Slow on purpose: it is what every fast path is compared with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import floor

import numpy as np

UNREACHABLE = 10**9


@dataclass
class OracleLayer:
    weight: np.ndarray  # int64 [O, I, kh, kw], before any sign change
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    eps: float
    stride: int
    padding: int


@dataclass
class OracleRun:
    spikes: list = field(default_factory=list)  # per layer [T, N, C, H, W]
    membranes: list = field(default_factory=list)
    counts: list = field(default_factory=list)
    logits: np.ndarray | None = None
    sops: np.ndarray | None = None
    effective_sops: np.ndarray | None = None
    settled_at: np.ndarray | None = None


def layers_of(ann) -> tuple[list[OracleLayer], np.ndarray]:
    """Raw numbers of a quantized network: integer weights by the definition, batch norms, classifier."""
    spec, layers = ann.spec, []
    for index, layer in enumerate(ann.layers):
        raw = layer.conv.parametrizations.weight.original.detach().double().numpy()
        weight = to_int8(raw, per_channel=True) if index == 0 or not spec.ternary else to_ternary(raw)
        norm = layer.norm
        numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
        numbers = [v.detach().double().numpy() for v in numbers]
        layers.append(OracleLayer(weight, *numbers, norm.eps, layer.conv.stride[0], layer.conv.padding[0]))
    raw = ann.classifier.parametrizations.weight.original.detach().double().numpy()
    return layers, to_int8(raw, per_channel=False)


def to_ternary(w: np.ndarray) -> np.ndarray:
    limit = 0.7 * np.abs(w).mean()
    return np.where(w > limit, 1, np.where(w < -limit, -1, 0)).astype(np.int64)


def to_int8(w: np.ndarray, per_channel: bool) -> np.ndarray:
    out = np.zeros(w.shape, dtype=np.int64)
    for o in range(len(w)):
        largest = np.abs(w[o]).max() if per_channel else np.abs(w).max()
        if largest > 0:
            out[o] = np.round(w[o] / (largest / 127))
    return out


def threshold(layer: OracleLayer, channel: int, level: int, n: int, unit: int) -> tuple[int, Fraction | int]:
    """The sign that the channel's membrane takes, and the threshold of its `level`-th spike."""
    gamma, beta, mean = (float(v[channel]) for v in (layer.gamma, layer.beta, layer.mean))
    if gamma == 0:
        code = floor(n * max(Fraction(beta), 0) + Fraction(1, 2))
        return 1, -UNREACHABLE if level <= code else UNREACHABLE
    sigma = Fraction(float(np.sqrt(layer.variance[channel] + layer.eps)))
    sign = -1 if gamma < 0 else 1
    climb = (level - Fraction(1, 2) - n * Fraction(beta)) * sigma / abs(Fraction(gamma))
    return sign, unit * (climb + n * sign * Fraction(mean))


def convolve(layer: OracleLayer, inputs: np.ndarray) -> np.ndarray:
    """[N, I, H, W] → [N, O, H', W'], integer sums written out."""
    p, s = layer.padding, layer.stride
    padded = np.pad(inputs, ((0, 0), (0, 0), (p, p), (p, p)))
    out, _, kh, kw = layer.weight.shape
    height, width = (padded.shape[2] - kh) // s + 1, (padded.shape[3] - kw) // s + 1
    result = np.zeros((len(inputs), out, height, width), dtype=np.int64)
    for y in range(height):
        for x in range(width):
            patch = padded[:, :, y * s : y * s + kh, x * s : x * s + kw]
            result[:, :, y, x] = np.einsum("nikl,oikl->no", patch, layer.weight)
    return result


def operations(layer: OracleLayer, spikes: np.ndarray, effective: bool) -> int:
    """Count, one by one, the synapses that the spikes [N, I, H, W] of one step reach."""
    p, s = layer.padding, layer.stride
    out, _, kh, kw = layer.weight.shape
    height, width = (spikes.shape[2] + 2 * p - kh) // s + 1, (spikes.shape[3] + 2 * p - kw) // s + 1
    total = 0
    for _, i, y, x in zip(*np.nonzero(spikes), strict=True):
        for oy in range(height):
            for ox in range(width):
                ky, kx = y + p - oy * s, x + p - ox * s
                if 0 <= ky < kh and 0 <= kx < kw:
                    total += int(np.count_nonzero(layer.weight[:, i, ky, kx])) if effective else out
    return total


def run(
    ann, images: np.ndarray, time_steps: int, largest_count: int | None = None, negative_spikes: bool = True
) -> OracleRun:
    """Simulate uint8 images [N, C, H, W]; a hidden neuron counts at most clip · 2^k (or `largest_count`)."""
    layers, classifier = layers_of(ann)
    spec, samples = ann.spec, len(images)
    n, depth = 2**spec.k, len(layers)
    limit = largest_count if spec.clip is None else spec.clip * n
    result = OracleRun(sops=np.zeros((time_steps, depth), int), effective_sops=np.zeros((time_steps, depth), int))
    still = convolve(layers[0], images.astype(np.int64))
    membranes = [still] + [None] * (depth - 1)
    counts = [np.zeros_like(still)] + [None] * (depth - 1)
    history, potentials = [[] for _ in layers], [[] for _ in layers]
    logits, last = [], np.zeros(samples, dtype=np.int64)
    for step in range(1, time_steps + 1):
        arriving = None
        for index, layer in enumerate(layers):
            if index > 0:
                result.sops[step - 1, index] = operations(layer, arriving, effective=False)
                result.effective_sops[step - 1, index] = operations(layer, arriving, effective=True)
                gained = convolve(layer, arriving * (n if index == 1 else 1))
                if membranes[index] is None:
                    membranes[index], counts[index] = np.zeros_like(gained), np.zeros_like(gained)
                membranes[index] = membranes[index] + gained
            spikes = np.zeros_like(membranes[index])
            signs = np.ones(len(layer.weight), dtype=np.int64)
            for where in np.ndindex(*spikes.shape):
                channel, u, count = where[1], int(membranes[index][where]), int(counts[index][where])
                if index == 0:
                    sign, theta = threshold(layer, channel, step, 1, 255)
                    spikes[where] = step <= spec.levels and sign * u >= theta
                else:
                    sign, above = threshold(layer, channel, count + 1, n, 1)
                    _, below = threshold(layer, channel, count, n, 1)
                    if sign * u >= above and (limit is None or count < limit):
                        spikes[where] = 1
                    elif negative_spikes and count > 0 and sign * u < below:
                        spikes[where] = -1
                signs[channel] = sign
            counts[index] = counts[index] + spikes
            history[index].append(spikes)
            potentials[index].append(membranes[index] * signs[None, :, None, None])
            last[spikes.reshape(samples, -1).any(1)] = step
            arriving = spikes
        logits.append(counts[-1].reshape(samples, -1) @ classifier.T)
    result.spikes = [np.stack(s) for s in history]
    result.membranes = [np.stack(m) for m in potentials]
    result.counts, result.logits = counts, np.stack(logits)
    result.settled_at = np.where(np.maximum(last, spec.levels) < time_steps, np.maximum(last, spec.levels), 0)
    return result
