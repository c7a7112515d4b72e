"""The engine: Dask works through the graph of a plan's steps, in this process or on a cluster that someone runs.

Dask orders and balances the steps, and gives another worker what a lost one had. A step minds one kernel, which is
a process of its own; so the workers of this process are threads, and nothing listens on a port.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from dask.distributed import Client, Future, KilledWorker, LocalCluster, as_completed, get_worker, wait
from dask.system import CPU_COUNT
from distributed.comm import get_address_host

from ..data.place import data_folder
from ..runs.folder import runs_root
from ..runs.provenance import PACKAGE, versions
from .execute import NotebookFailed, is_stopped, stop_kernels
from .plan import Step
from .stage import make_stage

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

# The profile that a worker takes of its threads would grow with every step, for a page that nobody sees.
_SETTINGS = {"distributed.scheduler.worker-saturation": 1.0, "distributed.worker.profile.enabled": False}

_WORKER_SECONDS = 60

# What a stopped sweep's steps may take to note that they were interrupted.
_STOP_SECONDS = 20


@dataclass(frozen=True)
class Made:
    """A step that is there: how it came to be, as of `make_stage`, and the seconds that took."""

    step: Step
    how: str
    seconds: float


@dataclass(frozen=True)
class Failure:
    """A step that could not be made, and the error that it stopped at."""

    step: Step
    error: BaseException

    def __str__(self) -> str:
        if isinstance(self.error, NotebookFailed):
            return f"{self.error.ename}: {self.error.evalue}"
        return f"{type(self.error).__name__}: {self.error}"


class Blocked(RuntimeError):
    """A step of another run, which this one needs, failed."""


@dataclass(frozen=True)
class Engine:
    """Workers for one sweep: how many stages at a time, and what is added to the environment of their kernels."""

    client: Client
    jobs: int
    environment: dict[str, str]
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    futures: dict[str, Future] = field(default_factory=dict)

    def work(
        self, steps: Sequence[Step], tell: Callable[[str, str], object], *, force: bool = False
    ) -> Iterator[Made | Failure]:
        """Make steps, each as soon as those that it needs are there; what came of each, as it comes.

        - steps: each after those that it needs
        - tell: called, in another thread, with a step's key and each line that its notebook prints
        - force: make even what is there

        After a failure the steps that need it are not made: those of the same run give the same failure again.
        """
        self.client.subscribe_topic(self.name, lambda event: tell(*event[1]["line"]))
        make = functools.partial(_make, owner=self.name, environment=self.environment, force=force)
        for place, step in enumerate(steps):
            needs = [self.futures[key] for key in step.needs if key in self.futures]
            # Dask knows like tasks by the first part; it holds those of a long list back, so that runs are finished
            # one by one, in their order.
            key = f"{self.name}-{step.notebook.stem}", step.run
            self.futures[step.key] = self.client.submit(make, step, needs, key=key, priority=-place, pure=False)
        asked = {self.futures[step.key]: step for step in steps}
        for future in as_completed(asked):
            yield future.result() if future.status == "finished" else Failure(asked[future], _given_up(future))

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """The result of a function, called on a worker."""
        call = functools.partial(function, *arguments, **named)
        future = self.futures[function.__name__] = self.client.submit(call, pure=False)
        return future.result()

    def stop(self) -> None:
        """Kill the kernels of this sweep, wherever they are, and wait until its steps have noted that."""
        with contextlib.suppress(OSError, TimeoutError):
            self.client.run(stop_kernels, self.name)
            wait(list(self.futures.values()), timeout=_STOP_SECONDS)


def _make(
    step: Step, needs: Sequence[Made | Failure], owner: str, environment: dict[str, str], force: bool
) -> Made | Failure:
    """Make one step on a worker; never raises."""
    for need in needs:
        if isinstance(need, Failure):
            if need.step.run == step.run:
                return need
            return Failure(step, Blocked(f"needs this stage of {need.step.run}, which failed"))
    if is_stopped(owner):
        # Before it begins: its run is none that was interrupted.
        return Failure(step, KeyboardInterrupt())
    folder, started, log = Path(environment["ANN_SNN_RUNS"]) / step.run, time.monotonic(), get_worker().log_event
    if str(data_folder()) != environment["ANN_SNN_DATA"]:
        # Images are looked at here too, and are those of who asks.
        os.environ["ANN_SNN_DATA"] = environment["ANN_SNN_DATA"]
    try:
        how = make_stage(
            step.notebook,
            folder,
            step.parameters,
            step.request,
            tell=lambda line: log(owner, {"line": [step.key, line]}),
            environment=environment,
            donor=None if step.donor is None else folder.parent / step.donor,
            after=step.after,
            force=force,
            owner=owner,
        )
    except (Exception, KeyboardInterrupt) as error:  # a full disk, or `stop`: it ends this run and no other
        return Failure(step, error)
    return Made(step, how, time.monotonic() - started)


def _given_up(future: Future) -> Exception:
    error = future.exception() if future.status == "error" else None
    if isinstance(error, KilledWorker):
        error = RuntimeError("the cluster gave it up, because the workers that had it died")
    return RuntimeError(f"{error or 'the cluster is gone'}: give the same command again")


@contextlib.contextmanager
def engine(jobs: int, address: str | None = None, threads: int | None = None) -> Iterator[Engine]:
    """An engine for one sweep; where the block is left by an error or Ctrl-C, its kernels are stopped.

    - jobs: stages at a time, on this machine or for "local"; a cluster decides by itself
    - address: of a running scheduler, or "local" for one with processes of its own; None: this process
    - threads: of each job; None lets all jobs together use each core once, and a single job what it likes

    Raises ValueError for a cluster that cannot be reached, or whose workers do not see this project.
    """
    environment = {"ANN_SNN_RUNS": str(runs_root().absolute()), "ANN_SNN_DATA": str(data_folder())}
    with contextlib.ExitStack() as stack:
        if address is None:
            client = stack.enter_context(_in_process(jobs))
            if threads or jobs > 1:
                import torch  # which takes seconds, in each worker of a cluster

                # $OMP_NUM_THREADS, which torch heeds, allows no job more than itself.
                share = min(torch.get_num_threads(), max(1, CPU_COUNT // jobs))
                environment |= dict.fromkeys(_THREADS, str(threads or share))
        else:
            client = stack.enter_context(_on_cluster(address, jobs))
            seen, slots = _check_workers(client, environment), Counter[str]()
            for worker, number in client.nthreads().items():
                slots[get_address_host(worker)] += number
            share = min(found["cores"] // max(1, slots[get_address_host(worker)]) for worker, found in seen.items())
            environment |= dict.fromkeys(_THREADS, str(threads or max(1, share)))
            jobs = sum(slots.values())
        running = Engine(client, jobs, environment)
        try:
            yield running
        except BaseException:
            running.stop()
            raise


@contextlib.contextmanager
def _in_process(jobs: int) -> Iterator[Client]:
    # Scheduler and worker would each serve HTTP, the scheduler on all interfaces: neither goes on doing so.
    nowhere = "127.0.0.1:0"
    with (
        dask.config.set(_SETTINGS),
        LocalCluster(
            n_workers=1,
            threads_per_worker=jobs,
            processes=False,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
            dashboard_address=nowhere,
            worker_dashboard_address=nowhere,
            scheduler_kwargs={"dashboard": False},
        ) as cluster,
        Client(cluster) as client,
    ):
        for node in (cluster.scheduler, *cluster.workers.values()):
            node.http_server.stop()
        yield client


@contextlib.contextmanager
def _on_cluster(address: str, jobs: int) -> Iterator[Client]:
    if address == "local":
        plain = {"dashboard_address": None, "memory_limit": 0, "silence_logs": logging.ERROR}
        with LocalCluster(n_workers=jobs, threads_per_worker=1, **plain) as cluster, Client(cluster) as client:
            yield client
        return
    try:
        client = Client(address, timeout="15s")
    except (OSError, ValueError, TimeoutError) as error:
        remedy = "give one such as tcp://host:8786, or local"
        raise ValueError(f"no Dask scheduler answers at {address!r} ({error}): {remedy}") from None
    with client:
        yield client


def worker_state(runs: str, data: str) -> dict[str, Any]:
    """What a worker sees: this package's folder and versions, whether the folders are there, and its cores."""
    missing = [folder for folder in (runs, data) if folder and not Path(folder).is_dir()]
    return {"package": str(PACKAGE), "versions": versions(), "cores": CPU_COUNT, "missing": missing}


def _check_workers(client: Client, environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    try:
        client.wait_for_workers(1, timeout=_WORKER_SECONDS)
    except TimeoutError:
        raise ValueError(f"the Dask cluster has had no worker for {_WORKER_SECONDS} s: start some") from None
    runs_root().mkdir(parents=True, exist_ok=True)
    # The folder of images need not be there before something is fetched.
    data = environment["ANN_SNN_DATA"]
    asked = functools.partial(worker_state, environment["ANN_SNN_RUNS"], data if os.path.isdir(data) else "")
    try:
        seen = client.run(asked)
    except Exception as error:
        # What fails on its way to a worker comes back as text.
        if not (lacks := re.search(r"No module named '([\w.]+)'", str(error))):
            raise
        remedy = "start the workers in this project's environment"
        raise ValueError(f"a worker of the Dask cluster lacks {lacks[1]}: {remedy}") from None
    for address, worker in seen.items():
        if worker["missing"] or worker["package"] != str(PACKAGE):
            raise ValueError(
                f"worker {address} does not see {', '.join(worker['missing']) or PACKAGE} and has the package from "
                f"{worker['package']}: its machine needs this project and its data at the same path"
            )
        other = {name: found for name, found in worker["versions"].items() if versions().get(name) != found}
        if other:
            raise ValueError(f"worker {address} has other versions than this machine, {other}: install the same")
    return seen
