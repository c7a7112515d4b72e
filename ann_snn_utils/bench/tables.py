"""The README's part on speed: a benchmark's table and what belongs to no contender, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..tables import markdown_table

_NETWORKS = {
    "lenet": "LeNet",
    "lenet-few": "LeNet, few levels",
    "vgg": "VGG",
    "small": "small",
    "small-few": "small, few levels",
    "small-vgg": "small VGG",
}

_COLUMNS = ("network", "contender", "images/s", "time / one float32 ANN pass", "time / ours", "peak MiB", "exact")


def speed_table(result: Mapping[str, Any], source: str) -> str:
    """Give a result of `run_benchmark` as Markdown, as far as it was measured; source: the link to its file."""
    machine = result["machine"]
    parts = [
        f"n = {result['repeats']} rounds in one process, contender after contender, each once to warm up and once "
        f"timed: medians, with quartiles in brackets. {machine['cores']} cores ({machine['processor']}: "
        f"{', '.join(machine['cpu_flags'])}), load {_load(result['load_before'])} before and "
        f"{_load(result['load_after'])} after. All numbers: {source}."
    ]
    if result["rows"]:
        parts.append(markdown_table([_row(row) for row in result["rows"]], _COLUMNS))
        origins = {_NETWORKS[row["workload"]]: _origin(row) for row in result["rows"]}
        parts.append("\n".join(f"- {name}: {origin}." for name, origin in origins.items()))
    facts = [fact for name, state in _FACTS.items() if name in result for fact in state(result)]
    return "\n\n".join([*parts, "\n".join(f"- {fact}" for fact in facts)]).rstrip()


def _row(row: Mapping[str, Any]) -> dict[str, str]:
    steps = "" if row["time_steps"] is None or "T =" in row["label"] else f", T = {row['time_steps']}"
    return {
        "network": _NETWORKS[row["workload"]],
        "contender": row["label"] + steps,
        "images/s": _spread(row["samples_per_second"], ",.0f"),
        "time / one float32 ANN pass": _spread(row["to_ann"], ".2f"),
        "time / ours": "–" if row["to_ours"] is None else f"{row['to_ours']['median']:.1f}",
        "peak MiB": f"{row['memory']['peak_mib']:,.0f}" if row["memory"] else "–",
        "exact": {True: "yes", False: "NO", None: "–"}[row["exact"]],
    }


def _origin(row: Mapping[str, Any]) -> str:
    activity = row["activity"]
    return (
        f"`{row['network']}`, {row['batch']} images, {row['origin']}; "
        f"{activity['synaptic_operations_per_mac']:.2f} synaptic operations per multiply-accumulate at T = "
        f"{activity['time_steps']}"
    )


def _silence(result: Mapping[str, Any]) -> list[str]:
    steps, rows = result["silence"], [row for row in result["rows"] if row["workload"] in ("lenet", "small")]
    stopped = [row for row in rows if row["contender"] == "silence"]
    fixed = sorted((row for row in rows if row["contender"] == "events"), key=lambda row: row["time_steps"])
    text = (
        f"**Silence** comes after {steps['mean_steps']:.2f} steps on average and {steps['most_steps']} at most, "
        f"where a network that cannot notice it must take {steps['sufficient_steps']}"
    )
    if stopped and fixed:
        ratio = stopped[0]["seconds"]["median"] / fixed[-1]["seconds"]["median"]
        text += f"; the run until silence takes {ratio:.2f} times as long as T = {fixed[-1]['time_steps']}"
    return [f"{text}."]


def _sweeps(result: Mapping[str, Any]) -> list[str]:
    steps, batches = result["sweeps"]["steps"], result["sweeps"]["batches"]
    (few, *_, many) = steps
    times = many["seconds"]["median"] / few["seconds"]["median"]
    each = {row["batch"]: 1e6 * row["seconds"]["median"] / row["batch"] for row in batches}
    return [
        f"**Cost** grows less than the steps: {many['time_steps']} take {times:.1f} times as long as "
        f"{few['time_steps']}, as an image that has fallen silent costs nothing more. At T = "
        f"{batches[0]['time_steps']} an image takes "
        + ", ".join(f"{cost:,.0f} µs among {batch:,}" for batch, cost in each.items())
        + "."
    ]


def _whole(result: Mapping[str, Any]) -> list[str]:
    run = result["whole"]
    memory = run["memory"]
    peak = f", {memory['peak_mib']:,.0f} MiB at the peak and {memory['before_mib']:,.0f} before" if memory else ""
    return [
        f"**Size**: {run['samples']:,} images at T = {run['time_steps']} take {_spread(run['seconds'], '.2f')} s"
        f"{peak}: beside the record itself, each thread holds the state of one image."
    ]


def _distance(result: Mapping[str, Any]) -> list[str]:
    done, limits = result["distance"]["synaptic_operations_per_second"], result["limits"]
    additions, products = (limits[name]["median"] / 1e9 for name in ("int8_additions", "int8_operations"))
    return [
        f"**Limit**: {done['median'] / 1e9:.0f} billion synaptic operations a second, where NumPy adds "
        f"{additions:.0f} billion int8 numbers with all operands in cache, and an int8 matrix product makes "
        f"{products:.0f} billion operations."
    ]


def _training(result: Mapping[str, Any]) -> list[str]:
    step = result["training"]
    return [
        f"**Training**: a quantized {step['network']} step (side {step['side']}, batch {step['batch_size']}, "
        f"{step['precision']}) takes {_spread(step['quantized_to_convolutions'], '.2f')} times its convolutions "
        f"alone and {_spread(step['quantized_to_full_precision'], '.2f')} times a full-precision step, "
        f"{_spread(step['seconds']['quantized'], '.2f')} s."
    ]


_FACTS = {"silence": _silence, "sweeps": _sweeps, "whole": _whole, "distance": _distance, "training": _training}


def _spread(values: Mapping[str, float], form: str) -> str:
    return f"{values['median']:{form}} ({values['low']:{form}}–{values['high']:{form}})"


def _load(averages: list[float] | None) -> str:
    return "unknown" if averages is None else f"{averages[0]:.2f}"


def tables(result: dict) -> list[str]:
    """Give the benchmark's results as lines of text: one table, then what belongs to no contender."""
    from ..tables import aligned

    header = [
        "network",
        "contender",
        "T",
        "images/s",
        "quartiles",
        "time / ANN",
        "quartiles",
        "time / ours",
        "peak MiB",
        "exact",
        "same class",
    ]
    lines = aligned([header, *(_bench_command_row(row) for row in result["rows"])]) if result["rows"] else []
    lines += [f"n = {result['repeats']} rounds; load before {result['load_before']}, after {result['load_after']}"]
    lines += result["skipped"]
    if "silence" in result:
        steps = result["silence"]
        lines.append(
            f"silence: {steps['mean_steps']:.2f} steps on average, {steps['most_steps']} at most; "
            f"{steps['sufficient_steps']} are enough for every input"
        )
    if "distance" in result:
        far, limits = result["distance"], result["limits"]
        lines.append(
            f"additions: {far['synaptic_operations_per_second']['median'] / 1e9:.2f} billion/s, "
            f"{100 * far['share_of_additions']:.0f} % of the int8 additions that the cores can do "
            f"({limits['int8_additions']['median'] / 1e9:.1f} billion/s)"
        )
        lines.append(
            f"int8 matrix product: {limits['int8_operations']['median'] / 1e9:.0f} billion operations/s; at that "
            f"speed one dense step would take {1000 * far['seconds_of_dense_int8_per_step']:.1f} ms, ours take "
            f"{1000 * far['seconds']:.1f} ms for four"
        )
    if "whole" in result:
        run = result["whole"]
        peak = f", peak {run['memory']['peak_mib']:,.0f} MiB" if run["memory"] else ""
        lines.append(
            f"{run['samples']:,} images at T = {run['time_steps']}: {run['seconds']['median']:.2f} s{peak}"
        )
    if "training" in result:
        step = result["training"]
        times = ", ".join(f"{name} {seconds['median']:.3f} s" for name, seconds in step["seconds"].items())
        lines.append(f"training, {step['network']} at {step['side']}×{step['side']}, {step['precision']}: {times}")
        lines.append(
            f"quantized step / its convolutions {_ratio(step['quantized_to_convolutions'])}, / full precision "
            f"{_ratio(step['quantized_to_full_precision'])}"
        )
    return lines


def _bench_command_row(row: dict) -> list[str]:
    rate, memory = row["samples_per_second"], row["memory"]
    exact = {True: "yes", False: "NO", None: "–"}[row["exact"]]
    return [
        row["workload"],
        row["label"] + (" *" if row["best_ann"] else ""),
        "–" if row["time_steps"] is None else str(row["time_steps"]),
        f"{rate['median']:,.0f}",
        f"{rate['low']:,.0f}–{rate['high']:,.0f}",
        f"{row['to_ann']['median']:.2f}",
        f"{row['to_ann']['low']:.2f}–{row['to_ann']['high']:.2f}",
        "–" if row["to_ours"] is None else f"{row['to_ours']['median']:.1f}",
        f"{memory['peak_mib']:,.0f}" if memory else "–",
        exact,
        "–" if row["same_class"] is None else f"{100 * row['same_class']:.1f} %",
    ]


def _ratio(spread: dict) -> str:
    return f"{spread['median']:.2f} ({spread['low']:.2f}–{spread['high']:.2f})"
