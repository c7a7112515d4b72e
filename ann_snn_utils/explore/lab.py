"""Accuracy lab: how far thresholds, pixels and spikes can be disturbed, on a part of the test set."""

from __future__ import annotations

import html
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import ipywidgets as widgets

from ..ann.network import ANN
from ..ann.reference import predict
from ..data.dataset import Dataset
from ..figures import (
    accuracy_drawing,
    accuracy_over_time,
    cost_drawing,
    cost_over_time,
    redraw,
    spikes_drawing,
    spikes_over_time,
)
from ..measure.energy import macs
from ..measure.trial import Setting, Trial, run_trial
from ..snn.network import SNN
from .page import Explorer, bar, button, choice, labelled, live, page, player, say, show_progress, slider, status
from .plots import alive
from .worker import Latest

TITLE = "Accuracy lab"

CAPTION = (
    "Accuracy and work after every time step, for thresholds off by a factor, noisy pixels, or spikes that are "
    "lost or flipped on their way. Undisturbed, the network ends on the quantized ANN's answers."
)

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

    def accuracy_of(trial: Trial, step: int) -> dict:
        before, ann_accuracy = undisturbed(trial.setting.samples)
        # The later curve lies on top.
        curves = {"undisturbed": before.accuracy, "this setting": trial.accuracy}
        return dict(accuracy=curves, ann_accuracy=ann_accuracy, step=step)

    def cost_of(trial: Trial, step: int) -> dict:
        spent = dict(sops=trial.sops, effective_sops=trial.effective_sops, energy=trial.energy)
        return dict(**spent, macs=work, ann_energy=trial.ann_energy, step=step)

    first = undisturbed(size)[0]
    figures = {
        "accuracy": accuracy_over_time(**accuracy_of(first, time_steps)),
        "spikes": spikes_over_time(first.record),
        "cost": cost_over_time(**cost_of(first, time_steps)),
    }
    if not live():
        return Explorer(TITLE, CAPTION, figures)
    figures = alive(figures)
    sizes = sorted({size, *(s for s in SIZES if s <= len(samples)), len(samples)})
    layers = [slider(f"{i} · {layer.name}", 0.5, 1.5, 1.0, 0.05) for i, layer in enumerate(snn.layers)]
    controls = {
        "step": slider("time steps T", 1, time_steps, time_steps),
        "scale": slider("threshold scale", 0.5, 1.5, 1.0, 0.05),
        "per_layer": widgets.Checkbox(False, description="scale each layer by itself", indent=False),
        "noise": slider("noise ratio", 0.0, 2.0, 0.0, 0.1),
        "fault": choice("spike fault", [("none", ""), ("delete", "delete"), ("flip", "flip")], ""),
        "rate": slider("fault rate", 0.0, 0.2, 0.0, 0.005, readout_format=".3f"),
        "size": choice("test images", sizes, size),
        "reset": button("Reset"),
        **{f"layer {i}": control for i, control in enumerate(layers)},
    }
    line, command, progress = status(), status(), bar()
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
        undisturbed(wanted.samples)
        return (
            run_trial(snn, samples, wanted, time_steps, report)
            if wanted.disturbed
            else undisturbed(wanted.samples)[0]
        )

    def deliver(found: Trial) -> None:
        nonlocal trial
        trial = found
        redraw(figures["spikes"], spikes_drawing(trial.record))
        draw()

    def draw(_: Any = None) -> None:
        step = controls["step"].value
        redraw(figures["accuracy"], accuracy_drawing(**accuracy_of(trial, step)))
        redraw(figures["cost"], cost_drawing(**cost_of(trial, step)))
        speak()

    def speak() -> None:
        step = controls["step"].value
        say(line, _sentence(trial, step, *undisturbed(trial.setting.samples)))
        say(command, f"The same in batch:<br><code>{html.escape(trial.setting.command(run, step))}</code>")

    worker = Latest(
        compute,
        deliver,
        lambda share: show_progress(progress, share),
        lambda error: say(line, f"⚠ {html.escape(str(error))}"),
    )

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
        controls["per_layer"].value, controls["fault"].value, controls["size"].value = False, "", size
        controls["noise"].value = controls["rate"].value = 0.0
        for control in (controls["scale"], *layers):
            control.value = 1.0
        controls["step"].value = time_steps
        resetting = False
        change()

    controls["step"].observe(draw, names="value")
    for name, control in controls.items():
        if name not in ("step", "reset"):
            control.observe(change, names="value")
    controls["reset"].on_click(reset)
    for control in layers:
        control.layout.display = "none"
    speak()
    helps = {
        "scale": "Factor on all thresholds, rounded up to integers; 1 is lossless.",
        "noise": "Pixels × (1 + (u − ½) · ratio), u uniform in 0 … 1, rounded.",
        "fault": "Spikes lost, or with the wrong sign, on their way to the next layer.",
        "rate": "Probability that a spike is hit by the fault.",
        "size": "Samples of the test set, balanced over the classes.",
        "reset": "All controls back to the undisturbed network.",
        "per_layer": "A slider for each layer; layer 0 encodes the image.",
    }
    shown = [
        labelled(player(controls["step"]), "Answers read out after T steps; slices the run, no recomputation."),
        *(labelled(controls[name], text) for name, text in helps.items()),
        *layers,
    ]
    figures["cost"].add_class("snn-wide")
    box = page(TITLE, CAPTION, shown, [progress, line, command], list(figures.values()))
    return Explorer(TITLE, CAPTION, figures, controls, box)


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
