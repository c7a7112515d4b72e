"""The figure to choose a neuron in: an image above its layer's counts, channels side by side in one picture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from .template import BARE, COUNTS, VERMILION, add_points, blank, redraw


def mosaic(values: ArrayLike) -> np.ndarray:
    """The channels of [C, H, W] side by side in one picture of whole numbers, None between channels.

    None, not NaN, because a page reads it as JSON.
    """
    maps = np.asarray(values)
    _, height, width = maps.shape
    columns, gap = _grid(maps.shape)
    rows = -(-len(maps) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), None, dtype=object)
    for channel, picture in enumerate(maps):
        top, left = mosaic_cell((channel, 0, 0), maps.shape)
        sheet[top : top + height, left : left + width] = picture
    return sheet


def mosaic_position(row: int, column: int, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """(channel, y, x) of a cell of the mosaic of a map of `shape` (C, H, W); None between channels."""
    channels, height, width = shape
    columns, gap = _grid(shape)
    down, y = divmod(row, height + gap)
    across, x = divmod(column, width + gap)
    channel = down * columns + across
    inside = y < height and x < width and 0 <= channel < channels and across < columns
    return (channel, y, x) if inside else None


def mosaic_cell(neuron: tuple[int, int, int], shape: tuple[int, ...]) -> tuple[int, int]:
    """(row, column) in the mosaic of the neuron (channel, y, x): the inverse of `mosaic_position`."""
    columns, gap = _grid(shape)
    down, across = divmod(neuron[0], columns)
    return down * (shape[1] + gap) + neuron[1], across * (shape[2] + gap) + neuron[2]


def _grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many channels of a map lie side by side, and the cells between two."""
    channels, height, width = shape
    return max(1, round((1.8 * channels * height / width) ** 0.5)), int(not height == width == 1)


@lru_cache(64)
def mosaic_places(shape: tuple[int, ...]) -> np.ndarray:
    """Channel, y and x of every cell of the mosaic, int16 [rows, columns, 3]; −1 between channels.

    The array is shared: it cannot be written to.
    """
    sheets = [mosaic(axis) for axis in np.indices(shape)]
    places = np.stack([np.where(sheet == np.array(None), -1, sheet).astype(np.int16) for sheet in sheets], -1)
    places.flags.writeable = False
    return places


_GREY = [[0.0, "#000000"], [1.0, "#ffffff"]]


def layer_map(
    image: ArrayLike,
    counts: ArrayLike,
    neuron: tuple[int, int, int],
    layer: str,
    step: int,
    figure: go.Figure | None = None,
) -> go.Figure:
    """One image above the net spike counts of one layer after a step, with one neuron marked.

    image: pixels [C, H, W], shown as their mean over channels. counts: whole numbers [C, H, W]. neuron:
    (channel, row, column) in the layer's map. The second trace is the map; its cells can be clicked.
    figure: one that this function made, to redraw.
    """
    sums = np.asarray(counts)
    row, column = mosaic_cell(neuron, sums.shape)
    hover = "channel %{customdata[0]}, row %{customdata[1]}, column %{customdata[2]}<br>count %{z}"
    cells = dict(
        z=mosaic(sums),
        zmax=max(1, int(sums.max())),
        customdata=mosaic_places(sums.shape),
        hovertemplate=f"layer {layer}<br>{hover} after step {step}<extra>click to choose</extra>",
    )
    return redraw(
        _blank_map() if figure is None else figure,
        [dict(z=np.asarray(image).mean(0).round().astype(np.uint8)), cells, dict(x=[column], y=[row])],
        {"title.text": f"Choose a neuron: counts after step {step}", "annotations[1].text": f"layer {layer}"},
    )


def _blank_map() -> go.Figure:
    figure = blank("", 2, height=480, subtitles=["image", "layer"], row_heights=[0.27, 0.73], vertical_spacing=0.09)
    hover = "row %{y}, column %{x}<br>pixel %{z:.0f}<extra>image</extra>"
    scale = dict(showscale=False, hoverongaps=False)
    figure.add_heatmap(colorscale=_GREY, zmin=0, zmax=255, hovertemplate=hover, **scale, row=1, col=1)
    figure.add_heatmap(colorscale=COUNTS, zmin=0, **scale, row=2, col=1)
    add_points(figure, "neuron", "square-open", 12, VERMILION, rim=3, showlegend=False, row=2, col=1)
    figure.update_xaxes(**BARE)
    figure.update_yaxes(**BARE, autorange="reversed")
    return figure.update_layout(
        margin=dict(l=8, r=8, t=64, b=8), yaxis_scaleanchor="x", yaxis2_scaleanchor="x2", clickmode="event"
    )
