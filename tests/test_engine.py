"""The engine: steps run side by side without a port, a leak or a word about steps that a cluster lost."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from dask.distributed import KilledWorker
from distributed.client import FutureCancelledError
from toy_notebooks import write_notebook

from ann_snn_utils.batch import engine as engines
from ann_snn_utils.batch.engine import Blocked, Engine, Failure, Made, engine
from ann_snn_utils.batch.execute import NotebookFailed
from ann_snn_utils.batch.plan import Step
from ann_snn_utils.runs.folder import runs_root
from ann_snn_utils.runs.manifest import mark_of
from ann_snn_utils.runs.stage import request_of

pytestmark = pytest.mark.usefixtures("runs")


def step(notebook: Path, run: str, *needs: str) -> Step:
    return Step(run, notebook, {}, request_of(notebook, {}), "make", None, needs)


def listening() -> set[int]:
    return {found.laddr.port for found in psutil.Process().net_connections() if found.status == "LISTEN"}


def test_the_engine_of_this_process_listens_on_no_port(tmp_path: Path) -> None:
    before = listening()
    with engine(2) as running:
        assert running.call(threading.active_count) > 1 and listening() == before


@pytest.mark.parametrize("jobs, threads, given", [(1, None, None), (1, 3, "3"), (4, 2, "2")])
def test_the_threads_of_each_job_are_set_on_purpose(jobs: int, threads: int | None, given: str | None) -> None:
    with engine(jobs, threads=threads) as running:
        assert {running.environment.get(name) for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")} == {given}


def test_jobs_share_the_cores_and_none_takes_more_threads_than_the_user_allows(monkeypatch) -> None:
    monkeypatch.setattr(engines, "CPU_COUNT", 8)
    for allowed, given in ((8, "4"), (3, "3")):
        monkeypatch.setattr("torch.get_num_threads", lambda allowed=allowed: allowed)
        with engine(2) as running:
            assert running.environment["OMP_NUM_THREADS"] == given


@pytest.mark.usefixtures("without_kernels")
def test_a_failed_step_stops_the_rest_of_its_run_and_what_shares_it_and_nothing_else(tmp_path: Path) -> None:
    bad = write_notebook(tmp_path / "01_bad.ipynb", 'run = ""', "print('so far')\nraise KeyError('lost')")
    good = write_notebook(tmp_path / "02_good.ipynb", 'run = ""', "print('good')")
    steps = [step(bad, "a"), step(good, "a", "a/01_bad"), step(good, "b", "a/01_bad"), step(good, "c")]
    said = []
    with engine(2) as running:
        outcomes = {one.step.key: one for one in running.work(steps, lambda *line: said.append(line))}
    lost = outcomes["a/01_bad"]
    assert isinstance(lost, Failure) and isinstance(lost.error, NotebookFailed) and str(lost) == "KeyError: 'lost'"
    assert isinstance(outcomes["c/02_good"], Made) and set(outcomes) == {"a/01_bad", "b/02_good", "c/02_good"}
    blocked = outcomes["b/02_good"]
    assert isinstance(blocked, Failure) and isinstance(blocked.error, Blocked)
    assert str(blocked.error) == "needs this stage of a, which failed"
    assert {("a/01_bad", "so far"), ("c/02_good", "good")} <= set(said)


@pytest.mark.slow
def test_many_steps_leave_nothing_open(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "01_x.ipynb", 'run = ""', "1")
    open_files = []
    with engine(2) as running:
        for batch in (2, 4):
            steps = [step(notebook, f"r{batch}-{number}") for number in range(batch)]
            assert all(isinstance(one, Made) for one in running.work(steps, lambda *line: None))
            open_files.append((psutil.Process().num_fds(), threading.active_count()))
    # Something of the process itself may come and go; one thing left by each of four steps would add four.
    assert all(last < before + 4 for before, last in zip(*open_files, strict=True))


def test_a_step_that_a_cluster_gave_up_says_so_with_the_remedy() -> None:
    worker = SimpleNamespace(address="tcp://gone")
    lost = SimpleNamespace(status="error", exception=lambda: KilledWorker("x", worker, 3))
    again = "give the same command again"
    assert str(engines._given_up(lost)) == f"the cluster gave it up, because the workers that had it died: {again}"
    gone = SimpleNamespace(status="cancelled")
    assert str(engines._given_up(gone)) == f"the cluster is gone: {again}"


def test_a_cluster_that_is_not_there_or_sees_another_project_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no Dask scheduler answers at 'nonsense'"), engine(1, "nonsense"):
        pass
    found = {"package": "/elsewhere", "versions": {}, "cores": 2, "missing": []}
    client = SimpleNamespace(wait_for_workers=lambda *_, **__: None, run=lambda function: {"tcp://w": found})
    with pytest.raises(ValueError, match="tcp://w does not see .* has the package from /elsewhere"):
        engines._check_workers(client, {"ANN_SNN_RUNS": "x", "ANN_SNN_DATA": "y"})
    found |= {"package": str(engines.PACKAGE), "versions": {"torch": "0.1"}}
    with pytest.raises(ValueError, match="tcp://w has other versions than this machine, {'torch': '0.1'}"):
        engines._check_workers(client, {"ANN_SNN_RUNS": "x", "ANN_SNN_DATA": "y"})
    found |= {"versions": {}, "missing": ["/data"]}
    with pytest.raises(ValueError, match="tcp://w does not see /data"):
        engines._check_workers(client, {"ANN_SNN_RUNS": "x", "ANN_SNN_DATA": "y"})


@pytest.mark.slow
def test_an_engine_that_is_left_by_an_error_stops_its_steps(tmp_path: Path) -> None:
    notebook = write_notebook(
        tmp_path / "01_x.ipynb", 'run = ""', "import time\nprint('on', flush=True)\ntime.sleep(600)"
    )
    begun = threading.Event()

    def leave(running: Engine) -> None:
        work = running.work(
            [step(notebook, "a"), step(notebook, "b")], lambda key, line: line == "on" and begun.set()
        )

        def follow() -> None:
            with contextlib.suppress(FutureCancelledError):
                list(work)

        threading.Thread(target=follow).start()
        begun.wait()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), engine(1) as running:
        leave(running)
    assert mark_of(runs_root() / "a").state == "interrupted"
    assert not (runs_root() / "b").exists(), "it had not begun"


def test_a_worker_that_lacks_the_package_is_told_so() -> None:
    def lacking(function):
        # As Dask's scheduler hands it on.
        raise Exception("""ModuleNotFoundError("No module named 'ann_snn_utils'")""")

    client = SimpleNamespace(wait_for_workers=lambda *_, **__: None, run=lacking)
    with pytest.raises(ValueError, match="lacks ann_snn_utils: start the workers in this project's environment"):
        engines._check_workers(client, {"ANN_SNN_RUNS": "x", "ANN_SNN_DATA": "y"})
