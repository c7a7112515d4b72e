"""Figures of the benchmark: who simulates how fast, cost against steps and batch, distance from the limit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from .template import BLUE, INK, ORANGE, SKY, VERMILION, add_line, bar_labels, blank

_OURS, _ANN = ("events", "dense", "silence"), ("ann-contiguous", "ann-channels-last")


def speed_bars(rows: Sequence[Mapping], title: str = "Images per second, median and quartiles") -> go.Figure:
    """One bar for each row of `benchmark.compare` on a logarithmic axis, the fastest on top."""
    figure = blank(title, height=150 + 26 * len(rows))
    groups = (
        ("this project", BLUE, lambda name: name in _OURS),
        ("float32 ANN, one pass", INK, lambda name: name in _ANN),
        ("other simulators", ORANGE, lambda name: name not in _OURS + _ANN),
    )
    ordered = sorted(rows, key=lambda row: row["samples_per_second"]["median"])
    for group, color, member in groups:
        chosen = [row for row in ordered if member(row["contender"])]
        rates = [row["samples_per_second"] for row in chosen]
        figure.add_bar(
            x=[rate["median"] for rate in rates],
            y=[_name(row) for row in chosen],
            orientation="h",
            name=group,
            marker=dict(color=color, line_width=0),
            error_x=dict(
                type="data",
                symmetric=False,
                array=[rate["high"] - rate["median"] for rate in rates],
                arrayminus=[rate["median"] - rate["low"] for rate in rates],
                color=VERMILION,
                thickness=1.5,
                width=3,
            ),
            hovertemplate="%{y}<br>%{x:,.0f} images/s<extra></extra>",
        )
        names, texts = [_name(row) for row in chosen], [f"  {rate['median']:,.0f}" for rate in rates]
        bar_labels(figure, [rate["high"] for rate in rates], names, texts)
    medians = [row["samples_per_second"]["median"] for row in rows]
    # Bars begin at a power of ten, and there is room for the number at the longest one's end.
    decades = [math.floor(math.log10(min(medians))), math.log10(max(medians)) + 0.25]
    figure.update_xaxes(
        type="log", title_text="images per second (logarithmic)", dtick=1, tickformat=",d", range=decades
    )
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(categoryorder="array", categoryarray=[_name(row) for row in ordered])
    return figure


def _name(row: Mapping) -> str:
    return row["label"] + ("" if row["time_steps"] is None else f" · T = {row['time_steps']}")


def cost_curves(
    sweeps: Mapping[str, Sequence[Mapping]], ann_seconds: float | None = None, title: str = "Cost of a run"
) -> go.Figure:
    """Milliseconds against the number of steps, and microseconds per image against the batch.

    sweeps: that of the benchmark. ann_seconds: one pass of the float32 network over the batch of the steps.
    """
    steps, batches = sweeps["steps"], sweeps["batches"]
    figure = blank(
        title,
        columns=2,
        horizontal_spacing=0.16,
        subtitles=(f"{steps[0]['batch']} images, T steps", f"T = {batches[0]['time_steps']}, N images"),
    )
    panels = (
        (1, [row["time_steps"] for row in steps], [_scaled(row, 1e3) for row in steps], "T = %{x}: %{y:.3g} ms"),
        (
            2,
            [row["batch"] for row in batches],
            [_scaled(row, 1e6 / row["batch"]) for row in batches],
            "N = %{x}: %{y:.3g} µs per image",
        ),
    )
    for column, x, times, hover in panels:
        figure.add_scatter(
            x=x,
            y=[median for median, _, _ in times],
            error_y=dict(
                type="data",
                symmetric=False,
                color=SKY,
                thickness=1.5,
                width=3,
                array=[high - median for median, _, high in times],
                arrayminus=[median - low for median, low, _ in times],
            ),
            mode="lines+markers",
            line_color=BLUE,
            name="this project, median and quartiles",
            showlegend=column == 1,
            hovertemplate=hover + "<extra></extra>",
            row=1,
            col=column,
        )
    if ann_seconds is not None:
        level: dict[str, Any] = dict(x=[0, steps[-1]["time_steps"]], y=[1e3 * ann_seconds] * 2, row=1, col=1)
        add_line(figure, "float32 ANN, one pass", dash="dash", hover="ANN: %{y:.3g} ms", **level)
    figure.update_xaxes(title_text="time steps T", rangemode="tozero", col=1)
    figure.update_yaxes(title_text="milliseconds", rangemode="tozero", col=1)
    ticks = [row["batch"] for row in batches]
    figure.update_xaxes(title_text="images N (logarithmic)", type="log", tickvals=ticks, col=2)
    figure.update_yaxes(title_text="microseconds per image", rangemode="tozero", col=2)
    return figure


def _scaled(row: Mapping, factor: float) -> tuple[float, float, float]:
    return tuple(factor * row["seconds"][part] for part in ("median", "low", "high"))


def limit_bars(
    distance: Mapping, limits: Mapping, title: str = "Additions per second, and what the cores can do"
) -> go.Figure:
    """The simulator's additions/s beside the int8 additions/s of cores that do nothing else."""
    figure = blank(title, height=250)
    bars = (
        ("the cores' int8 additions, in cache", limits["int8_additions"], INK),
        ("synaptic operations", distance["synaptic_operations_per_second"], BLUE),
        ("… with a weight other than 0", distance["effective_synaptic_operations_per_second"], SKY),
    )
    peak = limits["int8_additions"]["median"]
    figure.add_bar(
        x=[rate["median"] / 1e9 for _, rate, _ in bars],
        y=[name for name, _, _ in bars],
        orientation="h",
        marker=dict(color=[color for _, _, color in bars], line_width=0),
        text=[f"{100 * rate['median'] / peak:.0f} %" for _, rate, _ in bars],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}<br>%{x:.3g} billion per second<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(title_text="billion per second", rangemode="tozero", range=[0, 1.12 * peak / 1e9])
    figure.update_yaxes(autorange="reversed")
    return figure
