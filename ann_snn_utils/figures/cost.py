"""Figures of what a run costs: operations, energy, accuracy for energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from .template import (
    INK,
    PALETTE,
    SKY,
    Drawing,
    blank,
    percent_axis,
    redraw,
    share,
)


def operations_bars(
    layer_names: Sequence[str],
    sops: Sequence[float],
    effective_sops: Sequence[float],
    macs: Sequence[float],
    title: str = "Operations per image",
) -> go.Figure:
    """Give, for each layer, multiply–accumulates of the ANN beside the SNN's synaptic operations, per image.

    sops counts every synapse that a spike reaches, effective_sops those with a weight other than zero.
    """
    figure = blank(title)
    series = (
        ("ANN multiply–accumulates", macs, INK),
        ("SNN synaptic operations", sops, PALETTE[0]),
        ("… with a weight other than 0", effective_sops, SKY),
    )
    for name, values, color in series:
        figure.add_bar(
            x=[f"{i} · {layer}" for i, layer in enumerate(layer_names)],
            y=[float(v) for v in values],
            name=name,
            marker_color=color,
            hovertemplate=f"layer %{{x}}<br>{name}: %{{y:,.0f}} per image<extra></extra>",
        )
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(title_text="operations per image", rangemode="tozero")
    return figure


def energy_bars(
    energy: Mapping[str, Mapping[str, float]], title: str = "Energy per image, from operation counts"
) -> go.Figure:
    """Give a stacked horizontal bar for each system: system → component → picojoules per image."""
    figure = blank(title, height=150 + 48 * len(energy))
    for index, name in enumerate(_components(energy)):
        marker = dict(color=PALETTE[index % len(PALETTE)], line_width=0)
        figure.add_bar(name=name, orientation="h", marker=marker)
    figure.add_scatter(
        mode="text", textposition="middle right", showlegend=False, hoverinfo="skip", cliponaxis=False
    )
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    return redraw(figure, energy_drawing(energy))


def energy_drawing(energy: Mapping[str, Mapping[str, float]]) -> Drawing:
    """Give what `energy_bars` draws, to redraw a figure that it made for the same systems and components."""
    totals = {system: sum(parts.values()) for system, parts in energy.items()}
    unit, factor = _energy_unit(max(totals.values(), default=0.0))
    systems = list(energy)[::-1]
    ends = [factor * totals[system] for system in systems]
    drawn = [
        dict(
            y=systems,
            x=[factor * float(energy[system].get(name, 0)) for system in systems],
            hovertemplate=f"%{{y}}<br>{name}: %{{x:.4g}} {unit}<extra></extra>",
        )
        for name in _components(energy)
    ]
    labels = dict(y=systems, x=ends, text=[f" {end:.3g} {unit}" for end in ends])
    layout = {
        "xaxis.title.text": f"energy per image ({unit})",
        "xaxis.range": [0, 1.16 * max(ends, default=1) or 1],
    }
    return Drawing([*drawn, labels], layout)


def _components(energy: Mapping[str, Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for parts in energy.values() for name in parts))


def _energy_unit(picojoules: float) -> tuple[str, float]:
    for unit, size in (("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3)):
        if picojoules >= size:
            return unit, 1 / size
    return "pJ", 1.0


def accuracy_vs_energy(points: Sequence[Mapping], title: str = "Accuracy against energy") -> go.Figure:
    """Give one marker for each point and the front of those that no other beats in both.

    points: dicts with name, accuracy (fraction 0 … 1), energy (pJ per image) and perhaps group (colour).
    """
    unit, factor = _energy_unit(max((float(point["energy"]) for point in points), default=0.0))
    figure = blank(title, height=420)
    ordered = sorted(points, key=lambda point: (float(point["energy"]), -float(point["accuracy"])))
    front: list[Mapping] = []
    for point in ordered:
        if not front or point["accuracy"] > front[-1]["accuracy"]:
            front.append(point)
    figure.add_scatter(
        x=[factor * float(p["energy"]) for p in front],
        y=share([p["accuracy"] for p in front]),
        mode="lines",
        line=dict(color=INK, dash="dot", shape="hv"),
        name="best for its energy",
        hoverinfo="skip",
    )
    groups = list(dict.fromkeys(str(point.get("group", "")) for point in points))
    for index, group in enumerate(groups):
        members = [point for point in points if str(point.get("group", "")) == group]
        figure.add_scatter(
            x=[factor * float(p["energy"]) for p in members],
            y=share([p["accuracy"] for p in members]),
            mode="markers+text" if len(points) <= 12 else "markers",
            text=[str(p["name"]) for p in members],
            textposition="top center",
            name=group or "runs",
            cliponaxis=False,
            marker=dict(size=11, symbol=index, color=PALETTE[index % len(PALETTE)]),
            hovertemplate="%{text}<br>accuracy %{y:.2f} %<br>energy %{x:.4g} "
            + f"{unit}<extra>{group}</extra>",
        )
    figure.update_xaxes(title_text=f"energy per image ({unit})", rangemode="tozero")
    figure.update_yaxes(**percent_axis("accuracy", share([point["accuracy"] for point in points])))
    return figure
