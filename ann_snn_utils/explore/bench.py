"""Conversion bench: exact, published and float thresholds side by side."""

from __future__ import annotations

import html
from collections.abc import Callable

import plotly.graph_objects as go

from ..ann.network import ANN
from ..data.dataset import Dataset
from ..figures import accuracy_drawing, accuracy_over_time, bit_widths, drawing_of, mismatch_bars, redraw
from ..measure.equivalence import FormComparison, compare_forms, requantize
from .page import Explorer, bar, choice, labelled, live, page, say, show_progress, slider, status
from .plots import alive
from .worker import Latest

TITLE = "Conversion bench"

CAPTION = (
    "The same weights, converted three ways. Exact integer thresholds and real ones settle on the quantized "
    "ANN's codes; the published rounding leaves some channels off for ever."
)


def conversion_bench(ann: ANN, samples: Dataset, size: int = 64, time_steps: int = 8) -> Explorer:
    """The explorer of threshold forms for a quantized network, on the first `size` samples.

    k, levels and clip are changed without training again, so the ANN's own accuracy changes with them.
    """
    spec = ann.spec
    size = min(size, len(samples))

    def compute(
        wanted: tuple[int, int, int, int], report: Callable[[float], None] = lambda share: None
    ) -> FormComparison:
        k, levels, clip, size = wanted
        return compare_forms(
            requantize(ann, k, levels, clip or None), samples.subset(range(size)), time_steps, report
        )

    def draw_figures(found: FormComparison) -> dict[str, go.Figure]:
        names = found.layer_names
        return {
            "mismatches": mismatch_bars(found.mismatches, names, found.compared),
            "accuracy": accuracy_over_time(found.accuracy, found.ann_accuracy),
            "bits": bit_widths(found.fractional_bits, names, "Fractional bits of the one-adder form"),
        }

    first = compute((spec.k, spec.levels, spec.clip or 0, size))
    figures = draw_figures(first)
    if not live():
        return Explorer(TITLE, CAPTION, figures)
    figures = alive(figures)
    sizes = sorted({size, *(s for s in (32, 64, 128, 256, len(samples)) if s <= min(256, len(samples)))})
    clips = [("none", 0), *((str(c), c) for c in sorted({1, 2, 4, 8} | ({spec.clip} if spec.clip else set())))]
    controls = {
        "k": slider("k", 0, max(3, spec.k), spec.k, continuous_update=False),
        "levels": slider("levels", 1, max(8, spec.levels), spec.levels, continuous_update=False),
        "clip": choice("clip", clips, spec.clip or 0),
        "size": choice("test images", sizes, size),
    }
    line, progress = status(), bar()

    def deliver(found: FormComparison) -> None:
        drawn = draw_figures(found)
        redraw(figures["accuracy"], accuracy_drawing(found.accuracy, found.ann_accuracy))
        for name in ("mismatches", "bits"):
            if len(drawn[name].data) == len(figures[name].data):
                redraw(figures[name], drawing_of(drawn[name]))
        say(line, _sentence(found))

    worker = Latest(
        compute,
        deliver,
        lambda share: show_progress(progress, share),
        lambda error: say(line, f"⚠ {html.escape(str(error))}"),
    )
    for control in controls.values():
        control.observe(lambda _: worker.submit(tuple(c.value for c in controls.values())), names="value")
    say(line, _sentence(first))
    shown = [
        labelled(controls["k"], "Hidden activations are multiples of 2⁻ᵏ; one more k doubles the counts."),
        labelled(controls["levels"], "Steps in which the encoding layer may fire, its largest count."),
        labelled(controls["clip"], "Largest hidden activation; none as published."),
        labelled(controls["size"], "Samples of the test set whose every code is compared."),
    ]
    box = page(TITLE, CAPTION, shown, [progress, line], list(figures.values()))
    return Explorer(TITLE, CAPTION, figures, controls, box)


def _sentence(found: FormComparison) -> str:
    total = sum(found.compared)
    parts = [f"{form}: <b>{sum(wrong):,}</b>" for form, wrong in found.mismatches.items()]
    return f"Codes that differ, of {total:,}: {' · '.join(parts)} · quantized ANN {found.ann_accuracy:.2%}"
