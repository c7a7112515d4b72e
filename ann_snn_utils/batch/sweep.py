"""A sweep at work: its plan, wave by wave, through joblib; what fails stops only what needs it.

Where a sweep's stages run: threads of this process that each mind a kernel, or the workers of a Dask cluster.

A sweep's own files: what it asked for, and the table of its runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import save_json
from ..runs.folder import runs_root, sweep_folder
from ..runs.manifest import mark_of, read_manifest
from ..runs.parameters import defaults_of
from ..runs.sweeps import SWEEP_FILE, read_sweep_file, run_row, with_differences, write_csv
from .execute import NotebookFailed
from .kernels import close_kernels, closed, warm_kernel
from .pages import export_html
from .progress import View
from .stage import make_stage
from .sweep_grid import Sweep
from .sweep_plan import Plan, Step

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

_WAIT = "60s"


@dataclass(frozen=True)
class Workers:
    """A way to run tasks side by side: how many at a time, and the environment of their kernels."""

    jobs: int
    settings: Mapping[str, str]
    client: Any = field(default=None)

    def parallel(self) -> contextlib.AbstractContextManager[Any]:
        """Give joblib's configuration; the call of `joblib.Parallel` is the same for all of them."""
        import joblib

        if self.client is None:
            # The work is done by kernels, which are processes: a thread only minds one of them.
            return joblib.parallel_config("threading", n_jobs=self.jobs)
        return joblib.parallel_config("dask", client=self.client, n_jobs=self.jobs)

    def forgotten(self) -> bool:
        """Tell whether a cluster holds none of this sweep's tasks any more."""
        return self.client is not None and not any(s.status == "pending" for s in self.client.futures.values())

    def close(self) -> None:
        """Stop the kernels of this sweep, wherever they are; the tasks that still run in one end as interrupted."""
        close_kernels(self.settings)
        if self.client is not None:
            with contextlib.suppress(OSError, TimeoutError):
                self.client.run(close_kernels, dict(self.settings))


@contextlib.contextmanager
def workers(jobs: int, dask: str | None = None, threads: int | None = None) -> Iterator[Workers]:
    """Give the workers of one sweep and stop their kernels at the end.

    jobs: stages at a time, on this machine or for `dask` "local"; a cluster decides by itself. dask: the
    address of a running scheduler, or "local". threads: of each job, chosen so that all jobs together use each
    core once where None. Raises ValueError for a cluster that cannot be reached or whose workers do not see
    this project.
    """
    import joblib

    settings = {"ANN_SNN_RUNS": str(runs_root()), "ANN_SNN_SWEEP": uuid.uuid4().hex[:12]}
    if os.environ.get("ANN_SNN_DATA"):
        settings["ANN_SNN_DATA"] = os.path.abspath(os.path.expanduser(os.environ["ANN_SNN_DATA"]))
    if dask is None:
        chosen = Workers(jobs, settings | _limits(threads or max(1, joblib.cpu_count() // jobs)))
        with _closed(chosen):
            yield chosen
        return
    with _client(dask, jobs) as client:
        seen, slots = _seen(client), Counter()
        for address, threads_there in client.nthreads().items():
            slots[_host(address)] += threads_there
        share = min(worker["cores"] // max(1, slots[_host(address)]) for address, worker in seen.items())
        chosen = Workers(sum(slots.values()), settings | _limits(threads or max(1, share)), client)
        with _closed(chosen):
            yield chosen


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _limits(threads: int) -> dict[str, str]:
    return dict.fromkeys(THREADS, str(threads))


@contextlib.contextmanager
def _closed(chosen: Workers) -> Iterator[None]:
    try:
        yield
    finally:
        chosen.close()


@contextlib.contextmanager
def _client(dask: str, jobs: int) -> Iterator[Any]:
    try:
        from dask.distributed import Client, LocalCluster
    except ModuleNotFoundError:
        raise ValueError('--dask needs dask.distributed: `pip install -e ".[cluster]"`') from None
    if dask == "local":
        with (
            LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                dashboard_address=None,
                memory_limit=0,
                silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(dask, timeout="15s")
    except (OSError, ValueError, TimeoutError) as error:
        raise ValueError(
            f"no Dask scheduler answers at {dask!r} ({error}): give its address, such as tcp://host:8786, or local"
        ) from None
    with client:
        yield client


def look(runs: str) -> dict[str, Any]:
    """Give what a worker sees: this package's folder and versions, the folder of runs, and its cores."""
    import joblib

    from ..runs.provenance import PACKAGE, versions

    seen = {"package": str(PACKAGE), "versions": versions(), "cores": joblib.cpu_count()}
    return seen | {"runs": Path(runs).is_dir()}


def _seen(client: Any) -> dict[str, dict[str, Any]]:
    from ..runs.provenance import PACKAGE, versions

    try:
        client.wait_for_workers(1, timeout=_WAIT)
    except TimeoutError:
        raise ValueError(f"the Dask cluster has had no worker for {_WAIT}: start some") from None
    runs_root().mkdir(parents=True, exist_ok=True)
    try:
        seen = client.run(look, str(runs_root()))
    except ModuleNotFoundError as error:
        raise ValueError(
            f"a worker of the Dask cluster lacks {error.name}: start the workers in this project's environment"
        ) from None
    for address, worker in seen.items():
        if not worker["runs"] or worker["package"] != str(PACKAGE):
            raise ValueError(
                f"worker {address} does not see {runs_root()}, or has the package from {worker['package']} instead "
                f"of {PACKAGE}: its machine needs this project at the same path"
            )
        other = {name: found for name, found in worker["versions"].items() if versions().get(name) != found}
        if other:
            raise ValueError(f"worker {address} has other versions than this machine, {other}: install the same")
    return seen


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
                notebook,
                task.folder,
                task.parameters,
                request,
                donor=donor,
                by=task.settings["ANN_SNN_SWEEP"],
                kernel=lambda: warm_kernel(task.settings),
            )
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


TABLE_FILE = "results.csv"


def write_sweep(sweep: Sweep) -> None:
    """Write what a sweep asks for into its folder, sweeps/<name>/sweep.json."""
    save_json(
        sweep_folder(sweep.name) / SWEEP_FILE,
        {
            "name": sweep.name,
            "notebooks": [path.stem for path in sweep.notebooks],
            "varied": list(sweep.varied),
            "runs": {run: dict(parameters) for run, parameters in sweep.runs.items()},
        },
    )


def read_results(name: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Give the parameters that vary in a sweep, and a row for each of its runs as they are now."""
    asked = read_sweep_file(name)
    rows = [parameters | run_row(run, asked["notebooks"]) for run, parameters in asked["runs"].items()]
    return asked["varied"], with_differences(rows)


def write_results(sweep: Sweep) -> list[dict[str, Any]]:
    """Write the table of a sweep's runs, sweeps/<name>/results.csv, and give its rows."""
    rows = read_results(sweep.name)[1]
    write_csv(rows, sweep_folder(sweep.name) / TABLE_FILE)
    return rows
