"""The figure to choose a neuron in: the image, and below it its layer's counts, channels side by side."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from .mosaic import mosaic, mosaic_cell, mosaic_places
from .template import COUNTS, VERMILION, Drawing, blank, redraw

_GREY = [[0.0, "#000000"], [1.0, "#ffffff"]]


def layer_map(image, counts, neuron: tuple[int, int, int], layer: str, step: int) -> go.Figure:
    """Give one image above the net spike counts of one layer after a step, with one neuron marked.

    image: pixels [C, H, W], shown as their mean over channels. counts: whole numbers [C, H, W]. neuron:
    (channel, row, column) in the layer's map. The second trace is the map; its cells can be clicked.
    """
    figure = blank("", 2, height=480, subtitles=["image", layer], row_heights=[0.27, 0.73], vertical_spacing=0.09)
    hover = "row %{y}, column %{x}<br>pixel %{z:.0f}<extra>image</extra>"
    scale = dict(showscale=False, hoverongaps=False)
    figure.add_heatmap(colorscale=_GREY, zmin=0, zmax=255, hovertemplate=hover, **scale, row=1, col=1)
    figure.add_heatmap(colorscale=COUNTS, zmin=0, **scale, row=2, col=1)
    marker = dict(symbol="square-open", size=12, color=VERMILION, line_width=3)
    figure.add_scatter(mode="markers", marker=marker, hoverinfo="skip", showlegend=False, row=2, col=1)
    bare = dict(showticklabels=False, showgrid=False, zeroline=False, ticks="", constrain="domain")
    figure.update_xaxes(**bare)
    figure.update_yaxes(**bare, autorange="reversed")
    figure.update_layout(
        margin=dict(l=8, r=8, t=64, b=8), yaxis_scaleanchor="x", yaxis2_scaleanchor="x2", clickmode="event"
    )
    return redraw(figure, layer_map_drawing(image, counts, neuron, layer, step))


def layer_map_drawing(image, counts, neuron: tuple[int, int, int], layer: str, step: int) -> Drawing:
    """Give what `layer_map` draws, to redraw a figure that it made with another sample, layer or neuron."""
    counts = np.asarray(counts)
    row, column = mosaic_cell(neuron, counts.shape)
    hover = "channel %{customdata[0]}, row %{customdata[1]}, column %{customdata[2]}<br>count %{z}"
    return Drawing(
        [
            dict(z=np.asarray(image).mean(0).round().astype(np.uint8)),
            dict(
                z=mosaic(counts),
                zmax=max(1, int(counts.max())),
                customdata=mosaic_places(counts.shape),
                hovertemplate=f"layer {layer}<br>{hover} after step {step}<extra>click to choose</extra>",
            ),
            dict(x=[column], y=[row]),
        ],
        {"title.text": f"Choose a neuron: counts after step {step}", "annotations[1].text": f"layer {layer}"},
    )
