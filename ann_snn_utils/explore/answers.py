"""Answers at every time step: where those of two agree, and the images on which they do not."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch

from ..figures import confusion_matrix
from ..figures.run import confusion_cells
from ..runs.gallery import Network
from .page import packed

# Images that are shown of those that are answered otherwise.
SHOWN = 40


def agreement(
    truth: torch.Tensor,
    answers: torch.Tensor,
    classes: Sequence[str],
    step: int,
    axes: tuple[str, str] = ("class", "answer"),
) -> tuple[go.Figure, list[dict[str, Any]]]:
    """The confusion matrix at a time step, and for each of all steps what page.js changes of it.

    truth, answers: class indices [T, N]. axes: what rows and columns are called.
    """
    title = "Answers at step {}"
    figure = confusion_matrix(truth[step - 1], answers[step - 1], classes, title.format(step), axes)
    changes = []
    for t, (row, column) in enumerate(zip(truth, answers, strict=True), 1):
        cells, told = confusion_cells(row, column, len(classes), title.format(t))
        changes.append({"trace": {key: np.asarray(value).tolist() for key, value in cells.items()}, "title": told})
    return figure, changes


def differing(net: Network, before: torch.Tensor, after: torch.Tensor, title: str) -> tuple[Any, list[Any]]:
    """The images that are answered otherwise, for each step of answers [T, N], as page.js shows them.

    Pixels of all of them, and for each step a title and each image's place among the pixels, number, class and two
    answers, or None where there are none.
    """
    names = net.samples.classes
    changed = [(a != b).nonzero().flatten().tolist() for a, b in zip(before, after, strict=True)]
    shown = sorted({sample for step in changed for sample in step[:SHOWN]})
    steps: list[dict[str, Any] | None] = []
    for one, other, samples in zip(before, after, changed, strict=True):
        more = f", the first {SHOWN} of {len(samples):,}" if len(samples) > SHOWN else f": {len(samples)}"
        entries = [
            {
                "place": shown.index(sample),
                "sample": sample,
                "text": f"{names[int(one[sample])]} → {names[int(other[sample])]}",
                "true": names[int(net.samples.labels[sample])],
            }
            for sample in samples[:SHOWN]
        ]
        steps.append({"title": f"{title}{more}", "images": entries} if entries else None)
    return packed(net.samples.images[shown]) if shown else None, steps


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML."""
    first = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="snn-table"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>'
