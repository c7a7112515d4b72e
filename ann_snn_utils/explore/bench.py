"""Conversion bench, exact, published and float thresholds side by side; energy bench, who needs more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..figures import accuracy_over_time, bit_widths, energy_bars, mismatch_bars
from ..figures.look import SPENT_ON
from ..measure.equivalence import FormComparison, adder_bits, compare_forms, requantize
from ..measure.memory import ACCESS
from ..measure.verdict import MODELS, RUNS, TITLES, Assumptions, estimate, run_events_of
from ..runs.gallery import Network
from ..simulator.run import simulate
from .page import Explorer, Report, checkbox, choice, drawn, figure_explorer, remembered, slider

CONVERSION = (
    "The same weights, converted three ways. Exact integer thresholds and real ones settle on the quantized "
    "ANN's codes; the published rounding leaves some channels off for ever."
)
ENERGY = (
    "The same spikes under another model of energy, or with other constants. What is charged for memory, and "
    "whether a membrane is touched at every spike, decides more than additions against multiplications."
)

# Field of a model → what it is called and says, and its range with a step, or what to choose from.
_ASKED: dict[str, dict[str, tuple[str, str, tuple]]] = {
    "lemaire": {
        "access": ("access", "What a memory access costs", tuple(ACCESS)),
        "scale": ("× access", "A factor on it", (0.0, 4.0, 0.05)),
        "membranes": ("membranes", "When they are read and written", ("spike and step", "step", "spike")),
        "reuse": ("dense reuse", "What a dense layer fetches once", ("none", "weights", "all")),
    },
    "yan": {
        "sparse_bit": ("pJ, routed bit", "A bit of a spike, a hop", (0.0, 20.0, 0.05)),
        "dense_bit": ("pJ, dense bit", "A bit of an activation, a hop", (0.0, 4.0, 0.01)),
        "weight_bit": ("pJ, weight bit", "To read it", (0.0, 1.0, 0.0001)),
        "state_bit": ("pJ, state bit", "To read or write it", (0.0, 1.0, 0.0001)),
        "hops": ("hops", "Of a value to each neuron", (0.0, 5.0, 0.01)),
        "membranes": ("membranes", "When they are read and written", ("step", "spike")),
    },
}


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
    return figure_explorer("Conversion bench", CONVERSION, controls, answer)


def _sentence(found: FormComparison) -> str:
    total = sum(found.compared)
    parts = [f"{form}: <b>{sum(wrong):,}</b>" for form, wrong in found.mismatches.items()]
    return f"Codes that differ, of {total:,}: {' · '.join(parts)} · quantized ANN {found.ann_accuracy:.2%}"


def energy_bench(net: Network, size: int = 128) -> Explorer:
    """The explorer of energy for one image of a network, from the events of the first `size` samples."""
    snn, samples = net.snn, net.samples
    record = simulate(snn, samples.subset(range(min(size, len(samples)))))
    runs = run_events_of(record, snn)

    def answer(values: dict[str, Any], report: Report) -> dict[str, Any]:
        found = estimate(runs.of(values["run"]), _assumptions(values))
        systems = {"integer SNN": found.spiking} | {found.names[key]: parts for key, parts in found.dense.items()}
        # A model without a part has an empty bar: the figure's traces stay the same ones.
        bars = {
            name: {part: float(parts[part].sum()) if part in parts else 0.0 for part in SPENT_ON}
            for name, parts in systems.items()
            if name != "FP32"
        }
        told = [f"{found.names[key]}: <b>{saves:.2f}</b>" for key, saves in found.saves.items() if key != "fp32"]
        return {
            "figures": drawn({"energy": energy_bars(bars, f"Energy per image, after {TITLES[values['model']]}")}),
            "wide": "energy",
            "line": f"Energy of each dense network over the SNN's; above 1 the SNN saves: {' · '.join(told)}",
        }

    until = "Each image until its silence, or as long as the slowest"
    zeros = "A ternary weight of zero is neither fetched nor added"
    controls = [
        choice("model", "model", "Who counts", [(TITLES[model], model) for model in _ASKED], "lemaire"),
        choice("run", "run", until, RUNS, "until silence"),
        checkbox("skip_zero_weights", "skip zeros", zeros, True),
        *(_control(model, field) | {"shown_by": ["model", model]} for model in _ASKED for field in _ASKED[model]),
    ]
    return figure_explorer("Energy bench", ENERGY, controls, answer)


def _assumptions(values: dict[str, Any]) -> Assumptions:
    """The chosen model with its own controls' values, whose names begin with the model's."""
    name = values["model"]
    chosen = {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")}
    return replace(MODELS[name], skip_zero_weights=values["skip_zero_weights"], **chosen)


def _control(model: str, field: str) -> dict[str, Any]:
    """The control of an assumption, which begins with what the model's authors assume."""
    (label, explained, among), own = _ASKED[model][field], getattr(MODELS[model], field)
    if isinstance(own, str):
        return choice(f"{model}.{field}", label, explained, among, own)
    low, high, step = among
    return slider(f"{model}.{field}", label, explained, low, high, own, step)
