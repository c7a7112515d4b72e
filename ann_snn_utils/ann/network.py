"""The whole network: every layer is convolution → batch norm → (quantized) ReLU, and a linear classifier follows.

The first layer encodes the image. In a quantized network the weights that a layer computes with are integers: −1,
0, +1 or int8, and its activations are multiples of 2^-k. N images of C channels, H rows and W columns go through.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .notation import NETWORKS, LayerSpec, NetworkSpec, Shape, check_counts, checked_spec
from .quantize import Int8, QuantReLU, Ternary, int8_scale

LARGEST_PIXEL = 255

_COMPILES = find_spec("numba") is not None


class Layer(nn.Module):
    """Convolution without bias → batch norm → (quantized) ReLU. `conv.weight` is what it computes with."""

    def __init__(self, spec: LayerSpec, activation: QuantReLU | nn.ReLU, parametrization: nn.Module | None) -> None:
        super().__init__()
        inputs, outputs = spec.in_shape[0], spec.out_shape[0]
        self.spec = spec
        self.conv = nn.Conv2d(inputs, outputs, spec.kernel, spec.stride, spec.padding, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)
        if parametrization is not None:
            parametrize.register_parametrization(self.conv, "weight", parametrization)
        self.norm = nn.BatchNorm2d(outputs)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Activations [N, out_shape] of inputs [N, in_shape]."""
        if not (self.training and x.device.type == "cpu"):
            return self.activation(self.norm(self.conv(x)))
        z = convolve(x, self.conv.weight, self.spec)
        if z.dtype == torch.float64 or not _COMPILES:
            return self.activation(self.norm(z))
        # Imported here, as it needs numba.
        from .fused import norm_act

        if isinstance(self.activation, QuantReLU):
            return norm_act(z, self.norm, 2**self.activation.k, self.activation.clip)
        return norm_act(z, self.norm, 0, None)


def convolve(x: Tensor, weight: Tensor, spec: LayerSpec) -> Tensor:
    """The convolution of x [N, C, H, W] with weight [O, C, *kernel] as the layer's spec says, [N, O, H', W'].

    Where each input meets one kernel position only (P2, fully connected layers) it is a single matrix product,
    which takes a third to a tenth of the time of a strided convolution's gradients on the CPU.
    """
    apart = spec.kernel == (spec.stride, spec.stride) or spec.out_shape[1:] == (1, 1)
    if spec.padding or not apart:
        return F.conv2d(x, weight, None, spec.stride, spec.padding)
    rows, columns = spec.kernel
    channels, height, width = spec.out_shape
    pixels = x.permute(0, 2, 3, 1).reshape(len(x), height, rows, width, columns, -1)
    blocks = pixels.transpose(2, 3).flatten(0, 2).flatten(1)  # [N · H' · W', kernel · C]
    product = F.linear(blocks, weight.permute(0, 2, 3, 1).flatten(1))
    return product.view(len(x), height, width, channels).permute(0, 3, 1, 2)


class Classifier(nn.Linear):
    """Linear read-out without bias over the flattened (C, H, W) map; int8 weights share one `scale`."""

    def __init__(self, inputs: int, classes: int, quantized: bool) -> None:
        super().__init__(inputs, classes, bias=False)
        if quantized:
            parametrize.register_parametrization(self, "weight", Int8(per_channel=False))

    @property
    def scale(self) -> Tensor | float:
        """The step of the int8 weights; 1.0 where the weights are full precision."""
        return int8_scale(raw_weight(self), per_channel=False) if parametrize.is_parametrized(self) else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of activations [N, C, H, W]."""
        # Scaling the integer sums, not the weights, leaves equal sums equal: argmax ties stay ties.
        return F.linear(x.flatten(1), self.weight) * self.scale


class ANN(nn.Module):
    """The network of `build_ann`: `layers` (encoder first) and `classifier`; `spec` says how it was built."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.metadata: dict[str, Any] = {}
        geometry = spec.layers
        layers = nn.Sequential(*(self._layer(index, layer) for index, layer in enumerate(geometry)))
        self.layers = cast(Sequence[Layer], layers)
        channels, height, width = geometry[-1].out_shape
        quantized = spec.quantized and spec.int8_ends
        self.classifier = Classifier(channels * height * width, spec.classes, quantized)

    def _layer(self, index: int, geometry: LayerSpec) -> Layer:
        spec = self.spec
        if not spec.quantized:
            return Layer(geometry, nn.ReLU(inplace=True), None)
        if index == 0:
            return Layer(geometry, QuantReLU(0, spec.levels), Int8() if spec.int8_ends else None)
        hidden = Ternary() if spec.ternary else Int8() if spec.int8_ends else None
        return Layer(geometry, QuantReLU(spec.k, spec.clip), hidden)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, C, H, W]: uint8, or floating point in 0 … 1."""
        x = self.scaled(images)
        for layer in self.layers:
            x = layer(x)  # [N, *layer.spec.out_shape]
        return self.classifier(x)

    def scaled(self, images: Tensor) -> Tensor:
        """uint8 images as fractions of 255 in the network's dtype; floating point as it is."""
        if images.dtype != torch.uint8:
            return images
        return images.to(self.layers[0].norm.weight.dtype) / LARGEST_PIXEL


def build_ann(
    network: str,
    in_shape: Shape,
    classes: int,
    k: int = 0,
    ternary: bool = True,
    quantized: bool = True,
    levels: int = 4,
    clip: int | None = None,
    padding: str | None = None,
    int8_ends: bool = True,
) -> ANN:
    """The network that a notation (or the name "lenet", "vgg") describes, freshly initialised.

    in_shape    (C, H, W) of the images
    k           hidden activations are multiples of 2^-k
    ternary     hidden weights are −1, 0, +1; otherwise int8 where `int8_ends`, else full precision (as published)
    quantized   False gives the full-precision network of the same shape, with plain ReLUs
    levels      largest activation of the encoding layer
    clip        largest hidden activation, None for no limit
    padding     of convolutions, "valid" or "same"; None takes the named network's own, else "valid"
    int8_ends   int8 encoder and classifier

    Raises ValueError that names the argument, or points at the token of the notation, that is wrong.

    >>> ann = build_ann("4C3-P2-16", (1, 8, 8), classes=10, k=1)
    >>> [layer.spec.out_shape for layer in ann.layers]
    [(4, 6, 6), (4, 3, 3), (16, 1, 1)]
    >>> ann.layers[1].conv.weight.int().unique().tolist()
    [-1, 0, 1]
    """
    notation, own_padding = NETWORKS.get(str(network), (network, "valid"))
    spec = NetworkSpec(
        notation, in_shape, classes, k, ternary, quantized, levels, clip, padding or own_padding, int8_ends
    )
    spec = checked_spec(spec)
    if spec.quantized and spec.clip is not None:
        check_counts(spec, spec.clip * 2**spec.k)
    return ANN(spec)


def raw_weight(module: nn.Conv2d | nn.Linear) -> nn.Parameter:
    """The trainable weight of a convolution or classifier, before any quantization."""
    if not parametrize.is_parametrized(module):
        return cast(nn.Parameter, module.weight)
    parametrizations: Any = module.parametrizations
    return parametrizations.weight.original


@torch.no_grad()
def copy_weights(source: ANN, target: ANN) -> ANN:
    """`target`, with the weights and batch norms of `source`, a network of the same shape.

    Raises ValueError where the two networks differ in shape.
    """
    if source.spec.layers != target.spec.layers or source.spec.classes != target.spec.classes:
        raise ValueError(f"cannot copy weights of {source.spec.network} into {target.spec.network}: shapes differ")
    for old, new in zip(source.layers, target.layers, strict=True):
        raw_weight(new.conv).copy_(raw_weight(old.conv))
        new.norm.load_state_dict(old.norm.state_dict())
    raw_weight(target.classifier).copy_(raw_weight(source.classifier))
    return target
