"""The commands on results: `evaluate` a bundled network, `collect` runs' results, print the `table` of all."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

# Modules that import torch are imported by the functions that need them: --help answers at once.


def add_parsers(commands: Any) -> None:
    """Add the three commands to the command line's subparsers."""
    evaluate = commands.add_parser(
        "evaluate", help="measure a network that comes with the project, beside what was recorded",
        allow_abbrev=False, description="Measure a bundled network on its test set: accuracy over time, code "
        "mismatches, spikes and SOPs, beside the numbers recorded with it. Exit status 1 where one differs.",
    )  # fmt: skip
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("--pretrained", required=True, metavar="NAME", help="the network's name")
    evaluate.add_argument("--samples", type=int, metavar="N", help="test images (default: all, as recorded)")

    collect = commands.add_parser(
        "collect", help="keep the results of finished runs in data/results", allow_abbrev=False,
        description="Write data/results/RUN.json for each finished run: results, seed, parameters and provenance.",
    )  # fmt: skip
    collect.set_defaults(command=_collect)
    collect.add_argument("runs", nargs="*", metavar="RUN", help="a run's name")
    collect.add_argument("--sweep", metavar="NAME", help="the runs of a sweep")
    collect.add_argument("--pretrained", metavar="NAME", help="keep the run's network too, under this name")

    table = commands.add_parser(
        "table", help="print the README's table of results", allow_abbrev=False,
        description="Print the results of data/results as a Markdown table, beside those of the published system.",
    )  # fmt: skip
    table.set_defaults(command=_table)


def _evaluate(options: argparse.Namespace, folder: Path) -> int:
    if options.samples is not None and options.samples < 1:
        raise ValueError(f"samples={options.samples}: give at least 1")
    from .evaluation import evaluate_pretrained, evaluation_table

    evaluation = evaluate_pretrained(options.pretrained, options.samples, progress=sys.stderr.isatty())
    print(evaluation_table(evaluation))
    return int(bool(evaluation.differences))


def _collect(options: argparse.Namespace, folder: Path) -> int:
    from .collection import collect, keep_network
    from .runs import list_runs, runs_root
    from .sweep_file import read_sweep_file

    runs = [*options.runs, *(read_sweep_file(options.sweep)["runs"] if options.sweep else ())]
    if not runs:
        listed = ", ".join(list_runs()[:5]) or f"none yet in {runs_root()}"
        raise ValueError(f"no run is named: give runs ({listed}), or --sweep NAME")
    if options.pretrained and len(runs) != 1:
        raise ValueError(f"--pretrained {options.pretrained} names one network, and {len(runs)} runs are given")
    refused = []
    for run in dict.fromkeys(runs):
        try:
            print(f"wrote {collect(run)}")
            if options.pretrained:
                print(f"wrote {keep_network(run, options.pretrained)}")
        except (ValueError, OSError) as error:
            refused.append(f"ann-snn: {error}")
    print("\n".join(refused), end="\n" if refused else "", file=sys.stderr)
    return 2 if refused else 0


def _table(options: argparse.Namespace, folder: Path) -> int:
    from .outcome import collected_outcomes
    from .published_table import results_table

    print(results_table(collected_outcomes()))
    return 0
