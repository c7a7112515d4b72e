"""From a quantized network to an integer spiking network: batch norms become tables of thresholds."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from ..ann.calibrate import quantize
from ..ann.device import on_cpu
from ..ann.graph import Branch, Shape, SynapseSpec
from ..ann.network import ANN, Layer, MaxPool
from ..ann.notation import LARGEST_PIXEL, NETWORKS, NetworkSpec, check_counts, checked_spec
from ..ann.reference import in_float64, reference_of
from ..ann.train import batch_sizes
from ..checks import check, expect
from ..data.dataset import as_images
from .addition import Decision, add_in_integers
from .network import FORMS, REAL_FORMS, SNN, SpikingLayer, Synapses, layer_of_maxima, membrane_range
from .thresholds import Normalization, exact_thresholds, normalization, published_thresholds, real_thresholds

# Entries of an open-ended layer's table.
SHORTEST, LONGEST = 64, 4096


def check_network(
    settings: Mapping[str, Any], in_shape: Shape, classes: int, images: int = 2, hardware: bool = False
) -> NetworkSpec:
    """The spec of the network that a study's parameters ask for; ValueError where it could not be made.

    Takes milliseconds and no memory: what each parameter may be alone `check_settings` says, and here stands what
    depends on the network and its data.

    settings            by the notebooks' names: network, padding, k, ternary, levels, clip, int8_ends, …
    in_shape, classes   of the images as the network will see them
    images              how many the training set has, where that is known
    hardware            whether a bundle will be written, which holds integers only
    """
    notation, own_padding = NETWORKS.get(settings["network"], (settings["network"], "valid"))
    asked = {name: settings[name] for name in ("k", "ternary", "levels", "int8_ends") if name in settings}
    clip, padding = settings.get("clip") or None, settings.get("padding") or own_padding
    spec = checked_spec(NetworkSpec(notation, in_shape, classes, clip=clip, padding=padding, **asked))
    check_counts(spec, settings.get("max_levels") or SHORTEST)
    if "batch_size" in settings:
        batch_sizes(spec, images, settings["batch_size"])
    scales = settings.get("threshold_scale", 1.0)
    if isinstance(scales, list | tuple) and len(scales) != len(spec.layers):
        raise ValueError(
            f"threshold_scale={scales!r:.80}: give one factor, or one for each of {len(spec.layers)} layers"
        )
    if hardware and not spec.int8_ends:
        raise ValueError("int8_ends=False: a hardware bundle holds integers only; set it to true, or leave out 08")
    return spec


def table_length(largest: int) -> int:
    """A `max_levels` with room for counts of `largest` and a third more: 64, doubled up to 4096."""
    length = SHORTEST
    while 4 * largest >= 3 * length and length < LONGEST:
        length *= 2
    return length


@torch.no_grad()
def levels_for(ann: ANN, images: Tensor, batch_size: int = 250) -> int:
    """A `max_levels` for a quantized network and uint8 images [N, C, H, W], from the activations it shows.

    Little training leaves a layer with large counts. Bounds on membranes grow with the tables, so they are no
    longer than that. Where every layer has a clip there is no such table, and nothing to look for. batch_size:
    images at a time.
    """
    if all(ann.spec.counts(index)[1] is not None for index in range(1, len(ann.spec.layers))):
        return SHORTEST
    reference, largest = reference_of(ann), 0.0
    for batch in as_images(images, ann.spec.in_shape).split(check("batch_size", batch_size)):
        _, *hidden = (float(counts.max()) for counts in reference.counts(batch))
        largest = max(largest, *hidden, 0.0)
    return table_length(round(min(largest, LONGEST)))


@on_cpu
@torch.inference_mode(False)
@torch.no_grad()
def convert(ann: ANN, thresholds: str = "exact", max_levels: int = SHORTEST) -> SNN:
    """The spiking network that settles on exactly the codes of a quantized network.

    thresholds: "exact" (integers, ⌈θ_j⌉), "float" (real θ_j in float64), "published" (the baseline, Zou et al.
    2024: hidden layers compare strictly, with the first threshold rounded to an integer and the step to
    1/10 000) or "published-float" (the same neuron without rounding): see `thresholds.published_thresholds`.
    max_levels: length of the threshold table of a layer without a clip, `levels_for` chooses one;
    `simulate` reports a neuron that would need more. A classifier of zeros is warned of. Raises ValueError for a
    network that is not quantized, holds a value that is not finite, or has full-precision hidden weights where
    thresholds are to be exact.

    >>> from ann_snn_utils import build_ann
    >>> snn = convert(build_ann("4C3-P2-16", (1, 8, 8), classes=10, clip=2).eval())
    >>> [(layer.name, layer.weight.dtype, layer.largest_count) for layer in snn.layers][1:]
    [('P2', torch.int8, 2), ('16', torch.int8, 2)]
    >>> snn.integer
    True
    """
    expect(ANN, ann=ann)
    if thresholds not in FORMS:
        raise ValueError(f"thresholds={thresholds!r}: choose one of {', '.join(FORMS)}")
    if not ann.spec.quantized:
        raise ValueError("convert: this network is full precision; train one built with quantized=True")
    max_levels = check("max_levels", max_levels)
    reference, spec = in_float64(ann), ann.spec
    check_counts(spec, max_levels)
    layers: list[SpikingLayer] = []
    for layer in reference.layers:
        layers.append(_spiking_layer(layer, layers, spec, thresholds, max_levels))
    classifier, average = reference.classifier, spec.graph.read_out.average
    weight = classifier.weight.detach().reshape(spec.classes, *spec.graph.inputs)
    if not weight.any():
        # Exact as any other, so that nothing else tells.
        warnings.warn(
            "all weights of the classifier are 0: every image has the same scores; train the network again",
            stacklevel=5,
        )
    # Of an average each place has the same weights, as sums are compared.
    weight = weight.repeat_interleave(average, 2).repeat_interleave(average, 3)
    bias = None if classifier.bias is None else _whole(classifier.whole_bias.detach(), "the classifier's bias")
    return SNN(
        spec,
        tuple(layers),
        _whole(weight, "the classifier").to(torch.int8) if spec.int8_ends else weight,
        thresholds,
        {**ann.metadata, "logit_scale": float(classifier.scale) * classifier.count},
        bias,
    )


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

    >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10))
    >>> ann, snn = convert_module(model, torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    >>> snn.integer
    True
    """
    ann = quantize(model, example_images, levels, weights, percentile)
    return ann, convert(ann, max_levels=levels_for(ann, example_images))


def _whole(values: Tensor, name: str) -> Tensor:
    """The values as int64; ValueError where they are not whole, or so large that float64 rounds them."""
    if bool((values.abs() >= 2**53).any()):
        raise ValueError(
            f"{name} holds {float(values.abs().max()):.3g}, beyond 2^53: the layers before it hardly answer"
        )
    if not torch.equal(values, values.round()):
        raise ValueError(f"{name} holds {float(values[values != values.round()][0])}: give whole numbers")
    return values.long()


def _spiking_layer(
    layer: Layer | MaxPool, before: Sequence[SpikingLayer], spec: NetworkSpec, form: str, max_levels: int
) -> SpikingLayer:
    """Convert the layer that comes behind the layers `before` it."""
    if isinstance(layer, MaxPool):
        return layer_of_maxima(layer.spec, before)
    index, geometry = len(before), layer.spec
    name, encoder = f"layer {index} ({geometry.token})", index == 0
    integer = spec.has_whole_weights(index)
    if not integer and not encoder and form == "exact":
        raise ValueError(
            f"{name} has full-precision weights, and thresholds='exact' needs integer membranes: "
            "build the network with ternary=True or int8_ends=True, or use thresholds='float'"
        )
    least, most = spec.counts(index)
    open_ended = most is None
    longest = (max_levels if most is None else most) - least
    # One level more than the table holds tells whether an open-ended layer could ask for it.
    levels = longest + open_ended
    parts = _parts(layer, name, f"ann.layers[{index}]", spec, integer)
    gains: Sequence[Tensor | None] = [None]
    if len(parts) == 1:
        tables = _tables(parts[0], form, index, spec, levels, before)
    elif len(parts) == 2:
        both, tables = _added(parts, form, index, spec, levels, before)
        gains = list(both)
    else:
        raise ValueError(f"{name} adds up counts of {len(parts)} different steps: give all but two a common step")
    synapses = tuple(
        replace(one, gain=gain) for part, gain in zip(parts, gains, strict=True) for one in part.synapses
    )
    lowest, highest = membrane_range(synapses, before, spec)
    used = int((tables[0] <= highest[:, None]).sum(1).max())
    # Where no level is ever reached, neurons of signed counts still begin at 0 and come down from there.
    length = longest if encoder else max(1, -least, min(longest, used))
    table, *compared = (table[:, :length].contiguous() for table in tables)
    return SpikingLayer(geometry, synapses, table, lowest, highest, used > length and open_ended, *compared)


@dataclass(frozen=True, eq=False)
class _Part:
    """Synapses of a branch that bring counts of one worth.

    norm: the branch's batch norm, None for the identity. turned: its weights were negated where γ < 0. leads:
    whether the constant that the batch norm adds counts here: the first part of a branch leads. unit: what a sum
    of 1 is worth before the batch norm.
    """

    norm: Normalization | None
    turned: bool
    leads: bool
    unit: Fraction
    synapses: tuple[Synapses, ...]

    def slope(self, channel: int) -> Fraction:
        """What a sum of 1 is worth in a channel."""
        if self.norm is None:
            return self.unit
        sign = 1 if self.turned else int(self.norm.sign[channel])
        gamma, _, _, sigma = self.norm.exact(channel)
        return sign * gamma / sigma * self.unit

    def offset(self, channel: int) -> Fraction:
        """What is added in a channel whatever the sum."""
        if self.norm is None or not self.leads:
            return Fraction(0)
        gamma, beta, mean, sigma = self.norm.exact(channel)
        return beta - gamma * mean / sigma


def _parts(layer: Layer, name: str, where: str, spec: NetworkSpec, integer: bool) -> list[_Part]:
    """What the layer, which lies at `where`, adds up; weights of its first branch are negated where γ < 0."""
    parts: list[_Part] = []
    branches = zip(layer.spec.branches, layer.spec.synapses, layer.branch_modules, strict=True)
    for number, (branch, synapses, module) in enumerate(branches):
        norm = None
        weight = torch.ones(layer.spec.out_shape[0], 1, 1, 1, dtype=torch.float64)
        if module is not None:
            norm, weight = normalization(module.norm, name), module.conv.weight.detach()
            if not torch.isfinite(weight).all():
                raise ValueError(f"{name}: a weight is not finite; train the network again")
            weight = weight if number else weight * norm.sign[:, None, None, None]
        if integer:
            whole = _whole(weight, f"{name}: its weight")
            weight = whole.to(torch.int8)
            # Older networks may have −128, which int8 does not hold negated.
            if len(beyond := whole[weight != whole]):
                raise ValueError(
                    f"{name}: where its batch norm is negative, a weight becomes {int(beyond[0])}, beyond int8: "
                    f"call {where}.conv.parametrizations.weight[0].lowest.fill_(-127) and test it again"
                )
        of_unit: dict[Fraction, list[Synapses]] = {}
        for one, own in zip(synapses, _of_sources(weight, branch, synapses), strict=True):
            worth = Fraction(1, LARGEST_PIXEL) if one.source < 0 else Fraction(spec.step(one.source))
            unit = worth / (spec.amplitude(one.source) * branch.average**2)
            of_unit.setdefault(unit, []).append(Synapses(one, own.contiguous()))
        for unit, brought in of_unit.items():
            leads = unit == next(iter(of_unit))
            parts.append(_Part(norm, number == 0, leads, unit, tuple(brought)))
    return parts


def _of_sources(weight: Tensor, branch: Branch, synapses: Sequence[SynapseSpec]) -> Iterable[Tensor]:
    """The weights [O, I / groups, kh, kw] of a branch for each of its sources, straight from their maps."""
    if branch.average > 1:
        outputs, inputs, rows, columns = weight.shape
        d, p = branch.dilation, branch.average
        spread = weight.new_zeros(outputs, inputs, (rows - 1) * d + 1, (columns - 1) * d + 1)
        spread[:, :, ::d, ::d] = weight
        weight = spread.repeat_interleave(p, 2).repeat_interleave(p, 3)
    if len(synapses) == 1:
        return [weight]
    return weight.split([one.in_shape[0] for one in synapses], 1)


def _tables(
    part: _Part, form: str, index: int, spec: NetworkSpec, levels: int, before: Sequence[SpikingLayer]
) -> list[Tensor]:
    """Thresholds of a layer of one part, and those of the published neuron where the form asks for them."""
    norm, (least, _), step = part.norm, spec.counts(index), Fraction(spec.step(index))
    assert norm is not None
    n, scale = 1 / step, step / part.unit
    lowest, highest = membrane_range(part.synapses, before, spec)
    integer = not part.synapses[0].weight.is_floating_point()
    real = real_thresholds(norm, n, levels, scale, least)
    if form.startswith("published") and index > 0:
        reach = (lowest, highest) if integer and form == "published" else None
        return published_thresholds(real, norm.sigma / norm.gamma * float(scale), form == "published", reach)
    if form in REAL_FORMS or not integer:
        return [real]
    return [exact_thresholds(norm, n, levels, lowest, highest, scale, least)]


def _added(
    parts: Sequence[_Part], form: str, index: int, spec: NetworkSpec, levels: int, before: Sequence[SpikingLayer]
) -> tuple[Tensor, list[Tensor]]:
    """The gains [2, O] of a layer of two parts, and its thresholds as `_tables` gives them."""
    (least, _), step = spec.counts(index), Fraction(spec.step(index))
    ranges = [membrane_range(part.synapses, before, spec) for part in parts]
    decisions = []
    for channel in range(len(ranges[0][0])):
        us, ss = ((int(low[channel]), int(high[channel])) for low, high in ranges)
        first = (least + Fraction(1, 2)) * step - sum(part.offset(channel) for part in parts)
        slopes = parts[0].slope(channel), parts[1].slope(channel)
        decisions.append(Decision(slopes, first, step, levels, (us, ss)))
    # In units of the first sum, or of the second where the first one does not matter.
    units = [one.slopes[0] or abs(one.slopes[1]) for one in decisions]
    pairs = list(zip(decisions, units, strict=True))
    ratios = [[float(slope / unit) if unit else 0.0 for slope in one.slopes] for one, unit in pairs]
    gains = torch.tensor(ratios, dtype=torch.float64).T.contiguous()
    real = torch.tensor([_real_levels(*pair) for pair in pairs], dtype=torch.float64)
    climb = torch.tensor([float(step / unit) if unit else torch.inf for unit in units], dtype=torch.float64)
    if form == "float":
        return gains, [real]
    if form == "published-float":
        return gains, published_thresholds(real, climb, rounded=False)
    added = add_in_integers(decisions, least, f"layer {index} ({spec.layers[index].token})")
    if form == "exact":
        return added.gains, [added.thresholds]
    gained = (
        replace(one, gain=gain) for part, gain in zip(parts, added.gains, strict=True) for one in part.synapses
    )
    scale = 2**added.bits
    reach = membrane_range(tuple(gained), before, spec)
    return added.gains, published_thresholds(real * scale, climb * scale, True, reach)


def _real_levels(decision: Decision, unit: Fraction) -> list[float]:
    levels = (decision.first + i * decision.step for i in range(decision.levels))
    if not unit:
        return [-torch.inf if level <= 0 else torch.inf for level in levels]
    return [float(level / unit) for level in levels]
