"""Where a sweep's stages run: threads of this process that each mind a kernel, or the workers of a Dask cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .kernels import close_kernels
from .runs import runs_root

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
            LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None, memory_limit=0,
                         silence_logs=logging.ERROR) as cluster,
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

    from .provenance import PACKAGE, versions

    seen = {"package": str(PACKAGE), "versions": versions(), "cores": joblib.cpu_count()}
    return seen | {"runs": Path(runs).is_dir()}


def _seen(client: Any) -> dict[str, dict[str, Any]]:
    from .provenance import PACKAGE, versions

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
