"""One look for every figure: fonts, colours, margins, a background that any theme shows through; who draws it."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

# Okabe & Ito's colours, which colour-blind readers tell apart; the blue a little lighter, and without black
# and yellow, so that all of them hold on a dark and on a light page.
BLUE, VERMILION, GREEN = "#1B7FC0", "#D55E00", "#009E73"

PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"

# Equally far from white and from a dark theme's background.
INK, FAINT = "#7a7a7a", "rgba(128,128,128,0.22)"

BAND = "rgba(86,180,233,0.20)"

PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK)

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

RISE, FALL = BLUE, VERMILION

# The colour of each form of thresholds, in every figure; of what is published elsewhere too.
FORMS = {"exact": BLUE, "published": VERMILION, "float": PURPLE}

# What energy is spent on, in every figure, by whatever model.
SPENT_ON = dict(
    arithmetic=BLUE, weights=VERMILION, membranes=GREEN, thresholds=PURPLE, traffic=ORANGE, addressing=SKY
)

# How spikes are marked: symbol and colour.
SPIKES = {"+1": ("triangle-up", RISE), "−1": ("triangle-down", FALL)}

# Settings, in the figures that set them side by side: without the colour of what is published.
SETTINGS = tuple(color for color in PALETTE if color not in (FORMS["published"], INK))

# Nothing is drawn where nothing happens; the page shows through the rest, so that its ink is read on both themes.
ERRORS = [[0.0, "rgba(128,128,128,0.12)"], [0.001, "rgba(213,94,0,0.25)"], [1.0, "rgba(213,94,0,0.85)"]]

# A picture and a way back from a zoom are what is left.
_BUTTONS = ["zoom", "pan", "select", "lasso", "zoomin", "zoomout", "autoscale", "sendcharttocloud"]

_AXIS = dict(
    gridcolor=FAINT,
    zerolinecolor=FAINT,
    linecolor=FAINT,
    showline=True,
    ticks="outside",
    tickcolor=FAINT,
    title=dict(standoff=8, font_size=13),
    automargin=True,
)

TEMPLATE = go.layout.Template(
    layout=dict(
        font=dict(family="system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif", size=13, color=INK),
        title=dict(x=0, xref="container", y=1, yref="container", yanchor="top", font_size=15, pad=dict(l=8, t=10)),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        colorway=list(PALETTE),
        margin=dict(l=56, r=16, t=44, b=48),
        legend=dict(
            orientation="h",
            x=0,
            xref="container",
            y=0,
            yref="container",
            yanchor="bottom",
            bgcolor="rgba(0,0,0,0)",
            font_size=12,
        ),
        hoverlabel=dict(font=dict(size=13)),
        # On the figure's own background, and no wider than the room beside the title.
        modebar=dict(bgcolor="rgba(0,0,0,0)", color=INK, activecolor=BLUE, remove=_BUTTONS),
        xaxis=_AXIS,
        yaxis=_AXIS,
        bargap=0.25,
        autosize=True,
    )
)


def color_of(name: str, index: int, colors: Sequence[str] = PALETTE) -> str:
    """The colour of a series: a form of thresholds has its own, others take their turn."""
    return FORMS.get(name, colors[index % len(colors)])


def layer_colors(layers: int) -> Sequence[str]:
    """A colour for each of so many layers; where the palette is too short, shades by depth, the first one dark."""
    if layers <= len(PALETTE):
        return PALETTE[:layers]
    # Without the darkest and the lightest ones, which a theme's background swallows.
    return sample_colorscale("Viridis", [0.1 + 0.8 * index / (layers - 1) for index in range(layers)])


def line(
    figure: go.Figure,
    name: str,
    color: str = INK,
    dash: str = "solid",
    width: float = 2,
    hover: str = "",
    **trace: Any,
) -> None:
    """Draw a line.

    hover: what is said of a point, nothing where empty. trace: x, y and further properties; `panel`, in a figure
    that has several, is the number of one, row by row from 1.
    """
    shown = dict(color=color, dash=dash, width=width)
    draw(figure, hover, dict(type="scatter", name=name, mode="lines", line=shown) | trace)


def points(
    figure: go.Figure, name: str, symbol: str, size: int, color: str, hover: str = "", rim: float = 0, **trace: Any
) -> None:
    """Draw markers, as `line` does lines; rim: the width of their line."""
    marker = dict(symbol=symbol, size=size, color=color, line=dict(width=rim))
    draw(figure, hover, dict(type="scatter", name=name, mode="markers", marker=marker) | trace)


def bars(figure: go.Figure, name: str, color: str | Sequence[str], hover: str, **trace: Any) -> None:
    """Draw bars, all of one colour or each of its own."""
    draw(figure, hover, dict(type="bar", name=name, marker=dict(color=color, line=dict(width=0))) | trace)


def label_bars(figure: go.Figure, ends: Sequence[float], names: Sequence[str], texts: Sequence[str]) -> None:
    """Write a text to the right of the end of each horizontal bar."""
    words = dict(text=texts, mode="text", textposition="middle right", showlegend=False, cliponaxis=False)
    draw(figure, "", dict(type="scatter", x=ends, y=names) | words)


def draw(figure: go.Figure, hover: str, trace: dict[str, Any]) -> None:
    """Draw a trace of any type, which it says."""
    if panel := trace.pop("panel", None):
        trace |= dict(xaxis=axis_of("x", panel), yaxis=axis_of("y", panel))
    said = dict(hovertemplate=hover if "<extra>" in hover else f"{hover}<extra></extra>")
    # As a dictionary, which plotly takes in a third of the time of keywords: figures follow sliders.
    figure.add_trace((said if hover else dict(hoverinfo="skip")) | trace)


def blank(
    title: str,
    rows: int = 1,
    columns: int = 1,
    height: int = 380,
    subtitles: Sequence[str] = (),
    **arguments: object,
) -> go.Figure:
    """An empty figure in the house template, with rows × columns panels; width follows the page.

    Further arguments are those of plotly's `make_subplots`, tuples where it takes lists.
    """
    if rows == columns == 1 and not arguments:
        return go.Figure(layout=dict(template=TEMPLATE, title_text=title, height=height))
    panels = _panels(rows, columns, subplot_titles=tuple(subtitles) or None, **arguments)
    return go.Figure(panels).update_layout(title_text=title, height=height)


@lru_cache(16)
def _panels(rows: int, columns: int, **arguments: object) -> go.Figure:
    # Kept, as plotly takes longer to make panels than to copy them, at every move of a slider.
    figure = make_subplots(rows, columns, **arguments).update_layout(template=TEMPLATE)
    return figure.update_annotations(font=dict(size=12))


def numbered(layer_names: Sequence[str]) -> list[str]:
    """Names of layers that tell two of the same token apart: an axis of categories would draw them as one."""
    return [f"{index} · {name}" for index, name in enumerate(layer_names)]


def axis_of(letter: str, panel: int) -> str:
    """plotly's name of an axis of a panel: x, x2, x3, …"""
    return f"{letter}{panel}" if panel > 1 else letter


def layer_bars(
    title: str,
    layer_names: Sequence[str],
    series: Mapping[str, Sequence[float]],
    axis: str,
    hover: str,
    colors: Sequence[str] = PALETTE,
    **properties: Any,
) -> go.Figure:
    """A figure with a bar for each layer and series; hover: what is said of a bar, with {name} for the series.

    properties: of every trace; a list of them holds one for each series.
    """
    figure = blank(title)
    for index, (name, values) in enumerate(series.items()):
        own = {key: value[index] if isinstance(value, list) else value for key, value in properties.items()}
        said = f"layer %{{x}}<br>{hover.replace('{name}', name)}"
        color, heights = color_of(name, index, colors), [float(value) for value in values]
        bars(figure, name, color, said, x=numbered(layer_names), y=heights, **own)
    figure.update_xaxes(title_text="layer")
    return figure.update_yaxes(title_text=axis, rangemode="tozero")


def step_marks(step: int | None, panels: int = 1) -> list[dict]:
    """The shapes, named "step", that mark a time step in each panel of a row; none without a step."""
    line = dict(type="line", name="step", x0=step, x1=step, y0=0, y1=1, line=dict(color=INK, width=1, dash="dot"))
    axes = [(axis_of("x", panel), axis_of("y", panel)) for panel in range(1, panels + 1)]
    return [line | dict(xref=x, yref=f"{y} domain") for x, y in axes if step]


def time_axis(time_steps: int) -> dict:
    """The x axis that counts time steps 1 … T, with whole ticks."""
    return dict(title_text="time step", range=[0.5, time_steps + 0.5], dtick=max(1, -(-time_steps // 16)), tick0=0)


def accuracy_axis(values: Sequence[float]) -> dict:
    """A y axis of accuracies up to 100 %, from the ten below the smallest of `values` (in percent), or from 0."""
    floor = max(0.0, 10.0 * ((min(values) - 2) // 10)) if len(values) else 0.0
    return dict(title_text="accuracy", ticksuffix=" %", range=[floor, 100 + (100 - floor) * 0.04])


def stairs(low: float, jumps: np.ndarray, high: float, levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a staircase from `low` to `high`, which goes on to the next of its levels at each jump."""
    return np.concatenate([[low], np.repeat(jumps, 2), [high]]), np.repeat(levels, 2)


def log_ticks(low: float, high: float, steps: Sequence[float] = (1, 2, 5)) -> list[float]:
    """The ticks of a logarithmic axis from `low` to `high`: `steps` of each power of ten.

    >>> log_ticks(0.4, 3)
    [0.5, 1.0, 2.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    series = (round(step * 10.0**power, 9) for power in powers for step in steps)
    return [tick for tick in series if low <= tick <= high]


def log_axis(ticks: Sequence[float]) -> dict[str, Any]:
    """A logarithmic axis with these ticks, in plain numbers."""
    return dict(type="log", tickvals=ticks, ticktext=[f"{tick:,g}" for tick in ticks])


def in_percent(fractions: Iterable[float]) -> list[float]:
    """Fractions 0 … 1 in percent."""
    return [100 * float(fraction) for fraction in fractions]


def in_lines(name: str, letters: int = 40) -> str:
    """A long name broken into lines of so many letters: beside a figure it takes its width from it."""
    return "<br>".join(wrap(name, letters))


def has_reader() -> bool:
    """Whether somebody may look at the notebook while it runs; True outside a kernel.

    A front end lets the kernel ask its reader for input, and a program that executes a notebook does not.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    request = kernel.get_parent("shell") if kernel is not None else {}
    return bool(request.get("content", {}).get("allow_stdin", True))


def draw_in_pages() -> None:
    """Draw figures in HTML too, where a program executes the notebook and PLOTLY_RENDERER does not say how.

    By default plotly leaves them to the front end, and the page that nbconvert makes has none. plotly.js, 5 MB, is
    written once, into the output of the cell that calls this.
    """
    if not os.environ.get("PLOTLY_RENDERER") and not has_reader():
        plotly.io.renderers.default = "plotly_mimetype+notebook"
