"""A sweep at work: its plan, wave by wave, through joblib; what fails stops only what needs it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .execute import NotebookFailed
from .export import export_html
from .kernels import closed, warm_kernel
from .manifest import read_manifest
from .notebooks import defaults_of
from .runs import runs_root
from .stage_run import make_stage
from .sweep_plan import Plan, Step
from .sweep_view import View
from .unfinished import mark_of
from .workers import Workers

_GIVEN_UP = 10


@dataclass(frozen=True)
class Task:
    """Stages of one run that can be made one after another: notebook, request and the donor's folder of each."""

    run: str
    folder: Path
    parameters: Mapping[str, Any]
    steps: tuple[tuple[Path, Mapping[str, Any], Path | None], ...]
    settings: Mapping[str, str]
    pages: bool


@dataclass(frozen=True)
class Made:
    """A stage that is there: how it came to be, the seconds that took, and the notebook's own of these."""

    notebook: str
    how: str
    seconds: float
    compute: float


@dataclass(frozen=True)
class Failure:
    """A stage that could not be made: the cell and its error, and the executed notebook's path, where known."""

    run: str
    notebook: str
    error: str
    cell: int | None = None
    path: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a task: the stages that are there now, and the failure that ended it."""

    run: str
    made: tuple[Made, ...]
    failure: Failure | None = None
    interrupted: bool = False


def work(task: Task) -> Outcome:
    """Make the stages of a task, in a thread or on a worker, and give what came of it. Never raises."""
    made: list[Made] = []
    for notebook, request, donor in task.steps:
        if closed(task.settings):
            return Outcome(task.run, tuple(made), interrupted=True)
        started, failure = time.monotonic(), None
        try:
            how = make_stage(
                notebook, task.folder, task.parameters, request, donor=donor, by=task.settings["ANN_SNN_SWEEP"],
                kernel=lambda: warm_kernel(task.settings),
            )  # fmt: skip
            if task.pages:
                page = task.folder / "html" / f"{notebook.stem}.html"
                if how != "kept" or not page.is_file():
                    export_html(task.folder / "notebooks" / notebook.name, page)
        except NotebookFailed as error:
            failure = Failure(task.run, notebook.stem, f"{error.ename}: {error.evalue}", error.cell, error.path)
        except KeyboardInterrupt:
            return Outcome(task.run, tuple(made), interrupted=True)
        except Exception as error:  # a full disk, say: it ends this task and no other
            failure = Failure(task.run, notebook.stem, f"{type(error).__name__}: {error}")
        if failure:
            return Outcome(task.run, tuple(made), failure)
        compute = read_manifest(task.folder)["stages"][notebook.stem].get("seconds") or 0.0
        made.append(Made(notebook.stem, how, time.monotonic() - started, compute if how == "made" else 0.0))
    return Outcome(task.run, tuple(made))


def make_sweep(plan: Plan, workers: Workers, view: View, pages: bool = False) -> Iterator[Outcome]:
    """Make what a plan lacks and give each task's outcome as it comes.

    A run whose stage failed, and one that waits for that stage, is not gone on with. pages: write HTML pages
    of the executed notebooks too.
    """
    there = {(run, step.key) for run, steps in plan.steps.items() for step in steps if step.state == "done"}
    keys = {(run, step.notebook.stem): step.key for run, steps in plan.steps.items() for step in steps}
    stopped: set[str] = set()
    for wave in range(plan.waves):
        tasks = []
        for run, steps in plan.steps.items():
            chosen = [step for step in steps if step.wave == wave]
            if run in stopped or all(step.state == "done" for step in chosen):
                continue
            missing = _missing(plan, chosen, there)
            if missing:
                stopped.add(run)
                view.drop(run)
                reason = f"needs this stage of {missing[0]}, which failed"
                yield Outcome(run, (), Failure(run, missing[1], reason))
                continue
            tasks.append(_task(plan, run, chosen, workers.settings, pages))
        for outcome in _outcomes(tasks, workers):
            there |= {(outcome.run, keys[outcome.run, made.notebook]) for made in outcome.made}
            if outcome.failure or outcome.interrupted:
                stopped.add(outcome.run)
            yield outcome


def _outcomes(tasks: list[Task], workers: Workers) -> Iterator[Outcome]:
    import joblib

    found: queue.Queue[Outcome | BaseException] = queue.Queue()

    def run_all() -> None:
        try:
            with workers.parallel():
                parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")
                for outcome in parallel(joblib.delayed(work)(task) for task in tasks):
                    found.put(outcome)
        except BaseException as error:
            found.put(error)

    # In a thread, because joblib waits for ever for a task that a cluster has given up.
    threading.Thread(target=run_all, daemon=True).start()
    left, idle = {task.run: task for task in tasks}, 0
    while left:
        try:
            outcome, idle = found.get(timeout=1.0), 0
        except queue.Empty:
            idle = idle + 1 if workers.forgotten() else 0
            if idle < _GIVEN_UP:
                continue
            for run, task in left.items():
                reason = "the cluster gave it up, because the workers that had it died: give the same command again"
                yield Outcome(run, (), Failure(run, task.steps[0][0].stem, reason))
            return
        if isinstance(outcome, BaseException):
            raise outcome
        del left[outcome.run]
        yield outcome


def _missing(plan: Plan, steps: list[Step], there: set[tuple[str, str]]) -> tuple[str, str] | None:
    # What another run of this sweep should have made by now.
    for step in steps:
        awaited = any(step.key == other.key and other.state == "make" for other in plan.steps.get(step.donor, ()))
        if awaited and (step.donor, step.key) not in there:
            return step.donor, step.notebook.stem
    return None


def _task(plan: Plan, run: str, steps: list[Step], settings: Mapping[str, str], pages: bool) -> Task:
    donors = (None if step.donor is None else runs_root() / step.donor for step in steps)
    own = tuple((step.notebook, step.request, donor) for step, donor in zip(steps, donors, strict=True))
    return Task(run, runs_root() / run, dict(plan.sweep.runs[run]), own, dict(settings), pages)


def await_marks(plan: Plan, seconds: float = 20.0) -> None:
    """Wait, after a sweep was stopped, until its stages are marked as interrupted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        marks = (mark_of(runs_root() / run) for run in plan.steps)
        if not any(mark and mark["state"] == "running" for mark in marks):
            return
        time.sleep(0.1)


def data_of(plan: Plan, run: str) -> str:
    """Give the name of a run's data set, by which stages take more or less time."""
    return str((defaults_of(plan.sweep.notebooks) | dict(plan.sweep.runs[run])).get("dataset", ""))
