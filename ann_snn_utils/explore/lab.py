"""Accuracy lab: how far thresholds, pixels and spikes can be disturbed, on a part of the test set."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..ann.reference import predict
from ..figures import accuracy_over_time, confusion_matrix, cost_over_time, spikes_over_time
from ..figures.run import confusion_cells
from ..measure.energy import macs
from ..measure.trial import Setting, Trial, run_trial
from ..runs.gallery import Network
from .page import IN_PAGE, Explorer, Report, choice, drawn, figure_explorer, packed, remembered, slider

CAPTION = (
    "Accuracy and work after every time step, for thresholds off by a factor, noisy pixels, or spikes that are "
    "lost or flipped on their way. Undisturbed, the network ends on the quantized ANN's answers."
)

SIZES = (64, 128, 256, 512, 1000, 2000, 5000, 10000)

# Images that are shown of those that a setting answers otherwise.
SHOWN = 40


def accuracy_lab(net: Network, size: int = 256, time_steps: int = 8, seed: int = 0) -> Explorer:
    """The explorer of accuracy and work on the first `size` samples (0: all), over `time_steps` steps.

    seed: of noise and faults.
    """
    snn, samples = net.snn, net.samples
    size = min(size or len(samples), len(samples))
    work = sum(macs(snn.spec)[1:-1])

    @lru_cache(2)
    def ann_answers(size: int) -> torch.Tensor:
        return predict(net.ann, samples.images[:size])

    trial = remembered(lambda setting, report: run_trial(snn, samples, setting, time_steps, report))

    def setting(values: dict[str, Any]) -> Setting:
        # What takes maxima has no thresholds of its own.
        scales = tuple(values.get(f"layer {index}", 1.0) for index in range(len(snn.layers)))
        return Setting(
            samples=values["size"],
            threshold_scale=scales if values["per_layer"] else values["scale"],
            noise_ratio=values["noise"],
            fault=values["fault"],
            fault_rate=values["rate"] if values["fault"] else 0.0,
            seed=seed,
        )

    def answer(values: dict[str, Any], report: Report) -> dict[str, Any]:
        wanted, step = setting(values), values["step"]
        plain, found = trial(Setting(wanted.samples, seed=seed), report), trial(wanted, report)
        pins = zip("AB", values.get("pinned", ()), strict=False)
        pinned = {f"pinned {sign}": trial(setting(old), report) for sign, old in pins}
        expected = ann_answers(wanted.samples)
        labels = samples.labels[: wanted.samples]
        right = float((expected == labels).double().mean())
        # The later curve lies on top.
        trials = {"undisturbed": plain, **pinned, "this setting": found}
        before, said, title = plain.record.predictions, found.record.predictions, "Answers at step {}"
        figures = {
            "accuracy": accuracy_over_time(
                {name: trial.accuracy for name, trial in trials.items()}, right, step=step, from_zero=True
            ),
            "confusion": confusion_matrix(labels, said[step - 1], samples.classes, title.format(step)),
            "spikes": spikes_over_time(found.record),
            "cost": cost_over_time(
                found.sops, found.effective_sops, found.energy, work, found.ann_energy, step=step
            ),
        }
        pixels, images = differing(net, before, said, "Images that this setting answers otherwise")
        at = []
        for t in range(1, time_steps + 1):
            command = html.escape(found.setting.command(net.name, t))
            words = {
                "line": _sentence(found, t, plain, right),
                "below": f"{_table(trials, t)}The same in batch:<br><code>{command}</code>",
                "images": images[t - 1],
            }
            at.append(words | confused("confusion", labels, said[t - 1], samples.classes, title.format(t)))
        return {"figures": drawn(figures), "at": at, "pixels": pixels}

    sizes = sorted({size, *(s for s in SIZES if s <= len(samples)), len(samples)})
    faults = [("none", ""), ("delete", "delete"), ("flip", "flip")]
    scale = "Factor on all thresholds, rounded up to integers; 1 is lossless"
    lost = "Spikes lost, or with the wrong sign, on their way to the next layer"
    noise = "Pixels × (1 + (u − ½) · ratio), u uniform in 0 … 1, rounded"
    controls = [
        slider("step", "time step T", "Answers read out after T steps", 1, time_steps, time_steps) | IN_PAGE,
        slider("scale", "threshold scale", scale, 0.5, 1.5, 1.0, 0.05) | {"disabled_by": "per_layer"},
        slider("noise", "noise ratio", noise, 0.0, 2.0, 0.0, 0.1),
        choice("fault", "spike fault", lost, faults, ""),
        slider("rate", "fault rate", "Probability that a spike is hit by the fault", 0.0, 0.2, 0.05, 0.005)
        | {"enabled_by": "fault"},
        choice("size", "images", "Balanced over the classes", [(f"{s:,}", s) for s in sizes], size),
        dict(
            kind="check", name="per_layer", label="by layer", help="A threshold scale for each layer", value=False
        ),
        *(
            slider(f"layer {i}", f"{i} · {layer.name}", scale, 0.5, 1.5, 1.0, 0.05) | {"shown_by": "per_layer"}
            for i, layer in enumerate(snn.layers)
            if layer.spec.kind == "neurons"
        ),
    ]
    return figure_explorer("Accuracy lab", CAPTION, controls, answer, pins=True)


def differing(net: Network, before: torch.Tensor, after: torch.Tensor, title: str) -> tuple[Any, list[Any]]:
    """The images that are answered otherwise, for each step of answers [T, N], as page.js shows them.

    Pixels of all of them, and for each step a title and each image's place among the pixels, number, class and two
    answers, or None where there are none.
    """
    names = net.samples.classes
    changed = [(a != b).nonzero().flatten().tolist() for a, b in zip(before, after, strict=True)]
    shown = sorted({sample for step in changed for sample in step[:SHOWN]})
    steps: list[dict[str, Any] | None] = []
    for one, other, samples in zip(before, after, changed, strict=True):
        more = f", the first {SHOWN} of {len(samples):,}" if len(samples) > SHOWN else f": {len(samples)}"
        entries = [
            {
                "place": shown.index(sample),
                "sample": sample,
                "text": f"{names[int(one[sample])]} → {names[int(other[sample])]}",
                "true": names[int(net.samples.labels[sample])],
            }
            for sample in samples[:SHOWN]
        ]
        steps.append({"title": f"{title}{more}", "images": entries} if entries else None)
    return packed(net.samples.images[shown]) if shown else None, steps


def confused(name: str, truth: torch.Tensor, answers: torch.Tensor, classes: Sequence[str], title: str) -> dict:
    """What changes at a time step of the figure called `name`, a confusion matrix."""
    cells, title = confusion_cells(truth, answers, len(classes), title)
    trace = {key: np.asarray(value).tolist() for key, value in cells.items()}
    return {"changes": {name: {"trace": trace, "title": title}}}


def _table(trials: dict[str, Trial], step: int) -> str:
    head = ("", "setting", f"accuracy at T = {step}", "spikes", "synaptic operations", "energy (nJ)")
    rows = [
        (
            name,
            described(trial.setting),
            f"{trial.accuracy[step - 1]:.2%}",
            f"{trial.record.spike_num[step - 1] / trial.record.samples:,.0f}",
            f"{trial.sops[step - 1]:,.0f}",
            f"{trial.energy[step - 1] / 1000:,.1f}",
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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as HTML."""
    first = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="snn-table"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>'


def _sentence(trial: Trial, step: int, before: Trial, ann_accuracy: float) -> str:
    record, at = trial.record, step - 1
    parts = [
        f"T = {step}, {record.samples:,} images: <b>{trial.accuracy[at]:.2%}</b> accuracy "
        f"(undisturbed {before.accuracy[at]:.2%}, ANN {ann_accuracy:.2%})",
        f"{record.spike_num[at] / record.samples:,.0f} hidden spikes",
        f"{trial.sops[at]:,.0f} synaptic operations",
        f"{trial.energy[at] / 1000:,.1f} nJ of the int8 ANN's {trial.ann_energy / 1000:,.1f} nJ per image",
    ]
    return " · ".join(parts)
