"""A sweep from what is asked for to its table: the plan, and the work."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dask.system import CPU_COUNT

from ..files import save_json
from ..runs.folder import RESULTS_FILE, SWEEP_FILE, read_sweep_file, runs_root, sweep_folder
from ..runs.parameters import NOTEBOOKS
from ..runs.sweeps import TABLE_FILE, sweep_report, write_results
from ..tables import aligned
from .engine import Blocked, Engine, Failure, Made, engine
from .execute import NotebookFailed, execute
from .grid import Sweep, build_sweep, parse_settings
from .pages import read_notebook, write_page
from .plan import Plan, plan_sweep
from .progress import View
from .rehearsal import rehearse
from .site import write_site
from .sweep_file import read_sweep

_REPORT = "06_compare_runs"


def make_sweep(
    file: str | os.PathLike[str] | None = None,
    settings: Sequence[str] = (),
    zipped: Sequence[str] = (),
    *,
    notebooks: str | None = None,
    name: str | None = None,
    force: bool = False,
    folder: str | os.PathLike[str] = NOTEBOOKS,
) -> Plan:
    """The plan of a sweep, checked strictly and rehearsed; nothing is written.

    - file: a YAML file with name, notebooks, set and zip, each of them optional
    - settings, zipped: texts such as "k=0,1", combined with all others or taken side by side
    - notebooks, name: used instead of those in the file
    - force: make even what is there, and replace results of other parameters
    - folder: of the notebooks

    Raises ValueError, or FileNotFoundError for missing data, that names what no run can be made from; ValueError
    for the name of a sweep that had other runs.
    """
    content: dict[str, Any] = {"name": Path(file).stem} | read_sweep(file) if file else {}
    filed = {**content.get("set", {}), **content.get("zip", {})}
    for key, given in (("set", settings), ("zip", zipped)):
        extra = parse_settings(given, f"--{key}")
        if twice := [parameter for parameter in extra if parameter in filed]:
            raise ValueError(f"{twice[0]} is given in {file} and by --{key}: give it once")
        content[key] = {**content.get(key, {}), **extra}
    if not content["set"] and not content["zip"]:
        raise ValueError("a sweep needs a YAML file, or --set name=value,value,…")
    content |= {key: given for key, given in (("notebooks", notebooks), ("name", name)) if given}
    asked = build_sweep(content, folder)
    if lost := _recorded_runs(asked.name) - set(asked.runs):
        raise ValueError(
            f"sweep {asked.name!r} had {len(lost)} other runs, such as {min(lost)}: give this one another --name, "
            f"or delete {sweep_folder(asked.name)}, which keeps the runs"
        )
    rehearse(asked.runs, asked.notebooks)
    return plan_sweep(asked, force)


def plan_summary(plan: Plan) -> str:
    """A plan in one line: its runs, and the stages to make, to share, and done already."""
    count = Counter(step.state for steps in plan.steps.values() for step in steps)
    runs = f"{len(plan.steps)} run{'s' * (len(plan.steps) > 1)}"
    stages = f"{count['make']} stages to make, {count['shared']} to share, {count['done']} done already"
    return f"sweep {plan.sweep.name}: {runs}; {stages}"


def plan_text(plan: Plan) -> str:
    """A plan as text: a line for each run, with the state of each of its stages."""
    numbers = {run: f"as {number}" for number, run in enumerate(plan.steps, 1)}
    rows = [("", "run", *(notebook.stem for notebook in plan.sweep.notebooks))]
    width = max(map(len, numbers))
    for number, (run, steps) in enumerate(plan.steps.items(), 1):
        states = (numbers.get(step.donor, f"as {step.donor}") if step.donor else step.state for step in steps)
        rows.append((str(number), f"{run:{width}}", *states))
    return "\n".join([plan_summary(plan), *aligned(rows), "nothing was run: leave out --dry-run to run it"])


def run_sweep(
    plan: Plan,
    *,
    jobs: int | None = None,
    threads: int | None = None,
    dask: str | None = None,
    pages: bool = False,
    folder: str | os.PathLike[str] = NOTEBOOKS,
) -> int:
    """Make what a plan lacks and print its report; 0 where every run is complete, else 1.

    - jobs, threads, dask: as of `engine`, dask the address; one job for each core by default
    - pages: write each run's notebooks as a site of HTML pages too
    - folder: of the notebooks, for the sweep's own page

    Raises ValueError for a cluster that cannot be used. KeyboardInterrupt, once the stages that were being made
    have been stopped and marked, has a note of what is done.
    """
    sweep, notebooks = plan.sweep, [path.stem for path in plan.sweep.notebooks]
    asked = {"name": sweep.name, "notebooks": notebooks, "varied": sweep.varied, "runs": sweep.runs}
    started = time.monotonic()
    try:
        # Not fewer jobs where less is left to make: the number of threads changes the last digits of a training.
        with engine(jobs or CPU_COUNT, dask, threads) as running:
            # Not before: a sweep that cannot begin takes no name.
            save_json(sweep_folder(sweep.name) / SWEEP_FILE, asked)
            made, failures = _work(plan, running)
            seconds = time.monotonic() - started
            page = _page(sweep, Path(folder), running)
        for run in plan.steps if pages else ():
            if (runs_root() / run).is_dir():
                write_site(runs_root() / run, folder=folder)
    except KeyboardInterrupt as interrupt:
        if not (sweep_folder(sweep.name) / SWEEP_FILE).is_file():
            raise
        rows = write_results(sweep.name)
        done = sum(row["state"] == "done" for row in rows)
        interrupt.add_note(f"{done} of {len(rows)} runs are whole; the same command goes on")
        raise
    rows = write_results(sweep.name)
    print("\n" + sweep_report(sweep.name))
    if made or failures:
        how = Counter(outcome.how for outcome in made)
        print(f"{how['made']} stages made and {how['shared']} shared in {seconds:.0f} s, {running.jobs} at a time")
    for label, path in (("table", sweep_folder(sweep.name) / TABLE_FILE), ("page", page)):
        if path:
            print(f"{label:<6} {path}")
    if failures:
        print(_listed(failures), file=sys.stderr)
    return int(bool(failures) or any(row["state"] != "done" for row in rows))


def _recorded_runs(name: str) -> set[str]:
    """The runs of the last sweep of this name; none where its record cannot be read."""
    try:
        return set(read_sweep_file(name).runs)
    except (OSError, ValueError):
        return set()


def _work(plan: Plan, running: Engine) -> tuple[list[Made], list[Failure]]:
    """What came of a plan's steps: those that are there, and the first failure of each run that failed."""
    made, failed = list[Made](), dict[str, Failure]()
    view = View(plan, running.jobs, sys.stderr)
    with view.live:
        for outcome in running.work(plan.pending(), view.tell, force=plan.force):
            step, run = outcome.step, outcome.step.run
            if isinstance(outcome, Failure):
                if run not in failed:
                    failed[run] = outcome
                    view.failed += 1
                    view.line(f"{run}  FAILED in {step.notebook.stem}: {str(outcome)[:200]}")
                for own in plan.steps[run]:
                    view.end(own.key)
                continue
            made.append(outcome)
            view.end(step.key, outcome.seconds if outcome.how == "made" else None)
            view.done += run not in failed and not any(own.key in view.steps for own in plan.steps[run])
            took = f"{outcome.seconds:.1f} s" if outcome.how == "made" else outcome.how
            view.line(f"[{view.done}/{view.runs}] {run}  {step.notebook.stem} {took}")
    return made, list(failed.values())


def _listed(failures: Sequence[Failure]) -> str:
    lines = [f"\n{len(failures)} runs failed or were left out:"]
    for failure in failures:
        error, step = failure.error, failure.step
        executed = error if isinstance(error, NotebookFailed) else None
        cell = "" if executed is None or executed.cell is None else f", cell {executed.cell}"
        text = str(error) if isinstance(error, Blocked) else str(failure)
        lines.append(f"  {step.run}: {step.notebook.stem}{cell}: {text}")
        if executed:
            lines.append(f"    executed notebook: {executed.path}")
    return "\n".join(lines)


def _page(sweep: Sweep, folder: Path, running: Engine) -> Path | None:
    notebook, target = folder / f"{_REPORT}.ipynb", sweep_folder(sweep.name)
    if not notebook.is_file() or not any((runs_root() / run / RESULTS_FILE).is_file() for run in sweep.runs):
        return None
    try:
        how = {"environment": running.environment, "owner": running.name}
        executed = running.call(execute, notebook, target, {"sweep": sweep.name}, **how)
        return write_page(read_notebook(executed), target / "html" / f"{_REPORT}.html")
    except (NotebookFailed, ValueError) as error:
        print(f"ann-snn: the sweep's page could not be made: {error}", file=sys.stderr)
        return None
