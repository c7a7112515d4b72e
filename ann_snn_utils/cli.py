"""The command line, `ann-snn` or `python -m ann_snn_utils`: study, sweep, report, bench, bundle and more."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .runs.parameters import FOLDER, Parameter, check_parameters, defaults_of, ordered_notebooks, parameters_of

# Kept in step with `benchmark.PARTS`, and named here so that --help imports nothing heavy.
_PARTS = "lenet,few,vgg,sweeps,whole,training"


def _add_bench(commands: argparse._SubParsersAction) -> None:
    """Add the command to those of `ann-snn`."""
    bench = commands.add_parser(
        "bench",
        help="time the simulator against an ANN and other simulators",
        allow_abbrev=False,
        description="Time the simulator, the float32 ANN and, where installed, SpikingJelly and snnTorch on the "
        "same weights and images, in turns, and check that their answers agree.",
    )
    bench.set_defaults(command=_bench)
    bench.add_argument("--quick", action="store_true", help="small networks: tries the benchmark, says nothing")
    bench.add_argument("--contenders", metavar="LIST", help="names, with commas between (default: all)")
    bench.add_argument("--parts", default=_PARTS, metavar="LIST", help="default: %(default)s")
    bench.add_argument("--repeats", type=int, default=7, metavar="N", help="rounds (default: %(default)s)")
    bench.add_argument("--no-memory", action="store_true", help="leave out the peaks of memory")
    bench.add_argument("--show", action="store_true", help="measure nothing: print the newest result in Markdown")
    bench.add_argument("--output", type=Path, metavar="FILE", help="default: data/benchmark/<date>.json")


def _bench(options: argparse.Namespace, folder: Path) -> int:
    from .bench.benchmark import FOLDER, FULL, QUICK, run_benchmark
    from .bench.contenders import LABELS
    from .bench.tables import tables
    from .files import save_json

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
    from .bench.benchmark import newest_file
    from .bench.tables import speed_table
    from .files import ROOT

    file, result = newest_file()
    print(speed_table(result, f"[data/benchmark]({file.relative_to(ROOT).as_posix()})"))
    return 0


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _add_bundle(commands: Any) -> None:
    """Add the command and its arguments to the command line's subparsers."""
    parser = commands.add_parser(
        "bundle",
        help="write the integer network, inputs and golden outputs for hardware",
        allow_abbrev=False,
        description="Write a folder from which a test bench can be made: weights, thresholds, input vectors and "
        "golden outputs as raw and $readmemh files, costs, and readers in C and Python that check it.",
    )
    parser.set_defaults(command=_bundle)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("run", metavar="RUN", nargs="?", help="a run's name")
    which.add_argument("--pretrained", metavar="NAME", help="a network that comes with the project")
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write; it must be new or empty")
    parser.add_argument("--samples", type=int, default=32, metavar="N", help="test images (default: %(default)s)")
    parser.add_argument("--time-steps", type=int, metavar="T", help="default: until every image is silent")
    parser.add_argument("--dataset", metavar="PATH", help="where the network's images lie now")


def _bundle(options: argparse.Namespace, folder: Path) -> int:
    from .data.dataset import load_recorded
    from .hardware.bundle import check_target, write_bundle

    for name in ("samples", "time_steps"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)}: give at least 1")
    check_target(Path(options.out))
    snn, provenance = _from_run(options.run) if options.run else _from_pretrained(options.pretrained)
    test = load_recorded(snn.metadata, dataset=options.dataset)
    samples = test.subset(min(options.samples, len(test)))
    provenance |= {"dataset": test.name, "split": "test", "samples_of": len(test)}
    out = write_bundle(snn, samples, options.out, provenance, options.time_steps)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"wrote {out}: {len(samples)} samples, {size / 2**20:.1f} MiB; README.md there is the format")
    print(f"check it: cd {out} && cc -std=c99 -O2 -o run_bundle run_bundle.c && ./run_bundle")
    return 0


def _from_run(run: str) -> tuple[Any, dict[str, Any]]:
    from .batch.without_notebooks import SNN_FILE
    from .runs.folder import require, run_folder
    from .snn.store import load_snn

    path = require(run_folder(run), SNN_FILE)
    return load_snn(path), {"network": f"run {run}", **_origin(path)}


def _from_pretrained(name: str) -> tuple[Any, dict[str, Any]]:
    from .ann.store import load_pretrained, pretrained_file
    from .snn.conversion import convert

    snn = convert(load_pretrained(name))
    return snn, {"network": f"pretrained {name}", **_origin(pretrained_file(name))}


def _origin(path: Path) -> dict[str, Any]:
    from .files import sha256
    from .runs.provenance import git_state, versions

    return {"file": path.name, "sha256": sha256(path), "versions": versions(), "git": git_state()}


def _add_sweep(commands: Any) -> None:
    """Add the command to the parsers of the command line."""
    parser = commands.add_parser(
        "sweep",
        help="run a grid of parameters, in parallel or on a Dask cluster",
        allow_abbrev=False,
        description="Run every combination of parameters over the notebooks. Equal stages are made once and "
        "shared; the same command goes on where it was stopped.",
    )
    parser.set_defaults(command=sweep)
    parser.add_argument("file", nargs="?", metavar="SWEEP.yaml", help="name, notebooks, set and zip as YAML")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        dest="settings",
        help="values to combine with all others: k=0,1,2 or seed=0..4 (repeatable)",
    )
    parser.add_argument(
        "--zip",
        action="append",
        default=[],
        metavar="NAME=VALUES",
        dest="zipped",
        help="values to take side by side with those of the other --zip (repeatable)",
    )
    parser.add_argument("--notebooks", metavar="LIST", help="which ones (default: 01-04)")
    parser.add_argument("--name", metavar="NAME", help="name of the sweep (default: the file's, or from --set)")
    parser.add_argument("--jobs", type=int, metavar="N", help="stages at a time (default: one for each core)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of each job (default: cores / jobs)")
    parser.add_argument("--dask", metavar="ADDRESS", help="run on a Dask cluster: tcp://host:8786, or local")
    parser.add_argument("--pages", action="store_true", help="write an HTML page of every executed notebook too")
    parser.add_argument("--dry-run", action="store_true", help="show the plan, with what is there, and stop")


def sweep(options: argparse.Namespace, folder: Path) -> int:
    """Run the command; give 0 where every run is complete, 1 where one failed."""
    for name in ("jobs", "threads"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)}: give at least 1")
    from .batch.sweep_report import _make, _summary, plan_text

    asked = _asked(options, folder)
    from .batch.sweep_grid import rehearse
    from .batch.sweep_plan import plan_sweep

    rehearse(asked.runs, asked.notebooks)
    plan = plan_sweep(asked)
    print(plan_text(plan) if options.dry_run else _summary(plan), flush=True)
    if options.dry_run:
        return 0
    return _make(plan, options, folder)


def _asked(options: argparse.Namespace, folder: Path) -> Any:
    from .batch.sweep_grid import build_sweep, parse_settings, read_sweep

    content: dict[str, Any] = read_sweep(options.file) if options.file else {}
    filed = {**content.get("set", {}), **content.get("zip", {})}
    for key, given in (("set", options.settings), ("zip", options.zipped)):
        extra = parse_settings(given, f"--{key}")
        twice = [name for name in extra if name in filed]
        if twice:
            raise ValueError(f"{twice[0]} is given in {options.file} and by --{key}: give it once")
        content[key] = {**content.get(key, {}), **extra}
    if not content["set"] and not content["zip"]:
        raise ValueError("a sweep needs a YAML file, or --set name=value,value,…")
    name = options.name or content.get("name") or (Path(options.file).stem if options.file else None)
    return build_sweep(content, folder, options.notebooks, name)


def _add_report(parser: argparse.ArgumentParser) -> None:
    """Add --sweep to the command `report`."""
    parser.add_argument("--sweep", metavar="NAME", help="the runs of a sweep, each with what varied")


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
        "study",
        help="run the notebooks in order and print the results",
        allow_abbrev=False,
        description="Run the notebooks in order with these parameters, then print the results.",
    )
    study.set_defaults(command=_study)
    study.add_argument("--run", metavar="NAME", help="name of the run (default: named after the parameters)")
    study.add_argument("--notebooks", default="00-06", metavar="LIST", help="which ones (default: %(default)s)")
    study.add_argument("--force", action="store_true", help="run again what is already made")
    study.add_argument("--quiet", action="store_true", help="show no progress")
    study.add_argument(
        "-p",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        dest="pairs",
        help="set a parameter by name, as papermill does",
    )
    _add_parameters(study, notebooks)

    report = commands.add_parser("report", help="print the results of runs", description="Print results of runs.")
    report.set_defaults(command=_report)
    report.add_argument("runs", nargs="*", metavar="RUN", help="a run's name (default: one line for each run)")
    _add_report(report)

    train = commands.add_parser(
        "train",
        help="train the networks of a run without notebooks",
        allow_abbrev=False,
        description="Train the full-precision network of a run and, with --quantized, the quantized one from it.",
    )
    train.set_defaults(command=_train)
    train.add_argument("--run", metavar="NAME", help="name of the run (default: named after the parameters)")
    train.add_argument("--quantized", action="store_true", help="train the quantized network as well")
    train.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    _add_parameters(train, _training(notebooks))

    _add_sweep(commands)
    simulate = commands.add_parser(
        "simulate",
        help="run the integer network of a run over time",
        allow_abbrev=False,
        description="Run the integer network over the test images and print accuracy, spikes and SOPs per step.",
    )
    simulate.set_defaults(command=_simulate)
    simulate.add_argument("run", metavar="RUN", help="a run's name")
    simulate.add_argument("--time-steps", type=int, metavar="T", help="default: until every image is silent")
    simulate.add_argument("--samples", type=int, metavar="N", help="images of the test set (default: all)")
    simulate.add_argument("--noise-ratio", type=float, default=0.0, metavar="R", help="noise on the pixels")
    simulate.add_argument("--fault", choices=("delete", "flip"), help="what happens to faulty spikes")
    simulate.add_argument("--fault-rate", type=float, default=0.0, metavar="P", help="share of faulty spikes")
    simulate.add_argument("--seed", type=int, default=0, help="of noise and faults (default: 0)")
    simulate.add_argument("--dataset", metavar="PATH", help="where the run's images lie now")
    simulate.add_argument("--logs", action="store_true", help="write the six published logs into the run's figs/")

    _add_bundle(commands)
    _add_bench(commands)
    _add_results(commands)
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
        words = {
            "dest": _MARK + name,
            "default": argparse.SUPPRESS,
            "help": f"{parameter.help} ({default})".strip().replace("%", "%%"),
        }
        if isinstance(parameter.default, bool):
            group.add_argument(flag, action=argparse.BooleanOptionalAction, **words)
        else:
            group.add_argument(flag, metavar=type(parameter.default).__name__.upper(), **words)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    from .data.dataset import absolute_dataset

    given = {name.removeprefix(_MARK): value for name, value in vars(options).items() if name.startswith(_MARK)}
    for name, value in getattr(options, "pairs", []):
        if name in given and given[name] != value:
            raise ValueError(f"two values for {name}, {given[name]!r} and {value!r}: give one")
        given[name] = value
    if isinstance(given.get("dataset"), str):
        given["dataset"] = absolute_dataset(given["dataset"])
    return given


def _study(options: argparse.Namespace, folder: Path) -> int:
    from .batch.study import study
    from .runs.report import results_table

    target = study(_given(options), options.notebooks, options.run, not options.quiet, options.force, folder)
    if (target / "results.json").is_file():
        print(f"\n{results_table(target)}\n")
    for label, path in (("run folder", target), ("notebooks", target / "notebooks"), ("pages", target / "html")):
        print(f"{label:<10}  {path}")
    return 0


def _report(options: argparse.Namespace, folder: Path) -> int:
    from .runs.folder import list_runs, run_folder, runs_root
    from .runs.report import results_table, runs_table

    if options.sweep:
        from .batch.sweep_report import sweep_report

        print(sweep_report(options.sweep))
    elif options.runs:
        print("\n\n".join(results_table(run_folder(run)) for run in options.runs))
    else:
        runs = list_runs()
        print(runs_table(runs) if runs else f"no runs in {runs_root()} yet: `ann-snn study` makes one")
    return 0


def _train(options: argparse.Namespace, folder: Path) -> int:
    from .batch.without_notebooks import ANN_FILE, check_same_ann, train_ann, train_qann
    from .runs.folder import default_run_name, run_folder
    from .runs.manifest import working_in

    notebooks = _training(ordered_notebooks(folder))
    given = check_parameters(_given(options), notebooks)
    target = run_folder(options.run or default_run_name(given, ordered_notebooks(folder)), create=True)
    settings = [
        {n: v for n, v in (defaults_of([path]) | given).items() if n in parameters_of(path) and n != "run"}
        for path in notebooks
    ]
    with working_in(target):
        if options.quantized and (target / ANN_FILE).is_file():
            check_same_ann(target, {name: value for name, value in given.items() if name in settings[0]})
            print(f"quantizing {target / ANN_FILE}")
        else:
            print(f"wrote {train_ann(target, settings[0], options.device)}")
        if options.quantized:
            print(f"wrote {train_qann(target, settings[1], options.device)}")
    return 0


def _simulate(options: argparse.Namespace, folder: Path) -> int:
    from .batch.without_notebooks import simulate_run

    for name in ("time_steps", "samples"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            raise ValueError(f"{name}={getattr(options, name)}: give at least 1")
    table, logs = simulate_run(
        options.run,
        options.time_steps,
        options.samples,
        options.logs,
        options.dataset,
        noise_ratio=options.noise_ratio,
        fault=options.fault,
        fault_rate=options.fault_rate,
        seed=options.seed,
    )
    print(table)
    if logs:
        print(f"logs in {logs}")
    return 0


# Modules that import torch are imported by the functions that need them: --help answers at once.
def _add_results(commands: Any) -> None:
    """Add the three commands to the command line's subparsers."""
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a network that comes with the project, beside what was recorded",
        allow_abbrev=False,
        description="Measure a bundled network on its test set: accuracy over time, code "
        "mismatches, spikes and SOPs, beside the numbers recorded with it. Exit status 1 where one differs.",
    )
    evaluate.set_defaults(command=_evaluate)
    evaluate.add_argument("--pretrained", required=True, metavar="NAME", help="the network's name")
    evaluate.add_argument("--samples", type=int, metavar="N", help="test images (default: all, as recorded)")

    collect = commands.add_parser(
        "collect",
        help="keep the results of finished runs in data/results",
        allow_abbrev=False,
        description="Write data/results/RUN.json for each finished run: results, seed, parameters and provenance.",
    )
    collect.set_defaults(command=_collect)
    collect.add_argument("runs", nargs="*", metavar="RUN", help="a run's name")
    collect.add_argument("--sweep", metavar="NAME", help="the runs of a sweep")
    collect.add_argument("--pretrained", metavar="NAME", help="keep the run's network too, under this name")

    table = commands.add_parser(
        "table",
        help="print the README's table of results",
        allow_abbrev=False,
        description="Print the results of data/results as a Markdown table, beside those of the published system.",
    )
    table.set_defaults(command=_table)


def _evaluate(options: argparse.Namespace, folder: Path) -> int:
    if options.samples is not None and options.samples < 1:
        raise ValueError(f"samples={options.samples}: give at least 1")
    from .runs.report import evaluate_pretrained, evaluation_table

    evaluation = evaluate_pretrained(options.pretrained, options.samples, progress=sys.stderr.isatty())
    print(evaluation_table(evaluation))
    return int(bool(evaluation.differences))


def _collect(options: argparse.Namespace, folder: Path) -> int:
    from .runs.folder import list_runs, runs_root
    from .runs.outcome import collect, keep_network, read_sweep_file

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
    from .runs.outcome import collected_outcomes
    from .runs.published import results_table

    print(results_table(collected_outcomes()))
    return 0
