"""Two networks on the same images: which answers differ, how soon each is right, and what each spends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..ann.store import BUNDLED, list_pretrained
from ..figures import accuracy_over_time
from ..measure.trial import Setting, Trial, run_trial
from ..runs.gallery import Network, network_names, open_network
from .answers import agreement, differing, table
from .images import stand_ins
from .page import IN_PAGE, Explorer, Report, choice, drawn, figure_explorer, slider

CAPTION = (
    "The open network, A, and another one, B, on the same images, those of A. Both must take "
    "images of one size and name the same number of classes."
)


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
        labels = net.samples.labels[:size]
        matrix, changes = agreement(ours, theirs, net.samples.classes, step, ("A says", "B says"))
        figures = {"accuracy": accuracy_over_time(curves, step=step, from_zero=True), "agreement": matrix}
        pixels, images = differing(net, ours, theirs, "A → B, where they differ")
        at = []
        for t, (one, two) in enumerate(zip(ours, theirs, strict=True), 1):
            only_a, only_b = (int(((a == labels) & (b != labels)).sum()) for a, b in ((one, two), (two, one)))
            line = f"{int((one != two).sum())} answers differ; only A is right on {only_a}, only B on {only_b}"
            words = {
                "line": f"T = {t}, {size:,} images: {line}",
                "below": _table(names, runs, t),
                "images": images[t - 1],
                "changes": {"agreement": changes[t - 1]},
            }
            at.append(words)
        return {"figures": drawn(figures), "at": at, "pixels": pixels}

    other = other or _first_that_fits(net)
    options = dict.fromkeys([net.name, other, *network_names()])
    controls = [
        choice("other", "network B", "Beside the open network", options, other),
        slider("step", "time step T", "Answers read out after T steps", 1, time_steps, time_steps) | IN_PAGE,
    ]
    return figure_explorer("Two networks", CAPTION, controls, answer)


def _first_that_fits(net: Network) -> str:
    """The first bundled network of the same images and classes, other than `net`; `net` where there is none."""
    fits = [list(net.snn.spec.in_shape), net.snn.spec.classes]
    specs = {BUNDLED + name: entry["spec"] for name, entry in list_pretrained().items()}
    names = (name for name, spec in specs.items() if [spec["in_shape"], spec["classes"]] == fits)
    return next((name for name in names if name != net.name), net.name)


def _table(names: Sequence[str], runs: Sequence[Trial], step: int) -> str:
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
        for sign, name, run in zip("AB", names, runs, strict=True)
    ]
    return table(head, rows)


def _mean_silence(run: Trial) -> str:
    settled = run.record.settled_at
    silent = settled[settled > 0]
    return f"{float(silent.double().mean()) + 1:.1f}" if len(silent) == len(settled) else "beyond T for some"
