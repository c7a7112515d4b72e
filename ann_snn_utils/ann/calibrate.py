"""A trained model is quantized after its training: steps of activations and whole weights, by looking at images.

`quantize` gives the quantized network, which trains on like any torch module; `layer_losses` says what each layer
lost. A model that quantizes by itself, with this project's quantizers, keeps its own numbers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check
from ..data.dataset import as_images
from .device import on_cpu
from .graph import SMALLEST_EPS, Branch, Node, graph_text
from .network import ANN, Layer, build_ann, raw_weight, set_affine, set_unit
from .operations import factor_and_shift
from .quantize import TERNARY_RATIO, int8_scale
from .quantized import check_ties, is_whole, unquantized, whole_unit
from .trace import trace, watch
from .traced import Term, Trace, TracedLayer

WEIGHTS = ("int8", "ternary")

# Where the largest count may lie among a layer's values, in percent: the one of least squared error is taken.
PERCENTILES = (99.99, 99.9, 99.5, 99.0, 98.0, 96.0, 92.0)

# Values of a layer that are looked at.
_SAMPLE = 2**17


@dataclass(frozen=True)
class LayerLoss:
    """How far the activations of a quantized layer are from the model's.

    layer: the operation of the model. step: what a count is worth; counts go from `lowest` to `highest` (None: no
    end). error: the norm of the difference, over all images and neurons, by the norm of the model's activations.
    """

    layer: str
    step: float
    lowest: int
    highest: int | None
    error: float


@on_cpu
@torch.random.fork_rng(devices=[])
@torch.no_grad()
def quantize(
    model: nn.Module,
    images: Tensor,
    levels: int = 15,
    weights: str = "int8",
    percentile: float | None = None,
) -> ANN:
    """The quantized network of a trained torch model, in evaluation mode; it trains on in anyone's loop.

    model        of convolutions, linear layers, batch norms, ReLUs, poolings, additions and concatenations, which
                 sees pixels divided by 255; `ann.layers` says all it may hold
    images       uint8 [N, C, H, W], some hundred of the training set, by which steps are chosen
    levels       the largest count of a layer; where no ReLU follows, counts go from −levels to levels
    weights      of hidden layers, "int8" or "ternary", with a scale for each channel; first and last are int8
    percentile   of a layer's values that becomes the largest count; None takes the one of least squared error

    A model whose activations are `QuantReLU`s and whose weights are whole numbers (`Ternary`, `Int8`), or one of
    Brevitas's QuantReLU, QuantIdentity, QuantConv2d and QuantLinear, is taken as it is, to the last code. Scales
    are real numbers here, where torch rounds each sum to float32; the classifier's bias becomes a whole score.
    Raises ValueError that names the place in the model for what cannot be converted.

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10))
    >>> ann = quantize(model, torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    >>> [layer.spec.token for layer in ann.layers], ann.spec.levels
    (['_0', '_0_max'], 15)
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights={weights!r}: choose one of {', '.join(WEIGHTS)}")
    if percentile is not None and not (isinstance(percentile, Real) and 0 < percentile <= 100):
        raise ValueError(f"percentile={percentile!r}: give a number above 0, up to 100")
    levels, images = check("levels", levels), as_images(images).cpu()
    traced = trace(model, images)
    if unquantized(traced):
        statistics = _statistics(traced, images)
        steps = _steps(traced, statistics, levels, percentile)
        # As was asked for, even of weights that are 1 and −1 by chance.
        ann = _built(traced, steps, levels, weights == "ternary", exact=False)
        _fill(ann, traced, weights, exact=False)
        _correct(ann, traced, statistics, images)
    else:
        steps = [layer.step or 0.0 for layer in traced.layers]
        levels = round(traced.layers[0].high / steps[0])
        hidden = [term.weight for layer in traced.layers[1:] for term in layer.terms]
        ann = _built(traced, steps, levels, all(is_whole(weight, 1) for weight in hidden), exact=True)
        _fill(ann, traced, weights, exact=True)
        check_ties(ann, traced)
    return ann.eval()


def _watch_sums(traced: Trace, images: Tensor, seen: Callable[[int, Tensor], object]) -> None:
    """Run the model on uint8 images and hand the number and the sums of each layer of neurons to `seen`."""

    def made(name: str, value: Tensor) -> None:
        # Two layers may clamp the value of one operation, each in its own way.
        for number, layer in enumerate(traced.layers):
            if layer.name == name and layer.pool is None:
                seen(number, value)

    watch(traced.model.float(), images, made)


def _statistics(traced: Trace, images: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """For each layer of neurons the mean of its sum in each channel [O], and some of its values, but for 0."""
    found: dict[int, tuple[Tensor, Tensor]] = {}
    random = torch.Generator().manual_seed(0)

    def seen(number: int, value: Tensor) -> None:
        layer = traced.layers[number]
        kept = value.clamp(layer.low, layer.high).flatten()
        if len(kept) > _SAMPLE:
            # Not every n-th value: they would all lie in one column of the maps.
            kept = kept[torch.randint(len(kept), (_SAMPLE,), generator=random)]
        kept = kept.double()
        found[number] = value.view(len(value), layer.shape[0], -1).mean((0, 2)), kept[kept != 0]

    _watch_sums(traced, images, seen)
    return found


def _step(layer: TracedLayer, values: Tensor, levels: int, percentile: float | None) -> float:
    """The step of a layer's activations, of values that it showed."""
    if not len(values):
        # Nothing ever came: any step is as good.
        return 1 / levels
    lowest = 0 if layer.low >= 0 else -levels
    asked = torch.tensor(PERCENTILES if percentile is None else (percentile,), dtype=torch.float64)
    steps = torch.quantile(values.abs(), asked / 100) / levels
    rounded = [(values / step).round().clamp(lowest, levels) * step for step in steps]
    return float(steps[int(torch.stack([(r - values).square().mean() for r in rounded]).argmin())])


def _takes_step(layer: TracedLayer) -> bool:
    """Whether a layer takes maxima or puts others side by side, and its step is theirs."""
    (term, *others) = layer.terms
    plain = not others and term.weight is None and term.average == 1 and layer.step is None
    return layer.pool is not None or (plain and bool((term.scale == 1).all()) and not layer.shift.any())


def _steps(
    traced: Trace, statistics: dict[int, tuple[Tensor, Tensor]], levels: int, percentile: float | None
) -> list[float]:
    """The step of each layer; those read side by side share the largest of theirs, maxima have their source's."""
    steps, tied = [], []
    for number, layer in enumerate(traced.layers):
        takes = _takes_step(layer)
        steps.append(0.0 if takes else _step(layer, statistics[number][1], levels, percentile))
        groups = [[source for source in term.sources if source >= 0] for term in layer.terms]
        if len(groups) > 1 and all(term.weight is None for term in layer.terms):
            groups = [sum(groups, [])]
        tied += groups[1:] + [groups[0] + [number] * takes]
    # What a group shares may be handed on by each of the others.
    for group in filter(None, tied * len(tied)):
        largest = max(steps[number] for number in group)
        for number in group:
            steps[number] = largest
    return steps


def _built(traced: Trace, steps: list[float], levels: int, ternary: bool, exact: bool) -> ANN:
    nodes = []
    for number, (layer, step) in enumerate(zip(traced.layers, steps, strict=True)):
        if layer.pool is not None:
            size, stride, padding, dilation = layer.pool
            window = Branch(layer.terms[0].sources, (size, size), stride, padding, dilation)
            nodes.append(Node(layer.name, (window,), kind="maximum"))
            continue
        lowest, highest = (0 if layer.low >= 0 else -levels), _largest(layer, step, levels) if number else None
        if layer.step is not None:
            lowest = round(layer.low / step)
            highest = None if math.isinf(layer.high) or number == 0 else round(layer.high / step)
        branches = tuple(_branch(term, position, layer) for position, term in enumerate(layer.terms))
        eps = next((term.norm.eps for term in layer.terms if term.norm is not None and exact), SMALLEST_EPS)
        nodes.append(Node(layer.name, branches, layer.shape[0], "neurons", step, lowest, highest, eps))
    text = graph_text(nodes, traced.classifier.average, bool(traced.bias.any()))
    levels = _largest(traced.layers[0], steps[0], levels)
    return build_ann(text, traced.in_shape, len(traced.bias), levels=levels, ternary=ternary)


def _largest(layer: TracedLayer, step: float, levels: int) -> int:
    """The largest count of a layer: `levels`, or less where a step that it shares takes it to its clamp before."""
    return levels if math.isinf(layer.high) else min(levels, max(1, round(layer.high / step)))


def _branch(term: Term, position: int, layer: TracedLayer) -> Branch:
    # What only passes on has one weight for each channel.
    passes = term.weight is None and len(term.sources) == 1
    if position and passes and bool((term.scale == 1).all()):
        return Branch(term.sources, average=term.average, identity=True)
    rows, columns = _weight(term).shape[2:]
    groups = layer.shape[0] if passes else term.groups
    return replace(term.branch, kernel=(rows, columns), groups=groups)


def _weight(term: Term) -> Tensor:
    """The weights of a term; ones, or across a concatenation the unit matrix, where it passes its maps on."""
    if term.weight is not None:
        return term.weight
    channels = len(term.scale)
    matrix = torch.ones(channels, 1) if len(term.sources) == 1 else torch.eye(channels)
    return matrix.double()[:, :, None, None]


def _fill(ann: ANN, traced: Trace, weights: str, exact: bool) -> None:
    """Give a network the weights and the affine maps of the model that was traced."""
    for number, (layer, source) in enumerate(zip(ann.layers, traced.layers, strict=True)):
        if isinstance(layer, Layer):
            _fill_layer(layer, source, ann, "whole" if exact else weights if number else "int8")
    weight, scale = traced.classifier.weight, traced.classifier.scale
    assert weight is not None
    weight, unit = weight * scale[:, None, None, None], whole_unit(traced.classifier)
    unit = int8_scale(weight, per_channel=False).flatten()[0] if unit is None else unit
    raw_weight(ann.classifier).copy_(weight.flatten(1))
    set_unit(ann.classifier, unit)
    if ann.classifier.bias is not None:
        ann.classifier.bias.copy_((traced.bias / (unit * ann.classifier.count)).round())


def _fill_layer(layer: Layer, source: TracedLayer, ann: ANN, how: str) -> None:
    eps = layer.norm.eps if how == "whole" else None
    kept = [term.norm if term.norm is not None and term.norm.eps == eps else None for term in source.terms]
    # Batch norms that stay as they are add what is theirs; the first of the others adds what is left.
    shift = source.shift - sum(factor_and_shift(norm)[1] for norm in kept if norm is not None)
    scales = _rounding(layer, source, ann, how)
    for part, term, norm, (unit, worth) in zip(layer.branch_modules, source.terms, kept, scales, strict=True):
        if part is None:
            continue
        raw_weight(part.conv).copy_(_weight(term))
        set_unit(part.conv, unit)
        if norm is not None:
            part.norm.load_state_dict(norm.state_dict())
        else:
            set_affine(part.norm, worth * term.scale, shift)
            shift = torch.zeros_like(shift)


def _rounding(layer: Layer, source: TracedLayer, ann: ANN, how: str) -> list[tuple[Tensor, Tensor]]:
    """What `_scales` says of each term; of int8 terms that are added, the one is worth 2^n times the other."""
    terms, parts = source.terms, layer.branch_modules
    plain = all(term.weight is None and bool((term.scale == 1).all()) for term in terms)
    found = []
    for part, term in zip(parts, terms, strict=True):
        passes = part is None or plain or (term.weight is None and len(terms) == 1)
        found.append(_scales(_weight(term), "whole" if passes else how))
    if len(terms) > 1 and how == "int8" and not plain:
        # Then it adds to the other by a shift.
        counts = [
            worth * term.scale.abs() * (ann.spec.step(term.sources[0]) / term.average**2)
            for (_, worth), term in zip(found, terms, strict=True)
        ]
        changed = 0 if parts[1] is None else 1
        factor = _to_power_of_two(counts[changed], counts[1 - changed])
        unit, worth = found[changed]
        found[changed] = unit * factor, worth * factor
    return found


def _to_power_of_two(worth: Tensor, other: Tensor) -> Tensor:
    """The factor, from 1 to 2, that makes a worth a power of two of the other one."""
    ratio = other / worth
    usable = torch.isfinite(ratio) & (ratio > 0)
    ratio = torch.where(usable, ratio, 1.0)
    return ratio / 2 ** ratio.log2().floor()


def _scales(weight: Tensor, how: str) -> tuple[Tensor, Tensor]:
    """For each output the unit in which its weights are rounded, and what a rounded weight is worth, [O] each."""
    if how == "whole":
        return torch.ones(len(weight)), torch.ones(len(weight), dtype=weight.dtype)
    if how == "int8":
        scale = int8_scale(weight).flatten()
        return scale, scale
    # Ternary weight networks: 0 below 0.7 · mean|w|, and above it the mean of those that are there.
    magnitude = weight.abs().flatten(1)
    border = TERNARY_RATIO * magnitude.mean(1, keepdim=True)
    kept = magnitude > border
    worth = (magnitude * kept).sum(1) / kept.sum(1).clamp(min=1)
    dead = border.flatten() == 0
    return torch.where(dead, 1.0, 2 * border.flatten()), torch.where(dead, 1.0, worth)


def _correct(ann: ANN, traced: Trace, statistics: dict[int, tuple[Tensor, Tensor]], images: Tensor) -> None:
    """Let batch norms know their statistics, and take from each channel the mean error that rounding made.

    Both are done in one run, layer by layer, so that a layer sees what the ones before it have become.
    """
    handles = [part.norm.register_forward_pre_hook(_measure) for part in ann.parts]
    for number, (layer, source) in enumerate(zip(ann.layers, traced.layers, strict=True)):
        if isinstance(layer, Layer) and not _takes_step(source):
            hook = _centre(layer, statistics[number][0])
            handles.append(layer.activation.register_forward_pre_hook(hook))
    ann.eval()(images)
    for handle in handles:
        handle.remove()


def _measure(norm: Any, inputs: tuple[Tensor]) -> None:
    """Put the statistics of its input into a batch norm, which stays the same map in evaluation mode."""
    variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
    variance = torch.where(variance > 0, variance, 1.0)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    norm.bias.add_(scale * (mean - norm.running_mean))
    norm.weight.copy_(scale * (variance + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)


def _centre(layer: Layer, wanted: Tensor) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
    def hook(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        short = wanted.to(inputs[0]) - inputs[0].mean((0, 2, 3))
        layer.norm.bias.add_(short)
        return inputs[0] + short[:, None, None]

    return hook


@on_cpu
@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def layer_losses(model: nn.Module, ann: ANN, images: Tensor) -> list[LayerLoss]:
    """What each layer of neurons lost when `quantize` made the network `ann` of `model`, on uint8 images.

    images: some dozen; all layers' values are held at once. Raises ValueError for a network of another model.
    """
    images = as_images(images).cpu()
    traced, real = trace(model, images), {}
    theirs, ours = [layer.name for layer in traced.layers], [layer.token for layer in ann.spec.layers]
    if theirs != ours:
        raise ValueError(f"the model has layers {theirs!s:.200}, and the network {ours!s:.200}: give its own model")

    def seen(number: int, value: Tensor) -> None:
        real[number] = value.clamp(traced.layers[number].low, traced.layers[number].high).flatten(1)

    _watch_sums(traced, images, seen)
    made: dict[int, Tensor] = {}
    quantized = copy.deepcopy(ann).cpu().float().eval()
    for number, layer in enumerate(quantized.layers):
        layer.register_forward_hook(lambda _, __, value, number=number: made.update({number: value.flatten(1)}))
    quantized(images)
    losses = []
    for number, source in enumerate(traced.layers):
        if not _takes_step(source):
            error = (made[number] - real[number]).norm() / real[number].norm().clamp(min=1e-15)
            losses.append(LayerLoss(source.name, ann.spec.step(number), *ann.spec.counts(number), float(error)))
    return losses
