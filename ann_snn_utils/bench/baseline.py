"""The baseline in NumPy, which simulates the integer network as the published system does.

Float64 arrays, one im2col and one matrix product for each layer and step, all steps whether or not anything fires;
only its thresholds are the exact ones, so that its answers can be compared.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..ann.graph import LayerSpec
from ..snn.network import SNN, SpikingLayer


def simulate_numpy(snn: SNN, images: np.ndarray, time_steps: int) -> np.ndarray:
    """Class scores after each step, float64 [T, N, classes], of uint8 images [N, C, H, W].

    Source: Zou et al. 2024; the neuron is that of `simulator.neuron`.
    """
    encoder, *hidden = snn.layers
    pixels = _convolve(images.transpose(0, 2, 3, 1).astype(np.float64), _columns(encoder), encoder.spec)
    climbing = np.ones(pixels.shape, dtype=bool)
    # A spike of the encoder carries 2^k counts.
    weights = [_columns(layer) * (1 if index else snn.amplitude) for index, layer in enumerate(hidden)]
    states = [_State(layer, len(images)) for layer in hidden]
    classifier = snn.classifier.double().permute(2, 3, 1, 0).flatten(0, 2).numpy()
    score, scores = np.zeros((len(images), snn.spec.classes)), []
    for step in range(time_steps):
        if step < snn.levels:
            climbing &= pixels >= encoder.thresholds[:, step].numpy()
            spikes = climbing.astype(np.float64)
        else:
            spikes = np.zeros(pixels.shape)
        for layer, weight, state in zip(hidden, weights, states, strict=True):
            spikes = state.fire(_convolve(spikes, weight, layer.spec))
        score = score + spikes.reshape(len(images), -1) @ classifier
        scores.append(score)
    return np.stack(scores)


def _columns(layer: SpikingLayer) -> np.ndarray:
    return layer.weight.double().flatten(1).T.contiguous().numpy()


def _convolve(inputs: np.ndarray, weight: np.ndarray, spec: LayerSpec) -> np.ndarray:
    """The sums [N, H', W', O] of inputs [N, H, W, I]: im2col, then one matrix product."""
    pad = (spec.padding, spec.padding)
    padded = np.pad(inputs, ((0, 0), pad, pad, (0, 0)))
    windows = sliding_window_view(padded, spec.kernel, (1, 2))[:, :: spec.stride, :: spec.stride]
    shape = windows.shape[:3]
    return (windows.reshape(-1, weight.shape[0]) @ weight).reshape(*shape, -1)


class _State:
    """The membranes, counts and moving thresholds of one layer, each float64 [N, H, W, C]."""

    def __init__(self, layer: SpikingLayer, samples: int) -> None:
        channels, height, width = layer.spec.out_shape
        table = layer.thresholds.double().numpy()
        ends = np.full((channels, 1), np.inf)
        # θ_0 is never undercut and the one behind the last is never reached.
        self.table = np.concatenate([-ends, table, ends], 1)
        self.membrane = np.zeros((samples, height, width, channels))
        self.count = np.zeros(self.membrane.shape, dtype=np.int64)
        self.lower = np.broadcast_to(self.table[:, 0], self.membrane.shape).copy()
        self.upper = np.broadcast_to(self.table[:, 1], self.membrane.shape).copy()

    def fire(self, sums: np.ndarray) -> np.ndarray:
        """Add the sums to the membranes and return the spikes −1, 0, +1; thresholds move where one was sent."""
        self.membrane += sums
        spikes = (self.membrane >= self.upper).astype(np.float64)
        spikes -= self.membrane < self.lower
        moved = np.nonzero(spikes)
        self.count[moved] += spikes[moved].astype(np.int64)
        channel, count = moved[3], self.count[moved]
        self.lower[moved], self.upper[moved] = self.table[channel, count], self.table[channel, count + 1]
        return spikes
