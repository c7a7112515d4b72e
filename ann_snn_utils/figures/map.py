"""The figure to choose a neuron in: an image above its layer's counts, channels side by side in one picture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from .template import COUNTS, VERMILION, Drawing, blank, redraw


def mosaic(values: ArrayLike) -> np.ndarray:
    """The channels of [C, H, W] side by side in one picture of whole numbers, None between channels.

    None, not NaN, because a page reads it as JSON.
    """
    maps = np.asarray(values)
    channels, height, width = maps.shape
    columns = _columns(channels, height, width)
    rows = -(-channels // columns)
    gap = 0 if height == width == 1 else 1
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), None, dtype=object)
    for channel in range(channels):
        top, left = channel // columns * (height + gap), channel % columns * (width + gap)
        sheet[top : top + height, left : left + width] = maps[channel]
    return sheet


def mosaic_position(row: int, column: int, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
    """(channel, y, x) of a cell of the mosaic of a map of `shape` (C, H, W); None between channels."""
    channels, height, width = shape
    gap = 0 if height == width == 1 else 1
    down, y = divmod(row, height + gap)
    across, x = divmod(column, width + gap)
    channel = down * _columns(*shape) + across
    inside = y < height and x < width and 0 <= channel < channels and across < _columns(*shape)
    return (channel, y, x) if inside else None


def mosaic_cell(neuron: tuple[int, int, int], shape: tuple[int, int, int]) -> tuple[int, int]:
    """(row, column) in the mosaic of the neuron (channel, y, x): the inverse of `mosaic_position`."""
    gap = 0 if shape[1] == shape[2] == 1 else 1
    down, across = divmod(neuron[0], _columns(*shape))
    return down * (shape[1] + gap) + neuron[1], across * (shape[2] + gap) + neuron[2]


def _columns(channels: int, height: int, width: int) -> int:
    return max(1, round((1.8 * channels * height / width) ** 0.5))


@lru_cache(64)
def mosaic_places(shape: tuple[int, int, int]) -> np.ndarray:
    """Channel, y and x of every cell of the mosaic, int16 [rows, columns, 3]; −1 between channels.

    The array is shared: it cannot be written to.
    """
    sheets = [mosaic(axis) for axis in np.indices(shape)]
    places = np.stack([np.where(sheet == np.array(None), -1, sheet).astype(np.int16) for sheet in sheets], -1)
    places.flags.writeable = False
    return places


_GREY = [[0.0, "#000000"], [1.0, "#ffffff"]]


def layer_map(
    image: ArrayLike, counts: ArrayLike, neuron: tuple[int, int, int], layer: str, step: int
) -> go.Figure:
    """One image above the net spike counts of one layer after a step, with one neuron marked.

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


def layer_map_drawing(
    image: ArrayLike, counts: ArrayLike, neuron: tuple[int, int, int], layer: str, step: int
) -> Drawing:
    """What `layer_map` draws, to redraw a figure that it made with another sample, layer or neuron."""
    sums = np.asarray(counts)
    row, column = mosaic_cell(neuron, (sums.shape[0], sums.shape[1], sums.shape[2]))
    hover = "channel %{customdata[0]}, row %{customdata[1]}, column %{customdata[2]}<br>count %{z}"
    return Drawing(
        [
            dict(z=np.asarray(image).mean(0).round().astype(np.uint8)),
            dict(
                z=mosaic(sums),
                zmax=max(1, int(sums.max())),
                customdata=mosaic_places(sums.shape),
                hovertemplate=f"layer {layer}<br>{hover} after step {step}<extra>click to choose</extra>",
            ),
            dict(x=[column], y=[row]),
        ],
        {"title.text": f"Choose a neuron: counts after step {step}", "annotations[1].text": f"layer {layer}"},
    )
