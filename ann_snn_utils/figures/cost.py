"""Figures of what a run and its circuit cost: operations, energy, memory, cycles, and energy against time steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .template import (
    INK,
    PALETTE,
    SKY,
    SPENT_ON,
    add_bars,
    add_line,
    bar_labels,
    blank,
    layer_bars,
    numbered,
    step_marks,
    time_axis,
)


def operations_bars(
    layer_names: Sequence[str], sops: Sequence[float], effective_sops: Sequence[float], macs: Sequence[float]
) -> go.Figure:
    """For each layer, multiply–accumulates of the ANN beside the SNN's synaptic operations, per image.

    sops counts every synapse that a spike reaches, effective_sops those with a weight other than zero.
    """
    series = {
        "ANN multiply–accumulates": macs,
        "SNN synaptic operations": sops,
        "… with a weight other than 0": effective_sops,
    }
    hover = "{name}: %{y:,.0f} per image<extra></extra>"
    colors = (INK, PALETTE[0], SKY)
    return layer_bars("Operations per image", layer_names, series, "operations per image", hover, colors)


def energy_bars(
    energy: Mapping[str, Mapping[str, float]], title: str = "Energy per image, from operation counts"
) -> go.Figure:
    """A stacked horizontal bar for each system: system → component → picojoules per image."""
    totals = {system: sum(parts.values()) for system, parts in energy.items()}
    unit, factor = energy_unit(max(totals.values(), default=0.0))
    figure = blank(title, height=150 + 48 * len(energy))
    systems = list(energy)[::-1]
    names = list(dict.fromkeys(name for parts in energy.values() for name in parts))
    own = SPENT_ON if set(names) <= SPENT_ON.keys() else dict(zip(names, cycle(PALETTE), strict=False))
    for name in names:
        spent = [factor * float(energy[system].get(name, 0)) for system in systems]
        hover = f"%{{y}}<br>{name}: %{{x:.4g}} {unit}"
        add_bars(figure, name, own[name], hover, x=spent, y=systems, orientation="h")
    ends = [factor * totals[system] for system in systems]
    bar_labels(figure, ends, systems, [f" {end:.3g} {unit}" for end in ends])
    figure.update_layout(barmode="stack", legend_traceorder="normal")
    return figure.update_xaxes(title_text=f"energy per image ({unit})", range=[0, 1.16 * max(ends, default=1) or 1])


def energy_parts(
    layer_names: Sequence[str],
    spiking: Mapping[str, np.ndarray],
    dense: Mapping[str, np.ndarray],
    rival: str,
    title: str,
) -> go.Figure:
    """Where energy goes: stacked components for each layer beside the rival's, and for each time step.

    spiking: component → picojoules [L, T]. dense: component → picojoules [L], of the network named `rival`.
    """
    names, steps = numbered(layer_names), len(next(iter(spiking.values()))[0])
    unit, factor = energy_unit(
        max(float(sum(np.sum(cost) for cost in parts.values())) for parts in (spiking, dense))
    )
    panels = [f"each layer: SNN left, {rival} right", "each step of the SNN"]
    figure = blank(title, columns=2, subtitles=panels, horizontal_spacing=0.12, column_widths=(0.66, 0.34))
    x = np.arange(1, steps + 1)
    for part in dict.fromkeys((*spiking, *dense)):
        own = np.asarray(spiking.get(part, np.zeros((len(names), steps))))
        color, hover = SPENT_ON.get(part, INK), f"{part}: %{{y:.4g}} {unit}"
        snn, again = dict(legendgroup=part, offsetgroup="snn"), dict(legendgroup=part, showlegend=False)
        by_layer, by_step = factor * own.sum(1), factor * own.sum(0)
        add_bars(figure, part, color, f"SNN, layer %{{x}}<br>{hover}", x=names, y=by_layer, panel=1, **snn)
        add_bars(figure, part, color, f"step %{{x}}<br>{hover}", x=x, y=by_step, panel=2, **snn | again)
        if part in dense:
            beside = dict(x=names, y=factor * np.asarray(dense[part]), offsetgroup="dense", opacity=0.55) | again
            add_bars(figure, part, color, f"{rival}, layer %{{x}}<br>{hover}", panel=1, **beside)
    figure.update_layout(barmode="stack", bargroupgap=0.06)
    figure.update_xaxes(title_text="layer", col=1)
    figure.update_xaxes(**time_axis(steps), col=2)
    return figure.update_yaxes(title_text=f"energy per image ({unit})", rangemode="tozero")


def cost_over_time(
    sops: Sequence[float] | np.ndarray,
    effective_sops: Sequence[float] | np.ndarray,
    energy: Sequence[float] | np.ndarray,
    macs: float,
    ann_energy: float,
    step: int | None = None,
) -> go.Figure:
    """Operations and energy per image up to each time step, beside the dense int8 network's.

    sops, effective_sops: synaptic operations so far, over all synapses and over those with a weight other than
    zero, [T]. energy: picojoules so far [T]. macs, ann_energy: the ANN's multiply–accumulates and picojoules.
    """
    unit, factor = energy_unit(max(ann_energy, *energy))
    x, spent = np.arange(1, len(sops) + 1), factor * np.asarray(energy)
    figure = blank("Work per image so far; dashed: the ANN's", columns=2, horizontal_spacing=0.18)
    for name, color, values in (
        ("synaptic operations", PALETTE[0], sops),
        ("… with a weight other than 0", SKY, effective_sops),
    ):
        points: dict[str, Any] = dict(x=x, y=np.asarray(values), mode="lines+markers", panel=1)
        add_line(figure, name, color, hover=name + "<br>up to step %{x}<br>%{y:,.0f} per image", **points)
    # What its axis or the title names is not in the legend, which leaves room where a page is narrow.
    points = dict(x=x, y=spent, mode="lines+markers", panel=2, showlegend=False)
    said = f"energy up to step %{{x}}<br>%{{y:.4g}} {unit} per image"
    add_line(figure, "energy", PALETTE[0], hover=said, **points)
    rivals = (
        ("operations", "ANN's multiply–accumulates, hidden layers", macs, sops),
        (f"energy ({unit})", "int8 ANN's energy", factor * ann_energy, spent),
    )
    for panel, (axis, name, level, own) in enumerate(rivals, 1):
        ends: dict[str, Any] = dict(x=[0.5, len(sops) + 0.5], y=[level] * 2, panel=panel, showlegend=False)
        add_line(figure, name, dash="dash", hover=name + ": %{y:,.4g}", **ends)
        figure.update_yaxes(title_text=axis, range=[0, 1.08 * max(level, *own)], col=panel)
    figure.update_layout(shapes=step_marks(step, 2))
    return figure.update_xaxes(**time_axis(len(sops)))


def energy_unit(picojoules: float) -> tuple[str, float]:
    """The largest unit of which an energy is one or more, and the factor from picojoules to it."""
    units = (("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3))
    return next(((unit, 1 / size) for unit, size in units if picojoules >= size), ("pJ", 1.0))


_KINDS = ("weights", "membranes", "counts", "thresholds", "scores")


def memory_bars(report: Mapping[str, Any]) -> go.Figure:
    """The bits of each layer of a `cost_report` as stacked bars, beside the dense int8 network's."""
    parts = [*report["layers"], {"name": "classifier", **report["classifier"]}]
    kilobits = {kind: [part["memory_bits"].get(kind, 0) / 1000 for part in parts] for kind in _KINDS}
    kilobits["int8 ANN"] = [part["dense"]["memory_bits"]["int8"] / 1000 for part in parts]
    figure = layer_bars(
        "Memory of the network and its state",
        [part["name"] for part in parts],
        kilobits,
        "kbit",
        "{name}: %{y:,.4g} kbit<extra></extra>",
        (*PALETTE[: len(_KINDS)], INK),
        offsetgroup=[*["snn"] * len(_KINDS), "ann"],
    )
    return figure.update_layout(barmode="stack", bargroupgap=0.08)


def cycles_bars(report: Mapping[str, Any]) -> go.Figure:
    """Each layer's cycles, as measured and in the worst case, beside a dense network's, on a log scale."""
    layers = report["layers"]
    cycles = {
        "measured": [layer["cycles"]["measured"] for layer in layers],
        "worst case": [layer["cycles"]["worst_case"] for layer in layers],
        "dense, one multiplier per neuron": [layer["dense"]["cycles"] for layer in layers],
    }
    names, hover = [layer["name"] for layer in layers], "{name}: %{y:,.0f} cycles<extra></extra>"
    title, colors = "Cycles for one image, one adder per neuron", (PALETTE[0], SKY, INK)
    figure = layer_bars(title, names, cycles, "cycles", hover, colors)
    return figure.update_yaxes(type="log", dtick=1)


def break_even(report: Mapping[str, Any]) -> go.Figure:
    """The energy after each step, what it would be if every step cost the mean, and the int8 network's."""
    (entry, *_), steps = report["energy"], report["steps"]
    parts, level = entry["snn_picojoules"], entry["ann_int8"]["picojoules"] / 1000
    each = (parts["total"] - parts["encoder"]) / steps
    last = 1.25 * max(steps, entry["ann_int8"]["break_even_steps"] or 0)
    figure = blank("Energy against time steps")
    x, measured = list(range(1, steps + 1)), [spent / 1000 for spent in entry["snn_picojoules_until_step"]]
    hover = "after step %{x}: %{y:.4g} nJ"
    add_line(figure, "SNN, measured", PALETTE[0], hover=hover, x=x, y=measured, mode="lines+markers")
    busy = [parts["encoder"] / 1000, (parts["encoder"] + last * each) / 1000]
    add_line(figure, "SNN, were every step as busy", PALETTE[0], "dot", x=[0, last], y=busy)
    add_line(figure, "int8 ANN", PALETTE[1], "dash", hover="int8 ANN: %{y:,.4g} nJ", x=[0, last], y=[level, level])
    figure.update_xaxes(title_text="time steps", rangemode="tozero")
    return figure.update_yaxes(title_text=f"energy per image (nJ, {entry['constants']})", rangemode="tozero")
