"""What a traced torch model is made of: terms and layers, and the meaning of its functions and constants."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from .graph import Shape

IMAGE = -1


@dataclass(frozen=True, eq=False)
class Term:
    """scale ⊙ (weight * maps), where the maps are those of the layers `sources`, one behind another in channels.

    weight: real [O, I / groups, kh, kw], or None where the maps are passed on. scale: [O]. The source of the first
    layer is IMAGE, the pixels divided by 255. average: the maps are averaged over windows of so many rows and
    columns first. norm: the batch norm from which scale and shift come, where nothing else does.
    """

    sources: tuple[int, ...]
    weight: Tensor | None
    scale: Tensor
    average: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1
    norm: nn.BatchNorm2d | nn.BatchNorm1d | None = None


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """Neurons: a sum of terms and `shift` [O], clamped to `low` … `high`; or the maximum over windows of a source.

    name: the operation of the model whose value the sum is. step: of the activations, where the model rounds them
    itself. pool: the size, stride, padding and dilation of max pooling's windows.
    """

    name: str
    out_shape: Shape
    terms: tuple[Term, ...]
    shift: Tensor
    low: float = 0.0
    high: float = math.inf
    step: float | None = None
    pool: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """The layers in the order of computation, the classifier behind them with its bias, and the model as traced."""

    in_shape: Shape
    layers: tuple[TracedLayer, ...]
    classifier: Term
    bias: Tensor
    model: fx.GraphModule


@dataclass(frozen=True, eq=False)
class Maps:
    """Values of layers that are closed: scale ⊙ (their maps, one behind another in channels) + shift, [C] each.

    name: the operation that made them. resized: the map that an adaptive pooling makes of them where no window
    does, and a linear layer must follow.
    """

    name: str
    sources: tuple[int, ...]
    shape: Shape
    scale: Tensor
    shift: Tensor
    average: int = 1
    resized: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Sum:
    """Terms that wait for an activation; max poolings that wait with them come after it."""

    name: str
    terms: tuple[Term, ...]
    shift: Tensor
    shape: Shape
    pools: tuple[tuple[int, int, int, int], ...] = ()


def plain_maps(name: str, sources: tuple[int, ...], shape: Shape) -> Maps:
    channels = shape[0]
    return Maps(
        name, sources, shape, torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    )


def passed(maps: Maps) -> Sum:
    """The maps as a sum that an activation may close."""
    return Sum(maps.name, (Term(maps.sources, None, maps.scale, maps.average),), maps.shift, maps.shape)


def within(maps: Maps, layers: Sequence[TracedLayer], low: float, high: float) -> bool:
    """Whether maps are those of layers as they are, whose values are in low … high."""
    if maps.sources == (IMAGE,) or not bool((maps.scale == 1).all()) or maps.shift.any() or maps.resized:
        return False
    return all(layers[i].low >= low and layers[i].high <= high for i in maps.sources)


def bounds(maps: Maps, layers: Sequence[TracedLayer]) -> tuple[float, float]:
    """The least and the greatest value that maps of layers may have."""
    positive = all(layers[i].low >= 0 for i in maps.sources) and bool((maps.scale >= 0).all())
    return (0.0 if positive else -math.inf), math.inf


def beside(sources: Sequence[int], layers: Sequence[TracedLayer]) -> Shape:
    """(C, H, W) of the maps of layers, one behind another."""
    shapes = [layers[source].out_shape for source in sources]
    return sum(shape[0] for shape in shapes), shapes[0][1], shapes[0][2]


def reads_out(total: Sum, layers: Sequence[TracedLayer]) -> bool:
    """Whether a sum is that of one linear layer over all that a layer holds."""
    term = total.terms[0]
    if len(total.terms) > 1 or total.pools or term.weight is None or IMAGE in term.sources or term.padding:
        return False
    rows, columns = (n // term.average for n in beside(term.sources, layers)[1:])
    return term.weight.shape[2:] == (rows, columns) and term.groups == 1


def padding_of(conv: nn.Conv2d) -> Any:
    """The padding of a convolution in numbers; None where it is not the same on both sides."""
    if not isinstance(conv.padding, str):
        return conv.padding
    around = [
        d * (k - 1) if conv.padding == "same" else 0 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
    ]
    return None if any(total % 2 for total in around) else [total // 2 for total in around]


def before_pooling(weight: Tensor, sides: tuple[int, int]) -> Tensor:
    """Weights [O, C, rows, columns] over an adaptive average of maps, as weights over the maps of these sides."""
    alone = torch.eye(math.prod(sides), dtype=weight.dtype).view(-1, 1, *sides)
    pooled = F.adaptive_avg_pool2d(alone, (weight.shape[2], weight.shape[3])).flatten(1)
    return (weight.flatten(2) @ pooled.T).view(*weight.shape[:2], *sides)


def weighted_term(
    maps: Maps,
    weight: Tensor,
    bias: Tensor | None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[Term, Tensor]:
    """The convolution of maps with weights [O, I / groups, kh, kw], and the shift behind it, [O]."""
    if len(maps.sources) > 1 and groups > 1:
        # Groups need not end where a source does.
        weight, groups = without_groups(weight, groups), 1
    outputs, size = weight.shape[:2]
    # Which input channels each output reads, [O, I / groups].
    inputs = (torch.arange(outputs) // (outputs // groups) * size)[:, None] + torch.arange(size)
    scale, offset = (of[inputs][:, :, None, None] for of in (maps.scale, maps.shift))
    shift = (weight * offset).sum((1, 2, 3)) + (0 if bias is None else bias.detach())
    ones = torch.ones(outputs, dtype=weight.dtype)
    return Term(maps.sources, weight * scale, ones, maps.average, stride, padding, dilation, groups), shift


def factor_and_shift(norm: nn.BatchNorm2d | nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """What a batch norm with running statistics multiplies by and adds, [C] each."""
    assert norm.running_mean is not None and norm.running_var is not None
    factor = (norm.running_var + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight.detach()
    shift = -norm.running_mean * factor
    return factor, shift if norm.bias is None else shift + norm.bias.detach()


def one_a_channel(constant: Tensor, sides: int) -> bool:
    """Whether a constant is one number, or one for each channel, beside a value of so many sides (a map has 2)."""
    # torch lines shapes up from the last axis: [C] beside a map is one number for each column.
    return constant.numel() == 1 or (constant.ndim > sides and constant.shape[-1 - sides] == constant.numel())


def without_groups(weight: Tensor, groups: int) -> Tensor:
    """Weights [O, I / groups, kh, kw] as those of one group, [O, I, kh, kw], with zeros between the groups."""
    outputs, inputs, *kernel = weight.shape
    apart = weight.new_zeros(groups, outputs // groups, groups, inputs, *kernel)
    group = torch.arange(groups)
    apart[group, :, group] = weight.unflatten(0, (groups, -1))
    return apart.flatten(2, 3).flatten(0, 1)


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, **named: Any
) -> nn.Module:
    # The module has its last two arguments the other way round.
    return nn.MaxPool2d(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode, **named)


def _mean(dim: Any = None, keepdim: bool = False, **named: Any) -> nn.Module:
    dims = dim if isinstance(dim, Sequence) else () if dim is None else (dim,)
    if sorted(axis % 4 for axis in dims) != [2, 3]:
        raise ValueError(f"a mean over dim={dim}; one over the whole map, dim=(2, 3), is average pooling")
    return nn.AdaptiveAvgPool2d(1)


def _clamp(min: float | None = None, max: float | None = None) -> nn.Module:
    return nn.Hardtanh(-math.inf if min is None else min, math.inf if max is None else max)


# Functions and methods, as the module that does the same.
AS_MODULE: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), lambda *_, **__: nn.ReLU()),
    **dict.fromkeys((F.dropout, F.dropout2d, "contiguous", "float", "detach"), lambda *_, **__: nn.Identity()),
    **dict.fromkeys((torch.flatten, torch.reshape, torch.squeeze), lambda *_, **__: nn.Flatten()),
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze"), lambda *_, **__: nn.Flatten()),
    **dict.fromkeys((torch.clamp, "clamp", "clamp_"), _clamp),
    **dict.fromkeys((torch.mean, "mean"), _mean),
    F.relu6: lambda *_, **__: nn.ReLU6(),
    F.hardtanh: nn.Hardtanh,
    F.max_pool2d: _max_pool,
    F.avg_pool2d: nn.AvgPool2d,
    F.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
}
ADD = (operator.add, operator.iadd, torch.add, "add", "add_")
CONCATENATE = (torch.cat, torch.concat, torch.concatenate)
# A map and a constant c: factor and shift.
ARITHMETIC: dict[Any, Callable[[Tensor], tuple[Any, Any]]] = {
    **dict.fromkeys(ADD, lambda c: (torch.ones(1), c)),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), lambda c: (torch.ones(1), -c)),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), lambda c: (c, torch.zeros(1))),
    **dict.fromkeys((operator.truediv, torch.div, "div", "div_"), lambda c: (1 / c, torch.zeros(1))),
}

_ROUNDS = "a count of spikes rises in whole steps from 0: train with ReLU or ReLU6"
_OF_THE_IMAGE = "it depends on the image, and no fixed threshold replaces it: train with BatchNorm2d"
INSTEAD = {
    **dict.fromkeys(("softmax", "logsoftmax"), "leave it out: the largest score stays the largest"),
    **dict.fromkeys(("sigmoid", "tanh", "gelu", "silu", "mish", "elu", "selu", "leakyrelu", "prelu"), _ROUNDS),
    **dict.fromkeys(("hardswish", "hardsigmoid", "softplus"), _ROUNDS),
    **dict.fromkeys(("layernorm", "groupnorm", "instancenorm2d", "localresponsenorm"), _OF_THE_IMAGE),
    **dict.fromkeys(("rnn", "lstm", "gru", "rnncell", "lstmcell", "grucell"), "a network must be feed-forward"),
    **dict.fromkeys(("conv1d", "conv3d", "convtranspose2d", "upsample", "interpolate"), "use Conv2d"),
    **dict.fromkeys(
        ("mul", "matmul", "bmm", "multiheadattention", "truediv"), "maps can be added and concatenated only"
    ),
    **dict.fromkeys(
        ("permute", "transpose", "chunk", "split", "getitem"), "a layer reads whole maps: group its convolution"
    ),
    **dict.fromkeys(("adaptivemaxpool2d", "fractionalmaxpool2d", "lppool2d"), "use MaxPool2d"),
}
