"""Figures of what a circuit costs: memory, cycles, and energy against the number of time steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from .template import DASHES, INK, PALETTE, SKY, blank

_KINDS = ("weights", "membranes", "counts", "thresholds", "scores")


def memory_bars(report: Mapping[str, Any], title: str = "Memory of the network and its state") -> go.Figure:
    """Give the bits of each layer of a `cost_report` as stacked bars, beside the dense int8 network's."""
    parts = [*report["layers"], {"name": "classifier", **report["classifier"]}]
    names = [f"{index} · {part['name']}" for index, part in enumerate(parts)]
    figure = blank(title)
    for index, kind in enumerate(_KINDS):
        values = [part["memory_bits"].get(kind, 0) / 1000 for part in parts]
        figure.add_bar(
            x=names, y=values, name=kind, marker=dict(color=PALETTE[index], line_width=0), offsetgroup="snn",
            hovertemplate=f"%{{x}}<br>{kind}: %{{y:,.4g}} kbit<extra>SNN</extra>",
        )  # fmt: skip
    figure.add_bar(
        x=names, y=[part["dense"]["memory_bits"]["int8"] / 1000 for part in parts], name="int8 ANN",
        marker=dict(color=INK, line_width=0), offsetgroup="ann",
        hovertemplate="%{x}<br>%{y:,.4g} kbit<extra>int8 ANN</extra>",
    )  # fmt: skip
    figure.update_layout(barmode="stack", bargroupgap=0.08)
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(title_text="kbit", rangemode="tozero")
    return figure


def cycles_bars(report: Mapping[str, Any], title: str = "Cycles for one image, one adder per neuron") -> go.Figure:
    """Give each layer's cycles, as measured and in the worst case, beside a dense network's, on a log scale."""
    names = [f"{index} · {layer['name']}" for index, layer in enumerate(report["layers"])]
    figure = blank(title)
    series = (
        ("measured", [layer["cycles"]["measured"] for layer in report["layers"]], PALETTE[0]),
        ("worst case", [layer["cycles"]["worst_case"] for layer in report["layers"]], SKY),
        ("dense, one multiplier per neuron", [layer["dense"]["cycles"] for layer in report["layers"]], INK),
    )
    for name, values, color in series:
        figure.add_bar(
            x=names, y=values, name=name, marker=dict(color=color, line_width=0),
            hovertemplate=f"%{{x}}<br>{name}: %{{y:,.0f}} cycles<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(title_text="cycles", type="log", dtick=1)
    return figure


def break_even(report: Mapping[str, Any], title: str = "Energy against time steps") -> go.Figure:
    """Give the energy after each step, what it would be if every step cost the mean, and the int8 network's."""
    (entry, *_), steps = report["energy"], report["steps"]
    spent, parts = entry["snn_picojoules_until_step"], entry["snn_picojoules"]
    each = (parts["total"] - parts["encoder"]) / steps
    last = 1.25 * max(steps, entry["ann_int8"]["break_even_steps"] or 0)
    figure = blank(title)
    nanojoules = [value / 1000 for value in spent]
    figure.add_scatter(
        x=list(range(1, steps + 1)), y=nanojoules, mode="lines+markers", name="SNN, measured",
        line_color=PALETTE[0], hovertemplate="after step %{x}: %{y:.4g} nJ<extra></extra>",
    )  # fmt: skip
    figure.add_scatter(
        x=[0, last], y=[parts["encoder"] / 1000, (parts["encoder"] + last * each) / 1000], mode="lines",
        name="SNN, were every step as busy", line=dict(color=PALETTE[0], dash=DASHES[2]), hoverinfo="skip",
    )  # fmt: skip
    level = entry["ann_int8"]["picojoules"] / 1000
    figure.add_scatter(
        x=[0, last], y=[level, level], mode="lines", name="int8 ANN", line=dict(color=PALETTE[1], dash=DASHES[1]),
        hovertemplate="int8 ANN: %{y:,.4g} nJ<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title_text="time steps", rangemode="tozero")
    figure.update_yaxes(title_text=f"energy per image (nJ, {entry['constants']})", rangemode="tozero")
    return figure
