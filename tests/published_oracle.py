"""The published neuron again, in plain NumPy: two moving thresholds, as the text describes them, in float64.

Every hidden layer keeps a membrane and two thresholds for each neuron. In integer mode all three are in units of
1/10 000. Networks without a clip only: the published ones have none. It shares no code with
what it judges, but convolution and the counting of synapses with the package's own plain transcription.
"""

from __future__ import annotations

import numpy as np

from ann_snn_utils.simulator import oracle


class Neurons:
    """Membranes [N, C, H, W] and moving thresholds of a hidden layer."""

    def __init__(self, layer: oracle.OracleLayer, n: int, integer: bool, shape: tuple[int, ...]) -> None:
        gamma, beta, mean = (np.asarray(v, dtype=np.float64).copy() for v in (layer.gamma, layer.beta, layer.mean))
        sigma = np.sqrt(np.asarray(layer.variance, dtype=np.float64) + layer.eps)
        self.sign = np.where(gamma < 0, -1.0, 1.0)
        self.scale = 10_000.0 if integer else 1.0
        # The published code cannot hold γ = 0: such a channel fires its constant code and stops.
        self.constant = np.where(gamma == 0, np.floor(n * np.maximum(beta, 0) + 0.5), -1)
        safe = np.where(gamma == 0, 1.0, np.abs(gamma))
        step = sigma / safe
        first = (1 - 0.5 - n * beta) * step + n * mean * self.sign
        if integer:
            step, first = np.round(step * 10_000), np.round(first) * 10_000
        self.step, self.bound = (np.broadcast_to(v[:, None, None], shape[1:]) for v in (step, first - step))
        self.upper = np.broadcast_to(self.bound + self.step, shape).copy()
        self.lower = np.broadcast_to(self.bound, shape).copy()
        self.membrane, self.count = np.zeros(shape), np.zeros(shape, dtype=np.int64)

    def fire(self, gained: np.ndarray) -> np.ndarray:
        self.membrane += self.sign[:, None, None] * gained
        v = np.maximum(self.scale * self.membrane, self.bound)
        plus = v > self.upper
        minus = ~plus & (v < self.lower - 1e-5)
        constant = self.constant[:, None, None]
        plus = np.where(constant >= 0, self.count < constant, plus)
        minus = np.where(constant >= 0, False, minus)
        spikes = plus.astype(np.int64) - minus
        self.upper, self.lower = self.upper + spikes * self.step, self.lower + spikes * self.step
        self.count += spikes
        return spikes


def run(ann, images: np.ndarray, time_steps: int, integer: bool = True) -> oracle.OracleRun:
    """Simulate uint8 images [N, C, H, W] as the published system does, with its count of synaptic operations."""
    layers, classifier = oracle.layers_of(ann)
    spec, n, result = ann.spec, 2**ann.spec.k, oracle.OracleRun()
    still = oracle.convolve(layers[0], images.astype(np.int64))
    history, potentials = [[] for _ in layers], [[] for _ in layers]
    sops = np.zeros((time_steps, len(layers)), dtype=np.int64)
    hidden: list[Neurons | None] = [None] * len(layers)
    counts = [np.zeros_like(still)] + [0] * (len(layers) - 1)
    logits = []
    for step in range(1, time_steps + 1):
        spikes = np.zeros_like(still)
        if step <= spec.levels:
            for channel in range(still.shape[1]):
                # The encoder compares with ≥, and what it compares is exact here as there.
                sign, theta = oracle.threshold(layers[0], channel, step, 1, 255)
                spikes[:, channel] = [
                    [[sign * int(u) >= theta for u in row] for row in m] for m in still[:, channel]
                ]
        for index, layer in enumerate(layers):
            if index > 0:
                carried = spikes * (n if index == 1 else 1)
                sops[step - 1, index] = oracle.operations(layer, spikes, effective=False) * (n if index == 1 else 1)
                gained = oracle.convolve(layer, carried)
                if hidden[index] is None:
                    hidden[index] = Neurons(layer, n, integer, gained.shape)
                spikes = hidden[index].fire(gained)
                potentials[index].append(hidden[index].membrane.copy())
            counts[index] = counts[index] + spikes
            history[index].append(spikes)
        logits.append(counts[-1].reshape(len(images), -1) @ classifier.T)
    result.spikes, result.membranes = [np.stack(s) for s in history], [np.stack(m) for m in potentials[1:]]
    result.counts, result.logits, result.sops = counts, np.stack(logits), sops
    return result
