"""The integer spiking network as data: weights, threshold tables and membrane bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..ann.notation import LayerSpec, NetworkSpec


def worst_case(weight: Tensor, largest: Tensor) -> tuple[Tensor, Tensor]:
    """The least and greatest membrane of each channel, int64 [O], for inputs from 0 to `largest` [I]."""
    reach = weight.double() * largest.double()[None, :, None, None]
    if float(reach.abs().sum((1, 2, 3)).max()) >= 2**53:
        raise ValueError("membranes of 2^53 and more cannot be computed exactly: use fewer or smaller inputs")
    return reach.clamp(max=0).sum((1, 2, 3)).floor().long(), reach.clamp(min=0).sum((1, 2, 3)).ceil().long()


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


FORMS = ("exact", "published", "float", "published-float")

# Forms whose thresholds are real numbers.
REAL_FORMS = ("float", "published-float")


@dataclass(frozen=True, eq=False)
class SpikingLayer:
    """One layer of neurons that share a convolution.

    weight: int8 [O, I, kh, kw] (float64 where full precision). thresholds: [O, J], θ_j in column j − 1,
    int64, or float64 for real thresholds; a neuron counts at most J spikes. lowest, highest: worst-case
    membrane of each channel, int64 [O]. saturates: a larger count than J could be asked for.
    rising, falling: of the published neuron only, like `thresholds`: it sends its n-th spike where U ≥ rising_n
    and takes it back where U < falling_n; the design's neuron does both at thresholds_n.
    """

    spec: LayerSpec
    weight: Tensor
    thresholds: Tensor
    lowest: Tensor
    highest: Tensor
    saturates: bool = False
    rising: Tensor | None = None
    falling: Tensor | None = None

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
        channels, height, width = self.spec.out_shape
        return channels * height * width

    @property
    def reachable(self) -> Tensor:
        """The largest net spike count that a neuron of each channel can reach, int64 [O]."""
        return (self.thresholds <= self.highest[:, None]).sum(1)

    @property
    def largest_count(self) -> int:
        """The largest net spike count that any neuron of the layer can reach."""
        return int(self.reachable.max())

    @property
    def fan_out(self) -> Tensor:
        """Synapses that a spike of each input neuron reaches, int64 [I, H, W]: fewer at the map's border."""
        return self._fan_out("all", lambda weight: torch.ones_like(weight))

    @property
    def effective_fan_out(self) -> Tensor:
        """Synapses with a weight other than zero that a spike of each input neuron reaches, int64 [I, H, W]."""
        return self._fan_out("other than 0", lambda weight: weight != 0)

    def _fan_out(self, which: str, synapses: Callable[[Tensor], Tensor]) -> Tensor:
        def reached() -> Tensor:
            outputs = torch.ones(1, *self.spec.out_shape, dtype=torch.float64)
            counted = synapses(self.weight).double()
            return F.conv_transpose2d(outputs, counted, None, self.spec.stride, self.spec.padding)[0].round().long()

        return memoized(self.weight, (which, self.spec), reached)


@dataclass(frozen=True, eq=False)
class SNN:
    """An integer spiking network: `layers` (encoder first) and the `classifier`, int8 [classes, C, H, W].

    spec says how the network was built, `thresholds` (one of FORMS) how it was converted;
    `metadata` holds JSON values, among them `logit_scale`: ANN logit = logit_scale · integer score.
    """

    spec: NetworkSpec
    layers: tuple[SpikingLayer, ...]
    classifier: Tensor
    thresholds: str = "exact"
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def k(self) -> int:
        """Quantization level: hidden counts are in units of 2^-k."""
        return self.spec.k

    @property
    def levels(self) -> int:
        """Number of steps in which the encoding layer may fire."""
        return self.spec.levels

    @property
    def amplitude(self) -> int:
        """Counts that one spike of the encoding layer carries, 2^k."""
        return 2**self.spec.k

    @property
    def integer(self) -> bool:
        """True where no tensor of the network is floating point."""
        tensors = [self.classifier, *(t for layer in self.layers for t in (layer.weight, layer.thresholds))]
        return not any(t.is_floating_point() for t in tensors)

    @property
    def sufficient_steps(self) -> int:
        """Steps after which every input has settled: levels + Σ over hidden layers of the largest count."""
        return self.levels + sum(layer.largest_count for layer in self.layers[1:])


def smallest_integer(lowest: int, highest: int) -> torch.dtype:
    """The smallest signed integer dtype that holds lowest … highest; ValueError beyond 64 bits."""
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64):
        if torch.iinfo(dtype).min <= lowest and highest <= torch.iinfo(dtype).max:
            return dtype
    raise ValueError(f"no 64-bit integer holds {lowest} … {highest}: use fewer levels or smaller weights")
