"""Figures that put settings beside each other: accuracy over time, and accuracy against what it costs.

Figures over several runs: robustness against disturbances, the spread over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from .cost import energy_unit
from .template import DASHES, INK, ORANGE, PALETTE, SKY, blank, in_lines, percent_axis, share, time_axis

# Percent of errors that can be told from none; and where the axis has ticks.
_LEAST = 0.01

_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 3, 5, 10, 20, 50, 90)

_FINE_TICKS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 90)


def accuracy_of_settings(
    curves: Mapping[str, Sequence[Sequence[float]]],
    published: tuple[int, float] | None = None,
    title: str = "Accuracy over time",
) -> go.Figure:
    """Give accuracy after each step: a line for the mean of each setting's runs, and every run as points.

    curves: setting → for each run its accuracies (fractions 0 … 1), one for each step; one that has settled keeps
    its last value. published: step and accuracy of another system. The axis spreads errors, not right answers.
    """
    figure = blank(title, height=_height(curves))
    longest = max(*(len(curve) for runs in curves.values() for curve in runs), published[0] if published else 1)
    steps = list(range(1, longest + 1))
    values = []
    for index, (name, runs) in enumerate(curves.items()):
        full = [share([*curve, *[curve[-1]] * (longest - len(curve))]) for curve in runs]
        average = [sum(column) / len(full) for column in zip(*full, strict=True)]
        values += [value for curve in full for value in curve]
        _add_runs(figure, index, steps * len(full), [value for curve in full for value in curve], len(full))
        figure.add_scatter(
            x=steps,
            y=_errors(average),
            name=in_lines(name),
            **_style(index),
            customdata=average,
            hovertemplate=f"{name}<br>step %{{x}}<br>accuracy %{{customdata:.2f}} %<extra>n = {len(full)}</extra>",
        )
    if published is not None:
        values.append(100 * published[1])
        figure.add_scatter(
            x=[published[0]],
            y=_errors(values[-1:]),
            mode="markers",
            name="published",
            customdata=values[-1:],
            marker=dict(symbol="diamond", size=11, color=ORANGE, line=dict(color=INK, width=1)),
            hovertemplate="published<br>step %{x}<br>accuracy %{customdata:.2f} %<extra></extra>",
        )
    figure.update_xaxes(**time_axis(longest))
    figure.update_yaxes(**_accuracy_axis(values))
    return figure


def accuracy_vs_energy(points: Sequence[Mapping], title: str = "Accuracy against energy") -> go.Figure:
    """Give accuracy over the energy of one sample; see `pareto.cost_points` for the points, in picojoules."""
    unit, factor = energy_unit(max((float(point["cost"]) for point in points), default=0.0))
    return _accuracy_vs_cost(points, title, "energy", f"energy per image ({unit})", unit, factor)


def accuracy_vs_sops(points: Sequence[Mapping], title: str = "Accuracy against synaptic operations") -> go.Figure:
    """Give accuracy over the synaptic operations of one sample; see `pareto.cost_points` for the points."""
    most = max((float(point["cost"]) for point in points), default=0.0)
    unit, factor = ("million SOPs", 1e-6) if most >= 1e6 else ("SOPs", 1.0)
    axis = f"synaptic operations per image{' (million)' if factor < 1 else ''}"
    return _accuracy_vs_cost(points, title, "SOPs", axis, unit, factor)


def _accuracy_vs_cost(
    points: Sequence[Mapping], title: str, quantity: str, axis: str, unit: str, factor: float
) -> go.Figure:
    groups: dict[str, list[Mapping]] = {}
    for point in points:
        groups.setdefault(str(point["group"]), []).append(point)
    figure = blank(title, height=_height(groups))
    front, widest = _front(points), max((float(point["cost"]) for point in points), default=0.0)
    figure.add_scatter(
        x=[factor * point["cost"] for point in front],
        y=_errors(share(point["accuracy"] for point in front)),
        mode="lines+markers+text",
        name=f"no other is better for its {quantity}",
        hoverinfo="skip",
        line=dict(color=INK, dash="dot", shape="hv", width=1.5),
        marker=dict(symbol="circle-open", size=16, color=INK, line_width=1.5),
        text=_labels(front, widest),
        textposition="top left",
        textfont_size=11,
        cliponaxis=False,
    )
    for index, (name, members) in enumerate(groups.items()):
        pairs = [pair for point in members for pair in point["runs"]]
        seeds = max(len(point["runs"]) for point in members)
        _add_runs(figure, index, [factor * cost for cost, _ in pairs], share(right for _, right in pairs), seeds)
        accuracy = share(point["accuracy"] for point in members)
        figure.add_scatter(
            x=[factor * point["cost"] for point in members],
            y=_errors(accuracy),
            name=in_lines(name),
            **_style(index),
            customdata=[[point["name"], value] for point, value in zip(members, accuracy, strict=True)],
            hovertemplate=f"{name}<br>%{{customdata[0]}}<br>accuracy %{{customdata[1]:.2f}} %<br>"
            f"%{{x:.4g}} {unit}<extra>n = {seeds}</extra>",
        )
    figure.update_xaxes(title_text=axis, rangemode="tozero")
    figure.update_yaxes(**_accuracy_axis([100 * right for point in points for _, right in point["runs"]]))
    return figure


def _front(points: Sequence[Mapping]) -> list[Mapping]:
    front: list[Mapping] = []
    for point in sorted(points, key=lambda point: (float(point["cost"]), -float(point["accuracy"]))):
        if not front or point["accuracy"] > front[-1]["accuracy"]:
            front.append(point)
    return front


def _labels(front: Sequence[Mapping], widest: float) -> list[str]:
    # Where points crowd, only the first of them is named.
    labels, cost, error = [], -math.inf, math.inf
    for point, this in zip(front, _errors(share(point["accuracy"] for point in front)), strict=True):
        near = point["cost"] - cost < 0.06 * widest and error / this < 1.6
        labels.append("" if near else point["name"])
        cost, error = (cost, error) if near else (point["cost"], this)
    return labels


def _add_runs(figure: go.Figure, index: int, x: Sequence[float], percent: Sequence[float], runs: int) -> None:
    # One run is its own mean.
    if runs > 1:
        figure.add_scatter(
            x=x,
            y=_errors(percent),
            mode="markers",
            showlegend=False,
            hoverinfo="skip",
            name=f"every run {index}",
            marker=dict(size=5, color=PALETTE[index % len(PALETTE)], opacity=0.45),
        )


def _style(index: int) -> dict:
    color = PALETTE[index % len(PALETTE)]
    dash = DASHES[index // len(PALETTE) % len(DASHES)]
    return dict(
        mode="lines+markers",
        line=dict(color=color, dash=dash, width=2),
        marker=dict(symbol=index % 8, size=7, color=color),
    )


def _height(settings: Mapping) -> int:
    # The legend takes a line for every few settings.
    return 400 + 14 * len(settings)


def _errors(percent: Sequence[float]) -> list[float]:
    return [max(100 - value, _LEAST) for value in percent]


def _accuracy_axis(percent: Sequence[float]) -> dict:
    errors = _errors(percent)
    low, high = math.log10(min(errors)), math.log10(max(errors))
    room = 0.08 * (high - low) + 0.04
    ticks = _TICKS if high - low > 1 else _FINE_TICKS
    return dict(
        title_text="accuracy (logarithmic in the error)",
        type="log",
        range=[high + room, low - room],
        tickvals=list(ticks),
        ticktext=[f"{'≥ ' if tick == _LEAST else ''}{100 - tick:g} %" for tick in ticks],
    )


def robustness(
    rates: Sequence[float],
    accuracy: Mapping[str, Sequence[float]],
    disturbance: str = "noise ratio",
    title: str | None = None,
) -> go.Figure:
    """Give accuracy (fractions 0 … 1) over the strength of a disturbance; a line for each name ("T = 4")."""
    figure = blank(title or f"Accuracy under {disturbance}")
    everything = [share(values) for values in accuracy.values()]
    for index, (name, values) in enumerate(zip(accuracy, everything, strict=True)):
        figure.add_scatter(
            x=[float(rate) for rate in rates],
            y=values,
            mode="lines+markers",
            name=name,
            line=dict(color=PALETTE[index % len(PALETTE)], dash=DASHES[index % len(DASHES)]),
            marker=dict(symbol=index, size=8),
            hovertemplate=f"{name}<br>{disturbance} %{{x:g}}<br>accuracy %{{y:.2f}} %<extra></extra>",
        )
    figure.update_xaxes(title_text=disturbance)
    figure.update_yaxes(**percent_axis("accuracy", [v for row in everything for v in row]))
    return figure


def seed_spread(
    groups: Mapping[str, Sequence[float]],
    reference: Mapping[str, float] | None = None,
    title: str = "Every seed, mean ± standard deviation",
) -> go.Figure:
    """Give each group's accuracies (fractions 0 … 1) as points, with mean and sample standard deviation.

    reference: group → a published accuracy to compare with, drawn as a bar across. One seed has no deviation.
    """
    figure = blank(title, height=160 + 54 * len(groups))
    names = list(groups)[::-1]
    rows = [share(groups[name]) for name in names]
    figure.add_scatter(
        x=[v for row in rows for v in row],
        y=[name for name, row in zip(names, rows, strict=True) for _ in row],
        mode="markers",
        name="one seed",
        marker=dict(size=9, color=SKY, opacity=0.8),
        customdata=[i for row in rows for i in range(1, len(row) + 1)],
        hovertemplate="%{y}<br>run %{customdata}: %{x:.2f} %<extra></extra>",
    )
    means = [float(np.mean(row)) for row in rows]
    spreads = [float(np.std(row, ddof=1)) if len(row) > 1 else 0.0 for row in rows]
    figure.add_scatter(
        x=means,
        y=names,
        mode="markers+text",
        name="mean ± standard deviation",
        marker=dict(symbol="line-ns-open", size=18, color=PALETTE[0], line_width=2.5),
        error_x=dict(type="data", array=spreads, color=PALETTE[0], thickness=1.5, width=6),
        text=[
            f"{m:.2f} ± {s:.2f}" if len(row) > 1 else f"{m:.2f}"
            for m, s, row in zip(means, spreads, rows, strict=True)
        ],
        textposition="top center",
        hovertemplate="%{y}<br>mean %{text} %<extra></extra>",
    )
    chosen = {name: value for name, value in (reference or {}).items() if name in groups}
    if chosen:
        figure.add_scatter(
            x=share(chosen.values()),
            y=list(chosen),
            mode="markers",
            name="published",
            marker=dict(symbol="diamond", size=10, color=ORANGE),
            hovertemplate="%{y}<br>published %{x:.2f} %<extra></extra>",
        )
    figure.update_xaxes(title_text="accuracy", ticksuffix=" %")
    wrapped = [in_lines(name) for name in names]
    figure.update_yaxes(type="category", range=[-0.6, len(names) - 0.3], tickvals=names, ticktext=wrapped)
    return figure
