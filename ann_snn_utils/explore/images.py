"""Images for a network whose data set is not here, and pictures that somebody drew or took from a file."""

from __future__ import annotations

import html

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..ann.network import ANN
from ..ann.reference import predict
from ..data.dataset import Dataset, load_dataset
from ..data.scikit_learn import read_photographs

# Side of the box, within 28 pixels, that the digits of MNIST fill.
_DIGIT = 20 / 28

# Crops of each photograph that stands in for a set of colour images.
_CROPS = 24


def stand_ins(ann: ANN, missing: OSError) -> tuple[Dataset, str]:
    """What stands in for a data set that is not here, and a note that says so.

    Scikit-learn's digits for a network of ten classes of grey images, in the proportions of MNIST; crops of its
    photographs otherwise, whose label, as they have no class, is the quantized network's own answer.
    """
    (channels, height, width), classes = ann.spec.in_shape, ann.metadata.get("data", {}).get("classes")
    names = tuple(classes or map(str, range(ann.spec.classes)))
    source = ann.metadata.get("source", {}).get("name", "the data set")
    if channels == 1 and ann.spec.classes == 10 and source in ("digits", "mnist"):
        digits = load_dataset("digits", size=(round(_DIGIT * height), round(_DIGIT * width)))
        rest = [side - part for side, part in zip((height, width), digits.in_shape[1:], strict=True)]
        sides = (rest[1] // 2, rest[1] - rest[1] // 2, rest[0] // 2, rest[0] - rest[0] // 2)
        images, labels = F.pad(digits.images, sides), digits.labels
        name = kind = "scikit-learn's digits"
    else:
        images = _photographs(channels, height, width)
        labels, name = predict(ann, images), "scikit-learn's photographs"
        kind = f"{name}, which have no class: right is what the quantized network says"
    shown = Dataset(f"{name} in place of {source}", "test", images, labels, names)
    how = html.escape(str(missing), quote=False)
    told = f"These are {html.escape(kind, quote=False)}, in place of {html.escape(str(source))}."
    note = f"<details><summary>{told}</summary>{how}</details>"
    return shown.subset(len(shown)), note


def _photographs(channels: int, height: int, width: int) -> Tensor:
    crops = []
    for photograph in read_photographs():
        picture = torch.tensor(photograph).permute(2, 0, 1).float()
        for crop in range(_CROPS):
            # From a third of the picture down to a tenth, along both diagonals.
            side = round(picture.shape[1] * (0.34 - 0.24 * crop / _CROPS))
            along = crop / (_CROPS - 1)
            top = round((picture.shape[1] - side) * (along if crop % 2 else 1 - along))
            left = round((picture.shape[2] - side) * along)
            crops.append(_resized(picture[:, top : top + side, left : left + side], height, width))
    images = torch.stack(crops).round().clamp(0, 255).byte()
    return images if channels == 3 else images.float().mean(1, keepdim=True).round().byte()


def own_image(pixels: np.ndarray, in_shape: tuple[int, int, int]) -> Tensor:
    """A picture, uint8 [1 or 3, H, W], as an image of `in_shape`.

    For a network of grey images it is taken for a digit: dark ink on light paper is inverted, and what is written
    is centred by its mass in a box of 20/28 of the image, as the digits of MNIST are. A colour image is the
    largest part of `in_shape`'s proportions in its middle. Raises ValueError for an empty picture.
    """
    channels, height, width = in_shape
    picture = torch.from_numpy(pixels.astype(np.float32))
    if picture.dim() != 3 or picture.shape[0] not in (1, 3) or picture.numel() == 0:
        raise ValueError(f"a picture has shape {list(picture.shape)}: give [1 or 3, height, width]")
    image = _middle(picture, height, width) if channels == 3 else _digit(picture.mean(0), height, width)
    return image.round().clamp(0, 255).byte()


def _middle(picture: Tensor, height: int, width: int) -> Tensor:
    tall, wide = picture.shape[1:]
    scale = min(tall / height, wide / width)
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (tall - rows) // 2, (wide - columns) // 2
    part = picture[:, top : top + rows, left : left + columns].expand(3, -1, -1)
    return _resized(part, height, width)


def _digit(grey: Tensor, height: int, width: int) -> Tensor:
    border = torch.cat([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = float(border.median())
    # Ink is what differs from the paper, which a photograph never has quite even.
    ink = (grey - paper if paper < 128 else paper - grey).clamp(min=0)
    ink = torch.where(ink > 0.25 * ink.max(), ink, 0)
    if float(ink.max()) < 16:
        raise ValueError("the picture is empty: draw something, or take one with more contrast")
    ink = 255 * ink / ink.max()
    inked = [ink.amax(axis).nonzero().flatten().tolist() for axis in (1, 0)]
    written = ink[inked[0][0] : inked[0][-1] + 1, inked[1][0] : inked[1][-1] + 1]
    scale = min(_DIGIT * height / written.shape[0], _DIGIT * width / written.shape[1])
    size = [max(1, round(side * scale)) for side in written.shape]
    small = _resized(written[None], *size)[0]
    image = torch.zeros(height, width)
    mass = small / small.sum()
    top, left = (
        max(0, min(side - len(part), round((side - 1) / 2 - float((part * torch.arange(len(part))).sum()))))
        for side, part in ((height, mass.sum(1)), (width, mass.sum(0)))
    )
    image[top : top + size[0], left : left + size[1]] = small
    return image[None]


def _resized(picture: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(picture[None], size=(height, width), mode="bilinear", antialias=True)[0]
