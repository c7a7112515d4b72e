"""Layers out of the operations of a traced torch model: what each of them does to the values that it takes."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from .graph import Shape
from .operations import (
    ADD,
    ARITHMETIC,
    AS_MODULE,
    CONCATENATE,
    RESHAPE,
    before_pooling,
    factor_and_shift,
    geometry_of,
    not_convertible,
    one_a_channel,
    window_of,
    without_groups,
)
from .quantize import Counts, QuantReLU
from .traced import IMAGE, LayerBuilder, Norm, Trace, Value, Window, maps_of

# Keyword arguments that change nothing.
_ASIDE = ("inplace",)


class LayerReader:
    """Turns the operations of a traced model into layers, in their order; shapes: of the value of each of them.

    differs_at_border: whether a layer pads images from which a mean was subtracted, of which a warning tells.
    Raises ValueError that names the operation and the remedy for what layers of whole numbers cannot be.
    """

    def __init__(self, model: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> None:
        self.built = LayerBuilder()
        self.model, self.shapes = model, shapes
        self.values: dict[fx.Node, Any] = {}
        self.differs_at_border = False
        self.node: fx.Node = next(iter(model.graph.nodes))
        self.methods: dict[type[nn.Module], Callable[[Any, Any], Value]] = {
            nn.Conv2d: self._convolution,
            nn.Linear: self._linear,
            **dict.fromkeys((nn.BatchNorm2d, nn.BatchNorm1d, nn.SyncBatchNorm), self._norm),
            nn.ReLU: lambda value, _: self.built.activation(value, 0.0, math.inf),
            nn.Hardtanh: self._hardtanh,
            QuantReLU: self._quantized,
            Counts: self._counted,
            nn.MaxPool2d: self._max_pool,
            nn.AvgPool2d: self._average_pool,
            nn.AdaptiveAvgPool2d: self._adaptive_pool,
            nn.Flatten: self._flatten,
            **dict.fromkeys((nn.Identity, nn.Dropout, nn.Dropout2d), lambda value, _: value),
        }

    def read(self, in_shape: Shape) -> Trace:
        """The layers, for images of shape (C, H, W)."""
        for node in self.model.graph.nodes:
            self.node = node
            try:
                if node.op == "output":
                    return self._read_output(in_shape, node.args[0])
                self.values[node] = self._read_node(node, in_shape)
            except ValueError as reason:
                place = node.target if node.op == "call_module" else node.name
                raise ValueError(f"{place} of the model: {reason}") from None
        raise ValueError("the model returns nothing")

    def _read_node(self, node: fx.Node, in_shape: Shape) -> Any:
        if node.op == "placeholder":
            return maps_of(node.name, (IMAGE,), in_shape)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.model)
        value = self._read_call(node)
        if not isinstance(value, Value):
            return value
        if len(node.users) > 1 and value.maps is None:
            # What two operations read is rounded once, for both.
            value = self.built.closed(value)
        return value if value.maps is None else replace(value, name=node.name)

    def _read_call(self, node: fx.Node) -> Any:
        target: Any = node.target
        given: Any = fx.map_arg((list(node.args), dict(node.kwargs)), self.values.__getitem__)
        args, named = list(given[0]), {key: value for key, value in given[1].items() if key not in _ASIDE}
        args += [named.pop(key) for key in ("input", "tensors", "other") if key in named]
        read = [self.values[one] for one in node.all_input_nodes]
        if any(value is None for value in read) and target not in RESHAPE:
            if any(isinstance(value, Value) for value in read):
                raise ValueError(
                    f"an argument of {node.format_node()} is computed from a map's size: write the number"
                )
            return None
        if node.op == "call_module":
            return self._read_module(args[0], self.model.get_submodule(target))
        if target in CONCATENATE:
            return self.built.concatenated(args[0], named.get("dim", args[1] if len(args) > 1 else 0))
        if target in ADD and all(isinstance(arg, Value) for arg in args[:2]):
            return self._added(args[0], args[1], named.get("alpha", 1))
        if target in ARITHMETIC:
            if len(args) != 2 or named.get("alpha", 1) != 1 or named.get("rounding_mode") is not None:
                raise ValueError(
                    f"a third operand, alpha or rounding_mode in {node.format_node()}: compute it without"
                )
            return self._arithmetic(args[0], args[1], ARITHMETIC[target])
        value = args[0] if args else None
        if not isinstance(value, Value) or target in ("size", getattr):
            # The size of a map, and what is computed of it: numbers, which `view` takes.
            return None
        if target not in AS_MODULE:
            raise not_convertible(target)
        try:
            module = AS_MODULE[target](*args[1:], **named)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise ValueError(f"{error!s:.200}") from None
        return self._read_module(value, module)

    def _read_module(self, value: Any, module: nn.Module) -> Value:
        kind = type(module)
        if kind.__name__ == "StochasticDepth":
            return value
        if kind.__name__ == "Normalize":
            numbers = (getattr(module, name) for name in ("mean", "std"))
            mean, std = (torch.as_tensor(one, dtype=torch.float64).flatten() for one in numbers)
            return self._affine(value, 1 / std, -mean / std)
        for known, method in self.methods.items():
            if isinstance(module, known):
                if "forward" in vars(module) or kind.forward is not known.forward:
                    raise ValueError(f"its forward is not that of {known.__name__}: give the plain module")
                return method(value, module)
        raise not_convertible(kind)

    # Layers with weights

    def _convolution(self, value: Value, conv: nn.Conv2d) -> Value:
        stride, padding, dilation = geometry_of(conv)
        if value.resized == conv.kernel_size and not padding:
            # Over all of an adaptive average it is a linear layer.
            return self._weighted(value, conv.weight.detach(), conv.bias, groups=conv.groups)
        maps = self.built.closed(value)
        if conv.padding_mode != "zeros":
            raise ValueError(
                f"padding_mode={conv.padding_mode!r}: beyond the border no spikes are sent; use 'zeros'"
            )
        if padding and maps.shift.any():
            self.differs_at_border = True
            warnings.warn(
                f"{self.node.target} of the model pads images from which a mean was subtracted: its padding is of "
                "that mean there and black here, so that sums at the border differ. Normalise with a mean of 0 and "
                "train on, or pad nothing",
                stacklevel=2,
            )
        around = {"stride": stride, "padding": padding, "dilation": dilation}
        return self._weighted(maps, conv.weight.detach(), conv.bias, groups=conv.groups, **around)

    def _linear(self, value: Value, linear: nn.Linear) -> Value:
        if len(self.shapes[self.node.all_input_nodes[0].name]) != 1:
            raise ValueError(
                "a linear layer over one axis of a map: put nn.Flatten() before it, or use a 1×1 Conv2d"
            )
        maps = self.built.closed(value, resized=True)
        channels, height, width = maps.shape
        rows, columns = maps.resized or (height, width)
        return self._weighted(maps, linear.weight.detach().view(-1, channels, rows, columns), linear.bias)

    def _weighted(self, maps: Value, weight: Tensor, bias: Tensor | None, groups: int = 1, **around: Any) -> Value:
        """The convolution of maps with weights [O, I / groups, kh, kw]; around: stride, padding and dilation."""
        (term,) = maps.terms
        if maps.resized:
            weight = before_pooling(weight, maps.shape[1:])
        if len(term.sources) > 1 and groups > 1:
            # Groups need not end where a source does.
            weight, groups = without_groups(weight, groups), 1
        outputs, size = weight.shape[:2]
        # Which input channels each output reads, [O, I / groups].
        inputs = (torch.arange(outputs) // (outputs // groups) * size)[:, None] + torch.arange(size)
        scale, offset = (of[inputs][:, :, None, None] for of in (term.scale, maps.shift))
        shift = (weight * offset).sum((1, 2, 3)) + (0 if bias is None else bias.detach())
        ones = torch.ones(outputs, dtype=weight.dtype)
        term = replace(term, weight=weight * scale, scale=ones, groups=groups, **around)
        return Value(self.node.name, (term,), shift, self._shape(outputs))

    def _shape(self, channels: int) -> Shape:
        """(C, H, W) of what the operation makes; where it is flat, a map of one pixel."""
        _, height, width = (*self.shapes[self.node.name], 1, 1)[:3]
        return channels, height, width

    # What is affine

    def _norm(self, value: Value, norm: Norm) -> Value:
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError(
                "a batch norm without running statistics depends on the batch: track_running_stats=True"
            )
        if norm.num_features != value.shape[0]:
            raise ValueError(
                f"a batch norm of {norm.num_features} features behind flattened maps of {value.shape}: put "
                "BatchNorm2d before nn.Flatten(), or fold it into the linear layer behind it"
            )
        made, (first, *others) = self._affine(value, *factor_and_shift(norm)), value.terms
        alone = first.weight is not None and not (others or value.pools or value.shift.any())
        if alone and norm.affine and bool((first.scale == 1).all()):
            return made.read(norm=norm)
        return made

    def _affine(self, value: Value, factor: Tensor, shift: Tensor) -> Value:
        channels = value.shape[0]
        if not {len(factor), len(shift)} <= {1, channels}:
            raise ValueError(f"{len(factor)} factors for {channels} channels: give one, or one for each channel")
        factor, shift = factor.expand(channels), shift.expand(channels)
        if value.maps is None or shift.any():
            value = self.built.waiting(value)
        terms = tuple(replace(term, scale=term.scale * factor, norm=None) for term in value.terms)
        return replace(value, name=self.node.name, terms=terms, shift=value.shift * factor + shift)

    def _arithmetic(self, value: Any, constant: Any, parts: Callable[[Tensor], tuple[Any, Any]]) -> Value:
        if not isinstance(value, Value) and self.node.target in (*ADD, operator.mul, torch.mul):
            value, constant = constant, value
        if not isinstance(value, Value) or not isinstance(constant, Tensor | int | float):
            raise not_convertible(self.node.target)
        constant = torch.as_tensor(constant, dtype=torch.float64).detach()
        sides = len(self.shapes[self.node.name]) - 1
        if not one_a_channel(constant, sides):
            raise ValueError(
                f"a constant of shape {tuple(constant.shape)} beside a map: use (C, 1, 1), one a channel"
            )
        factor, shift = parts(constant.flatten())
        return self._affine(value, factor.double(), shift.double())

    def _added(self, first: Value, second: Value, factor: float) -> Value:
        if factor != 1:
            raise ValueError(f"a sum with alpha={factor}: multiply by it in the layer before")
        one, other = self.built.waiting(first), self.built.waiting(second)
        maps = [node for node in self.node.all_input_nodes if isinstance(self.values[node], Value)]
        # What is flat has the shape of a map of one pixel here, and another one in torch.
        if len({len(self.shapes[node.name]) for node in maps}) > 1:
            raise ValueError("maps and what is flat are added: flatten both")
        if one.shape != other.shape:
            raise ValueError(f"maps of {one.shape} and {other.shape} are added: give them one shape")
        while len(one.terms) + len(other.terms) > 2:
            # A neuron has two synapses at most: the longer sum becomes a layer of its own.
            one, other = sorted((one, other), key=lambda total: len(total.terms))
            other = self.built.closed(other)
        terms = sorted(one.terms + other.terms, key=lambda term: term.weight is None)
        return Value(self.node.name, tuple(terms), one.shift + other.shift, one.shape)

    # What closes a layer

    def _hardtanh(self, value: Value, module: nn.Hardtanh) -> Value:
        if module.min_val != 0 or module.max_val <= 0:
            raise ValueError(
                f"a clamp to {module.min_val:g} … {module.max_val:g}: a count starts at 0, as with ReLU6"
            )
        return self.built.activation(value, 0.0, module.max_val)

    def _quantized(self, value: Value, module: QuantReLU) -> Value:
        high = math.inf if module.clip is None else float(module.clip)
        return self.built.activation(value, 0.0, high, 2.0**-module.k)

    def _counted(self, value: Value, module: Counts) -> Value:
        low = module.lowest * module.step
        high = math.inf if module.highest is None else module.highest * module.step
        # Averages of counts are none: they are rounded anew.
        if (maps := value.maps) and maps.average == 1 and self.built.within(value, low, high):
            if all(self.built.layers[source].step == module.step for source in maps.sources):
                return value
        return self.built.activation(value, low, high, module.step)

    # Pooling, and the end of the model

    def _flatten(self, value: Value, _: nn.Module) -> Value:
        if value.pools:
            value = self.built.closed(value)
        channels, *sides = value.shape
        if value.resized:
            sides = list(value.resized)
        made, size = self.shapes[self.node.name], channels * math.prod(sides)
        if made not in ((size,), (channels, *sides)):
            raise ValueError(f"maps of {(channels, *sides)} become {made}: only whole maps can be flattened")
        return value

    def _max_pool(self, value: Value, module: nn.MaxPool2d) -> Value:
        if module.return_indices:
            raise ValueError("return_indices=True: a network of counts has no use for them; leave it out")
        pool = self._window(module)
        if value.maps is None:
            # Rounding and clamping keep the order: the maximum may be taken behind them.
            return replace(value, pools=(*value.pools, pool))
        if not bool((value.maps.scale > 0).all()):
            raise ValueError("the maximum of negated maps is a minimum: pool before the multiplication")
        return self.built.maximum(self.built.closed(value, pooled=True), pool)

    def _window(self, pooling: nn.MaxPool2d | nn.AvgPool2d) -> Window:
        before, behind = (self.shapes[node.name][1:] for node in (self.node.all_input_nodes[0], self.node))
        return window_of(pooling, before, behind)

    def _average_pool(self, value: Value, module: nn.AvgPool2d) -> Value:
        plain = module.padding in (0, (0, 0)) and not module.divisor_override
        if plain and module.kernel_size == self.shapes[self.node.all_input_nodes[0].name][1:]:
            # Over all of a map, whose sides may differ.
            return self._adaptive_pool(value, nn.AdaptiveAvgPool2d(1))
        window = self._window(module)
        if window.padding and not module.count_include_pad:
            raise ValueError("an average that leaves out the padding differs at the border: count_include_pad=True")
        maps = self.built.closed(value, pooled=True)
        (term,), channels = maps.terms, maps.shape[0]
        size, divisor = window.size, module.divisor_override or window.size**2
        if window == (size, size, 0, 1) and term.average == 1 and not any(side % size for side in maps.shape[1:]):
            scale = term.scale * (size**2 / divisor)
            return replace(maps.read(average=size, scale=scale), shape=self._shape(channels))
        # Windows that overlap, are padded or leave a rest: a layer of neurons of its own.
        weight, (_, stride, padding, dilation) = torch.ones(channels, 1, size, size, dtype=torch.float64), window
        total = self._weighted(maps, weight, None, channels, stride=stride, padding=padding, dilation=dilation)
        total = total.read(scale=total.terms[0].scale / divisor)
        return self.built.neurons(total, *self.built.bounds(maps))

    def _adaptive_pool(self, value: Value, module: nn.AdaptiveAvgPool2d) -> Value:
        maps, wanted = self.built.closed(value, pooled=True), module.output_size
        _, height, width = maps.shape
        rows, columns = wanted if isinstance(wanted, Sequence) else (wanted, wanted)
        rows, columns = rows or height, columns or width
        if (rows, columns) == (height, width):
            return maps
        if height == rows * (height // rows) and width == columns * (height // rows):
            # An average of averages over windows of one size is one over all of them.
            average = maps.terms[0].average * (height // rows)
            return replace(maps.read(average=average), shape=(maps.shape[0], rows, columns))
        return replace(maps, resized=(rows, columns))

    def _read_output(self, in_shape: Shape, output: Any) -> Trace:
        value = self.values.get(output) if isinstance(output, fx.Node) else None
        if not isinstance(value, Value):
            raise ValueError("it returns something else than one tensor of scores: return those of the classes")
        if value.maps is None and not self.built.reads_out(value := _one_head(value)):
            value = self.built.closed(value)
        if math.prod(value.resized or value.shape[1:]) != 1:
            raise ValueError(f"it returns maps of {value.shape}: end in scores, one for each class")
        (classifier,) = value.terms
        if classifier.weight is None:
            # Counts are scores too: a linear layer that passes them on.
            weight = torch.diag(classifier.scale)[:, :, None, None]
            if value.resized:
                weight = before_pooling(weight, (value.shape[1], value.shape[2]))
            classifier = replace(classifier, weight=weight, scale=torch.ones_like(classifier.scale))
        if classifier.sources != (len(self.built.layers) - 1,):
            classifier = replace(classifier, sources=self.built.gathered(classifier.sources).sources)
        return Trace(in_shape, tuple(self.built.layers), classifier, value.shift, self.model)


def _one_head(scores: Value) -> Value:
    """Scores that two linear layers of the same maps add up to, as those of one layer."""
    first, last = scores.terms[0], scores.terms[-1]
    if len(scores.terms) == 1 or first.weight is None or last.weight is None:
        return scores
    if first.branch != last.branch or first.weight.shape != last.weight.shape:
        return scores
    one, other = (term.scale[:, None, None, None] for term in (first, last))
    weight = first.weight * one + last.weight * other
    return replace(scores, terms=(replace(first, weight=weight, scale=torch.ones_like(first.scale), norm=None),))
