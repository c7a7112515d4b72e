"""Augmentation of uint8 batches where they lie, on any device: shifts, crops, mirror images and cut-outs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """What happens to an image each time that it is shown.

    shift: at most so many pixels, in both directions. reflect: the image's own pixels move in, mirrored at the
    border, else zeros. flip: "" for no mirror images, "random" for one time in two, "alternating" for one
    random half of the images in odd epochs and the other half in even ones. cutout: whether a random square
    of 3/8 of the height takes the mean colour.
    """

    shift: int = 0
    reflect: bool = False
    flip: str = ""
    cutout: bool = False


AUGMENTATIONS = {
    "none": Augmentation(),
    "shift": Augmentation(2),
    "shift-flip": Augmentation(4, flip="random"),
    "reflect": Augmentation(2, reflect=True),
    "reflect-flip": Augmentation(2, reflect=True, flip="alternating"),
    "reflect-cutout": Augmentation(2, reflect=True, cutout=True),
    "reflect-flip-cutout": Augmentation(2, reflect=True, flip="alternating", cutout=True),
}


def augment(
    images: Tensor,
    how: str,
    generator: torch.Generator,
    size: tuple[int, int] | None = None,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Show uint8 images [N, C, H, W] as one of AUGMENTATIONS does, each at a place of its own.

    generator   on the CPU, so that a seed draws the same augmentation on every device
    size        (height, width) to give; where the images are larger, each is cropped at random, not shifted
    mirrored    bool [N] on the CPU: which ones to mirror where flips alternate; None draws them
    """
    chosen = AUGMENTATIONS[how]
    height, width = size or images.shape[2:]
    whole, shift = (height, width) == images.shape[2:], chosen.shift
    if whole and shift and not chosen.reflect:
        images = F.pad(images, (shift, shift, shift, shift))
    if not whole or shift:
        most = [2 * shift] * 2 if whole else [a - b for a, b in zip(images.shape[2:], (height, width), strict=True)]
        tops, lefts = (torch.randint(0, m + 1, (len(images),), generator=generator) for m in most)
        inwards = shift if whole and chosen.reflect else 0
        images = _windows(images, tops - inwards, lefts - inwards, (height, width))
    if chosen.flip:
        if mirrored is None or chosen.flip == "random":
            mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(3), images)
    return _cut_out(images, generator) if chosen.cutout else images


def _windows(images: Tensor, tops: Tensor, lefts: Tensor, size: tuple[int, int]) -> Tensor:
    rows, columns = (
        _reflected(starts[:, None] + torch.arange(side), whole).to(images.device)
        for starts, side, whole in zip((tops, lefts), size, images.shape[2:], strict=True)
    )
    each = torch.arange(len(images), device=images.device)[:, None, None]
    # Indices around the channel slice put the channels last; the convolutions like them there.
    return images[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _reflected(places: Tensor, side: int) -> Tensor:
    # The border itself is not repeated; an image of less than three pixels is as far out as one can reach.
    return (side - 1 - (side - 1 - places.abs()).abs()).clamp(0, side - 1)


def _cut_out(images: Tensor, generator: torch.Generator) -> Tensor:
    number, _, height, width = images.shape
    side = max(1, 3 * height // 8)
    inside = []
    for whole in (height, width):
        starts = torch.randint(0, max(1, whole - side + 1), (number, 1), generator=generator)
        places = torch.arange(whole) - starts
        inside.append((places >= 0) & (places < side))
    hole = (inside[0][:, None, :, None] & inside[1][:, None, None, :]).to(images.device)
    mean = images.float().mean((2, 3), keepdim=True).round().to(torch.uint8)
    return torch.where(hole, mean, images)
