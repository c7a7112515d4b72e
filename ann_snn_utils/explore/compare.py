"""Two networks on the same images: which answers differ, how soon each is right, and what each spends."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..ann.store import BUNDLED, list_pretrained
from ..figures import accuracy_over_time, confusion_matrix
from ..measure.trial import Setting, Trial, run_trial
from ..runs.gallery import Network, network_names, open_network
from .images import stand_ins
from .lab import confused, differing, table
from .page import IN_PAGE, Explorer, Report, choice, drawn, figure_explorer, remembered, slider

CAPTION = (
    "The open network, A, and another one, B, on the same images, those of A. Both must take "
    "images of one size and name the same number of classes."
)


def compare_networks(net: Network, other: str = "", size: int = 256, time_steps: int = 8) -> Explorer:
    """The explorer of two networks on the first `size` samples (0: all) of `net`.

    other: the name of the second network; empty takes the first of the others that fits.
    """
    size = min(size or len(net.samples), len(net.samples))

    def run(name: str, report: Report) -> Trial:
        second = net if name == net.name else open_network(name, stand_ins=stand_ins)
        theirs, ours = (one.snn.spec for one in (second, net))
        if (theirs.in_shape, theirs.classes) != (ours.in_shape, ours.classes):
            raise ValueError(
                f"{name} sees images {theirs.in_shape} of {theirs.classes} classes, {net.name} sees "
                f"{ours.in_shape} of {ours.classes}: choose another network"
            )
        return run_trial(second.snn, net.samples, Setting(size), time_steps, report)

    trial = remembered(run)

    def answer(values: dict[str, Any], report: Report) -> dict[str, Any]:
        step, name, title = values["step"], values["other"], "Answers at step {}"
        runs = {"A": trial(net.name, report), "B": trial(name, report)}
        ours, theirs = (run.record.predictions for run in runs.values())
        labels, axes = net.samples.labels[:size], ("A says", "B says")
        figures = {
            "accuracy": accuracy_over_time(
                {name: run.accuracy for name, run in runs.items()}, step=step, from_zero=True
            ),
            "agreement": confusion_matrix(
                ours[step - 1], theirs[step - 1], net.samples.classes, title.format(step), axes
            ),
        }
        pixels, images = differing(net, ours, theirs, "A → B, where they differ")
        at = []
        for t, (one, two) in enumerate(zip(ours, theirs, strict=True), 1):
            only_a, only_b = (int(((a == labels) & (b != labels)).sum()) for a, b in ((one, two), (two, one)))
            line = f"{int((one != two).sum())} answers differ; only A is right on {only_a}, only B on {only_b}"
            words = {
                "line": f"T = {t}, {size:,} images: {line}",
                "below": _table(zip((net.name, name), runs.values(), strict=True), t),
                "images": images[t - 1],
            }
            at.append(words | confused("agreement", one, two, net.samples.classes, title.format(t)))
        return {"figures": drawn(figures), "at": at, "pixels": pixels}

    if not other:
        spec = net.snn.spec
        shape, bundled = [list(spec.in_shape), spec.classes], list_pretrained()
        specs = {BUNDLED + name: entry["spec"] for name, entry in bundled.items() if BUNDLED + name != net.name}
        other = next((n for n, s in specs.items() if [s["in_shape"], s["classes"]] == shape), net.name)
    names = list(dict.fromkeys([net.name, other, *network_names()]))
    controls = [
        choice("other", "network B", "Beside the open network", names, other),
        slider("step", "time step T", "Answers read out after T steps", 1, time_steps, time_steps) | IN_PAGE,
    ]
    return figure_explorer("Two networks", CAPTION, controls, answer)


def _table(runs: Iterable[tuple[str, Trial]], step: int) -> str:
    head = ("", "network", f"accuracy at T = {step}", "spikes per image", "synaptic operations", "mean silence")
    rows = [
        (
            sign,
            name,
            f"{run.accuracy[step - 1]:.2%}",
            f"{run.record.spike_num[step - 1] / run.record.samples:,.0f}",
            f"{run.sops[step - 1]:,.0f}",
            f"step {_mean_silence(run)}",
        )
        for sign, (name, run) in zip("AB", runs, strict=True)
    ]
    return table(head, rows)


def _mean_silence(run: Trial) -> str:
    settled = run.record.settled_at
    silent = settled[settled > 0]
    return f"{float(silent.double().mean()) + 1:.1f}" if len(silent) == len(settled) else "beyond T for some"
