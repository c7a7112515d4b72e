"""The spikes of one image as an animated GIF, which plays wherever a picture is shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageColor, ImageDraw, ImageFont

from ..files import atomic
from .pictures import tiles
from .template import FALL, INK, RISE, SKY

_WIDTH, _HEIGHT, _TITLE, _MARGIN, _COLUMNS = 300, 236, 40, 12, 3
# What is left of a panel for its picture, below the caption.
_ROOM = (_WIDTH - 2 * _MARGIN, _HEIGHT - 34)
_SECONDS = 0.8
# Of −1, 0 and +1, which index it; and of what lies between the maps of two channels.
_COLORS = np.array([ImageColor.getrgb(color) for color in ("#ebebeb", RISE, "#ffffff", FALL)], dtype=np.uint8)
_GAP = 2


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
        bars = _bars(after, step, chosen, classes, RISE if answer == label else FALL)
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
        draw.text((left, top), caption, INK, ImageFont.load_default(13))
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
        draw.text((begin - 6, middle), text, INK, ImageFont.load_default(12), anchor="rm")
        best = index == scores[step].argmax()
        box = [min(zero, end), middle - 0.36 * each, max(zero, end), middle + 0.36 * each]
        draw.rectangle(box, fill=color if best else SKY)
    draw.line([zero, 0, zero, height], fill=INK)
    return picture
