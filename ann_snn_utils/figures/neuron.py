"""The figure of one neuron: its membrane between the two moving thresholds, its spikes, its count."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .template import BAND, BLUE, GREEN, ORANGE, PURPLE, SPIKES, add_line, add_points, blank, time_axis


def neuron_trace(
    membrane: Sequence[float],
    spikes: Sequence[int],
    thresholds: Sequence[float],
    ann_code: int | None = None,
    settled_at: int | None = None,
    encoder: bool = False,
    lowest: int = 0,
) -> go.Figure:
    """One neuron over time: U between its thresholds θ_n and θ_{n+1}, its spikes, and its count below.

    membrane, spikes (−1, 0, +1): one value for each of T steps. thresholds: θ_j of the neuron's channel, from
    j = lowest + 1 on; lowest is the layer's least count. At each step the neuron compares U with the thresholds of
    the count n it had before; while U stays inside the shaded band it is silent. encoder: the threshold climbs by
    itself, θ_t at step t. ann_code: the quantized network's code. settled_at: as in Record; a star marks the step
    after it, the sample's first silent one.
    """
    u, fires = np.asarray(membrane, dtype=np.float64), np.asarray(spikes, dtype=np.int64)
    steps = len(u)
    counts = fires.cumsum()
    # θ_j at place j − lowest; there is none for the least count, or beyond the last.
    known = np.asarray(thresholds, dtype=np.float64).tolist()
    theta = [None, *(j if isfinite(j) else None for j in known), *[None] * steps]
    before = np.arange(steps) if encoder else np.concatenate([[0], counts[:-1]])
    upper = [theta[n + 1 - lowest] for n in before]
    lower = [None if encoder else theta[n - lowest] for n in before]
    low, high = _reach(u, [v for v in (*upper, *lower) if v is not None])
    floors = [low if v is None else max(low, v) for v in lower]
    ceilings = [high if v is None else min(high, v) for v in upper]
    t = np.arange(1, steps + 1)
    edges = [edge for step in t.tolist() for edge in (step - 0.5, step + 0.5)]
    silent = [settled_at + 1] if settled_at and settled_at < steps else []
    largest = max(1, int(counts.max(initial=0)), int(ann_code or 0))
    panels: dict[str, Any] = dict(shared_xaxes=True, row_heights=(0.7, 0.3), vertical_spacing=0.07)
    figure = blank("The moving threshold", 2, height=480, **panels)
    band: dict[str, Any] = dict(x=edges + edges[::-1], y=_twice(ceilings) + _twice(floors)[::-1], panel=1)
    add_line(figure, "silent inside", width=0, fill="toself", fillcolor=BAND, **band)
    hover = "step %{customdata}<br>threshold %{y:.6g}"
    compared: dict[str, Any] = dict(x=edges, customdata=_twice(t.tolist()), panel=1)
    climbing = "θ<sub>t</sub>: climbs" if encoder else "θ<sub>n+1</sub>: +1 from here"
    add_line(figure, climbing, GREEN, hover=hover, y=_twice(upper), showlegend=True, **compared)
    falling = "θ<sub>n</sub>: −1 below"
    add_line(figure, falling, ORANGE, "dash", hover=hover, y=_twice(lower), showlegend=not encoder, **compared)
    hover = "step %{x}<br>U = %{y:.6g}"
    add_line(figure, "membrane U", hover=hover, x=t, y=u, mode="lines+markers", marker_size=6, panel=1)
    for sign, (said, (symbol, color)) in zip((1, -1), SPIKES.items(), strict=True):
        where = np.flatnonzero(fires == sign)
        hover = f"step %{{x}}: spike {sign:+d}<br>count is now %{{customdata}}"
        fired = dict(x=where + 1, y=u[where], customdata=counts[where], marker_line_color="white", panel=1)
        add_points(figure, f"spike {said}", symbol, 14, color, hover, 1, **fired)
    hover = "after step %{x}<br>count %{y}"
    counted: dict[str, Any] = dict(x=t, y=counts, mode="lines+markers", line_shape="hvh", panel=2)
    add_line(figure, "count n", BLUE, hover=hover, **counted)
    if ann_code is not None:
        code = dict(x=[0.5, steps + 0.5], y=[int(ann_code)] * 2, panel=2)
        add_line(figure, "ANN's code", PURPLE, "dot", 3, "ANN code %{y}", **code)
    hover = "the whole sample is silent<br>from step %{x} on"
    star = dict(x=silent, y=[int(counts[step - 1]) for step in silent], panel=2)
    add_points(figure, "sample silent", "star", 14, ORANGE, hover, 1, **star)
    figure.update_xaxes(**time_axis(steps))
    figure.update_xaxes(title_text=None, row=1)
    figure.update_yaxes(title_text="membrane U (weight units)", range=[low, high], row=1)
    ends = [min(0, int(counts.min(initial=0))) - 0.3, largest + 0.5]
    return figure.update_yaxes(title_text="count n", range=ends, dtick=max(1, -(-largest // 4)), row=2)


def _twice(values: Sequence) -> list:
    return [value for value in values for _ in range(2)]


def _reach(membrane: np.ndarray, thresholds: Sequence[float]) -> tuple[float, float]:
    """The y range: the membrane, and those thresholds that do not dwarf it."""
    low, high = min(0.0, float(membrane.min())), max(0.0, float(membrane.max()))
    span = max(high - low, 4.0)
    near = [v for v in thresholds if low - 1.5 * span <= v <= high + 1.5 * span]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.12 * (high - low) - 0.5, high + 0.12 * (high - low) + 0.5
