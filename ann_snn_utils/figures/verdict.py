"""Figures of the verdict on energy: where it goes, what decides, break-even, and accuracy per energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from .cost import energy_unit
from .settings import accuracy_axis, errors
from .template import DASHES, INK, PALETTE, SPENT_ON, add_bars, add_line, add_points, blank, numbered, time_axis


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
    figure = blank(title, columns=2, subtitles=panels, horizontal_spacing=0.12, column_widths=[0.66, 0.34])
    for part in dict.fromkeys((*spiking, *dense)):
        own = np.asarray(spiking.get(part, np.zeros((len(names), steps))))
        look: dict[str, Any] = dict(legendgroup=part, offsetgroup="snn", row=1)
        colour, hover = SPENT_ON.get(part, INK), f"{part}: %{{y:.4g}} {unit}"
        add_bars(figure, part, colour, "SNN, layer %{x}<br>" + hover, x=names, y=factor * own.sum(1), col=1, **look)
        look["showlegend"] = False
        x = np.arange(1, steps + 1)
        add_bars(figure, part, colour, "step %{x}<br>" + hover, x=x, y=factor * own.sum(0), col=2, **look)
        if part in dense:
            look["offsetgroup"], beside = "dense", dict(x=names, y=factor * np.asarray(dense[part]), opacity=0.55)
            add_bars(figure, part, colour, f"{rival}, layer %{{x}}<br>" + hover, col=1, **beside, **look)
    figure.update_layout(barmode="stack", bargroupgap=0.06)
    figure.update_xaxes(title_text="layer", col=1)
    figure.update_xaxes(**time_axis(steps), col=2)
    return figure.update_yaxes(title_text=f"energy per image ({unit})", rangemode="tozero")


def verdict_bars(told: Mapping[str, Mapping[str, Mapping[str, float]]], rival: str) -> go.Figure:
    """Which assumption decides: for each model and question how far its answers move what the SNN saves.

    told: model → question → answer → the rival's energy over the SNN's, the question that decides most first; a
    model's own answer is common to its questions. On a log axis; right of 1 the SNN wins.
    """
    rows = sum(map(len, told.values()))
    figure = blank(f"Which assumption decides, against {rival}", height=130 + 28 * rows)
    values = [saves for questions in told.values() for answers in questions.values() for saves in answers.values()]
    for index, (model, questions) in enumerate(told.items()):
        colour = PALETTE[index % len(PALETTE)]
        own = _common([list(answers.values()) for answers in questions.values()])
        for number, (question, answers) in enumerate(questions.items()):
            row = _row(question, index)
            look: dict[str, Any] = dict(legendgroup=model, showlegend=False)
            low, high = (choose(answers, key=answers.__getitem__) for choose in (min, max))
            x = [answers[low], answers[high]]
            add_line(figure, model, colour, width=9, x=x, y=[row, row], opacity=0.45, **look)
            said = f"{question}: %{{customdata}}<br>{rival} needs %{{x:.3g}} × the SNN's energy"
            points: dict[str, Any] = dict(
                x=list(answers.values()), y=[row] * len(answers), customdata=list(answers)
            )
            add_points(figure, model, "circle", 8, colour, said, **points, **look | dict(showlegend=not number))
            if x[1] > 1.01 * x[0]:
                ends = zip(x, (f"{low}  ", f"  {high}"), ("right", "left"), strict=True)
                for place, text, anchor in ends:
                    figure.add_annotation(
                        x=float(np.log10(place)), y=row, text=text, xanchor=anchor, showarrow=False, font_size=11
                    )
        ends_of = [_row(question, index) for question in (list(questions)[0], list(questions)[-1])]
        add_line(figure, model, colour, "dot", 1, x=[own, own], y=ends_of, showlegend=False)
    figure.add_vline(x=1, line=dict(color=INK, width=1.5))
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
    low, high = np.log10(min([1.0, *values])), np.log10(max([1.0, *values]))
    margin = float(room * (high - low) + 0.02)
    ends = [float(low) - margin, float(high) + margin]
    ticks = [m * 10.0**e for e in range(-5, 6) for m in (1, 2, 5) if ends[0] <= np.log10(m * 10.0**e) <= ends[1]]
    return dict(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks], range=ends)


def _few_ticks(values: Sequence[float]) -> dict[str, Any]:
    """Ticks of a log axis that have room in a narrow panel; none of its own where no round number lies in range."""
    low, high = min(values), max(values)
    rounds = [m * 10.0**e for e in range(-6, 9) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    ticks = rounds if len(rounds) <= 4 else [tick for tick in rounds if f"{tick:e}".startswith("1.0")]
    return dict(tickvals=ticks, ticktext=[f"{tick:,g}" for tick in ticks]) if ticks else dict(nticks=4)


def break_even_spikes(
    measured: Mapping[str, float], own: Mapping[str, float], published: Mapping[str, tuple[float, float]]
) -> go.Figure:
    """How many spikes a synapse may carry, by others' thresholds and this network's own, and how many it does.

    measured: name → spikes per synapse and inference. own: model → spikes at which this network breaks even.
    published: source → least and greatest threshold. On a log axis.
    """
    rows = [*published, *own]
    figure = blank("Spikes per synapse: carried, and to break even", height=150 + 28 * len(rows))
    for name, (low, high) in published.items():
        add_line(figure, name, INK, width=9, x=[low, high], y=[name, name], opacity=0.5, showlegend=False)
        said = f"{name}: below %{{x:.3g}} spikes per synapse"
        add_points(
            figure, name, "line-ns-open", 14, INK, said, rim=2, x=[low, high], y=[name, name], showlegend=False
        )
    for index, (name, value) in enumerate(own.items()):
        said = f"{name}: this network breaks even at %{{x:.3g}}"
        shown: dict[str, Any] = dict(x=[value], y=[name], showlegend=False)
        if value > 0:
            add_points(figure, name, "diamond", 11, PALETTE[index % len(PALETTE)], said, **shown)
    for (name, value), dash in zip(measured.items(), ("solid", "dash"), strict=False):
        line: dict[str, Any] = dict(x=[value] * len(rows), y=rows)
        add_line(figure, name, PALETTE[1], dash, hover=f"{name}: %{{x:.3g}}", **line)
    values = [*measured.values(), *own.values(), *(end for ends in published.values() for end in ends)]
    figure.update_yaxes(autorange="reversed", showgrid=False)
    axis = _ratio_axis([value for value in values if value > 0])
    return figure.update_xaxes(title_text="spikes per synapse and inference", **axis)


def accuracy_per_energy(
    curves: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    silence: Mapping[str, Mapping[str, tuple[float, float]]],
) -> go.Figure:
    """Accuracy over energy along the time steps, a panel for each model and a line for each network.

    curves: model → network → for each step (picojoules of one image so far, accuracy as a fraction), all images run
    together. silence: the same where each image stops at its own silence, a star. Accuracy on a log scale of error.
    """
    columns = len(curves)
    figure = blank(
        "Accuracy against energy", height=430, columns=columns, subtitles=list(curves), shared_yaxes=True
    )
    shares = [100 * right for networks in curves.values() for points in networks.values() for _, right in points]
    for column, (model, networks) in enumerate(curves.items(), 1):
        for index, (name, points) in enumerate(networks.items()):
            colour = PALETTE[index % len(PALETTE)]
            panel: dict[str, Any] = dict(row=1, col=column, legendgroup=name)
            x, y = ([pair[i] * scale for pair in points] for i, scale in ((0, 1e-6), (1, 100)))
            hover = f"{name}, T = %{{customdata[0]}}<br>%{{x:.4g}} µJ<br>%{{customdata[1]:.2f}} %"
            told = [[step, share] for step, share in enumerate(y, 1)]
            shown: dict[str, Any] = dict(x=x, y=errors(y), customdata=told, showlegend=column == 1)
            add_line(
                figure,
                name,
                colour,
                DASHES[index % len(DASHES)],
                hover=hover,
                mode="lines+markers",
                **shown,
                **panel,
            )
            spent, right = silence[model][name]
            said = f"{name}, each image until its silence<br>%{{x:.4g}} µJ<br>{100 * right:.2f} %"
            star: dict[str, Any] = dict(x=[spent * 1e-6], y=errors([100 * right]), showlegend=False)
            add_points(figure, name, "star", 13, colour, said, rim=1, **star, **panel)
        costs = [cost * 1e-6 for points in networks.values() for cost, _ in points]
        figure.update_xaxes(title_text="energy per image (µJ)", type="log", **_few_ticks(costs), col=column)
    figure.update_yaxes(**accuracy_axis(shares))
    for column in range(2, columns + 1):
        figure.update_yaxes(title_text="", col=column)
    return figure
