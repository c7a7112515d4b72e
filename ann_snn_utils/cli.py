"""The command line, `ann-snn` or `python -m ann_snn_utils`: study, sweep, report, bench, bundle and more."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import bench_command, bundle_command, results_command
from .notebooks import FOLDER, Parameter, check_parameters, defaults_of, ordered_notebooks, parameters_of
from .sweep_command import add_parser, add_report, sweep_report

# Modules that import torch or papermill are imported by the command that needs them: --help answers at once.

_MARK = "parameter:"


def main(arguments: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Run a command and give its exit code: 2 for a user's mistake, 1 for a failing notebook, 130 for Ctrl-C."""
    try:
        options = _parser(folder).parse_args(arguments)
        return options.command(options, folder)
    except KeyboardInterrupt as interrupt:
        print("\n" + "\n".join(["interrupted", *getattr(interrupt, "__notes__", [])]), file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (ValueError, OSError) as error:
        print(f"ann-snn: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"ann-snn: {error.name} is not installed: run `make setup`", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "NotebookFailed":
            raise
        print(f"ann-snn: {error}", file=sys.stderr)
        return 1


def _parser(folder: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ann-snn", description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(metavar="command", required=True)
    notebooks = ordered_notebooks(folder)

    study = commands.add_parser(
        "study", help="run the notebooks in order and print the results", allow_abbrev=False,
        description="Run the notebooks in order with these parameters, then print the results.",
    )  # fmt: skip
    study.set_defaults(command=_study)
    study.add_argument("--run", metavar="NAME", help="name of the run (default: named after the parameters)")
    study.add_argument("--notebooks", default="00-06", metavar="LIST", help="which ones (default: %(default)s)")
    study.add_argument("--force", action="store_true", help="run again what is already made")
    study.add_argument("--quiet", action="store_true", help="show no progress")
    study.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), dest="pairs",
                       help="set a parameter by name, as papermill does")  # fmt: skip
    _add_parameters(study, notebooks)

    report = commands.add_parser("report", help="print the results of runs", description="Print results of runs.")
    report.set_defaults(command=_report)
    report.add_argument("runs", nargs="*", metavar="RUN", help="a run's name (default: one line for each run)")
    add_report(report)

    train = commands.add_parser(
        "train", help="train the networks of a run without notebooks", allow_abbrev=False,
        description="Train the full-precision network of a run and, with --quantized, the quantized one from it.",
    )  # fmt: skip
    train.set_defaults(command=_train)
    train.add_argument("--run", metavar="NAME", help="name of the run (default: named after the parameters)")
    train.add_argument("--quantized", action="store_true", help="train the quantized network as well")
    train.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    _add_parameters(train, _training(notebooks))

    add_parser(commands)
    simulate = commands.add_parser(
        "simulate", help="run the integer network of a run over time", allow_abbrev=False,
        description="Run the integer network over the test images and print accuracy, spikes and SOPs per step.",
    )  # fmt: skip
    simulate.set_defaults(command=_simulate)
    simulate.add_argument("run", metavar="RUN", help="a run's name")
    simulate.add_argument("--time-steps", type=int, metavar="T", help="default: until every image is silent")
    simulate.add_argument("--samples", type=int, metavar="N", help="images of the test set (default: all)")
    simulate.add_argument("--noise-ratio", type=float, default=0.0, metavar="R", help="noise on the pixels")
    simulate.add_argument("--fault", choices=("delete", "flip"), help="what happens to faulty spikes")
    simulate.add_argument("--fault-rate", type=float, default=0.0, metavar="P", help="share of faulty spikes")
    simulate.add_argument("--seed", type=int, default=0, help="of noise and faults (default: 0)")
    simulate.add_argument("--logs", action="store_true", help="write the six published logs into the run's figs/")

    latency = commands.add_parser(
        "latency", help="measure how fast the explorers' sliders are", allow_abbrev=False,
        description="Measure the explorers' sliders on a network, in one process, and print medians and quartiles.",
    )  # fmt: skip
    latency.set_defaults(command=_latency)
    latency.add_argument("run", nargs="?", default="", metavar="RUN",
                         help="a run, or 'bundled: NAME' (default: MNIST's, else that on digits)")  # fmt: skip
    latency.add_argument("--samples", type=int, default=256, metavar="N", help="images (default: %(default)s)")
    latency.add_argument("--time-steps", type=int, default=8, metavar="T", help="default: %(default)s")
    latency.add_argument("--repeats", type=int, default=20, metavar="N", help="moves (default: %(default)s)")
    bundle_command.add_parser(commands)
    bench_command.add_parser(commands)
    results_command.add_parsers(commands)
    return parser


def _training(notebooks: list[Path]) -> list[Path]:
    return [path for path in notebooks if path.stem in ("01_train_ann", "02_quantize")]


def _add_parameters(parser: argparse.ArgumentParser, notebooks: list[Path]) -> None:
    group = parser.add_argument_group("parameters of the notebooks")
    takers: dict[str, list[tuple[str, Parameter]]] = {}
    for notebook in notebooks:
        for name, parameter in parameters_of(notebook).items():
            takers.setdefault(name, []).append((notebook.stem[:2], parameter))
    for name, found in takers.items():
        flag, parameter = f"--{name.replace('_', '-')}", found[0][1]
        if flag in parser._option_string_actions:
            continue
        defaults = {repr(own.default): [n for n, p in found if p.default == own.default] for _, own in found}
        default = "default " + "; ".join(f"{value} in {', '.join(where)}" for value, where in defaults.items())
        words = {"dest": _MARK + name, "default": argparse.SUPPRESS,
                 "help": f"{parameter.help} ({default})".strip().replace("%", "%%")}  # fmt: skip
        if isinstance(parameter.default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **words)
        else:
            group.add_argument(flag, metavar=type(parameter.default).__name__.upper(), **words)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    from .commands import absolute_dataset

    given = {name.removeprefix(_MARK): value for name, value in vars(options).items() if name.startswith(_MARK)}
    for name, value in getattr(options, "pairs", []):
        if name in given and given[name] != value:
            raise ValueError(f"two values for {name}, {given[name]!r} and {value!r}: give one")
        given[name] = value
    if isinstance(given.get("dataset"), str):
        given["dataset"] = absolute_dataset(given["dataset"])
    return given


def _study(options: argparse.Namespace, folder: Path) -> int:
    from .batch import results_table, study

    target = study(_given(options), options.notebooks, options.run, not options.quiet, options.force, folder)
    if (target / "results.json").is_file():
        print(f"\n{results_table(target)}\n")
    for label, path in (("run folder", target), ("notebooks", target / "notebooks"), ("pages", target / "html")):
        print(f"{label:<10}  {path}")
    return 0


def _report(options: argparse.Namespace, folder: Path) -> int:
    from .report import results_table, runs_table
    from .runs import list_runs, run_folder, runs_root

    if options.sweep:
        print(sweep_report(options.sweep))
    elif options.runs:
        print("\n\n".join(results_table(run_folder(run)) for run in options.runs))
    else:
        runs = list_runs()
        print(runs_table(runs) if runs else f"no runs in {runs_root()} yet: `ann-snn study` makes one")
    return 0


def _train(options: argparse.Namespace, folder: Path) -> int:
    from .commands import ANN_FILE, check_same_ann, train_ann, train_qann
    from .locks import working_in
    from .runs import default_run_name, run_folder

    notebooks = _training(ordered_notebooks(folder))
    given = check_parameters(_given(options), notebooks)
    target = run_folder(options.run or default_run_name(given, ordered_notebooks(folder)), create=True)
    settings = [{n: v for n, v in (defaults_of([path]) | given).items() if n in parameters_of(path) and n != "run"}
                for path in notebooks]  # fmt: skip
    with working_in(target):
        if options.quantized and (target / ANN_FILE).is_file():
            check_same_ann(target, {name: value for name, value in given.items() if name in settings[0]})
            print(f"quantizing {target / ANN_FILE}")
        else:
            print(f"wrote {train_ann(target, settings[0], options.device)}")
        if options.quantized:
            print(f"wrote {train_qann(target, settings[1], options.device)}")
    return 0


def _latency(options: argparse.Namespace, folder: Path) -> int:
    from .latency import latency_table, pick_network, slider_latencies

    network = pick_network(options.run)
    print(latency_table(network, slider_latencies(network, options.samples, options.time_steps, options.repeats)))
    return 0


def _simulate(options: argparse.Namespace, folder: Path) -> int:
    from .commands import simulate_run

    for name in ("time_steps", "samples"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)}: give at least 1")
    table, logs = simulate_run(
        options.run, options.time_steps, options.samples, options.logs, noise_ratio=options.noise_ratio,
        fault=options.fault, fault_rate=options.fault_rate, seed=options.seed,
    )  # fmt: skip
    print(table)
    if logs:
        print(f"logs in {logs}")
    return 0
