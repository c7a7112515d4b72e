"""Figures that are pictures: images with what was said of them, kernels, and what speaks for each class."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from PIL import Image, ImageColor

from .template import FALL, RISE, blank

_SIGNS = np.array([ImageColor.getrgb(color) for color in (FALL, RISE)])
_GROUND = (128, 128, 128, 36)


def sample_images(
    images: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    n: int = 10,
    answers: ArrayLike | None = None,
    title: str = "Samples",
) -> go.Figure:
    """The first n images in rows of up to ten, each with its class below, and with the answer it was given.

    images: uint8 [N, 1 or 3, H, W] tensor or array; labels, answers: whole numbers [N] that index `classes`.
    """
    names = [str(classes[int(label)]) for label in np.asarray(labels)[:n]]
    if answers is not None:
        said = [str(classes[int(answer)]) for answer in np.asarray(answers)[:n]]
        names = [f"{name} → {answer}" for name, answer in zip(names, said, strict=True)]
    return _pictures(title, [_opaque(image) for image in np.asarray(images)[:n]], names)


def kernels(weight: ArrayLike, title: str = "Kernels", n: int = 40) -> go.Figure:
    """The first n filters of a layer, each as its kernels side by side: blue adds, orange subtracts, zero is grey.

    weight: [out, in, height, width]. Three input channels are taken for red, green and blue, grey for zero.
    """
    filters = np.asarray(weight, dtype=np.float64)[:n]
    columns = round(filters.shape[1] ** 0.5)
    largest = abs(filters).max() or 1.0
    names = [str(index) for index in range(len(filters))]
    if filters.shape[1] == 3:
        colours = ((filters / largest + 1) * 127.5).round().astype(np.uint8)
        return _pictures(title, [_opaque(each) for each in colours], names)
    return _pictures(title, [_signed(tiles(each, columns, np.nan), largest) for each in filters], names)


def class_pictures(images: ArrayLike, evidence: ArrayLike, classes: Sequence[str]) -> go.Figure:
    """For each class a typical image, and below it the pixels that speak for (blue) and against it (orange).

    images: uint8 [classes, 1 or 3, H, W]; evidence: signed [classes, 1 or 3, H, W], summed over channels.
    """
    speaks = np.asarray(evidence, dtype=np.float64).sum(1)
    pictures = [_opaque(image) for image in np.asarray(images)]
    # Each against its own largest: classes differ in how strongly they are told.
    pictures += [_signed(each, abs(each).max() or 1.0) for each in speaks]
    title = "A mean image of each class, and what speaks for and against it"
    return _pictures(title, pictures, [*map(str, classes)] * 2, columns=len(speaks))


def _opaque(image: np.ndarray) -> np.ndarray:
    """A picture [H, W, 4] of an image uint8 [1 or 3, H, W]."""
    rgb = np.broadcast_to(image[:3], (3, *image.shape[1:])).transpose(1, 2, 0)
    return np.concatenate([rgb, np.full((*rgb.shape[:2], 1), 255, dtype=np.uint8)], 2)


def _signed(values: np.ndarray, largest: float) -> np.ndarray:
    """A picture [H, W, 4] of signed values, the stronger the less transparent: it suits both themes.

    What is nearly 0 shows a ground of pale grey, and nothing is drawn where a value is none (NaN).
    """
    alpha = (255 * abs(values) / largest).round()[..., None]
    picture = np.concatenate([_SIGNS[(values > 0).astype(int)], alpha], -1)
    picture[alpha[..., 0] < _GROUND[-1]] = _GROUND
    return np.where(np.isnan(alpha), 0, picture).astype(np.uint8)


def tiles(maps: np.ndarray, columns: int, between: float = 0) -> np.ndarray:
    """Maps [I, H, W] in rows of `columns` on one sheet; a line of `between` parts those of more than one pixel."""
    count, height, width = maps.shape
    gap = int(count > 1 and height * width > 1)
    rows, down, across = -(-count // columns), height + gap, width + gap
    cells = np.full((rows * columns, down, across), between, dtype=maps.dtype)
    cells[:count, :height, :width] = maps
    sheet = cells.reshape(rows, columns, down, across).swapaxes(1, 2).reshape(rows * down, columns * across)
    return sheet[: rows * down - gap, : columns * across - gap]


def _pictures(title: str, pictures: Sequence[np.ndarray], names: Sequence[str], columns: int = 10) -> go.Figure:
    """Pictures uint8 [H, W, 4] of one size in rows, each with its name below."""
    height, width, _ = pictures[0].shape
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    down, across = height + max(1, height // 3), width + max(1, width // 6)
    sheet = np.zeros((rows * down, columns * across, 4), dtype=np.uint8)
    figure = blank(title, height=60 + 115 * rows)
    for index, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        top, left = index // columns * down, index % columns * across
        sheet[top : top + height, left : left + width] = picture
        below = dict(x=left + width / 2 - 0.5, y=top + height - 0.5, yanchor="top", showarrow=False)
        figure.add_annotation(text=name, font_size=12, **below)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "PNG")
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    figure.add_image(source=source, hoverinfo="skip")
    hidden = dict(visible=False, showgrid=False, zeroline=False, constrain="domain")
    figure.update_xaxes(**hidden, range=[-0.5, sheet.shape[1] - 0.5])
    figure.update_yaxes(**hidden, range=[sheet.shape[0] - 0.5, -0.5], scaleanchor="x")
    return figure.update_layout(margin=dict(l=8, r=8, t=44, b=8))
