"""The command `ann-snn bench`: runs the benchmark, prints one table, and writes all of it as JSON."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

# Kept in step with `benchmark.PARTS`, and named here so that --help imports nothing heavy.
_PARTS = "lenet,few,vgg,sweeps,whole,training"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to those of `ann-snn`."""
    bench = commands.add_parser(
        "bench", help="time the simulator against an ANN and other simulators", allow_abbrev=False,
        description="Time the simulator, the float32 ANN and, where installed, SpikingJelly and snnTorch on the "
        "same weights and images, in turns, and check that their answers agree.",
    )  # fmt: skip
    bench.set_defaults(command=_bench)
    bench.add_argument("--quick", action="store_true", help="small networks: tries the benchmark, says nothing")
    bench.add_argument("--contenders", metavar="LIST", help="names, with commas between (default: all)")
    bench.add_argument("--parts", default=_PARTS, metavar="LIST", help="default: %(default)s")
    bench.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds (default: %(default)s)")
    bench.add_argument("--no-memory", action="store_true", help="leave out the peaks of memory")
    bench.add_argument("--show", action="store_true", help="measure nothing: print the newest result in Markdown")
    bench.add_argument("--output", type=Path, metavar="FILE", help="default: data/benchmark/<date>.json")


def _bench(options: argparse.Namespace, folder: Path) -> int:
    from .artifacts import save_json
    from .benchmark import FOLDER, FULL, QUICK, run_benchmark
    from .contenders import LABELS

    if options.show:
        return _show()
    now = datetime.datetime.now(datetime.UTC)
    target = options.output or FOLDER / f"{now:%Y-%m-%d-%H%M}.json"
    if target.suffix != ".json" or target.is_dir():
        raise ValueError(f"output={str(target)!r}: give the path of a .json file")
    names = _listed(options.contenders) if options.contenders is not None else tuple(LABELS)
    result = run_benchmark(
        QUICK if options.quick else FULL, names, options.repeats, _listed(options.parts), not options.no_memory
    )
    save_json(target, {"date": now.isoformat(timespec="seconds")} | result)
    print("\n".join(["", *tables(result), "", f"wrote {target}"]))
    return 0


def _show() -> int:
    from .artifacts import ROOT
    from .benchmark import newest_file
    from .speed_table import speed_table

    file, result = newest_file()
    print(speed_table(result, f"[data/benchmark]({file.relative_to(ROOT).as_posix()})"))
    return 0


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def tables(result: dict) -> list[str]:
    """Give the benchmark's results as lines of text: one table, then what belongs to no contender."""
    from .report import aligned

    header = ["network", "contender", "T", "images/s", "quartiles", "time / ANN", "quartiles", "time / ours",
              "peak MiB", "exact", "same class"]  # fmt: skip
    lines = aligned([header, *(_row(row) for row in result["rows"])]) if result["rows"] else []
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


def _row(row: dict) -> list[str]:
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
