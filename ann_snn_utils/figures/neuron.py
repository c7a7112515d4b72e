"""The figure of one neuron: its membrane between the two moving thresholds, its spikes, its count."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .template import BAND, BLUE, GREEN, INK, ORANGE, PURPLE, SPIKES, add_line, add_points, blank, fill, time_axis


def neuron_trace(
    membrane: Sequence[float],
    spikes: Sequence[int],
    thresholds: Sequence[float],
    ann_code: int | None = None,
    settled_at: int | None = None,
    until: int | None = None,
    encoder: bool = False,
    name: str = "neuron",
) -> go.Figure:
    """One neuron over time: U between its thresholds θ_n and θ_{n+1}, its spikes, and its count below.

    membrane, spikes (−1, 0, +1): one value for each of T steps. thresholds: θ_j of the neuron's channel, j =
    1 … J. At each step the neuron compares U with the thresholds of the count n it had before; while U stays
    inside the shaded band it is silent. encoder: the threshold climbs by itself, θ_t at step t.
    ann_code: the quantized network's code. settled_at: as in Record; a star marks the step after it, the
    sample's first silent one. until: draw only the first steps; the axes stay those of the whole run.
    """
    u, fires = np.asarray(membrane, dtype=np.float64), np.asarray(spikes, dtype=np.int64)
    theta = np.asarray(thresholds, dtype=np.float64)
    steps = len(u)
    drawn = steps if until is None else max(1, min(int(until), steps))
    counts = fires.cumsum()
    before = np.concatenate([[0], counts[:-1]])
    if encoder:
        upper = [float(theta[t]) if t < len(theta) else None for t in range(steps)]
        lower: list[float | None] = [None] * steps
    else:
        upper = [_finite(theta[n]) if 0 <= n < len(theta) else None for n in before]
        lower = [_finite(theta[n - 1]) if 0 < n <= len(theta) else None for n in before]
    low, high = _reach(u, [v for v in (*upper, *lower) if v is not None])
    floors = [low if v is None else max(low, v) for v in lower[:drawn]]
    ceilings = [high if v is None else min(high, v) for v in upper[:drawn]]
    t = np.arange(1, drawn + 1)
    edges = [edge for step in range(1, drawn + 1) for edge in (step - 0.5, step + 0.5)]
    code = [] if ann_code is None else [int(ann_code)] * 2
    silent = [settled_at + 1] if settled_at and settled_at < drawn else []
    largest = max(1, int(counts.max(initial=0)), int(ann_code or 0))

    def threshold(values: Sequence[float | None]) -> dict[str, Any]:
        hover = "<br>step %{customdata}<br>threshold %{y:.6g}"
        return dict(x=edges, y=_twice(values[:drawn]), customdata=_twice(t.tolist())) | said(hover)

    def fired(sign: int) -> dict[str, Any]:
        where = np.flatnonzero(fires[:drawn] == sign)
        hover = f"<br>step %{{x}}: spike {sign:+d}<br>count is now %{{customdata}}"
        return dict(x=where + 1, y=u[where], customdata=counts[where]) | said(hover)

    def said(hover: str) -> dict[str, str]:
        return dict(hovertemplate=f"{name}{hover}<extra></extra>")

    above = "θ<sub>t</sub>: climbs" if encoder else "θ<sub>n+1</sub>: +1 from here"
    traces = [
        dict(x=edges + edges[::-1], y=_twice(ceilings) + _twice(floors)[::-1]),
        threshold(upper) | dict(name=above),
        threshold(lower) | dict(showlegend=not encoder),
        dict(x=t, y=u[:drawn]) | said("<br>step %{x}<br>U = %{y:.6g}"),
        fired(1),
        fired(-1),
        dict(x=t, y=counts[:drawn]) | said("<br>after step %{x}<br>count %{y}"),
        dict(x=[0.5, steps + 0.5][: len(code)], y=code, showlegend=bool(code)) | said("<br>ANN code %{y}"),
        dict(x=silent, y=[int(counts[step - 1]) for step in silent]),
    ]
    axes = {
        "yaxis.range": [low, high],
        "yaxis2.range": [min(0, int(counts.min(initial=0))) - 0.3, largest + 0.5],
        "yaxis2.dtick": max(1, -(-largest // 4)),
    }
    return fill(_blank_neuron(steps), traces, axes)


@lru_cache(16)
def _blank_neuron(time_steps: int) -> go.Figure:
    panels: dict[str, Any] = dict(shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.07)
    figure = blank("The moving threshold", 2, height=480, **panels)
    upper: dict[str, Any] = dict(row=1, col=1)
    lower: dict[str, Any] = dict(row=2, col=1)
    add_line(figure, "silent inside", width=0, fill="toself", fillcolor=BAND, **upper)
    add_line(figure, "θ<sub>n+1</sub>", GREEN, hover=None, **upper)
    add_line(figure, "θ<sub>n</sub>: −1 below", ORANGE, "dash", hover=None, **upper)
    add_line(figure, "membrane U", hover=None, mode="lines+markers", marker=dict(size=6, color=INK), **upper)
    for sign, (symbol, color) in SPIKES.items():
        marker = dict(symbol=symbol, size=14, color=color, line=dict(color="white", width=1))
        figure.add_scatter(mode="markers", name=f"spike {sign}", marker=marker, **upper)
    line = dict(color=BLUE, width=2, shape="hvh")
    add_line(figure, "count n", hover=None, mode="lines+markers", line=line, **lower)
    add_line(figure, "ANN's code", PURPLE, "dot", 3, None, **lower)
    hover = "the whole sample is silent<br>from step %{x} on"
    add_points(figure, "sample silent", "star", 14, ORANGE, hover, 1, **lower)
    figure.update_xaxes(**time_axis(time_steps))
    figure.update_xaxes(title_text=None, row=1)
    figure.update_yaxes(title_text="membrane U (weight units)", row=1)
    return figure.update_yaxes(title_text="count n", row=2)


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _twice(values: Sequence) -> list:
    return [value for value in values for _ in range(2)]


def _reach(membrane: np.ndarray, thresholds: Sequence[float]) -> tuple[float, float]:
    """The y range: the membrane, and those thresholds that do not dwarf it."""
    low, high = min(0.0, float(membrane.min())), max(0.0, float(membrane.max()))
    span = max(high - low, 4.0)
    near = [v for v in thresholds if low - 1.5 * span <= v <= high + 1.5 * span]
    low, high = min([low, *near]), max([high, *near])
    return low - 0.12 * (high - low) - 0.5, high + 0.12 * (high - low) + 0.5
