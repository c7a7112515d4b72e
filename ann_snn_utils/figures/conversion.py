"""Figures of the conversion: thresholds over the membrane, code mismatches, bit widths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ..snn.network import SpikingLayer
from .template import FORMS, INK, add_line, add_points, blank, layer_bars, stairs

# Jumps of a staircase that decide how much of the membrane's range is shown.
_STEPS = 6


def threshold_staircase(
    layer: SpikingLayer,
    channels: Sequence[int] = (0, 1, 2),
    real: SpikingLayer | None = None,
    published: SpikingLayer | None = None,
) -> go.Figure:
    """The count as a function of the membrane U for some channels, over their first six steps.

    layer: exact integer thresholds, drawn as the staircase. real, published: the same layer converted with
    float and with published thresholds; the real θ_j appear as diamonds, halfway up the step that they cause, the
    published ones as a second, dashed staircase.
    """
    figure = blank(
        f"{layer.name}: spike count over the membrane",
        columns=len(channels),
        height=400,
        subtitles=[f"channel {channel}" for channel in channels],
        shared_yaxes=True,
        horizontal_spacing=0.05,
    )
    stairs = [("exact", "exact: integer ⌈θ⌉", layer, "solid", 2.5)]
    if published is not None:
        stairs.append(("published", "published rounding", published, "dash", 1.5))
    for column, channel in enumerate(channels, 1):
        low, high = _window(layer, channel)
        place: dict[str, Any] = dict(panel=column, showlegend=column == 1)
        for form, name, one, dash, width in stairs:
            hover = f"channel {channel}<br>U = %{{x}}<br>count %{{y}}<extra>{form}</extra>"
            x, y = _corners(one, channel, low, high)
            add_line(figure, name, FORMS[form], dash, width, hover, x=x, y=y, legendgroup=form, **place)
        if real is not None:
            theta = np.asarray(real.thresholds[channel], dtype=np.float64)
            inside = (theta >= low) & (theta <= high)
            counts = layer.spec.lowest + np.flatnonzero(inside)
            middles = dict(x=theta[inside], y=counts + 0.5, legendgroup="real") | place
            hover = f"channel {channel}<br>θ = %{{x:.4f}}<extra>real</extra>"
            add_points(figure, "real θ", "diamond-open", 9, FORMS["float"], hover, 2, **middles)
    figure.update_xaxes(title_text="membrane U")
    figure.update_yaxes(title_text="net spike count n", col=1)
    figure.update_yaxes(dtick=1)
    return figure.update_layout(margin_t=66)


def _reachable(layer: SpikingLayer, channel: int) -> np.ndarray:
    # The membranes that send a spike, which are above the thresholds of the published neuron.
    table = np.asarray(layer.compared[0][channel], dtype=np.float64)
    return table[table <= int(layer.highest[channel])]


def _window(layer: SpikingLayer, channel: int) -> tuple[int, int]:
    """The membranes to show: around the channel's first jumps within its reach."""
    lowest, highest = int(layer.lowest[channel]), int(layer.highest[channel])
    table = _reachable(layer, channel)[:_STEPS]
    jumps = table[table > lowest]
    # A channel that always fires, or never, has no jump inside its reach.
    if not len(jumps):
        return max(lowest, -5), min(highest, 5)
    margin = max(2, round((jumps[-1] - jumps[0]) / len(jumps)))
    return max(lowest, int(jumps[0]) - margin), min(highest, int(jumps[-1]) + margin)


def _corners(layer: SpikingLayer, channel: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the staircase n(U) = lowest count + #{j: U ≥ θ_j} from `low` to `high`."""
    table = _reachable(layer, channel)
    start = int((table <= low).sum())
    jumps = table[start:][table[start:] <= high]
    counts = layer.spec.lowest + np.arange(start, start + len(jumps) + 1)
    return stairs(low, jumps, high, counts)


def mismatch_bars(
    mismatches: Mapping[str, Sequence[int]], layer_names: Sequence[str], neurons: Sequence[int]
) -> go.Figure:
    """The share of wrong codes in each layer, a bar for each threshold form.

    mismatches: form → wrong codes per layer. neurons: codes compared per layer (neurons · samples).
    """
    pairs = {
        form: [[int(w), int(n)] for w, n in zip(wrong, neurons, strict=True)] for form, wrong in mismatches.items()
    }
    shares = {form: [100 * w / n for w, n in layers] for form, layers in pairs.items()}
    figure = layer_bars(
        "Codes that differ from the quantized network's",
        layer_names,
        shares,
        "share of codes that differ",
        "%{customdata[0]:,} of %{customdata[1]:,} codes differ (%{y:.3g} %)<extra>{name}</extra>",
        customdata=list(pairs.values()),
        text=[[f"{value:.2g} %" if value else "0" for value in row] for row in shares.values()],
        textposition="outside",
        textangle=0,
        textfont_size=11,
        constraintext="none",
        cliponaxis=False,
    )
    return figure.update_yaxes(ticksuffix=" %")


def bit_widths(
    widths: Mapping[str, Sequence[int]], layer_names: Sequence[str], title: str = "Bits that each layer needs"
) -> go.Figure:
    """Bits per layer, a bar for each quantity: quantity → whole number of bits for every layer.

    Fit for membrane (worst case), membrane (observed), threshold, spike count and fractional bits.
    """
    figure = layer_bars(
        title,
        layer_names,
        widths,
        "bits",
        "{name}: %{y} bits<extra></extra>",
        text=[[str(int(b)) for b in bits] for bits in widths.values()],
        textposition="outside",
        cliponaxis=False,
    )
    widest = max((int(b) for row in widths.values() for b in row), default=0)
    for width in (8, 16, 32):
        if width <= widest:
            look: dict[str, Any] = dict(annotation_text=f"{width} bits", annotation_position="top right")
            figure.add_hline(width, line=dict(color=INK, dash="dot", width=1), layer="below", **look)
    return figure
