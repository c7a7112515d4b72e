"""Accuracy lab: how far thresholds, pixels and spikes can be disturbed, on a part of the test set."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from ..ann.network import ANN
from ..ann.reference import predict
from ..data.dataset import Dataset
from ..figures import accuracy_over_time, cost_over_time, spikes_over_time
from ..measure.energy import macs
from ..measure.trial import Setting, Trial, run_trial
from ..snn.network import SNN
from .page import Explorer, button, choice, live, newest, on_change, page, say, slider, status
from .plots import alive

CAPTION = (
    "Accuracy and work after every time step, for thresholds off by a factor, noisy pixels, or spikes that are "
    "lost or flipped on their way. Undisturbed, the network ends on the quantized ANN's answers."
)

HELP = {
    "step": "Answers read out after T steps; slices the run, no recomputation.",
    "scale": "Factor on all thresholds, rounded up to integers; 1 is lossless.",
    "noise": "Pixels × (1 + (u − ½) · ratio), u uniform in 0 … 1, rounded.",
    "fault": "Spikes lost, or with the wrong sign, on their way to the next layer.",
    "rate": "Probability that a spike is hit by the fault.",
    "size": "Samples of the test set, balanced over the classes.",
    "reset": "All controls back to the undisturbed network.",
    "per_layer": "A slider for each layer; layer 0 encodes the image.",
}

SIZES = (64, 128, 256, 512, 1000, 2000, 5000, 10000)


def accuracy_lab(
    snn: SNN,
    samples: Dataset,
    ann: ANN | None = None,
    run: str = "",
    size: int = 256,
    time_steps: int = 8,
    seed: int = 0,
) -> Explorer:
    """The explorer of accuracy and work on the first `size` samples (0: all), over `time_steps` steps.

    ann: the quantized network, for its accuracy on the same samples. run: the run's name ("bundled:…" for a
    network that comes with the project), for the command that repeats the trial. seed: of noise and faults.
    """
    size = min(size or len(samples), len(samples))
    work = sum(macs(snn.spec)[1:-1])

    @lru_cache(8)
    def undisturbed(size: int) -> tuple[Trial, float | None]:
        chosen = samples.subset(range(size))
        right = None if ann is None else float((predict(ann, chosen.images) == chosen.labels).double().mean())
        return run_trial(snn, samples, Setting(size, seed=seed), time_steps), right

    def draw_accuracy(trial: Trial, step: int, figure: go.Figure | None = None) -> go.Figure:
        before, ann_accuracy = undisturbed(trial.setting.samples)
        # The later curve lies on top.
        curves = {"undisturbed": before.accuracy, "this setting": trial.accuracy}
        return accuracy_over_time(curves, ann_accuracy, step=step, figure=figure)

    def draw_cost(trial: Trial, step: int, figure: go.Figure | None = None) -> go.Figure:
        spent = (trial.sops, trial.effective_sops, trial.energy)
        return cost_over_time(*spent, work, trial.ann_energy, step, figure)

    first = undisturbed(size)[0]
    figures = {
        "accuracy": draw_accuracy(first, time_steps),
        "spikes": spikes_over_time(first.record),
        "cost": draw_cost(first, time_steps),
    }
    still = Explorer("Accuracy lab", CAPTION, figures)
    if not live():
        return still
    figures = alive(figures)
    sizes = sorted({size, *(s for s in SIZES if s <= len(samples)), len(samples)})
    faults = [("none", ""), ("delete", "delete"), ("flip", "flip")]
    layers = [slider(f"{i} · {layer.name}", "", 0.5, 1.5, 1.0, 0.05) for i, layer in enumerate(snn.layers)]
    each = dict(description="scale each layer by itself", tooltip=HELP["per_layer"], indent=False)
    controls = {
        "step": slider("time steps T", HELP["step"], 1, time_steps, time_steps),
        "scale": slider("threshold scale", HELP["scale"], 0.5, 1.5, 1.0, 0.05),
        "noise": slider("noise ratio", HELP["noise"], 0.0, 2.0, 0.0, 0.1),
        "fault": choice("spike fault", HELP["fault"], faults, ""),
        "rate": slider("fault rate", HELP["rate"], 0.0, 0.2, 0.0, 0.005, readout_format=".3f"),
        "size": choice("test images", HELP["size"], sizes, size),
        "reset": button("Reset", HELP["reset"]),
        "per_layer": widgets.Checkbox(False, **each),
        **{f"layer {i}": control for i, control in enumerate(layers)},
    }
    initial = {name: control.value for name, control in controls.items() if name != "reset"}
    line, command = status(), status()
    trial, resetting = first, False

    def setting() -> Setting:
        scales = tuple(control.value for control in layers)
        return Setting(
            samples=controls["size"].value,
            threshold_scale=scales if controls["per_layer"].value else controls["scale"].value,
            noise_ratio=controls["noise"].value,
            fault=controls["fault"].value,
            fault_rate=controls["rate"].value,
            seed=seed,
        )

    def compute(wanted: Setting, report: Callable[[float], None]) -> Trial:
        plain, _ = undisturbed(wanted.samples)
        return run_trial(snn, samples, wanted, time_steps, report) if wanted.disturbed else plain

    def deliver(found: Trial) -> None:
        nonlocal trial
        trial = found
        spikes_over_time(trial.record, figures["spikes"])
        draw()

    def draw(_: Any = None) -> None:
        step = controls["step"].value
        draw_accuracy(trial, step, figures["accuracy"])
        draw_cost(trial, step, figures["cost"])
        speak()

    def speak() -> None:
        step = controls["step"].value
        say(line, _sentence(trial, step, *undisturbed(trial.setting.samples)))
        say(command, f"The same in batch:<br><code>{html.escape(trial.setting.command(run, step))}</code>")

    worker, progress = newest(compute, deliver, line)

    def change(_: Any = None) -> None:
        for control in layers:
            control.layout.display = None if controls["per_layer"].value else "none"
        controls["scale"].disabled = controls["per_layer"].value
        if not resetting:
            worker.submit(setting())

    def reset(_: Any = None) -> None:
        nonlocal resetting
        # One trial for all the controls that go back.
        resetting = True
        for name, value in initial.items():
            controls[name].value = value
        resetting = False
        change()

    on_change(draw, controls["step"])
    on_change(change, *(controls[name] for name in initial if name != "step"))
    controls["reset"].on_click(reset)
    for control in layers:
        control.layout.display = "none"
    speak()
    return page(still, figures, controls, [progress, line, command], wide="cost")


def _sentence(trial: Trial, step: int, before: Trial, ann_accuracy: float | None) -> str:
    record, at = trial.record, step - 1
    parts = [
        f"T = {step}, {record.samples:,} images: <b>{trial.accuracy[at]:.2%}</b> accuracy "
        f"(undisturbed {before.accuracy[at]:.2%}{'' if ann_accuracy is None else f', ANN {ann_accuracy:.2%}'})",
        f"{record.spike_num[at] / record.samples:,.0f} hidden spikes",
        f"{trial.sops[at]:,.0f} synaptic operations",
        f"{trial.energy[at] / 1000:,.1f} nJ of the int8 ANN's {trial.ann_energy / 1000:,.1f} nJ per image",
    ]
    return " · ".join(parts)
