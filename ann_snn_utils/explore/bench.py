"""Conversion bench: exact, published and float thresholds side by side."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go

from ..ann.network import ANN
from ..data.dataset import Dataset
from ..figures import accuracy_over_time, bit_widths, mismatch_bars, take_over
from ..measure.equivalence import FormComparison, compare_forms, requantize
from .page import Explorer, choice, live, newest, on_change, page, say, slider, status
from .plots import alive

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
    still = Explorer("Conversion bench", CAPTION, draw_figures(first))
    if not live():
        return still
    figures = alive(still.figures)
    sizes = sorted({size, *(s for s in (32, 64, 128, 256, len(samples)) if s <= min(256, len(samples)))})
    clips = [("none", 0), *((str(c), c) for c in sorted({1, 2, 4, 8} | ({spec.clip} if spec.clip else set())))]
    doubled = "Hidden activations are multiples of 2⁻ᵏ; one more k doubles the counts."
    encoding = "Steps in which the encoding layer may fire, its largest count."
    released = dict(continuous_update=False)
    controls = {
        "k": slider("k", doubled, 0, max(3, spec.k), spec.k, **released),
        "levels": slider("levels", encoding, 1, max(8, spec.levels), spec.levels, **released),
        "clip": choice("clip", "Largest hidden activation; none as published.", clips, spec.clip or 0),
        "size": choice("test images", "Samples of the test set whose every code is compared.", sizes, size),
    }
    line = status()

    def deliver(found: FormComparison) -> None:
        drawn = draw_figures(found)
        for name, figure in figures.items():
            if len(drawn[name].data) == len(figure.data):
                take_over(figure, drawn[name])
        say(line, _sentence(found))

    worker, progress = newest(compute, deliver, line)
    on_change(lambda _: worker.submit(tuple(c.value for c in controls.values())), *controls.values())
    say(line, _sentence(first))
    return page(still, figures, controls, [progress, line])


def _sentence(found: FormComparison) -> str:
    total = sum(found.compared)
    parts = [f"{form}: <b>{sum(wrong):,}</b>" for form, wrong in found.mismatches.items()]
    return f"Codes that differ, of {total:,}: {' · '.join(parts)} · quantized ANN {found.ann_accuracy:.2%}"
