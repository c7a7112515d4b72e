"""From a torch model of anyone's making to an integer spiking network, in one call."""

from __future__ import annotations

from torch import Tensor, nn

from ..ann.calibrate import quantize
from ..ann.network import ANN
from .conversion import convert, levels_for
from .network import SNN


def convert_module(
    model: nn.Module,
    example_images: Tensor,
    levels: int = 15,
    weights: str = "int8",
    percentile: float | None = None,
) -> tuple[ANN, SNN]:
    """The quantized network of a trained torch model, and the spiking network that settles on exactly its codes.

    example_images: uint8 [N, C, H, W], some hundred of the training set. All arguments, and what is refused with
    ValueError, are as of `ann.calibrate.quantize`. To train the quantized network on, call `quantize`, train, and
    `convert`. `check_equivalence(ann, snn, images)` proves that both agree.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10))
    >>> ann, snn = convert_module(model, torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    >>> snn.integer
    True
    """
    ann = quantize(model, example_images, levels, weights, percentile)
    return ann, convert(ann, max_levels=levels_for(ann, example_images))
