"""Figures of training and of quantization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from ..ann.quantize import TERNARY_RATIO
from .template import BLUE, FALL, GREEN, INK, RISE, accuracy_axis, add_bars, add_line, blank, in_percent, stairs


def training_curves(history: Sequence[Mapping]) -> go.Figure:
    """Loss and accuracy over epochs, from dicts with epoch, loss, train_accuracy and perhaps accuracy.

    Accuracies are fractions 0 … 1; `accuracy` is the validation accuracy, drawn where an epoch has one.
    """
    if not history:
        raise ValueError("training_curves: the history is empty; train for at least one epoch")
    figure = blank("Training", columns=2, horizontal_spacing=0.12)
    epochs = [row["epoch"] for row in history]
    lines = "lines+markers" if len(history) < 40 else "lines"
    losses: dict[str, Any] = dict(x=epochs, y=[float(row["loss"]) for row in history], mode=lines, panel=1)
    add_line(figure, "training loss", BLUE, hover="epoch %{x}<br>loss %{y:.4f}", **losses)
    values: list[float] = []
    for key, name, color, dash in (
        ("train_accuracy", "training accuracy", BLUE, "solid"),
        ("accuracy", "validation accuracy", GREEN, "dash"),
    ):
        rows = [row for row in history if row.get(key) is not None]
        if rows:
            y = in_percent(row[key] for row in rows)
            values += y
            points: dict[str, Any] = dict(x=[row["epoch"] for row in rows], y=y, mode=lines, panel=2)
            add_line(figure, name, color, dash, hover="epoch %{x}<br>" + name + " %{y:.2f} %", **points)
    figure.update_xaxes(title_text="epoch", tick0=0, dtick=-(-len(history) // 8))
    figure.update_yaxes(title_text="cross-entropy loss", rangemode="tozero", col=1)
    return figure.update_yaxes(**accuracy_axis(values), col=2)


def weight_histogram(weights: Mapping[str, ArrayLike]) -> go.Figure:
    """For each named layer, the histogram of w / (0.7 · mean|w|), with the shares of −1, 0 and +1.

    weights: layer name → raw (float) weight of any shape. Those beyond ±1 become ±1, the others 0.
    """
    columns = min(3, len(weights))
    rows = -(-len(weights) // columns)
    edges = np.linspace(-4, 4, 81)
    centres = (edges[1:] + edges[:-1]) / 2
    counted = {}
    for name, weight in weights.items():
        w = np.asarray(weight, dtype=np.float64).ravel()
        limit = TERNARY_RATIO * np.abs(w).mean()
        codes = np.sign(w) * (np.abs(w) > limit)
        counted[name] = (
            np.histogram((w / (limit or 1)).clip(-3.999, 3.999), edges)[0],
            [100 * float((codes == code).mean()) for code in (-1, 0, 1)],
            len(w),
        )
    subtitles = [f"{name}: {s[0]:.0f} / {s[1]:.0f} / {s[2]:.0f} %" for name, (_, s, _) in counted.items()]
    panels = dict(shared_xaxes=True, horizontal_spacing=0.08, vertical_spacing=0.34 / rows)
    figure = blank("Weights before they become ternary", rows, columns, 110 + 210 * rows, subtitles, **panels)
    parts = (("−1", FALL, centres < -1), ("0", INK, abs(centres) < 1), ("+1", RISE, centres > 1))
    for panel, (name, (bins, shares, total)) in enumerate(counted.items(), 1):
        for (code, color, chosen), part in zip(parts, shares, strict=True):
            bars = dict(x=centres[chosen], y=100 * bins[chosen] / total, panel=panel)
            hover = f"{name}<br>w = %{{x:.2f}} thresholds → {code}<br>%{{y:.2f}} % of weights"
            hover += f"<extra>{part:.1f} % become {code}</extra>"
            add_bars(figure, code, color, hover, **bars, legendgroup=code, showlegend=panel == 1)
    figure.update_layout(bargap=0, barmode="overlay", margin_t=66, legend_title_text="becomes")
    # The outermost bars hold all that lies beyond.
    ends = dict(tickvals=[-4, -2, 0, 2, 4], ticktext=["≤ −4", "−2", "0", "2", "≥ 4"])
    figure.update_xaxes(range=[-4.1, 4.1], showticklabels=True, **ends)
    for panel in range(max(0, len(weights) - columns), len(weights)):
        row, column = divmod(panel, columns)
        figure.update_xaxes(title_text="w / threshold", row=row + 1, col=column + 1)
    figure.update_yaxes(ticksuffix=" %")
    return figure.update_yaxes(title_text="share of weights", col=1)


def activation_staircase(k: int = 0, clip: int | None = None) -> go.Figure:
    """A = floor(2^k · relu(x) + 1/2) / 2^k as a staircase over x beside the plain ReLU."""
    n, top = 2**k, 4 if clip is None else clip
    largest = n * (top + 1 if clip is None else top)
    figure = blank("Quantized activation")
    ends, hover = [0, top + 1], "x = %{x:.2f}<br>relu = %{y:.2f}"
    add_line(figure, "ReLU", dash="dot", hover=hover, x=[-1, *ends], y=[0, *ends])
    codes = np.arange(largest + 1)
    x, y = stairs(-1, (codes[1:] - 0.5) / n, top + 1, codes / n)
    name = f"k = {k}: steps of {f'1/{n}' if k else 1}"
    add_line(figure, name, BLUE, hover=f"k = {k}<br>x = %{{x:.3f}}<br>a = %{{y:.3f}}", x=x, y=y)
    figure.update_xaxes(title_text="batch norm output x")
    return figure.update_yaxes(title_text="activation a")
