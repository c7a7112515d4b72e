"""Figures of one run over time: accuracy, spikes, settling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from ..simulator.record import Record
from .template import (
    DASHES,
    ERRORS,
    INK,
    PALETTE,
    SETTINGS,
    VERMILION,
    accuracy_axis,
    add_bars,
    add_line,
    blank,
    color_of,
    in_percent,
    layer_colors,
    numbered,
    step_marks,
    time_axis,
)


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
    curves = {name: in_percent(values) for name, values in accuracy.items()}
    level = [] if ann_accuracy is None else in_percent([ann_accuracy] * 2)
    longest = max(map(len, curves.values()))
    panels = 1 if pending is None else 2
    figure = blank(title, columns=2, horizontal_spacing=0.16) if panels > 1 else blank(title)
    for index, (name, curve) in enumerate(curves.items()):
        color, dash = color_of(name, index, SETTINGS), DASHES[index // len(SETTINGS) % len(DASHES)]
        # Each of a few curves is seen below a later one that runs on top of it.
        width = 2 + 2 * (len(curves) - 1 - index if len(curves) <= 3 else 0)
        points = dict(x=np.arange(1, len(curve) + 1), y=curve, marker_size=4 + width)
        hover = name + "<br>step %{x}<br>accuracy %{y:.2f} %"
        add_line(figure, name, color, dash, width, hover, mode="lines+markers", **points)
    if level:
        hover, ends = "quantized ANN<br>accuracy %{y:.2f} %", [0.5, longest + 0.5]
        add_line(figure, "quantized ANN", dash="dash", hover=hover, x=ends, y=level)
    shown = [value for curve in [*curves.values(), level, [0.0] * from_zero] for value in curve]
    figure.update_layout(yaxis=accuracy_axis(shown))
    if pending is not None:
        colors = layer_colors(len(layer_names))
        for name, color, waiting in zip(numbered(layer_names), colors, pending.T, strict=True):
            look: dict[str, Any] = dict(x=np.arange(1, len(waiting) + 1), y=waiting, stackgroup="pending", panel=2)
            hover = f"layer {name}<br>after step %{{x}}<br>%{{y:,.1f}} of an image still to fire"
            add_line(figure, name, color, width=1, hover=hover, **look)
        figure.update_yaxes(title_text="neurons still to fire, per image", rangemode="tozero", col=2)
    figure.update_layout(shapes=step_marks(step, panels))
    return figure.update_xaxes(**time_axis(longest))


def spikes_over_time(record: Record) -> go.Figure:
    """Stacked bars over time steps: +1 spikes of each layer above zero, −1 spikes below, per image."""
    figure, colors = blank("Spikes per image, layer and step"), layer_colors(len(record.layer_names))
    for sign, table, opacity in ((1, record.positive, 1), (-1, record.negative, 0.6)):
        for index, name in enumerate(numbered(record.layer_names)):
            hover = (
                f"layer {name}<br>step %{{x}}<br>%{{customdata:,}} spikes of {sign:+d} over {record.samples:,} "
                "images<br>%{y:.2f} per image"
            )
            counted = table[:, index]
            bars: dict[str, Any] = dict(x=np.arange(1, record.time_steps + 1), y=sign * counted / record.samples)
            look = dict(customdata=counted, legendgroup=str(index), showlegend=sign > 0, marker_opacity=opacity)
            add_bars(figure, name, colors[index], hover, **bars, **look)
    figure.update_layout(barmode="relative")
    figure.update_xaxes(**time_axis(record.time_steps))
    return figure.update_yaxes(title_text="spikes per image", zerolinecolor=INK)


def settling_histogram(settled_at: ArrayLike, time_steps: int) -> go.Figure:
    """The number of samples that settle at each step, and of those that are not silent within `time_steps`, if any.

    settled_at: whole numbers [N], 0 where a sample was not silent yet (Record.settled_at).
    """
    settled = np.asarray(settled_at)
    counts = np.bincount(np.where(settled > time_steps, 0, settled), minlength=time_steps + 1)
    steps, later = list(range(1, time_steps + 1)), time_steps + 1
    figure = blank("When samples settle")
    hover = "step %{x}<br>%{y:,} samples settle<br>%{customdata:.1f} % so far"
    so_far = 100 * counts[1:].cumsum() / len(settled)
    add_bars(figure, "silent after this step", PALETTE[0], hover, x=steps, y=counts[1:], customdata=so_far)
    every = time_axis(time_steps)["dtick"]
    ticks = dict(zip(steps[every - 1 :: every], map(str, steps[every - 1 :: every]), strict=True))
    if counts[0]:
        name, hover = f"not silent within {time_steps} steps", "%{y:,} samples are still active"
        add_bars(figure, name, VERMILION, hover, x=[later], y=[counts[0]])
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
    figure, names = blank(title), [*map(str, classes)]
    figure.add_heatmap(
        **cells,
        texttemplate="%{text}",
        x=names,
        y=names,
        zmin=0,
        colorscale=ERRORS,
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
    figure, colors = blank("How many spikes a neuron is left with"), layer_colors(len(layer_names))
    for name, color, count in zip(numbered(layer_names), colors, counts, strict=True):
        values = np.asarray(count)
        least, most = int(values.min()), int(values.max())
        # Image by image: as int64, which `bincount` takes, all counts of a wide network would not fit the memory.
        each = [np.bincount(one.ravel().astype(np.int64) - least, minlength=most - least + 1) for one in values]
        found = np.sum(each, axis=0)
        there = np.flatnonzero(found)
        hover = f"layer {name}<br>count %{{x}}<br>%{{y:.3g}} % of neurons"
        shares = 100 * found[there] / values.size
        add_line(figure, name, color, hover=hover, x=there + least, y=shares, mode="lines+markers")
    largest = max(int(np.asarray(count).max()) for count in counts)
    figure.update_xaxes(title_text="count at the end", dtick=max(1, largest // 12))
    return figure.update_yaxes(title_text="share of neurons", type="log", ticksuffix=" %", dtick=1)


def robustness(
    rates: Sequence[float],
    accuracy: Mapping[str, Sequence[float]],
    disturbance: str = "noise ratio",
) -> go.Figure:
    """Accuracy (fractions 0 … 1) over the strength of a disturbance; a line for each name ("T = 4")."""
    figure, strengths = blank(f"Accuracy against the {disturbance}"), [float(rate) for rate in rates]
    curves = {name: in_percent(values) for name, values in accuracy.items()}
    for index, (name, curve) in enumerate(curves.items()):
        points: dict[str, Any] = dict(x=strengths, y=curve, marker=dict(symbol=index, size=8))
        hover = f"{name}<br>{disturbance} %{{x:g}}<br>accuracy %{{y:.2f}} %"
        color, dash = PALETTE[index % len(PALETTE)], DASHES[index % len(DASHES)]
        add_line(figure, name, color, dash, hover=hover, mode="lines+markers", **points)
    figure.update_xaxes(title_text=disturbance)
    return figure.update_yaxes(**accuracy_axis([value for curve in curves.values() for value in curve]))
