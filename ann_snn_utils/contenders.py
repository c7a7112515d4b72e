"""Who takes part in the benchmark: each contender's job on a workload, ready to be timed, and its exactness."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .baseline import simulate_numpy
from .models import ANN, codes
from .peers import (
    missing,
    run_snntorch,
    run_spikingjelly,
    snntorch,
    spikingjelly,
    spikingjelly_mismatches,
)
from .simulate import choose_backend, simulate
from .workload import Workload

LABELS = {
    "events": "this project, events",
    "dense": "this project, dense",
    "silence": "this project, until silence",
    "ann-contiguous": "float32 ANN, contiguous",
    "ann-channels-last": "float32 ANN, channels last",
    "numpy": "NumPy im2col, float64",
    "spikingjelly": "SpikingJelly SpikeZIP, step by step",
    "spikingjelly-multi": "SpikingJelly SpikeZIP, multi-step",
    "snntorch": "snnTorch Leaky, another neuron",
}
# Those whose time does not depend on a number of steps.
TIMELESS = ("ann-contiguous", "ann-channels-last", "silence")
ANNS = ("ann-contiguous", "ann-channels-last")
SPIKINGJELLY = ("spikingjelly", "spikingjelly-multi")
# Rivals that are timed on small networks only: a VGG takes them minutes.
SLOW = ("numpy", *SPIKINGJELLY, "snntorch")
# Images on which exactness is checked; fewer of those in colour, whose networks take the float64 reference minutes.
EXACT_SAMPLES, EXACT_SAMPLES_IN_COLOUR = 64, 8


@dataclass(frozen=True)
class Contender:
    """A named job: `run` gives the class of each image, int64 [N]."""

    name: str
    run: Callable[[], Tensor]

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return LABELS[self.name]


def available(names: Sequence[str], work: Workload) -> tuple[list[str], list[str]]:
    """Give those contenders that can take part, and a line for each that cannot, with the reason.

    Raises ValueError for a name that is no contender's.
    """
    taking, skipped = [], []
    for name in names:
        if name not in LABELS:
            raise ValueError(f"contender {name!r}: choose from {', '.join(LABELS)}")
        package = {"spikingjelly-multi": "spikingjelly"}.get(name, name)
        reason = missing(package) if package in ("spikingjelly", "snntorch") else None
        if name == "events" and choose_backend(work.snn, None) != "events":
            reason = "numba is missing: pip install numba"
        if reason:
            skipped.append(f"{LABELS[name]}: skipped, {reason}")
        else:
            taking.append(name)
    return taking, skipped


def enter(name: str, work: Workload, time_steps: int) -> Contender:
    """Give the contender of that name on a workload over `time_steps`; whatever can be prepared is."""
    images, scaled = work.images, work.images.float() / 255
    if name in ("events", "dense", "silence"):
        steps, backend = (None, None) if name == "silence" else (time_steps, name)

        def run() -> Tensor:
            return simulate(work.snn, images, steps, backend=backend).predictions[-1]

    elif name in ANNS:
        layout = torch.channels_last if name == "ann-channels-last" else torch.contiguous_format
        ann, batch = copy.deepcopy(work.ann).to(memory_format=layout), scaled.contiguous(memory_format=layout)

        def run() -> Tensor:
            return _forward(ann, batch).argmax(1)

    elif name == "numpy":
        pixels = images.numpy()

        def run() -> Tensor:
            return torch.from_numpy(simulate_numpy(work.snn, pixels, time_steps)[-1].argmax(1))

    elif name in SPIKINGJELLY:
        net = spikingjelly(work.qann)

        def run() -> Tensor:
            return run_spikingjelly(net, scaled, time_steps, multi_step=name == "spikingjelly-multi").argmax(1)

    else:
        leaky = snntorch(work.qann)

        def run() -> Tensor:
            return run_snntorch(leaky, scaled, time_steps).argmax(1)

    return Contender(name, run)


@torch.inference_mode()
def _forward(ann: ANN, batch: Tensor) -> Tensor:
    return ann(batch)


def exactness(name: str, work: Workload, time_steps: int) -> dict[str, object]:
    """Give {"exact": bool or None, "checked": what was compared} of a contender on some of the images.

    Simulators of this project: class scores of every step equal those of the NumPy baseline, and counts at
    silence the quantized network's codes. NumPy: the same scores. SpikingJelly: its counts once settled.
    None for the float32 network and for another neuron, which answer another question.
    """
    images = work.images[: EXACT_SAMPLES if work.images.shape[1] == 1 else EXACT_SAMPLES_IN_COLOUR]
    if name in SPIKINGJELLY:
        different = spikingjelly_mismatches(spikingjelly(work.qann), work.qann, images)
        return {"exact": different == 0, "checked": f"{different} settled counts differ from the ANN's codes"}
    if name in (*ANNS, "snntorch"):
        return {"exact": None, "checked": "not the same computation"}
    backend = name if name in ("events", "dense") else None
    settled = simulate(work.snn, images, backend=backend)
    different = sum(
        int((count != code).sum())
        for count, code in zip(settled.counts, codes(work.qann, images)[0], strict=True)
    )
    scores = torch.from_numpy(simulate_numpy(work.snn, images.numpy(), time_steps))
    equal = bool((scores == simulate(work.snn, images, time_steps, backend=backend).logits).all())
    return {
        "exact": equal and different == 0,
        "checked": f"{different} counts at silence differ from the ANN's codes; class scores of every step "
        f"{'equal' if equal else 'differ from'} the NumPy baseline's",
    }
