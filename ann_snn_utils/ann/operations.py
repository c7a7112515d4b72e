"""What the modules, functions and constants of torch mean for layers of whole numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .graph import windows
from .traced import Norm, Window


def geometry_of(conv: nn.Conv2d) -> tuple[int, int, int]:
    """Stride, padding and dilation of a convolution; ValueError where its sides differ in them."""
    padding: Any = 0 if conv.padding == "valid" else conv.padding
    if padding == "same":
        around = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        if any(total % 2 for total in around):
            raise ValueError("'same' padding of an even kernel is wider on one side: use an odd kernel")
        padding = [total // 2 for total in around]
    return _one("stride", conv.stride), _one("padding", padding), _one("dilation", conv.dilation)


def window_of(pooling: nn.MaxPool2d | nn.AvgPool2d, before: Sequence[int], behind: Sequence[int]) -> Window:
    """The windows of a pooling from a map of the sides `before` to one of those `behind`; ValueError for others."""
    window = Window(
        _one("kernel_size", pooling.kernel_size),
        _one("stride", pooling.stride or pooling.kernel_size),
        _one("padding", pooling.padding),
        _one("dilation", getattr(pooling, "dilation", 1)),
    )
    if any(number > windows(side, *window) for side, number in zip(before, behind, strict=True)):
        raise ValueError("ceil_mode=True makes windows that hang over the border: pad, or leave it out")
    return window


def _one(name: str, value: Any) -> int:
    numbers = set(value) if isinstance(value, Sequence) else {value}
    if len(numbers) != 1:
        raise ValueError(f"{name}={tuple(value)} differs between rows and columns: use one number for both")
    return int(numbers.pop())


def before_pooling(weight: Tensor, sides: tuple[int, int]) -> Tensor:
    """Weights [O, C, rows, columns] over an adaptive average of maps, as weights over the maps of these sides."""
    alone = torch.eye(math.prod(sides), dtype=weight.dtype).view(-1, 1, *sides)
    pooled = F.adaptive_avg_pool2d(alone, (weight.shape[2], weight.shape[3])).flatten(1)
    return (weight.flatten(2) @ pooled.T).view(*weight.shape[:2], *sides)


def factor_and_shift(norm: Norm) -> tuple[Tensor, Tensor]:
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


def _clamp(min: Any = None, max: Any = None) -> nn.Module:
    for end in (min, max):
        if not isinstance(end, int | float | None) and not (isinstance(end, Tensor) and end.numel() == 1):
            raise ValueError("an end that is a map, or one for each channel: give one number for all")
    return nn.Hardtanh(-math.inf if min is None else float(min), math.inf if max is None else float(max))


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    if training and p:
        raise ValueError("it drops values in evaluation too: give training=self.training, or use nn.Dropout")
    return nn.Identity()


# What gives a map another shape.
RESHAPE = (torch.flatten, torch.reshape, torch.squeeze, "flatten", "view", "reshape", "squeeze")

# Functions and methods, as the module that does the same.
AS_MODULE: dict[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), lambda *_, **__: nn.ReLU()),
    **dict.fromkeys((F.dropout, F.dropout2d), _dropout),
    **dict.fromkeys(("contiguous", "float", "detach"), lambda *_, **__: nn.Identity()),
    **dict.fromkeys(RESHAPE, lambda *_, **__: nn.Flatten()),
    **dict.fromkeys((torch.clamp, torch.clip, "clamp", "clamp_", "clip", "clip_"), _clamp),
    **dict.fromkeys((torch.clamp_min, torch.clamp_min_, "clamp_min", "clamp_min_"), _clamp),
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
    "conv2d": "hold its weights in an nn.Conv2d, and call that",
    **dict.fromkeys(("linear", "matmul"), "hold its weights in an nn.Linear, and call that"),
    "batchnorm": "hold its numbers in an nn.BatchNorm2d, and call that",
    **dict.fromkeys(("pad", "zeropad2d"), "give it to the convolution behind it as padding="),
    **dict.fromkeys(("sub", "rsub", "neg", "negative"), "let the weights behind it carry the sign"),
    **dict.fromkeys(("conv1d", "conv3d", "convtranspose2d", "upsample", "interpolate"), "use Conv2d"),
    **dict.fromkeys(("mul", "bmm", "multiheadattention", "truediv"), "maps can be added and concatenated only"),
    **dict.fromkeys(
        ("permute", "transpose", "chunk", "split", "getitem"), "a layer reads whole maps: group its convolution"
    ),
    **dict.fromkeys(("adaptivemaxpool2d", "fractionalmaxpool2d", "lppool2d"), "use MaxPool2d"),
}


def not_convertible(target: Any) -> ValueError:
    """The error for a module's type, a function or the name of a method that is no layer of whole numbers."""
    kind = getattr(target, "__name__", str(target))
    instead = INSTEAD.get(kind.lower().replace("_", ""), "compute it with convolutions and ReLU")
    return ValueError(f"{kind} cannot be converted; {instead}")
