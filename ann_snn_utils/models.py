"""Networks: every layer is convolution → batch norm → (quantized) ReLU; a linear classifier follows.

The first layer encodes the image. In a quantized network the weights a layer computes with are integers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .artifacts import load_tensors, save_tensors
from .convolution import convolve
from .notation import NETWORKS, LayerSpec, Shape
from .quantize import Int8, QuantReLU, Ternary, int8_scale
from .spec import NetworkSpec, checked_spec, spec_of

LARGEST_PIXEL = 255
_COMPILES = find_spec("numba") is not None


class Layer(nn.Module):
    """Convolution without bias → batch norm → (quantized) ReLU. `conv.weight` is what it computes with."""

    def __init__(self, spec: LayerSpec, activation: nn.Module, parametrization: nn.Module | None) -> None:
        super().__init__()
        self.spec = spec
        self.conv = nn.Conv2d(
            spec.in_shape[0], spec.out_shape[0], spec.kernel, spec.stride, spec.padding, bias=False
        )
        nn.init.kaiming_normal_(self.conv.weight)
        if parametrization is not None:
            parametrize.register_parametrization(self.conv, "weight", parametrization)
        self.norm = nn.BatchNorm2d(spec.out_shape[0])
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and x.device.type == "cpu"):
            return self.activation(self.norm(self.conv(x)))
        z = convolve(x, self.conv.weight, self.spec)
        if z.dtype == torch.float64 or not _COMPILES:
            return self.activation(self.norm(z))
        # Imported here, as it needs numba.
        from .norm_act import norm_act

        quantized = isinstance(self.activation, QuantReLU)
        n, clip = (2**self.activation.k, self.activation.clip) if quantized else (0, None)
        return norm_act(z, self.norm, n, clip)


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
        # Scaling the integer sums, not the weights, leaves equal sums equal: argmax ties stay ties.
        return F.linear(x.flatten(1), self.weight) * self.scale


class ANN(nn.Module):
    """The network of `build_ann`: `layers` (encoder first) and `classifier`; `spec` says how it was built."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.metadata: dict = {}
        geometry = spec.layers
        self.layers = nn.Sequential(*(self._layer(i, layer) for i, layer in enumerate(geometry)))
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
        """Give logits [N, classes] for images [N, C, H, W]: uint8, or floating point in 0 … 1."""
        return self.classifier(self.layers(self.scaled(images)))

    def scaled(self, images: Tensor) -> Tensor:
        """Give uint8 images as fractions of 255 in the network's dtype; leave floating point as it is."""
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
    """Give the network that a notation (or the name "lenet", "vgg") describes, freshly initialised.

    in_shape: (C, H, W) of the images. k: activations are multiples of 2^-k. ternary: hidden weights are
    −1/0/+1, otherwise int8 where `int8_ends`, else full precision (as published). quantized=False gives the
    full-precision network of the same shape, with plain ReLUs. levels: largest activation of the encoding
    layer. clip: largest hidden activation, None for no limit. padding: "valid" or "same" for convolutions;
    None takes the named network's own, else "valid". int8_ends: int8 encoder and classifier.
    Raises ValueError that names the argument, or points at the token of the notation, that is wrong.
    """
    notation, default_padding = NETWORKS.get(str(network), (network, "valid"))
    padding = padding or default_padding
    return ANN(checked_spec(notation, in_shape, classes, k, ternary, quantized, levels, clip, padding, int8_ends))


def raw_weight(module: nn.Module) -> Tensor:
    """Give the trainable weight of a convolution or classifier, before any quantization."""
    return module.parametrizations.weight.original if parametrize.is_parametrized(module) else module.weight


@torch.no_grad()
def copy_weights(source: ANN, target: ANN) -> ANN:
    """Give `target` the weights and batch norms of `source`, a network of the same shape; returns target.

    Raises ValueError where the two networks differ in shape.
    """
    if source.spec.layers != target.spec.layers or source.spec.classes != target.spec.classes:
        raise ValueError(
            f"cannot copy weights of {source.spec.network} into {target.spec.network}: shapes differ"
        )
    for old, new in zip(source.layers, target.layers, strict=True):
        raw_weight(new.conv).copy_(raw_weight(old.conv))
        new.norm.load_state_dict(old.norm.state_dict())
    raw_weight(target.classifier).copy_(raw_weight(source.classifier))
    return target


def in_float64(ann: ANN) -> ANN:
    """Give a copy on the CPU, in evaluation mode and float64: the reference for every claim."""
    return copy.deepcopy(ann).cpu().double().eval()


@torch.no_grad()
def reference_maps(reference: ANN, images: Tensor) -> Iterator[Tensor]:
    """Give each layer's activations in turn, float64 [N, C, H, W]; reference: quantized, of `in_float64`."""
    x, unit = reference.scaled(images), 0
    for layer in reference.layers:
        x = layer.activation(layer.norm(_sums(layer.conv, x, unit)))
        yield x
        unit = 2**layer.activation.k


def _sums(conv: nn.Conv2d, x: Tensor, unit: int) -> Tensor:
    # Sums of integers below 2^24 are exact in float32 too, and several times faster there.
    weight = conv.weight
    if unit and torch.equal(weight, weight.round()):
        counts = x * unit
        if float(weight.abs().sum((1, 2, 3)).max() * counts.max()) < 2**24:
            sums = F.conv2d(counts.float(), weight.float(), None, conv.stride, conv.padding)
            return sums.double() / unit
    return conv(x)


@torch.no_grad()
def codes(ann: ANN, images: Tensor, batch_size: int = 250) -> tuple[list[Tensor], Tensor]:
    """Give the integer code of every activation, evaluated in float64, and the logits.

    Codes are int64 [N, C, H, W], one tensor per layer, encoder first: the activation in units of 2^-k (of 1
    for the encoder). Logits are float64 [N, classes]. Raises ValueError for a network that is not quantized.
    """
    if not ann.spec.quantized:
        raise ValueError("codes: a full-precision network has no integer codes; build it with quantized=True")
    reference = in_float64(ann)
    batches: list[list[Tensor]] = []
    for batch in images.cpu().split(batch_size):
        outputs = []
        for layer, x in zip(reference.layers, reference_maps(reference, batch), strict=True):
            outputs.append((x * 2**layer.activation.k).round().long())
        batches.append([*outputs, reference.classifier(x)])
    *layers, logits = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return layers, logits


def _shown(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"


def save_ann(ann: ANN, path: str | Path, **metadata: object) -> None:
    """Write the network to a safetensors file, with its spec and `metadata` (JSON values) inside."""
    save_tensors(path, ann.state_dict(), {"spec": ann.spec.to_dict(), **metadata})


def load_ann(path: str | Path) -> ANN:
    """Read the network that `save_ann` wrote; `.metadata` holds what was saved beside it.

    Raises FileNotFoundError or ValueError that names the file and what is wrong with it.
    """
    tensors, metadata = load_tensors(path)
    spec = spec_of(path, metadata)
    # Shapes are compared first: no memory is taken for a network that the file only names.
    with torch.device("meta"):
        needed = ANN(spec).state_dict()
    for name in sorted(set(needed) | set(tensors)):
        there, wanted = tensors.get(name), needed.get(name)
        if there is None or wanted is None or there.shape != wanted.shape or there.dtype != wanted.dtype:
            raise ValueError(
                f"{path} does not fit the network it names: {name} is {_shown(there)}, and {spec.network:.80} "
                f"needs {_shown(wanted)}; make it again"
            )
        if not torch.isfinite(there).all():
            raise ValueError(f"{path}: {name} holds a value that is not finite; train the network again")
    ann = ANN(spec)
    ann.load_state_dict(tensors)
    ann.metadata = {key: value for key, value in metadata.items() if key != "spec"}
    return ann
