"""Figures of one run over time: accuracy, spikes, settling, and one neuron between its moving thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from ..simulator.record import Record
from . import look


def accuracy_over_time(
    accuracy: Mapping[str, Sequence[float] | np.ndarray],
    ann_accuracy: float | None = None,
    pending: np.ndarray | None = None,
    layer_names: Sequence[str] = (),
    step: int | None = None,
    title: str = "Accuracy over time",
    from_zero: bool = False,
) -> go.Figure:
    """Accuracy after each time step, a line for each name, against the quantized network's.

    accuracy: name → fractions 0 … 1, one for each step. pending: how many neurons of each layer, of an
    image, will still fire later, [T, L], stacked in a second panel under `layer_names`. step: is marked by an
    upright line. from_zero: the axis starts at 0 and so stays where it is, whatever the curves.
    """
    curves = {name: look.in_percent(values) for name, values in accuracy.items()}
    level = [] if ann_accuracy is None else look.in_percent([ann_accuracy] * 2)
    longest = max(map(len, curves.values()))
    panels = 1 if pending is None else 2
    figure = look.blank(title, columns=2, horizontal_spacing=0.16) if panels > 1 else look.blank(title)
    for index, (name, curve) in enumerate(curves.items()):
        color = look.color_of(name, index, look.SETTINGS)
        dash = look.DASHES[index // len(look.SETTINGS) % len(look.DASHES)]
        # Each of a few curves is seen below a later one that runs on top of it.
        width = 2 + 2 * (len(curves) - 1 - index if len(curves) <= 3 else 0)
        points = dict(x=np.arange(1, len(curve) + 1), y=curve, marker_size=4 + width)
        hover = name + "<br>step %{x}<br>accuracy %{y:.2f} %"
        look.line(figure, name, color, dash, width, hover, mode="lines+markers", **points)
    if level:
        hover, ends = "quantized ANN<br>accuracy %{y:.2f} %", [0.5, longest + 0.5]
        look.line(figure, "quantized ANN", dash="dash", hover=hover, x=ends, y=level)
    told = [value for curve in [*curves.values(), level, [0.0] * from_zero] for value in curve]
    figure.update_layout(yaxis=look.accuracy_axis(told))
    if pending is not None:
        colors = look.layer_colors(len(layer_names))
        for name, color, waiting in zip(look.numbered(layer_names), colors, pending.T, strict=True):
            shown: dict[str, Any] = dict(x=np.arange(1, len(waiting) + 1), y=waiting, stackgroup="pending", panel=2)
            hover = f"layer {name}<br>after step %{{x}}<br>%{{y:,.1f}} of an image still to fire"
            look.line(figure, name, color, width=1, hover=hover, **shown)
        figure.update_yaxes(title_text="neurons still to fire, per image", rangemode="tozero", col=2)
    figure.update_layout(shapes=look.step_marks(step, panels))
    return figure.update_xaxes(**look.time_axis(longest))


def spikes_over_time(record: Record) -> go.Figure:
    """Stacked bars over time steps: +1 spikes of each layer above zero, −1 spikes below, per image."""
    figure, colors = look.blank("Spikes per image, layer and step"), look.layer_colors(len(record.layer_names))
    for sign, table, opacity in ((1, record.positive, 1), (-1, record.negative, 0.6)):
        for index, name in enumerate(look.numbered(record.layer_names)):
            hover = (
                f"layer {name}<br>step %{{x}}<br>%{{customdata:,}} spikes of {sign:+d} over {record.samples:,} "
                "images<br>%{y:.2f} per image"
            )
            counted = table[:, index]
            bars: dict[str, Any] = dict(x=np.arange(1, record.time_steps + 1), y=sign * counted / record.samples)
            shown = dict(customdata=counted, legendgroup=str(index), showlegend=sign > 0, marker_opacity=opacity)
            look.bars(figure, name, colors[index], hover, **bars, **shown)
    figure.update_layout(barmode="relative")
    figure.update_xaxes(**look.time_axis(record.time_steps))
    return figure.update_yaxes(title_text="spikes per image", zerolinecolor=look.INK)


def settling_histogram(settled_at: ArrayLike, time_steps: int) -> go.Figure:
    """The number of samples that settle at each step, and of those that are not silent within `time_steps`, if any.

    settled_at: whole numbers [N], 0 where a sample was not silent yet (Record.settled_at).
    """
    settled = np.asarray(settled_at)
    counts = np.bincount(np.where(settled > time_steps, 0, settled), minlength=time_steps + 1)
    steps, later = list(range(1, time_steps + 1)), time_steps + 1
    figure = look.blank("When samples settle")
    hover = "step %{x}<br>%{y:,} samples settle<br>%{customdata:.1f} % so far"
    so_far = 100 * counts[1:].cumsum() / len(settled)
    look.bars(figure, "silent after this step", look.PALETTE[0], hover, x=steps, y=counts[1:], customdata=so_far)
    every = look.time_axis(time_steps)["dtick"]
    ticks = dict(zip(steps[every - 1 :: every], map(str, steps[every - 1 :: every]), strict=True))
    if counts[0]:
        name, hover = f"not silent within {time_steps} steps", "%{y:,} samples are still active"
        look.bars(figure, name, look.VERMILION, hover, x=[later], y=[counts[0]])
        ticks[later] = "later"
    figure.update_xaxes(title_text="settled at step", range=[0.4, (later if counts[0] else time_steps) + 0.6])
    figure.update_xaxes(tickvals=list(ticks), ticktext=list(ticks.values()))
    return figure.update_yaxes(title_text="samples", rangemode="tozero")


def confusion_matrix(
    truth: ArrayLike,
    answers: ArrayLike,
    classes: Sequence[str],
    title: str = "Answers",
    axes: tuple[str, str] = ("class", "answer"),
) -> go.Figure:
    """How many images of each class (a row) were given each answer (a column); errors are coloured.

    truth, answers: class indices [N]. axes: what rows and columns are called.
    """
    cells, title = confusion_cells(truth, answers, len(classes), title)
    figure, names = look.blank(title), [*map(str, classes)]
    figure.add_heatmap(
        **cells,
        texttemplate="%{text}",
        x=names,
        y=names,
        zmin=0,
        colorscale=look.ERRORS,
        showscale=False,
        xgap=1,
        ygap=1,
        hovertemplate=f"{axes[0]} %{{y}}<br>{axes[1]} %{{x}}<br>%{{customdata}} images<extra></extra>",
    )
    figure.update_xaxes(title_text=axes[1], type="category", showgrid=False)
    return figure.update_yaxes(title_text=axes[0], type="category", autorange="reversed", showgrid=False)


def confusion_cells(truth: ArrayLike, answers: ArrayLike, size: int, title: str) -> tuple[dict[str, Any], str]:
    """What a `confusion_matrix` of `size` classes takes from answers: properties of its trace, and its title."""
    pairs = np.asarray(truth) * size + np.asarray(answers)
    table = np.bincount(pairs, minlength=size * size).reshape(size, size)
    # What is right would leave no colour for what is not.
    wrong = table * (1 - np.eye(size, dtype=int))
    cells = dict(z=wrong, customdata=table, zmax=max(1, int(wrong.max())))
    if size <= 20:
        cells["text"] = np.where(table > 0, table.astype(str), "")
    return cells, f"{title}: {wrong.sum():,} of {table.sum():,} off the diagonal"


def count_histogram(counts: Sequence[ArrayLike], layer_names: Sequence[str]) -> go.Figure:
    """For each layer, the share of its neurons that end with each count, over all images, on a log scale.

    counts: net spike counts of each layer, whole numbers [N, C, H, W] (Record.counts).
    """
    figure, colors = look.blank("How many spikes a neuron is left with"), look.layer_colors(len(layer_names))
    for name, color, count in zip(look.numbered(layer_names), colors, counts, strict=True):
        values = np.asarray(count)
        least, most = int(values.min()), int(values.max())
        # Image by image: as int64, which `bincount` takes, all counts of a wide network would not fit the memory.
        each = [np.bincount(one.ravel().astype(np.int64) - least, minlength=most - least + 1) for one in values]
        found = np.sum(each, axis=0)
        there = np.flatnonzero(found)
        hover = f"layer {name}<br>count %{{x}}<br>%{{y:.3g}} % of neurons"
        shares = 100 * found[there] / values.size
        look.line(figure, name, color, hover=hover, x=there + least, y=shares, mode="lines+markers")
    largest = max(int(np.asarray(count).max()) for count in counts)
    figure.update_xaxes(title_text="count at the end", dtick=max(1, largest // 12))
    return figure.update_yaxes(title_text="share of neurons", type="log", ticksuffix=" %", dtick=1)


def robustness(
    rates: Sequence[float],
    accuracy: Mapping[str, Sequence[float]],
    disturbance: str = "noise ratio",
) -> go.Figure:
    """Accuracy (fractions 0 … 1) over the strength of a disturbance; a line for each name ("T = 4")."""
    figure, strengths = look.blank(f"Accuracy against the {disturbance}"), [float(rate) for rate in rates]
    curves = {name: look.in_percent(values) for name, values in accuracy.items()}
    for index, (name, curve) in enumerate(curves.items()):
        points: dict[str, Any] = dict(x=strengths, y=curve, marker=dict(symbol=index, size=8))
        hover = f"{name}<br>{disturbance} %{{x:g}}<br>accuracy %{{y:.2f}} %"
        color, dash = look.PALETTE[index % len(look.PALETTE)], look.DASHES[index % len(look.DASHES)]
        look.line(figure, name, color, dash, hover=hover, mode="lines+markers", **points)
    figure.update_xaxes(title_text=disturbance)
    return figure.update_yaxes(**look.accuracy_axis([value for curve in curves.values() for value in curve]))


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
    figure = look.blank("The moving threshold", 2, height=480, **panels)
    band: dict[str, Any] = dict(x=edges + edges[::-1], y=_twice(ceilings) + _twice(floors)[::-1], panel=1)
    look.line(figure, "silent inside", width=0, fill="toself", fillcolor=look.BAND, **band)
    hover = "step %{customdata}<br>threshold %{y:.6g}"
    compared: dict[str, Any] = dict(x=edges, customdata=_twice(t.tolist()), panel=1)
    climbing = "θ<sub>t</sub>: climbs" if encoder else "θ<sub>n+1</sub>: +1 from here"
    look.line(figure, climbing, look.GREEN, hover=hover, y=_twice(upper), showlegend=True, **compared)
    falling = "θ<sub>n</sub>: −1 below"
    look.line(
        figure, falling, look.ORANGE, "dash", hover=hover, y=_twice(lower), showlegend=not encoder, **compared
    )
    hover = "step %{x}<br>U = %{y:.6g}"
    look.line(figure, "membrane U", hover=hover, x=t, y=u, mode="lines+markers", marker_size=6, panel=1)
    for sign, (said, (symbol, color)) in zip((1, -1), look.SPIKES.items(), strict=True):
        where = np.flatnonzero(fires == sign)
        hover = f"step %{{x}}: spike {sign:+d}<br>count is now %{{customdata}}"
        fired = dict(x=where + 1, y=u[where], customdata=counts[where], marker_line_color="white", panel=1)
        look.points(figure, f"spike {said}", symbol, 14, color, hover, 1, **fired)
    hover = "after step %{x}<br>count %{y}"
    counted: dict[str, Any] = dict(x=t, y=counts, mode="lines+markers", line_shape="hvh", panel=2)
    look.line(figure, "count n", look.BLUE, hover=hover, **counted)
    if ann_code is not None:
        code = dict(x=[0.5, steps + 0.5], y=[int(ann_code)] * 2, panel=2)
        look.line(figure, "ANN's code", look.PURPLE, "dot", 3, "ANN code %{y}", **code)
    hover = "the whole sample is silent<br>from step %{x} on"
    star = dict(x=silent, y=[int(counts[step - 1]) for step in silent], panel=2)
    look.points(figure, "sample silent", "star", 14, look.ORANGE, hover, 1, **star)
    figure.update_xaxes(**look.time_axis(steps))
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
