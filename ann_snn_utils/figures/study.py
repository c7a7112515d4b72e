"""Figures over several runs: robustness against disturbances, the spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from .template import (
    DASHES,
    ORANGE,
    PALETTE,
    SKY,
    blank,
    in_lines,
    percent_axis,
    share,
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
