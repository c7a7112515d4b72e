"""The benchmark's results as text: for a terminal, for the README, and for the page beside the data.

Numbers of a table are medians, with quartiles in brackets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from ..tables import SPACE, aligned, markdown_table
from .benchmark import ON_DEVICE, newest_file

Result = Mapping[str, Any]
"""What `run_benchmark` returns, or a file of it."""

NETWORKS = {
    "lenet": "LeNet",
    "lenet-few": "LeNet, few levels",
    "cifar": "small CIFAR-10 network",
    "vgg": "VGG",
    "small": "small",
    "small-few": "small, few levels",
    "small-vgg": "small VGG",
}

# A dash that keeps both of its sides on one line.
_RANGE = "\N{WORD JOINER}–\N{WORD JOINER}"

# The README has room for these columns, and for the rows that answer its reader's question.
_COLUMNS = ("network", "batch", "contender", "images/s", "time / float32 ANN", "time / ours", "peak MiB", "exact")
_CHOSEN = {
    ("lenet", 1): ("events", "onnx-int8"),
    ("lenet", 256): ("events", "onnx-int8", "ann", "spikingjelly"),
    ("vgg", 64): ("events", "onnx-int8"),
}


def tables(result: Result) -> list[str]:
    """The results as lines for a terminal: one table, then what belongs to no contender."""
    same = (row["same_class"] for row in result["rows"])
    shares = ("–" if share is None else f"{100 * share:.1f} %" for share in same)
    rows = [_row(row) | {"same class": share} for row, share in zip(result["rows"], shares, strict=True)]
    lines = aligned([list(rows[0]), *(list(row.values()) for row in rows)]) if rows else []
    loads = f"n = {result['repeats']} rounds; load before {result['load_before']}, after {result['load_after']}"
    return [*lines, loads, *result["skipped"], *(fact.replace("**", "") for fact in _facts(result))]


def speed_table(result: Result, source: str) -> str:
    """All results as Markdown, as far as they were measured; source: the link to their file."""
    ours = "*time / ours* is formed with this project's simulator at as many steps, or at 4 where there are none."
    parts = [f"{_how(result, source)} {ours}", *_networks(result)]
    return "\n\n".join([*parts, "\n".join(f"- {fact}" for fact in _facts(result))]).rstrip()


def newest_tables(everything: bool) -> str:
    """The README's table of the newest result, or the page in data/benchmark with everything of it, as Markdown."""
    path, result = newest_file()
    if not everything:
        return short_table(result, "[data/benchmark](data/benchmark/README.md)")
    parts = [speed_table(result, f"[{path.name}]({path.name})")]
    with contextlib.suppress(FileNotFoundError):
        path, result = newest_file(ON_DEVICE)
        parts.append(device_table(result, f"[{path.name}]({ON_DEVICE.name}/{path.name})"))
    return "\n\n".join(parts)


def device_table(result: Result, source: str) -> str:
    """All results of an accelerator as Markdown; source: the link to their file."""
    machine, versions = result["machine"], result["versions"]
    how = (
        f"**On {machine['accelerator'] or result['device']}**, torch {versions['torch']}, CUDA {versions['cuda']}: "
        "the simulator's time holds the way of images there and of the record back; all others have theirs there "
        f"already. {_how(result, source)}"
    )
    return "\n\n".join([how, *_networks(result)])


def _networks(result: Result) -> list[str]:
    """Of each network where it comes from, and its table."""
    parts = []
    for workload in dict.fromkeys(row["workload"] for row in result["rows"]):
        own = [row for row in result["rows"] if row["workload"] == workload]
        turns = list(dict.fromkeys(row["contender"] for row in own))
        own.sort(key=lambda row: (row["batch"], turns.index(row["contender"]), row["time_steps"] or 0))
        parts.append(f"**{NETWORKS[workload]}**: {_origin(own[0])}.")
        parts.append(markdown_table([_row(row) for row in own], _COLUMNS[1:]))
    return parts


def short_table(result: Result, source: str) -> str:
    """What a reader looks for first, in few rows of Markdown; source: where all results are."""
    rows = [
        row for (name, batch), chosen in _CHOSEN.items() for row in _chosen(result["rows"], name, batch, chosen)
    ]
    return f"{_how(result, source)}\n\n{markdown_table([_row(row) for row in rows], _COLUMNS)}"


def _chosen(
    rows: Iterable[Mapping[str, Any]], workload: str, batch: int, contenders: Iterable[str]
) -> list[Mapping[str, Any]]:
    """One row for each contender of a workload, at T = 4; "ann" is the fastest float32 network: see `best_ann`."""
    rows = [row for row in rows if row["workload"] == workload and row["batch"] == batch]
    rows = [row for row in rows if row["time_steps"] in (None, 4)]
    return [
        row
        for name in contenders
        for row in rows
        if row["contender"] == name or (name == "ann" and row["best_ann"])
    ]


def _how(result: Result, source: str) -> str:
    machine, averages = result["machine"], (result[f"load_{when}"] for when in ("before", "after"))
    loads = ("unknown" if average is None else f"{average[0]:.2f}" for average in averages)
    return (
        f"n = {result['repeats']} rounds in one process, contender after contender, each once to warm up and once "
        f"timed: medians, with quartiles in brackets. {machine['cores']} cores ({machine['processor']}: "
        f"{', '.join(machine['cpu_flags'])}), load {' before and '.join(loads)} after. All numbers: {source}."
    )


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    steps = "" if row["time_steps"] is None or "T =" in row["label"] else f", T = {row['time_steps']}"
    cells = (
        NETWORKS[row["workload"]],
        f"{row['batch']:,}",
        row["label"] + steps,
        _median(row["samples_per_second"], ",.0f"),
        _median(row["to_ann"], ".2f"),
        "–" if row["to_ours"] is None else f"{row['to_ours']['median']:.2f}",
        f"{row['memory']['peak_mib']:,.0f}" if row["memory"] else "–",
        {True: "yes", False: "NO", None: "–"}[row["exact"]],
    )
    return dict(zip(_COLUMNS, cells, strict=True))


def _origin(row: Mapping[str, Any]) -> str:
    activity = row["activity"]
    return (
        f"`{row['network']}`, {row['origin']}; "
        f"{activity['synaptic_operations_per_mac']:.2f} synaptic operations per multiply-accumulate at T = "
        f"{activity['time_steps']}"
    )


def _facts(result: Result) -> list[str]:
    return [state(result) for name, state in _STATEMENTS.items() if result.get(name)]


def _silence(result: Result) -> str:
    steps, rows = result["silence"], [row for row in result["rows"] if row["workload"] in ("lenet", "small")]
    rows = [row for row in rows if row["batch"] == max(row["batch"] for row in rows)]
    stopped = [row for row in rows if row["contender"] == "silence"]
    fixed = sorted((row for row in rows if row["contender"] == "events"), key=lambda row: row["time_steps"])
    text = (
        f"**Silence** comes after {steps['mean_steps']:.2f} steps on average and {steps['most_steps']} at most, "
        f"where a network that cannot notice it must take {steps['sufficient_steps']}"
    )
    if stopped and fixed:
        ratio = stopped[0]["seconds"]["median"] / fixed[-1]["seconds"]["median"]
        text += f"; the run until silence takes {ratio:.2f} times as long as T = {fixed[-1]['time_steps']}"
    return f"{text}."


def _sweeps(result: Result) -> str:
    steps, batches = result["sweeps"]["steps"], result["sweeps"]["batches"]
    few, many = steps[0], steps[-1]
    times = many["seconds"]["median"] / few["seconds"]["median"]
    each = {row["batch"]: 1e6 * row["seconds"]["median"] / row["batch"] for row in batches}
    return (
        f"**Cost** grows less than the steps: {many['time_steps']} take {times:.1f} times as long as "
        f"{few['time_steps']}, as an image that has fallen silent costs nothing more. At T = "
        f"{batches[0]['time_steps']} an image takes "
        f"{', '.join(f'{cost:,.0f} µs among {batch:,}' for batch, cost in each.items())}."
    )


def _size(result: Result) -> str:
    run = result["whole"]
    memory = run["memory"]
    peak = f", {memory['peak_mib']:,.0f} MiB at the peak and {memory['before_mib']:,.0f} before" if memory else ""
    return (
        f"**Size**: {run['samples']:,} images at T = {run['time_steps']} take {_median(run['seconds'], '.2f')} s"
        f"{peak}: beside the record itself, each thread holds the state of one image."
    )


def _additions(result: Result) -> str:
    ours, limits = result["distance"], result["limits"]
    additions, products = (limits[name]["median"] / 1e9 for name in ("int8_additions", "int8_operations"))
    return (
        f"**Plain additions**: {ours['synaptic_operations_per_second']['median'] / 1e9:.0f} billion synaptic "
        f"operations a second, where NumPy adds {additions:.0f} billion int8 numbers with all operands in cache. "
        f"An int8 matrix product makes {products:.0f} billion operations, at which speed one dense step would take "
        f"{1000 * ours['seconds_of_dense_int8_per_step']:.1f} ms; ours takes {1000 * ours['seconds']:.1f} ms for "
        "four."
    )


def _layers(result: Result) -> str:
    networks = []
    for name, costs in result["layers"].items():
        told = (f"{cost['layer']} {_layer_time(cost)}, {cost['weight_bytes'] / 1024:,.0f} KiB" for cost in costs)
        networks.append(f"{NETWORKS[name]}: {'; '.join(told)}")
    return (
        "**Layers** at T = 4, the encoder with the first: time, additions beside those of plain int8, weights. "
        f"{'. '.join(networks)}. What a layer lacks of 100 % goes into reading weights from caches beyond the "
        "first, finding and listing spikes, and comparing membranes; rows added in registers, and half bytes of "
        "ternary layers, many of them at once, bring more."
    )


def _layer_time(cost: Mapping[str, Any]) -> str:
    milliseconds = 1000 * cost["seconds"]["median"]
    # A layer's time is a difference of two: what rounds to nothing, or to less, has no share to tell.
    if milliseconds < 0.005:
        return "too short to be told"
    return f"{milliseconds:.2f} ms, {100 * cost['share_of_additions']:.0f} %"


def _training(result: Result) -> str:
    step = result["training"]
    return (
        f"**Training**: a quantized {step['network']} step (side {step['side']}, batch {step['batch_size']}, "
        f"{step['precision']}) takes {_median(step['quantized_to_convolutions'], '.2f')} times its convolutions "
        f"alone and {_median(step['quantized_to_full_precision'], '.2f')} times a full-precision step, "
        f"{_median(step['seconds']['quantized'], '.2f')} s."
    )


_STATEMENTS = {
    "silence": _silence,
    "sweeps": _sweeps,
    "whole": _size,
    "distance": _additions,
    "layers": _layers,
    "training": _training,
}


def _median(values: Mapping[str, float], form: str) -> str:
    # With its quartiles; a cell does not break within.
    return f"{values['median']:{form}}{SPACE}({values['low']:{form}}{_RANGE}{values['high']:{form}})"
