"""Augmentation of uint8 batches where they lie, on any device: shifts, crops and mirror images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Largest shift in pixels for each side of 28, and whether an image may be mirrored.
RECIPES = {"none": (0, False), "shift": (2, False), "shift-flip": (4, True)}


def augment(images: Tensor, recipe: str, generator: torch.Generator, size: tuple[int, int] | None = None) -> Tensor:
    """Give uint8 images [N, C, H, W], each at its own random place, mirrored at one half where the recipe does.

    recipe: "none", "shift" (up to 2 pixels, zeros move in), "shift-flip" (up to 4, with mirror images).
    generator: on the CPU, so that a seed draws the same augmentation on every device. size: (height, width) to
    give; where the images are larger, each is cropped at random instead of shifted.
    """
    shift, flip = RECIPES[recipe]
    height, width = size or images.shape[2:]
    if (height, width) != images.shape[2:]:
        shift = 0
    elif shift:
        images = F.pad(images, (shift, shift, shift, shift))
    if (height, width) != images.shape[2:]:
        images = _windows(images, height, width, generator)
    if flip:
        mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return images


def _windows(images: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    tops, lefts = (
        torch.randint(0, whole - side + 1, (len(images),), generator=generator).to(images.device)
        for whole, side in zip(images.shape[2:], (height, width), strict=True)
    )
    rows = tops[:, None] + torch.arange(height, device=images.device)
    columns = lefts[:, None] + torch.arange(width, device=images.device)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    # Indices around the channel slice put the channels last; the convolutions like them there.
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
