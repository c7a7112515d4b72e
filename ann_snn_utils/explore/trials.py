"""Trials side by side over every time step: one network disturbed, in the accuracy lab, and two networks."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from ..ann.reference import predict
from ..ann.store import BUNDLED, list_pretrained
from ..figures import accuracy_over_time, confusion_matrix, cost_over_time, spikes_over_time
from ..figures.run import confusion_cells
from ..measure.events import macs
from ..measure.trial import Setting, Trial, run_trial
from ..runs.gallery import Network, network_names, open_network
from .images import stand_ins
from .page import IN_PAGE, Explorer, Report, checkbox, choice, drawn, figure_explorer, packed, remembered, slider

LAB = (
    "Accuracy and work after every time step, for thresholds off by a factor, noisy pixels, or spikes that are "
    "lost or flipped on their way. Undisturbed, the network ends on the quantized ANN's answers."
)
TWO = (
    "The open network, A, and another one, B, on the same images, those of A. Both must take "
    "images of one size and name the same number of classes."
)

SIZES = (64, 128, 256, 512, 1000, 2000, 5000, 10000)

ANSWERS = "Answers at step {}"

# Images that are shown of those that are answered otherwise.
SHOWN = 40


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
        figures = {
            "accuracy": accuracy_over_time(curves, right, step=step, from_zero=True),
            "confusion": confusion_matrix(labels[step - 1], said[step - 1], samples.classes, ANSWERS.format(step)),
            "spikes": spikes_over_time(found.record),
            "cost": cost_over_time(
                found.sops, found.effective_sops, found.energy, work, found.ann_energy, step=step
            ),
        }

        def words(t: int) -> dict[str, Any]:
            rows = [
                (name, described(one.setting), one, f"{one.energy[t - 1] / 1e6:.3g}")
                for name, one in trials.items()
            ]
            command = f"The same in batch:<br><code>{html.escape(wanted.command(net.name, t))}</code>"
            table = _table(t, "setting", "energy (µJ)", rows)
            return {"line": _sentence(found, t, plain, right), "below": table + command}

        title = "Images that this setting answers otherwise"
        told = _over_time(net, before, said, title, words, {"confusion": (labels, said)})
        return {"figures": drawn(figures)} | told

    controls = _controls(net, min(size or len(samples), len(samples)), time_steps)
    return figure_explorer("Accuracy lab", LAB, controls, answer, pins=True)


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


def compare_networks(net: Network, other: str = "", size: int = 256, time_steps: int = 8) -> Explorer:
    """The explorer of two networks on the first `size` samples (0: all) of `net`.

    other: the name of the second network; empty takes the first of the others that fits.
    """
    size = min(size or len(net.samples), len(net.samples))

    def trial(name: str, report: Report) -> Trial:
        second = net if name == net.name else open_network(name, stand_ins=stand_ins)
        theirs, ours = (one.snn.spec for one in (second, net))
        if (theirs.in_shape, theirs.classes) != (ours.in_shape, ours.classes):
            raise ValueError(
                f"{name} sees images {theirs.in_shape} of {theirs.classes} classes, {net.name} sees "
                f"{ours.in_shape} of {ours.classes}: choose another network"
            )
        return run_trial(second.snn, net.samples, Setting(size), time_steps, report)

    def answer(values: dict[str, Any], report: Report) -> dict[str, Any]:
        step, names = values["step"], (net.name, values["other"])
        runs = [trial(name, report) for name in names]
        curves = {sign: run.accuracy for sign, run in zip("AB", runs, strict=True)}
        ours, theirs = (run.record.predictions for run in runs)
        labels, told = net.samples.labels[:size], (ANSWERS.format(step), ("A says", "B says"))
        figures = {
            "accuracy": accuracy_over_time(curves, step=step, from_zero=True),
            "agreement": confusion_matrix(ours[step - 1], theirs[step - 1], net.samples.classes, *told),
        }

        def words(t: int) -> dict[str, Any]:
            one, two = ours[t - 1], theirs[t - 1]
            only_a, only_b = (int(((a == labels) & (b != labels)).sum()) for a, b in ((one, two), (two, one)))
            line = f"{int((one != two).sum())} answers differ; only A is right on {only_a}, only B on {only_b}"
            rows = list(zip("AB", names, runs, map(_mean_silence, runs), strict=True))
            table = _table(t, "network", "mean silence", rows)
            return {"line": f"T = {t}, {size:,} images: {line}", "below": table}

        compared = {"agreement": (ours, theirs)}
        return {"figures": drawn(figures)} | _over_time(
            net, ours, theirs, "A → B, where they differ", words, compared
        )

    other = other or _first_that_fits(net)
    options = dict.fromkeys([net.name, other, *network_names()])
    controls = [
        choice("other", "network B", "Beside the open network", options, other),
        slider("step", "time step T", "Answers read out after T steps", 1, time_steps, time_steps) | IN_PAGE,
    ]
    return figure_explorer("Two networks", TWO, controls, answer)


def _first_that_fits(net: Network) -> str:
    """The first bundled network of the same images and classes, other than `net`; `net` where there is none."""
    fits = [list(net.snn.spec.in_shape), net.snn.spec.classes]
    specs = {BUNDLED + name: entry["spec"] for name, entry in list_pretrained().items()}
    names = (name for name, spec in specs.items() if [spec["in_shape"], spec["classes"]] == fits)
    return next((name for name in names if name != net.name), net.name)


def _mean_silence(run: Trial) -> str:
    settled = run.record.settled_at
    silent = settled[settled > 0]
    return (
        f"step {float(silent.double().mean()) + 1:.1f}" if len(silent) == len(settled) else "step beyond T for some"
    )


def _over_time(
    net: Network,
    before: Tensor,
    after: Tensor,
    title: str,
    words: Callable[[int], dict[str, Any]],
    compared: Mapping[str, tuple[Tensor, Tensor]],
) -> dict[str, Any]:
    """What is said at each time step, with the images that are answered otherwise there, as page.js shows them.

    before, after: answers [T, N]. words: of a step. compared: name of a confusion matrix → what stands in its rows
    and columns [T, N], of which the page changes it step by step.
    """
    names, at = net.samples.classes, []
    changed = [(a != b).nonzero().flatten().tolist() for a, b in zip(before, after, strict=True)]
    shown = sorted({sample for step in changed for sample in step[:SHOWN]})
    for t, (one, other, samples) in enumerate(zip(before, after, changed, strict=True), 1):
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
        changes = {}
        for name, (rows, columns) in compared.items():
            cells, told = confusion_cells(rows[t - 1], columns[t - 1], len(names), ANSWERS.format(t))
            trace = {key: np.asarray(value).tolist() for key, value in cells.items()}
            changes[name] = {"trace": trace, "title": told}
        images = {"title": f"{title}{more}", "images": entries} if entries else None
        at.append(words(t) | {"images": images, "changes": changes})
    return {"at": at, "pixels": packed(net.samples.images[shown]) if shown else None}


def _table(step: int, second: str, last: str, rows: Sequence[tuple[str, str, Trial, str]]) -> str:
    """Trials at a step as an HTML table, each with what stands in its first, second and last column."""
    head = ("", second, f"accuracy at T = {step}", "spikes per image", "synaptic operations", last)
    body = ""
    for name, what, trial, end in rows:
        spikes = trial.record.spike_num[step - 1] / trial.record.samples
        cells = f"{trial.accuracy[step - 1]:.2%}", f"{spikes:,.0f}", f"{trial.sops[step - 1]:,.0f}"
        told = "".join(f"<td>{html.escape(cell)}</td>" for cell in (name, what, *cells, end))
        body += f"<tr>{told}</tr>"
    first = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    return f'<div class="snn-table"><table><thead><tr>{first}</tr></thead><tbody>{body}</tbody></table></div>'
