"""Times that can be compared on a busy machine: jobs take turns, and ratios are formed within each round.

The limits of the machine and the steps of a training are timed in the same way. The peak memory of a contender is
measured in a process of its own, so that peaks do not mix.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..ann.device import pick_device, precision
from ..ann.graph import LayerSpec
from ..ann.network import ANN, build_ann, convolve
from ..ann.optimizer import Optimizer
from ..ann.train import training_step
from ..data.augment import augment
from ..files import ROOT
from ..simulator.record import Record
from .contenders import CONTENDERS
from .workload import load_workload, textures

K = TypeVar("K", bound=Hashable)


def interleaved(jobs: Mapping[K, Callable[[], object]], repeats: int, times: int = 1) -> dict[K, list[float]]:
    """The seconds of every job in each of `repeats` rounds, in which all jobs take turns, in their order.

    At its turn a job runs once, as it finds in the caches what the job before left there, and the threads of that
    job's library still waiting for more; then it runs `times` times, whose mean counts. Raises ValueError for
    repeats below 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats!r}: give at least 1")
    seconds: dict[K, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            job()
            started = time.perf_counter()
            for _ in range(times):
                job()
            seconds[name].append((time.perf_counter() - started) / times)
    return seconds


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """The median, the quartiles (`low`, `high`) and the number n of some values.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    {'median': 3.0, 'low': 2.0, 'high': 4.0, 'n': 5}
    """
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return {"median": median, "low": low, "high": high, "n": len(values)}


def ratios(values: Sequence[float], to: Sequence[float]) -> dict[str, float]:
    """The quartiles of values[i] / to[i]: a slow moment of the machine slows both of a round."""
    return quartiles([value / other for value, other in zip(values, to, strict=True)])


# Elements that stay in one core's cache.
_CACHED = 2**15


def hardware_limits(repeats: int, quick: bool = False) -> dict[str, dict[str, float]]:
    """Quartiles of what the machine does at best in a second.

    int8_operations: of a large matrix product, a multiply–add counted as two. int8_additions: in the cache,
    by one core, times the threads in use.
    """
    side, times = (256, 32) if quick else (2048, 2048)
    a, b = (torch.randint(-2, 3, (side, side), dtype=torch.int8) for _ in range(2))
    x, y = (np.ones(_CACHED, dtype=np.int8) for _ in range(2))

    def add() -> None:
        # One thread: an addition this small would wait for the threads longer than it takes.
        for _ in range(times):
            np.add(x, y, out=x)

    seconds = interleaved({"product": lambda: torch._int_mm(a, b), "cached": add}, repeats)
    return {
        "int8_operations": quartiles([2 * side**3 / s for s in seconds["product"]]),
        "int8_additions": quartiles([torch.get_num_threads() * times * _CACHED / s for s in seconds["cached"]]),
    }


def work_of(record: Record) -> dict[str, float]:
    """Synaptic operations per image of a run: all, and those through a weight other than zero.

    A spike adds to a membrane for each; the encoder's and the classifier's products are not among them.
    """
    return {
        "synaptic_operations": float(record.sops.sum()) / record.samples,
        "effective_synaptic_operations": float(record.effective_sops.sum()) / record.samples,
    }


def peak_memory(name: str, workload: str, samples: int, time_steps: int) -> dict[str, float] | None:
    """{"peak_mib", "before_mib"}: resident memory at its highest, and before the contender was run.

    None on systems without /proc/self/status and, with a warning, where the process fails: no reason to lose what
    was measured before.
    """
    if not Path("/proc/self/status").exists():
        return None
    command = [sys.executable, "-m", __name__, name, workload, str(samples), str(time_steps)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        warnings.warn(f"measuring the memory of {name} failed:\n{done.stderr[-2000:]}", stacklevel=2)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _highest() -> float:
    # Not ru_maxrss: a child inherits its parent's peak there.
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no line VmHWM")


def _measure(name: str, workload: str, samples: str, time_steps: str) -> None:
    run = CONTENDERS[name].prepare(load_workload(workload, int(samples)), int(time_steps))
    before = _highest()
    run()
    print(json.dumps({"peak_mib": round(_highest(), 1), "before_mib": round(before, 1)}))


def training_times(network: str, side: int, batch_size: int, repeats: int) -> dict[str, object]:
    """Seconds per training step, quantized, in full precision and of the convolutions alone, and their ratios.

    A step is what `train` does with a batch: augmentation, forward, loss, backward, optimizer. The convolutions
    run forward and backward, in the form that training gives them, on tensors that lie ready in its layout and
    precision.
    """
    device = pick_device("cpu")
    images, labels = textures(batch_size, side), torch.arange(batch_size) % 10
    ann = build_ann(network, (3, side, side), 10, padding="same", quantized=False)
    quantized = build_ann(network, (3, side, side), 10, padding="same")
    with precision(device):
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
    jobs = {
        "quantized": _step(quantized, images, labels),
        "full precision": _step(ann, images, labels),
        "convolutions": _convolutions(ann.spec.layers, batch_size, dtype),
    }
    seconds = interleaved(jobs, repeats)
    return {
        "network": network,
        "side": side,
        "batch_size": batch_size,
        "precision": str(dtype).removeprefix("torch."),
        "seconds": {name: quartiles(values) for name, values in seconds.items()},
        "quantized_to_convolutions": ratios(seconds["quantized"], seconds["convolutions"]),
        "quantized_to_full_precision": ratios(seconds["quantized"], seconds["full precision"]),
    }


def _step(ann: ANN, images: Tensor, labels: Tensor) -> Callable[[], None]:
    ann.to(memory_format=torch.channels_last).train()
    optimizer = Optimizer(ann, "adamw", 3e-3, 1e-2, steps=10**6)
    generator = torch.Generator().manual_seed(0)

    def step() -> None:
        training_step(ann, optimizer, augment(images, "shift-flip", generator), labels)

    return step


def _convolutions(layers: Sequence[LayerSpec], batch_size: int, dtype: torch.dtype) -> Callable[[], None]:
    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype).to(memory_format=torch.channels_last)

    made = []
    for index, layer in enumerate(layers):
        x = drawn(batch_size, *layer.in_shape).requires_grad_(index > 0)
        weight = drawn(layer.out_shape[0], layer.in_shape[0], *layer.kernel).requires_grad_()
        made.append((x, weight, drawn(batch_size, *layer.out_shape), layer))

    def run() -> None:
        for x, weight, gradient, layer in made:
            y = convolve(x, weight, layer.branches[0])
            torch.autograd.grad(y, [t for t in (x, weight) if t.requires_grad], gradient)

    return run


if __name__ == "__main__":
    _measure(*sys.argv[1:])
