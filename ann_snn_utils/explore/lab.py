"""Accuracy lab: how far thresholds, pixels and spikes can be disturbed, on a part of the test set."""

from __future__ import annotations

import html
from functools import lru_cache
from typing import Any

from ..ann.reference import predict
from ..figures import accuracy_over_time, cost_over_time, spikes_over_time
from ..measure.events import macs
from ..measure.trial import Setting, Trial, run_trial
from ..runs.gallery import Network
from .answers import agreement, differing, table
from .page import IN_PAGE, Explorer, Report, checkbox, choice, drawn, figure_explorer, remembered, slider

CAPTION = (
    "Accuracy and work after every time step, for thresholds off by a factor, noisy pixels, or spikes that are "
    "lost or flipped on their way. Undisturbed, the network ends on the quantized ANN's answers."
)

SIZES = (64, 128, 256, 512, 1000, 2000, 5000, 10000)


def accuracy_lab(net: Network, size: int = 256, time_steps: int = 8, seed: int = 0) -> Explorer:
    """The explorer of accuracy and work on the first `size` samples (0: all), over `time_steps` steps.

    seed: of noise and faults.
    """
    snn, samples = net.snn, net.samples
    work = sum(macs(snn.spec)[1:-1])

    @lru_cache(2)
    def ann_accuracy(size: int) -> float:
        right = predict(net.ann, samples.images[:size]) == samples.labels[:size]
        return float(right.double().mean())

    trial = remembered(lambda setting, report: run_trial(snn, samples, setting, time_steps, report))

    def answer(values: dict[str, Any], report: Report) -> dict[str, Any]:
        wanted, step = _setting(values, len(snn.layers), seed), values["step"]
        plain, found = trial(Setting(wanted.samples, seed=seed), report), trial(wanted, report)
        # The later curve lies on top.
        trials = {"undisturbed": plain}
        for sign, pinned in zip("AB", values.get("pinned", ()), strict=False):
            trials[f"pinned {sign}"] = trial(_setting(pinned, len(snn.layers), seed), report)
        trials["this setting"] = found
        curves, right = {name: one.accuracy for name, one in trials.items()}, ann_accuracy(wanted.samples)
        before, said = plain.record.predictions, found.record.predictions
        labels = samples.labels[: wanted.samples].expand_as(said)
        confusion, changes = agreement(labels, said, samples.classes, step)
        figures = {
            "accuracy": accuracy_over_time(curves, right, step=step, from_zero=True),
            "confusion": confusion,
            "spikes": spikes_over_time(found.record),
            "cost": cost_over_time(
                found.sops, found.effective_sops, found.energy, work, found.ann_energy, step=step
            ),
        }
        pixels, images = differing(net, before, said, "Images that this setting answers otherwise")
        at = []
        for t in range(1, time_steps + 1):
            command = html.escape(wanted.command(net.name, t))
            words = {
                "line": _sentence(found, t, plain, right),
                "below": f"{_table(trials, t)}The same in batch:<br><code>{command}</code>",
                "images": images[t - 1],
                "changes": {"confusion": changes[t - 1]},
            }
            at.append(words)
        return {"figures": drawn(figures), "at": at, "pixels": pixels}

    controls = _controls(net, min(size or len(samples), len(samples)), time_steps)
    return figure_explorer("Accuracy lab", CAPTION, controls, answer, pins=True)


def _setting(values: dict[str, Any], layers: int, seed: int) -> Setting:
    """What the controls ask for, of a network of so many layers."""
    # What takes maxima has no thresholds of its own.
    scales = tuple(values.get(f"layer {index}", 1.0) for index in range(layers))
    return Setting(
        samples=values["size"],
        threshold_scale=scales if values["per_layer"] else values["scale"],
        noise_ratio=values["noise"],
        fault=values["fault"],
        fault_rate=values["rate"] if values["fault"] else 0.0,
        seed=seed,
    )


def _controls(net: Network, size: int, time_steps: int) -> list[dict]:
    sizes = sorted({size, *(s for s in SIZES if s <= len(net.samples)), len(net.samples)})
    faults = [("none", ""), ("delete", "delete"), ("flip", "flip")]
    scale = "Factor on all thresholds, rounded up to integers; 1 is lossless"
    lost = "Spikes lost, or with the wrong sign, on their way to the next layer"
    noise = "Pixels × (1 + (u − ½) · ratio), u uniform in 0 … 1, rounded"
    return [
        slider("step", "time step T", "Answers read out after T steps", 1, time_steps, time_steps) | IN_PAGE,
        slider("scale", "threshold scale", scale, 0.5, 1.5, 1.0, 0.05) | {"disabled_by": "per_layer"},
        slider("noise", "noise ratio", noise, 0.0, 2.0, 0.0, 0.1),
        choice("fault", "spike fault", lost, faults, ""),
        slider("rate", "fault rate", "Probability that a spike is hit by the fault", 0.0, 0.2, 0.05, 0.005)
        | {"enabled_by": "fault"},
        choice("size", "images", "Balanced over the classes", [(f"{s:,}", s) for s in sizes], size),
        checkbox("per_layer", "by layer", "A threshold scale for each layer", False),
        *(
            slider(f"layer {i}", f"{i} · {layer.name}", scale, 0.5, 1.5, 1.0, 0.05) | {"shown_by": "per_layer"}
            for i, layer in enumerate(net.snn.layers)
            if layer.spec.kind == "neurons"
        ),
    ]


def _table(trials: dict[str, Trial], step: int) -> str:
    head = ("", "setting", f"accuracy at T = {step}", "spikes", "synaptic operations", "energy (µJ)")
    rows = [
        (
            name,
            described(trial.setting),
            f"{trial.accuracy[step - 1]:.2%}",
            f"{trial.record.spike_num[step - 1] / trial.record.samples:,.0f}",
            f"{trial.sops[step - 1]:,.0f}",
            f"{trial.energy[step - 1] / 1e6:.3g}",
        )
        for name, trial in trials.items()
    ]
    return table(head, rows)


def described(setting: Setting) -> str:
    """A setting in words."""
    scales = setting.threshold_scale if isinstance(setting.threshold_scale, tuple) else (setting.threshold_scale,)
    parts = [f"θ × {', '.join(f'{scale:g}' for scale in scales)}"] if set(scales) != {1} else []
    parts += [f"noise {setting.noise_ratio:g}"] if setting.noise_ratio else []
    parts += [f"{setting.fault} {setting.fault_rate:g}"] if setting.fault and setting.fault_rate else []
    return ", ".join([*parts, f"{setting.samples:,} images"])


def _sentence(trial: Trial, step: int, before: Trial, ann_accuracy: float) -> str:
    record, at = trial.record, step - 1
    parts = [
        f"T = {step}, {record.samples:,} images: <b>{trial.accuracy[at]:.2%}</b> accuracy "
        f"(undisturbed {before.accuracy[at]:.2%}, ANN {ann_accuracy:.2%})",
        f"{record.spike_num[at] / record.samples:,.0f} hidden spikes",
        f"{trial.sops[at]:,.0f} synaptic operations",
        f"{trial.energy[at] / 1e6:.3g} µJ of the int8 ANN's {trial.ann_energy / 1e6:.3g} µJ per image",
    ]
    return " · ".join(parts)
