"""Figures of a network on its way to integers: training, quantization, thresholds and their bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from ..ann.quantize import TERNARY_RATIO
from ..snn.network import SpikingLayer
from . import look

# Jumps of a staircase that decide how much of the membrane's range is shown.
_STEPS = 6


def training_curves(history: Sequence[Mapping]) -> go.Figure:
    """Loss and accuracy over epochs, from dicts with epoch, loss, train_accuracy and perhaps accuracy.

    Accuracies are fractions 0 … 1; `accuracy` is the validation accuracy, drawn where an epoch has one.
    """
    if not history:
        raise ValueError("training_curves: the history is empty; train for at least one epoch")
    figure = look.blank("Training", columns=2, horizontal_spacing=0.12)
    epochs = [row["epoch"] for row in history]
    lines = "lines+markers" if len(history) < 40 else "lines"
    losses: dict[str, Any] = dict(x=epochs, y=[float(row["loss"]) for row in history], mode=lines, panel=1)
    look.line(figure, "training loss", look.BLUE, hover="epoch %{x}<br>loss %{y:.4f}", **losses)
    values: list[float] = []
    for key, name, color, dash in (
        ("train_accuracy", "training accuracy", look.BLUE, "solid"),
        ("accuracy", "validation accuracy", look.GREEN, "dash"),
    ):
        rows = [row for row in history if row.get(key) is not None]
        if rows:
            y = look.in_percent(row[key] for row in rows)
            values += y
            points: dict[str, Any] = dict(x=[row["epoch"] for row in rows], y=y, mode=lines, panel=2)
            look.line(figure, name, color, dash, hover="epoch %{x}<br>" + name + " %{y:.2f} %", **points)
    figure.update_xaxes(title_text="epoch", tick0=0, dtick=-(-len(history) // 8))
    figure.update_yaxes(title_text="cross-entropy loss", rangemode="tozero", col=1)
    return figure.update_yaxes(**look.accuracy_axis(values), col=2)


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
    figure = look.blank("Weights before they become ternary", rows, columns, 110 + 210 * rows, subtitles, **panels)
    parts = (("−1", look.FALL, centres < -1), ("0", look.INK, abs(centres) < 1), ("+1", look.RISE, centres > 1))
    for panel, (name, (bins, shares, total)) in enumerate(counted.items(), 1):
        for (code, color, chosen), part in zip(parts, shares, strict=True):
            bars = dict(x=centres[chosen], y=100 * bins[chosen] / total, panel=panel)
            hover = f"{name}<br>w = %{{x:.2f}} thresholds → {code}<br>%{{y:.2f}} % of weights"
            hover += f"<extra>{part:.1f} % become {code}</extra>"
            look.bars(figure, code, color, hover, **bars, legendgroup=code, showlegend=panel == 1)
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
    figure = look.blank("Quantized activation")
    ends, hover = [0, top + 1], "x = %{x:.2f}<br>relu = %{y:.2f}"
    look.line(figure, "ReLU", dash="dot", hover=hover, x=[-1, *ends], y=[0, *ends])
    codes = np.arange(largest + 1)
    x, y = look.stairs(-1, (codes[1:] - 0.5) / n, top + 1, codes / n)
    name = f"k = {k}: steps of {f'1/{n}' if k else 1}"
    look.line(figure, name, look.BLUE, hover=f"k = {k}<br>x = %{{x:.3f}}<br>a = %{{y:.3f}}", x=x, y=y)
    figure.update_xaxes(title_text="batch norm output x")
    return figure.update_yaxes(title_text="activation a")


def threshold_staircase(
    layer: SpikingLayer,
    channels: Sequence[int] = (0, 1, 2),
    real: SpikingLayer | None = None,
    published: SpikingLayer | None = None,
) -> go.Figure:
    """The count as a function of the membrane U for some channels, over their first six steps.

    layer: exact integer thresholds, drawn as the staircase. real, published: the same layer converted with
    float and with published thresholds; the real θ_j appear as diamonds, halfway up the step that they cause, the
    published ones as a second, dashed staircase.
    """
    figure = look.blank(
        f"{layer.name}: spike count over the membrane",
        columns=len(channels),
        height=400,
        subtitles=[f"channel {channel}" for channel in channels],
        shared_yaxes=True,
        horizontal_spacing=0.05,
    )
    forms = [("exact", "exact: integer ⌈θ⌉", layer, "solid", 2.5)]
    if published is not None:
        forms.append(("published", "published rounding", published, "dash", 1.5))
    for column, channel in enumerate(channels, 1):
        low, high = _window(layer, channel)
        place: dict[str, Any] = dict(panel=column, showlegend=column == 1)
        for form, name, one, dash, width in forms:
            hover = f"channel {channel}<br>U = %{{x}}<br>count %{{y}}<extra>{form}</extra>"
            x, y = _corners(one, channel, low, high)
            look.line(figure, name, look.FORMS[form], dash, width, hover, x=x, y=y, legendgroup=form, **place)
        if real is not None:
            theta = np.asarray(real.thresholds[channel], dtype=np.float64)
            inside = (theta >= low) & (theta <= high)
            counts = layer.spec.lowest + np.flatnonzero(inside)
            middles = dict(x=theta[inside], y=counts + 0.5, legendgroup="real") | place
            hover = f"channel {channel}<br>θ = %{{x:.4f}}<extra>real</extra>"
            look.points(figure, "real θ", "diamond-open", 9, look.FORMS["float"], hover, 2, **middles)
    figure.update_xaxes(title_text="membrane U")
    figure.update_yaxes(title_text="net spike count n", col=1)
    figure.update_yaxes(dtick=1)
    return figure.update_layout(margin_t=66)


def _reachable(layer: SpikingLayer, channel: int) -> np.ndarray:
    # The membranes that send a spike, which are above the thresholds of the published neuron.
    table = np.asarray(layer.compared[0][channel], dtype=np.float64)
    return table[table <= int(layer.highest[channel])]


def _window(layer: SpikingLayer, channel: int) -> tuple[int, int]:
    """The membranes to show: around the channel's first jumps within its reach."""
    lowest, highest = int(layer.lowest[channel]), int(layer.highest[channel])
    table = _reachable(layer, channel)[:_STEPS]
    jumps = table[table > lowest]
    # A channel that always fires, or never, has no jump inside its reach.
    if not len(jumps):
        return max(lowest, -5), min(highest, 5)
    margin = max(2, round((jumps[-1] - jumps[0]) / len(jumps)))
    return max(lowest, int(jumps[0]) - margin), min(highest, int(jumps[-1]) + margin)


def _corners(layer: SpikingLayer, channel: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the staircase n(U) = lowest count + #{j: U ≥ θ_j} from `low` to `high`."""
    table = _reachable(layer, channel)
    jumps = table[(low < table) & (table <= high)]
    first = layer.spec.lowest + int((table <= low).sum())
    return look.stairs(low, jumps, high, first + np.arange(len(jumps) + 1))


def mismatch_bars(
    mismatches: Mapping[str, Sequence[int]], layer_names: Sequence[str], neurons: Sequence[int]
) -> go.Figure:
    """The share of wrong codes in each layer, a bar for each threshold form.

    mismatches: form → wrong codes per layer. neurons: codes compared per layer (neurons · samples).
    """
    pairs = {
        form: [[int(w), int(n)] for w, n in zip(wrong, neurons, strict=True)] for form, wrong in mismatches.items()
    }
    shares = {form: [100 * w / n for w, n in layers] for form, layers in pairs.items()}
    figure = look.layer_bars(
        "Codes that differ from the quantized network's",
        layer_names,
        shares,
        "share of codes that differ",
        "%{customdata[0]:,} of %{customdata[1]:,} codes differ (%{y:.3g} %)<extra>{name}</extra>",
        customdata=list(pairs.values()),
        text=[[f"{value:.2g} %" if value else "0" for value in row] for row in shares.values()],
        textposition="outside",
        textangle=0,
        textfont_size=11,
        constraintext="none",
        cliponaxis=False,
    )
    return figure.update_yaxes(ticksuffix=" %")


def bit_widths(
    widths: Mapping[str, Sequence[int]], layer_names: Sequence[str], title: str = "Bits that each layer needs"
) -> go.Figure:
    """Bits per layer, a bar for each quantity: quantity → whole number of bits for every layer.

    Fit for membrane (worst case), membrane (observed), threshold, spike count and fractional bits.
    """
    figure = look.layer_bars(
        title,
        layer_names,
        widths,
        "bits",
        "{name}: %{y} bits<extra></extra>",
        text=[[str(int(b)) for b in bits] for bits in widths.values()],
        textposition="outside",
        cliponaxis=False,
    )
    widest = max((int(b) for row in widths.values() for b in row), default=0)
    for width in (8, 16, 32):
        if width <= widest:
            shown: dict[str, Any] = dict(annotation_text=f"{width} bits", annotation_position="top right")
            figure.add_hline(width, line=dict(color=look.INK, dash="dot", width=1), layer="below", **shown)
    return figure
