"""The whole network: every layer is convolution → batch norm → (quantized) ReLU, and a linear classifier follows.

The first layer encodes the image. In a quantized network the weights that a layer computes with are integers: −1,
0, +1 or int8, and its activations are multiples of 2^-k. N images of C channels, H rows and W columns go through.
Which layers a layer reads, and which take maxima instead, the graph of its spec says (see `graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from math import prod
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..checks import expect
from .graph import Branch, LayerSpec, Shape, input_shape
from .notation import LARGEST_PIXEL, NETWORKS, NetworkSpec, check_counts, checked_spec
from .quantize import INT8_LARGEST, Counts, Int8, QuantReLU, Ternary, Whole, int8_scale, straight_through

# How the weights of so many outputs become integers; None leaves them as they are.
Integers = Callable[[int], nn.Module] | None

_COMPILES = find_spec("numba") is not None


class Part(nn.Module):
    """A branch of a layer: convolution without bias → batch norm. `conv.weight` is what it computes with."""

    def __init__(self, spec: LayerSpec, index: int, integers: Integers) -> None:
        super().__init__()
        self.spec, self.index, branch, outputs = spec, index, spec.branches[index], spec.out_shape[0]
        inputs, kernel = input_shape(branch, spec.sizes[index])[0], branch.kernel
        assert kernel is not None
        geometry = branch.stride, branch.padding, branch.dilation, branch.groups
        self.conv = nn.Conv2d(inputs, outputs, kernel, *geometry, bias=False)
        # Where only shapes are asked for, whatever computes with them loads torch's compiler, for seconds.
        if not self.conv.weight.is_meta:
            nn.init.kaiming_normal_(self.conv.weight)
        if integers is not None:
            # Unsafe says no more than that torch does not try it.
            parametrize.register_parametrization(self.conv, "weight", integers(outputs), unsafe=True)
        self.norm = nn.BatchNorm2d(outputs, eps=spec.eps)

    def forward(self, x: Tensor) -> Tensor:
        """What it adds to its layer, [N, out_shape]."""
        return self.norm(convolve(x, self.conv.weight, self.spec.branches[self.index]))


class Layer(Part):
    """The first branch → (quantized) ReLU. A second one is added before it: `shortcut`, None for the identity."""

    def __init__(self, spec: LayerSpec, activation: nn.Module, integers: Integers) -> None:
        super().__init__(spec, 0, integers)
        self.activation = activation
        self.shortcut: Part | None = None
        if len(spec.branches) > 1 and not spec.branches[1].identity:
            self.shortcut = Part(spec, 1, integers)

    def forward(self, x: Tensor, around: Tensor | None = None) -> Tensor:
        """Activations [N, out_shape] of what its first branch takes, and its second one where there is one."""
        if not (self.training and x.device.type == "cpu"):
            z = self.norm(self.conv(x))
            return self.activation(z if around is None else z + self._added(around))
        z = convolve(x, self.conv.weight, self.spec.branches[0])
        if around is not None:
            return self.activation(self.norm(z) + self._added(around))
        if z.dtype == torch.float64 or not _COMPILES or isinstance(self.activation, Counts):
            return self.activation(self.norm(z))
        # Imported here, as it needs numba.
        from .fused import norm_act

        if isinstance(self.activation, QuantReLU):
            return norm_act(z, self.norm, 2**self.activation.k, self.activation.clip)
        return norm_act(z, self.norm, 0, None)

    @property
    def branch_modules(self) -> list[Part | None]:
        """For each branch what holds its convolution and batch norm; None for the identity."""
        parts: list[Part | None] = [self, self.shortcut]
        return parts[: len(self.spec.branches)]

    def _added(self, around: Tensor) -> Tensor:
        return around if self.shortcut is None else self.shortcut(around)


class MaxPool(nn.Module):
    """Maxima over windows of one layer's activations."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor) -> Tensor:
        """Activations [N, out_shape] of those of its source."""
        return maxima(x, self.spec)


def check_finite(module: nn.Module, called: str) -> None:
    """Refuse a module, the network or model that it is `called`, with a weight or statistic that is not finite."""
    for name, value in module.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"{name} of the {called} holds a value that is not finite: train it again")


def maxima(x: Tensor, spec: LayerSpec) -> Tensor:
    """The maxima of x [N, C, H, W] over the windows of a layer; what lies outside the map is never one."""
    branch = spec.branches[0]
    return F.max_pool2d(x, spec.kernel, branch.stride, branch.padding, branch.dilation)


def averaged(x: Tensor, size: int) -> Tensor:
    """Averages of x [N, C, H, W] over windows of size × size."""
    return x if size == 1 else F.avg_pool2d(x, size)


def taken(branch: Branch, values: Mapping[int, Tensor]) -> Tensor:
    """The input of a branch: the maps of its sources, concatenated channel after channel, then averaged."""
    sources = [values[source] for source in branch.sources]
    return averaged(sources[0] if len(sources) == 1 else torch.cat(sources, 1), branch.average)


def convolve(x: Tensor, weight: Tensor, branch: Branch) -> Tensor:
    """The convolution of x [N, C, H, W] with weight [O, C / groups, *kernel] as the branch says, [N, O, H', W'].

    Where each input meets one kernel position only (P2, fully connected layers) it is a single matrix product,
    which takes a third to a tenth of the time of a strided convolution's gradients on the CPU.
    """
    (rows, columns), stride = weight.shape[2:], branch.stride
    if rows == columns == 1 and not branch.padding:
        # Nothing else is read. Of few channels in channels_last, torch 2.15 has other gradients of it on the CPU,
        # and writes beyond their memory.
        x, stride = x[:, :, ::stride, ::stride], 1
    apart = (rows, columns) in ((stride, stride), tuple(x.shape[2:]))
    if branch.padding or not apart or branch.dilation > 1 or branch.groups > 1:
        return F.conv2d(x, weight, None, stride, branch.padding, branch.dilation, branch.groups)
    height, width = x.shape[2] // rows, x.shape[3] // columns
    pixels = x[:, :, : height * rows, : width * columns].permute(0, 2, 3, 1)
    pixels = pixels.reshape(len(x), height, rows, width, columns, -1)
    blocks = pixels.transpose(2, 3).flatten(0, 2).flatten(1)  # [N · H' · W', kernel · C]
    product = F.linear(blocks, weight.permute(0, 2, 3, 1).flatten(1))
    return product.view(len(x), height, width, len(weight)).permute(0, 3, 1, 2)


class Classifier(nn.Linear):
    """Linear read-out over the flattened (C, H, W) map; integer weights share one `scale`.

    integers: how its weights become integers, as of the layers. bias: whole numbers in units of `scale` · `count`,
    where count is what 1 of its integer input is worth.
    """

    def __init__(
        self, inputs: int, classes: int, integers: type[Int8] | type[Whole] | None, bias: bool, count: float = 1.0
    ) -> None:
        super().__init__(inputs, classes, bias=bias)
        self.count = count
        if bias:
            nn.init.zeros_(self.bias)
        self.unit: Tensor | None
        self.register_buffer("unit", torch.ones(()) if integers is Whole else None)
        if integers is not None:
            whole = Whole() if integers is Whole else Int8(per_channel=False)
            parametrize.register_parametrization(self, "weight", whole, unsafe=True)

    @property
    def scale(self) -> Tensor | float:
        """The step of the integer weights; 1.0 where the weights are full precision."""
        if self.unit is not None:
            return self.unit
        return int8_scale(raw_weight(self), per_channel=False) if parametrize.is_parametrized(self) else 1.0

    @property
    def whole_bias(self) -> Tensor:
        """The bias, as integer scores, [classes]."""
        return straight_through(self.bias, self.bias.detach().round())

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, classes] of activations [N, C, H, W]."""
        # Scaling the integer sums, not the weights, leaves equal sums equal: argmax ties stay ties.
        sums = F.linear(x.flatten(1), self.weight)
        return (sums if self.bias is None else sums + self.whole_bias * self.count) * self.scale


class ANN(nn.Module):
    """The network of `build_ann`: `layers` (encoder first) and `classifier`; `spec` says how it was built."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.metadata: dict[str, Any] = {}
        graph = spec.graph
        layers = nn.Sequential(*(self._layer(index, layer) for index, layer in enumerate(graph.layers)))
        self.layers = cast(Sequence[Layer], layers)
        integers = (Whole if spec.is_graph else Int8) if spec.quantized and spec.int8_ends else None
        count = spec.step(len(graph.layers) - 1) / graph.read_out.average**2
        self.classifier = Classifier(prod(graph.inputs), spec.classes, integers, graph.read_out.bias, count)

    def _layer(self, index: int, geometry: LayerSpec) -> Layer | MaxPool:
        spec = self.spec
        if geometry.kind == "maximum":
            return MaxPool(geometry)
        if not spec.quantized:
            return Layer(geometry, nn.ReLU(inplace=True), None)
        if geometry.step is None and geometry.lowest == 0 and geometry.highest is None:
            activation: nn.Module = QuantReLU(*((spec.k, spec.clip) if index else (0, spec.levels)))
        else:
            activation = Counts(spec.step(index), *spec.counts(index))
        ternary = spec.ternary and index > 0
        if spec.is_graph:
            return Layer(geometry, activation, partial(Whole, largest=1 if ternary else INT8_LARGEST))
        if not ternary:
            return Layer(geometry, activation, (lambda _: Int8()) if spec.int8_ends else None)
        return Layer(geometry, activation, lambda _: Ternary())

    @property
    def parts(self) -> list[Part]:
        """Everything that has a convolution and a batch norm, in order; a shortcut comes behind its layer."""
        return [part for part in self.modules() if isinstance(part, Part)]

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, classes] of images [N, C, H, W]: uint8, or floating point in 0 … 1."""
        graph, values = self.spec.graph, {-1: self.scaled(images)}
        for index, layer in enumerate(self.layers):
            # [N, *layer.spec.out_shape]
            values[index] = layer(*(taken(branch, values) for branch in layer.spec.branches))
            for source in graph.last_read[index]:
                del values[source]
        return self.classifier(averaged(values[index], graph.read_out.average))

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
    """The network that a text describes, freshly initialised.

    network     in notation, a name such as "lenet" or "resnet20", or the text of `graph_text`
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
    text, own = NETWORKS.get(str(network), (network, "valid"))
    given = NetworkSpec(text, in_shape, classes, k, ternary, quantized, levels, clip, padding or own, int8_ends)
    spec = checked_spec(given)
    if spec.quantized:
        check_counts(spec)
    return ANN(spec)


def raw_weight(module: nn.Conv2d | nn.Linear) -> nn.Parameter:
    """The trainable weight of a convolution or classifier, before any quantization."""
    if not parametrize.is_parametrized(module):
        return cast(nn.Parameter, module.weight)
    parametrizations: Any = module.parametrizations
    return parametrizations.weight.original


@torch.no_grad()
def set_unit(module: nn.Conv2d | Classifier, unit: Tensor) -> None:
    """Make a module of a given graph round its weights in a unit: one for each output, [O], or one for all, []."""
    units = [cast(Any, module).parametrizations.weight[0].unit]
    # A file keeps the classifier's in two places.
    units += [module.unit] if isinstance(module, Classifier) else []
    for own in units:
        own.copy_(unit.view_as(own))


def set_lowest(module: nn.Conv2d | Classifier, weight: Tensor) -> None:
    """Let an int8 module of a given graph have −128 where these whole weights of older networks hold it."""
    cast(Any, module).parametrizations.weight[0].lowest.clamp_(max=float(weight.min()))


@torch.no_grad()
def set_affine(norm: nn.BatchNorm2d, scale: Tensor, bias: Tensor) -> None:
    """Make the batch norm of a given graph scale · z + bias for each channel, in evaluation mode."""
    norm.load_state_dict(nn.BatchNorm2d(norm.num_features).state_dict())
    cast(Tensor, norm.running_var).fill_(1 - norm.eps)
    norm.weight.copy_(scale)
    norm.bias.copy_(bias)


@torch.no_grad()
def copy_weights(source: ANN, target: ANN) -> ANN:
    """`target`, with the weights and batch norms of `source`, a network of the same shape.

    Raises ValueError where the two networks differ in shape.
    """
    expect(ANN, source=source, target=target)
    ours, theirs = ((spec.graph, spec.classes, spec.is_graph) for spec in (target.spec, source.spec))
    if ours != theirs:
        raise ValueError(f"cannot copy weights of {source.spec.title} into {target.spec.title}: shapes differ")
    if source.spec.is_graph:
        # Its weights are integers in units that belong to them; no full-precision network shares its graph.
        target.load_state_dict(source.state_dict())
        return target
    for old, new in zip(source.parts, target.parts, strict=True):
        raw_weight(new.conv).copy_(raw_weight(old.conv))
        new.norm.load_state_dict(old.norm.state_dict())
    raw_weight(target.classifier).copy_(raw_weight(source.classifier))
    return target
