"""Energy bench: who needs more, under the model and the constants that one chooses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from ..data.dataset import Dataset
from ..figures import energy_bars, take_over
from ..measure.lemaire import ACCESS
from ..measure.verdict import MODELS, RUNS, TITLES, Assumptions, Estimate, estimate, runs_of
from ..simulator.run import simulate
from ..snn.network import SNN
from .page import Explorer, choice, live, on_change, page, say, slider, status
from .plots import alive

CAPTION = (
    "The same spikes under another model of energy, or with other constants. What is charged for memory, and "
    "whether a membrane is touched at every spike, decides more than additions against multiplications."
)

_PARTS = ("arithmetic", "weights", "membranes", "thresholds", "traffic", "addressing")

_RELEASED: dict[str, Any] = dict(continuous_update=False, readout_format=".2f")


def energy_bench(snn: SNN, samples: Dataset, size: int = 128) -> Explorer:
    """The explorer of energy for one image of a network, from the events of the first `size` samples."""
    record = simulate(snn, samples.subset(range(min(size, len(samples)))))
    runs = runs_of(record, snn)

    def draw(how: Assumptions, run: str) -> tuple[go.Figure, Estimate]:
        found = estimate(runs.of(run), how)
        systems = {"integer SNN": found.spiking} | {found.names[key]: parts for key, parts in found.dense.items()}
        # A model without a part has an empty bar: the figure's traces stay the same ones.
        bars = {
            name: {part: float(parts[part].sum()) if part in parts else 0.0 for part in _PARTS}
            for name, parts in systems.items()
            if name != "FP32"
        }
        return energy_bars(bars), found

    drawn, _ = draw(MODELS["lemaire"], "until silence")
    still = Explorer("Energy bench", CAPTION, {"energy": drawn})
    if not live():
        return still
    figures = alive(still.figures)
    own = ("lemaire", "yan")
    controls: dict[str, widgets.Widget] = {
        "model": choice("model", "Who counts.", [(TITLES[name], name) for name in own], "lemaire"),
        "run": choice(
            "run", "Each image until its silence, or as long as the slowest.", list(RUNS), "until silence"
        ),
        "skip_zero_weights": widgets.Checkbox(True, description="skip zero weights", indent=False),
        **_lemaire(),
        **_yan(),
    }
    controls["skip_zero_weights"].tooltip = "A ternary weight of zero is neither fetched nor added."
    line = status()

    def assumptions() -> Assumptions:
        name = controls["model"].value
        fields = {key.partition(".")[2]: c.value for key, c in controls.items() if key.startswith(f"{name}.")}
        return replace(MODELS[name], skip_zero_weights=controls["skip_zero_weights"].value, **fields)

    def change(_: Any = None) -> None:
        for key, control in controls.items():
            if "." in key:
                control.disabled = not key.startswith(f"{controls['model'].value}.")
        new, found = draw(assumptions(), controls["run"].value)
        take_over(figures["energy"], new)
        figures["energy"].layout.xaxis.title.text = new.layout.xaxis.title.text
        told = [f"{found.names[key]}: <b>{saves:.2f}</b>" for key, saves in found.saves.items() if key != "fp32"]
        say(line, f"Energy of each dense network over the SNN's; above 1 the SNN saves: {' · '.join(told)}")

    on_change(change, *controls.values())
    change()
    return page(still, figures, controls, [line], wide="energy")


def _lemaire() -> dict[str, widgets.Widget]:
    membranes, reuse = ["spike and step", "step", "spike"], ["none", "weights", "all"]
    return {
        "lemaire.access": choice("access", "Lemaire: what a memory access costs.", list(ACCESS), "by size"),
        "lemaire.scale": slider("× access", "Lemaire: a factor on it.", 0.0, 4.0, 1.0, 0.05, **_RELEASED),
        "lemaire.membranes": choice("membranes", "Lemaire: when read and written.", membranes, "spike and step"),
        "lemaire.reuse": choice("dense reuse", "Lemaire: what a dense layer fetches once.", reuse, "none"),
    }


def _yan() -> dict[str, widgets.Widget]:
    fine: dict[str, Any] = _RELEASED | dict(readout_format=".3f")
    return {
        "yan.sparse_bit": slider("pJ, routed bit", "Yan: a bit of a spike, a hop.", 0.0, 20.0, 3.0, 0.05, **fine),
        "yan.dense_bit": slider(
            "pJ, dense bit", "Yan: a bit of an activation, a hop.", 0.0, 4.0, 0.25, 0.01, **fine
        ),
        "yan.weight_bit": slider("pJ, weight bit", "Yan: to read it.", 0.0, 1.0, 0.0378, 0.0001, **fine),
        "yan.state_bit": slider("pJ, state bit", "Yan: to read or write it.", 0.0, 1.0, 0.0378, 0.0001, **fine),
        "yan.hops": slider("hops", "Yan: of a value to each neuron.", 0.0, 5.0, 1.0, 0.01, **fine),
        "yan.membranes": choice("membranes", "Yan: when read and written.", ["step", "spike"], "step"),
    }
