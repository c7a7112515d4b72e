"""Figures of the benchmark: who simulates how fast, cost against steps and batch, additions beside plain ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from . import look

_OURS = ("events", "dense", "silence")
_ANN = ("ann-contiguous", "ann-channels-last", "ann-compiled", "onnx-float32", "onnx-int8")


def speed_dots(rows: Sequence[Mapping]) -> go.Figure:
    """One dot for each row of `benchmark.compare`, all of one batch, on a logarithmic axis, the fastest on top."""
    title = f"Images per second, {rows[0]['batch']:,} at a time: median and quartiles"
    figure = look.blank(title, height=150 + 26 * len(rows))
    groups = (
        ("this project", look.BLUE, lambda name: name in _OURS),
        ("ANN, one pass", look.INK, lambda name: name in _ANN),
        ("other simulators", look.ORANGE, lambda name: name not in _OURS + _ANN),
    )
    ordered = sorted(rows, key=lambda row: row["samples_per_second"]["median"])
    for group, color, member in groups:
        chosen = [row for row in ordered if member(row["contender"])]
        rates = [row["samples_per_second"] for row in chosen]
        names, texts = [_name(row) for row in chosen], [f"  {rate['median']:,.0f}" for rate in rates]
        values: dict[str, Any] = dict(x=[rate["median"] for rate in rates], y=names)
        values |= dict(error_x=_error_bars(rates, look.VERMILION))
        look.points(figure, group, "circle", 9, color, "%{y}<br>%{x:,.0f} images/s", **values)
        look.label_bars(figure, [rate["high"] for rate in rates], names, texts)
    medians = [row["samples_per_second"]["median"] for row in rows]
    # There is room for the number beside the fastest.
    low, high = 0.8 * min(medians), 1.8 * max(medians)
    axis: dict[str, Any] = dict(tickvals=look.log_ticks(low, high), range=[math.log10(low), math.log10(high)])
    figure.update_xaxes(type="log", title_text="images per second (logarithmic)", tickformat=",d", **axis)
    return figure.update_yaxes(categoryorder="array", categoryarray=[_name(row) for row in ordered])


def _error_bars(spreads: Sequence[Mapping[str, float]], color: str) -> dict[str, Any]:
    """From the lower quartile of each to the upper one."""
    up, down = [one["high"] - one["median"] for one in spreads], [one["median"] - one["low"] for one in spreads]
    return dict(type="data", symmetric=False, array=up, arrayminus=down, color=color, thickness=1.5, width=3)


def _name(row: Mapping) -> str:
    return row["label"] + ("" if row["time_steps"] is None else f" · T = {row['time_steps']}")


def cost_curves(sweeps: Mapping[str, Sequence[Mapping]], ann_seconds: float | None = None) -> go.Figure:
    """Milliseconds against the number of steps, and microseconds per image against the batch.

    sweeps: that of the benchmark. ann_seconds: one pass of the float32 network over the batch of the steps.
    """
    steps, batches = sweeps["steps"], sweeps["batches"]
    subtitles = (f"{steps[0]['batch']} images, T steps", f"T = {batches[0]['time_steps']}, N images")
    figure = look.blank("Cost of a run", columns=2, horizontal_spacing=0.16, subtitles=subtitles)
    ticks = [row["batch"] for row in batches]
    each = [_scaled(row, 1e6 / row["batch"]) for row in batches]
    panels = (
        ([row["time_steps"] for row in steps], [_scaled(row, 1e3) for row in steps], "T = %{x}: %{y:.3g} ms"),
        (ticks, each, "N = %{x}: %{y:.3g} µs per image"),
    )
    for panel, (x, times, hover) in enumerate(panels, 1):
        points: dict[str, Any] = dict(x=x, y=[time["median"] for time in times], mode="lines+markers", panel=panel)
        points |= dict(error_y=_error_bars(times, look.SKY), showlegend=panel == 1)
        look.line(figure, "this project, median and quartiles", look.BLUE, hover=hover, **points)
    if ann_seconds is not None:
        level: dict[str, Any] = dict(x=[0, steps[-1]["time_steps"]], y=[1e3 * ann_seconds] * 2, panel=1)
        look.line(figure, "float32 ANN, one pass", dash="dash", hover="ANN: %{y:.3g} ms", **level)
    figure.update_xaxes(title_text="time steps T", rangemode="tozero", col=1)
    figure.update_yaxes(title_text="milliseconds", rangemode="tozero", col=1)
    figure.update_xaxes(title_text="images N (logarithmic)", type="log", tickvals=ticks, col=2)
    return figure.update_yaxes(title_text="microseconds per image", rangemode="tozero", col=2)


def _scaled(row: Mapping, factor: float) -> dict[str, float]:
    return {part: factor * row["seconds"][part] for part in ("median", "low", "high")}


def addition_bars(distance: Mapping, limits: Mapping) -> go.Figure:
    """The simulator's additions/s beside plain int8 additions/s of cores that do nothing else."""
    figure = look.blank("Additions per second, beside plain ones", height=250)
    bars = (
        ("plain int8 additions, in cache", limits["int8_additions"], look.INK),
        ("synaptic operations", distance["synaptic_operations_per_second"], look.BLUE),
        ("… with a weight other than 0", distance["effective_synaptic_operations_per_second"], look.SKY),
    )
    peak = limits["int8_additions"]["median"]
    names, spreads, colors = zip(*bars, strict=True)
    rates = [spread["median"] for spread in spreads]
    shown = dict(orientation="h", textposition="outside", cliponaxis=False, showlegend=False)
    texts, billions = [f"{100 * rate / peak:.0f} %" for rate in rates], [rate / 1e9 for rate in rates]
    look.bars(figure, "", colors, "%{y}<br>%{x:.3g} billion per second", x=billions, y=names, text=texts, **shown)
    figure.update_xaxes(title_text="billion per second", range=[0, 1.12 * max(billions)])
    return figure.update_yaxes(autorange="reversed")
