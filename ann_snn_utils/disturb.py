"""Disturbances of a run: noise on the pixels, spikes that are lost or flipped on their way."""

from __future__ import annotations

import torch
from torch import Tensor

FAULTS = ("delete", "flip")


def noisy(images: Tensor, noise_ratio: float, seed: int) -> Tensor:
    """Give uint8 images with pixel · (1 + (u − 1/2) · noise_ratio), u uniform in [0, 1), rounded and clipped.

    Source: the published code's input noise, rounded here so that pixels stay integers.
    """
    if noise_ratio == 0:
        return images
    u = torch.rand(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images * (1 + (u - 0.5) * noise_ratio)).round_().clamp_(0, 255).to(torch.uint8)


def faulty(spikes: Tensor, fault: str, rate: float, seed: int, samples: Tensor, key: int) -> Tensor:
    """Give the spikes [T, N, C, H, W] as they arrive: each one deleted, or its sign flipped, at `rate`.

    Every sample draws from its own stream, of (seed, sample, key), so a batch does not change its faults.
    """
    # Spikes are rare: only they draw a number.
    arrived = spikes.transpose(0, 1).flatten(1)
    for row, sample in enumerate(samples.tolist()):
        stream = (seed * 1_000_003 + sample) * 1_000_003 + key
        generator = torch.Generator().manual_seed(stream % 2**63)
        sent = arrived[row].nonzero().flatten()
        hit = sent[torch.rand(len(sent), generator=generator) < rate]
        arrived[row, hit] *= 0 if fault == "delete" else -1
    return arrived.unflatten(1, (len(spikes), *spikes.shape[2:])).transpose(0, 1).contiguous()
