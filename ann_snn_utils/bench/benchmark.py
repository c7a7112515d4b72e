"""The benchmark: all contenders on the same weights and images in one process, taking turns."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..files import ROOT, cpu_info, load_json, save_json
from ..measure.events import macs
from ..runs.provenance import git_state, machine, versions
from ..simulator.events.arrays import weight_bytes
from ..simulator.record import Record
from ..simulator.run import simulate
from .contenders import ANNS, CONTENDERS, available, exactness
from .timing import hardware_limits, interleaved, peak_memory, quartiles, ratios, training_times, work_of
from .workload import Workload, load_workload

RESULTS = ROOT / "data" / "benchmark"

# Results of other devices, which are read apart.
ON_DEVICE = RESULTS / "device"

_CPU_FLAGS = ("avx2", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    workloads        part → name of the workload, batches, and numbers of steps; all of the steps are taken at the
                     largest batch, where memory is measured too, and one at the others
    steps, batches   of the two sweeps
    whole            images and steps of the large run
    training         network, side of its images, batch
    quick            small networks, which try the benchmark and tell nothing
    """

    workloads: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...]]]
    steps: tuple[int, ...]
    batches: tuple[int, ...]
    whole: tuple[int, int]
    training: tuple[str, int, int]
    quick: bool = False


FULL = Settings(
    workloads={
        "lenet": ("lenet", (1, 16, 256), (1, 2, 4, 8)),
        "few": ("lenet-few", (1, 16, 256), (1, 2, 4, 8)),
        "cifar": ("cifar", (1, 64), (4,)),
        "vgg": ("vgg", (1, 64), (4, 8)),
    },
    steps=(1, 2, 3, 4, 6, 8, 12, 16),
    batches=(1, 4, 16, 64, 256, 1024),
    whole=(10_000, 8),
    training=("vgg", 24, 200),
)

QUICK = Settings(
    workloads={
        "lenet": ("small", (1, 24), (1, 4)),
        "few": ("small-few", (24,), (2,)),
        "cifar": ("small-vgg", (4,), (4,)),
        "vgg": ("small-vgg", (8,), (4,)),
    },
    steps=(1, 2, 4),
    batches=(1, 8, 24),
    whole=(48, 4),
    training=("4C3-P2-8", 12, 16),
    quick=True,
)

PARTS = (*FULL.workloads, "sweeps", "whole", "training")


def run_benchmark(
    settings: Settings = FULL,
    contenders: Iterable[str] = tuple(CONTENDERS),
    repeats: int = 7,
    parts: Sequence[str] = PARTS,
    memory: bool = True,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """All results as JSON values: rows of the comparison, sweeps, limits, training, machine and load.

    contenders: which of CONTENDERS; an ANN and one of ours are needed for ratios. repeats: rounds; 7 or more for
    numbers that are to be shown. parts: which of PARTS. memory: measure peaks,
    each in a process of its own. say: told what goes on. Raises ValueError that names a wrong argument.
    """
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"part {part!r}: choose from {', '.join(PARTS)}")
    result: dict[str, Any] = {
        "machine": machine() | {"cpu_flags": cpu_flags(), "quick": settings.quick},
        "versions": versions(),
        "code": git_state(),
        "repeats": repeats,
        "load_before": load_averages(),
        "rows": [],
    }
    name, batches, _ = settings.workloads["lenet"]
    work = load_workload(name, max(batches))
    names, result["skipped"] = available(contenders, work)
    if not set(names) & set(ANNS) or not {"events", "dense"} & set(names):
        raise ValueError(f"contenders={', '.join(contenders)}: ratios need 'events' or 'dense', and an ANN")
    for line in result["skipped"]:
        say(line)
    say("limits of the machine")
    result["limits"] = hardware_limits(repeats, settings.quick)
    swift = [name for name in names if not (CONTENDERS[name].slow or _outdone(name, names))]
    for part, (name, batches, steps) in settings.workloads.items():
        if part in parts:
            taking = names if part in ("lenet", "few") else swift
            say(f"{part}: {', '.join(taking)}")
            for batch in batches:
                largest = batch == max(batches)
                some = steps if largest else (_middle(steps),)
                result["rows"] += compare(name, batch, some, taking, repeats, memory and largest)
    backend = _fastest(names)
    if "lenet" in parts:
        result["silence"] = silence(work)
        result["distance"] = distance(work, result["limits"], backend, repeats)
    result["layers"] = {
        name: layer_costs(load_workload(name, max(batches)), result["limits"], backend, repeats)
        for part, (name, batches, _) in settings.workloads.items()
        if part in parts and part in ("lenet", "vgg")
    }
    if "sweeps" in parts:
        say("cost against steps and batch")
        result["sweeps"] = sweeps(settings, backend, repeats)
    if "whole" in parts:
        say("the whole test set")
        result["whole"] = large_run(settings, backend, repeats, memory)
    if "training" in parts:
        say("training")
        result["training"] = training_times(*settings.training, repeats)
    result["load_after"] = load_averages()
    return result


def activity_of(work: Workload, record: Record) -> dict[str, float]:
    """Steps of a run, and its synaptic operations for each multiply–accumulate of the hidden layers."""
    operations, dense = work_of(record)["synaptic_operations"], sum(macs(work.snn.spec)[1:-1])
    return {"time_steps": record.time_steps, "synaptic_operations_per_mac": operations / dense}


def compare(
    workload: str, batch: int, steps: Sequence[int], names: Sequence[str], repeats: int, memory: bool
) -> list[dict]:
    """One row for each contender and number of steps.

    same_class: the share of images whose class is that of our simulator after as many steps (at silence, without
    steps). A ratio is taken within each round. `to_ann`: to the fastest float32 network. `to_ours`: to this
    project's own simulator (the first of them that takes part) at as many steps, or at 4 of them.
    """
    work = load_workload(workload, batch)
    middle, ours = _middle(steps), _fastest(names)
    jobs = {
        (name, t): CONTENDERS[name].prepare(work, t)
        for t in steps
        for name in names
        if t == middle or not (CONTENDERS[name].timeless or CONTENDERS[name].slow or _outdone(name, names))
    }
    # So short a job as that of one image is timed over many calls.
    seconds = interleaved(jobs, repeats, max(1, 64 // batch))
    ann = min((key for key in jobs if key[0] in ANNS), key=lambda key: quartiles(seconds[key])["median"])
    run = simulate(work.snn, work.images, middle)
    activity = activity_of(work, run)
    exact = {name: exactness(name, work, max(steps)) for name in names}
    # By the backend that is not the fastest: two that agree are not wrong in the same way.
    reference = simulate(work.snn, work.images, max(*steps, work.snn.levels), backend="dense").predictions
    settled = simulate(work.snn, work.images).predictions[-1]
    rows = []
    for key, job in jobs.items():
        (name, t), contender = key, CONTENDERS[key[0]]
        expected = settled if contender.timeless else reference[t - 1]
        rows.append(
            {
                "workload": workload,
                "network": work.qann.spec.network,
                "origin": work.origin,
                "contender": name,
                "activity": activity,
                "label": contender.label,
                "time_steps": None if contender.timeless else t,
                "batch": batch,
                "seconds": quartiles(seconds[key]),
                "samples_per_second": quartiles([batch / s for s in seconds[key]]),
                "to_ann": ratios(seconds[key], seconds[ann]),
                "to_ours": ratios(seconds[key], seconds[ours, t]),
                "best_ann": key == ann,
                "same_class": None if name in (*ANNS, "onnx-int8") else float((job() == expected).double().mean()),
                "exact": exact[name],
                "memory": peak_memory(name, workload, batch, t) if memory and t == middle else None,
            }
        )
    return rows


def _middle(steps: Sequence[int]) -> int:
    return 4 if 4 in steps else max(steps)


def _fastest(names: Sequence[str]) -> str:
    return "events" if "events" in names else "dense"


def _outdone(name: str, names: Sequence[str]) -> bool:
    """Whether a contender is this project's slower simulator while the faster one takes part."""
    return name == "dense" and "events" in names


def silence(work: Workload) -> dict[str, float]:
    """Steps until silence, on average and at most, and how many suffice for every input."""
    record = simulate(work.snn, work.images)
    return {
        "mean_steps": float(record.settled_at.double().mean()) + 1,
        "most_steps": int(record.settled_at.max()) + 1,
        "sufficient_steps": work.snn.sufficient_steps,
    }


def distance(work: Workload, limits: dict, backend: str, repeats: int) -> dict[str, float]:
    """The synaptic operations a second of the simulator at T = 4, its time, and that of one dense int8 step."""
    record = simulate(work.snn, work.images, 4, backend=backend)
    seconds = interleaved({"run": lambda: simulate(work.snn, work.images, 4, backend=backend)}, repeats)["run"]
    rates = {
        f"{name}_per_second": quartiles([count * record.samples / s for s in seconds])
        for name, count in work_of(record).items()
    }
    dense = sum(macs(work.snn.spec)[1:-1])
    return {
        **rates,
        "seconds": quartiles(seconds)["median"],
        # If the matrix product's speed on this machine were reached, at two operations per multiply–accumulate.
        "seconds_of_dense_int8_per_step": 2 * dense * record.samples / limits["int8_operations"]["median"],
    }


def layer_costs(work: Workload, limits: dict, backend: str, repeats: int) -> list[dict[str, Any]]:
    """What each hidden layer takes at T = 4, and the share of the machine's int8 additions that it reaches.

    The time of a layer is that of the network up to it, less that of the network up to the one before. Where the
    layer's work is lost in the scatter of both, it is 0 or less, and the share None. The encoder, which multiplies,
    goes with the first of them. An addition reads a weight of one byte, in ternary layers of half a byte: so it may
    exceed the int8 additions. weight_bytes: what the layer's weights take up, each once (narrow layers have them
    once more for each place that is summed up beside another).
    """
    record = simulate(work.snn, work.images, 4, backend=backend)

    def first(number: int) -> Callable[[], object]:
        layers = work.snn.layers[:number]
        nothing = torch.zeros(work.snn.spec.classes, *layers[-1].spec.out_shape, dtype=torch.int8)
        part = replace(work.snn, layers=layers, classifier=nothing)
        return lambda: simulate(part, work.images, 4, backend=backend)

    hidden = range(1, len(work.snn.layers))
    seconds = interleaved({index: first(index + 1) for index in hidden}, repeats)
    costs, before = [], [0.0] * repeats
    for index in hidden:
        own = quartiles([now - then for now, then in zip(seconds[index], before, strict=True)])
        possible = own["median"] * limits["int8_additions"]["median"]
        additions, before = float(record.sops[:, index].sum()), seconds[index]
        costs.append(
            {
                "layer": work.snn.layers[index].name,
                "seconds": own,
                "share_of_additions": additions / possible if possible > 0 else None,
                "weight_bytes": weight_bytes(work.snn.layers[index]),
            }
        )
    return costs


def sweeps(settings: Settings, backend: str, repeats: int) -> dict[str, list[dict]]:
    """Seconds against the number of steps at the comparison's batch, and against the batch at T = 4."""
    name, batches, _ = settings.workloads["lenet"]
    batch = max(batches)
    work = load_workload(name, max(batch, *settings.batches))

    def job(samples: int, time_steps: int) -> Callable[[], object]:
        return lambda: simulate(work.snn, work.images[:samples], time_steps, backend=backend)

    over_steps = interleaved({t: job(batch, t) for t in settings.steps}, repeats)
    over_batches = interleaved({n: job(n, 4) for n in settings.batches}, repeats)
    return {
        "steps": [{"time_steps": t, "batch": batch, "seconds": quartiles(s)} for t, s in over_steps.items()],
        "batches": [{"time_steps": 4, "batch": n, "seconds": quartiles(s)} for n, s in over_batches.items()],
    }


def large_run(settings: Settings, backend: str, repeats: int, memory: bool) -> dict[str, object]:
    """Seconds and, with `memory`, its peak, of one call over many images."""
    samples, time_steps = settings.whole
    name = settings.workloads["lenet"][0]
    work = load_workload(name, samples)
    job = {"run": lambda: simulate(work.snn, work.images, time_steps, backend=backend)}
    return {
        "samples": samples,
        "time_steps": time_steps,
        "origin": work.origin,
        "seconds": quartiles(interleaved(job, repeats)["run"]),
        "memory": peak_memory(backend, name, samples, time_steps) if memory else None,
    }


def write_result(
    measure: Callable[[], dict[str, Any]], output: Path | None = None, on_device: bool = False
) -> tuple[dict[str, Any], Path]:
    """Measure, and write the result with its date to `output`, or to where `newest_file` finds it; both.

    Raises ValueError for a path that is no .json file, or there already, before anything is measured.
    """
    now = datetime.datetime.now(datetime.UTC)
    path = output or (ON_DEVICE if on_device else RESULTS) / f"{now:%Y-%m-%d-%H%M}.json"
    if path.suffix != ".json" or path.exists():
        raise ValueError(f"output={str(path)!r}: give the path of a new .json file")
    result = {"date": now.isoformat(timespec="seconds")} | measure()
    save_json(path, result)
    return result, path


def newest_file(folder: Path = RESULTS) -> tuple[Path, dict]:
    """The newest file that `ann-snn bench` wrote, and its result; those of --quick are passed over.

    Raises FileNotFoundError where there is none.
    """
    for path in sorted(Path(folder).glob("*.json"), reverse=True):
        if not (result := load_json(path))["machine"]["quick"]:
            return path, result
    raise FileNotFoundError(f"no result in {folder}: `make bench` measures one")


def load_averages() -> list[float] | None:
    """The machine's load averages over 1, 5 and 15 minutes, or None where the system has none."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def cpu_flags() -> list[str]:
    """Those instruction sets of this processor that matter for small integers; none where unknown."""
    words = set(" ".join(cpu_info()).split())
    return [flag for flag in _CPU_FLAGS if flag in words]
