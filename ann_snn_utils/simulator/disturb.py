"""Disturbances of a run: noise on the pixels, spikes that are lost or flipped on their way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..checks import check, seeded_generator


def noisy(images: Tensor, noise_ratio: float, seed: int) -> Tensor:
    """uint8 images with pixel · (1 + (u − 1/2) · noise_ratio), u uniform in [0, 1), rounded and clipped.

    Source: the published code's input noise, rounded here so that pixels stay integers.
    """
    if noise_ratio == 0:
        return images
    u = torch.rand(images.shape, generator=seeded_generator(seed), dtype=torch.float32, device="cpu")
    return (images * (1 + (u - 0.5) * noise_ratio)).round_().clamp_(0, 255).to(torch.uint8)


def uniform(seed: int, sample: Tensor, layer: int, step: Tensor, neuron: Tensor) -> Tensor:
    """Numbers in [0, 1), float64, each of which depends on nothing but its own arguments.

    So a fault strikes the same spikes whatever the batch, the order of work or the backend. neuron: counted
    channels last. Source of the mixing: splitmix64, G. Steele, D. Lea and C. Flood, OOPSLA 2014.
    """
    word = np.full(len(sample), check("seed", seed) % 2**64, np.uint64)
    for part in (sample, torch.full_like(sample, layer), step, neuron):
        word = (word ^ part.cpu().numpy().astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        word = (word ^ word >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ word >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        word ^= word >> np.uint64(31)
    return torch.from_numpy((word >> np.uint64(11)) * 2.0**-53)


def faulty(
    spikes: Tensor, fault: str, rate: float, seed: int, samples: Tensor, layer: int, first_step: int
) -> Tensor:
    """Spikes [T, N, C, P] of a layer as the next one receives them: each deleted, or flipped, at `rate`."""
    # Spikes are rare: only they draw a number.
    step, row, channel, position = spikes.nonzero(as_tuple=True)
    neuron = position * spikes.shape[2] + channel
    hit = uniform(seed, samples[row], layer, step + first_step, neuron).to(row.device) < rate
    received = spikes.clone()
    at = tuple(index[hit] for index in (step, row, channel, position))
    received[at] = 0 if fault == "delete" else -spikes[at]
    return received
