"""Conversion bench: exact, published and float thresholds side by side."""

from __future__ import annotations

from typing import Any

from ..figures import accuracy_over_time, bit_widths, mismatch_bars
from ..measure.equivalence import FormComparison, adder_bits, compare_forms, requantize
from ..runs.gallery import Network
from .page import Explorer, Report, choice, drawn, figure_explorer, remembered, slider

CAPTION = (
    "The same weights, converted three ways. Exact integer thresholds and real ones settle on the quantized "
    "ANN's codes; the published rounding leaves some channels off for ever."
)


def conversion_bench(net: Network, size: int = 32) -> Explorer:
    """The explorer of threshold forms for a quantized network, on the first `size` samples, until all are silent.

    k, levels and clip are changed without training again, so the ANN's own accuracy changes with them. A graph has
    no k and clip: it says of each of its layers what a count is worth and where counts end.
    """
    ann, samples = net.ann, net.samples
    spec, size = ann.spec, min(size, len(net.samples))
    own = {"k": spec.k, "clip": spec.clip or 0}

    def compare(wanted: tuple[int, int, int, int], report: Report) -> FormComparison:
        k, levels, clip, size = wanted
        return compare_forms(requantize(ann, k, levels, clip or None), samples.subset(range(size)), None, report)

    compared = remembered(compare)

    def answer(values: dict[str, Any], report: Report) -> dict[str, Any]:
        found = compared(tuple((own | values)[name] for name in ("k", "levels", "clip", "size")), report)
        names = found.layer_names
        figures = {
            "mismatches": mismatch_bars(found.mismatches, names, found.compared),
            "accuracy": accuracy_over_time(found.accuracy, found.ann_accuracy, from_zero=True),
        }
        first: dict[str, Any] = {"figures": drawn(figures), "line": _sentence(found)}
        # The proof takes longer than the comparison, which does not wait for it.
        report(first)
        bits = adder_bits(found.networks["exact"], found.networks["float"])
        proven = {"bits": bit_widths(bits, names, "Fractional bits of the one-adder form")}
        return first | {"figures": first["figures"] | drawn(proven)}

    sizes = sorted({size, *(s for s in (32, 64, 128, 256, len(samples)) if s <= min(256, len(samples)))})
    clips = [("none", 0), *((str(c), c) for c in sorted({1, 2, 4, 8} | ({spec.clip} if spec.clip else set())))]
    doubled = "Hidden activations are multiples of 2⁻ᵏ; one more k doubles the counts"
    encoding = "Steps in which the encoding layer may fire, its largest count"
    controls = [
        slider("k", "k", doubled, 0, max(3, spec.k), spec.k),
        slider("levels", "levels", encoding, 1, max(8, spec.levels), spec.levels),
        choice("clip", "clip", "Largest hidden activation; none as published", clips, spec.clip or 0),
        choice("size", "images", "Whose every code is compared", [(str(s), s) for s in sizes], size),
    ]
    controls = [one for one in controls if not (spec.is_graph and one["name"] in own)]
    return figure_explorer("Conversion bench", CAPTION, controls, answer)


def _sentence(found: FormComparison) -> str:
    total = sum(found.compared)
    parts = [f"{form}: <b>{sum(wrong):,}</b>" for form, wrong in found.mismatches.items()]
    return f"Codes that differ, of {total:,}: {' · '.join(parts)} · quantized ANN {found.ann_accuracy:.2%}"
