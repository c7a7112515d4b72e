"""First weights from which a network learns in fewer epochs than from random ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check
from .network import ANN, Layer, raw_weight
from .notation import LARGEST_PIXEL

_IMAGES = 5000


@torch.no_grad()
def initialise(ann: ANN, how: str, images: Tensor) -> None:
    """Set the first weights of `ann`; random ones, as `build_ann` draws them, stay where nothing else is said.

    how      "random" leaves all as it is. "dirac": a convolution that has at least as many outputs as inputs
             passes its inputs on in its first outputs, and P2 averages. "whitened": the first layer's filters
             are ± the main axes of the images' patches as well, as many as it has, which its batch norm scales.
    images   uint8 [N, C, H, W] of the training set; patches are taken from the first 5,000.

    Source: cifar10-airbench (K. Jordan, 2024). Raises ValueError for another `how`.
    """
    check("initialisation", how)
    if how == "random":
        return
    for layer in ann.layers:
        if isinstance(layer, Layer):
            _pass_on(layer)
    if how == "whitened":
        conv = ann.layers[0].conv
        # The filters of a group see its channels only.
        parts = images[:_IMAGES].chunk(conv.groups, 1)
        for weight, seen in zip(raw_weight(conv).chunk(conv.groups), parts, strict=True):
            axes = _patch_axes(seen, conv)
            filters = torch.stack([axes, -axes], 1).flatten(0, 1)[: len(weight)]
            weight[: len(filters)] = filters.view(-1, *weight.shape[1:]).to(weight)


def _pass_on(layer: Layer) -> None:
    weight, spec = raw_weight(layer.conv), layer.spec
    outputs, inputs, height, width = weight.shape
    if spec.kernel == (spec.stride, spec.stride) and outputs == inputs and spec.stride > 1:
        weight.copy_(torch.eye(outputs)[:, :, None, None].expand_as(weight) / (height * width))
    elif outputs >= inputs and spec.padding == height // 2 and height % 2 and layer.conv.groups == 1:
        nn.init.dirac_(weight[:inputs])


def _patch_axes(images: Tensor, conv: nn.Conv2d) -> Tensor:
    """Principal axes of the patches that a convolution sees, the one of most variance first.

    Returns float64 [C · kh · kw, C · kh · kw], rows of unit length.
    """
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    for batch in images.split(250):
        patches = F.unfold(batch.double() / LARGEST_PIXEL, conv.kernel_size, conv.dilation, stride=conv.stride)
        patches = patches.transpose(1, 2).flatten(0, 1)
        count, total = count + len(patches), total + patches.sum(0)
        products = products + patches.T @ patches
    mean = total / count
    _, vectors = torch.linalg.eigh(products / count - mean[:, None] * mean)
    return vectors.T.flip(0)
