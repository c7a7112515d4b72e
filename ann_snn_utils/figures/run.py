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
    INK,
    PALETTE,
    VERMILION,
    Drawing,
    add_line,
    blank,
    numbered,
    percent_range,
    redraw,
    share,
    time_axis,
)


def accuracy_over_time(
    accuracy: Mapping[str, Sequence[float] | np.ndarray],
    ann_accuracy: float | None = None,
    pending: np.ndarray | None = None,
    layer_names: Sequence[str] = (),
    step: int | None = None,
    title: str = "Accuracy over time",
) -> go.Figure:
    """Accuracy after each time step, a line for each name, against the quantized network's.

    accuracy: name → fractions 0 … 1, one for each step. pending: neurons of each layer that will still fire
    later, [T, L] (Record.pending), stacked in a second panel. step: is marked by an upright line.
    """
    figure = blank(title, columns=1 if pending is None else 2, horizontal_spacing=0.16)
    for index, name in enumerate(accuracy):
        color, dash = PALETTE[index % len(PALETTE)], DASHES[index // len(PALETTE) % len(DASHES)]
        # Each of a few curves is seen below a later one that runs on top of it.
        width = 2 + 2 * (len(accuracy) - 1 - index if len(accuracy) <= 3 else 0)
        look = dict(mode="lines+markers", marker_size=4 + width, row=1, col=1)
        add_line(figure, name, color, dash, width, name + "<br>step %{x}<br>accuracy %{y:.2f} %", **look)
    place: dict[str, Any] = dict(row=1, col=1)
    hover = "quantized ANN<br>accuracy %{y:.2f} %"
    add_line(figure, "quantized ANN", dash="dash", hover=hover, showlegend=ann_accuracy is not None, **place)
    add_line(figure, "step shown", dash="dot", width=1, showlegend=False, **place)
    figure.update_yaxes(title_text="accuracy", ticksuffix=" %", row=1, col=1)
    figure.update_xaxes(**time_axis(max(map(len, accuracy.values()))))
    drawing = accuracy_drawing(accuracy, ann_accuracy, step)
    if pending is None:
        return redraw(figure, drawing)
    table = np.asarray(pending)
    for index in range(table.shape[1]):
        name = f"{index} · {layer_names[index]}" if len(layer_names) else f"layer {index}"
        hover = f"layer {name}<br>after step %{{x}}<br>%{{y:,}} still to fire"
        color = PALETTE[index % len(PALETTE)]
        add_line(figure, name, color, width=1, hover=hover, stackgroup="pending", row=1, col=2)
    figure.update_yaxes(title_text="neurons still to fire", rangemode="tozero", row=1, col=2)
    stacked = [dict(x=np.arange(1, len(table) + 1), y=row) for row in table.T]
    return redraw(figure, Drawing(drawing.traces + stacked, drawing.layout))


def accuracy_drawing(
    accuracy: Mapping[str, Sequence[float] | np.ndarray], ann_accuracy: float | None = None, step: int | None = None
) -> Drawing:
    """What `accuracy_over_time` draws without pending neurons, to redraw a figure that it made."""
    curves = [share(values) for values in accuracy.values()]
    level = [] if ann_accuracy is None else share([ann_accuracy] * 2)
    low, high = percent_range([value for curve in [*curves, level] for value in curve])
    edges = [0.5, max(map(len, curves)) + 0.5]
    return Drawing(
        [
            *(dict(x=np.arange(1, len(curve) + 1), y=curve) for curve in curves),
            dict(x=edges[: len(level)], y=level),
            dict(x=[step, step], y=[low, high]) if step else dict(x=[], y=[]),
        ],
        {"yaxis.range": [low, high]},
    )


def spikes_over_time(record: Record, title: str = "Spikes per image, layer and step") -> go.Figure:
    """Stacked bars over time steps: +1 spikes of each layer above zero, −1 spikes below, per image."""
    figure = blank(title)
    for sign in (1, -1):
        for index, name in enumerate(numbered(record.layer_names)):
            figure.add_bar(
                name=name,
                showlegend=sign > 0,
                legendgroup=str(index),
                marker=dict(color=PALETTE[index % len(PALETTE)], opacity=1 if sign > 0 else 0.6),
            )
    figure.add_hline(0, line=dict(color=INK, width=1))
    figure.update_layout(barmode="relative")
    figure.update_xaxes(**time_axis(record.time_steps))
    figure.update_yaxes(title_text="spikes per image (− below zero)")
    return redraw(figure, spikes_drawing(record))


def spikes_drawing(record: Record) -> Drawing:
    """What `spikes_over_time` draws, to redraw a figure that it made for a run of the same network."""
    x = np.arange(1, record.time_steps + 1)
    return Drawing(
        [
            dict(
                x=x,
                y=sign * table[:, index] / record.samples,
                customdata=table[:, index],
                hovertemplate=f"layer {index} · {name}<br>step %{{x}}<br>%{{customdata:,}} spikes of {sign:+d} "
                f"over {record.samples:,} images<br>%{{y:.2f}} per image<extra></extra>",
            )
            for sign, table in ((1, record.positive), (-1, record.negative))
            for index, name in enumerate(record.layer_names)
        ]
    )


def settling_histogram(settled_at: ArrayLike, time_steps: int, title: str = "When samples settle") -> go.Figure:
    """The number of samples whose last spike came at each step, and of those not silent by `time_steps`.

    settled_at: whole numbers [N], 0 where a sample was not silent yet (Record.settled_at).
    """
    settled = np.asarray(settled_at)
    counts = np.bincount(settled, minlength=time_steps + 1)[: time_steps + 1]
    figure = blank(title)
    figure.add_bar(
        x=list(range(1, time_steps + 1)),
        y=counts[1:],
        name="silent after this step",
        customdata=100 * counts[1:].cumsum() / len(settled),
        hovertemplate="step %{x}<br>%{y:,} samples settle<br>%{customdata:.1f} % so far<extra></extra>",
    )
    figure.add_bar(
        x=[time_steps + 1],
        y=[counts[0]],
        name=f"not silent within {time_steps} steps",
        marker_color=VERMILION,
        hovertemplate="%{y:,} samples are still active<extra></extra>",
    )
    every = time_axis(time_steps)["dtick"]
    ticks = list(range(every, time_steps + 1, every))
    figure.update_xaxes(
        title_text="last step with a spike",
        range=[0.4, time_steps + 1.6],
        tickvals=[*ticks, time_steps + 1],
        ticktext=[*map(str, ticks), "later"],
    )
    figure.update_yaxes(title_text="samples", rangemode="tozero")
    return figure
