"""Energy bench: who needs more, under the model and the constants that one chooses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..figures import energy_bars
from ..figures.look import SPENT_ON
from ..measure.lemaire import ACCESS
from ..measure.verdict import MODELS, RUNS, TITLES, Assumptions, estimate, run_events_of
from ..runs.gallery import Network
from ..simulator.run import simulate
from .page import Explorer, Report, checkbox, choice, drawn, figure_explorer, slider

CAPTION = (
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
    return figure_explorer("Energy bench", CAPTION, controls, answer)


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
