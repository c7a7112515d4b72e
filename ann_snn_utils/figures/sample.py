"""Figures of one sample: spike maps of every layer, raster, class scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from ..simulator.record import Traces
from .map import mosaic, mosaic_places
from .template import (
    BARE,
    BLUE,
    COUNTS,
    FAINT,
    FALL,
    GREEN,
    SIGNED,
    SKY,
    SPIKES,
    add_line,
    add_points,
    blank,
    numbered,
    redraw,
    time_axis,
    upright,
)


def spike_maps(
    traces: Traces,
    layer_names: Sequence[str],
    step: int,
    sample: int = 0,
    show: str = "spikes",
    figure: go.Figure | None = None,
) -> go.Figure:
    """A map of every layer, its channels side by side, for one traced sample at (or up to) one step.

    sample: position among the traced samples. show: "spikes" for the spikes −1/0/+1 of this step, "counts"
    for the net counts so far. figure: one that this function made for the same network, to redraw. Raises
    ValueError for a step outside the run.
    """
    steps = len(traces.spikes[0])
    if not 1 <= step <= steps:
        raise ValueError(f"step={step}: the run has steps 1 to {steps}")
    if show not in ("spikes", "counts"):
        raise ValueError(f"show={show!r}: choose 'spikes' or 'counts'")
    now = show == "spikes"
    maps: list[dict] = []
    layout: dict[str, object] = {
        "title.text": f"Spikes at step {step}" if now else f"Net spike counts after step {step}"
    }
    place = "channel %{customdata[0]}, row %{customdata[1]}, column %{customdata[2]}"
    value = "spike %{z:+d}" if now else "count %{z}"
    for index, name in enumerate(numbered(layer_names)):
        fired = np.asarray(traces.spikes[index])[:, sample]
        picture = fired[step - 1] if now else fired[:step].sum(0, dtype=np.int32)
        largest = 1 if now else max(1, int(fired.sum(0, dtype=np.int32).max()))
        maps.append(
            dict(
                z=mosaic(picture),
                zmin=-largest if now else 0,
                zmax=largest,
                colorscale=SIGNED if now else COUNTS,
                hovertemplate=f"layer {name}<br>{place}<br>step {step}: {value}<extra></extra>",
            )
        )
        signed = f"{(picture > 0).sum():,} × +1, {(picture < 0).sum():,} × −1"
        layout[f"annotations[{index}].text"] = f"{name}<br>{signed if now else f'{picture.sum():,}'}"
    return redraw(_blank_maps(traces, layer_names) if figure is None else figure, maps, layout)


def _blank_maps(traces: Traces, layer_names: Sequence[str]) -> go.Figure:
    columns = min(3, len(layer_names))
    rows = -(-len(layer_names) // columns)
    # The panels' titles are the legend: no room is kept for another one.
    gaps = dict(horizontal_spacing=0.03, vertical_spacing=0.26 / rows)
    figure = blank("", rows, columns, 96 + 200 * rows, list(layer_names), **gaps)
    for index, name in enumerate(numbered(layer_names)):
        places, place = mosaic_places(tuple(traces.spikes[index].shape[2:])), divmod(index, columns)
        cells = dict(name=name, customdata=places, showscale=False, hoverongaps=False)
        figure.add_heatmap(**cells, row=place[0] + 1, col=place[1] + 1)
        number = index + 1 if index else ""
        figure.update_layout({f"yaxis{number}_scaleanchor": f"x{number}"})
    figure.update_xaxes(**BARE)
    # Below its title, on a narrow page too.
    figure.update_yaxes(**BARE, autorange="reversed", constraintoward="top")
    return figure.update_layout(margin=dict(l=8, r=8, t=84, b=8))


def raster(
    traces: Traces,
    layer_names: Sequence[str],
    sample: int = 0,
    step: int | None = None,
    neurons_per_layer: int = 40,
    figure: go.Figure | None = None,
) -> go.Figure:
    """The spikes of one traced sample as marks over time, for up to `neurons_per_layer` of each layer.

    Of the neurons that fire, evenly spaced ones are shown, those that fire first at the bottom. step: spikes
    after it are left out, and a line marks it. figure: one that this function made for the same network, to redraw.
    """
    steps = len(traces.spikes[0])
    # Rows that each layer has.
    height = min(neurons_per_layer, max(spikes[0, 0].numel() for spikes in traces.spikes)) + 2
    marks: dict[int, list[tuple]] = {1: [], -1: []}
    for index in range(len(layer_names)):
        fired = np.asarray(traces.spikes[index])[:, sample]
        flat = fired.reshape(steps, -1)
        active = np.flatnonzero((flat != 0).any(0))
        active = active[np.argsort((flat[:, active] != 0).argmax(0), kind="stable")]
        picked = np.linspace(0, len(active) - 1, min(len(active), neurons_per_layer)).round().astype(int)
        chosen = active[picked]
        places = np.stack(np.unravel_index(chosen, fired.shape[1:]), 1)
        for t, row in zip(*np.nonzero(flat[: step or steps, chosen]), strict=True):
            mark = (int(t) + 1, index * height + int(row), index, *places[row].tolist())
            marks[int(flat[t, chosen[row]])].append(mark)
    drawn = [
        dict(x=[m[0] for m in found], y=[m[1] for m in found], customdata=[list(m[2:]) for m in found])
        for found in marks.values()
    ]
    title = f"Spikes of up to {neurons_per_layer} neurons of each layer"
    figure = _blank_raster(title, layer_names, steps, height) if figure is None else figure
    return redraw(figure, [*drawn, upright(step, -1, len(layer_names) * height - 1)])


def _blank_raster(title: str, layer_names: Sequence[str], time_steps: int, height: int) -> go.Figure:
    figure = blank(title, height=420)
    place = "layer %{customdata[0]}, channel %{customdata[1]}, row %{customdata[2]}, column %{customdata[3]}"
    for sign, (symbol, color) in SPIKES.items():
        add_points(figure, f"spike {sign}", symbol, 6, color, f"{place}<br>step %{{x}}: spike {sign}")
    add_line(figure, "step shown", dash="dot", width=1, showlegend=False)
    for index in range(1, len(layer_names)):
        figure.add_hline(index * height - 1, line=dict(color=FAINT, width=1))
    figure.update_xaxes(**time_axis(time_steps))
    return figure.update_yaxes(
        tickvals=[(index + 0.5) * height - 1 for index in range(len(layer_names))],
        ticktext=numbered(layer_names),
        range=[-1, len(layer_names) * height - 1],
        title_text="layer, neurons by first spike",
        showgrid=False,
        zeroline=False,
    )


def class_scores(
    scores: Sequence[float],
    classes: Sequence[str],
    label: int | None = None,
    step: int | None = None,
    figure: go.Figure | None = None,
) -> go.Figure:
    """A bar for each class; the prediction stands out, the true class is outlined, the margin is named.

    scores: class scores after one step, integers where the network is. The prediction is the first of equal
    scores; the margin is its distance to the runner-up. figure: one that this function made, to redraw.
    """
    values = np.asarray(scores)
    prediction = int(values.argmax())
    margin = values[prediction] - np.delete(values, prediction).max()
    colors = [SKY] * len(values)
    colors[prediction] = BLUE if label is None or prediction == label else FALL
    outline = [3 if index == label else 0 for index in range(len(values))]
    when = "" if step is None else f" after step {step}"
    return redraw(
        _blank_scores(classes, values.dtype.kind == "i") if figure is None else figure,
        [{"y": values, "marker.color": colors, "marker.line.width": outline}],
        {
            "title.text": f"Class scores{when}: “{classes[prediction]}”, margin {margin:,.6g}",
            "xaxis.title.text": "class" if label is None else f"class (true: {classes[label]})",
        },
    )


def _blank_scores(classes: Sequence[str], integer: bool) -> go.Figure:
    figure = blank("", height=340)
    hover = "class %{x}<br>score %{y:,}<extra></extra>"
    names = [str(name) for name in classes]
    figure.add_bar(x=names, marker_line_color=GREEN, showlegend=False, hovertemplate=hover)
    figure.update_xaxes(type="category", dtick=max(1, -(-len(classes) // 20)))
    return figure.update_yaxes(title_text="class score (integer units)" if integer else "class score")
