"""Layers out of the operations of a traced torch model: what each operation means, and when a layer is complete.

Convolutions and linear layers with what is affine behind them (batch norm, bias, residual addition) are gathered
until an activation closes a layer of neurons. A maximum that is taken before the activation waits with it, as
rounding and clamping keep the order. A sum that no activation follows becomes a layer of signed counts.
"""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from .graph import Shape
from .operations import (
    ADD,
    ARITHMETIC,
    AS_MODULE,
    CONCATENATE,
    IMAGE,
    INSTEAD,
    Maps,
    Sum,
    Term,
    Trace,
    TracedLayer,
    before_pooling,
    beside,
    bounds,
    factor_and_shift,
    one_a_channel,
    padding_of,
    passed,
    plain_maps,
    reads_out,
    weighted_term,
    within,
)
from .quantize import Counts, QuantReLU

# Keyword arguments that change nothing in inference.
_ASIDE = ("inplace", "training")


class LayerReader:
    """Turns the operations of a traced model into layers, in their order; shapes: of the value of each of them.

    Raises ValueError that names the operation and the remedy for what layers of whole numbers cannot be.
    """

    def __init__(self, model: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> None:
        self.model, self.shapes = model, shapes
        self.layers: list[TracedLayer] = []
        self.values: dict[fx.Node, Any] = {}
        self.node: fx.Node = next(iter(model.graph.nodes))
        self.methods: dict[type, Callable[[Any, Any], Maps | Sum]] = {
            nn.Conv2d: self.convolution,
            nn.Linear: self.linear,
            nn.BatchNorm2d: self.norm,
            nn.BatchNorm1d: self.norm,
            nn.ReLU: lambda value, _: self.activation(value, 0.0, math.inf),
            nn.ReLU6: lambda value, _: self.activation(value, 0.0, 6.0),
            nn.Hardtanh: self.hardtanh,
            QuantReLU: self.quantized,
            Counts: self.counted,
            nn.MaxPool2d: self.max_pool,
            nn.AvgPool2d: self.average_pool,
            nn.AdaptiveAvgPool2d: self.adaptive_pool,
            nn.Flatten: self.flatten,
            **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout2d), lambda value, _: value),
        }

    def read(self, in_shape: Shape) -> Trace:
        """The layers, for images of shape (C, H, W)."""
        for node in self.model.graph.nodes:
            self.node = node
            if node.op == "placeholder":
                self.values[node] = plain_maps(node.name, (IMAGE,), in_shape)
            elif node.op == "get_attr":
                self.values[node] = operator.attrgetter(node.target)(self.model)
            elif node.op == "output":
                return self.finished(in_shape, node.args[0])
            else:
                value = self.operation(node)
                # What two operations read is rounded once, for both.
                shared = len(node.users) > 1 and isinstance(value, Sum)
                value = self.closed(value) if shared else value
                self.values[node] = replace(value, name=node.name) if isinstance(value, Maps) else value
        raise ValueError("the model returns nothing")

    def refuse(self, what: str) -> NoReturn:
        place = self.node.target if self.node.op == "call_module" else self.node.name
        raise ValueError(f"{place} of the model: {what}")

    def refuse_kind(self, kind: str = "") -> NoReturn:
        kind = kind or getattr(self.node.target, "__name__", str(self.node.target))
        instead = INSTEAD.get(kind.lower().replace("_", ""), "compute it with convolutions and ReLU")
        self.refuse(f"{kind} cannot be converted; {instead}")

    def operation(self, node: fx.Node) -> Any:
        target: Any = node.target
        given: Any = fx.map_arg((list(node.args), dict(node.kwargs)), self.values.__getitem__)
        args, named = list(given[0]), {key: value for key, value in given[1].items() if key not in _ASIDE}
        args += [named.pop(key) for key in ("input", "tensors", "other") if key in named]
        if node.op == "call_module":
            return self.module(args[0], self.model.get_submodule(target))
        if target in CONCATENATE:
            return self.concatenated(args[0], named.get("dim", args[1] if len(args) > 1 else 0))
        if target in ADD and all(isinstance(arg, Maps | Sum) for arg in args[:2]):
            return self.added(args[0], args[1], named.get("alpha", 1))
        if target in ARITHMETIC:
            if len(args) != 2 or named.get("alpha", 1) != 1 or named.get("rounding_mode") is not None:
                self.refuse(f"a third operand, alpha or rounding_mode in {node.format_node()}: compute it without")
            return self.arithmetic(args[0], args[1], ARITHMETIC[target])
        value = args[0] if args else None
        if not isinstance(value, Maps | Sum) or target in ("size", getattr):
            # The size of a map, and what is computed of it: numbers, which `view` takes.
            return None
        if target not in AS_MODULE:
            self.refuse_kind()
        try:
            module = AS_MODULE[target](*args[1:], **named)
        except (TypeError, ValueError, AssertionError) as error:
            self.refuse(f"{error!s:.200}")
        return self.module(value, module)

    def module(self, value: Any, module: nn.Module) -> Maps | Sum:
        kind = type(module).__name__
        if kind == "StochasticDepth":
            return value
        if kind == "Normalize":
            mean, std = (torch.as_tensor(getattr(module, name)).double().flatten() for name in ("mean", "std"))
            return self.affine(value, 1 / std, -mean / std)
        for known, method in self.methods.items():
            if isinstance(module, known):
                return method(value, module)
        self.refuse_kind(kind)

    # Layers with weights

    def convolution(self, value: Maps | Sum, conv: nn.Conv2d) -> Sum:
        maps = self.closed(value)
        if conv.padding_mode != "zeros":
            self.refuse(f"padding_mode={conv.padding_mode!r}: beyond the border no spikes are sent; use 'zeros'")
        padding = padding_of(conv)
        if padding is None:
            self.refuse("'same' padding of an even kernel is wider on one side: use an odd kernel")
        geometry = conv.stride, padding, conv.dilation
        stride, padding, dilation = map(self.one_number, ("stride", "padding", "dilation"), geometry)
        if padding and maps.shift.any():
            warnings.warn(
                f"{self.node.target} of the model pads images from which a mean was subtracted: its padding is of "
                "that mean there and black here, so that sums at the border differ. Normalise with a mean of 0 and "
                "train on, or pad nothing",
                stacklevel=2,
            )
        return self.weighted(maps, conv.weight.detach(), conv.bias, stride, padding, dilation, conv.groups)

    def linear(self, value: Maps | Sum, linear: nn.Linear) -> Sum:
        if len(self.shapes[self.node.all_input_nodes[0].name]) != 1:
            self.refuse("a linear layer over one axis of a map: put nn.Flatten() before it, or use a 1×1 Conv2d")
        maps = self.closed(value, resized=True)
        channels, height, width = maps.shape
        rows, columns = maps.resized or (height, width)
        weight = linear.weight.detach().view(-1, channels, rows, columns)
        if maps.resized:
            weight = before_pooling(weight, (height, width))
        return self.weighted(replace(maps, resized=None), weight, linear.bias)

    def weighted(self, maps: Maps, weight: Tensor, bias: Tensor | None, *geometry: int) -> Sum:
        term, shift = weighted_term(maps, weight, bias, *geometry)
        return Sum(self.node.name, (term,), shift, self.shape(len(weight)))

    def shape(self, channels: int) -> Shape:
        """(C, H, W) of what the operation makes; where it is flat, a map of one pixel."""
        _, height, width = (*self.shapes[self.node.name], 1, 1)[:3]
        return channels, height, width

    def one_number(self, name: str, value: Any) -> int:
        numbers = set(value) if isinstance(value, Sequence) else {value}
        if len(numbers) != 1:
            self.refuse(f"{name}={tuple(value)} differs between rows and columns: use one number for both")
        return int(numbers.pop())

    # What is affine

    def norm(self, value: Maps | Sum, norm: nn.BatchNorm2d | nn.BatchNorm1d) -> Maps | Sum:
        if norm.running_mean is None or norm.running_var is None:
            self.refuse("a batch norm without running statistics depends on the batch: track_running_stats=True")
        made = self.affine(value, *factor_and_shift(norm))
        if isinstance(value, Sum) and isinstance(made, Sum) and norm.affine:
            (first, *others), whole = value.terms, not value.pools and not value.shift.any()
            if not others and whole and bool((first.scale == 1).all()):
                made = replace(made, terms=(replace(made.terms[0], norm=norm),))
        return made

    def affine(self, value: Maps | Sum, factor: Tensor, shift: Tensor) -> Maps | Sum:
        channels = value.shape[0]
        if not {len(factor), len(shift)} <= {1, channels}:
            self.refuse(f"{len(factor)} factors for {channels} channels: give one, or one for each channel")
        factor, shift = factor.expand(channels), shift.expand(channels)
        if isinstance(value, Maps) and (value.sources == (IMAGE,) or not shift.any()):
            return replace(value, scale=value.scale * factor, shift=value.shift * factor + shift)
        total = self.waiting(value)
        terms = tuple(replace(term, scale=term.scale * factor, norm=None) for term in total.terms)
        return replace(total, name=self.node.name, terms=terms, shift=total.shift * factor + shift)

    def arithmetic(self, value: Any, constant: Any, parts: Callable[[Tensor], tuple[Any, Any]]) -> Maps | Sum:
        if not isinstance(value, Maps | Sum) and self.node.target in (*ADD, operator.mul, torch.mul):
            value, constant = constant, value
        if not isinstance(value, Maps | Sum) or not isinstance(constant, Tensor | int | float):
            self.refuse_kind()
        constant, sides = torch.as_tensor(constant).detach().double(), len(self.shapes[self.node.name]) - 1
        if not one_a_channel(constant, sides):
            self.refuse(f"a constant of shape {tuple(constant.shape)} beside a map: use (C, 1, 1), one a channel")
        factor, shift = parts(constant.flatten())
        return self.affine(value, factor.double(), shift.double())

    def added(self, first: Maps | Sum, second: Maps | Sum, factor: float) -> Sum:
        if factor != 1:
            self.refuse(f"a sum with alpha={factor}: multiply by it in the layer before")
        one, other = self.waiting(first), self.waiting(second)
        if one.shape != other.shape:
            self.refuse(f"maps of {one.shape} and {other.shape} are added: give them one shape")
        while len(one.terms) + len(other.terms) > 2:
            # A neuron has two synapses at most: the longer sum becomes a layer of its own.
            one, other = sorted((one, other), key=lambda total: len(total.terms))
            other = self.waiting(self.closed(other))
        terms = sorted(one.terms + other.terms, key=lambda term: term.weight is None)
        return Sum(self.node.name, tuple(terms), one.shift + other.shift, one.shape)

    def concatenated(self, parts: list[Maps | Sum], dim: int) -> Maps:
        maps = [self.closed(part) for part in parts]
        if len({part.average for part in maps}) > 1:
            maps = [self.rounded(part) if part.average > 1 else part for part in maps]
        if dim not in (1, -3) or len({part.shape[1:] for part in maps}) > 1:
            self.refuse("only channels of maps of one size can be concatenated: use dim=1")
        if any(IMAGE in part.sources for part in maps):
            self.refuse("the image itself is concatenated: let one convolution read it")
        scale, shift = torch.cat([part.scale for part in maps]), torch.cat([part.shift for part in maps])
        sources = tuple(source for part in maps for source in part.sources)
        return replace(maps[0], sources=sources, shape=(len(scale), *maps[0].shape[1:]), scale=scale, shift=shift)

    # What closes a layer

    def hardtanh(self, value: Maps | Sum, module: nn.Hardtanh) -> Maps:
        if module.min_val != 0 or module.max_val <= 0:
            self.refuse(f"a clamp to {module.min_val:g} … {module.max_val:g}: a count starts at 0, as with ReLU6")
        return self.activation(value, 0.0, module.max_val)

    def quantized(self, value: Maps | Sum, module: QuantReLU) -> Maps:
        high = math.inf if module.clip is None else float(module.clip)
        return self.activation(value, 0.0, high, 2.0**-module.k)

    def counted(self, value: Maps | Sum, module: Counts) -> Maps:
        low = module.lowest * module.step
        high = math.inf if module.highest is None else module.highest * module.step
        if isinstance(value, Maps) and within(value, self.layers, low, high):
            if all(self.layers[source].step == module.step for source in value.sources):
                return value
        return self.activation(value, low, high, module.step)

    def activation(self, value: Maps | Sum, low: float, high: float, step: float | None = None) -> Maps:
        if isinstance(value, Maps) and step is None and within(value, self.layers, low, high):
            return value
        total = self.waiting(value, pooled=True)
        if any(IMAGE in term.sources for term in total.terms):
            self.check_encoder(total, low)
        self.layers.append(TracedLayer(total.name, total.shape, total.terms, total.shift, low, high, step))
        maps = plain_maps(total.name, (len(self.layers) - 1,), total.shape)
        for pool in total.pools:
            maps = self.maximum(maps, pool)
        return maps

    def check_encoder(self, total: Sum, low: float) -> None:
        if self.layers:
            self.refuse("a second layer reads the image: let one convolution encode it")
        if len(total.terms) > 1 or total.terms[0].weight is None:
            self.refuse("the image itself is added, normalised or rounded: start with a Conv2d or Linear")
        if low < 0:
            self.refuse(
                "the first layer has no activation, and it encodes the image in spikes: put a ReLU behind it"
            )

    def closed(self, value: Maps | Sum, resized: bool = False, pooled: bool = False) -> Maps:
        """Maps of layers; a sum that no activation follows becomes a layer of signed counts."""
        if isinstance(value, Sum):
            return self.activation(value, -math.inf, math.inf)
        if pooled and value.sources == (IMAGE,):
            self.refuse("the image is pooled before any layer with weights: start with a Conv2d")
        if value.resized and not resized:
            self.refuse("the adaptive pooling before it has no windows of one size: let a linear layer follow it")
        if value.shift.any() and value.sources != (IMAGE,):
            return self.activation(passed(value), -math.inf, math.inf)
        return value

    def waiting(self, value: Maps | Sum, pooled: bool = False) -> Sum:
        """A sum of terms; a max pooling that waits with it is closed first, unless `pooled`."""
        if isinstance(value, Sum) and (pooled or not value.pools):
            return value
        return passed(self.closed(value))

    # Pooling, and the end

    def flatten(self, value: Maps | Sum, _: nn.Module) -> Maps | Sum:
        if isinstance(value, Sum) and value.pools:
            value = self.closed(value)
        channels, *sides = value.shape
        if isinstance(value, Maps) and value.resized:
            sides = list(value.resized)
        made, size = self.shapes[self.node.name], channels * math.prod(sides)
        if made not in ((size,), (channels, *sides)):
            self.refuse(f"maps of {(channels, *sides)} become {made}: only whole maps can be flattened")
        return value

    def max_pool(self, value: Maps | Sum, module: nn.MaxPool2d) -> Maps | Sum:
        if module.return_indices:
            self.refuse("return_indices=True: a network of counts has no use for them; leave it out")
        pool = self.window(module)
        if isinstance(value, Sum):
            # Rounding and clamping keep the order: the maximum may be taken behind them.
            return replace(value, pools=(*value.pools, pool))
        if not bool((value.scale > 0).all()):
            self.refuse("the maximum of negated maps is a minimum: pool before the multiplication")
        return self.maximum(self.closed(value, pooled=True), pool)

    def maximum(self, maps: Maps, pool: tuple[int, int, int, int]) -> Maps:
        if maps.average > 1:
            maps = self.rounded(maps)
        size, stride, padding, dilation = pool
        rows, columns = ((n + 2 * padding - dilation * (size - 1) - 1) // stride + 1 for n in maps.shape[1:])
        made = []
        for source in maps.sources:
            before = self.layers[source]
            term = Term((source,), None, torch.ones(before.out_shape[0]))
            shape = (before.out_shape[0], rows, columns)
            self.layers.append(
                replace(before, name=f"{before.name}_max", out_shape=shape, terms=(term,), pool=pool)
            )
            made.append(len(self.layers) - 1)
        return replace(maps, sources=tuple(made), shape=(maps.shape[0], rows, columns))

    def window(self, module: nn.MaxPool2d | nn.AvgPool2d) -> tuple[int, int, int, int]:
        """Size, stride, padding and dilation of a pooling."""
        size = self.one_number("kernel_size", module.kernel_size)
        stride = self.one_number("stride", module.stride or module.kernel_size)
        padding = self.one_number("padding", module.padding)
        dilation = self.one_number("dilation", getattr(module, "dilation", 1))
        sides, made = (self.shapes[node.name][1:] for node in (self.node.all_input_nodes[0], self.node))
        for side, number in zip(sides, made, strict=True):
            if (number - 1) * stride + dilation * (size - 1) + 1 > side + 2 * padding:
                self.refuse("ceil_mode=True makes windows that hang over the border: pad, or leave it out")
        return size, stride, padding, dilation

    def average_pool(self, value: Maps | Sum, module: nn.AvgPool2d) -> Maps:
        size, stride, padding, _ = self.window(module)
        if padding and not module.count_include_pad:
            self.refuse("an average that leaves out the padding differs at the border: count_include_pad=True")
        maps = self.closed(value, pooled=True)
        whole = not any(n % size for n in maps.shape[1:])
        divisor = module.divisor_override or size**2
        if size != stride or padding or not whole or maps.average > 1:
            return self.overlapping(maps, (size, stride, padding), divisor)
        scale = maps.scale * (size**2 / divisor)
        return replace(maps, average=size, shape=self.shape(maps.shape[0]), scale=scale)

    def overlapping(self, maps: Maps, window: tuple[int, int, int], divisor: int) -> Maps:
        """Averages over windows that overlap, are padded or leave a rest: a layer of neurons of its own."""
        (size, stride, padding), channels = window, maps.shape[0]
        weight = torch.ones(channels, 1, size, size, dtype=torch.float64)
        total = self.weighted(maps, weight, None, stride, padding, 1, channels)
        total = replace(total, terms=(replace(total.terms[0], scale=total.terms[0].scale / divisor),))
        return self.activation(total, *bounds(maps, self.layers))

    def adaptive_pool(self, value: Maps | Sum, module: nn.AdaptiveAvgPool2d) -> Maps | Sum:
        maps, wanted = self.closed(value, pooled=True), module.output_size
        _, height, width = maps.shape
        rows, columns = wanted if isinstance(wanted, Sequence) else (wanted, wanted)
        rows, columns = rows or height, columns or width
        if (rows, columns) == (height, width):
            return maps
        if height == rows * (height // rows) and width == columns * (height // rows) and maps.average == 1:
            return replace(maps, average=height // rows, shape=(maps.shape[0], rows, columns))
        return replace(maps, resized=(rows, columns))

    def rounded(self, maps: Maps) -> Maps:
        """The maps as a layer of neurons of their own."""
        return self.activation(passed(maps), *bounds(maps, self.layers))

    def finished(self, in_shape: Shape, output: Any) -> Trace:
        value = self.values.get(output) if isinstance(output, fx.Node) else None
        if not isinstance(value, Maps | Sum):
            self.refuse("it returns something else than one tensor of scores: return those of the classes")
        if isinstance(value, Sum) and not reads_out(value, self.layers):
            value = self.closed(value)
        if math.prod(value.shape[1:]) != 1:
            self.refuse(f"it returns maps of {value.shape}: end in scores, one for each class")
        if isinstance(value, Maps):
            # Counts are scores too: a linear layer that passes them on.
            weight = torch.diag(value.scale)[:, :, None, None]
            one = torch.ones_like(value.scale)
            value = Sum("", (Term(value.sources, weight, one, value.average),), value.shift, value.shape)
        (classifier,) = value.terms
        if classifier.sources != (len(self.layers) - 1,):
            read = [self.layers[source] for source in classifier.sources]
            steps = {layer.step for layer in read}
            if len(steps) > 1 and None not in steps:
                self.refuse(f"counts in steps of {sorted(filter(None, steps))} are read out together: use one")
            maps = plain_maps("read_out", classifier.sources, beside(classifier.sources, self.layers))
            ends = min(layer.low for layer in read), max(layer.high for layer in read)
            step = steps.pop() if len(steps) == 1 else None
            classifier = replace(classifier, sources=self.activation(passed(maps), *ends, step).sources)
        return Trace(in_shape, tuple(self.layers), classifier, value.shift, self.model)
