"""Dense tensors on an accelerator, beside the networks that a user would run there instead.

This project's time holds the way of the images to the device and that of the record back; the others find their
images there, and only answer. torch computes as it comes: TF32 in convolutions of float32, none in ours.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch

from ..ann.device import pick_device
from ..runs.provenance import git_state, machine, versions
from ..simulator.record import Record
from ..simulator.run import simulate
from .benchmark import activity_of, cpu_flags, load_averages
from .contenders import Job, contenders_on
from .timing import interleaved, quartiles, ratios
from .workload import Workload, load_workload

# Workload → batches, and the images whose whole record is compared with the CPU's.
FULL: Mapping[str, tuple[tuple[int, ...], int]] = {"lenet": ((256, 10_000), 1000), "vgg": ((64, 512), 64)}
QUICK: Mapping[str, tuple[tuple[int, ...], int]] = {"small": ((6, 24), 12), "small-vgg": ((4,), 4)}

TIME_STEPS = 4

# Longer than this nobody waits for a network to be compiled; only the largest batch waits at all.
_SECONDS_TO_COMPILE = 20


def run_on_device(
    device: str,
    quick: bool = False,
    contenders: Iterable[str] | None = None,
    repeats: int = 7,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """The comparison on a device, as JSON values of the form that `benchmark.run_benchmark` gives its rows.

    contenders: names in `contenders_on`, None for all. Raises ValueError for a name or a device that is not there.
    """
    target = pick_device(device)
    known = contenders_on(str(target))
    names = list(known if contenders is None else contenders)
    for name in names:
        if name not in known:
            raise ValueError(f"contender {name!r}: on a device choose from {', '.join(known)}")
    if not {"dense", "ann-channels-last"} <= set(names):
        raise ValueError(f"contenders={', '.join(names)}: ratios need 'dense' and 'ann-channels-last'")
    result: dict[str, Any] = {
        "device": str(target),
        "machine": machine() | {"cpu_flags": cpu_flags(), "quick": quick},
        "versions": versions() | {"cuda": torch.version.cuda},
        "code": git_state(),
        "repeats": repeats,
        "load_before": load_averages(),
        "rows": [],
        "skipped": [],
    }
    for workload, (batches, checked) in (QUICK if quick else FULL).items():
        whole = load_workload(workload, max(batches))
        for batch in batches:
            say(f"{workload}, {batch} images")
            work = replace(whole, images=whole.images[:batch])
            taking = [name for name in names if name != "ann-compiled" or batch == max(batches)]
            rows, skipped = _compare(target, workload, work, min(checked, batch), taking, repeats)
            result["rows"] += rows
            result["skipped"] += [line for line in skipped if line not in result["skipped"]]
    result["load_after"] = load_averages()
    return result


def _compare(
    device: torch.device,
    workload: str,
    work: Workload,
    checked: int,
    names: Iterable[str],
    repeats: int,
) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for each contender, and a line for each that cannot take part, with the reason."""
    batch, known = len(work.images), contenders_on(str(device))
    jobs: dict[str, Job] = {}
    skipped: list[str] = []
    for name in names:
        package = known[name].package
        if package and not find_spec(package):
            skipped.append(f"{known[name].label}: skipped, {package} is not installed")
            continue
        try:
            job = _synchronized(known[name].prepare(work, TIME_STEPS), device)
            _within(_SECONDS_TO_COMPILE, job)
        except Exception as error:
            if name in ("dense", "ann-channels-last"):
                raise
            reason = (str(error).splitlines() or [""])[0]
            skipped.append(f"{known[name].label}, {workload}, {batch}: skipped, {type(error).__name__}: {reason}")
            continue
        jobs[name] = job
    seconds = interleaved(jobs, repeats)
    record = simulate(work.snn, work.images[:checked], TIME_STEPS)
    activity = activity_of(work, record)
    exact = _exact(record, work, str(device))
    rows = [
        {
            "workload": workload,
            "network": work.qann.spec.network,
            "origin": work.origin,
            "contender": name,
            "activity": activity,
            "label": known[name].label,
            "time_steps": None if known[name].timeless else TIME_STEPS,
            "batch": batch,
            "seconds": quartiles(seconds[name]),
            "samples_per_second": quartiles([batch / s for s in seconds[name]]),
            "to_ann": ratios(seconds[name], seconds["ann-channels-last"]),
            "to_ours": ratios(seconds[name], seconds["dense"]),
            "best_ann": name == "ann-channels-last",
            "same_class": None if known[name].timeless else _share(job()[:checked], record.predictions[-1]),
            "exact": exact if name == "dense" else None,
            "memory": None,
        }
        for name, job in jobs.items()
    ]
    return rows, skipped


def _exact(here: Record, work: Workload, device: str) -> bool:
    """Whether the whole batch has on the device, in its first images, the scores and counts of the CPU's record."""
    there, checked = simulate(work.snn, work.images, TIME_STEPS, backend="dense", device=device), here.samples
    pairs = [(there.logits[:, :checked], here.logits), (there.settled_at[:checked], here.settled_at)]
    pairs += [(one[:checked].long(), other.long()) for one, other in zip(there.counts, here.counts, strict=True)]
    return all(torch.equal(*pair) for pair in pairs)


def _share(answers: torch.Tensor, expected: torch.Tensor) -> float:
    return float((answers.cpu() == expected).double().mean())


def _synchronized(job: Job, device: torch.device) -> Job:
    """The job together with all work that it leaves to the device."""

    def run() -> torch.Tensor:
        answer = job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return answer

    return run


def _within(seconds: int, job: Job) -> None:
    """Run a job once; TimeoutError where it takes longer, as a compiler may, on systems that have alarms."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not ready within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        job()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
