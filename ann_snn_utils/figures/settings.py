"""Figures that put settings beside each other: what each changes, accuracy over time, and against its cost.

At most five settings are in colour, the same in each figure of a page; all others are grey, and named where the
pointer rests. Axes of accuracy are logarithmic in the error: 99.5 and 99.6 % are further apart than 89.5 and 89.6.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

import plotly.graph_objects as go

from . import look
from .cost import energy_unit

COLOURED = 5

# Percent of errors that can be told from none; and where the axis may have ticks, from few to many.
_LEAST = 0.01
_TICKS = (
    (0.01, 0.1, 1, 10, 90),
    (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 90),
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 90),
    (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 90),
)

_GREY = "rgba(128,128,128,0.45)"

_STEP = "step %{x}<br>accuracy %{customdata:.2f} %"

# Pixels between the names of two lines, and around the plot.
_LINE_GAP, _LEFT, _RIGHT, _TOP, _BOTTOM = 17, 190, 64, 44, 52


def accuracy_of_settings(
    curves: Mapping[str, Sequence[Sequence[float]]],
    published: tuple[int, float] | None = None,
    title: str = "Accuracy over time",
    coloured: Sequence[str] = (),
    height: int = 300,
) -> go.Figure:
    """Accuracy after each step: a line for the mean of each setting's runs, named where it begins.

    curves: setting → for each run its accuracies (fractions 0 … 1), one for each step; one that has settled keeps
    its last value. published: step and accuracy of another system. coloured: at most five settings, the first ones
    unless given; their runs are drawn as points. Raises ValueError where there is no setting.
    """
    if not curves:
        raise ValueError("accuracy_of_settings: there are no curves; give those of one setting at least")
    figure = look.blank(title, height=height)
    colours = _colours(curves, coloured)
    longest = max(*(len(curve) for runs in curves.values() for curve in runs), published[0] if published else 1)
    steps = list(range(1, longest + 1))
    full = {
        name: [look.in_percent([*curve, *[curve[-1]] * (longest - len(curve))]) for curve in runs]
        for name, runs in curves.items()
    }
    means = {name: [mean(column) for column in zip(*runs, strict=True)] for name, runs in full.items()}
    values = [value for runs in full.values() for curve in runs for value in curve]
    for name in _grey_first(curves, colours):
        runs, colour = full[name], colours.get(name, _GREY)
        if name in colours and len(runs) > 1:
            points = [point for curve in curves[name] for point in enumerate(look.in_percent(curve), 1)]
            at, percent = zip(*points, strict=True)
            dots: dict[str, Any] = dict(mode="markers", marker=dict(size=4, color=colour, opacity=0.45))
            _add(figure, at, percent, name=f"every run of {name}", **dots)
        line = dict(color=colour, width=2.5 if name in colours else 1)
        _add(figure, steps, means[name], f"{name}<br>{_STEP}<extra>n = {len(runs)}</extra>", name=name, line=line)
    if published is not None:
        values.append(100 * published[1])
        marker = dict(symbol="diamond", size=10, color=look.FORMS["published"])
        named: dict[str, Any] = dict(mode="markers+text", text=["published"], textposition="bottom left")
        _add(figure, published[:1], values[-1:], f"published<br>{_STEP}", name="published", marker=marker, **named)
    axis = error_axis(values, height - _TOP - _BOTTOM)
    figure.update_yaxes(**axis, side="right")
    begin = {name: math.log10(errors(means[name])[0]) for name in colours}
    beside: dict[str, Any] = dict(x=0, xanchor="right", xshift=-9, showarrow=False, align="right")
    for name, place in _apart(begin, axis["range"], height - _TOP - _BOTTOM).items():
        font = dict(color=colours[name], size=12)
        figure.add_annotation(y=place, text=look.in_lines(name, 28), font=font, **beside)
    ticks = [2**power for power in range(longest.bit_length())]
    figure.update_xaxes(title_text="time step", type="log", tickvals=ticks, ticktext=ticks)
    figure.update_xaxes(range=[-0.02, math.log10(longest) + 0.03])
    return figure.update_layout(showlegend=False, margin=dict(l=_LEFT, r=_RIGHT, t=_TOP, b=_BOTTOM))


def _add(figure: go.Figure, x: Sequence[float], percent: Sequence[float], hover: str = "", **style: Any) -> None:
    """Draw accuracies in percent at their errors; `hover` tells them as `customdata`."""
    told = dict(customdata=percent) if hover else {}
    look.draw(figure, hover, dict(type="scatter", mode="lines", x=x, y=errors(percent)) | told | style)


def _colours(names: Mapping[str, Any], coloured: Sequence[str]) -> dict[str, str]:
    chosen = [name for name in coloured if name in names] or list(names)
    return dict(zip(chosen[:COLOURED], look.SETTINGS, strict=False))


def _grey_first(names: Mapping[str, Any], colours: Mapping[str, str]) -> list[str]:
    return [name for name in names if name not in colours] + list(colours)[::-1]


def _apart(places: Mapping[str, float], axis: Sequence[float], pixels: int) -> dict[str, float]:
    """Places of names on a reversed axis, from top to bottom, moved down until no two lines touch."""
    unit = abs(axis[0] - axis[1]) / pixels
    found: dict[str, float] = {}
    last = -math.inf
    for name in sorted(places, key=places.__getitem__):
        lines = look.in_lines(name, 28).count("<br>")
        last = max(places[name], last + _LINE_GAP * unit * (1 + lines / 2))
        found[name] = last
        last += _LINE_GAP * unit * lines / 2
    # What was moved below the plot is moved up again, all together.
    below = max(0.0, max(found.values(), default=0.0) - max(axis) + _LINE_GAP * unit / 2)
    return {name: place - below for name, place in found.items()}


def accuracy_vs_cost(
    energy: Mapping[str, Sequence[tuple[float, float]]],
    sops: Mapping[str, Sequence[tuple[float, float]]],
    title: str = "Accuracy against cost",
    coloured: Sequence[str] = (),
) -> go.Figure:
    """Accuracy over the energy and the synaptic operations of one image: a line for each setting, step by step.

    energy, sops: setting → for each step the cost (picojoules, operations) and the accuracy (a fraction). A dotted
    line joins the points that no other one beats in both. coloured: at most five settings, the first ones unless
    given.
    """
    unit, factor = energy_unit(max((cost for points in energy.values() for cost, _ in points), default=0.0))
    panels = (
        (energy, factor, f"energy per image ({unit})", unit),
        (sops, 1e-6, "synaptic operations per image (million)", "million SOPs"),
    )
    figure = look.blank(title, columns=2, height=320, shared_yaxes=True, horizontal_spacing=0.03)
    colours = _colours(energy or sops, coloured)
    for column, (points, scale, axis, unit) in enumerate(panels, 1):
        for name in _grey_first(points, colours):
            if name not in points:
                continue
            costs, accuracy = along(points[name], scale)
            hover = f"{name}<br>T = %{{text}}<br>accuracy %{{customdata:.2f}} %<br>%{{x:.4g}} {unit}"
            style: dict[str, Any] = dict(mode="lines+markers", text=list(range(1, len(costs) + 1)))
            style |= dict(line=dict(color=colours.get(name, _GREY), width=2 if name in colours else 1))
            style |= dict(marker=dict(size=6 if name in colours else 4), showlegend=name in colours and column == 1)
            _add(figure, costs, accuracy, hover, name=look.in_lines(name), panel=column, **style)
        front = _front([point for own in points.values() for point in own])
        style = dict(line=dict(color=look.INK, dash="dot", shape="hv", width=1.5), showlegend=column == 1)
        _add(figure, *along(front, scale), name="no other is better for its cost", panel=column, **style)
        ticks = _ticks([cost for own in points.values() for cost, _ in own], scale)
        figure.update_xaxes(title_text=axis, type="log", tickvals=ticks, ticktext=ticks, row=1, col=column)
    shares = [100 * right for points in (energy, sops) for own in points.values() for _, right in own]
    figure.update_yaxes(**error_axis(shares or [0.0]))
    figure.update_yaxes(title_text=None, col=2)
    return figure.update_layout(legend_traceorder="reversed", margin_b=90)


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
    columns, title, others = len(curves), "Accuracy against energy", look.PALETTE[:-1]
    figure = look.blank(title, height=430, columns=columns, subtitles=list(curves), shared_yaxes=True)
    shares = [100 * right for networks in curves.values() for points in networks.values() for _, right in points]
    for column, (model, networks) in enumerate(curves.items(), 1):
        for index, name in enumerate(sorted(networks, key=lambda name: name == own)):
            points, colour = networks[name], look.INK if name == own else others[index % len(others)]
            place: dict[str, Any] = dict(panel=column, legendgroup=name)
            costs, accuracy = along(points, 1e-6)
            hover = f"{name}, T = %{{customdata[0]}}<br>%{{x:.4g}} µJ<br>%{{customdata[1]:.2f}} %"
            told = [[step, percent] for step, percent in enumerate(accuracy, 1)]
            line: dict[str, Any] = dict(x=costs, y=errors(accuracy), customdata=told, showlegend=column == 1)
            dash, width = ("solid", 4) if name == own else (look.DASHES[index % len(look.DASHES)], 2)
            look.line(figure, name, colour, dash, width, hover, mode="lines+markers", **line, **place)
            costs, accuracy = along([silence[model][name]], 1e-6)
            said = f"{name}, each image until its silence<br>%{{x:.4g}} µJ<br>{accuracy[0]:.2f} %"
            star = dict(x=costs, y=errors(accuracy), showlegend=False) | place
            look.points(figure, name, "star", 18 if name == own else 13, colour, said, rim=1, **star)
        spent = [cost * 1e-6 for points in networks.values() for cost, _ in points]
        figure.update_xaxes(title_text="energy per image (µJ)", **_few_ticks(spent), col=column)
    figure.update_yaxes(**error_axis(shares))
    for column in range(2, columns + 1):
        figure.update_yaxes(title_text="", col=column)
    return figure


def _few_ticks(values: Sequence[float]) -> dict[str, Any]:
    """A log axis with ticks that have room in a narrow panel, or plotly's own where no round number is in range."""
    ticks = look.log_ticks(min(values), max(values))
    ticks = ticks if len(ticks) <= 4 else look.log_ticks(min(values), max(values), [1])
    return look.log_axis(ticks) if ticks else dict(type="log", nticks=4)


def along(points: Sequence[tuple[float, float]], scale: float) -> tuple[list[float], list[float]]:
    """The costs of points (cost, fraction), scaled, and their accuracies in percent."""
    return [scale * cost for cost, _ in points], look.in_percent(right for _, right in points)


def _ticks(costs: Sequence[float], scale: float) -> list[float]:
    # A log axis has no place for 0, the operations of a network that never fires.
    above = [scale * cost for cost in costs if cost > 0] or [scale]
    low, high = min(above), max(above)
    steps = (1, 2, 5) if math.log10(high / low) > 0.8 else (1, 1.5, 2, 3, 4, 5, 6, 8)
    return look.log_ticks(low / 2, 2 * high, steps)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    front: list[tuple[float, float]] = []
    for cost, right in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or right > front[-1][1]:
            front.append((cost, right))
    return front


def setting_effects(changes: Sequence[Mapping[str, Any]], title: str = "What each setting changes") -> go.Figure:
    """Difference from the baseline in percentage points: a row for each setting, a point for each run, their mean.

    changes: for each run what `varies` (the parameters, which are told apart by colour), its `setting`, and the
    difference at T = 2 and at silence, which have a panel each. Axes are spread out around zero.
    """
    at = ("T = 2", "silence")
    settings = list(dict.fromkeys(row["setting"] for row in changes))
    varied = {row["setting"]: row["varies"] for row in changes}
    parameters = list(dict.fromkeys(varied.values()))
    names = {name: look.in_lines(name, 34) for name in settings}
    height = int(115 + 20 * sum(1 + name.count("<br>") * 0.6 for name in names.values()))
    panels: dict[str, Any] = dict(columns=len(at), subtitles=[f"at {step}" for step in at], horizontal_spacing=0.04)
    figure = look.blank(title, height=height, shared_yaxes=True, **panels)
    for column, step in enumerate(at, 1):
        for index, parameter in enumerate(parameters):
            rows = [row for row in changes if row["varies"] == parameter and not math.isnan(row[step])]
            colour = look.SETTINGS[index % len(look.SETTINGS)]
            points: dict[str, Any] = dict(
                x=[_stretched(row[step]) for row in rows],
                y=[names[row["setting"]] for row in rows],
                customdata=[[row.get("seed", ""), row[step]] for row in rows],
                marker_opacity=0.7,
                panel=column,
            )
            hover = "%{y}<br>seed %{customdata[0]}: %{customdata[1]:+.2f} points"
            look.points(figure, parameter, "circle", 8, colour, hover, **points)
            runs = {name: [row[step] for row in rows if row["setting"] == name] for name in settings}
            means = {name: mean(values) for name, values in runs.items() if values}
            points = dict(x=[_stretched(value) for value in means.values()], y=[names[name] for name in means])
            points |= dict(customdata=list(means.values()), panel=column)
            hover = "%{y}<br>mean %{customdata:+.2f} points"
            look.points(figure, f"mean of {parameter}", "line-ns-open", 16, colour, hover, 2, **points)
        ticks = _signed_ticks([row[step] for row in changes if not math.isnan(row[step])])
        figure.add_vline(x=0, line=dict(color=look.INK, width=1), row=1, col=column)
        words = [f"{tick:+g}".replace("-", "−") if tick else "0" for tick in ticks]
        figure.update_xaxes(tickvals=[_stretched(tick) for tick in ticks], ticktext=words, row=1, col=column)
    figure.update_xaxes(title_text="percentage points")
    ends = [sum(varied[s] in parameters[: i + 1] for s in settings) - 0.5 for i in range(len(parameters) - 1)]
    for end in ends:
        figure.add_hline(y=end, line=dict(color=look.FAINT, width=1))
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=list(names.values()))
    figure.update_yaxes(range=[len(settings) - 0.5, -0.5], showgrid=False)
    return figure.update_layout(showlegend=False, margin_t=70)


def _signed_ticks(values: Sequence[float]) -> list[float]:
    low, high = min([0.0, *values]), max([0.0, *values])
    steps = (0.2, 1, 5, 20, 100) if high - low > 3 else (0.1, 0.2, 0.5, 1, 2)
    ticks = [-step for step in steps[::-1]] + [0.0, *steps]
    return [tick for tick in ticks if 1.6 * low <= tick <= 1.6 * high]


def _stretched(points: float) -> float:
    # Linear near zero, logarithmic further out: a tenth of a point and ten points are both to be seen.
    return math.asinh(points / 0.1)


def errors(percent: Sequence[float]) -> list[float]:
    """Accuracies in percent as errors on a log axis, which shows none smaller than a hundredth."""
    return [max(100 - value, _LEAST) for value in percent]


def error_axis(percent: Sequence[float], pixels: int = 220) -> dict[str, Any]:
    """A y axis of errors on a log scale that is labelled with accuracies, with room for these, in percent.

    pixels: its length; it has as many ticks as do not touch.
    """
    shown = errors(percent)
    low, high = math.log10(min(shown)), math.log10(max(shown))
    room = 0.08 * (high - low) + 0.04
    gap = _LINE_GAP * (high - low + 2 * room) / pixels
    apart = [series for series in _TICKS if all(math.log10(b / a) >= gap for a, b in pairwise(series))]
    ticks = (apart or _TICKS)[-1 if apart else 0]
    return dict(
        title_text="accuracy (log of error)",
        type="log",
        range=[high + room, low - room],
        tickvals=list(ticks),
        ticktext=[f"{'≥ ' if tick == _LEAST else ''}{100 - tick:g} %" for tick in ticks],
    )
