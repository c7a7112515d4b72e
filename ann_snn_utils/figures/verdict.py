"""Figures of the verdict on energy: what decides, break-even, and accuracy per energy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from .settings import along, error_axis, errors
from .template import DASHES, INK, PALETTE, add_line, add_points, blank, log_ticks


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
            ends = [(x[0], f"{low}  ", "right"), (x[1], f"  {high}", "left")]
            if x[1] <= 1.01 * x[0]:
                ends = [(x[1], "  makes no difference", "left")]
            for place, text, anchor in ends:
                beside: dict[str, Any] = dict(xanchor=anchor, showarrow=False, font_size=11)
                figure.add_annotation(x=math.log10(place), y=row, text=text, **beside)
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
    low, high = min([1.0, *values]), max([1.0, *values])
    margin = room * math.log10(high / low) + 0.02
    low, high = low / 10**margin, high * 10**margin
    return _log_axis(log_ticks(low, high)) | dict(range=[math.log10(low), math.log10(high)])


def _few_ticks(values: Sequence[float]) -> dict[str, Any]:
    """A log axis with ticks that have room in a narrow panel, or plotly's own where no round number is in range."""
    ticks = log_ticks(min(values), max(values))
    ticks = ticks if len(ticks) <= 4 else log_ticks(min(values), max(values), [1])
    return _log_axis(ticks) if ticks else dict(type="log", nticks=4)


def _log_axis(ticks: Sequence[float]) -> dict[str, Any]:
    return dict(type="log", tickvals=ticks, ticktext=[f"{tick:,g}" for tick in ticks])


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
    own: str = "",
) -> go.Figure:
    """Accuracy over energy along the time steps, a panel for each model and a line for each network.

    curves: model → network → for each step (picojoules of one image so far, accuracy as a fraction), all images run
    together. silence: the same where each image stops at its own silence, a star. own: the network that is drawn
    above all others. Accuracy on a log scale of error.
    """
    columns, title, others = len(curves), "Accuracy against energy", PALETTE[:-1]
    figure = blank(title, height=430, columns=columns, subtitles=list(curves), shared_yaxes=True)
    shares = [100 * right for networks in curves.values() for points in networks.values() for _, right in points]
    for column, (model, networks) in enumerate(curves.items(), 1):
        for index, name in enumerate(sorted(networks, key=lambda name: name == own)):
            points, colour = networks[name], INK if name == own else others[index % len(others)]
            place: dict[str, Any] = dict(panel=column, legendgroup=name)
            costs, accuracy = along(points, 1e-6)
            hover = f"{name}, T = %{{customdata[0]}}<br>%{{x:.4g}} µJ<br>%{{customdata[1]:.2f}} %"
            told = [[step, percent] for step, percent in enumerate(accuracy, 1)]
            line: dict[str, Any] = dict(x=costs, y=errors(accuracy), customdata=told, showlegend=column == 1)
            dash, width = ("solid", 4) if name == own else (DASHES[index % len(DASHES)], 2)
            add_line(figure, name, colour, dash, width, hover, mode="lines+markers", **line, **place)
            costs, accuracy = along([silence[model][name]], 1e-6)
            said = f"{name}, each image until its silence<br>%{{x:.4g}} µJ<br>{accuracy[0]:.2f} %"
            star = dict(x=costs, y=errors(accuracy), showlegend=False) | place
            add_points(figure, name, "star", 18 if name == own else 13, colour, said, rim=1, **star)
        spent = [cost * 1e-6 for points in networks.values() for cost, _ in points]
        figure.update_xaxes(title_text="energy per image (µJ)", **_few_ticks(spent), col=column)
    figure.update_yaxes(**error_axis(shares))
    for column in range(2, columns + 1):
        figure.update_yaxes(title_text="", col=column)
    return figure
