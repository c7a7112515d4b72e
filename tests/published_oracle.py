"""The published neuron in plain NumPy: two moving thresholds, as the text describes them, in float64.

Every hidden layer holds a membrane and two thresholds for each neuron, in integer mode in units of 1/10 000.
Networks without a clip only: the published ones have none. Convolution, the encoder and the counting of synapses
are those of the package's own plain transcription; nothing is shared with what is judged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ann_snn_utils.simulator import oracle


@dataclass(frozen=True, eq=False)
class Run:
    """Spikes and membranes [T, N, C, H, W] of each layer (membranes: hidden ones), counts, scores [T, N, classes],
    and synaptic operations [T, L] as the published system counts them: an encoder's spike counts 2^k times."""

    spikes: list[np.ndarray]
    membranes: list[np.ndarray]
    counts: list[np.ndarray]
    logits: np.ndarray
    sops: np.ndarray


class Neurons:
    """Membranes [N, C, H, W] and moving thresholds of a hidden layer."""

    def __init__(self, layer: oracle.Layer, n: int, integer: bool, shape: tuple[int, ...]) -> None:
        gamma, beta, mean = layer.gamma, layer.beta, layer.mean
        sigma = np.sqrt(layer.variance + layer.eps)
        # The published code cannot hold γ = 0: such a channel fires its constant code and stops.
        self.constant = np.where(gamma == 0, np.floor(n * np.maximum(beta, 0) + 0.5), -1)[:, None, None]
        step = sigma / np.where(gamma == 0, 1.0, gamma)
        first = (1 - 0.5 - n * beta) * step + n * mean
        self.scale = 10_000.0 if integer else 1.0
        if integer:
            step, first = np.round(step * 10_000), np.round(first) * 10_000
        self.step, self.bound = step[:, None, None], (first - step)[:, None, None]
        self.upper = np.broadcast_to(self.bound + self.step, shape).copy()
        self.lower = np.broadcast_to(self.bound, shape).copy()
        self.membrane, self.count = np.zeros(shape), np.zeros(shape, dtype=np.int64)

    def fire(self, gained: np.ndarray) -> np.ndarray:
        self.membrane = self.membrane + gained
        v = np.maximum(self.scale * self.membrane, self.bound)
        plus = v > self.upper
        minus = ~plus & (v < self.lower - 1e-5)
        plus = np.where(self.constant >= 0, self.count < self.constant, plus)
        minus = np.where(self.constant >= 0, False, minus)
        spikes = plus.astype(np.int64) - minus
        self.upper, self.lower = self.upper + spikes * self.step, self.lower + spikes * self.step
        self.count = self.count + spikes
        return spikes


def encode(layer: oracle.Layer, images: np.ndarray, time_steps: int, levels: int) -> np.ndarray:
    """The encoder's spikes [T, N, C, H, W]; it compares with ≥, here as there."""
    still = oracle.convolve(layer, images.astype(np.int64))
    spikes = np.zeros((time_steps, *still.shape), dtype=np.int64)
    for step in range(min(time_steps, levels)):
        theta = [oracle.threshold(layer, channel, step + 1, 1, 255) for channel in range(still.shape[1])]
        for where in np.ndindex(*still.shape):
            spikes[step][where] = int(still[where]) >= theta[where[1]]
    return spikes


def run(ann, images: np.ndarray, time_steps: int, integer: bool = True) -> Run:
    """Simulate uint8 images [N, C, H, W] as the published system does."""
    layers, classifier = oracle.layers_of(ann)
    n, depth = 2**ann.spec.k, len(layers)
    history, potentials = [encode(layers[0], images, time_steps, ann.spec.levels)], []
    sops = np.zeros((time_steps, depth), dtype=np.int64)
    for index, layer in enumerate(layers[1:], 1):
        amplitude, hidden, spikes, membranes = (n if index == 1 else 1), None, [], []
        for step, received in enumerate(history[-1]):
            sops[step, index] = amplitude * oracle.operations(np.ones_like(layer.weight), layer, received)
            gained = oracle.convolve(layer, amplitude * received)
            hidden = hidden or Neurons(layer, n, integer, gained.shape)
            spikes.append(hidden.fire(gained))
            membranes.append(hidden.membrane)
        history.append(np.stack(spikes))
        potentials.append(np.stack(membranes))
    counts = [spikes.sum(0) for spikes in history]
    logits = history[-1].cumsum(0).reshape(time_steps, len(images), -1) @ classifier.T
    return Run(history, potentials, counts, logits, sops)
