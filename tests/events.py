"""Events of a layer, written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ann_snn_utils.measure.events import HIDDEN, LayerEvents


def layer_of(arriving: float, sops: float, spikes: float, steps: int, **changes: Any) -> LayerEvents:
    """A hidden layer whose events, totals of a run, are spread evenly over the steps; no weight is zero."""
    each = {"arriving": arriving, "sops": sops, "effective_sops": sops, "spikes": spikes}
    events = {name: np.full(steps, total / steps) for name, total in each.items()}
    fields: dict[str, Any] = dict(name="layer", kind=HIDDEN, nonzero_macs=None, weight_bits=8, membrane_bits=8)
    fields |= dict(count_bits=0, threshold_bits=8, working=np.ones(steps), taps=1)
    sizes = fields | events | changes
    sizes.setdefault("macs", sizes["synapses"])
    return LayerEvents(**sizes)


def convolution(channels: int, size: int, out: int, kernel: int, stride: int, **events: Any) -> LayerEvents:
    """A convolution of a square map without padding."""
    places = ((size - kernel) // stride + 1) ** 2
    weights = out * channels * kernel**2
    geometry = dict(inputs=channels * size**2, neurons=out * places, channels=out, taps=kernel**2)
    return layer_of(**geometry, weights=weights, synapses=weights * places, **events)


def dense(inputs: int, out: int, **events: Any) -> LayerEvents:
    """A fully connected layer."""
    return layer_of(inputs=inputs, neurons=out, channels=out, weights=inputs * out, synapses=inputs * out, **events)
