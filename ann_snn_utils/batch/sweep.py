"""A sweep from what is asked for to its table: the plan, the work, and how far it is."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from dask.system import CPU_COUNT
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from ..files import save_json
from ..runs.folder import RESULTS_FILE, SWEEP_FILE, read_sweep_file, runs_root, sweep_folder
from ..runs.parameters import NOTEBOOKS
from ..runs.sweeps import TABLE_FILE, sweep_report, write_results
from ..tables import aligned
from .engine import Blocked, Engine, Failure, Made, engine
from .execute import NotebookFailed, execute
from .grid import Sweep, build_sweep, parse_settings, read_sweep, rehearse
from .pages import read_notebook, write_page, write_site
from .plan import Plan, Step, plan_sweep

_REPORT = "06_compare_runs"

# Running stages that a view shows, and seconds after which it writes a line where it cannot redraw itself.
_SHOWN, _QUIET_SECONDS = 8, 60.0


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
    had: set[str] = set()
    with contextlib.suppress(OSError, ValueError):  # a first sweep of this name, or a record that cannot be read
        had = set(read_sweep_file(asked.name).runs)
    if lost := had - set(asked.runs):
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


class View:
    """A sweep at work: runs done and failed, running stages with their epoch, and the time that is left.

    On a terminal it redraws itself while `live` runs; elsewhere a summary is written when nothing was for a minute.
    """

    def __init__(self, plan: Plan, jobs: int, stream: TextIO) -> None:
        self.steps = {step.key: step for step in plan.pending()}
        self.total, self.runs, self.jobs, self.failed = len(self.steps), len(plan.steps), jobs, 0
        self.done = sum(all(step.state == "done" for step in own) for own in plan.steps.values())
        self.seconds: dict[tuple[str, str], list[float]] = {}
        self.running: dict[str, TaskID] = {}
        self.started = self.last_line = time.monotonic()
        self.lock = threading.Lock()
        console = Console(file=stream, highlight=False, soft_wrap=True)
        columns = BarColumn(20), TextColumn("{task.description}", markup=False)
        self.live = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.bar = self.live.add_task("", total=self.total)

    def line(self, text: str) -> None:
        """Write one line that stays."""
        self.last_line = time.monotonic()
        self.live.console.print(Text(text))

    def tell(self, key: str, text: str) -> None:
        """Show a line that a running stage printed."""
        with self.lock:
            if key not in self.steps:
                return
            step, epoch = self.steps[key], re.search(r"epoch \d+/\d+", text)
            shown = f"{step.run}  {step.notebook.stem}  {epoch[0] if epoch else text[:40]}"
            if key not in self.running:
                self.running[key] = self.live.add_task("", total=None)
            self.live.update(self.running[key], description=shown, visible=len(self.running) <= _SHOWN)
            self.live.update(self.bar, description=self.summary(), completed=self.total - len(self.steps))
        if self.live.disable and time.monotonic() - self.last_line > _QUIET_SECONDS:
            self.line(f"{self.summary()} · {shown}")

    def end(self, key: str, seconds: float | None = None) -> None:
        """Note that a stage is there, or will not be made; seconds: what making it took, None where it was not."""
        with self.lock:
            step = self.steps.pop(key, None)
            if step and seconds is not None:
                self.seconds.setdefault(_kind(step), []).append(seconds)
            if key in self.running:
                self.live.remove_task(self.running.pop(key))
            self.live.update(self.bar, description=self.summary(), completed=self.total - len(self.steps))

    def left(self) -> float | None:
        """The seconds that are left, from what like stages took so far; None before the first is done."""
        means = {kind: sum(taken) / len(taken) for kind, taken in self.seconds.items()}
        if not means:
            return None
        any_kind = sum(means.values()) / len(means)
        return sum(means.get(_kind(step), any_kind) for step in list(self.steps.values())) / self.jobs

    def summary(self) -> str:
        """One line: runs done of all, failed, stages done of all, time spent and left."""
        left = self.left()
        parts = [f"{self.done}/{self.runs} runs done"]
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.total - len(self.steps)}/{self.total} stages", clock(time.monotonic() - self.started)]
        if self.steps:
            parts.append("time left unknown yet" if left is None else f"about {clock(left)} left")
        return " · ".join(parts)


def _kind(step: Step) -> tuple[str, str]:
    # All runs of a sweep are given a data set, or none is.
    return step.notebook.stem, step.parameters.get("dataset", "")


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
