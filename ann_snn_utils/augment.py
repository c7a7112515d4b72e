"""Augmentation of uint8 batches where they lie, on any device: shifts, crops and mirror images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Largest shift in pixels for each side of 28, and whether an image may be mirrored.
RECIPES = {"none": (0, False), "shift": (2, False), "shift-flip": (4, True)}


def augment(images: Tensor, recipe: str, generator: torch.Generator) -> Tensor:
    """Give uint8 images [N, C, H, W], each shifted by its own offset (zeros move in), mirrored at one half.

    recipe: "none", "shift" (up to 2 pixels), "shift-flip" (up to 4, with mirror images). generator: on the
    CPU, so that a seed draws the same augmentation on every device.
    """
    shift, flip = RECIPES[recipe]
    if shift:
        samples, _, height, width = images.shape
        offsets = torch.randint(0, 2 * shift + 1, (2, samples), generator=generator).to(images.device)
        rows = offsets[0, :, None] + torch.arange(height, device=images.device)
        columns = offsets[1, :, None] + torch.arange(width, device=images.device)
        padded = F.pad(images, (shift, shift, shift, shift))
        each = torch.arange(samples, device=images.device)[:, None, None]
        # Indices around the channel slice put the channels last; the convolutions like them there.
        images = padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if flip:
        mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images
