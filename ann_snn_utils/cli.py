"""The command line, `ann-snn` or `python -m ann_snn_utils`: run studies, show results, use the networks elsewhere.

What imports torch or papermill is imported by the command that needs it, so that --help answers at once.
"""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from . import __version__
from .checks import FAULTS
from .runs.parameters import NOTEBOOKS, Parameter, ordered_notebooks, takers_of

_COUNT = click.IntRange(min=1)
_values = functools.partial(click.option, metavar="NAME=VALUES", multiple=True)
_names = functools.partial(
    click.option, metavar="LIST", type=lambda text: tuple(name.strip() for name in text.split(",") if name.strip())
)
_dataset = click.option("--dataset", metavar="PATH", help="Where the network's images lie now.")


def main(arguments: Sequence[str] | None = None, folder: Path = NOTEBOOKS) -> int:
    """Run a command and return its exit code: 2 for a user's mistake, 1 for a failing notebook, 130 for Ctrl-C.

    folder: that of the notebooks which `study` and `sweep` run.
    """
    for stream in (sys.stdout, sys.stderr):
        # A terminal or a file in an old encoding has no µ: a question mark is better than no results.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        return _command_line(folder).main(arguments, "ann-snn", standalone_mode=False) or 0
    except click.Abort as abort:
        print("\n".join(["interrupted", *getattr(abort.__cause__, "__notes__", [])]), file=sys.stderr)
        return 130
    except click.BadParameter as mistake:
        status, said = 2, mistake.format_message()
    except click.ClickException as mistake:
        mistake.show()
        return mistake.exit_code
    except (ValueError, OSError) as error:
        status, said = 2, str(error)
    except ModuleNotFoundError as error:
        status, said = 2, f"{error.name} is not installed: run `make setup`"
    except RuntimeError as error:
        from .batch.execute import NotebookFailed

        if not isinstance(error, NotebookFailed):
            raise
        status, said = 1, str(error)
    print(f"ann-snn: {said}", file=sys.stderr)
    return status


def _command_line(folder: Path) -> click.Group:
    own = {option.name for option in study.params}
    parameters = takers_of(ordered_notebooks(folder))
    options = [_option(name, takers) for name, takers in parameters.items() if name not in own]
    with_parameters = click.Command("study", None, study.callback, [*study.params, *options], study.help)
    others = (sweep, runs, report, networks, simulate, animate, evaluate, collect, table, energy, bundle, bench)
    about = "All-integer spiking neural networks, studied in notebooks: run the study, print its results, and "
    about += "take its networks elsewhere.\n\n`ann-snn COMMAND --help` says what a command takes."
    settings = {"obj": folder, "max_content_width": 100}
    group = click.Group("ann-snn", [with_parameters, *others], help=about, context_settings=settings)
    return click.version_option(__version__, prog_name="ann-snn")(group)


def _option(name: str, takers: Mapping[str, Parameter]) -> click.Option:
    """The option of a parameter of notebooks: its value stays text, which the study reads strictly."""
    first, *_ = takers.values()
    places: dict[str, list[str]] = {}
    for stem, parameter in takers.items():
        places.setdefault(repr(parameter.default), []).append(stem[:2])
    defaults = "; ".join(f"{default} in {', '.join(stems)}" for default, stems in places.items())
    flag, text = name.replace("_", "-"), f"{first.help} (default {defaults})".strip()
    if isinstance(first.default, bool):
        return click.Option([f"--{flag}/--no-{flag}", name], default=None, help=text)
    return click.Option([f"--{flag}", name], metavar=type(first.default).__name__.upper(), help=text)


@click.command()
@click.option("--run", metavar="NAME", help="Name of the run (default: named after the parameters).")
@click.option("--notebooks", metavar="LIST", default="00-06", show_default=True, help="Which notebooks.")
@click.option("--force", is_flag=True, help="Make again what is there already.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--site", metavar="DIR", type=Path, help="Write the pages there too, as a site of plain files.")
@click.option("-p", "pairs", metavar="NAME VALUE", nargs=2, multiple=True, help="Set a parameter, as in papermill.")
@click.pass_obj
def study(folder: Path, quiet: bool, site: Path | None, pairs: Sequence[Any], **options: Any) -> None:
    """Run the notebooks in order and print the results.

    What the run has already, made with the same parameters, is not made again. Below the first options stand the
    parameters of the notebooks, each with its default and with the notebooks that take it.
    """
    from .batch.study import study as run_study
    from .runs.folder import RESULTS_FILE
    from .runs.report import run_report

    asked = {name: options.pop(name) for name in ("run", "notebooks", "force")}
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in pairs:
        if given.setdefault(name, value) != value:
            raise ValueError(f"two values for {name}, {given[name]!r} and {value!r}: give one")
    target = run_study(given, **asked, progress=not quiet, folder=folder, site=site)
    if (target / RESULTS_FILE).is_file():
        print(f"\n{run_report(target)}\n")
    index = (site or target / "html") / "index.html"
    for label, path in (("run folder", target), ("notebooks", target / "notebooks"), ("pages", index)):
        print(f"{label:<10}  {path}")


@click.command()
@click.argument("file", metavar="[SWEEP.yaml]", required=False)
@_values("--set", "settings", help="Values to combine with all others: k=0,1,2 or seed=0..4 (repeatable).")
@_values("--zip", "zipped", help="Values to take side by side with those of the other --zip (repeatable).")
@click.option("--notebooks", metavar="LIST", help="Which notebooks (default: the file's, or 01-04).")
@click.option("--name", metavar="NAME", help="Name of the sweep (default: the file's, or named after --set).")
@click.option("--jobs", type=_COUNT, metavar="N", help="Stages at a time (default: one for each core).")
@click.option("--threads", type=_COUNT, metavar="N", help="Threads of each job (default: cores / jobs).")
@click.option("--dask", metavar="ADDRESS", help="Run on a Dask cluster: tcp://host:8786, or local.")
@click.option("--pages", is_flag=True, help="Write each run's notebooks as a site of HTML pages too.")
@click.option("--force", is_flag=True, help="Make again what is there already.")
@click.option("--dry-run", is_flag=True, help="Print the plan, with what is there already, and stop.")
@click.pass_obj
def sweep(folder: Path, dry_run: bool, **options: Any) -> int:
    """Run a grid of parameters, in parallel or on a Dask cluster.

    Every combination is a run of the notebooks. The file holds name, notebooks, set and zip as YAML. Equal stages
    are made once and shared, and the same command goes on where it was stopped. The exit status is 1 where a run
    failed.
    """
    from .batch.sweep import make_sweep, plan_summary, plan_text, run_sweep

    asked = {name: options.pop(name) for name in ("file", "settings", "zipped", "notebooks", "name", "force")}
    plan = make_sweep(**asked, folder=folder)
    print(plan_text(plan) if dry_run else plan_summary(plan), flush=True)
    return 0 if dry_run else run_sweep(plan, folder=folder, **options)


@click.command()
def runs() -> None:
    """List the runs, with the accuracy that each reached.

    A run that is not finished tells what it has. `ann-snn report RUN` prints one run's results.
    """
    from .runs.report import runs_table

    print(runs_table())


@click.command()
@click.argument("named", nargs=-1, metavar="[RUN]...")
@click.option("--sweep", metavar="NAME", help="The runs of a sweep, each with what varied.")
@click.pass_context
def report(context: click.Context, named: Sequence[str], sweep: str | None) -> None:
    """Print the results of runs.

    Where no run is named, every run has one line, as in `ann-snn runs`.
    """
    from .runs.folder import run_folder
    from .runs.report import run_card
    from .runs.sweeps import sweep_report

    if sweep and named:
        raise click.UsageError("Give runs, or --sweep NAME for those of a sweep.")
    if sweep:
        print(sweep_report(sweep))
    elif named:
        print("\n\n".join(run_card(run_folder(run)) for run in named))
    else:
        context.invoke(runs)


@click.command()
def networks() -> None:
    """List the networks that can be named.

    Every command that takes a NETWORK, and the `run` of notebooks 04, 05 and 08, take the names printed here:
    bundled:NAME for one that comes with the project, and the name of a run for that run's. Commands take the path
    of a folder too, such as ./mine, where `save_network` kept a network of yours.
    """
    from .runs.report import networks_table

    print(networks_table())


@click.command()
@click.argument("network")
@click.option("--time-steps", type=_COUNT, metavar="T", help="Default: until every image is silent.")
@click.option("--samples", type=_COUNT, metavar="N", help="Images of the test set (default: all).")
@click.option("--noise-ratio", type=float, default=0.0, metavar="R", help="Noise on the pixels.")
@click.option("--fault", type=click.Choice(FAULTS), help="What happens to faulty spikes.")
@click.option("--fault-rate", type=float, metavar="P", help="Share of faulty spikes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of noise and faults.")
@_dataset
@click.option("--logs", is_flag=True, help="Write the six published logs to figs/ of the run, or of its trial.")
def simulate(network: str, **how: Any) -> None:
    """Run a network over time and print every step.

    The columns are accuracy, silent images, spikes and SOPs on the test set. NETWORK is a run's name, or
    bundled:NAME for a network that comes with the project, which becomes the run NAME.
    """
    from .runs.evaluation import simulate_run
    from .runs.gallery import run_named

    text, logs = simulate_run(run_named(network), **how)
    print(text)
    if logs:
        print(f"logs in {logs}")


@click.command()
@click.argument("network")
@click.option("--sample", type=click.IntRange(min=0), default=0, help="Its number in notebook 05 (default: 0).")
@click.option("--time-steps", type=_COUNT, metavar="T", help="Default: until the image is silent.")
@click.option("--out", metavar="FILE", type=Path, help="A new .gif or .html file (default: NETWORK-SAMPLE.gif).")
@_dataset
def animate(network: str, sample: int, time_steps: int | None, out: Path | None, dataset: str | None) -> None:
    """Write the spikes of one image as an animation.

    Each time step is a frame with the spikes of every layer and the class scores. A .gif plays anywhere; an .html
    page has a slider and needs no network. NETWORK is a run's name, or bundled:NAME.
    """
    from .explore.images import stand_ins
    from .explore.sample import animate, unused
    from .runs.gallery import open_network

    if out and out.exists():
        raise FileExistsError(f"{out} is there already: give --out the path of a new file, or remove this one")
    opened = open_network(network, dataset, stand_ins)
    # Into the working directory, also where the network is the path of a folder.
    target = out or unused(f"{Path(network.rpartition(':')[2].strip()).resolve().name}-{sample}", ".gif")
    print(f"wrote {animate(opened, target, sample, time_steps)}: image {sample} of {opened.samples.name}")


def _one_network(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument `network` of a command; a bundled one was once named by --pretrained."""

    @click.argument("network", required=False)
    @click.option("--pretrained", metavar="NAME", hidden=True)
    @functools.wraps(command)
    def named(network: str | None, pretrained: str | None, **how: Any) -> Any:
        if bool(network) == bool(pretrained):
            raise click.UsageError("Name one network: a run, or bundled:NAME (`ann-snn networks` lists them).")
        return command(network or f"bundled:{pretrained}", **how)

    return named


@click.command()
@_one_network
@click.option("--samples", type=_COUNT, metavar="N", help="Test images (default: all, as recorded).")
def evaluate(network: str, samples: int | None) -> int:
    """Measure a network beside its record.

    NETWORK is bundled:NAME, a run's name, or the path of a folder with a pair of networks. The whole test set takes
    accuracy over time, code mismatches, spikes and SOPs; the exit status is 1 where one of them differs from what
    is recorded.
    """
    from .runs.evaluation import evaluate_network, evaluation_table

    evaluation = evaluate_network(network, samples, progress=sys.stderr.isatty())
    print(evaluation_table(evaluation))
    return int(bool(evaluation.differences))


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN...")
@click.option("--sweep", metavar="NAME", help="The runs of a sweep.")
@click.option("--as", "--pretrained", "pretrained", metavar="bundled:NAME", help="Keep the run's network too.")
@click.option("--force", is_flag=True, help="Replace what is kept of another setting.")
def collect(runs: Sequence[str], sweep: str | None, pretrained: str | None, force: bool) -> int:
    """Keep the results of finished runs in data/results.

    RUN.json there holds results, seed, parameters and provenance. What was kept of other parameters or images under
    a name is replaced only with --force.
    """
    from .runs.folder import list_runs, read_sweep_file, runs_root
    from .runs.gallery import bundled_name
    from .runs.results import check_name_free, collect, keep_network

    if not (named := [*runs, *(read_sweep_file(sweep).runs if sweep else ())]):
        listed = ", ".join(list_runs()[:5]) or f"none yet in {runs_root()}"
        raise ValueError(f"no run is named: give runs ({listed}), or --sweep NAME")
    if pretrained and len(named) != 1:
        raise ValueError(f"--as {pretrained} names one network, and {len(named)} runs are given: give one")
    status = 0
    for run in dict.fromkeys(named):
        try:
            if name := pretrained and (bundled_name(pretrained) or pretrained):
                check_name_free(run, name, force=force)
            print(f"wrote {collect(run, force)}")
            if name:
                print(f"wrote {keep_network(run, name, force=force)}")
        except (ValueError, OSError) as error:
            print(f"ann-snn: {error}", file=sys.stderr)
            status = 2
    return status


@click.command()
@click.option("--all", "every", is_flag=True, help="Print the page of all settings, data/results/README.md.")
def table(every: bool) -> None:
    """Print the README's table of results.

    Those of data/results stand beside the published system's, in Markdown.
    """
    from .runs.published import all_results, main_table

    print(all_results() if every else main_table() + "\n", end="")


@click.command()
@click.argument("network", required=False)
@click.option("--measure", is_flag=True, help="Measure all bundled networks again, and keep it in data/energy.")
@click.option("--sentence", is_flag=True, help="Print the README's sentence only.")
def energy(network: str | None, measure: bool, sentence: bool) -> None:
    """Print who needs more energy, under which assumptions.

    NETWORK is a run's name, or bundled:NAME; it is measured anew. Without one, what is kept of the bundled networks
    is printed. A factor is the dense network's energy over the spiking network's: above 1 the latter saves.
    """
    from .runs.energy import energy_page, energy_sentence, kept_energy, measure_bundled, measure_energy
    from .runs.gallery import open_network

    if network and (measure or sentence):
        raise click.UsageError("--measure and --sentence are of the bundled networks: leave out NETWORK.")
    if network:
        found = {network: measure_energy(open_network(network))}
    else:
        found = measure_bundled() if measure else kept_energy()
    print(energy_sentence(found) if sentence else energy_page(found))


@click.command()
@_one_network
@click.option("--out", metavar="DIR", required=True, help="The folder to write; it must be new or empty.")
@click.option("--samples", type=_COUNT, metavar="N", help="Test images (default: 32).")
@click.option("--time-steps", type=_COUNT, metavar="T", help="Default: until every image is silent.")
@_dataset
def bundle(network: str, out: str, samples: int | None, time_steps: int | None, dataset: str | None) -> None:
    """Write a network and its golden outputs for hardware.

    NETWORK is a run's name, or bundled:NAME. The folder holds weights, thresholds, input vectors and golden outputs
    as raw and $readmemh files, costs, and readers in C and Python that check it.
    """
    from .runs.gallery import bundle_network

    folder, images = bundle_network(network, Path(out), samples, time_steps, dataset)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"wrote {folder}: {images} samples, {size / 2**20:.1f} MiB; README.md there is the format")
    print(f"check it: cd {shlex.quote(str(folder))} && cc -std=c99 -O2 -o run_bundle run_bundle.c && ./run_bundle")


@click.command()
@click.option("--quick", is_flag=True, help="Small networks, to try the benchmark: their times tell nothing.")
@_names("--contenders", help="Names, with commas between (default: all).")
@_names("--parts", help="Of lenet,few,cifar,vgg,sweeps,whole,training (default: all).")
@click.option("--repeats", type=_COUNT, default=7, show_default=True, metavar="N", help="Rounds.")
@click.option("--no-memory", is_flag=True, help="Leave out the peaks of memory.")
@click.option("--device", metavar="NAME", help="Time dense tensors and their peers there instead, as on cuda.")
@click.option("--show", is_flag=True, help="Measure nothing: print the README's table of the newest result.")
@click.option("--all", "everything", is_flag=True, help="With --show: all of it, as in data/benchmark/README.md.")
@click.option("--output", metavar="FILE", type=Path, help="Default: data/benchmark/[device/]<date>.json.")
def bench(show: bool, everything: bool, output: Path | None, device: str | None, **how: Any) -> None:
    """Time the simulator against an ANN and other simulators.

    The ANN in float32 and, where installed, in ONNX Runtime's int8, SpikingJelly and snnTorch run the same weights
    and images, in turns, and their answers are compared.
    """
    if everything and not show:
        raise click.UsageError("--all says how much of a result to print: give --show too.")
    # Threads of OpenMP and OpenBLAS that spin while they wait slow whoever runs next; read when torch and NumPy are
    # imported. OpenBLAS takes the logarithm of cycles.
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
    from .bench.accelerator import run_on_device
    from .bench.benchmark import FULL, QUICK, run_benchmark, write_result
    from .bench.tables import newest_tables, tables

    given = {name: value for name, value in how.items() if value is not None}
    if show:
        if output or device or given != {"quick": False, "no_memory": False, "repeats": 7}:
            raise click.UsageError("--show measures nothing: leave out all but --all.")
        print(newest_tables(everything))
        return
    quick, memory = given.pop("quick"), not given.pop("no_memory")
    if device and "parts" in given:
        raise click.UsageError("--device has networks of its own: leave out --parts.")
    on_cores = functools.partial(run_benchmark, QUICK if quick else FULL, memory=memory, **given)
    measure = functools.partial(run_on_device, device, quick, **given) if device else on_cores
    result, path = write_result(measure, output, device is not None)
    print("\n".join(["", *tables(result), "", f"wrote {path}"]))
