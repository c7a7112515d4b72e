"""The integer spiking network as data: weights, threshold tables and membrane bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..ann.graph import LayerSpec, SynapseSpec
from ..ann.notation import LARGEST_PIXEL, NetworkSpec


def worst_case(
    weight: Tensor, largest: Tensor, least: Tensor | None = None, groups: int = 1
) -> tuple[Tensor, Tensor]:
    """The least and greatest sum of each channel, int64 [O], of weights [O, I / groups, kh, kw].

    largest, least: ends of each input channel's range, [I]; 0 where no least ones are given.
    """
    ends = []
    for end in (largest, torch.zeros_like(largest) if least is None else least):
        if not end.any():
            # Of most layers the least count is 0, which needs no product of every weight.
            ends.append(torch.zeros((), dtype=torch.float64).expand(weight.shape))
            continue
        of_group = end.double().view(groups, 1, -1).expand(-1, len(weight) // groups, -1).flatten(0, 1)
        ends.append(weight.double() * of_group[:, :, None, None])
    if float(torch.maximum(*(end.abs() for end in ends)).sum((1, 2, 3)).max()) >= 2**53:
        raise ValueError("membranes of 2^53 and more cannot be computed exactly: use fewer or smaller inputs")
    return torch.minimum(*ends).sum((1, 2, 3)).floor().long(), torch.maximum(*ends).sum((1, 2, 3)).ceil().long()


_MADE: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def memoized(tensor: Tensor, key: tuple, make: Callable[[], Any]) -> Any:
    """What `make` makes of a tensor, made once for a key and as long as the tensor stays as it is."""
    # Networks that differ in thresholds only, as under a slider, share what depends on the weights. A tensor
    # that was changed in place has another version.
    made = _MADE.setdefault(tensor, {})
    key = (tensor._version, *key)
    if key not in made:
        made[key] = make()
    return made[key]


def column_sums(spec: SynapseSpec, inputs: Tensor, weight: Tensor) -> Tensor:
    """Σ w·m [N, O, H, W] of inputs [N, I, H, W] as one matrix product for each group.

    It only multiplies and adds: of integers it is exact in any order, where the largest sum of magnitudes is.
    """
    around, groups, (_, *sides) = [spec.padding] * 4, spec.groups, spec.out_shape
    rows, columns = ((k - 1) * spec.dilation + 1 for k in spec.kernel)
    windows = F.pad(inputs, around).unfold(2, rows, spec.stride).unfold(3, columns, spec.stride)
    windows = windows[..., :: spec.dilation, :: spec.dilation].unflatten(1, (groups, -1))
    # What each place of the map sees, [G, N·H·W, I / G · kh · kw].
    seen = windows.permute(1, 0, 3, 4, 2, 5, 6).flatten(4).flatten(1, 3)
    sums = seen @ weight.unflatten(0, (groups, -1)).flatten(2).mT
    return sums.unflatten(1, (len(inputs), *sides)).permute(1, 0, 4, 2, 3).flatten(1, 2)


FORMS = ("exact", "published", "float", "published-float")

# Forms whose thresholds are real numbers.
REAL_FORMS = ("float", "published-float")


@dataclass(frozen=True, eq=False)
class Synapses:
    """All synapses from one layer to another: they share a convolution.

    weight: int8 [O, I / groups, kh, kw] (float64 where full precision). gain: int64 [O], by which each channel's
    sum is multiplied before it adds to the membrane (float64 for real thresholds); None is 1.
    """

    spec: SynapseSpec
    weight: Tensor
    gain: Tensor | None = None

    def sums(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """Σ w·m [N, O, H, W] of inputs [N, I, H, W], with weights in place of its own."""
        spec = self.spec
        if inputs.is_cuda:
            # A convolution of cuDNN may go by Winograd or FFT, which round integers too.
            return column_sums(spec, inputs, weight)
        return F.conv2d(inputs, weight, None, spec.stride, spec.padding, spec.dilation, spec.groups)

    @property
    def fan_out(self) -> Tensor:
        """Synapses that a spike of each input neuron reaches, int64 [I, H, W]: fewer at the map's border."""
        return self._fan_out("all", torch.ones_like)

    @property
    def effective_fan_out(self) -> Tensor:
        """Synapses with a weight other than zero that a spike of each input neuron reaches, int64 [I, H, W]."""
        return self._fan_out("other than 0", lambda weight: weight != 0)

    def _fan_out(self, which: str, synapses: Callable[[Tensor], Tensor]) -> Tensor:
        def reached() -> Tensor:
            spec, outputs = self.spec, torch.ones(1, *self.spec.out_shape, dtype=torch.float64)
            sides = zip(spec.in_shape[1:], spec.kernel, strict=True)
            left = [(i + 2 * spec.padding - (k - 1) * spec.dilation - 1) % spec.stride for i, k in sides]
            counted = synapses(self.weight).double()
            geometry = spec.stride, spec.padding, left, spec.groups, spec.dilation
            return F.conv_transpose2d(outputs, counted, None, *geometry)[0].round().long()

        return memoized(self.weight, (which, self.spec), reached)


@dataclass(frozen=True, eq=False)
class SpikingLayer:
    """One layer of neurons that share their synapses' convolutions.

    synapses: what reaches its membranes; the membrane is the sum of all, or, in a layer of spec.kind "maximum", the
    largest count within a window. thresholds: [O, J], θ_j in column j − 1 − lowest count, int64, or float64 for
    real thresholds; a neuron counts from spec.lowest over J spikes at most. lowest, highest: worst-case membrane of
    each channel, int64 [O]. saturates: a membrane within them could ask for a larger count than the table holds.
    rising, falling: of the published neuron only, like `thresholds`: it sends its n-th spike where U ≥ rising_n and
    takes it back where U < falling_n; the design's neuron does both at thresholds_n.
    """

    spec: LayerSpec
    synapses: tuple[Synapses, ...]
    thresholds: Tensor
    lowest: Tensor
    highest: Tensor
    saturates: bool = False
    rising: Tensor | None = None
    falling: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """Weights of its first synapses, [O, I / groups, kh, kw]: of all of them in a chain of layers."""
        return self.synapses[0].weight

    @property
    def gains(self) -> list[Tensor]:
        """For each of its synapses the factor of each channel, int64 or float64 [O]."""
        ones = torch.ones(len(self.weight), dtype=torch.int64)
        return [ones if one.gain is None else one.gain for one in self.synapses]

    @property
    def compared(self) -> tuple[Tensor, Tensor]:
        """What the membrane is compared with before a +1 and before a −1: two tables like `thresholds`."""
        if self.rising is None or self.falling is None:
            return self.thresholds, self.thresholds
        return self.rising, self.falling

    @property
    def name(self) -> str:
        """The layer's token in the network notation."""
        return self.spec.token

    @property
    def neurons(self) -> int:
        """Number of neurons, C · H · W of the output."""
        return prod(self.spec.out_shape)

    @property
    def table_end(self) -> int:
        """The count behind which a neuron that saturates has no threshold."""
        return self.thresholds.shape[1] + self.spec.lowest

    @property
    def factors(self) -> list[Tensor]:
        """What its inputs are multiplied by: the weights of all synapses, and their gains where they have some."""
        return [t for one in self.synapses for t in (one.weight, one.gain) if t is not None]

    @property
    def integer(self) -> bool:
        """True where none of its tensors is floating point."""
        return not any(tensor.is_floating_point() for tensor in (self.thresholds, *self.factors))

    @property
    def reachable(self) -> Tensor:
        """The largest net spike count that a neuron of each channel can reach, int64 [O]."""
        return (self.spec.lowest + (self.thresholds <= self.highest[:, None]).sum(1)).clamp(min=0)

    @property
    def least_reachable(self) -> Tensor:
        """The least net spike count that a neuron of each channel can reach, int64 [O]; it begins with 0."""
        return (self.spec.lowest + (self.thresholds <= self.lowest[:, None]).sum(1)).clamp(max=0)

    @property
    def moves(self) -> int:
        """The most steps that a neuron takes from its first spike to its last count, once its input stays."""
        ends = (self.lowest, self.highest)
        key = ("moves", self.spec.lowest, *ends, *(end._version for end in ends))
        return memoized(self.thresholds, key, lambda: int((self.reachable - self.least_reachable).max()))

    @property
    def largest_count(self) -> int:
        """The largest net spike count that any neuron of the layer can reach."""
        return int(self.reachable.max())

    @property
    def counts(self) -> tuple[int, int]:
        """The least and the largest net spike count that any neuron of the layer can reach."""
        return int(self.least_reachable.min()), self.largest_count

    @property
    def membrane(self) -> tuple[int, int]:
        """The least and the greatest membrane of any neuron of the layer, in the worst case."""
        return int(self.lowest.min()), int(self.highest.max())


def membrane_range(
    synapses: Sequence[Synapses], before: Sequence[SpikingLayer], spec: NetworkSpec
) -> tuple[Tensor, Tensor]:
    """The least and greatest membrane of each channel, int64 [O], whatever the layers `before` it count."""
    lowest, highest = torch.zeros((2, len(synapses[0].weight)), dtype=torch.int64)
    for one in synapses:
        if one.spec.source < 0:
            largest, least = torch.full(one.spec.in_shape[:1], LARGEST_PIXEL), None
        else:
            source, amplitude = before[one.spec.source], spec.amplitude(one.spec.source)
            largest, least = amplitude * source.reachable, amplitude * source.least_reachable
        ends = worst_case(one.weight, largest, least, one.spec.groups)
        if one.gain is not None:
            both = torch.stack([one.gain * end for end in ends])
            ends = both.amin(0).floor().long(), both.amax(0).ceil().long()
        lowest, highest = lowest + ends[0], highest + ends[1]
    return lowest, highest


def layer_of_maxima(geometry: LayerSpec, before: Sequence[SpikingLayer]) -> SpikingLayer:
    """Neurons whose membrane is the largest count in a window, and whose thresholds are the counts themselves."""
    ((spec,),) = geometry.synapses
    source = before[spec.source]
    channels, levels = source.thresholds.shape
    counts = (torch.arange(1, levels + 1) + geometry.lowest).expand(channels, -1).contiguous()
    windows = Synapses(spec, torch.ones(channels, 1, *spec.kernel, dtype=torch.int8))
    return SpikingLayer(geometry, (windows,), counts, source.least_reachable, source.reachable)


@dataclass(frozen=True, eq=False)
class SNN:
    """An integer spiking network: `layers` (encoder first) and the `classifier`, int8 [classes, C, H, W].

    bias: where class scores begin, int64 [classes], or None for 0. spec says how the network was built,
    `thresholds` (one of FORMS) how it was converted; `metadata` holds JSON values, among them `logit_scale`: ANN
    logit = logit_scale · integer score.

    Tensors may be changed in place between runs, such as `snn.classifier[0] = 0`. Torch does not notice what is
    written through `.data` or NumPy, and a network that was run before would run as it was: put a new tensor in.
    """

    spec: NetworkSpec
    layers: tuple[SpikingLayer, ...]
    classifier: Tensor
    thresholds: str = "exact"
    metadata: dict[str, Any] = field(default_factory=dict)
    bias: Tensor | None = None

    @property
    def k(self) -> int:
        """Quantization level: hidden counts are in units of 2^-k."""
        return self.spec.k

    @property
    def levels(self) -> int:
        """Number of steps in which the encoding layer may fire."""
        return self.spec.levels

    @cached_property
    def amplitude(self) -> int:
        """Counts that one spike of the encoding layer carries, 2^k."""
        return self.spec.amplitude(0)

    @property
    def integer(self) -> bool:
        """True where no tensor of the network is floating point."""
        return not self.classifier.is_floating_point() and all(layer.integer for layer in self.layers)

    @cached_property
    def layer_names(self) -> tuple[str, ...]:
        """The name of each layer, encoder first."""
        return tuple(layer.name for layer in self.layers)

    @cached_property
    def neurons(self) -> tuple[int, ...]:
        """How many neurons each layer has."""
        return tuple(layer.neurons for layer in self.layers)

    def to(self, device: torch.device) -> SNN:
        """The network with all tensors on an accelerator: each goes there once, as long as it stays as it is."""

        def moved(value: Any) -> Any:
            if isinstance(value, Tensor):
                return memoized(value, ("on", device), lambda: value.to(device))
            if isinstance(value, tuple):
                return tuple(map(moved, value))
            if isinstance(value, (SNN, SpikingLayer, Synapses)):
                return replace(value, **{part.name: moved(getattr(value, part.name)) for part in fields(value)})
            return value

        return moved(self)

    @cached_property
    def sufficient_steps(self) -> int:
        """Steps after which every input has settled: levels + the most that counts move along any path of layers.

        Once all that a layer reads stays, each of its neurons goes straight to its last count, one a step. Maxima
        follow within the step.
        """
        settled: list[int] = []
        for layer in self.layers:
            before = max((settled[source] for source in layer.spec.sources if source >= 0), default=self.levels)
            settled.append(before + (layer.moves if settled and layer.spec.kind == "neurons" else 0))
        return max(settled)


def smallest_integer(lowest: int, highest: int) -> torch.dtype:
    """The smallest signed integer dtype that holds lowest … highest; ValueError beyond 64 bits."""
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        if torch.iinfo(dtype).min <= lowest and highest <= torch.iinfo(dtype).max:
            return dtype
    raise ValueError(f"no 64-bit integer holds {lowest} … {highest}: use fewer levels or smaller weights")
