"""Pictures: images with what was said of them, kernels, evidence for each class, and spikes as an animated GIF."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..files import atomic
from . import look

_SIGNS = np.array([ImageColor.getrgb(color) for color in (look.FALL, look.RISE)])
_GROUND = (128, 128, 128, 36)

# Pixels of a frame of an animation: its panels, the title above them, and what is around and between.
_WIDTH, _HEIGHT, _TITLE, _MARGIN, _COLUMNS = 300, 236, 40, 12, 3
# What is left of a panel for its picture, below the caption.
_ROOM = (_WIDTH - 2 * _MARGIN, _HEIGHT - 34)
_SECONDS = 0.8
# Of −1, 0 and +1, which index it; and of what lies between the maps of two channels.
_COLORS = np.array(
    [ImageColor.getrgb(color) for color in ("#ebebeb", look.RISE, "#ffffff", look.FALL)], dtype=np.uint8
)
_GAP = 2


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
    figure = look.blank(title, height=60 + 115 * rows)
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


def spike_gif(
    path: Path,
    image: ArrayLike,
    spikes: Sequence[ArrayLike],
    scores: ArrayLike,
    layer_names: Sequence[str],
    classes: Sequence[str],
    label: int,
) -> Path:
    """Write an animation with a frame for each time step, and return its path.

    - image: pixels uint8 [C, H, W], C = 1 or 3
    - spikes: −1, 0, +1, [T, C, H, W] for each layer; channels are shown side by side
    - scores: of the classes after each step [T, classes]; the ten that are largest at the end are shown
    - label: the true class, by which the answer is blue or red
    """
    layers, after = [np.asarray(fired) for fired in spikes], np.asarray(scores, dtype=np.float64)
    pixels = np.asarray(image)
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    chosen, frames = sorted(np.argsort(-after[-1], kind="stable")[:10].tolist()), []
    for step in range(len(after)):
        now = [fired[step] for fired in layers]
        answer = int(after[step].argmax())
        total = sum(int(np.abs(fired).sum()) for fired in now)
        bars = _bars(after, step, chosen, classes, look.RISE if answer == label else look.FALL)
        panels = [(f"image: {classes[label]}", picture), (f"scores: {classes[answer]}", bars)]
        panels += [
            (f"{index} · {name}: {(fired > 0).sum():,} of +1, {(fired < 0).sum():,} of -1", _maps(fired))
            for index, (name, fired) in enumerate(zip(layer_names, now, strict=True))
        ]
        frames.append(_frame(f"step {step + 1} of {len(after)}: {total:,} spikes", panels))
    durations = [int(1000 * _SECONDS)] * (len(frames) - 1) + [int(3000 * _SECONDS)]
    with atomic(path) as temporary:
        frames[0].save(temporary, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    return path


def _frame(title: str, panels: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    rows = -(-len(panels) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _WIDTH, _TITLE + rows * _HEIGHT), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _TITLE / 2), title, "black", ImageFont.load_default(20), anchor="lm")
    for index, (caption, picture) in enumerate(panels):
        row, column = divmod(index, _COLUMNS)
        left, top = column * _WIDTH + _MARGIN, _TITLE + row * _HEIGHT
        draw.text((left, top), caption, look.INK, ImageFont.load_default(13))
        sheet.paste(_fitted(picture), (left, top + 22))
    return sheet


def _fitted(picture: Image.Image) -> Image.Image:
    scale = min(_ROOM[0] / picture.width, _ROOM[1] / picture.height)
    # Whole cells where there is room for them: spikes are single pixels.
    scale = float(int(scale)) if scale >= 1 else scale
    size = max(1, round(scale * picture.width)), max(1, round(scale * picture.height))
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)


def _maps(fired: np.ndarray) -> Image.Image:
    channels, height, width = fired.shape
    columns = max(1, round((1.4 * channels * height / width) ** 0.5))
    # −1 is the last colour.
    return Image.fromarray(_COLORS[tiles(fired, columns, _GAP)])


def _bars(scores: np.ndarray, step: int, chosen: Sequence[int], classes: Sequence[str], color: str) -> Image.Image:
    width, height = _ROOM
    picture = Image.new("RGB", _ROOM, "white")
    draw, each = ImageDraw.Draw(picture), height / len(chosen)
    low, high = min(0.0, scores.min()), max(0.0, scores.max())
    unit, begin = (width - 84) / ((high - low) or 1.0), 80
    zero = begin - low * unit
    for place, index in enumerate(chosen):
        middle, end = (place + 0.5) * each, zero + scores[step, index] * unit
        text = str(classes[index])[:11]
        draw.text((begin - 6, middle), text, look.INK, ImageFont.load_default(12), anchor="rm")
        best = index == scores[step].argmax()
        box = [min(zero, end), middle - 0.36 * each, max(zero, end), middle + 0.36 * each]
        draw.rectangle(box, fill=color if best else look.SKY)
    draw.line([zero, 0, zero, height], fill=look.INK)
    return picture
