"""How long a slider takes: from its new value to the figures' new data, in the kernel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .explore import accuracy_lab, network_over_time, neuron_microscope
from .gallery import BUNDLED, Network, open_network

REDRAW, RECOMPUTE = 100, 500
_PREFERRED = ("mnist-lenet-k0", "digits-lenet-k0")
# Not 1: the undisturbed network is not run again.
_SCALES = (0.8, 0.9, 1.1, 1.2, 0.85, 0.95, 1.05, 1.15)


@dataclass(frozen=True)
class Latency:
    """Milliseconds that one slider took, move by move, and the goal for them."""

    slider: str
    goal: int
    milliseconds: tuple[float, ...]


def pick_network(name: str = "") -> Network:
    """Give the network of a run or a bundled one; where none is named, the one on MNIST if its images are here."""
    if name:
        return open_network(name)
    try:
        return open_network(BUNDLED + _PREFERRED[0])
    except OSError:
        return open_network(BUNDLED + _PREFERRED[1])


def slider_latencies(network: Network, samples: int = 256, time_steps: int = 8, repeats: int = 20) -> list[Latency]:
    """Give the latencies of the time slider of each explorer, and of the threshold slider for `samples` images.

    Every move is to another value. The page's own drawing comes on top; the browser tests measure both.
    Raises ValueError for less than two repeats or steps.
    """
    if min(repeats, time_steps) < 2:
        raise ValueError(f"repeats={repeats}, time_steps={time_steps}: give at least 2 of each")
    snn, images, ann = network.snn, network.samples, network.ann
    lab = accuracy_lab(snn, images, ann, network.name, samples, time_steps)
    shown = (
        ("neuron microscope: time step", neuron_microscope(snn, images, ann, time_steps)),
        ("network over time: time steps T", network_over_time(snn, images, ann, time_steps)),
        ("accuracy lab: time steps T", lab),
    )
    steps = [1 + move % time_steps for move in range(repeats)]
    scales = [_SCALES[move % len(_SCALES)] for move in range(repeats)]
    measured = [Latency(name, REDRAW, _moves(explorer.controls["step"], steps)) for name, explorer in shown]
    name = f"accuracy lab: threshold scale, {lab.controls['size'].value} images, T = {time_steps}"
    return [*measured, Latency(name, RECOMPUTE, _moves(lab.controls["scale"], scales))]


def latency_table(network: Network, latencies: Sequence[Latency]) -> str:
    """Give the table of medians and quartiles, beside the goals."""
    width = max(len(one.slider) for one in latencies)
    lines = [f"{network.name}, {network.snn.spec.network}: milliseconds from a slider's value to the figures' data"]
    lines.append(f"{'slider':<{width}}  {'median':>8}  {'quartiles':>17}  {'n':>4}  {'goal':>6}")
    for one in latencies:
        low, median, high = np.quantile(one.milliseconds, (0.25, 0.5, 0.75))
        spread = f"{low:.1f} … {high:.1f}"
        moves, goal = len(one.milliseconds), f"< {one.goal}"
        lines.append(f"{one.slider:<{width}}  {median:8.1f}  {spread:>17}  {moves:4}  {goal:>6}")
    return "\n".join(lines)


def _moves(control, values: Sequence[float]) -> tuple[float, ...]:
    # Away from the first value, so that every move is one; what is compiled or kept at first use is, then.
    control.value = values[1]
    taken = []
    for value in values:
        start = time.perf_counter()
        control.value = value
        taken.append(1000 * (time.perf_counter() - start))
    return tuple(taken)
