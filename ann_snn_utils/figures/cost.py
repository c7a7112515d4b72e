"""Figures of what a run and its circuit cost: operations, energy and what decides it, memory, cycles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import plotly.graph_objects as go

from . import look


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
    colors = (look.INK, look.BLUE, look.SKY)
    return look.layer_bars("Operations per image", layer_names, series, "operations per image", hover, colors)


def energy_bars(
    energy: Mapping[str, Mapping[str, float]], title: str = "Energy per image, from operation counts"
) -> go.Figure:
    """A stacked horizontal bar for each system: system → component → picojoules per image."""
    totals = {system: sum(parts.values()) for system, parts in energy.items()}
    unit, factor = energy_unit(max(totals.values(), default=0.0))
    figure = look.blank(title, height=150 + 48 * len(energy))
    systems = list(energy)[::-1]
    names = list(dict.fromkeys(name for parts in energy.values() for name in parts))
    known = set(names) <= look.SPENT_ON.keys()
    own = look.SPENT_ON if known else dict(zip(names, cycle(look.PALETTE), strict=False))
    for name in names:
        spent = [factor * float(energy[system].get(name, 0)) for system in systems]
        hover = f"%{{y}}<br>{name}: %{{x:.4g}} {unit}"
        look.bars(figure, name, own[name], hover, x=spent, y=systems, orientation="h")
    ends = [factor * totals[system] for system in systems]
    look.label_bars(figure, ends, systems, [f" {end:.3g} {unit}" for end in ends])
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
    names, steps = look.numbered(layer_names), len(next(iter(spiking.values()))[0])
    unit, factor = energy_unit(max(float(sum(map(np.sum, parts.values()))) for parts in (spiking, dense)))
    panels = [f"each layer: SNN left, {rival} right", "each step of the SNN"]
    figure = look.blank(title, columns=2, subtitles=panels, horizontal_spacing=0.12, column_widths=(0.66, 0.34))
    x = np.arange(1, steps + 1)
    for part in dict.fromkeys((*spiking, *dense)):
        own = np.asarray(spiking.get(part, np.zeros((len(names), steps))))
        color, hover = look.SPENT_ON.get(part, look.INK), f"{part}: %{{y:.4g}} {unit}"
        snn, again = dict(legendgroup=part, offsetgroup="snn"), dict(legendgroup=part, showlegend=False)
        by_layer, by_step = factor * own.sum(1), factor * own.sum(0)
        look.bars(figure, part, color, f"SNN, layer %{{x}}<br>{hover}", x=names, y=by_layer, panel=1, **snn)
        look.bars(figure, part, color, f"step %{{x}}<br>{hover}", x=x, y=by_step, panel=2, **snn | again)
        if part in dense:
            beside = dict(x=names, y=factor * np.asarray(dense[part]), offsetgroup="dense", opacity=0.55) | again
            look.bars(figure, part, color, f"{rival}, layer %{{x}}<br>{hover}", panel=1, **beside)
    figure.update_layout(barmode="stack", bargroupgap=0.06)
    figure.update_xaxes(title_text="layer", col=1)
    figure.update_xaxes(**look.time_axis(steps), col=2)
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
    figure = look.blank("Work per image so far; dashed: the ANN's", columns=2, horizontal_spacing=0.18)
    counted = (("synaptic operations", look.BLUE, sops), ("… with a weight other than 0", look.SKY, effective_sops))
    for name, color, values in counted:
        points: dict[str, Any] = dict(x=x, y=np.asarray(values), mode="lines+markers", panel=1)
        look.line(figure, name, color, hover=name + "<br>up to step %{x}<br>%{y:,.0f} per image", **points)
    # What its axis or the title names is not in the legend, which leaves room where a page is narrow.
    points = dict(x=x, y=spent, mode="lines+markers", panel=2, showlegend=False)
    said = f"energy up to step %{{x}}<br>%{{y:.4g}} {unit} per image"
    look.line(figure, "energy", look.BLUE, hover=said, **points)
    rivals = (
        ("operations", "ANN's multiply–accumulates, hidden layers", macs, sops),
        (f"energy ({unit})", "int8 ANN's energy", factor * ann_energy, spent),
    )
    for panel, (axis, name, level, own) in enumerate(rivals, 1):
        ends: dict[str, Any] = dict(x=[0.5, len(sops) + 0.5], y=[level] * 2, panel=panel, showlegend=False)
        look.line(figure, name, dash="dash", hover=name + ": %{y:,.4g}", **ends)
        figure.update_yaxes(title_text=axis, range=[0, 1.08 * max(level, *own)], col=panel)
    figure.update_layout(shapes=look.step_marks(step, 2))
    return figure.update_xaxes(**look.time_axis(len(sops)))


def energy_unit(picojoules: float) -> tuple[str, float]:
    """The largest unit of which an energy is one or more, and the factor from picojoules to it."""
    units = (("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3))
    return next(((unit, 1 / size) for unit, size in units if picojoules >= size), ("pJ", 1.0))


_KINDS = ("weights", "membranes", "counts", "thresholds", "scores", "gains")


def memory_bars(report: Mapping[str, Any]) -> go.Figure:
    """The bits of each layer of a `cost_report` as stacked bars, beside the dense int8 network's."""
    parts = [*report["layers"], {"name": "classifier", **report["classifier"]}]
    kinds = [kind for kind in _KINDS if any(kind in part["memory_bits"] for part in parts)]
    kilobits = {kind: [part["memory_bits"].get(kind, 0) / 1000 for part in parts] for kind in kinds}
    kilobits["int8 ANN"] = [part["dense"]["memory_bits"]["int8"] / 1000 for part in parts]
    figure = look.layer_bars(
        "Memory of the network and its state",
        [part["name"] for part in parts],
        kilobits,
        "kbit",
        "{name}: %{y:,.4g} kbit<extra></extra>",
        (*look.PALETTE[: len(kinds)], look.INK),
        offsetgroup=[*["snn"] * len(kinds), "ann"],
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
    title, colors = "Cycles for one image, one adder per neuron", (look.BLUE, look.SKY, look.INK)
    figure = look.layer_bars(title, names, cycles, "cycles", hover, colors)
    return figure.update_yaxes(type="log", dtick=1)


def break_even(report: Mapping[str, Any]) -> go.Figure:
    """The energy after each step, what it would be if every step cost the mean, and the int8 network's."""
    (entry, *_), steps = report["energy"], report["steps"]
    parts, level = entry["snn_picojoules"], entry["ann_int8"]["picojoules"] / 1000
    each = (parts["total"] - parts["encoder"]) / steps
    last = 1.25 * max(steps, entry["ann_int8"]["break_even_steps"] or 0)
    figure = look.blank("Energy against time steps")
    x, measured = list(range(1, steps + 1)), [spent / 1000 for spent in entry["snn_picojoules_until_step"]]
    hover = "after step %{x}: %{y:.4g} nJ"
    look.line(figure, "SNN, measured", look.BLUE, hover=hover, x=x, y=measured, mode="lines+markers")
    busy = [parts["encoder"] / 1000, (parts["encoder"] + last * each) / 1000]
    look.line(figure, "SNN, were every step as busy", look.BLUE, "dot", x=[0, last], y=busy)
    look.line(
        figure, "int8 ANN", look.VERMILION, "dash", hover="int8 ANN: %{y:,.4g} nJ", x=[0, last], y=[level, level]
    )
    figure.update_xaxes(title_text="time steps", rangemode="tozero")
    return figure.update_yaxes(title_text=f"energy per image (nJ, {entry['constants']})", rangemode="tozero")


def verdict_bars(told: Mapping[str, Mapping[str, Mapping[str, float]]], rival: str) -> go.Figure:
    """Which assumption decides: for each model and question how far its answers move what the SNN saves.

    told: model → question → answer → the rival's energy over the SNN's, the question that decides most first; a
    model's own answer is common to its questions. On a log axis; right of 1 the SNN wins.
    """
    rows = sum(map(len, told.values()))
    figure = look.blank(f"Which assumption decides, against {rival}", height=130 + 28 * rows)
    values = [saves for questions in told.values() for answers in questions.values() for saves in answers.values()]
    for index, (model, questions) in enumerate(told.items()):
        colour = look.PALETTE[index % len(look.PALETTE)]
        own = _common([list(answers.values()) for answers in questions.values()])
        for number, (question, answers) in enumerate(questions.items()):
            row = _row(question, index)
            shown: dict[str, Any] = dict(legendgroup=model, showlegend=False)
            low, high = (choose(answers, key=answers.__getitem__) for choose in (min, max))
            x = [answers[low], answers[high]]
            look.line(figure, model, colour, width=9, x=x, y=[row, row], opacity=0.45, **shown)
            said = f"{question}: %{{customdata}}<br>{rival} needs %{{x:.3g}} × the SNN's energy"
            points = dict(x=list(answers.values()), y=[row] * len(answers), customdata=list(answers))
            shown |= points | dict(showlegend=not number)
            look.points(figure, model, "circle", 8, colour, said, **shown)
            ends = [(x[0], f"{low}  ", "right"), (x[1], f"  {high}", "left")]
            if x[1] <= 1.01 * x[0]:
                ends = [(x[1], "  makes no difference", "left")]
            for place, text, anchor in ends:
                beside: dict[str, Any] = dict(xanchor=anchor, showarrow=False, font_size=11)
                figure.add_annotation(x=math.log10(place), y=row, text=text, **beside)
        ends_of = [_row(question, index) for question in (list(questions)[0], list(questions)[-1])]
        look.line(figure, model, colour, "dot", 1, x=[own, own], y=ends_of, showlegend=False)
    figure.add_vline(x=1, line=dict(color=look.INK, width=1.5))
    figure.update_yaxes(autorange="reversed", showgrid=False)
    # The words beside the bars take their room from the plot.
    axis = _ratio_axis(values, room=0.34)
    return figure.update_xaxes(title_text=f"energy of {rival} / energy of the SNN", **axis)


def _row(question: str, model: int) -> str:
    # Two models may ask the same: an axis of categories would draw both in one row.
    return question + "\N{ZERO WIDTH SPACE}" * model + " "


def _common(rows: Sequence[Sequence[float]]) -> float:
    """The value nearest to one of every row: what the model's own answers save."""
    return min(rows[0], key=lambda value: max(min(abs(value - other) for other in row) for row in rows))


def _ratio_axis(values: Sequence[float], room: float = 0.04) -> dict[str, Any]:
    low, high = min([1.0, *values]), max([1.0, *values])
    margin = room * math.log10(high / low) + 0.02
    low, high = low / 10**margin, high * 10**margin
    return look.log_axis(look.log_ticks(low, high)) | dict(range=[math.log10(low), math.log10(high)])


def break_even_spikes(
    measured: Mapping[str, float], own: Mapping[str, float], published: Mapping[str, tuple[float, float]]
) -> go.Figure:
    """How many spikes a synapse may carry, by others' thresholds and this network's own, and how many it does.

    measured: name → spikes per synapse and inference. own: model → spikes at which this network breaks even.
    published: source → least and greatest threshold. On a log axis.
    """
    rows = [*published, *own]
    figure = look.blank("Spikes per synapse: carried, and to break even", height=150 + 28 * len(rows))
    for name, (low, high) in published.items():
        said = f"{name}: below %{{x:.3g}} spikes per synapse"
        ends: dict[str, Any] = dict(x=[low, high], y=[name, name], showlegend=False)
        look.line(figure, name, look.INK, width=9, opacity=0.5, **ends)
        look.points(figure, name, "line-ns-open", 14, look.INK, said, rim=2, **ends)
    for index, (name, value) in enumerate(own.items()):
        said = f"{name}: this network breaks even at %{{x:.3g}}"
        shown: dict[str, Any] = dict(x=[value], y=[name], showlegend=False)
        if value > 0:
            look.points(figure, name, "diamond", 11, look.PALETTE[index % len(look.PALETTE)], said, **shown)
    for (name, value), dash in zip(measured.items(), ("solid", "dash"), strict=False):
        line: dict[str, Any] = dict(x=[value] * len(rows), y=rows)
        look.line(figure, name, look.VERMILION, dash, hover=f"{name}: %{{x:.3g}}", **line)
    values = [*measured.values(), *own.values(), *(end for ends in published.values() for end in ends)]
    figure.update_yaxes(autorange="reversed", showgrid=False)
    axis = _ratio_axis([value for value in values if value > 0])
    return figure.update_xaxes(title_text="spikes per synapse and inference", **axis)
